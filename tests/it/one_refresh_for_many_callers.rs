//! However many ask, and however they vanish: one refresh.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use token_supervisor::{
    Freshness, RefreshNow, State, TokenKey,
    testing::{Fault, Point, Profile, Standing},
};

use super::support::{LIFE, World, ask, eventually, within};

#[tokio::test]
async fn a_connected_grant_is_served_and_refreshed() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let first = within(supervisor.token(&key)).await.unwrap();
    assert_eq!((first.generation().get(), first.freshness()), (1, Freshness::Fresh));
    assert_eq!(world.sim.requests(), 0);
    world.clock.advance(LIFE);
    let second = within(supervisor.token(&key)).await.unwrap();
    assert_eq!(second.generation().get(), 2);
    assert_ne!(first.access_token(), second.access_token());
    assert_eq!(world.sim.access_died_at(second.access_token()), None);
    assert_eq!(world.sim.requests(), 1);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn ten_thousand_callers_of_an_expired_token_cause_one_refresh() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.clock.advance(LIFE);
    let callers: Vec<_> = (0..10_000).map(|_| ask(&supervisor, &key)).collect();
    for caller in callers {
        let token = within(caller).await.unwrap().unwrap();
        assert_eq!(token.generation().get(), 2);
    }
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn a_dropped_caller_neither_stops_nor_changes_the_refresh() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.sim.release();
    let token = within(supervisor.token(&key)).await.unwrap();
    assert_eq!((token.generation().get(), world.sim.requests()), (2, 1));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn different_keys_do_not_wait_for_each_other() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    let bob = TokenKey::at("idp").user("bob");
    supervisor.connect(&bob, world.sim.consent("bob")).await.unwrap();
    world.sim.next(Fault::HangAfter);
    let slow = tokio::spawn({
        let (supervisor, alice) = (supervisor.clone(), alice.clone());
        async move { supervisor.call(RefreshNow::new(&alice)).await }
    });
    eventually("the slow request has left", || world.sim.requests() == 1).await;
    world.clock.advance(LIFE);
    within(supervisor.token(&bob)).await.unwrap();
    world.sim.release();
    eventually("the slow one ends", || slow.is_finished()).await;
}

#[tokio::test]
async fn nothing_is_claimed_before_the_provider_has_a_slot() {
    let world = World::new(Profile::keycloak());
    let claims = Arc::new(AtomicUsize::new(0));
    let count = claims.clone();
    let look = move |point| {
        if point == Point::BeforeClaim {
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let idp = world.sim.idp().max_concurrency(1);
    let supervisor = world.bare_builder().idp("idp", idp).at_points(look).start().await.unwrap();
    let keys = ["alice", "bob"].map(|user| TokenKey::at("idp").user(user));
    for key in &keys {
        supervisor.connect(key, world.sim.consent(key.user())).await.unwrap();
    }
    let refresh = |key: &TokenKey| {
        let (supervisor, key) = (supervisor.clone(), key.clone());
        tokio::spawn(async move { supervisor.refresh_now(&key).await })
    };
    world.sim.next(Fault::HangAfter);
    let first = refresh(&keys[0]);
    eventually("the first request has left", || world.sim.requests() == 1).await;
    let second = refresh(&keys[1]);
    eventually("the second attempt runs", || supervisor.testing().attempts() == 2).await;
    for _ in 0..50 {
        assert_ne!(within(supervisor.status(&keys[1])).await.unwrap().state, State::Refreshing);
    }
    assert_eq!((claims.load(Ordering::Relaxed), world.sim.requests()), (1, 1));
    world.sim.release();
    for refreshed in [first, second] {
        assert!(within(refreshed).await.unwrap().unwrap().refreshed);
    }
    assert_eq!((claims.load(Ordering::Relaxed), world.sim.requests()), (2, 2));
}

#[tokio::test]
async fn a_lease_is_kept_while_the_answer_is_awaited() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    eventually("the lease is renewed, and again", || {
        world.clock.advance(Duration::from_secs(1));
        supervisor.testing().lease_renewals() >= 3
    })
    .await;
    caller.abort();
    world.sim.release();
    eventually("the attempt ends", || supervisor.testing().attempts() == 0).await;
    let renewals = supervisor.testing().lease_renewals();
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.stored(supervisor.clone(), &key).await, Standing::Current);
    assert_eq!(supervisor.testing().lease_renewals(), renewals, "its end is the end of its lease");
}
