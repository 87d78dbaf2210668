//! An answer that the store does not take at once is in the journal before anybody sees the token, and goes to the
//! store when that answers, also after a restart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use token_supervisor::{
    Cause, Error, TokenKey, TokenSupervisor,
    testing::{Point, Profile, Standing, StoreFault},
};

use super::support::{LIFE, World, ask, eventually, passing, stop, within};

async fn drained(world: &World, supervisor: &TokenSupervisor) {
    eventually("the store has everything", || {
        world.clock.advance(Duration::from_millis(100));
        supervisor.testing().journal_pending() == 0 && supervisor.testing().attempts() == 0
    })
    .await;
}

#[tokio::test]
async fn a_refused_commit_is_journaled_published_and_stored_later() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().store_fault(StoreFault::CommitsFail);
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    assert_eq!(supervisor.testing().journal_pending(), 1);
    supervisor.testing().store_fault(StoreFault::None);
    drained(&world, &supervisor).await;
    assert_eq!(world.sim.requests(), 1);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_late_report_of_the_replaced_token_leaves_the_journaled_one() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    let first = within(supervisor.token(&key)).await.unwrap();
    supervisor.testing().store_fault(StoreFault::CommitsFail);
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    within(supervisor.report_rejected(&key, first.generation())).await.unwrap();
    assert_eq!(supervisor.cached(&key).map(|token| (token.generation().get(), token.warning())), Some((2, None)));
    supervisor.testing().store_fault(StoreFault::None);
    drained(&world, &supervisor).await;
    assert_eq!((world.sim.requests(), world.stored(supervisor, &key).await), (1, Standing::Current));
}

#[tokio::test]
async fn a_silent_commit_is_journaled_after_a_moment() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().store_fault(StoreFault::CommitsHang);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    assert_eq!(passing(&world, Duration::from_millis(50), caller).await.unwrap().generation().get(), 2);
    assert_eq!(supervisor.testing().journal_pending(), 1);
    supervisor.testing().store_fault(StoreFault::None);
    drained(&world, &supervisor).await;
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn an_answer_that_neither_takes_is_shown_to_nobody_until_one_does() {
    for fault in [StoreFault::CommitsFail, StoreFault::CommitsHang] {
        let world = World::new(Profile::keycloak());
        let (supervisor, key) = world.connected().await;
        supervisor.testing().store_fault(fault);
        supervisor.testing().journal_fails(true);
        world.clock.advance(LIFE);
        let caller = tokio::spawn({
            let (supervisor, key) = (supervisor.clone(), key.clone());
            async move { supervisor.call(token_supervisor::Acquire::new(&key).timeout(LIFE)).await }
        });
        // The second time says that whatever follows from the first has happened.
        eventually("the journal refuses the answer twice", || {
            world.clock.advance(Duration::from_millis(100));
            supervisor.testing().journal_failures() >= 2
        })
        .await;
        assert!(!caller.is_finished() && supervisor.cached(&key).is_none());
        supervisor.testing().journal_fails(false);
        assert_eq!(passing(&world, Duration::from_millis(100), caller).await.unwrap().generation().get(), 2);
        supervisor.testing().store_fault(StoreFault::None);
        drained(&world, &supervisor).await;
        assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_of_a_claim_is_repeated_with_the_same_id() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().store_fault(StoreFault::ClaimAcknowledgementsLost);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("an attempt claims", || supervisor.testing().attempts() == 1).await;
    world.clock.advance(Duration::from_secs(1));
    supervisor.testing().store_fault(StoreFault::None);
    assert_eq!(passing(&world, Duration::from_millis(50), caller).await.unwrap().generation().get(), 2);
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn a_claim_acknowledged_too_late_sends_nothing() {
    let world = World::new(Profile::keycloak());
    let (tried, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = [(Point::BeforeClaim, tried.clone()), (Point::Claimed, taken.clone())];
    let count = move |reached| {
        counts.iter().filter(|(point, _)| *point == reached).for_each(|(_, count)| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    };
    let supervisor = world.builder().at_points(count).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    supervisor.testing().store_fault(StoreFault::ClaimAcknowledgementsLost);
    world.clock.advance(LIFE);
    let caller = tokio::spawn({
        let (supervisor, key) = (supervisor.clone(), key.clone());
        async move { supervisor.call(token_supervisor::Acquire::new(&key).timeout(LIFE)).await }
    });
    eventually("an attempt claims", || tried.load(Ordering::Relaxed) > 0).await;
    // Past the send window, within the lease: the claim is cancelled and made anew.
    world.clock.advance(Duration::from_secs(6));
    supervisor.testing().store_fault(StoreFault::None);
    assert_eq!(passing(&world, Duration::from_millis(200), caller).await.unwrap().generation().get(), 2);
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    assert!(taken.load(Ordering::Relaxed) >= 2, "the late one was given up");
}

#[tokio::test]
async fn a_lost_acknowledgement_of_a_commit_changes_nothing() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().store_fault(StoreFault::CommitAcknowledgementsLost);
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    supervisor.testing().store_fault(StoreFault::None);
    drained(&world, &supervisor).await;
    assert_eq!(within(supervisor.status(&key)).await.unwrap().generation.get(), 2);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_store_that_is_down_answers_with_when_to_try_again_and_recovers() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    within(supervisor.token(&key)).await.unwrap();
    supervisor.testing().store_fault(StoreFault::Down);
    within(supervisor.token(&key)).await.unwrap();
    let cold = TokenKey::at("idp").user("bob");
    let error = within(supervisor.token(&cold)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::StoreDown, .. }), "{error}");
    let error = within(supervisor.connect(&cold, world.sim.consent("bob"))).await.unwrap_err();
    assert!(error.is_transient() && error.retry_after().is_some(), "{error}");
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    let error = passing(&world, Duration::from_secs(1), caller).await.unwrap_err();
    // After so long without a word of other replicas, a row that cannot be read is an answer, too.
    let is_told = world.is_shared() && matches!(error, Error::Unavailable { cause: Cause::StoreDown, .. });
    assert!(error == Error::Timeout || is_told, "{error}");
    assert_eq!(world.sim.requests(), 0);
    supervisor.testing().store_fault(StoreFault::None);
    eventually("it recovers", || {
        world.clock.advance(Duration::from_secs(1));
        world.sim.requests() == 1
    })
    .await;
    within(supervisor.token(&key)).await.unwrap();
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
}

/// A supervisor whose attempt dies as soon as its answer is in the journal, and only there.
pub(crate) async fn left_in_the_journal(world: &World) -> (TokenSupervisor, TokenKey) {
    let panics = |point| assert!(point != Point::Journaled, "injected: an attempt");
    let supervisor = world.builder().at_points(panics).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    supervisor.testing().store_fault(StoreFault::CommitsFail);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the attempt is dead", || {
        supervisor.testing().journal_pending() == 1 && supervisor.testing().attempts() == 0
    })
    .await;
    caller.abort();
    (supervisor, key)
}

#[tokio::test]
async fn what_is_in_the_journal_goes_to_the_store_before_the_next_attempt_claims() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = left_in_the_journal(&world).await;
    let caller = ask(&supervisor, &key);
    eventually("the next attempt runs", || {
        world.clock.advance(Duration::from_millis(200));
        supervisor.testing().attempts() == 1
    })
    .await;
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(5));
        within(supervisor.status(&key)).await.unwrap();
    }
    assert_eq!((supervisor.testing().journal_pending(), world.sim.requests()), (1, 1), "the store has not got it");
    assert_eq!(within(caller).await.unwrap().unwrap_err(), Error::Timeout);
    supervisor.testing().store_fault(StoreFault::None);
    let caller = ask(&supervisor, &key);
    assert_eq!(passing(&world, Duration::from_millis(200), caller).await.unwrap().generation().get(), 2);
    assert_eq!((supervisor.testing().journal_pending(), world.sim.requests()), (0, 1));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn what_is_in_the_journal_goes_to_the_store_at_start_whether_or_not_its_provider_is_still_configured() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = left_in_the_journal(&world).await;
    supervisor.testing().store_fault(StoreFault::None);
    stop(supervisor).await;
    let supervisor = world.bare_builder().start().await.unwrap();
    eventually("the store has it", || supervisor.testing().journal_pending() == 0).await;
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
    assert_eq!(world.sim.requests(), 1);
}
