//! What changes a grant, over HTTP.

use serde_json::{Value, json};
use token_supervisor::{
    testing::{Fault, StoreFault},
    web::Server,
};

use super::stage::{Answer, Stage, exchange};
use crate::support::{LIFE, eventually, within};

const ALICE: &str = "/v1/grants/idp/alice";

/// What a new consent of alice brings.
fn consent(stage: &Stage) -> Value {
    let _ = stage.world.sim.consent("alice");
    let refresh = stage.world.sim.newest("alice").unwrap();
    json!({"access_token": "ts-test-secret-access", "refresh_token": refresh.expose_secret(), "expires_in": 3600})
}

async fn post(stage: &Stage, verb: &str, body: impl Into<Option<Value>>) -> Answer {
    stage.ask(&format!("POST {ALICE}/{verb}"), &[], body).await
}

#[tokio::test]
async fn a_connect_creates_replaces_or_says_that_it_is_a_replay() {
    let stage = Stage::new().await;
    let put = async |headers: &[&str], body: &Value| stage.ask(&format!("PUT {ALICE}"), headers, body.clone()).await;
    let first = consent(&stage);
    let answer = put(&[], &first).await;
    let body = answer.granted(201);
    assert_eq!(answer.header("etag"), Some("\"g1\""));
    assert_eq!(
        (&body["idp"], &body["user"], &body["account"], &body["state"], &body["held"], &body["expires_at"]),
        (&json!("idp"), &json!("alice"), &json!(""), &json!("fresh"), &json!(false), &json!("2027-01-15T09:00:00Z"))
    );
    assert!(body["unchanged"].is_null() && body["grant_id"].as_str().unwrap().starts_with("g_"), "{body}");
    assert_eq!(put(&["If-None-Match: *"], &first).await.granted(200)["unchanged"], "already_connected");
    let second = consent(&stage);
    assert_eq!(put(&["If-None-Match: *"], &second).await.problem(412, "generation_mismatch")["generation"], 1);
    put(&["If-Match: \"g7\""], &second).await.problem(412, "generation_mismatch");
    assert_eq!(put(&["If-Match: \"g1\""], &second).await.granted(200)["generation"], 2);
    assert_eq!(put(&[], &first).await.granted(200)["unchanged"], "token_already_spent");
    put(&[], &json!({"expires_in": 3600})).await.problem(400, "invalid_request");
    for wrong in [
        &["If-Match: *"][..],
        &["If-None-Match: \"g1\""],
        &["If-Match: \"g2\"", "If-None-Match: *"],
        &["If-Match: \"g2\"", "If-Match: \"g7\""],
        &["If-Match: \"g\u{e4}\""],
        &["If-None-Match: \u{e4}"],
    ] {
        put(wrong, &second).await.problem(400, "invalid_request");
    }
    let elsewhere = stage.ask("PUT /v1/grants/idp/bob", &[], second).await;
    elsewhere.problem(409, "duplicate_grant");
    assert_eq!(
        stage.ask(&format!("PUT {ALICE}?account=work"), &[], consent(&stage)).await.granted(201)["account"],
        "work"
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_refresh_token_alone_is_refreshed_at_once_and_its_replay_is_told() {
    let stage = Stage::new().await;
    let mut kept = consent(&stage);
    kept.as_object_mut().unwrap().remove("access_token");
    let put = async || stage.ask(&format!("PUT {ALICE}"), &[], kept.clone()).await;
    let body = put().await.granted(201);
    assert_eq!((&body["state"], &body["generation"]), (&json!("due"), &json!(1)));
    let body = stage.ask(&format!("GET {ALICE}/token?min_ttl=60"), &[], None).await.granted(200);
    assert_eq!((&body["generation"], &body["expires_in"]), (&json!(2), &json!(3600)));
    assert_eq!(put().await.granted(200)["unchanged"], "token_already_spent");
    stage.stop().await;
}

#[tokio::test]
async fn ends_are_given_as_lifetimes_or_times_and_milliseconds_are_refused() {
    let stage = Stage::new().await;
    let at = async |field: &str, value: Value| {
        let mut body = consent(&stage);
        body.as_object_mut().unwrap().remove("expires_in");
        body[field] = value;
        stage.ask(&format!("PUT {ALICE}"), &[], body).await
    };
    for value in [json!(1_800_003_600), json!("2027-01-15T09:00:00Z"), json!("2027-01-15T10:00:00+01:00")] {
        assert_eq!(at("expires_at", value.clone()).await.status / 100, 2);
        let body = at("refresh_token_expires_at", value).await;
        let body: Value = serde_json::from_slice(&body.body).unwrap();
        // Nobody said how long the access token lives, so an hour is assumed.
        assert_eq!((&body["expiry"], &body["expires_at"]), (&json!("at"), &json!("2027-01-15T09:00:00Z")));
        assert_eq!(body["refresh_token_expires_at"], "2027-01-15T09:00:00Z");
    }
    // What a provider wrote is read like its response: what cannot be read says nothing.
    for (field, value) in [
        ("refresh_token_expires_in", json!("3600")),
        ("refresh_token_expires_in", json!("x")),
        ("expires_in", json!("3600s")),
        ("expires_in", json!(0)),
        ("expires_in", json!(-1)),
        ("expires_in", json!(true)),
        ("instance_url", json!("https://eu1.example")),
    ] {
        assert_eq!(at(field, value.clone()).await.status, 200, "{field} {value}");
    }
    for (field, value) in [
        ("expires_at", json!(1_800_003_600_000_i64)),
        ("expires_at", json!("tomorrow")),
        ("client_id", json!(7)),
        ("params", json!({"tenant": "ts-test-secret-x"})),
        ("access_token", json!("ts-test-secret a")),
        ("access_token", json!("")),
    ] {
        let problem = at(field, value).await.problem(400, "invalid_request");
        assert!(!problem.to_string().contains("ts-test-secret"), "{problem}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn the_verbs_are_those_of_the_library() {
    let (stage, key) = Stage::connected().await;
    let body = post(&stage, "refresh", None).await.granted(200);
    assert_eq!((&body["refreshed"], &body["generation"]), (&json!(true), &json!(2)));
    let body = post(&stage, "refresh", json!({})).await.granted(200);
    assert_eq!((&body["refreshed"], &body["reason"]), (&json!(false), &json!("just_refreshed")));
    assert_eq!(post(&stage, "rejected", json!({"generation": 1})).await.granted(200)["generation"], 2);
    let body = post(&stage, "hold", json!({"reason": "moving house"})).await.granted(200);
    assert_eq!((&body["held"], &body["held_reason"]), (&json!(true), &json!("moving house")));
    let grant_id = body["grant_id"].clone();
    let problem = post(&stage, "refresh", None).await.problem(503, "unavailable");
    assert_eq!(
        (&problem["reason"], &problem["valid_until"], &problem["grant_id"], &problem["generation"]),
        (&json!("held"), &json!("2027-01-15T09:00:00Z"), &grant_id, &json!(2))
    );
    assert_eq!(post(&stage, "release", None).await.granted(200)["held"], false);
    let body = post(&stage, "reconnect", json!({"reason": "asked to"})).await.granted(200);
    assert_eq!((&body["state"], &body["reason"]), (&json!("reconnect_required"), &json!("asked to")));
    let problem = post(&stage, "refresh", None).await.problem(409, "reconnect_required");
    assert_eq!((&problem["valid_until"], &problem["grant_id"]), (&json!("2027-01-15T09:00:00Z"), &grant_id));
    let last = stage.ask(&format!("GET {ALICE}/token"), &[], None).await.granted(200);
    assert_eq!((&last["freshness"], &last["warning"]), (&json!("last_good"), &json!("reconnect_required")));
    stage.world.clock.advance(LIFE);
    let problem = stage.ask(&format!("GET {ALICE}/token"), &[], None).await.problem(409, "reconnect_required");
    assert_eq!((&problem["reason"], &problem["since"]), (&json!("asked to"), &json!("2027-01-15T08:00:00Z")));
    assert_eq!((&problem["grant_id"], &problem["generation"]), (&grant_id, &json!(2)));
    assert!(problem["valid_until"].is_null(), "there is none any more: {problem}");
    assert_eq!(stage.ask(&format!("PUT {ALICE}"), &[], consent(&stage)).await.granted(200)["state"], "fresh");
    // Nobody would look whether it holds.
    stage.ask(&format!("DELETE {ALICE}"), &["If-Match: \"g99\""], None).await.problem(400, "invalid_request");
    stage.ask(&format!("DELETE {ALICE}"), &[], None).await.granted(204);
    assert_eq!(stage.ask(&format!("GET {ALICE}"), &["If-Match: \"g99\""], None).await.granted(200)["state"], "revoked");
    stage.ask(&format!("GET {ALICE}/token"), &[], None).await.problem(404, "not_connected");
    assert_eq!(post(&stage, "restore", None).await.granted(200)["state"], "due");
    stage.ask(&format!("DELETE {ALICE}?revoke=true"), &[], None).await.granted(204);
    assert_eq!(stage.ask(&format!("PUT {ALICE}"), &[], consent(&stage)).await.granted(201)["state"], "fresh");
    assert_eq!(within(stage.supervisor.status(&key)).await.unwrap().state, token_supervisor::State::Fresh);
    stage.stop().await;
}

#[tokio::test]
async fn a_refused_refresh_token_is_sent_once_more() {
    let (stage, _) = Stage::connected().await;
    let sim = &stage.world.sim;
    let refreshed = async |requests| {
        eventually("it is refreshed", || sim.requests() == requests && stage.supervisor.testing().attempts() == 0)
            .await;
    };
    sim.next(Fault::error(400, "invalid_grant"));
    post(&stage, "refresh", None).await.problem(409, "reconnect_required");
    assert_eq!(post(&stage, "retry", None).await.granted(200)["state"], "due");
    refreshed(2).await;
    let body = post(&stage, "retry", None).await.granted(200);
    assert_eq!((&body["state"], &body["generation"]), (&json!("fresh"), &json!(2)), "nothing was refused");

    sim.next(Fault::error(400, "invalid_grant"));
    stage.world.clock.advance(LIFE);
    post(&stage, "refresh", None).await.problem(409, "reconnect_required");
    let retried = async |idp: &str| stage.ask(&format!("POST /v1/idps/{idp}/retry"), &[], None).await.granted(200);
    assert_eq!(retried("other").await, json!({"retried": 0, "left": false}));
    assert_eq!(retried("idp").await, json!({"retried": 1, "left": false}));
    refreshed(4).await;
    assert_eq!(retried("idp").await, json!({"retried": 0, "left": false}));

    post(&stage, "reconnect", json!({"reason": "asked to"})).await.granted(200);
    assert_eq!(post(&stage, "retry", None).await.granted(200)["reason"], "asked to");
    assert_eq!(retried("idp").await["retried"], 0);
    stage.ask(&format!("DELETE {ALICE}"), &[], None).await.granted(204);
    post(&stage, "retry", None).await.problem(404, "not_connected");
    assert_eq!((sim.requests(), sim.duplicate_spends()), (4, 0));
    stage.stop().await;
}

#[tokio::test]
async fn an_idp_is_seen_held_released_and_probed() {
    let (stage, _) = Stage::connected().await;
    let body = stage.ask("GET /v1/idps", &[], None).await.granted(200);
    let expected = |name| {
        json!({"idp": name, "paused": null, "paused_until": null, "held": false, "refreshing": 0, "last_error": null,
            "last_error_at": null, "revokes": true})
    };
    assert_eq!(body, json!({"items": [expected("idp"), expected("other")]}));
    let body = stage.ask("POST /v1/idps/idp/hold", &[], json!({"reason": "maintenance"})).await.granted(200);
    assert_eq!(
        (&body["held"], &body["held_reason"], &body["held_by"]),
        (&json!(true), &json!("maintenance"), &json!("people"))
    );
    assert_eq!(post(&stage, "refresh", None).await.problem(503, "unavailable")["reason"], "idp_held");
    assert_eq!(stage.ask("POST /v1/idps/idp/release", &[], None).await.granted(200), expected("idp"));
    assert_eq!(stage.ask("POST /v1/idps/idp/probe", &[], None).await.granted(200), expected("idp"));
    let refused = stage.ask("POST /v1/adopt", &[], None).await.problem(400, "invalid_request");
    assert!(refused["detail"].as_str().unwrap().contains("no deployment is set"), "{refused}");
    stage.stop().await;
}

#[tokio::test]
async fn a_server_says_whether_it_should_be_asked() {
    let (stage, _) = Stage::connected().await;
    let ok = json!({"status": "ok", "degraded": []});
    for path in ["/livez", "/readyz", "/readyz?strict"] {
        assert_eq!(stage.send(&format!("GET {path}"), &[], b"").await.granted(200), ok, "{path}");
    }
    stage.ask("POST /v1/idps/other/hold", &[], json!({"reason": "x"})).await.granted(200);
    assert_eq!(stage.send("GET /readyz", &[], b"").await.granted(200)["degraded"], json!(["idp_held:other"]));
    assert_eq!(stage.send("GET /readyz?strict", &[], b"").await.granted(503)["status"], "degraded");
    stage.ask("POST /v1/idps/other/release", &[], None).await.granted(200);
    stage.world.sim.next(token_supervisor::testing::Fault::Error { status: 401, code: "invalid_client".into() });
    post(&stage, "refresh", None).await.problem(503, "unavailable");
    let degraded = json!({"status": "ok", "degraded": ["client_refused:idp"]});
    assert_eq!(stage.send("GET /readyz", &[], b"").await.granted(200), degraded);
    assert_eq!(stage.send("GET /readyz?strict", &[], b"").await.granted(503)["status"], "degraded");
    stage.supervisor.testing().store_fault(StoreFault::Down);
    let problem = stage.ask("GET /v1/grants", &[], None).await.problem(503, "unavailable");
    assert_eq!(problem["reason"], "store_down");
    let degraded = json!({"status": "ok", "degraded": ["store_down", "client_refused:idp"]});
    assert_eq!(stage.send("GET /readyz", &[], b"").await.granted(200), degraded);
    stage.supervisor.testing().store_fault(StoreFault::None);
    stage.ask("GET /v1/grants", &[], None).await.granted(200);
    assert_eq!(stage.send("GET /readyz", &[], b"").await.granted(200)["degraded"], json!(["client_refused:idp"]));
    stage.api.drain();
    assert_eq!(stage.send("GET /readyz", &[], b"").await.granted(503)["status"], "draining");
    assert_eq!(stage.send("GET /livez", &[], b"").await.status, 200);
    stage.ask(&format!("GET {ALICE}/token"), &[], None).await.granted(200);
    stage.stop().await;
}

#[tokio::test]
async fn metrics_count_and_name_no_user() {
    let (stage, _) = Stage::connected().await;
    for path in ["alice/token", "alice/token", "nobody/token"] {
        stage.ask(&format!("GET /v1/grants/idp/{path}"), &[], None).await;
    }
    stage.ask("GET /v1/grants/made-up/alice/token", &[], None).await.problem(404, "unknown_idp");
    stage.ask("POST /v1/idps/other/hold", &[], json!({"reason": "x"})).await.granted(200);
    let answer = stage.ask("GET /metrics", &[], None).await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(answer.body).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for expected in [
        &format!("token_supervisor_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "# TYPE token_supervisor_requests_total counter",
        "token_supervisor_requests_total{idp=\"idp\",outcome=\"not_connected\"} 1",
        "token_supervisor_requests_total{idp=\"idp\",outcome=\"ok\"} 2",
        "token_supervisor_request_seconds_count{idp=\"idp\",path=\"snapshot\"} 2",
        "token_supervisor_idp_paused{idp=\"other\",reason=\"idp_held\"} 1",
        "token_supervisor_grants{idp=\"idp\",state=\"fresh\"} 1",
        "token_supervisor_waiters 0",
        "token_supervisor_journal_pending 0",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{text}");
    }
    assert!(!text.contains("made-up") && !text.contains("alice"), "{text}");
    let value = async |path: &str| {
        let text = String::from_utf8(stage.ask("GET /metrics", &[], None).await.body).unwrap();
        let name = format!("token_supervisor_request_seconds_count{{idp=\"idp\",path=\"{path}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned))
    };
    assert_eq!((value("refresh").await, value("cold").await), (None, None));
    stage.world.clock.advance(LIFE);
    stage.ask(&format!("GET {ALICE}/token"), &[], None).await.granted(200);
    // The expired token may be out of memory by then, as nobody has used it for long.
    let paths = [value("refresh").await, value("cold").await, value("actor").await];
    assert!(matches!(paths, [Some(_), None, None] | [None, Some(_), None]), "{paths:?}");
    stage.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_needs_no_key_and_no_name_of_loopback() {
    use std::os::unix::net::UnixListener;
    let (stage, _) = Stage::connected().await;
    let path = stage.world.folder.path().join("socket");
    let server = Server::start_trusting(stage.api.clone(), UnixListener::bind(&path).unwrap()).unwrap();
    let get = async |host: &str| {
        let request = format!("GET {ALICE}/token HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(tokio::net::UnixStream::connect(&path).await.unwrap(), request.as_bytes()).await
    };
    get("localhost").await.granted(200);
    get("tokens").await.granted(200);
    stage.send(&format!("GET {ALICE}/token"), &[], b"").await.problem(401, "unauthorized");
    within(server.stop()).await.unwrap();
    stage.stop().await;
}
