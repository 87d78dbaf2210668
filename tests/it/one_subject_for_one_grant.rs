//! Another user of the identity provider is never mixed into a grant, and what a connect expects of its key holds.

use token_supervisor::{
    Connect, Error, Generation, Grant, Revoke, State, TokenKey, Unchanged,
    testing::{Fault, Profile, Standing},
};

use super::support::{LIFE, World, within};

const ALICE: &str = "1001";
const BOB: &str = "1002";

async fn known(world: &World) -> (token_supervisor::TokenSupervisor, TokenKey) {
    let (supervisor, key) = (world.start().await, TokenKey::at("idp").user("alice"));
    within(supervisor.connect(&key, world.sim.consent("alice").subject(ALICE))).await.unwrap();
    (supervisor, key)
}

#[tokio::test]
async fn a_connect_of_another_subject_is_refused_until_the_key_is_disconnected() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = known(&world).await;
    let token = within(supervisor.token(&key)).await.unwrap();
    let bob = || Grant::new("ts-test-secret-bob").subject(BOB);
    for grant in [world.sim.consent("bob").subject(BOB), bob()] {
        let error = within(supervisor.connect(&key, grant)).await.unwrap_err();
        assert_eq!(error, Error::AccountMismatch);
        assert!(error.to_string().contains("disconnect the key first, or use another account"));
    }
    let served = within(supervisor.token(&key)).await.unwrap();
    assert_eq!((served.generation(), served.access_token()), (token.generation(), token.access_token()));

    // The same subject again, and one that nobody names, is no mismatch. An access token alone keeps the subject.
    within(supervisor.connect(&key, world.sim.consent("alice").subject(ALICE))).await.unwrap();
    within(supervisor.connect(&key, Grant::new("ts-test-secret-alice").expires_in(LIFE))).await.unwrap();
    assert_eq!(within(supervisor.connect(&key, bob())).await.unwrap_err(), Error::AccountMismatch);
    within(supervisor.connect(&key.account("work"), bob())).await.unwrap();
    within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap();
    within(supervisor.connect(&key, world.sim.consent("bob").subject(BOB))).await.unwrap();
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn an_answer_of_another_subject_is_dropped_and_the_user_is_asked() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = known(&world).await;
    let replayed = world.sim.consent("alice").subject(ALICE);
    within(supervisor.connect(&key, replayed.clone())).await.unwrap();
    world.sim.next(Fault::Subject(BOB.to_owned()));
    world.clock.advance(LIFE);
    let error = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "account_mismatch"), "{error}");
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, status.generation.get()), (State::ReconnectRequired, 2));
    let foreign = world.sim.newest("alice").unwrap();
    assert_eq!(world.sim.standing(&foreign), Standing::Current, "it is somebody else's: not revoked");

    // The token that was spent is not forgiven, however often it is connected.
    let status = within(supervisor.connect(&key, replayed)).await.unwrap();
    assert_eq!(status.unchanged, Some(Unchanged::AlreadyConnected));
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap_err();
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends(), world.sim.revocations()), (1, 0, 0));
    assert_eq!(supervisor.testing().journal_pending(), 0);
    within(supervisor.connect(&key, world.sim.consent("alice").subject(ALICE))).await.unwrap();
    within(supervisor.token(&key)).await.unwrap();
}

#[tokio::test]
async fn the_first_subject_that_is_seen_is_remembered() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    for (said, generation) in [(None, 2), (Some(ALICE), 3), (None, 4), (Some(ALICE), 5)] {
        if let Some(subject) = said {
            world.sim.next(Fault::Subject(subject.to_owned()));
        }
        world.clock.advance(LIFE);
        assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), generation);
    }
    let bob = Grant::new("ts-test-secret-bob").subject(BOB);
    assert_eq!(within(supervisor.connect(&key, bob)).await.unwrap_err(), Error::AccountMismatch);
    world.sim.next(Fault::Subject(BOB.to_owned()));
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap_err();
}

#[tokio::test]
async fn a_connect_says_what_it_expects_of_its_key() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = (world.start().await, TokenKey::at("idp").user("alice"));
    let first = world.sim.consent("alice").subject(ALICE);
    let create = || Connect::new(&key, first.clone()).only_if_absent();
    let replace =
        |generation| Connect::new(&key, world.sim.consent("alice").subject(ALICE)).only_if(Generation::new(generation));
    let mismatch = |generation| Error::GenerationMismatch { generation: Generation::new(generation) };
    assert_eq!(within(supervisor.call(replace(1))).await.unwrap_err(), mismatch(0));
    assert_eq!(within(supervisor.call(create())).await.unwrap().generation.get(), 1);
    let again = within(supervisor.call(create())).await.unwrap();
    assert_eq!(again.unchanged, Some(Unchanged::AlreadyConnected), "asked twice, it was done once");
    let other = Connect::new(&key, world.sim.consent("alice")).only_if_absent();
    assert_eq!(within(supervisor.call(other)).await.unwrap_err(), mismatch(1));
    assert_eq!(within(supervisor.call(replace(2))).await.unwrap_err(), mismatch(1));
    assert_eq!(within(supervisor.call(replace(1))).await.unwrap().generation.get(), 2);
    within(supervisor.disconnect(&key, Revoke::No)).await.unwrap();
    assert_eq!(within(supervisor.call(replace(3))).await.unwrap_err(), mismatch(3));
    let anew = Connect::new(&key, world.sim.consent("alice")).only_if_absent();
    assert_eq!(within(supervisor.call(anew)).await.unwrap().generation.get(), 4);
}
