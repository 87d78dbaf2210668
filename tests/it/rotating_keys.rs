//! The keys that seal what is stored are replaced while grants are refreshed, and no key is given up that something needs.

use std::time::SystemTime;

use token_supervisor::{
    Error, KeyState, KeyStatus, Keyring, ResealStep, Revoke, State, TokenKey, TokenSupervisor,
    testing::{Fault, Profile, Standing, StoreFault},
};

use super::{
    support::{LIFE, World, ask, eventually, stop, within},
    the_journal_holds_what_the_store_does_not::left_in_the_journal,
};

/// The key ring with a staged key, with it active, and without the key that was active before.
struct Rotation {
    old: String,
    new: String,
    staged: Keyring,
    promoted: Keyring,
    removed: Keyring,
}

impl Rotation {
    fn of(keyring: &Keyring) -> Self {
        let now = SystemTime::UNIX_EPOCH;
        let old = keyring.labels()[0].id.clone();
        let (staged, new) = keyring.staging(now);
        let promoted = staged.promoting(&new, now).unwrap();
        let removed = promoted.removing(&old).unwrap();
        Self { old, new, staged, promoted, removed }
    }
}

async fn keys(supervisor: &TokenSupervisor) -> Vec<KeyStatus> {
    within(supervisor.keys()).await.unwrap()
}

/// Reseals until nothing is left, and returns how many values that were.
async fn reseal(supervisor: &TokenSupervisor) -> u64 {
    let (mut resealed, mut after) = (0, None);
    loop {
        let step: ResealStep = within(supervisor.reseal(after)).await.unwrap();
        assert_eq!((step.failed, step.later), (0, 0));
        resealed += step.resealed;
        after = step.next;
        if after.is_none() {
            return resealed;
        }
    }
}

async fn refusal(supervisor: &TokenSupervisor, keyring: &Keyring) -> String {
    match within(supervisor.set_keyring(keyring)).await {
        Err(Error::Configuration(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn user(name: &str) -> TokenKey {
    TokenKey::at("idp").user(name)
}

#[tokio::test]
async fn a_key_is_replaced_on_a_running_supervisor_and_the_old_one_removed() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    let (bob, carol) = (user("bob"), user("carol"));
    for key in [&bob, &carol] {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
    // Nothing is sent, so that the revocation stays queued, and can be taken back.
    within(supervisor.hold_idp("idp", "maintenance")).await.unwrap();
    within(supervisor.disconnect(&carol, Revoke::Yes)).await.unwrap();
    let rotation = Rotation::of(&world.keyring);
    assert_eq!(within(supervisor.set_keyring(&rotation.staged)).await, Ok(true));
    assert_eq!(within(supervisor.set_keyring(&rotation.staged)).await, Ok(false));
    assert_eq!(within(supervisor.set_keyring(&rotation.promoted)).await, Ok(true));
    assert_eq!(world.keyring.labels(), rotation.promoted.labels(), "every clone has the new keys");

    within(supervisor.release_idp("idp")).await.unwrap();
    within(supervisor.refresh_now(&bob)).await.unwrap();
    let before = keys(&supervisor).await;
    let summary: Vec<_> = before.iter().map(|key| (key.id.clone(), key.state, key.need.rows)).collect();
    let expected =
        [(rotation.old.clone(), Some(KeyState::Retired), 2), (rotation.new.clone(), Some(KeyState::Active), 1)];
    assert_eq!(summary, expected);
    assert!(before[1].need.check && !before[0].need.check, "it follows at once");
    let refused = refusal(&supervisor, &rotation.removed).await;
    let missing = format!("key {} is missing, and needed by 2 grants", rotation.old);
    assert!(refused.contains(&missing) && refused.contains(" and 1 queued revocation: put the key back"), "{refused}");
    assert_eq!(world.keyring.labels(), rotation.promoted.labels(), "the old keys stay");

    let generation = within(supervisor.status(&alice)).await.unwrap().generation;
    assert_eq!(reseal(&supervisor).await, 2, "two grants, one with its queued revocation");
    assert_eq!(reseal(&supervisor).await, 0, "a repetition does nothing");
    assert_eq!(within(supervisor.status(&alice)).await.unwrap().generation, generation);
    let after = keys(&supervisor).await;
    assert!(!after[0].need.is_any() && (after[1].need.rows, after[1].need.check) == (3, true), "{after:?}");
    assert_eq!(within(supervisor.set_keyring(&rotation.removed)).await, Ok(true));
    assert_eq!(keys(&supervisor).await.len(), 1);

    // The new key opens everything, also in the next process.
    within(supervisor.refresh_now(&alice)).await.unwrap();
    stop(supervisor).await;
    let supervisor = world.builder().keyring(rotation.removed.clone()).start().await.unwrap();
    for key in [&alice, &bob] {
        within(supervisor.token(key)).await.unwrap();
    }
    assert_eq!(world.sim.duplicate_spends(), 0);
    assert_eq!(world.stored(supervisor, &alice).await, Standing::Current);
}

#[tokio::test]
async fn a_disconnect_can_be_undone_after_its_queued_revocation_was_resealed() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    within(supervisor.hold_idp("idp", "maintenance")).await.unwrap();
    within(supervisor.disconnect(&alice, Revoke::Yes)).await.unwrap();
    let rotation = Rotation::of(&world.keyring);
    within(supervisor.set_keyring(&rotation.promoted)).await.unwrap();
    assert_eq!(keys(&supervisor).await[0].need.revocations, 1);
    reseal(&supervisor).await;
    let status = keys(&supervisor).await;
    assert_eq!((status[0].need.revocations, status[1].need.revocations), (0, 1));
    within(supervisor.set_keyring(&rotation.removed)).await.unwrap();
    assert_ne!(within(supervisor.restore(&alice)).await.unwrap().state, State::Revoked);
    assert_eq!(within(supervisor.revocations_pending()).await.unwrap().0, 0, "the revocation was found, and canceled");
}

#[tokio::test]
async fn a_grant_that_is_being_refreshed_is_left_for_a_later_pass() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    let rotation = Rotation::of(&world.keyring);
    within(supervisor.set_keyring(&rotation.promoted)).await.unwrap();
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &alice);
    eventually("it is sent", || world.sim.presentations().len() == 1).await;
    let step = within(supervisor.reseal(None)).await.unwrap();
    assert_eq!((step.later, step.failed, step.next), (1, 0, None));
    assert_eq!(within(supervisor.status(&alice)).await.unwrap().state, State::Refreshing);
    world.sim.release();
    within(caller).await.unwrap().unwrap();
    eventually("it is stored", || supervisor.testing().attempts() == 0).await;
    assert_eq!(reseal(&supervisor).await, 0, "the response was sealed with the new key");
    assert!(!keys(&supervisor).await[0].need.is_any());
    assert_eq!(world.stored(supervisor, &alice).await, Standing::Current);
}

#[tokio::test]
async fn an_interrupted_run_is_finished_by_the_next_one() {
    let world = World::new(Profile::gitlab());
    let (supervisor, _) = world.connected().await;
    for number in 0..100 {
        let key = user(&format!("user-{number}"));
        within(supervisor.connect(&key, world.sim.consent(key.user()))).await.unwrap();
    }
    let rotation = Rotation::of(&world.keyring);
    within(supervisor.set_keyring(&rotation.promoted)).await.unwrap();
    let begun = tokio::time::timeout(std::time::Duration::from_millis(2), supervisor.reseal(None)).await;
    drop(begun);
    supervisor.testing().store_fault(StoreFault::Down);
    within(supervisor.reseal(None)).await.unwrap_err();
    supervisor.testing().store_fault(StoreFault::None);
    reseal(&supervisor).await;
    let status = keys(&supervisor).await;
    assert!(!status[0].need.is_any() && status[1].need.rows == 101, "{status:?}");
    within(supervisor.set_keyring(&rotation.removed)).await.unwrap();
    within(supervisor.refresh_now(&user("user-7"))).await.unwrap();
}

#[tokio::test]
async fn a_key_is_kept_for_a_response_in_the_journal() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = left_in_the_journal(&world).await;
    let rotation = Rotation::of(&world.keyring);
    within(supervisor.set_keyring(&rotation.promoted)).await.unwrap();
    // The dead attempt has a lease.
    let step = within(supervisor.reseal(None)).await.unwrap();
    assert_eq!((step.resealed, step.later), (0, 1));
    let refused = refusal(&supervisor, &rotation.removed).await;
    assert!(refused.contains("needed by 1 grant and 1 response in the journal"), "{refused}");
    supervisor.testing().store_fault(StoreFault::None);
    stop(supervisor).await;
    let supervisor = world.start().await;
    eventually("the store has it", || supervisor.testing().journal_pending() == 0).await;
    reseal(&supervisor).await;
    assert_eq!(within(supervisor.set_keyring(&rotation.removed)).await, Ok(true));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn keys_that_do_not_belong_to_the_running_ones_are_refused() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    let before = world.keyring.labels();
    let rotation = Rotation::of(&world.keyring);
    for (keyring, why) in [
        (&Keyring::generate(), "fingerprint_key differs".to_owned()),
        (&rotation.removed, format!("it lacks key {}, with which this process seals", rotation.old)),
    ] {
        let refused = refusal(&supervisor, keyring).await;
        assert!(refused.contains(&why) && refused.starts_with("the new keys are not used: "), "{refused}");
        assert_eq!(world.keyring.labels(), before);
    }
    // While the store does not respond, no key is given up.
    within(supervisor.set_keyring(&rotation.promoted)).await.unwrap();
    supervisor.testing().store_fault(StoreFault::Down);
    assert!(within(supervisor.set_keyring(&rotation.removed)).await.unwrap_err().is_transient());
    supervisor.testing().store_fault(StoreFault::None);
    within(supervisor.token(&alice)).await.unwrap();
    stop(supervisor).await;
    // From the promotion on, a process that lacks the new key is refused at its start, before anything is resealed.
    let behind = rotation.staged.removing(&rotation.new).unwrap();
    let refused = world.builder().keyring(behind).start().await.unwrap_err().to_string();
    assert!(refused.contains(&format!("the store is sealed with key {}", rotation.new)), "{refused}");
    stop(world.start().await).await;
}
