//! Grants in pages and the end of users, over HTTP: within what the key reaches.

use std::time::Duration;

use serde_json::{Value, json};
use token_supervisor::{
    State, TokenKey,
    testing::Standing,
    web::{ApiKey, Scope},
};

use super::stage::{ALL, Answer, Stage};
use crate::support::{passing, stop, until_purged, within};

const KEY: &str = "ts-test-secret-key-of-a-tenant";

/// Alice and Bob of two tenants, at two identity providers.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    for user in ["acme/alice", "acme/bob", "beta/alice"] {
        for idp in ["idp", "other"] {
            let grant = stage.world.sim.consent(&format!("{user} at {idp}"));
            within(stage.supervisor.connect(&TokenKey::at(idp).user(user), grant)).await.unwrap();
        }
    }
    stage
}

async fn ask(stage: &Stage, key: &str, line: &str) -> Answer {
    stage.send(line, &[&format!("Authorization: Bearer {key}")], b"").await
}

fn names(body: &Value) -> Vec<String> {
    let name = |item: &Value| format!("{} {}", item["idp"].as_str().unwrap(), item["user"].as_str().unwrap());
    body["items"].as_array().unwrap().iter().map(name).collect()
}

/// All pages of what is asked for.
async fn listed(stage: &Stage, key: &str, query: &str) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let body = ask(stage, key, &format!("GET /v1/grants?{query}{after}")).await.granted(200);
        found.extend(names(&body));
        match body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn grants_are_listed_as_they_are_asked_for_and_never_with_a_token() {
    let stage = stage().await;
    let all =
        ["idp acme/alice", "idp acme/bob", "idp beta/alice", "other acme/alice", "other acme/bob", "other beta/alice"];
    for limit in ["", "limit=1", "limit=3", "limit=6", "limit=1000"] {
        assert_eq!(listed(&stage, ALL, limit).await, all, "{limit}");
    }
    assert_eq!(listed(&stage, ALL, "idp=other&user_prefix=acme/").await, all[3..5]);
    assert_eq!(listed(&stage, ALL, "user=beta/alice&account=").await, [all[2], all[5]]);
    assert_eq!(listed(&stage, ALL, "idp=nowhere").await, [""; 0]);
    stage.ask("POST /v1/grants/idp/acme%2Fbob/reconnect", &[], json!({"reason": "x"})).await.granted(200);
    stage.ask("DELETE /v1/grants/other/acme%2Fbob", &[], None).await.granted(204);
    assert_eq!(listed(&stage, ALL, "state=revoked,reconnect_required").await, [all[1], all[4]]);
    assert_eq!(listed(&stage, ALL, "expiring_before=2027-01-15T08:00:00Z").await, [""; 0]);
    let body = stage.ask("GET /v1/grants", &[], None).await;
    assert!(!String::from_utf8_lossy(&body.body).contains("ts-test-secret"));
    for wrong in ["limit=0", "limit=1001", "state=odd", "after=x", "expiring_before=1800000000000", "idp=a&idp=b"] {
        ask(&stage, ALL, &format!("GET /v1/grants?{wrong}")).await.problem(400, "invalid_request");
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_key_lists_what_it_reaches_and_nothing_else() {
    let stage = stage().await;
    let key = || ApiKey::from_secret("tenant", KEY).scope(Scope::Admin);
    stage.keys.replace([key().user_prefix("acme/")]);
    assert_eq!(listed(&stage, KEY, "limit=1&user_prefix=ac").await.len(), 4);
    assert_eq!(listed(&stage, KEY, "user_prefix=acme/b").await.len(), 2);
    for beyond in ["user=beta/alice", "user_prefix=beta/", "user_prefix=acmf"] {
        ask(&stage, KEY, &format!("GET /v1/grants?{beyond}")).await.problem(403, "forbidden");
    }
    stage.keys.replace([key().idps(["other", "nowhere", "idp", "idp"])]);
    for limit in [1, 2, 3, 4, 6, 7] {
        assert_eq!(listed(&stage, KEY, &format!("limit={limit}")).await.len(), 6, "{limit}");
    }
    stage.keys.replace([key().idps(["other"])]);
    assert_eq!(listed(&stage, KEY, "user=acme/bob").await, ["other acme/bob"]);
    ask(&stage, KEY, "GET /v1/grants?idp=idp").await.problem(403, "forbidden");
    stage.stop().await;
}

#[tokio::test]
async fn a_user_leaves_and_what_is_left_is_purged() {
    let stage = stage().await;
    let key = || ApiKey::from_secret("tenant", KEY).scope(Scope::Grant);
    for narrow in [key().idps(["idp"]), key().user_prefix("beta/")] {
        stage.keys.replace([narrow]);
        ask(&stage, KEY, "DELETE /v1/grants?user=acme%2Falice").await.problem(403, "forbidden");
    }
    stage.keys.replace([key().user_prefix("acme/")]);
    for wrong in ["", "?user=", "?user=acme%2Falice&revoke=perhaps"] {
        let answer = ask(&stage, KEY, &format!("DELETE /v1/grants{wrong}")).await;
        assert!([400, 403].contains(&answer.status), "{wrong}: {answer:?}");
    }
    for _ in 0..2 {
        let body = ask(&stage, KEY, "DELETE /v1/grants?user=acme%2Falice").await.granted(200);
        assert_eq!(names(&body), ["idp acme/alice", "other acme/alice"]);
        assert!(body["items"].as_array().unwrap().iter().all(|item| item["status"]["state"] == "revoked"), "{body}");
    }
    let path = "/v1/grants/idp/acme%2Falice";
    ask(&stage, KEY, &format!("DELETE {path}?purge=true")).await.granted(204);
    ask(&stage, KEY, &format!("GET {path}")).await.problem(404, "not_connected");
    ask(&stage, KEY, &format!("GET {}", path.replace("idp", "other"))).await.granted(200);
    stage.stop().await;
}

#[tokio::test]
async fn what_is_still_to_be_revoked_is_purged_afterwards_whoever_does_it() {
    let (stage, key) = Stage::connected().await;
    let token = stage.world.sim.newest("alice").unwrap();
    stage.world.sim.fail_revocations(Some(503));
    for _ in 0..2 {
        stage.ask("DELETE /v1/grants/idp/alice?revoke=true&purge=true", &[], None).await.granted(204);
    }
    assert_eq!(stage.ask("GET /v1/grants/idp/alice", &[], None).await.granted(200)["state"], "revoked");
    stage.ask("GET /v1/grants/idp/alice/token", &[], None).await.problem(404, "not_connected");
    let world = stage.stop().await;
    world.sim.fail_revocations(None);
    let supervisor = world.start().await;
    assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::Revoked);
    let start = world.clock.now();
    let purged = tokio::spawn(until_purged(supervisor.clone(), key));
    passing(&world, Duration::from_secs(5), purged).await;
    let waited = world.clock.now().duration_since(start).unwrap();
    assert!(waited < Duration::from_secs(1_800), "not only when old tombstones are looked for: {waited:?}");
    assert_eq!(world.sim.standing(&token), Standing::Revoked);
    stop(supervisor).await;
}

#[tokio::test]
async fn a_refused_token_is_reported_by_itself() {
    let (stage, key) = Stage::connected().await;
    let token = stage.supervisor.cached(&key).unwrap().access_token().expose_secret().to_owned();
    let line = "POST /v1/grants/idp/alice/rejected";
    let unknown = json!({"access_token": "ts-test-secret-unknown"});
    assert_eq!(stage.ask(line, &[], unknown).await.granted(200)["generation"], 1);
    stage.ask(line, &[], json!({"access_token": token})).await.granted(200);
    let body = stage.ask("GET /v1/grants/idp/alice/token", &[], None).await.granted(200);
    assert_eq!(body["generation"], 2);
    stage.ask(line, &[], json!({"access_token": token, "generation": 1})).await.problem(400, "invalid_request");
    stage.stop().await;
}
