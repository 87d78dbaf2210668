//! `ApiClient`: every method, against a server on a port.

use std::time::Duration;

use token_supervisor::{
    Code, Generation, Revoke, State, TokenKey,
    api::GrantQuery,
    client::{ApiClient, ApiError},
};

use super::stage::{ALL, Stage};
use crate::support::within;

fn client(stage: &Stage) -> ApiClient {
    ApiClient::new(&format!("http://{}", stage.address)).unwrap().api_key(ALL)
}

fn code(error: &ApiError) -> Option<Code> {
    match error {
        ApiError::Problem(problem) => problem.code(),
        _ => None,
    }
}

#[tokio::test]
async fn a_grant_is_connected_served_changed_and_disconnected() {
    let stage = Stage::new().await;
    let (client, key) = (client(&stage).timeout(Duration::from_secs(20)), TokenKey::at("idp").user("acme/alice"));
    let missing = within(client.status(&key)).await.unwrap_err();
    assert_eq!(code(&missing), Some(Code::NotConnected), "{missing}");

    let connected = within(client.connect(&key, &stage.world.sim.consent("acme/alice"))).await.unwrap();
    assert_eq!((connected.user.as_str(), connected.state, connected.generation), ("acme/alice", State::Fresh, 1));
    let token = within(client.token(&key, Duration::ZERO)).await.unwrap();
    assert_eq!((token.generation, token.expires_at), (1, connected.expires_at));
    let same = within(client.next_token(&key, Generation::new(1), Duration::ZERO)).await.unwrap();
    assert!(same.is_none());
    let long = within(client.token(&key, Duration::from_secs(1_000_000))).await.unwrap_err();
    assert!(matches!(&long, ApiError::Problem(problem) if problem.max_ttl.is_some()), "{long}");

    let refreshed = within(client.refresh(&key)).await.unwrap();
    assert_eq!((refreshed.refreshed, refreshed.status.generation), (true, 2));
    let rejected = within(client.rejected(&key, Generation::new(1))).await.unwrap();
    assert_eq!(rejected, within(client.rejected_token(&key, &token.access_token)).await.unwrap());
    assert_eq!(within(client.hold(&key, "moving")).await.unwrap().held_reason.as_deref(), Some("moving"));
    assert!(!within(client.release(&key)).await.unwrap().held);
    assert_eq!(within(client.retry(&key)).await.unwrap().generation, 2, "it was not refused");

    within(client.disconnect(&key, Revoke::No)).await.unwrap();
    assert_ne!(within(client.restore(&key)).await.unwrap().state, State::Revoked);
    let reconnect = within(client.reconnect(&key, "audit")).await.unwrap();
    assert_eq!((reconnect.state, reconnect.reason.as_deref()), (State::ReconnectRequired, Some("audit")));
    within(client.disconnect(&key, Revoke::No)).await.unwrap();
    assert_eq!(within(client.purge(&key)).await.unwrap().state, State::Absent);
    stage.stop().await;
}

#[tokio::test]
async fn lists_and_providers_are_read_and_held() {
    let (stage, alice) = Stage::connected().await;
    let client = client(&stage);
    let bob = TokenKey::at("other").user("bob");
    within(client.connect(&bob, &stage.world.sim.consent("bob"))).await.unwrap();

    let states = vec![State::Fresh, State::Due];
    let mut query = GrantQuery { limit: Some(1), states, ..GrantQuery::default() };
    let first = within(client.list(&query)).await.unwrap();
    assert_eq!(first.items.iter().map(|grant| &*grant.user).collect::<Vec<_>>(), [alice.user()]);
    query.after = Some(first.next.unwrap().parse().unwrap());
    let second = within(client.list(&query)).await.unwrap();
    assert_eq!((second.items[0].user.as_str(), second.next), ("bob", None));

    let held = within(client.hold_idp("other", "their incident")).await.unwrap();
    assert_eq!((held.held, held.held_reason.as_deref()), (true, Some("their incident")));
    assert_eq!(within(client.health()).await.unwrap().body.degraded, ["idp_held:other"]);
    assert!(!within(client.release_idp("other")).await.unwrap().held);
    within(client.probe_idp("other")).await.unwrap();
    let retried = within(client.retry_idp("other")).await.unwrap();
    assert_eq!((retried.retried, retried.left), (0, false));
    assert_eq!(within(client.idps()).await.unwrap().len(), 2);
    let keys = within(client.keys()).await.unwrap();
    assert_eq!((keys.items.len(), keys.items[0].state.as_ref(), keys.items[0].rows), (1, "active", 2));
    assert!(keys.items[0].need().is_any() && keys.lacking(&keys.items[0].id).is_empty());
    let step = within(client.reseal(Some(0))).await.unwrap();
    assert_eq!((step.resealed, step.later, step.failed, step.next), (0, 0, 0, None));
    assert_eq!(code(&within(client.adopt()).await.unwrap_err()), Some(Code::InvalidRequest), "it has no deployment");
    stage.stop().await;
}

#[tokio::test]
async fn errors_tell_a_refusal_from_a_server_that_is_not_there() {
    let stage = Stage::new().await;
    let key = TokenKey::at("idp").user("alice");
    let stranger = client(&stage).api_key("ts-test-secret-key-of-nobody");
    let refused = within(stranger.status(&key)).await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::Unauthorized), "{refused}");
    let elsewhere = ApiClient::new(&format!("http://{}/else/where", stage.address)).unwrap();
    assert!(matches!(within(elsewhere.health()).await, Err(ApiError::Problem(_) | ApiError::Foreign(_))));
    let nobody = ApiClient::new("http://127.0.0.1:1").unwrap();
    assert!(matches!(within(nobody.status(&key)).await, Err(ApiError::Transport(_))));
    stage.stop().await;
}
