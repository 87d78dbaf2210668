//! People hold a grant or an identity provider: nothing is started for it until they release it, and nothing is lost.

use std::time::Duration;

use futures_util::FutureExt as _;
use token_supervisor::{
    Cause, Error, HeldBy, Revoke, State, TokenKey, TokenSupervisor,
    testing::{Fault, Profile, Standing},
};
use tokio::task::JoinHandle;

use super::support::{LIFE, World, ask, eventually, stop, within};

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Grant,
    Idp,
}

impl What {
    async fn hold(self, supervisor: &TokenSupervisor, key: &TokenKey) {
        match self {
            Self::Grant => {
                let status = within(supervisor.hold(key, "moving house")).await.unwrap();
                assert_eq!(status.held.as_deref(), Some("moving house"));
            }
            Self::Idp => within(supervisor.hold_idp(key.idp(), "moving house")).await.unwrap(),
        }
        self.is_held(supervisor, key).await;
    }

    async fn is_held(self, supervisor: &TokenSupervisor, key: &TokenKey) {
        let held = match self {
            Self::Grant => within(supervisor.status(key)).await.unwrap().held,
            Self::Idp => supervisor.idps().into_iter().find(|idp| idp.name == key.idp()).unwrap().held,
        };
        assert_eq!(held.as_deref(), Some("moving house"));
    }

    async fn release(self, supervisor: &TokenSupervisor, key: &TokenKey) {
        match self {
            Self::Grant => assert_eq!(within(supervisor.release(key)).await.unwrap().held, None),
            Self::Idp => within(supervisor.release_idp(key.idp())).await.unwrap(),
        }
    }

    fn cause(self) -> Cause {
        if self == Self::Grant { Cause::Held } else { Cause::IdpHeld }
    }
}

#[tokio::test]
async fn a_hold_survives_a_restart_and_what_is_due_starts_when_it_ends() {
    for what in [What::Grant, What::Idp] {
        let world = World::new(Profile::gitlab());
        let (supervisor, key) = world.connected().await;
        what.hold(&supervisor, &key).await;
        stop(supervisor).await;
        let supervisor = world.start().await;
        what.is_held(&supervisor, &key).await;
        within(supervisor.token(&key)).await.expect("valid tokens are served");
        world.clock.advance(LIFE);
        for _ in 0..2 {
            let error = within(supervisor.token(&key)).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable { cause, .. } if cause == what.cause()), "{error}");
            assert!(within(supervisor.refresh_now(&key)).await.is_err());
            // The sweeper comes by, too.
            world.clock.advance(Duration::from_secs(10));
        }
        assert_eq!(world.sim.requests(), 0, "{what:?}");
        what.release(&supervisor, &key).await;
        eventually("it is refreshed although nobody asks", || {
            // The sweeper looks by the clock.
            world.clock.advance(Duration::from_secs(1));
            world.sim.requests() == 1
        })
        .await;
        assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
        stop(supervisor).await;
        assert_eq!(world.sim.requests(), 1);
    }
}

#[tokio::test]
async fn a_refresh_that_runs_goes_on_and_its_answer_is_stored() {
    for what in [What::Grant, What::Idp] {
        let world = World::new(Profile::gitlab());
        let (supervisor, key) = world.connected().await;
        world.sim.next(Fault::HangAfter);
        world.clock.advance(LIFE);
        let caller = ask(&supervisor, &key);
        eventually("the request has left", || world.sim.requests() == 1).await;
        what.hold(&supervisor, &key).await;
        world.sim.release();
        assert_eq!(within(caller).await.unwrap().unwrap().generation().get(), 2);
        eventually("the attempt ends", || supervisor.testing().attempts() == 0).await;
        let status = within(supervisor.status(&key)).await.unwrap();
        assert_eq!((status.generation.get(), status.held.is_some()), (2, what == What::Grant));
        assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
    }
}

#[tokio::test]
async fn whoever_waits_for_a_slot_of_an_idp_that_is_held_is_told_at_once() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.bare_builder().idp("idp", world.sim.idp().max_concurrency(1)).start().await.unwrap();
    let (first, second) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
    for key in [&first, &second] {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let callers = [ask(&supervisor, &first), ask(&supervisor, &second)];
    eventually("one has the only slot, the other one waits for it", || {
        world.sim.requests() == 1 && supervisor.testing().attempts() == 2
    })
    .await;
    within(supervisor.hold_idp("idp", "maintenance")).await.unwrap();
    eventually("one is told", || callers.iter().any(JoinHandle::is_finished)).await;
    let (told, running): (Vec<_>, Vec<_>) = callers.into_iter().partition(JoinHandle::is_finished);
    for caller in told {
        let error = within(caller).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Unavailable { cause: Cause::IdpHeld, .. }), "{error}");
    }
    world.sim.release();
    for caller in running {
        within(caller).await.unwrap().unwrap();
    }
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn a_hold_of_an_idp_takes_effect_although_its_caller_is_gone() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let held = || supervisor.idps().into_iter().any(|idp| idp.name == key.idp() && idp.held.is_some());
    // Polled once: on a busy machine it may be done by then.
    drop(supervisor.hold_idp(key.idp(), "moving house").now_or_never());
    eventually("it is on hold", held).await;
    drop(supervisor.release_idp(key.idp()).now_or_never());
    eventually("it is not on hold", || !held()).await;
}

#[tokio::test]
async fn nothing_is_revoked_at_an_idp_that_is_held_and_so_a_disconnect_can_be_taken_back() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    within(supervisor.hold_idp("idp", "maintenance")).await.unwrap();
    within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap();
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(10));
        // An answer of the store: the sweeper has been there.
        within(supervisor.status(&TokenKey::at("idp").user("nobody"))).await.unwrap();
    }
    assert_eq!(within(supervisor.restore(&key)).await.unwrap().state, State::Due);
    within(supervisor.release_idp("idp")).await.unwrap();
    eventually("it is refreshed", || {
        world.clock.advance(Duration::from_secs(1));
        world.sim.requests() == 1
    })
    .await;
    assert_eq!((world.stored(supervisor, &key).await, world.sim.revocations()), (Standing::Current, 0));
}

#[tokio::test]
async fn what_cannot_be_held_is_refused_and_says_why() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    assert_eq!(within(supervisor.hold_idp("nobody", "x")).await.unwrap_err(), Error::UnknownIdp);
    assert_eq!(within(supervisor.release_idp("nobody")).await.unwrap_err(), Error::UnknownIdp);
    for reason in [String::new(), "a\nb".to_owned(), "x".repeat(256)] {
        assert_eq!(within(supervisor.hold(&key, &reason)).await.unwrap_err().code(), "invalid_request");
        assert_eq!(within(supervisor.hold_idp("idp", &reason)).await.unwrap_err().code(), "invalid_request");
    }
    let absent = TokenKey::at("idp").user("nobody");
    assert_eq!(within(supervisor.hold(&absent, "x")).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.release(&absent)).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.release(&key)).await.unwrap().held, None);
    stop(supervisor).await;
}

#[tokio::test]
async fn a_copy_of_a_store_refreshes_nothing_until_it_is_adopted() {
    let world = World::new(Profile::gitlab());
    let start = async |deployment: &str| world.builder().deployment(deployment).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    let production = start("production").await;
    within(production.connect(&key, world.sim.consent("alice"))).await.unwrap();
    assert_eq!(within(production.adopt()).await, Ok(None));
    stop(production).await;

    let staging = start("staging").await;
    let idp = staging.idps().remove(0);
    assert_eq!(idp.held.as_deref(), Some("the store belongs to the deployment production"));
    assert_eq!(idp.held_by, Some(HeldBy::Deployment));
    within(staging.token(&key)).await.expect("valid tokens are served");
    world.clock.advance(LIFE);
    for _ in 0..2 {
        let error = within(staging.token(&key)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { cause: Cause::IdpHeld, .. }), "{error}");
        assert!(within(staging.refresh_now(&key)).await.is_err());
        // Sweeper and revoker come by, too.
        world.clock.advance(Duration::from_secs(10));
    }
    assert!(within(staging.release_idp("idp")).await.unwrap_err().to_string().contains("adopt the store"));
    within(staging.disconnect(&key, Revoke::Yes)).await.unwrap();
    world.clock.advance(Duration::from_secs(70));
    within(staging.revoke_queued()).await.unwrap();
    assert_eq!((world.sim.requests(), world.sim.revocations()), (0, 0));
    within(staging.restore(&key)).await.unwrap();

    assert_eq!(within(staging.adopt()).await.unwrap().as_deref(), Some("production"));
    eventually("it is refreshed although nobody asks", || {
        world.clock.advance(Duration::from_secs(1));
        world.sim.requests() == 1
    })
    .await;
    within(staging.token(&key)).await.unwrap();
    assert_eq!(staging.idps()[0].held_by, None);
    stop(staging).await;
    let production = start("production").await;
    assert!(production.idps()[0].held.is_some(), "the store is not its own any more");
    stop(production).await;
}

#[tokio::test]
async fn without_a_name_there_is_no_other_deployment() {
    let world = World::new(Profile::gitlab());
    stop(world.builder().deployment("production").start().await.unwrap()).await;
    let (supervisor, key) = world.connected().await;
    assert_eq!(within(supervisor.adopt()).await.unwrap_err().code(), "invalid_request");
    within(supervisor.refresh_now(&key)).await.unwrap();
    stop(supervisor).await;
    for name in ["", " x", "a\nb", &"x".repeat(65)] {
        let refused = world.builder().deployment(name).start().await.err();
        assert!(refused.is_some_and(|error| error.to_string().contains("deployment")), "{name:?}");
    }
}
