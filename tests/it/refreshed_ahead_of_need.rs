//! Tokens are refreshed before anybody waits for them, whether an actor is awake or not.

use std::time::Duration;

use token_supervisor::{
    Error, Expiry, Freshness, Grant, State, TokenKey, TokenSupervisor, Warning,
    testing::{Fault, Profile},
};

use crate::support::{LIFE, World, ask, eventually, within};

/// A supervisor with one connected grant, whose token stays in memory although time is turned on before anybody reads it.
async fn kept(world: &World) -> (TokenSupervisor, TokenKey) {
    let supervisor = world.builder().idle_after(10 * LIFE).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    (supervisor, key)
}

#[tokio::test]
async fn a_due_token_is_refreshed_in_the_background() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = kept(&world).await;
    world.clock.advance(LIFE - Duration::from_secs(200));
    eventually("a refresh nobody asked for", || {
        supervisor.cached(&key).is_some_and(|token| token.generation().get() == 2)
    })
    .await;
    assert_eq!(supervisor.cached(&key).unwrap().freshness(), Freshness::Fresh);
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn a_margin_longer_than_the_life_does_not_make_new_tokens_due() {
    let world = World::new(Profile::bitbucket());
    let supervisor = world.bare_builder().idp("idp", world.sim.idp().margin(LIFE * 24)).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    let status = within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    assert_eq!(status.state, State::Fresh);
    world.clock.advance(LIFE / 2);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().freshness(), Freshness::Fresh);
    assert_eq!(world.sim.requests(), 0);
    world.clock.advance(LIFE / 4);
    eventually("due at three quarters of its life", || world.sim.requests() == 1).await;
}

#[tokio::test]
async fn a_valid_token_is_served_while_its_refresh_fails() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = kept(&world).await;
    world.sim.always(Some(Fault::Status(429, None)));
    world.clock.advance(LIFE - Duration::from_secs(200));
    eventually("the failure shows", || {
        supervisor.cached(&key).is_some_and(|token| token.freshness() == Freshness::LastGood)
    })
    .await;
    let token = within(supervisor.token(&key)).await.unwrap();
    assert_eq!((token.generation().get(), token.warning()), (1, Some(Warning::RefreshFailing)));
    assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::Backoff);
    world.sim.always(None);
    eventually("it recovers by itself", || {
        world.clock.advance(Duration::from_millis(100));
        supervisor.cached(&key).is_some_and(|token| token.freshness() == Freshness::Fresh)
    })
    .await;
}

#[tokio::test]
async fn where_rotation_ends_the_access_token_callers_join_the_refresh() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE - Duration::from_secs(200));
    eventually("the request has left", || world.sim.requests() == 1).await;
    assert!(supervisor.cached(&key).is_none(), "the old token is dead at the provider by now");
    let caller = ask(&supervisor, &key);
    world.sim.release();
    assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
}

#[tokio::test]
async fn a_grant_is_refreshed_when_it_comes_due_and_when_its_provider_is_released() {
    let world = World::new(Profile::bitbucket());
    let supervisor = world.builder().sweep_every(10 * LIFE).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE - Duration::from_secs(200));
    eventually("a refresh without a round of the sweeper", || {
        supervisor.cached(&key).is_some_and(|token| token.generation().get() == 2)
    })
    .await;
    within(supervisor.hold_idp("idp", "maintenance")).await.unwrap();
    world.clock.advance(LIFE);
    within(supervisor.release_idp("idp")).await.unwrap();
    eventually("a refresh at once", || world.sim.requests() == 2).await;
}

#[tokio::test]
async fn an_unused_token_leaves_the_memory_and_comes_back_for_callers() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    within(supervisor.token(&key)).await.unwrap();
    assert!(supervisor.testing().is_published(&key));
    eventually("it is removed", || {
        world.clock.advance(Duration::from_secs(60));
        !supervisor.testing().is_published(&key)
    })
    .await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 1);
    assert!(supervisor.testing().is_published(&key));
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn a_watched_key_stays_in_memory_and_its_watch_sees_every_token() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let mut watch = within(supervisor.watch(&key)).await.unwrap();
    assert_eq!(watch.token().unwrap().generation().get(), 1);
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    assert!(supervisor.testing().is_published(&key));
    world.clock.advance(LIFE - Duration::from_secs(1_400));
    while watch.token().is_none_or(|token| token.generation().get() < 2) {
        within(watch.changed()).await;
    }
    let missing = within(supervisor.watch(&TokenKey::at("idp").user("nobody"))).await;
    assert_eq!(missing.unwrap_err(), Error::NotConnected);
}

#[tokio::test]
async fn a_sleeping_grant_is_kept_alive_by_the_sweeper() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    eventually("it sleeps", || {
        world.clock.advance(Duration::from_secs(60));
        !supervisor.testing().is_published(&key)
    })
    .await;
    eventually("the sweeper wakes it when it is due", || {
        world.clock.advance(Duration::from_secs(20));
        world.sim.requests() == 1
    })
    .await;
    eventually("the refresh is stored", || supervisor.testing().attempts() == 0).await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
}

#[tokio::test]
async fn a_stepped_wall_clock_never_revives_an_expired_token() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    within(supervisor.token(&key)).await.unwrap();
    world.sim.always(Some(Fault::Status(429, Some("3600".to_owned()))));
    world.clock.advance(LIFE);
    world.clock.step_to(world.clock.now() - LIFE);
    assert!(supervisor.cached(&key).is_none(), "by the boot-time clock it is over");
}

#[tokio::test]
async fn without_a_refresh_token_a_grant_lives_as_long_as_its_access_token() {
    let world = World::new(Profile::github());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    let grant = Grant::new("ts-test-secret-only").expires_in(LIFE);
    within(supervisor.connect(&key, grant)).await.unwrap();
    within(supervisor.token(&key)).await.unwrap();
    world.clock.advance(LIFE);
    let error = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "no_refresh_token"), "{error}");
    let forever = TokenKey::at("idp").user("bob");
    within(supervisor.connect(&forever, Grant::new("ts-test-secret-ever").expiry(Expiry::Never))).await.unwrap();
    world.clock.advance(LIFE * 10_000);
    within(supervisor.token(&forever)).await.unwrap();
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn min_ttl_is_kept_or_refused_but_never_costs_a_refresh_per_call() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let ask = |min_ttl| supervisor.call(token_supervisor::Acquire::new(&key).min_ttl(min_ttl));
    let error = within(ask(LIFE)).await.unwrap_err();
    assert_eq!(error, Error::MinTtlUnsatisfiable { max_ttl: LIFE * 3 / 4 });
    assert_eq!(world.sim.requests(), 0);
    assert_eq!(within(ask(LIFE * 3 / 4)).await.unwrap().generation().get(), 1);
    world.clock.advance(LIFE / 2);
    for _ in 0..3 {
        assert_eq!(within(ask(LIFE * 3 / 4)).await.unwrap().generation().get(), 2);
    }
    assert_eq!(world.sim.requests(), 1);
}
