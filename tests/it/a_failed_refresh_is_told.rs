//! Whoever asks for a refresh hears whether there was one.

use std::time::Duration;

use token_supervisor::{Cause, Error, RefreshNow, presets, testing::Profile};

use crate::support::{World, stop, within};

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
