//! Tokens over HTTP: one, many, for proxies, and to who waits for another one.

use std::time::Duration;

use serde_json::{Value, json};
use token_supervisor::{
    TokenKey,
    testing::Fault,
    web::{ApiKey, Scope},
};

use super::stage::{ALL, Stage};
use crate::support::{LIFE, breathe, within};

const TOKEN: &str = "GET /v1/grants/idp/alice/token";

#[tokio::test]
async fn a_token_comes_with_its_end_its_generation_and_how_good_it_is() {
    let (stage, key) = Stage::connected().await;
    let answer = stage.ask(TOKEN, &[], None).await;
    let held = stage.supervisor.cached(&key).unwrap();
    assert_eq!(answer.header("etag"), Some("\"g1\""));
    let expected = json!({
        "access_token": held.access_token().expose_secret(), "token_type": "Bearer", "expiry": "at",
        "expires_at": "2027-01-15T09:00:00Z", "expires_in": 3600, "scope": held.scope(), "generation": 1,
        "freshness": "fresh",
    });
    assert_eq!(answer.granted(200), expected);
    stage.world.sim.next(Fault::Status(503, None));
    stage.world.clock.advance(LIFE - Duration::from_secs(20));
    let body = stage.ask(TOKEN, &[], None).await.granted(200);
    assert_eq!(body["expires_in"], 20);
    stage.stop().await;
}

#[tokio::test]
async fn min_ttl_and_timeout_are_those_of_the_library() {
    let (stage, _) = Stage::connected().await;
    let ask = async |query: &str| stage.ask(&format!("{TOKEN}?{query}"), &[], None).await;
    let problem = ask("min_ttl=3601").await.problem(400, "min_ttl_unsatisfiable");
    assert_eq!((&problem["max_ttl"], &problem["valid_until"]), (&json!(2_700), &json!("2027-01-15T09:00:00Z")));
    stage.world.clock.advance(Duration::from_secs(2_000));
    assert_eq!(ask("min_ttl=2000").await.granted(200)["generation"], 2);
    stage.world.clock.advance(LIFE);
    stage.world.sim.always(Some(Fault::HangAfter));
    ask("timeout=0").await.problem(504, "timeout");
    stage.world.sim.always(None);
    stage.world.sim.release();
    for wrong in ["timeout=61", "timeout=-1", "timeout=x", "min_ttl=1.5", "min_ttl=", "wait=61", "min_tll=3"] {
        ask(wrong).await.problem(400, "invalid_request");
    }
    stage.stop().await;
}

#[tokio::test]
async fn who_has_the_token_is_not_sent_it_again() {
    let (stage, _) = Stage::connected().await;
    for known in ["\"g1\"", "W/\"g1\"", "\"g7\", \"g1\"", "*"] {
        let answer = stage.ask(TOKEN, &[&format!("If-None-Match: {known}")], None).await;
        assert_eq!(answer.granted(304), Value::Null);
        assert_eq!(answer.header("etag"), Some("\"g1\""));
    }
    for unreadable in [&["If-None-Match: \"g1\"", "If-None-Match: \"g2\""][..], &["If-None-Match: \"\u{e4}\""]] {
        stage.ask(TOKEN, unreadable, None).await.problem(400, "invalid_request");
    }
    let answer = stage.ask(TOKEN, &["If-None-Match: \"g2\""], None).await;
    assert_eq!(answer.granted(200)["generation"], 1);
    stage.world.clock.advance(LIFE);
    let answer = stage.ask(TOKEN, &["If-None-Match: \"g1\""], None).await;
    assert_eq!(answer.granted(200)["generation"], 2, "the one it has is over");
    stage.stop().await;
}

#[tokio::test]
async fn a_long_poll_ends_with_another_token_with_its_wait_with_its_key_and_with_the_server() {
    let (stage, key) = Stage::connected().await;
    let poll_for = |generation: &'static str, query: &'static str| {
        let known = format!("If-None-Match: \"{generation}\"");
        let stage = &stage;
        async move { stage.ask(&format!("{TOKEN}?{query}"), &[&known], None).await }
    };
    let poll = |generation| poll_for(generation, "wait=60");
    let (answer, refreshed) = tokio::join!(poll("g1"), stage.supervisor.refresh_now(&key));
    assert_eq!(answer.granted(200)["generation"], refreshed.unwrap().status.generation.get());
    let start = stage.world.clock.now();
    let waited = || stage.world.clock.now().duration_since(start).unwrap();
    let passing = || async {
        let mut steps = tokio::time::interval(Duration::from_millis(10));
        loop {
            stage.world.clock.advance(Duration::from_secs(1));
            steps.tick().await;
        }
    };
    let deadline = poll_for("g2", "wait=60&timeout=5");
    let answer = tokio::select! { answer = deadline => answer, () = passing() => unreachable!() };
    answer.granted(304);
    assert!(waited() >= Duration::from_secs(5) && waited() < Duration::from_secs(50), "{:?}", waited());
    let before = waited();
    let answer = tokio::select! { answer = poll("g2") => answer, () = passing() => unreachable!() };
    answer.granted(304);
    assert!(waited() - before >= Duration::from_secs(60));
    let other = [Scope::Token, Scope::Metrics].into_iter();
    let other = other.fold(ApiKey::from_secret("other", "ts-test-secret-other"), ApiKey::scope);
    let (answer, ()) = tokio::join!(poll("g2"), async {
        breathe().await;
        stage.keys.replace([other]);
        stage.supervisor.refresh_now(&key).await.unwrap();
    });
    answer.problem(401, "unauthorized");
    let all = [Scope::Token, Scope::Metrics].into_iter().fold(ApiKey::from_secret("all", ALL), ApiKey::scope);
    stage.keys.replace([all]);
    poll("g7").await.granted(200);
    stage
        .ask("GET /v1/grants/idp/nobody/token?wait=60", &["If-None-Match: \"g1\""], None)
        .await
        .problem(404, "not_connected");
    let metrics = String::from_utf8(stage.ask("GET /metrics", &[], None).await.body).unwrap();
    for (outcome, count) in [("ok", 4), ("not_connected", 1)] {
        let line = format!("token_supervisor_requests_total{{idp=\"idp\",outcome=\"{outcome}\"}} {count}");
        assert!(metrics.lines().any(|other| other == line), "each is one request: {line}\n{metrics}");
    }
    let (answer, ()) = tokio::join!(poll("g3"), async { stage.api.drain() });
    answer.granted(304);
    stage.stop().await;
}

#[tokio::test]
async fn many_tokens_come_in_the_order_in_which_they_were_asked_for() {
    let (stage, _) = Stage::connected().await;
    let work = TokenKey::at("idp").user("alice").account("work");
    within(stage.supervisor.connect(&work, stage.world.sim.consent("alice-at-work"))).await.unwrap();
    let items = json!([
        {"idp": "idp", "user": "alice", "account": "work"},
        {"idp": "idp", "user": "nobody"},
        {"idp": "nowhere", "user": "alice"},
        {"idp": "idp", "user": "\u{0}"},
        {"idp": "idp", "user": "alice", "account": null},
    ]);
    let body =
        stage.ask("POST /v1/tokens", &[], json!({"items": items, "min_ttl": 60, "timeout": 5})).await.granted(200);
    let short: Vec<_> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| match &item["token"] {
            Value::Null => item["problem"]["code"].as_str().unwrap().to_owned(),
            token => token["access_token"].as_str().unwrap().to_owned(),
        })
        .collect();
    let token = |key: &TokenKey| stage.supervisor.cached(key).unwrap().access_token().expose_secret().to_owned();
    let alice = TokenKey::at("idp").user("alice");
    assert!(body["items"][1]["problem"]["grant_id"].is_null(), "{body}");
    assert_eq!(short, [&token(&work), "not_connected", "unknown_idp", "invalid_request", &token(&alice)]);
    let many = vec![json!({"idp": "idp", "user": "alice"}); 101];
    stage.ask("POST /v1/tokens", &[], json!({"items": many})).await.problem(400, "invalid_request");
    stage.ask("POST /v1/tokens", &[], json!({"items": [], "timeout": 61})).await.problem(400, "invalid_request");
    stage.stop().await;
}

#[tokio::test]
async fn a_proxy_gets_the_header_that_it_puts_on() {
    let (stage, key) = Stage::connected().await;
    let answer = stage.ask("GET /v1/authorize/idp/alice", &[], None).await;
    assert_eq!(answer.granted(204), Value::Null);
    let token = stage.supervisor.cached(&key).unwrap();
    let bearer = format!("Bearer {}", token.access_token().expose_secret());
    assert_eq!(answer.header("authorization"), Some(bearer.as_str()));
    assert_eq!(answer.header("x-token-generation"), Some("1"));
    // As Envoy asks: nothing that its callers say is ours.
    for (method, behind) in [
        ("GET", "/"),
        ("POST", "/repos?account=work&x=1"),
        ("PROPFIND", "/a//%2Fb/token?timeout=x"),
        ("DELETE", "/v1/authorize/idp/nobody"),
    ] {
        let line = format!("{method} /v1/authorize/idp/alice{behind}");
        let key = format!("Authorization: Bearer {ALL}");
        let answer = stage.send(&line, &[&key, "If-Match: \"g7\"", "Content-Length: 2"], b"{}").await;
        assert_eq!(answer.granted(200), Value::Null, "{line}");
        assert_eq!(answer.header("authorization"), Some(bearer.as_str()));
    }
    stage.ask("GET /v1/authorize/idp/alice?x=1", &[], None).await.problem(400, "invalid_request");
    stage.ask("GET /v1/authorize/idp/nobody/v1/authorize/idp/alice", &[], None).await.problem(404, "not_connected");
    stage.stop().await;
}
