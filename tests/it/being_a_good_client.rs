//! What an identity provider sees of us while it is in trouble, or while our own settings are: little, and no more
//! than it asked for. And what its other grants, other providers and callers see of that trouble: nothing they could
//! be spared.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use token_supervisor::{
    Acquire, Cause, ClientAuth, Error, Idp, Rotation, State, TokenKey, TokenSupervisor, Warning,
    testing::{Fault, Kind, Presentation, Profile, SimulatedIdp, Standing},
};

use crate::support::{LIFE, World, ask, breathe, eventually, pass, passing, stop, within};

const MINUTE: Duration = Duration::from_secs(60);

/// Connects so many users.
async fn connect(world: &World, supervisor: &TokenSupervisor, users: usize) -> Vec<TokenKey> {
    let mut keys = Vec::new();
    for user in 0..users {
        let (user, key) = (format!("user-{user}"), TokenKey::at("idp").user(format!("user-{user}")));
        within(supervisor.connect(&key, world.sim.consent(&user))).await.unwrap();
        keys.push(key);
    }
    keys
}

/// Every one of them has a refresh token that works, and nothing was spent twice.
async fn all_are_well(world: &World, supervisor: &TokenSupervisor, keys: &[TokenKey]) {
    for key in keys {
        let token = within(supervisor.token(key)).await.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        assert_eq!(world.sim.access_died_at(token.access_token()), None);
        let stored = supervisor.testing().stored_refresh_token(key).await.unwrap().unwrap();
        assert_eq!(world.sim.standing(&stored), Standing::Current);
    }
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn a_refused_client_pauses_its_provider_touches_no_grant_and_ends_by_itself() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let keys = connect(&world, &supervisor, 20).await;
    world.sim.always(Some(Fault::error(401, "invalid_client")));
    world.clock.advance(LIFE);
    for _ in 0..60 {
        for key in &keys {
            match within(supervisor.call(Acquire::new(key).timeout(Duration::ZERO))).await {
                Err(Error::Timeout | Error::Unavailable { cause: Cause::ClientRefused, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        pass(&world, &supervisor, MINUTE, 10 * Duration::from_secs(1)).await;
    }
    let idps = supervisor.idps();
    assert_eq!((idps[0].name.as_str(), idps[0].paused, idps[0].refreshing), ("idp", Some(Cause::ClientRefused), 0));
    assert_eq!(idps[0].last_error.as_ref().unwrap().to_string(), "invalid_client (401)");
    assert!(idps[0].paused_until.unwrap() > world.clock.now() && idps[0].last_error_at.is_some());
    let refused = world.sim.requests();
    assert!((10..60).contains(&refused), "{refused} requests of 20 grants in an hour");
    for key in &keys {
        let status = within(supervisor.status(key)).await.unwrap();
        assert!(!matches!(status.state, State::ReconnectRequired | State::Revoked | State::InDoubt), "{status:?}");
        assert_eq!(status.generation.get(), 1);
    }
    world.sim.always(None);
    pass(&world, &supervisor, 5 * MINUTE, Duration::from_secs(10)).await;
    all_are_well(&world, &supervisor, &keys).await;
    assert_eq!((world.sim.requests(), supervisor.idps()[0].paused), (refused + 20, None));
    assert_eq!(supervisor.probe_idp("another").unwrap_err(), Error::UnknownIdp);
}

#[tokio::test]
async fn settings_that_were_mended_are_tried_at_once() {
    let world = World::new(Profile::gitlab());
    let wrong = Idp::oauth2(world.sim.token_url(), "simulated-client", "ts-test-secret-wrong").max_concurrency(1);
    let supervisor = world.bare_builder().idp("idp", wrong).start().await.unwrap();
    let keys = connect(&world, &supervisor, 2).await;
    world.clock.advance(LIFE);
    for key in &keys {
        let error = within(supervisor.token(key)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { cause: Cause::ClientRefused, .. }), "{error}");
        assert!(error.retry_after().unwrap() >= Duration::from_secs(30) && !error.is_transient());
    }
    assert_eq!(world.sim.requests(), 1);
    let refused = supervisor.set_idp("idp", Idp::oauth2("nowhere", "client", "ts-test-secret-client")).unwrap_err();
    assert!(refused.to_string().contains("token_url"), "{refused}");
    world.clock.advance(Duration::from_secs(1));
    supervisor.set_idp("idp", world.sim.idp()).unwrap();
    within(supervisor.token(&keys[1])).await.unwrap();
    // Whose own backoff it was is tried at once as well.
    within(supervisor.token(&keys[0])).await.unwrap();
    assert_eq!(world.sim.requests(), 3);
}

#[tokio::test]
async fn a_secret_is_rolled_over_without_a_failed_refresh() {
    let world = World::new(Profile::gitlab());
    let next = |secret: &str| {
        let idp = Idp::oauth2(world.sim.token_url(), "simulated-client", secret).client_auth(ClientAuth::Body);
        let idp = idp.client("simulated-client", "ts-test-secret-client").client("another", "ts-test-secret-other");
        // One after the other, so that nobody sends the refused secret beside the first.
        idp.max_concurrency(1)
    };
    let supervisor = world.bare_builder().idp("idp", next("ts-test-secret-next")).start().await.unwrap();
    let keys = connect(&world, &supervisor, 3).await;
    world.clock.advance(LIFE);
    let asked = ask(&supervisor, &keys[0]);
    passing(&world, Duration::from_millis(50), asked).await.unwrap();
    for key in &keys[1..] {
        // The sweeper may have sent this one first.
        let asked = ask(&supervisor, key);
        passing(&world, Duration::from_millis(50), asked).await.unwrap();
    }
    assert_eq!(world.sim.requests(), 1 + 3, "the first secret is refused, the second accepted and remembered");

    // A grant is refreshed with the client it was issued to, or not at all.
    let foreign = TokenKey::at("idp").user("foreign");
    let grant = world.sim.consent("foreign").client_id("another");
    within(supervisor.connect(&foreign, grant)).await.unwrap();
    world.clock.advance(LIFE);
    let error = within(supervisor.token(&foreign)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::ClientRefused, .. }), "{error}");
    within(supervisor.token(&keys[0])).await.unwrap();
    let error = within(supervisor.connect(&foreign, world.sim.consent("x").client_id("unknown"))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::ClientUnknown, .. }), "{error}");
}

#[tokio::test]
async fn ten_minutes_of_502_kill_no_grant_that_was_not_processed() {
    let world = World::new(Profile::keycloak());
    let supervisor = world.start().await;
    let keys = connect(&world, &supervisor, 30).await;
    world.sim.always(Some(Fault::Status(502, None)));
    world.clock.advance(LIFE);
    for key in &keys {
        let error = within(supervisor.call(Acquire::new(key).timeout(Duration::ZERO))).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    pass(&world, &supervisor, 10 * MINUTE, Duration::from_secs(1)).await;
    let during = world.sim.requests();
    assert!(during < 100, "{during} requests of 30 grants into an outage of 600 s");
    world.sim.always(None);
    pass(&world, &supervisor, 5 * MINUTE, Duration::from_secs(1)).await;
    all_are_well(&world, &supervisor, &keys).await;
}

#[tokio::test]
async fn patience_is_asked_for_in_seconds_and_by_a_date() {
    let date = |world: &World| httpdate::fmt_http_date(world.clock.now() + LIFE + 2 * MINUTE);
    for form in [|_: &World| "120".to_owned(), date] {
        let world = World::new(Profile::github());
        let supervisor = world.bare_builder().idp("idp", world.sim.idp().max_concurrency(1)).start().await.unwrap();
        let keys = connect(&world, &supervisor, 2).await;
        let form = form(&world);
        world.sim.next(Fault::Status(429, Some(form.clone())));
        world.clock.advance(LIFE);
        for key in &keys {
            let error = within(supervisor.refresh_now(key)).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable { cause: Cause::IdpThrottled, .. }), "{form}: {error}");
            assert_eq!(error.retry_after(), Some(2 * MINUTE), "{form}");
        }
        assert_eq!(world.sim.requests(), 1, "{form}");
    }
}

#[tokio::test]
async fn a_refresh_that_fails_while_the_token_is_good_is_no_error() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let (supervisor, key) = world.connected().await;
    world.sim.always(Some(Fault::error(400, "server_error")));
    world.clock.advance(LIFE - 4 * MINUTE);
    eventually("the refresh has failed", || world.sim.requests() == 1 && supervisor.testing().attempts() == 0).await;
    for _ in 0..3 {
        pass(&world, &supervisor, MINUTE, Duration::from_secs(5)).await;
        let token = within(supervisor.token(&key)).await.unwrap();
        assert_eq!(token.warning(), Some(Warning::RefreshFailing));
    }
    let tried = world.sim.requests();
    assert!((3..40).contains(&tried), "{tried} tries in three minutes");
    world.sim.always(None);
    pass(&world, &supervisor, 5 * MINUTE, Duration::from_secs(5)).await;
    all_are_well(&world, &supervisor, &[key]).await;
}

#[tokio::test]
async fn a_provider_that_hangs_slows_no_other_one() {
    let world = World::new(Profile::gitlab());
    let hanging = SimulatedIdp::start_with_clock(Profile::gitlab().access_lifetime(LIFE), &world.clock).unwrap();
    let supervisor = world.builder().idp("hanging", hanging.idp()).start().await.unwrap();
    let stuck: Vec<_> = (0..200).map(|user| TokenKey::at("hanging").user(format!("user-{user}"))).collect();
    for key in &stuck {
        within(supervisor.connect(key, hanging.consent(key.user()))).await.unwrap();
    }
    let keys = connect(&world, &supervisor, 40).await;
    let refresh_all = async || {
        world.clock.advance(LIFE);
        let mut times = Vec::new();
        for key in &keys {
            let before = now();
            within(supervisor.token(key)).await.unwrap();
            times.push(before.elapsed());
        }
        times.sort();
        times[times.len() / 2]
    };
    let before = refresh_all().await;
    hanging.always(Some(Fault::Hang));
    let waiting: Vec<_> = stuck.iter().map(|key| ask(&supervisor, key)).collect();
    eventually("it has as many requests as it may have", || hanging.requests() >= 16).await;
    let meanwhile = refresh_all().await;
    println!("a refresh takes {before:?}, and {meanwhile:?} while another provider hangs");
    assert!(waiting.iter().all(|caller| !caller.is_finished()) || hanging.requests() == 16);
    hanging.always(None);
    hanging.release();
    stop(supervisor).await;
}

#[expect(clippy::disallowed_methods, reason = "how long real requests take is measured, not judged")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn however_many_are_due_at_once_the_rate_is_kept() {
    let world = World::new(Profile::gitlab());
    let idp = world.sim.idp().requests_per_second(20.0);
    let supervisor = world.bare_builder().idp("idp", idp).start().await.unwrap();
    let keys = connect(&world, &supervisor, 200).await;
    world.clock.advance(LIFE - MINUTE);
    eventually("the first has left", || world.sim.requests() == 1).await;
    let is_of = |one: &Presentation, key: &TokenKey| one.token.as_ref().is_some_and(|token| *token.user == *key.user());
    let first = world.sim.presentations();
    let last = keys.iter().rev().find(|key| !first.iter().any(|one| is_of(one, key))).unwrap();
    // In memory, so that the caller below is with the grant's actor at its first poll.
    within(supervisor.token(last)).await.unwrap();
    world.clock.advance(MINUTE);
    let mut wanted = Box::pin(supervisor.call(Acquire::new(last).timeout(LIFE)));
    assert!(wanted.as_mut().now_or_never().is_none());
    // It comes after this caller.
    within(supervisor.status(last)).await.unwrap();
    for tenth in 1..=110 {
        world.clock.advance(Duration::from_millis(100));
        breathe().await;
        let sent = world.sim.requests();
        assert!(sent <= 2 + 2 * tenth, "{sent} requests in {tenth} tenths of a second");
    }
    let all = async {
        while world.sim.requests() < 200 {
            world.clock.advance(Duration::from_millis(100));
            breathe().await;
        }
    };
    within(all).await;
    within(wanted).await.unwrap();
    let place = world.sim.presentations().iter().position(|one| is_of(one, last));
    assert!(place.is_some_and(|place| place < 20), "who waits goes first: {place:?} of 200");
    all_are_well(&world, &supervisor, &keys).await;
}

#[tokio::test]
async fn callers_beyond_the_bound_are_told_to_slow_down_and_good_tokens_are_served() {
    let world = World::new(Profile::gitlab());
    let builder = world.builder().requests_in_flight(10);
    let supervisor = builder.start().await.unwrap();
    let keys = connect(&world, &supervisor, 1).await;
    world.sim.always(Some(Fault::Hang));
    world.clock.advance(LIFE);
    let good = TokenKey::at("idp").user("good");
    within(supervisor.connect(&good, world.sim.consent("good"))).await.unwrap();
    let waiting: Vec<_> = (0..10).map(|_| ask(&supervisor, &keys[0])).collect();
    eventually("the request has left", || world.sim.requests() == 1).await;
    let shed = async || loop {
        // Until all ten have come as far.
        match within(supervisor.call(Acquire::new(&keys[0]).timeout(Duration::ZERO))).await {
            Err(Error::Timeout) => tokio::task::yield_now().await,
            other => return other,
        }
    };
    let error = shed().await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }) && error.retry_after().is_some() && error.is_transient(), "{error}");
    within(supervisor.token(&good)).await.unwrap();
    world.sim.always(None);
    world.sim.release();
    for caller in waiting {
        within(caller).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_provider_that_starts_to_rotate_is_believed_at_once() {
    let world = World::new(Profile::oauth2(Kind::NotRotating));
    let idp = || world.sim.idp().rotation(Rotation::Never);
    let supervisor = world.bare_builder().idp("idp", idp()).start().await.unwrap();
    let mut keys = connect(&world, &supervisor, 1).await;
    // As promised: an unanswered request is simply repeated.
    world.sim.next(Fault::DropAfter);
    world.clock.advance(LIFE);
    let asked = ask(&supervisor, &keys[0]);
    passing(&world, Duration::from_millis(100), asked).await.unwrap();
    // It starts to rotate with one grant; the lost answer of the other is a doubt from then on.
    world.clock.advance(LIFE / 2);
    keys.push(TokenKey::at("idp").user("later"));
    within(supervisor.connect(&keys[1], world.sim.consent("later"))).await.unwrap();
    world.sim.set_kind(Kind::Strict);
    world.clock.advance(LIFE / 2);
    within(supervisor.token(&keys[0])).await.unwrap();
    world.sim.next(Fault::DropBefore);
    world.clock.advance(LIFE / 2);
    let error = within(supervisor.call(Acquire::new(&keys[1]).timeout(Duration::from_secs(5)))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::InDoubt, .. }), "{error}");
    pass(&world, &supervisor, MINUTE, Duration::from_secs(1)).await;
    all_are_well(&world, &supervisor, &keys).await;
    // A new process knows by the grant itself.
    stop(supervisor).await;
    let supervisor = world.bare_builder().idp("idp", idp()).start().await.unwrap();
    world.sim.always(Some(Fault::DropBefore));
    world.clock.advance(LIFE);
    let error = within(supervisor.call(Acquire::new(&keys[0]).timeout(Duration::from_secs(5)))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::InDoubt, .. }), "{error}");
}
