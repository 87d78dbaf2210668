//! Every route, with everything that can be wrong with a request: the answer is the documented problem, and nothing
//! changes.

use std::{net::TcpListener, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use token_supervisor::{
    Filter, IdpStatus, Revoke, State, Status, TokenKey,
    web::{ApiKey, Scope, Server},
};

use super::stage::{ALL, Answer, Stage, send};
use crate::support::{breathe, passing, within};

/// A documented operation, with a request that would be granted.
struct Route {
    method: String,
    template: String,
    operation: Value,
}

impl Route {
    /// All that `openapi.json` names.
    async fn all(stage: &Stage) -> Vec<Self> {
        let document = stage.send("GET /openapi.json", &[], b"").await.granted(200);
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap().clone();
        let of_path = |(template, path): (String, Value)| {
            let operations = path.as_object().unwrap().clone().into_iter();
            operations.map(move |(method, operation)| Self {
                method: method.to_uppercase(),
                template: template.clone(),
                operation,
            })
        };
        paths.into_iter().flat_map(of_path).collect()
    }

    fn path(&self, idp: &str, user: &str) -> String {
        self.template.replace("{idp}", idp).replace("{user}", user)
    }

    fn line(&self) -> String {
        format!("{} {}", self.method, self.path("idp", "alice"))
    }

    fn is_open(&self) -> bool {
        self.operation["security"].is_null()
    }

    fn names(&self, what: &str) -> bool {
        self.template.contains(what)
    }

    fn scopes(&self) -> Vec<Scope> {
        let named = |name: &Value| self.operation["x-scopes"].as_array().is_some_and(|scopes| scopes.contains(name));
        let all = [Scope::Token, Scope::Grant, Scope::Admin, Scope::Metrics];
        all.into_iter().filter(|scope| named(&scope.as_str().into())).collect()
    }

    /// What is refused must be documented like this.
    fn refused(&self, what: &str, answer: &Answer, status: u16, code: &str) {
        let route = format!("{} {}: {what}", self.method, self.template);
        assert_eq!(answer.status, status, "{route}: {}", String::from_utf8_lossy(&answer.body));
        let problem = answer.problem(status, code);
        // Nothing of any grant, whoever asks.
        let members: Vec<_> = problem.as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "detail", "request_id", "status", "title", "type"], "{route}");
        let documented = &self.operation["responses"][status.to_string()];
        let said = documented["description"].as_str().unwrap_or_default();
        assert!(said.contains(code), "{route}: {status} {code} is not documented");
    }
}

/// Everything that a request can change: what can be said of every grant, disconnected ones too, and of the identity
/// providers; what was sent to these; and what is stored, byte by byte, whatever it means.
#[derive(Debug, PartialEq)]
struct Everything {
    grants: Vec<(TokenKey, Status)>,
    idps: Vec<IdpStatus>,
    sent: (u64, u64),
    stored: Vec<Vec<u8>>,
}

async fn state(stage: &Stage) -> Everything {
    let all = State::ALL.into_iter().fold(Filter::new(), Filter::state);
    let (sim, mut stored, mut same) = (&stage.world.sim, bytes(stage), 0);
    // What the supervisor writes by itself is over: when it starts, and, every five seconds, the mark of what was connected.
    let has_mark = || {
        let mut files = std::fs::read_dir(stage.world.folder.path().join("tokens.journal")).unwrap();
        files.any(|file| file.unwrap().path().extension().is_some_and(|end| end == "mark"))
    };
    while same < 10 || !has_mark() {
        stage.world.clock.advance(Duration::from_secs(6));
        breathe().await;
        let before = std::mem::replace(&mut stored, bytes(stage));
        same = if stored == before { same + 1 } else { 0 };
    }
    Everything {
        grants: within(stage.supervisor.list(all)).await.unwrap().items,
        idps: stage.supervisor.idps(),
        sent: (sim.requests(), sim.revocations()),
        stored,
    }
}

/// The store's file, and what is written but not yet in it.
fn bytes(stage: &Stage) -> Vec<Vec<u8>> {
    let read = |path: PathBuf| std::fs::read(path).unwrap_or_default();
    vec![read(stage.world.store()), read(stage.world.store().with_extension("db-wal"))]
}

/// With grants of others beside alice's, one of them disconnected, and one of a tenant.
async fn crowded() -> Stage {
    let (stage, _) = Stage::connected().await;
    for (user, idp) in [("bob", "idp"), ("acme/carol", "other"), ("dave", "idp")] {
        let key = TokenKey::at(idp).user(user);
        within(stage.supervisor.connect(&key, stage.world.sim.consent(user))).await.unwrap();
    }
    within(stage.supervisor.disconnect(&TokenKey::at("idp").user("dave"), Revoke::No)).await.unwrap();
    stage
}

const KEY: &str = "ts-test-secret-key-of-a-test";

/// Asks every guarded route with a key that lacks something.
async fn with_key(stage: &Stage, what: &str, key: impl Fn(&Route) -> Option<ApiKey>, path: (&str, &str)) {
    for route in Route::all(stage).await.iter().filter(|route| !route.is_open()) {
        let Some(key) = key(route) else { continue };
        stage.keys.replace([key]);
        let line = format!("{} {}", route.method, route.path(path.0, path.1));
        let answer = stage.send(&line, &[&format!("Authorization: Bearer {KEY}")], b"").await;
        route.refused(what, &answer, 403, "forbidden");
        assert!(answer.header("www-authenticate").unwrap().ends_with("error=\"insufficient_scope\""), "{answer:?}");
    }
}

#[tokio::test]
async fn without_the_right_key_nothing_is_said_or_done() {
    let stage = crowded().await;
    let before = state(&stage).await;
    for route in Route::all(&stage).await.iter().filter(|route| !route.is_open()) {
        for headers in [
            &[][..],
            &["Authorization: Bearer ts-test-secret-key-nobody-has"],
            &["Authorization: Bearer "],
            &["Authorization: Bearer"],
            &[concat!("Authorization: Basic ", "ts-test-secret-key-all")],
            &["X-Api-Key: ts-test-secret-key-all"],
        ] {
            let answer = stage.send(&route.line(), headers, b"").await;
            // More at once would be throttled.
            stage.world.clock.advance(Duration::from_secs(1));
            route.refused(&format!("{headers:?}"), &answer, 401, "unauthorized");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
            let shown = headers.iter().any(|header| header.contains("Bearer ts-"));
            assert_eq!(challenge.contains("error=\"invalid_token\""), shown, "{headers:?}: {challenge}");
        }
    }
    let key = || ApiKey::from_secret("test", KEY);
    let scoped = |route: &Route| route.scopes().into_iter().fold(key(), ApiKey::scope);
    let others = |route: &Route| {
        let all = [Scope::Token, Scope::Grant, Scope::Admin, Scope::Metrics];
        all.into_iter().filter(|scope| !route.scopes().contains(scope)).fold(key(), ApiKey::scope)
    };
    with_key(&stage, "another scope", |route| Some(others(route)), ("idp", "alice")).await;
    let of_idp = |route: &Route| route.names("{idp}").then(|| scoped(route).idps(["other"]));
    with_key(&stage, "another idp", of_idp, ("idp", "alice")).await;
    with_key(&stage, "an idp that does not exist", of_idp, ("nowhere", "alice")).await;
    let of_tenant = |route: &Route| route.names("{idp}").then(|| scoped(route).user_prefix("acme/"));
    with_key(&stage, "another tenant", of_tenant, ("idp", "alice")).await;
    assert_eq!(state(&stage).await, before);
    stage.stop().await;
}

#[tokio::test]
async fn what_a_body_names_must_be_reached_too() {
    let stage = crowded().await;
    let before = state(&stage).await;
    let items = json!([{"idp": "idp", "user": "alice"}, {"idp": "other", "user": "acme/carol"}]);
    let key = || ApiKey::from_secret("test", KEY).scope(Scope::Token);
    for (narrow, reached) in [(key().idps(["idp"]), 0), (key().user_prefix("acme/"), 1)] {
        stage.keys.replace([narrow]);
        let authorization = format!("Authorization: Bearer {KEY}");
        let body = json!({"items": items}).to_string();
        let answer = stage.send("POST /v1/tokens", &[&authorization], body.as_bytes()).await.granted(200);
        assert!(answer["items"][reached]["token"].is_object(), "{answer}");
        let problem = answer["items"][1 - reached]["problem"].as_object().unwrap();
        assert_eq!((&problem["code"], &problem["status"], problem.len()), (&json!("forbidden"), &json!(403), 6));
    }
    assert_eq!(state(&stage).await, before);
    stage.stop().await;
}

#[tokio::test]
async fn names_that_are_none_are_refused_everywhere() {
    let stage = crowded().await;
    let before = state(&stage).await;
    let long = "x".repeat(256);
    for route in Route::all(&stage).await.iter().filter(|route| route.names("{idp}")) {
        for user in ["%00", "a%0Ab", "%C2%85", "%zz", "%FF", "~!", "~YQ==", "~", "~AA", &long] {
            if route.names("{user}") {
                let answer = stage.ask(&format!("{} {}", route.method, route.path("idp", user)), &[], None).await;
                route.refused(user, &answer, 400, "invalid_request");
            }
        }
        for idp in ["IDP", "a%2Fb", "%00", "-", &long] {
            let body = route.operation["requestBody"].is_object().then(|| body(route));
            let answer = stage.ask(&format!("{} {}", route.method, route.path(idp, "alice")), &[], body).await;
            // A name that cannot be configured is not.
            let (status, code) = if route.names("{user}") { (400, "invalid_request") } else { (404, "unknown_idp") };
            route.refused(idp, &answer, status, code);
        }
        let answer = stage.ask(&format!("{} {}", route.method, route.path("nowhere", "alice")), &[], good(route)).await;
        route.refused("unknown idp", &answer, 404, "unknown_idp");
        if route.names("{user}") {
            for account in ["%00", "a%0Ab", &long] {
                let line = format!("{}?account={account}", route.line());
                route.refused(account, &stage.ask(&line, &[], good(route)).await, 400, "invalid_request");
            }
        }
        if route.names("{user}") && route.method != "PUT" {
            for user in ["nobody", "al%2Fice", "~bm9ib2R5", &long[1..]] {
                let answer =
                    stage.ask(&format!("{} {}", route.method, route.path("idp", user)), &[], good(route)).await;
                route.refused(user, &answer, 404, "not_connected");
            }
        }
    }
    assert_eq!(state(&stage).await, before);
    stage.stop().await;
}

/// A body that is as it should be.
fn good(route: &Route) -> Option<Value> {
    route.operation["requestBody"].is_object().then(|| body(route))
}

fn body(route: &Route) -> Value {
    let schema = route.operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    match schema.rsplit('/').next().unwrap() {
        "Grant" => json!({"access_token": "ts-test-secret-never-stored"}),
        "Rejected" => json!({"generation": 1}),
        "Reason" => json!({"reason": "a test"}),
        "Batch" => json!({"items": []}),
        "Reseal" => json!({"after": 0}),
        other => panic!("a body of which the test knows nothing: {other}"),
    }
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_everywhere_and_never_repeated() {
    let stage = crowded().await;
    let before = state(&stage).await;
    let key = format!("Authorization: Bearer {ALL}");
    let routes = Route::all(&stage).await;
    // All at once: the server waits a moment for the rest of a body before it hangs up.
    let asked = routes.iter().filter(|route| route.method != "GET").map(async |route| {
        let unknown = "{\"ts-test-secret-field\": \"ts-test-secret-value\"}";
        for wrong in ["{", "[]", "\"ts-test-secret-text\"", "null", "\u{0}", unknown, "{} {}"] {
            let answer = stage.send(&route.line(), &[&key], wrong.as_bytes()).await;
            route.refused(wrong, &answer, 400, "invalid_request");
            assert!(!String::from_utf8_lossy(&answer.body).contains("ts-test-secret"), "{answer:?}");
        }
        let answer = stage.send(&route.line(), &[&key], b"\xff\xfe").await;
        route.refused("no UTF-8", &answer, 400, "invalid_request");
        let answer = stage.send(&route.line(), &[&key, "Content-Length: 262145"], b"").await;
        route.refused("too large, as it says", &answer, 413, "invalid_request");
    });
    join_all(asked).await;
    let chunked = format!("40001\r\n{}\r\n0\r\n\r\n", " ".repeat(0x40001));
    let line = "PUT /v1/grants/idp/alice";
    let answer = stage.send(line, &[&key, "Transfer-Encoding: chunked"], chunked.as_bytes()).await;
    answer.problem(413, "invalid_request");
    assert_eq!(state(&stage).await, before);
    let (address, headers) = (stage.address, ["Content-Length: 10".to_owned(), key]);
    let slow = tokio::spawn(async move { send(address, line, &[&headers[0], &headers[1]], b"{").await });
    passing(&stage.world, Duration::from_millis(500), slow).await.problem(408, "invalid_request");
    stage.stop().await;
}

#[tokio::test]
async fn what_is_served_is_what_is_documented_and_nothing_else() {
    let stage = crowded().await;
    let before = state(&stage).await;
    let routes = Route::all(&stage).await;
    for route in &routes {
        let there: Vec<_> = routes.iter().filter(|other| other.template == route.template).collect();
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            if there.iter().any(|route| route.method == method) {
                continue;
            }
            let answer = stage.ask(&format!("{method} {}", route.path("idp", "alice")), &[], None).await;
            answer.problem(405, "invalid_request");
            let mut allowed: Vec<_> = answer.header("allow").unwrap().split(", ").collect();
            let mut documented: Vec<_> = there.iter().map(|route| route.method.as_str()).collect();
            documented.extend(documented.contains(&"GET").then_some("HEAD"));
            allowed.sort_unstable();
            documented.sort_unstable();
            assert_eq!(allowed, documented, "{}", route.template);
        }
        if route.method == "GET" {
            let (whole, path) = (stage.ask(&route.line(), &[], None).await, route.path("idp", "alice"));
            let head = stage.ask(&format!("HEAD {path}"), &[], None).await;
            assert_eq!((head.status, head.body.len()), (whole.status, 0), "{path}");
            assert_eq!(head.header("content-type"), whole.header("content-type"), "{path}");
        }
        let answer = stage.ask(&format!("{}?nonsense=1", route.line()), &[], good(route)).await;
        route.refused("unknown parameter", &answer, 400, "invalid_request");
    }
    for path in [
        "/",
        "/foo",
        "/livez/",
        "/v1",
        "/v1/",
        "/v2/grants",
        "/v1/grants/idp",
        "/v1/grants/idp/alice/",
        "/v1/grants/idp//token",
        "/v1/grants/a/b/c/d",
    ] {
        for method in ["GET", "PUT", "HEAD"] {
            let answer = stage.ask(&format!("{method} {path}"), &[], None).await;
            assert_eq!(answer.status, 404, "{method} {path}");
            if method != "HEAD" {
                answer.problem(404, "invalid_request");
            }
        }
        stage.ask(&format!("GET {path}"), &["Host: evil.example"], None).await.problem(403, "forbidden");
    }
    stage.ask("GET /v1/grants/idp/alice/password", &[], None).await.problem(404, "invalid_request");
    assert_eq!(state(&stage).await, before);
    stage.stop().await;
}

#[tokio::test]
async fn a_page_that_somebody_visits_cannot_ask() {
    let stage = crowded().await;
    let before = state(&stage).await;
    let port = stage.address.port();
    for route in Route::all(&stage).await {
        for headers in [
            &["Host: evil.example"][..],
            &["Host: evil.example:80"],
            &["Host: 10.0.0.1"],
            &["Host: localhost.evil.example"],
            &["Origin: http://evil.example"],
            &["Origin: null"],
            &["Origin: http://127.0.0.1:1"],
        ] {
            let answer = stage.ask(&route.line(), headers, good(&route)).await;
            route.refused(&format!("{headers:?}"), &answer, 403, "forbidden");
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")));
        }
    }
    assert_eq!(state(&stage).await, before);
    let (host, origin) = (format!("Host: localhost:{port}"), format!("Origin: http://localhost:{port}"));
    stage.ask("GET /v1/grants/idp/alice", &[&host, &origin], None).await.granted(200);
    if let Ok(mapped) = TcpListener::bind("[::ffff:127.0.0.1]:0") {
        let server = Server::start(stage.api.clone(), [mapped.try_clone().unwrap()]).unwrap();
        let ask =
            async |host: &str| send(mapped.local_addr().unwrap(), "GET /livez", &[&format!("Host: {host}")], b"").await;
        ask("evil.example").await.problem(403, "forbidden");
        ask("[::ffff:127.0.0.1]:80").await.granted(200);
        within(server.stop()).await.unwrap();
    }
    let (named, _) = Stage::connected().await;
    let api = named.api.clone().hosts(["tokens.example.com"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, server) = (listener.local_addr().unwrap(), Server::start(api, [listener]).unwrap());
    for (host, status) in [("tokens.example.com", 200), ("Tokens.example.com:443", 200), ("evil.example", 403)] {
        let answer =
            send(address, "GET /livez", &[&format!("Host: {host}"), &format!("Origin: https://{host}")], b"").await;
        assert_eq!(answer.status, status, "{host}");
    }
    within(server.stop()).await.unwrap();
    named.stop().await;
    stage.stop().await;
}
