//! Actors, the registry and the whole System may die at any moment: attempts go on, waiters get an answer,
//! neighbours notice nothing.

use std::time::Duration;

use futures_util::FutureExt;
use token_supervisor::{
    Acquire, Error, Revoke, State, TokenKey,
    testing::{Fault, Point, Profile, Standing, StoreFault},
};

use super::support::{LIFE, World, ask, breathe, eventually, passing, stop, within};

#[tokio::test]
async fn an_idle_actor_that_panics_is_replaced() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().panic_actor(&key).await;
    within(supervisor.token(&key)).await.unwrap();
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
}

#[tokio::test]
async fn a_replaced_actor_goes_to_sleep_although_nobody_asks() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    within(supervisor.token(&key)).await.unwrap();
    supervisor.testing().panic_actor(&key).await;
    // Answered after the panic: all actors share one thread.
    within(supervisor.status(&TokenKey::at("idp").user("bob"))).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(660));
    eventually("it sleeps", || !supervisor.testing().is_published(&key)).await;
}

#[tokio::test]
async fn an_actor_that_panics_at_first_contact_is_replaced() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("nobody");
    supervisor.testing().panic_actor(&key).await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap_err(), Error::NotConnected);
}

#[tokio::test]
async fn an_attempt_in_flight_outlives_its_actor() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    supervisor.testing().panic_actor(&key).await;
    let late = ask(&supervisor, &key);
    world.sim.release();
    for caller in [caller, late] {
        assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
    }
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_replaced_actor_hears_of_the_attempt_that_its_predecessor_started() {
    let world = World::new(Profile::keycloak());
    let (reached, arrived) = tokio::sync::watch::channel(false);
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    // Before it claims nothing in the row tells of it.
    let hold_up = move |point| {
        if point == Point::BeforeClaim {
            reached.send_replace(true);
            wait.lock().unwrap().recv().ok();
        }
    };
    let supervisor = world.builder().at_points(hold_up).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let refreshed = tokio::spawn({
        let (supervisor, key) = (supervisor.clone(), key.clone());
        async move { supervisor.refresh_now(&key).await }
    });
    eventually("the attempt is held up", || *arrived.borrow()).await;
    refreshed.abort();
    assert!(refreshed.await.unwrap_err().is_cancelled());
    supervisor.testing().panic_actor(&key).await;
    assert_eq!(within(supervisor.status(&key)).await.unwrap().generation.get(), 1);
    drop(go_on);
    eventually("the attempt ends", || supervisor.testing().attempts() == 0).await;
    assert_eq!(within(supervisor.status(&key)).await.unwrap().generation.get(), 2);
}

#[tokio::test]
async fn an_actor_that_dies_while_it_backs_off_goes_on_afterwards() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::Status(429, Some("5".to_owned())));
    world.clock.advance(LIFE);
    // Its deadline is far away in the eyes of a clock that is turned quickly.
    let caller = tokio::spawn({
        let (supervisor, key) = (supervisor.clone(), key.clone());
        async move { supervisor.call(Acquire::new(&key).timeout(LIFE)).await }
    });
    eventually("the refusal was heard", || world.sim.requests() == 1 && supervisor.testing().attempts() == 0).await;
    supervisor.testing().panic_actor(&key).await;
    eventually("somebody waits for the retry", || {
        world.clock.advance(std::time::Duration::from_millis(200));
        caller.is_finished()
    })
    .await;
    assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn an_actor_that_dies_in_doubt_goes_on_afterwards() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::DropBefore);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the connection broke", || world.sim.requests() == 1 && supervisor.testing().attempts() == 0).await;
    assert!(matches!(within(caller).await.unwrap(), Err(Error::Unavailable { .. })));
    supervisor.testing().panic_actor(&key).await;
    world.clock.advance(std::time::Duration::from_secs(31));
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn the_registry_dies_with_requests_on_their_way() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let mut callers = vec![ask(&supervisor, &key)];
    eventually("the request has left", || world.sim.requests() == 1).await;
    for _ in 0..3 {
        supervisor.testing().panic_registry();
        callers.extend((0..100).map(|_| ask(&supervisor, &key)));
        tokio::task::yield_now().await;
        world.clock.advance(std::time::Duration::from_millis(20));
    }
    world.sim.release();
    for caller in callers {
        assert_eq!(passing(&world, std::time::Duration::from_millis(5), caller).await.unwrap().generation().get(), 2);
    }
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
}

#[tokio::test]
async fn the_system_dies_while_a_token_is_being_spent() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    supervisor.testing().crash_system();
    let late = ask(&supervisor, &key);
    world.sim.release();
    for caller in [caller, late] {
        assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
    }
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn the_actor_dies_while_an_answer_is_only_in_the_journal() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().store_fault(StoreFault::CommitsFail);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the answer is in the journal", || supervisor.testing().journal_pending() == 1).await;
    assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
    supervisor.testing().panic_actor(&key).await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    supervisor.testing().store_fault(StoreFault::None);
    eventually("the store has it", || {
        world.clock.advance(std::time::Duration::from_millis(100));
        supervisor.testing().journal_pending() == 0
    })
    .await;
    assert_eq!(world.sim.requests(), 1);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn an_attempt_whose_task_panics_is_found_dead_and_settled() {
    for point in [Point::BeforeClaim, Point::Claimed, Point::Answered, Point::Committed] {
        let world = World::new(Profile::bitbucket());
        let panics = std::sync::atomic::AtomicBool::new(true);
        let panic_once = move |reached| {
            assert!(
                reached != point || !panics.swap(false, std::sync::atomic::Ordering::Relaxed),
                "injected: an attempt"
            );
        };
        let supervisor = world.builder().at_points(panic_once).start().await.unwrap();
        let key = TokenKey::at("idp").user("alice");
        within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
        world.clock.advance(LIFE);
        let caller = ask(&supervisor, &key);
        eventually("the caller is answered", || {
            world.clock.advance(std::time::Duration::from_millis(100));
            caller.is_finished()
        })
        .await;
        let answer = caller.await.unwrap();
        assert!(answer.as_ref().is_ok() || answer.as_ref().is_err_and(Error::is_transient), "{point:?}: {answer:?}");
        // It is refreshed after its doubt has settled.
        within(async {
            while !supervisor.status(&key).await.is_ok_and(|status| status.generation.get() >= 2) {
                world.clock.advance(std::time::Duration::from_secs(1));
                breathe().await;
            }
        })
        .await;
        assert_eq!(world.sim.duplicate_spends(), 0, "{point:?}");
        assert_eq!(world.stored(supervisor, &key).await, Standing::Current, "{point:?}");
    }
}

#[tokio::test]
async fn a_poisoned_grant_is_left_alone_for_a_while_and_its_neighbour_is_not() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let neighbour = TokenKey::at("idp").user("bob");
    supervisor.connect(&neighbour, world.sim.consent("bob")).await.unwrap();
    for _ in 0..5 {
        within(supervisor.status(&key)).await.unwrap();
        supervisor.testing().panic_actor(&key).await;
    }
    let mut answer = within(supervisor.status(&key)).await;
    while answer.is_ok() {
        // The last panic is still on its way to the registry.
        answer = within(supervisor.status(&key)).await;
    }
    let error = answer.unwrap_err();
    assert_eq!(error.code(), "unavailable");
    assert!(error.retry_after().is_some_and(|after| after <= std::time::Duration::from_secs(60)), "{error}");
    within(supervisor.status(&neighbour)).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(61));
    within(supervisor.status(&key)).await.unwrap();
}

#[tokio::test]
async fn a_connect_that_outlives_the_registry_is_seen_by_the_actors_of_the_next() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    within(supervisor.disconnect(&key, Revoke::No)).await.unwrap();
    supervisor.testing().store_fault(StoreFault::ConnectsHang);
    let mut connect = Box::pin(supervisor.connect(&key, world.sim.consent("alice")));
    // Its actor has it before the registry dies.
    assert!((&mut connect).now_or_never().is_none());
    supervisor.testing().panic_registry();
    let status = tokio::spawn({
        let (supervisor, key) = (supervisor.clone(), key.clone());
        async move { supervisor.status(&key).await }
    });
    let status = passing(&world, Duration::from_millis(1), status).await.unwrap();
    assert_eq!(status.state, State::Revoked, "the successor has read what was there");

    supervisor.testing().store_fault(StoreFault::None);
    within(connect).await.unwrap();
    let asked = async {
        loop {
            match supervisor.status(&key).await.unwrap().state {
                State::Revoked => tokio::task::yield_now().await,
                state => break state,
            }
        }
    };
    assert_eq!(within(asked).await, State::Fresh);
    stop(supervisor).await;
}
