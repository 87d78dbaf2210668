//! API keys that expire, and keys that do not reach everything.

use std::time::Duration;

use token_supervisor::web::{ApiKey, Scope};

use super::stage::Stage;

const TOKEN: &str = "GET /v1/grants/idp/alice/token";
const KEY: &str = "Authorization: Bearer ts-test-secret-limited";

#[tokio::test]
async fn a_key_is_refused_from_its_expiry_on_and_the_problem_says_so() {
    let (stage, _) = Stage::connected().await;
    let end = stage.world.clock.now() + Duration::from_secs(60);
    let key = || ApiKey::from_secret("billing", "ts-test-secret-limited").scope(Scope::Token);
    stage.keys.replace([key().expires_at(end)]);
    stage.send(TOKEN, &[KEY], b"").await.granted(200);
    stage.world.clock.advance(Duration::from_secs(60));
    let problem = stage.send(TOKEN, &[KEY], b"").await;
    let challenge = problem.header("www-authenticate").unwrap().to_owned();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    let detail = problem.problem(401, "unauthorized")["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("this API key expired at 20") && detail.ends_with("Z: use a new one"), "{detail}");
    // Another key is not told about this one.
    let other = stage.send(TOKEN, &["Authorization: Bearer ts-test-secret-other"], b"").await;
    assert!(!other.problem(401, "unauthorized")["detail"].as_str().unwrap().contains("expired"));
    stage.keys.replace([key()]);
    stage.send(TOKEN, &[KEY], b"").await.granted(200);
    stage.stop().await;
}

#[tokio::test]
async fn a_long_poll_ends_when_its_key_expires() {
    let (stage, _) = Stage::connected().await;
    let end = stage.world.clock.now() + Duration::from_secs(20);
    stage.keys.replace([ApiKey::from_secret("a", "ts-test-secret-limited").scope(Scope::Token).expires_at(end)]);
    let (address, line) = (stage.address, format!("{TOKEN}?wait=60"));
    let polled =
        tokio::spawn(async move { super::stage::send(address, &line, &[KEY, "If-None-Match: \"g1\""], b"").await });
    let polled = crate::support::passing(&stage.world, Duration::from_secs(1), polled).await;
    polled.problem(401, "unauthorized");
    stage.stop().await;
}

#[tokio::test]
async fn a_limited_key_neither_sees_the_metrics_and_keys_of_all_nor_adopts_the_store() {
    let stage = Stage::new().await;
    let key = || ApiKey::from_secret("a", "ts-test-secret-limited").scope(Scope::Metrics).scope(Scope::Admin);
    for limited in [key().user_prefix("acme/"), key().idps(["idp"])] {
        stage.keys.replace([limited]);
        let problem = stage.send("GET /metrics", &[KEY], b"").await.problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("metrics cover all"), "{problem}");
        for request in ["POST /v1/adopt", "GET /v1/keys", "POST /v1/keys/reseal"] {
            stage.send(request, &[KEY], b"").await.problem(403, "forbidden");
        }
    }
    stage.keys.replace([key()]);
    for (request, body) in [("GET /metrics", ""), ("GET /v1/keys", ""), ("POST /v1/keys/reseal", "{}")] {
        assert_eq!(stage.send(request, &[KEY], body.as_bytes()).await.status, 200, "{request}");
    }
    stage.send("POST /v1/keys/reseal", &[KEY], b"").await.problem(400, "invalid_request");
    stage.stop().await;
}
