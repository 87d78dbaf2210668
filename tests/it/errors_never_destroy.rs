//! Errors that look like the end of a grant and are not.

use std::time::Duration;

use token_supervisor::{
    Acquire, Cause, Error, EventKind, State, TokenKey, presets,
    testing::{Canned, Fault, Kind, Profile, Standing},
};

use super::support::{LIFE, World, ask, pass, passing, within};

/// A caller who has the patience for it gets the next token, and the grant lives on.
async fn lives_on(profile: Profile, fault: Fault, cause: Cause) {
    let world = World::new(profile);
    let (supervisor, key) = world.connected().await;
    world.sim.next(fault);
    world.clock.advance(LIFE);
    let error = within(supervisor.call(Acquire::new(&key).timeout(Duration::from_millis(10)))).await;
    assert!(!matches!(error, Err(Error::ReconnectRequired { .. } | Error::NotConnected)), "{error:?}");
    let minutes = supervisor.call(Acquire::new(&key).timeout(Duration::from_secs(120)));
    let token = passing(&world, Duration::from_millis(500), tokio::spawn(minutes)).await.unwrap();
    assert_eq!((token.generation().get(), world.sim.duplicate_spends()), (2, 0), "{cause}");
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_verdict_inside_a_503_is_none() {
    for status in [500, 502, 503] {
        let body = r#"{"error":"invalid_grant","error_description":"Token has been revoked"}"#;
        lives_on(Profile::keycloak(), Fault::Answer(Canned::new(status, body)), Cause::InDoubt).await;
    }
}

#[tokio::test]
async fn salesforces_race_is_no_refusal() {
    let body = r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#;
    lives_on(Profile::salesforce(), Fault::Answer(Canned::new(400, body)), Cause::IdpDown).await;
}

#[tokio::test]
async fn throttling_in_a_body_is_heard() {
    let world = World::new(Profile::discord());
    let (supervisor, key) = world.connected().await;
    let body = r#"{"message":"You are being rate limited.","retry_after":64.5,"global":false}"#;
    world.sim.next(Fault::Answer(Canned::new(429, body)));
    let error = within(supervisor.refresh_now(&key)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::IdpThrottled, .. }), "{error}");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(64_500)));
}

#[tokio::test]
async fn a_refusal_keeps_what_the_provider_said() {
    let world = World::new(Profile::google());
    let (supervisor, key) = world.connected().await;
    let body = r#"{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_subtype":"invalid_rapt"}"#;
    world.sim.next(Fault::Answer(Canned::new(400, body)));
    let error = within(supervisor.refresh_now(&key)).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "invalid_grant"), "{error}");
    let evidence = within(supervisor.status(&key)).await.unwrap().evidence.unwrap();
    assert_eq!(evidence.to_string(), "invalid_grant invalid_rapt (400)");
}

#[tokio::test]
async fn a_pause_that_new_settings_end_is_told_to_be_over() {
    let world = World::new(Profile::keycloak());
    let client = world.sim.profile().client_id.clone();
    let wrong = presets::oauth2(world.sim.token_url(), client, "ts-test-secret-wrong");
    let supervisor = world.bare_builder().idp("idp", wrong).start().await.unwrap();
    let mut events = supervisor.events();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    within(supervisor.refresh_now(&key)).await.unwrap_err();
    supervisor.set_idp("idp", world.sim.idp()).unwrap();
    let mut next = async || within(events.recv()).await.unwrap().unwrap().kind;
    let refused = Cause::ClientRefused;
    assert!(matches!(next().await, EventKind::IdpPaused { cause, .. } if cause == refused));
    assert!(matches!(next().await, EventKind::IdpRecovered { cause } if cause == refused));
    world.clock.advance(LIFE);
    let token = within(ask(&supervisor, &key)).await.unwrap().unwrap();
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, status.generation), (State::Fresh, token.generation()));
}

#[tokio::test]
async fn however_often_it_fails_it_is_tried_again() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let (supervisor, key) = world.connected().await;
    world.sim.always(Some(Fault::error(400, "server_error")));
    world.clock.advance(LIFE);
    // Two hours, five minutes at a time: the longest that a backoff takes.
    for _ in 0..24 {
        let before = world.sim.requests();
        pass(&world, &supervisor, Duration::from_secs(305), Duration::from_secs(5)).await;
        let error = within(supervisor.call(Acquire::new(&key).timeout(Duration::ZERO))).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(world.sim.requests() > before, "it was given up");
    }
    world.sim.always(None);
    pass(&world, &supervisor, Duration::from_secs(305), Duration::from_secs(5)).await;
    within(supervisor.token(&key)).await.unwrap();
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}
