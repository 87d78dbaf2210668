//! One line of the audit for each token and each change, whoever hangs up.

use std::sync::{Arc, Mutex};

use actix_web::{
    App,
    dev::Service,
    http::Method,
    test::{TestRequest, call_service, init_service},
};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use token_supervisor::{
    Filter, State, TokenKey, TokenSupervisor,
    testing::Profile,
    web::{ApiKey, ApiKeys, Scope, TOKEN_LINE, api},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tracing::{
    Metadata,
    subscriber::{DefaultGuard, set_default},
};
use tracing_subscriber::fmt::MakeWriter;

use super::stage::{ALL, Stage};
use crate::support::{World, eventually, stop, within};

/// What was logged, line by line.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// From now on, of what is done on this thread: the harness serves there.
    pub(super) fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let logged = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
        (log, set_default(logged.finish()))
    }

    /// The lines of the audit.
    pub(super) fn audit(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("ts-test-secret") && !text.contains("alice"), "{text}");
        text.lines().filter(|line| line.contains(" audit: ")).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn keys() -> ApiKeys {
    let granted = [Scope::Token, Scope::Grant, Scope::Admin].into_iter();
    ApiKeys::new([granted.fold(ApiKey::from_secret("billing", "ts-test-secret-k"), ApiKey::scope)])
}

#[actix::test]
async fn every_token_and_every_change_is_one_line_of_the_audit() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let app = init_service(App::new().service(api(supervisor.clone(), keys()))).await;
    let (log, _listening) = Log::listen();
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        let request = TestRequest::with_uri(path).method(method.parse().unwrap()).insert_header(("host", "localhost"));
        let request = headers.iter().fold(request, |request, header| request.insert_header(*header));
        let request = if body.is_null() { request } else { request.set_payload(body.to_string()) };
        within(call_service(&app, request.to_request())).await.status().as_u16()
    };
    let bearer = ("authorization", "Bearer ts-test-secret-k");
    let alice = "/v1/grants/idp/alice";
    let mut lines = 0;
    let mut said = |status: u16, expected: &[&str]| {
        let audit = log.audit();
        for (line, words) in audit[lines..].iter().zip(expected) {
            assert!(words.split(' ').all(|word| line.contains(word)), "{words}: {line}");
            assert!(line.len() < 1_000, "{line}");
        }
        assert_eq!(audit.len() - lines, expected.len(), "{status} {audit:?}");
        lines = audit.len();
    };
    let known = ("if-none-match", "\"g1\"");
    let token = format!("{alice}/token");
    let status = ask("GET", &token, &[bearer], Value::Null).await;
    said(
        status,
        &[
            "caller=\"billing\" action=\"token\" idp=\"idp\" user= generation=1 outcome=\"ok\" grant.id=\"g_ request_id=\"r_",
        ],
    );
    let traced = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let status = ask("GET", &token, &[bearer, ("x-request-id", "ours-1"), traced], Value::Null).await;
    said(status, &["outcome=\"ok\" request_id=\"ours-1\" trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\""]);
    let status = ask("GET", &token, &[bearer, ("x-request-id", "a b"), ("traceparent", "00-x")], Value::Null).await;
    said(status, &["outcome=\"ok\" request_id=\"r_"]);
    said(
        ask("GET", &token, &[bearer, known], Value::Null).await,
        &["outcome=\"not_modified\" generation=1 grant.id=\"g_"],
    );
    said(ask("GET", &token, &[], Value::Null).await, &["caller=\"-\" outcome=\"unauthorized\""]);
    said(ask("GET", alice, &[bearer], Value::Null).await, &[]);
    let batch = json!({"items": [{"idp": "idp", "user": "alice"}, {"idp": "idp", "user": "nobody"}]});
    let status = ask("POST", "/v1/tokens", &[bearer], batch).await;
    said(status, &["action=\"token\" outcome=\"ok\" grant.id=\"g_", "action=\"token\" outcome=\"not_connected\""]);
    let hold = ask("POST", &format!("{alice}/hold"), &[bearer], json!({"reason": "x"})).await;
    said(hold, &["action=\"hold\" outcome=\"ok\" generation=1 grant.id=\"g_"]);
    let retry = ask("POST", &format!("{alice}/retry"), &[bearer], Value::Null).await;
    said(retry, &["action=\"retry\" outcome=\"ok\" generation=1"]);
    let wrong = ask("PUT", alice, &[bearer], json!({"access_token": 1})).await;
    said(wrong, &["action=\"connect\" outcome=\"invalid_request\""]);
    said(
        ask("DELETE", alice, &[bearer], Value::Null).await,
        &["action=\"disconnect\" outcome=\"ok\" generation=2 grant.id=\"g_"],
    );
    let left = ask("DELETE", "/v1/grants?user=alice", &[bearer], Value::Null).await;
    said(left, &["caller=\"billing\" action=\"disconnect\" idp=\"idp\" generation=2 outcome=\"ok\" grant.id=\"g_"]);
    let other = ("authorization", "Bearer ts-test-secret-other");
    let refused = ask("DELETE", "/v1/grants?user=alice", &[other], Value::Null).await;
    said(refused, &["caller=\"-\" action=\"disconnect\" user= outcome=\"unauthorized\""]);
    let refused = ask("POST", "/v1/tokens", &[bearer], json!({"items": [], "timeout": 61})).await;
    said(refused, &["caller=\"billing\" action=\"token\" outcome=\"invalid_request\""]);
    let long = "x".repeat(10_000);
    let names = json!({"items": [{"idp": long, "user": "alice"}, {"idp": "idp", "user": long}]});
    let refused = ask("POST", "/v1/tokens", &[bearer], names).await;
    said(refused, &["action=\"token\" user= outcome=\"invalid_request\"", "idp=\"idp\" outcome=\"invalid_request\""]);
    let hold = ask("POST", "/v1/idps/idp/hold", &[bearer], json!({"reason": "x"})).await;
    said(hold, &["action=\"hold_idp\" idp=\"idp\" outcome=\"ok\""]);
    let retry = ask("POST", "/v1/idps/idp/retry", &[bearer], Value::Null).await;
    said(retry, &["action=\"retry_idp\" idp=\"idp\" outcome=\"ok\""]);
    stop(supervisor).await;
}

/// The names of the audit's events.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<&'static str>>>);

impl MakeWriter<'_> for Names {
    type Writer = std::io::Sink;

    fn make_writer(&self) -> Self::Writer {
        std::io::sink()
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Self::Writer {
        if metadata.target() == "audit" {
            self.0.lock().unwrap().push(metadata.name());
        }
        std::io::sink()
    }
}

#[actix::test]
async fn only_lines_that_are_about_tokens_may_be_written_later() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    within(supervisor.connect(&TokenKey::at("idp").user("alice"), world.sim.consent("alice"))).await.unwrap();
    let app = init_service(App::new().service(api(supervisor.clone(), keys()))).await;
    let names = Names::default();
    let _listening = set_default(tracing_subscriber::fmt().with_writer(names.clone()).finish());
    for (method, path, body, may_wait) in [
        (Method::GET, "/v1/grants/idp/alice/token", json!(null), true),
        (Method::GET, "/v1/grants/idp/nobody/token", json!(null), true),
        (Method::GET, "/v1/authorize/idp/alice", json!(null), true),
        (Method::POST, "/v1/tokens", json!({"items": [{"idp": "idp", "user": "alice"}]}), true),
        (Method::POST, "/v1/grants/idp/alice/rejected", json!({"generation": 7}), false),
        (Method::POST, "/v1/grants/idp/alice/hold", json!({"reason": "x"}), false),
        (Method::DELETE, "/v1/grants/idp/alice", json!(null), false),
    ] {
        let bearer = ("authorization", "Bearer ts-test-secret-k");
        let request = TestRequest::with_uri(path).method(method).insert_header(("host", "localhost"));
        let request =
            request.insert_header(bearer).set_payload(if body.is_null() { String::new() } else { body.to_string() });
        within(call_service(&app, request.to_request())).await;
        let found = std::mem::take(&mut *names.0.lock().unwrap());
        assert_eq!(found.iter().map(|name| *name == TOKEN_LINE).collect::<Vec<_>>(), [may_wait], "{path}");
    }
    stop(supervisor).await;
}

/// Many accounts of one user.
async fn many(world: &World, supervisor: &TokenSupervisor) -> usize {
    const MANY: usize = 100;
    for account in 0..MANY {
        let key = TokenKey::at("idp").user("alice").account(account.to_string());
        within(supervisor.connect(&key, world.sim.consent(&format!("alice {account}")))).await.unwrap();
    }
    MANY
}

async fn ended(supervisor: &TokenSupervisor) -> usize {
    within(supervisor.list(Filter::new().state(State::Revoked).limit(1_000))).await.unwrap().items.len()
}

#[actix::test]
async fn what_is_changed_is_audited_although_nobody_waits_for_the_answer() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let many = many(&world, &supervisor).await;
    let app = init_service(App::new().service(api(supervisor.clone(), keys()))).await;
    let (log, _listening) = Log::listen();
    let ask = |method: Method, path: &str, body: Value| {
        let request = TestRequest::with_uri(path).method(method).insert_header(("host", "localhost"));
        let request = request.insert_header(("authorization", "Bearer ts-test-secret-k"));
        app.call(request.set_payload(body.to_string()).to_request())
    };
    // As actix does with the handler of a connection that is reset.
    assert!(ask(Method::DELETE, "/v1/grants?user=alice", json!({})).now_or_never().is_none());
    eventually("each end is audited", || log.audit().len() == many).await;
    assert_eq!(ended(&supervisor).await, many);
    let consent = json!({"access_token": "ts-test-secret-access"});
    assert!(ask(Method::PUT, "/v1/grants/idp/carol", consent).now_or_never().is_none());
    eventually("the connect is audited", || log.audit().len() == many + 1).await;
    assert!(log.audit()[many].contains("action=\"connect\"") && log.audit()[many].contains("outcome=\"ok\""));
    stop(supervisor).await;
}

#[tokio::test]
async fn an_offboarding_ends_although_its_connection_is_reset() {
    let stage = Stage::new().await;
    let many = many(&stage.world, &stage.supervisor).await;
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    let request =
        format!("DELETE /v1/grants?user=alice HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALL}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    while ended(&stage.supervisor).await == 0 {
        tokio::task::yield_now().await;
    }
    stream.set_zero_linger().unwrap();
    drop(stream);
    // A server that is stopped waits for it, too.
    within(stage.server.stop()).await.unwrap();
    assert_eq!(ended(&stage.supervisor).await, many);
    stop(stage.supervisor).await;
}
