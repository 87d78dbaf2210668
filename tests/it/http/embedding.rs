//! In an actix-web application: the API under a scope, and its own handlers with their callers' tokens.

use std::sync::{Arc, Mutex};

use actix_web::{
    App, HttpRequest, HttpResponse,
    test::{TestRequest, call_service, init_service, read_body, read_body_json},
    web,
};
use serde_json::{Value, json};
use token_supervisor::{
    Error, TokenKey, TokenSupervisor,
    testing::Profile,
    web::{ApiKey, ApiKeys, Caller, IdpName, IdpToken, Scope, api},
};

use crate::support::{LIFE, World, stop, within};

struct Work;

impl IdpName for Work {
    const NAME: &'static str = "idp";
    const ACCOUNT: &'static str = "work";
}

async fn generation(token: IdpToken<Work>) -> String {
    format!("{} {} {:?}", token.key().user(), token.generation(), token)
}

async fn status(supervisor: TokenSupervisor) -> Result<HttpResponse, Error> {
    let status = supervisor.status(&TokenKey::new("nobody", "nowhere")).await?;
    Ok(HttpResponse::Ok().body(status.grant_id))
}

/// The user is who the request says: good enough for a test.
fn caller(request: &HttpRequest) -> Option<String> {
    Some(request.headers().get("x-user")?.to_str().ok()?.to_owned())
}

#[actix::test]
async fn handlers_get_their_callers_tokens_and_errors_are_problems() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::new("alice", "idp").account("work");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    for wrapped in [false, true] {
        let app = App::new().app_data(Caller::by(caller));
        let app =
            if wrapped { app.app_data(web::Data::new(supervisor.clone())) } else { app.app_data(supervisor.clone()) };
        let app = app.route("/generation", web::get().to(generation)).route("/status", web::get().to(status));
        let app = init_service(app).await;
        let ask = async |path: &str, user: Option<&str>| {
            let request = TestRequest::get().uri(path);
            let request = user.into_iter().fold(request, |request, user| request.insert_header(("x-user", user)));
            within(call_service(&app, request.to_request())).await
        };
        world.clock.advance(LIFE);
        let body = read_body(ask("/generation", Some("alice")).await).await;
        let body = String::from_utf8_lossy(&body);
        assert!(body.starts_with("alice g") && !body.contains("ts-test-secret"), "{body}");
        for (path, user, status, code) in [
            ("/generation", Some("bob"), 404, "not_connected"),
            ("/generation", Some(""), 400, "invalid_request"),
            ("/generation", None, 401, "unauthorized"),
            ("/status", None, 404, "unknown_idp"),
        ] {
            let response = ask(path, user).await;
            assert_eq!(response.status().as_u16(), status, "{path} {user:?}");
            assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
            let problem: Value = read_body_json(response).await;
            assert_eq!(problem["code"], code);
        }
    }
    let bare = init_service(App::new().route("/generation", web::get().to(generation))).await;
    let response = call_service(&bare, TestRequest::get().uri("/generation").to_request()).await;
    assert_eq!(response.status(), 500, "a defect of the application, and no panic");
    stop(supervisor).await;
}

#[actix::test]
async fn the_api_is_mounted_beside_an_applications_own_routes() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::new("acme/alice", "idp");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let keys = ApiKeys::new([ApiKey::from_secret("test", "ts-test-secret-k").scope(Scope::Token)]);
    let own = || async { "own" };
    let app = App::new()
        .service(web::scope("/grants/{tenant}").service(api(supervisor.clone(), keys)))
        .route("/v1/tokens", web::get().to(own));
    let app = init_service(app).await;
    let ask = async |path: &str| {
        let request = TestRequest::get().uri(path).insert_header(("authorization", "Bearer ts-test-secret-k"));
        // The harness says that it listens on loopback.
        let request = request.insert_header(("host", "localhost:8080"));
        let response = within(call_service(&app, request.to_request())).await;
        (response.status().as_u16(), String::from_utf8_lossy(&read_body(response).await).into_owned())
    };
    for user in ["acme%2Falice", "~YWNtZS9hbGljZQ"] {
        let (status, body) = ask(&format!("/grants/some/v1/grants/idp/{user}/token")).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(ask("/grants/some/v1/grants/idp/acme/alice/token").await.0, 404);
    assert_eq!(ask("/v1/tokens").await, (200, "own".to_owned()));
    stop(supervisor).await;
}

/// What was logged, line by line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn every_token_and_every_change_is_one_line_of_the_audit() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::new("alice", "idp");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let granted = [Scope::Token, Scope::Grant, Scope::Admin].into_iter();
    let keys = ApiKeys::new([granted.fold(ApiKey::from_secret("billing", "ts-test-secret-k"), ApiKey::scope)]);
    let app = init_service(App::new().service(api(supervisor.clone(), keys))).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
    // The harness serves on this thread.
    let _logging = tracing::subscriber::set_default(subscriber);
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
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let audit: Vec<_> = text.lines().filter(|line| line.contains(" audit: ")).collect();
        assert!(!text.contains("ts-test-secret") && !text.contains("alice"), "{text}");
        for (line, words) in audit[lines..].iter().zip(expected) {
            assert!(words.split(' ').all(|word| line.contains(word)), "{words}: {line}");
            assert_eq!(line.contains("user="), !words.contains("idp\" outcome"), "{line}");
        }
        assert_eq!(audit.len() - lines, expected.len(), "{status} {text}");
        lines = audit.len();
    };
    let known = ("if-none-match", "\"g1\"");
    let token = format!("{alice}/token");
    let status = ask("GET", &token, &[bearer], Value::Null).await;
    said(status, &["caller=\"billing\" action=\"token\" idp=\"idp\" generation=1 outcome=\"ok\" request_id=\"r_"]);
    said(ask("GET", &token, &[bearer, known], Value::Null).await, &["outcome=\"not_modified\" generation=1"]);
    said(ask("GET", &token, &[], Value::Null).await, &["caller=\"-\" outcome=\"unauthorized\""]);
    said(ask("GET", alice, &[bearer], Value::Null).await, &[]);
    let batch = json!({"items": [{"idp": "idp", "user": "alice"}, {"idp": "idp", "user": "nobody"}]});
    let status = ask("POST", "/v1/tokens", &[bearer], batch).await;
    said(status, &["action=\"token\" outcome=\"ok\"", "action=\"token\" outcome=\"not_connected\""]);
    let hold = ask("POST", &format!("{alice}/hold"), &[bearer], json!({"reason": "x"})).await;
    said(hold, &["action=\"hold\" outcome=\"ok\" generation=1"]);
    let wrong = ask("PUT", alice, &[bearer], json!({"access_token": 1})).await;
    said(wrong, &["action=\"connect\" outcome=\"invalid_request\""]);
    said(ask("DELETE", alice, &[bearer], Value::Null).await, &["action=\"disconnect\" outcome=\"ok\" generation=2"]);
    let left = ask("DELETE", "/v1/grants?user=alice", &[bearer], Value::Null).await;
    said(left, &["caller=\"billing\" action=\"disconnect\" idp=\"idp\" generation=2 outcome=\"ok\""]);
    let hold = ask("POST", "/v1/idps/idp/hold", &[bearer], json!({"reason": "x"})).await;
    said(hold, &["action=\"hold_idp\" idp=\"idp\" outcome=\"ok\""]);
    stop(supervisor).await;
}
