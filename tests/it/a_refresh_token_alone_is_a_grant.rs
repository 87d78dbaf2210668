//! Who has kept nothing but a refresh token connects that: it is refreshed at once, and nothing is served before.

use std::time::Duration;

use token_supervisor::{
    Acquire, Cause, Error, Grant, State, TokenKey, TokenSupervisor, Unchanged,
    testing::{Fault, Profile},
};

use super::support::{LIFE, World, eventually, stop, within};

/// What is left of alice's consent.
fn kept(world: &World) -> Grant {
    let _ = world.sim.consent("alice");
    Grant::from_refresh_token(world.sim.newest("alice").unwrap()).expires_in(LIFE)
}

async fn refused(supervisor: &TokenSupervisor, key: &TokenKey) -> Cause {
    assert!(supervisor.cached(key).is_none(), "there is nothing to serve");
    match within(supervisor.token(key)).await {
        Err(Error::Unavailable { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_is_refreshed_at_once_though_nobody_asks() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    let grant = kept(&world);
    let status = within(supervisor.connect(&key, grant.clone())).await.unwrap();
    assert_eq!((status.state, status.generation.get()), (State::Due, 1));
    eventually("it is refreshed", || supervisor.cached(&key).is_some()).await;
    let token = within(supervisor.call(Acquire::new(&key).min_ttl(LIFE / 2))).await.unwrap();
    assert_eq!((token.generation().get(), token.access_token().expose_secret().is_empty()), (2, false));
    let again = within(supervisor.connect(&key, grant)).await.unwrap();
    assert_eq!((again.generation.get(), again.unchanged), (2, Some(Unchanged::TokenAlreadySpent)));
    assert_eq!(world.sim.duplicate_spends(), 0);
    stop(supervisor).await;
}

#[tokio::test]
async fn who_asks_before_waits_for_the_first_refresh_whatever_life_is_wanted() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    world.sim.next(Fault::HangAfter);
    within(supervisor.connect(&key, kept(&world))).await.unwrap();
    eventually("the request has left", || world.sim.requests() == 1).await;
    let asked = supervisor.call(Acquire::new(&key).min_ttl(Duration::from_secs(60)));
    let (token, ()) = tokio::join!(asked, async { world.sim.release() });
    assert_eq!(token.unwrap().generation().get(), 2);
    stop(supervisor).await;
}

#[tokio::test]
async fn nothing_is_served_before_whatever_becomes_of_process_and_clock() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.hold_idp("idp", "moving")).await.unwrap();
    let grant = kept(&world);
    within(supervisor.connect(&key, grant.clone())).await.unwrap();
    let again = within(supervisor.connect(&key, grant.clone())).await.unwrap();
    assert_eq!((again.generation.get(), again.unchanged), (1, Some(Unchanged::AlreadyConnected)));
    let watch = within(supervisor.watch(&key)).await.unwrap();
    assert_eq!((refused(&supervisor, &key).await, watch.token().is_none()), (Cause::IdpHeld, true));
    drop(watch);
    stop(supervisor).await;

    // As if it had not ended yet.
    world.clock.step_to(world.clock.now() - LIFE);
    let supervisor = world.start().await;
    assert_eq!(refused(&supervisor, &key).await, Cause::IdpHeld);
    assert_eq!(within(supervisor.connect(&key, grant)).await.unwrap().unchanged, Some(Unchanged::AlreadyConnected));
    within(supervisor.release_idp("idp")).await.unwrap();
    world.clock.advance(2 * LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    stop(supervisor).await;
}
