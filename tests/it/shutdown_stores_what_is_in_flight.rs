//! Shutdown starts nothing, finishes what is in flight, and can be called again.

use std::time::Duration;

use token_supervisor::{
    Error, TokenKey,
    testing::{Fault, Profile, Standing},
};

use super::support::{LIFE, World, ask, eventually, within};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_refresh_in_flight_is_finished_and_stored() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    // The sweeper may have sent it: the caller waits at the actor once that has answered a later question.
    within(supervisor.status(&key)).await.unwrap();
    let shutdown = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.shutdown(LONG).await }
    });
    tokio::task::yield_now().await;
    world.sim.release();
    let ended = within(shutdown).await.unwrap();
    assert_eq!((ended.finished, ended.abandoned), (1, 0));
    assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
    let again = within(supervisor.shutdown(LONG)).await;
    assert_eq!((again.finished, again.abandoned), (0, 0));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_counted_and_the_next_process_finds_it() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    let shutdown = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.shutdown(Duration::from_secs(5)).await }
    });
    tokio::task::yield_now().await;
    eventually("the deadline passes", || {
        world.clock.advance(Duration::from_secs(1));
        shutdown.is_finished()
    })
    .await;
    let ended = shutdown.await.unwrap();
    assert_eq!((ended.finished, ended.abandoned), (0, 1));
    caller.abort();
    world.sim.release();
    let ended = within(supervisor.shutdown(LONG)).await;
    assert_eq!(ended.abandoned, 0);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn nothing_new_starts_and_valid_tokens_are_served_on() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    within(supervisor.token(&key)).await.unwrap();
    within(supervisor.shutdown(LONG)).await;
    within(supervisor.token(&key)).await.unwrap();
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap_err(), Error::ShutDown);
    assert_eq!(within(supervisor.status(&TokenKey::at("idp").user("bob"))).await.unwrap_err(), Error::ShutDown);
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn nothing_new_starts_while_a_shutdown_waits_for_what_is_in_flight() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    let others: Vec<_> = (0..16).map(|number| TokenKey::at("idp").user(format!("user-{number}"))).collect();
    for other in &others {
        within(supervisor.connect(other, world.sim.consent(other.user()))).await.unwrap();
    }
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE.mul_f64(0.5));
    let refreshed = tokio::spawn({
        let (supervisor, key) = (supervisor.clone(), key.clone());
        async move { supervisor.refresh_now(&key).await }
    });
    eventually("the request has left", || world.sim.requests() == 1).await;
    let ended = within(supervisor.shutdown(Duration::ZERO)).await;
    assert_eq!((ended.finished, ended.abandoned), (0, 1));
    for other in &others {
        assert_eq!(within(supervisor.refresh_now(other)).await.unwrap_err(), Error::ShutDown);
    }
    assert_eq!(world.sim.requests(), 1);
    world.sim.release();
    within(refreshed).await.unwrap().unwrap();
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_stopped_supervisor_lets_the_next_one_open_its_store() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    if !world.is_shared() {
        let error = world.builder().start().await.unwrap_err();
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    }
    within(supervisor.shutdown(LONG)).await;
    drop(supervisor);
    let supervisor = world.start().await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 1);
}

#[tokio::test]
async fn dropping_the_last_handle_stores_what_is_in_flight() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    caller.abort();
    caller.await.unwrap_err();
    drop(supervisor);
    world.sim.release();
    let supervisor = loop {
        match world.builder().start().await {
            Ok(supervisor) => break supervisor,
            Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
        }
    };
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    assert_eq!(world.sim.requests(), 1);
}
