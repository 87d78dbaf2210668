//! Replays are harmless, one refresh token belongs to one key, and a disconnected grant is gone but not lost.

use std::time::Duration;

use token_supervisor::{
    Error, Expiry, Grant, Revoke, State, TokenKey, Unchanged,
    testing::{Fault, Point, Profile, Standing, StoreFault},
};

use super::support::{LIFE, World, ask, eventually, stop, within};

#[tokio::test]
async fn a_replayed_connect_changes_nothing_and_says_so() {
    let world = World::new(Profile::keycloak());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    let grant = world.sim.consent("alice");
    let status = within(supervisor.connect(&key, grant.clone())).await.unwrap();
    assert_eq!((status.state, status.unchanged), (State::Fresh, None));
    let status = within(supervisor.connect(&key, grant.clone())).await.unwrap();
    assert_eq!((status.generation.get(), status.unchanged), (1, Some(Unchanged::AlreadyConnected)));
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap();
    let status = within(supervisor.connect(&key, grant)).await.unwrap();
    assert_eq!((status.generation.get(), status.unchanged), (2, Some(Unchanged::TokenAlreadySpent)));
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 3);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn one_refresh_token_lives_under_one_key() {
    let world = World::new(Profile::keycloak());
    let supervisor = world.start().await;
    let (alice, other) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("alice").account("work"));
    let grant = world.sim.consent("alice");
    within(supervisor.connect(&alice, grant.clone())).await.unwrap();
    assert_eq!(within(supervisor.connect(&other, grant.clone())).await.unwrap_err(), Error::DuplicateGrant);
    assert_eq!(within(supervisor.status(&other)).await.unwrap().state, State::Absent);
    world.clock.advance(LIFE);
    within(supervisor.token(&alice)).await.unwrap();
    assert_eq!(within(supervisor.connect(&other, grant)).await.unwrap_err(), Error::DuplicateGrant);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn a_connect_without_refresh_token_keeps_the_stored_one() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    let grant = Grant::new("ts-test-secret-second").expires_in(LIFE);
    let status = within(supervisor.connect(&key, grant)).await.unwrap();
    assert_eq!(status.generation.get(), 2);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().access_token().expose_secret(), "ts-test-secret-second");
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 3);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_refresh_token_of_assumed_life_ends_so_long_after_its_last_use() {
    const IDLE: Duration = Duration::from_secs(90 * 24 * 3_600);
    let world = World::new(Profile::gitlab());
    let supervisor = world.bare_builder().idp("idp", world.sim.idp().refresh_lifetime(IDLE)).start().await.unwrap();
    let (key, told) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
    let status = within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    assert_eq!(status.refresh_expiry, Expiry::At(world.clock.now() + IDLE));
    world.clock.advance(LIFE / 4);
    let refreshed = within(supervisor.refresh_now(&key)).await.unwrap();
    assert_eq!(refreshed.status.refresh_expiry, Expiry::At(world.clock.now() + IDLE));
    let grant = world.sim.consent("bob").refresh_expiry(Expiry::Never);
    assert_eq!(within(supervisor.connect(&told, grant)).await.unwrap().refresh_expiry, Expiry::Never);
    let alone = TokenKey::at("idp").user("carol");
    let status = within(supervisor.connect(&alone, Grant::new("ts-test-secret-alone"))).await.unwrap();
    assert_eq!(status.refresh_expiry, Expiry::Unknown);
}

#[tokio::test]
async fn a_connect_supersedes_a_refresh_in_flight() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let token = within(caller).await.unwrap().unwrap();
    assert_eq!(token.generation().get(), 2);
    world.sim.release();
    eventually("the late answer's grant is revoked", || {
        world.clock.advance(Duration::from_secs(1));
        world.sim.revocations() == 1
    })
    .await;
    assert_eq!(world.sim.access_died_at(token.access_token()), None);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_disconnected_grant_is_refused_and_revoked_until_that_succeeds() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let token = within(supervisor.token(&key)).await.unwrap();
    world.sim.fail_revocations(Some(503));
    let status = within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap();
    assert_eq!((status.state, status.generation.get()), (State::Revoked, 2));
    assert_eq!(within(supervisor.token(&key)).await.unwrap_err(), Error::NotConnected);
    assert!(supervisor.cached(&key).is_none());
    eventually("the revocation fails, and is tried again", || {
        world.clock.advance(Duration::from_secs(5));
        world.sim.revocations() >= 2
    })
    .await;
    world.sim.fail_revocations(None);
    eventually("the revocation is tried again", || {
        world.clock.advance(Duration::from_secs(5));
        world.sim.access_died_at(token.access_token()).is_some()
    })
    .await;
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn a_disconnect_during_a_refresh_stands_and_the_late_answer_is_revoked() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap();
    assert_eq!(within(caller).await.unwrap().unwrap_err(), Error::NotConnected);
    world.sim.release();
    eventually("what is in flight settles, and everything is revoked", || {
        world.clock.advance(Duration::from_secs(5));
        world.sim.newest("alice").is_some_and(|token| world.sim.standing(&token) == Standing::Revoked)
    })
    .await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap_err(), Error::NotConnected);
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    assert!(within(supervisor.token(&key)).await.unwrap().generation().get() > 2);
}

#[tokio::test]
async fn nothing_is_served_of_a_grant_that_is_gone_although_its_answer_is_published_later() {
    for (held_up_at, fault) in [(Point::Committed, StoreFault::None), (Point::Journaled, StoreFault::CommitsHang)] {
        let world = World::new(Profile::keycloak());
        let (reached, arrived) = tokio::sync::watch::channel(false);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let hold_up = move |point| {
            if point == held_up_at {
                reached.send_replace(true);
                wait.lock().unwrap().recv().ok();
            }
        };
        let supervisor = world.builder().at_points(hold_up).start().await.unwrap();
        let key = TokenKey::at("idp").user("alice");
        within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
        within(supervisor.token(&key)).await.unwrap();
        let mut watch = within(supervisor.watch(&key)).await.unwrap();
        supervisor.testing().store_fault(fault);
        world.clock.advance(LIFE);
        let caller = ask(&supervisor, &key);
        eventually("the attempt is held up", || {
            // A commit that is slow in the eyes of the clock goes to the journal: only where that is wanted.
            let passes = if fault == StoreFault::None { Duration::ZERO } else { Duration::from_millis(50) };
            world.clock.advance(passes);
            *arrived.borrow()
        })
        .await;
        within(supervisor.disconnect(&key, Revoke::No)).await.unwrap();
        assert_eq!(within(caller).await.unwrap().unwrap_err(), Error::NotConnected);
        within(watch.changed()).await;
        assert!(watch.token().is_none());
        drop(go_on);
        assert_eq!(within(supervisor.token(&key)).await.unwrap_err(), Error::NotConnected);
        supervisor.testing().store_fault(StoreFault::None);
        eventually("the attempt ends", || {
            assert!(supervisor.cached(&key).is_none() && watch.token().is_none());
            world.clock.advance(Duration::from_secs(1));
            supervisor.testing().attempts() == 0
        })
        .await;
        assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::Revoked);
    }
}

#[tokio::test]
async fn a_refused_refresh_token_asks_for_the_user_and_a_connect_ends_it() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    world.sim.end_family("alice");
    world.clock.advance(LIFE);
    let error = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "invalid_grant"), "{error}");
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap_err();
    assert_eq!(world.sim.requests(), 1, "a verdict is not asked for twice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    within(supervisor.token(&key)).await.unwrap();
}

#[tokio::test]
async fn a_required_reconnect_holds_until_connect() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let status = within(supervisor.require_reconnect(&key, "scope_changed")).await.unwrap();
    assert_eq!((status.state, status.reason.as_deref()), (State::ReconnectRequired, Some("scope_changed")));
    let token = within(supervisor.token(&key)).await.unwrap();
    assert_eq!(token.warning(), Some(token_supervisor::Warning::ReconnectRequired), "valid tokens are served");
    world.clock.advance(LIFE);
    let error = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "scope_changed"), "{error}");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    within(supervisor.token(&key)).await.unwrap();
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn a_refused_client_touches_no_grant() {
    let world = World::new(Profile::keycloak());
    let supervisor = world
        .bare_builder()
        .idp(
            "idp",
            token_supervisor::presets::keycloak("http://127.0.0.1", "app", "simulated-client", "wrong")
                .token_url(world.sim.token_url()),
        )
        .start()
        .await
        .unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE);
    let patient = token_supervisor::Acquire::new(&key).timeout(Duration::from_millis(1));
    let error = within(supervisor.call(patient)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: token_supervisor::Cause::ClientRefused, .. }), "{error}");
    assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::Backoff);
    crate::support::stop(supervisor).await;
    let supervisor = world.start().await;
    eventually("with the right secret it goes on", || {
        world.clock.advance(Duration::from_millis(500));
        world.sim.presentations().len() >= 2 && supervisor.testing().attempts() == 0
    })
    .await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_for_any_number_of_reporters() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let token = within(supervisor.token(&key)).await.unwrap();
    let reports: Vec<_> = (0..1_000)
        .map(|_| {
            let (supervisor, key, generation) = (supervisor.clone(), key.clone(), token.generation());
            tokio::spawn(async move { supervisor.report_rejected(&key, generation).await })
        })
        .collect();
    for report in reports {
        within(report).await.unwrap().unwrap();
    }
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    within(supervisor.report_rejected(&key, token.generation())).await.unwrap();
    within(supervisor.report_rejected(&key, token_supervisor::Generation::new(9_999))).await.unwrap();
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn refresh_now_refreshes_once_and_does_not_hammer() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let first = within(supervisor.refresh_now(&key)).await.unwrap();
    assert_eq!((first.refreshed, first.status.generation.get()), (true, 2));
    let second = within(supervisor.refresh_now(&key)).await.unwrap();
    assert_eq!((second.refreshed, second.status.generation.get()), (false, 2));
    assert_eq!(world.sim.requests(), 1);
    let nobody = TokenKey::at("idp").user("nobody");
    assert_eq!(within(supervisor.refresh_now(&nobody)).await.unwrap_err(), Error::NotConnected);
}

#[tokio::test]
async fn a_disconnect_can_be_taken_back_until_its_revocation_is_sent() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    for revoke in [Revoke::No, Revoke::Yes] {
        within(supervisor.disconnect(&key, revoke)).await.unwrap();
        assert_eq!(within(supervisor.token(&key)).await.unwrap_err(), Error::NotConnected);
        assert_eq!(within(supervisor.restore(&key)).await.unwrap().state, State::Due);
        within(supervisor.token(&key)).await.unwrap();
        eventually("it is refreshed", || supervisor.testing().attempts() == 0).await;
    }
    assert_eq!(world.sim.revocations(), 0);
    world.sim.fail_revocations(Some(503));
    within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap();
    eventually("the revocation is tried", || {
        world.clock.advance(Duration::from_secs(5));
        world.sim.revocations() >= 1
    })
    .await;
    // It failed, but who knows what it did.
    assert_eq!(within(supervisor.restore(&key)).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::Revoked);
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    assert_eq!(within(supervisor.restore(&key)).await.unwrap().state, State::Fresh, "nothing is to be taken back");
    assert_eq!(within(supervisor.restore(&TokenKey::at("idp").user("nobody"))).await.unwrap_err(), Error::NotConnected);
}

#[tokio::test]
async fn a_grant_whose_refresh_was_under_way_when_it_was_disconnected_is_not_restored() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    within(supervisor.disconnect(&key, Revoke::No)).await.unwrap();
    assert_eq!(within(supervisor.restore(&key)).await.unwrap_err(), Error::NotConnected);
    world.sim.release();
    assert_eq!(within(caller).await.unwrap().unwrap_err(), Error::NotConnected);
    eventually("the attempt ends", || supervisor.testing().attempts() == 0).await;
    assert_eq!(within(supervisor.restore(&key)).await.unwrap_err(), Error::NotConnected);
}

#[tokio::test]
async fn a_refused_refresh_token_is_sent_once_more() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::error(400, "invalid_grant"));
    world.clock.advance(LIFE);
    let refused = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(refused, Error::ReconnectRequired { .. }), "{refused}");
    assert_eq!(world.sim.requests(), 1);
    assert_eq!(within(supervisor.retry(&key)).await.unwrap().state, State::Due);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    eventually("the refresh ends", || supervisor.testing().attempts() == 0).await;
    assert_eq!(within(supervisor.retry(&key)).await.unwrap().state, State::Fresh, "nothing was refused");
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (2, 0));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_retry_lifts_no_reconnect_that_the_application_required_and_no_disconnect() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    within(supervisor.require_reconnect(&key, "more_scope")).await.unwrap();
    let status = within(supervisor.retry(&key)).await.unwrap();
    assert_eq!((status.state, status.reason.as_deref()), (State::ReconnectRequired, Some("more_scope")));
    assert_eq!(within(supervisor.retry_idp("idp")).await.unwrap().retried, 0);
    within(supervisor.disconnect(&key, Revoke::No)).await.unwrap();
    assert_eq!(within(supervisor.retry(&key)).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.retry(&TokenKey::at("idp").user("nobody"))).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.retry(&TokenKey::at("nowhere").user("alice"))).await.unwrap_err(), Error::UnknownIdp);
    assert_eq!(within(supervisor.retry_idp("nowhere")).await.unwrap_err(), Error::UnknownIdp);
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn the_refused_grants_of_a_provider_are_retried_together() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let keys = ["alice", "bob", "carol", "dave"].map(|user| TokenKey::at("idp").user(user));
    for key in &keys {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
    let [alice, bob, carol, dave] = &keys;
    for key in [alice, bob] {
        world.sim.next(Fault::error(400, "invalid_grant"));
        let refused = within(supervisor.refresh_now(key)).await.unwrap_err();
        assert!(matches!(refused, Error::ReconnectRequired { .. }), "{refused}");
    }
    within(supervisor.require_reconnect(carol, "more_scope")).await.unwrap();
    let done = within(supervisor.retry_idp("idp")).await.unwrap();
    assert_eq!((done.retried, done.left), (2, false));
    eventually("both are refreshed", || {
        world.clock.advance(Duration::from_millis(10));
        world.sim.requests() == 4 && supervisor.testing().attempts() == 0
    })
    .await;
    for (key, generation, state) in [
        (alice, 2, State::Fresh),
        (bob, 2, State::Fresh),
        (carol, 1, State::ReconnectRequired),
        (dave, 1, State::Fresh),
    ] {
        let status = within(supervisor.status(key)).await.unwrap();
        assert_eq!((status.generation.get(), status.state), (generation, state), "{key:?}");
    }
    let done = within(supervisor.retry_idp("idp")).await.unwrap();
    assert_eq!((done.retried, done.left), (0, false));
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (4, 0));
    stop(supervisor).await;
}

#[tokio::test]
async fn an_import_that_is_run_again_brings_nothing_back_after_a_disconnect() {
    let world = World::new(Profile::keycloak());
    let supervisor = world.start().await;
    let (alice, bob) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
    let imported = world.sim.consent("alice");
    within(supervisor.connect(&alice, imported.clone())).await.unwrap();
    world.clock.advance(LIFE);
    within(supervisor.token(&alice)).await.unwrap();
    let current = within(supervisor.testing().stored_refresh_token(&alice)).await.unwrap().unwrap();
    let current = Grant::new("ts-test-secret-again").refresh_token(current.expose_secret());
    within(supervisor.disconnect(&alice, Revoke::No)).await.unwrap();
    for replayed in [&imported, &current, &imported] {
        let status = within(supervisor.connect(&alice, replayed.clone())).await.unwrap();
        assert_eq!((status.state, status.unchanged), (State::Revoked, Some(Unchanged::TokenAlreadySpent)));
    }
    // What was spent is nobody's any more; what was not may move to another key, and then is not restored here.
    assert_eq!(within(supervisor.connect(&bob, imported)).await.unwrap_err(), Error::DuplicateGrant);
    within(supervisor.connect(&bob, current)).await.unwrap();
    assert_eq!(within(supervisor.restore(&alice)).await.unwrap_err(), Error::NotConnected);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn a_connect_that_meets_an_actor_on_its_way_to_sleep_is_no_replay_of_itself() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    for user in 0..200 {
        let key = TokenKey::at("idp").user(format!("user-{user}"));
        // Whose actor has nothing to stay awake for.
        within(supervisor.status(&key)).await.unwrap();
        let status = within(supervisor.connect(&key, world.sim.consent(key.user()))).await.unwrap();
        assert_eq!(status.unchanged, None, "{key:?}");
    }
    stop(supervisor).await;
}
