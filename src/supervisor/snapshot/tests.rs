//! What is published, lent, reserved, and removed.

use super::*;
use crate::{
    clock::ManualClock,
    model::{AccessToken, Expires, Exposed, Generation, Publication, TokenStanding, WallTime, Warning},
};

fn issued(key: &TokenKey, generation: u64, journaled: bool) -> Issued {
    published(key, generation, Expires::Unknown, journaled)
}

fn expiring(key: &TokenKey, generation: u64, end: WallTime) -> Issued {
    published(key, generation, Expires::At(end), false)
}

fn published(key: &TokenKey, generation: u64, expires: Expires, journaled: bool) -> Issued {
    Issued::new(Publication {
        key,
        grant_id: "g_1",
        access_token: AccessToken::from(format!("ts-test-secret-{generation}")),
        token_type: "Bearer",
        scope: "",
        expires,
        generation: Generation(generation),
        due_at: None,
        boot_end: None,
        journaled,
        exposed: &Exposed::default(),
        scheme: None,
    })
}

fn is_empty(snapshot: &Snapshot) -> bool {
    let mut empty = true;
    snapshot.tokens.each(|_| empty = false);
    empty
}

#[test]
fn only_a_valid_token_is_lent_and_its_counter_is_not_raised() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
    let watch = snapshot.watch(&key);
    let lent = || {
        let read = |token: TokenRef<'_>| (token.generation().get(), token.warning(), token.issued().owners());
        let lent = snapshot.with(&key, read);
        assert_eq!(lent, watch.with(read));
        assert_eq!(lent.map(|lent| lent.0), snapshot.get(&key, Duration::ZERO).map(|token| token.generation().get()));
        lent
    };
    assert_eq!(lent(), None);

    let mut issued = issued(&key, 2, false);
    snapshot.publish(&key, &issued);
    // This test, the snapshot and the watch.
    assert_eq!(lent(), Some((2, None, 3)));
    issued.set_standing(TokenStanding::Failing);
    assert_eq!(lent(), Some((2, Some(Warning::RefreshFailing), 3)));
    issued.set_standing(TokenStanding::Withdrawn);
    assert_eq!(lent(), None);

    issued = expiring(&key, 3, WallTime(1_000));
    snapshot.publish(&key, &issued);
    clock.step_to(std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(999));
    assert_eq!(lent(), Some((3, None, 3)));
    clock.step_to(std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(1_000));
    assert_eq!(lent(), None);
}

#[test]
fn what_was_read_is_published_unless_anything_happened_to_the_key_meanwhile() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
    let read = issued(&key, 5, false);
    let generation = || snapshot.current(&key).map(|issued| issued.generation.get());

    let (first, second) = (snapshot.reserve(&key).unwrap(), snapshot.reserve(&key).unwrap());
    assert_eq!(generation(), None);
    assert!(first.publish(&read) && !second.publish(&read));
    assert!(generation() == Some(5) && snapshot.reserve(&key).is_none());

    let happenings: [&dyn Fn(); 4] = [
        &|| snapshot.publish(&key, &issued(&key, 4, false)),
        &|| snapshot.publish(&key, &issued(&key, 6, false)),
        &|| snapshot.end(&key, Generation(5)),
        &|| snapshot.remove(&key),
    ];
    for happening in happenings {
        snapshot.remove(&key);
        let place = snapshot.reserve(&key).unwrap();
        happening();
        assert!(!place.publish(&read));
        assert_ne!(generation().filter(|_| snapshot.get(&key, Duration::ZERO).is_some()), Some(5));
    }
    snapshot.remove(&key);
    drop(snapshot.reserve(&key));
    assert!(is_empty(&snapshot), "a caller that is gone leaves nothing behind");
}

#[test]
fn only_a_token_that_is_in_use_or_more_than_the_row_says_stays_when_the_actor_stops() {
    const UNUSED: Duration = Duration::from_secs(600);
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
    clock.advance(UNUSED * 2);
    let now = || snapshot.clock.read().boot;
    let stays = |asked: BootTime| {
        snapshot.publish(&key, &issued(&key, 5, false));
        snapshot.leave(&key, asked, UNUSED, |_| false);
        snapshot.current(&key).is_some()
    };
    assert!(!stays(BootTime(0)) && stays(now()));
    snapshot.remove(&key);
    snapshot.publish(&key, &issued(&key, 5, true));
    snapshot.leave(&key, BootTime(0), UNUSED, |_| false);
    assert!(snapshot.current(&key).is_some(), "the store does not have it yet");
    assert!(stays(now()));
    snapshot.forget_unused(UNUSED, |_| false);
    assert!(snapshot.current(&key).is_some());
    clock.advance(UNUSED * 2);
    {
        let watch = snapshot.watch(&key);
        snapshot.forget_unused(UNUSED, |_| false);
        assert!(watch.token().is_some());
    }
    snapshot.current(&key).unwrap().set_standing(TokenStanding::Rejected);
    snapshot.forget_unused(UNUSED, |_| false);
    assert!(snapshot.current(&key).is_some(), "the rejection is nowhere else");
    snapshot.current(&key).unwrap().set_standing(TokenStanding::Failing);
    snapshot.forget_unused(UNUSED, |_| true);
    snapshot.leave(&key, BootTime(0), UNUSED, |_| true);
    assert!(snapshot.current(&key).is_some(), "an attempt that runs may publish an older one");
    snapshot.forget_unused(UNUSED, |_| false);
    assert!(snapshot.current(&key).is_none());
    snapshot.end(&key, Generation(5));
    snapshot.leave(&key, now(), UNUSED, |_| true);
    snapshot.publish(&key, &issued(&key, 5, true));
    assert!(
        snapshot.get(&key, Duration::ZERO).is_none(),
        "an attempt that runs publishes nothing of a grant that ended"
    );
    snapshot.leave(&key, now(), UNUSED, |_| false);
    assert!(is_empty(&snapshot), "nothing publishes a token of the key any more");
}

#[test]
fn a_token_can_be_replaced_while_it_is_lent() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
    let watch = snapshot.watch(&key);
    snapshot.publish(&key, &issued(&key, 2, false));
    let lent = snapshot.with(&key, |token| {
        watch.with(|watched| {
            snapshot.publish(&key, &issued(&key, 3, false));
            snapshot.remove(&key);
            [token, watched].map(|lent| lent.access_token().expose_secret().to_owned())
        })
    });
    assert_eq!(lent.flatten(), Some(["ts-test-secret-2", "ts-test-secret-2"].map(str::to_owned)));
    assert!(snapshot.current(&key).is_none() && watch.token().is_none());
}

#[test]
fn publication_only_goes_upwards_and_the_store_replaces_what_only_the_journal_had() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (journaled, stored) = (true, false);
    let table = [
        ((2, stored), (3, stored), true),
        ((2, stored), (3, journaled), true),
        ((2, journaled), (3, journaled), true),
        ((2, journaled), (2, stored), true),
        ((2, stored), (2, journaled), false),
        ((2, stored), (2, stored), false),
        ((2, journaled), (2, journaled), false),
        ((3, journaled), (2, stored), false),
        ((3, stored), (2, stored), false),
    ];
    for (before, after, replaced) in table {
        let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
        let watching = snapshot.watch(&key);
        let (first, second) = (issued(&key, before.0, before.1), issued(&key, after.0, after.1));
        snapshot.publish(&key, &first);
        snapshot.publish(&key, &second);
        let expected = if replaced { &second } else { &first };
        let current = snapshot.current(&key).unwrap();
        assert!(current.by_ref().is_same(expected.by_ref()), "{before:?}, then {after:?}");
        let watched = watching.token().unwrap().generation();
        assert_eq!(watched, expected.generation, "{before:?}, then {after:?}, watched");
    }
}

#[test]
fn what_another_process_wrote_takes_the_place_of_a_read_and_outdates_what_is_published() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
    assert_eq!(snapshot.outdate(&key, Generation(2)), Published::Nothing);
    let read = snapshot.reserve(&key).unwrap();
    assert_eq!(snapshot.outdate(&key, Generation(2)), Published::Nothing);
    assert!(!read.publish(&issued(&key, 1, false)), "the read is from before");
    snapshot.publish(&key, &issued(&key, 2, false));
    let outdated = [1, 2, 3].map(|generation| snapshot.outdate(&key, Generation(generation)));
    assert_eq!(outdated, [Published::Later, Published::Earlier, Published::Earlier]);
    snapshot.remove(&key);
    let _watch = snapshot.watch(&key);
    assert_eq!(snapshot.outdate(&key, Generation(1)), Published::Earlier, "somebody waits for a token");
}

#[test]
fn every_key_that_may_be_out_of_date_is_listed_and_no_read_under_way_is_used() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let snapshot = Snapshot::new(Clock::manual(&clock));
    let keys: Vec<_> = (0..1_000).map(|number| TokenKey::at("idp").user(number.to_string())).collect();
    keys.iter().for_each(|key| snapshot.publish(key, &issued(key, 1, false)));
    let (read, watched) = (TokenKey::at("idp").user("read"), TokenKey::at("idp").user("watched"));
    let _watch = snapshot.watch(&watched);
    let place = snapshot.reserve(&read).unwrap();
    let mut listed: Vec<_> = snapshot.keys().iter().map(|key| key.user().to_owned()).collect();
    listed.sort();
    let mut expected: Vec<_> = keys.iter().chain([&watched]).map(|key| key.user().to_owned()).collect();
    expected.sort();
    assert_eq!(listed, expected);
    assert!(!place.publish(&issued(&read, 1, false)));
}

#[test]
fn what_is_withdrawn_is_not_handed_out_and_an_attempt_publishes_nothing_older() {
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
    let refreshed = TokenKey::at("idp").user("bob");
    [&key, &refreshed].into_iter().for_each(|key| snapshot.publish(key, &issued(key, 2, false)));
    let watch = snapshot.watch(&key);
    snapshot.withdraw_all(|key| *key == refreshed);
    assert!(snapshot.current(&key).is_none() && watch.token().is_none());
    assert!(snapshot.get(&refreshed, Duration::ZERO).is_none());
    snapshot.publish(&refreshed, &issued(&refreshed, 1, false));
    assert_eq!(snapshot.current(&refreshed).unwrap().generation, Generation(2));
}
