//! Whoever asks for a refresh hears whether there was one.

use std::time::Duration;

use token_supervisor::{
    Cause, Error, RefreshNow, TokenKey, presets,
    testing::{Fault, Profile},
};

use crate::support::{World, eventually, stop, within};

#[tokio::test]
async fn of_a_grant_that_nobody_has_used_yet() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    stop(supervisor).await;
    let client = world.sim.profile().client_id.clone();
    let refused = presets::keycloak("http://127.0.0.1", "app", client, "ts-test-secret-wrong");
    let refused = refused.token_url(world.sim.token_url()).revocation_url(world.sim.revocation_url());
    let supervisor = world.bare_builder().idp("idp", refused).start().await.unwrap();
    let error = within(supervisor.refresh_now(&key)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::ClientRefused, .. }), "{error}");
    stop(supervisor).await;

    let supervisor = world.start().await;
    assert!(within(supervisor.refresh_now(&key)).await.unwrap().refreshed);
    stop(supervisor).await;

    // There has just been one, and the new process knows.
    let supervisor = world.start().await;
    let refreshed = within(supervisor.call(RefreshNow::new(&key).timeout(Duration::from_secs(5)))).await.unwrap();
    assert_eq!((refreshed.refreshed, refreshed.status.generation.get(), world.sim.requests()), (false, 2, 2));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_provider_that_asks_for_patience_is_left_alone_by_all_its_grants() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    let neighbour = TokenKey::at("idp").user("bob");
    within(supervisor.connect(&neighbour, world.sim.consent("bob"))).await.unwrap();
    world.sim.next(Fault::Status(429, Some("30".to_owned())));
    for key in [&key, &neighbour] {
        let error = within(supervisor.refresh_now(key)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { cause: Cause::IdpThrottled, .. }), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
    }
    assert_eq!(world.sim.requests(), 1);
    world.clock.advance(Duration::from_secs(30));
    eventually("the attempt has ended", || supervisor.testing().attempts() == 0).await;
    assert!(within(supervisor.refresh_now(&neighbour)).await.unwrap().refreshed);
    assert_eq!(world.sim.requests(), 2);
}
