//! A request that was not answered may have been processed: it is settled, then sent again, and never plain
//! backoff. What the provider then says decides.

use std::time::Duration;

use token_supervisor::{
    Error, Freshness, State, Warning,
    testing::{Fault, Kind, Profile, Standing},
};

use super::support::{LIFE, World, ask, eventually, within};

const SETTLE: Duration = Duration::from_secs(31);

fn kinds() -> [Kind; 5] {
    let grace = Duration::from_secs(600);
    [Kind::Strict, Kind::Reject, Kind::SamePair { grace }, Kind::LastWins { grace }, Kind::RetrySafe]
}

/// Whether a response that was lost can be had again.
fn forgives(kind: Kind) -> bool {
    kind == Kind::RetrySafe || kind.grace().is_some()
}

/// Sends a refresh that meets `fault`, and waits until its attempt has ended.
async fn unanswered(world: &World, supervisor: &token_supervisor::TokenSupervisor, key: &token_supervisor::TokenKey) {
    world.clock.advance(LIFE);
    let caller = ask(supervisor, key);
    let error = within(caller).await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Unavailable { cause: token_supervisor::Cause::InDoubt, retry_after } if retry_after <= SETTLE),
        "{error}"
    );
    assert_eq!(within(supervisor.status(key)).await.unwrap().state, State::InDoubt);
}

#[tokio::test]
async fn dropped_before_processing_costs_a_settle_and_nothing_else() {
    for kind in kinds() {
        let world = World::new(Profile::oauth2(kind));
        let (supervisor, key) = world.connected().await;
        world.sim.next(Fault::DropBefore);
        unanswered(&world, &supervisor, &key).await;
        assert_eq!(world.sim.requests(), 1, "nothing is sent while it settles");
        world.clock.advance(SETTLE);
        assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2, "{kind:?}");
        assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (2, 0));
        assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
    }
}

#[tokio::test]
async fn dropped_after_processing_is_healed_by_a_grace_and_ends_cleanly_without_one() {
    for kind in kinds() {
        let world = World::new(Profile::oauth2(kind));
        let (supervisor, key) = world.connected().await;
        world.sim.next(Fault::DropAfter);
        unanswered(&world, &supervisor, &key).await;
        world.clock.advance(SETTLE);
        let answer = within(supervisor.token(&key)).await;
        if forgives(kind) {
            assert_eq!(answer.unwrap().generation().get(), 2, "{kind:?}");
            assert_eq!(world.sim.duplicate_spends(), 0);
            assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
        } else {
            // An answer that was never delivered is what no client can keep.
            let error = answer.unwrap_err();
            assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "invalid_grant"), "{error}");
            world.clock.advance(LIFE);
            within(supervisor.token(&key)).await.unwrap_err();
            assert_eq!(world.sim.requests(), 2, "it is not asked again and again");
        }
    }
}

#[tokio::test]
async fn processed_late_is_waited_out() {
    for kind in kinds() {
        let world = World::new(Profile::oauth2(kind));
        let (supervisor, key) = world.connected().await;
        world.sim.next(Fault::LateProcessing(Duration::from_secs(20)));
        unanswered(&world, &supervisor, &key).await;
        world.clock.advance(Duration::from_secs(21));
        eventually("the provider processes it late", || {
            world.sim.presentations().iter().any(|presented| presented.processed_at.is_some())
        })
        .await;
        assert_eq!(world.sim.requests(), 1, "nothing is sent while it settles");
        world.clock.advance(SETTLE);
        let answer = within(supervisor.token(&key)).await;
        if forgives(kind) {
            answer.unwrap();
            assert_eq!(world.sim.duplicate_spends(), 0);
            assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
        } else {
            assert!(matches!(answer, Err(Error::ReconnectRequired { .. })));
        }
    }
}

#[tokio::test]
async fn a_provider_that_can_be_asked_never_sees_a_spent_token() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    let life = world.sim.profile().access_lifetime;
    let in_doubt = async |fault| {
        world.sim.next(fault);
        world.clock.advance(life);
        within(ask(&supervisor, &key)).await.unwrap().unwrap_err();
        assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::InDoubt);
        world.clock.advance(SETTLE);
    };
    // It was not processed, and the provider says so.
    in_doubt(Fault::DropBefore).await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
    assert_eq!((world.sim.introspections(), world.sim.requests()), (1, 2));
    // The provider does not say anything: the token is sent, as elsewhere.
    world.sim.fail_introspections(Some(503));
    in_doubt(Fault::DropBefore).await;
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 3);
    assert_eq!((world.sim.introspections(), world.sim.requests()), (2, 4));
    world.sim.fail_introspections(None);
    // It was processed: sending it once more would end the user's session.
    in_doubt(Fault::DropAfter).await;
    let error = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "in_doubt"), "{error}");
    assert_eq!((world.sim.introspections(), world.sim.requests(), world.sim.duplicate_spends()), (3, 5, 0));
    assert_eq!(world.sim.standing(&world.sim.newest("alice").unwrap()), Standing::Current);
}

#[tokio::test]
async fn ten_minutes_of_bad_gateway_kill_no_grant() {
    for kind in kinds() {
        let world = World::new(Profile::oauth2(kind));
        let (supervisor, key) = world.connected().await;
        world.sim.always(Some(Fault::Status(502, None)));
        world.clock.advance(LIFE);
        for _ in 0..60 {
            eventually("the last attempt has ended", || supervisor.testing().attempts() == 0).await;
            world.clock.advance(Duration::from_secs(10));
            let requests = world.sim.requests();
            let answer = within(supervisor.token(&key)).await;
            assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
            assert!(world.sim.requests() <= requests + 1);
        }
        world.sim.always(None);
        world.clock.advance(SETTLE);
        within(supervisor.token(&key)).await.unwrap();
        assert_eq!(world.sim.duplicate_spends(), 0);
        assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
    }
}

#[tokio::test]
async fn bad_gateway_after_processing_is_a_doubt_too() {
    let world = World::new(Profile::oauth2(Kind::SamePair { grace: Duration::from_secs(600) }));
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::StatusAfter(502));
    unanswered(&world, &supervisor, &key).await;
    world.clock.advance(SETTLE);
    within(supervisor.token(&key)).await.unwrap();
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn an_error_code_inside_a_server_error_is_no_verdict() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::error(503, "invalid_grant"));
    unanswered(&world, &supervisor, &key).await;
    world.clock.advance(SETTLE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
}

#[tokio::test]
async fn the_old_token_is_served_as_last_good_while_its_refresh_is_in_doubt() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    world.sim.always(Some(Fault::DropBefore));
    world.clock.advance(LIFE - Duration::from_secs(200));
    eventually("the doubt shows", || {
        supervisor.cached(&key).is_some_and(|token| token.freshness() == Freshness::LastGood)
    })
    .await;
    let token = within(supervisor.token(&key)).await.unwrap();
    assert_eq!(token.warning(), Some(Warning::InDoubt));
    let refused = within(supervisor.refresh_now(&key)).await.unwrap_err();
    assert_eq!(refused.code(), "unavailable");
    assert_eq!(world.sim.requests(), 1, "nobody goes around a doubt");
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_a_doubt_and_never_half_a_token() {
    for profile in [Profile::github(), Profile::gitlab()] {
        let profile = profile.kind(Kind::SamePair { grace: Duration::from_secs(600) });
        let world = World::new(profile);
        let (supervisor, key) = world.connected().await;
        let mut cut = 0;
        loop {
            world.sim.next(Fault::CutAt(cut));
            world.clock.advance(LIFE);
            let before = world.sim.requests();
            let answer = within(supervisor.token(&key)).await;
            if answer.is_ok() {
                assert_eq!(world.sim.requests(), before + 1, "the whole answer has {cut} bytes or fewer");
                break;
            }
            world.clock.advance(SETTLE);
            within(supervisor.token(&key)).await.unwrap();
            assert_eq!(world.sim.duplicate_spends(), 0, "cut at {cut}");
            cut += 1;
        }
        assert!(cut > 300, "the answer was cut {cut} times only");
        assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
    }
}

#[tokio::test]
async fn a_body_without_length_that_is_cut_at_any_byte_is_never_half_a_token() {
    let world = World::new(Profile::github().kind(Kind::SamePair { grace: Duration::from_secs(600) }));
    let (supervisor, key) = world.connected().await;
    for cut in 0..120 {
        world.sim.next(Fault::CloseDelimitedCutAt(cut));
        world.clock.advance(LIFE);
        assert!(matches!(within(supervisor.token(&key)).await, Err(Error::Unavailable { .. })), "cut at {cut}");
        world.clock.advance(SETTLE);
        within(supervisor.token(&key)).await.unwrap();
    }
    assert_eq!(world.sim.duplicate_spends(), 0);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}
