use super::*;
use crate::protocol::{PurgeRefusal, Unchanged, resolve::Resolution};

fn purge(row: Option<&Row>, known: LookupResult, floor: u64) -> Applied {
    Change::Purge.apply(ChangeInput { row, now: NOW, floor: Generation(floor), known })
}

#[test]
fn a_purge_remembers_the_rows_tokens_and_raises_the_floor() {
    let gone = Row { tombstone: tombstone(true), alt: alt(5, 6, 7), ..row() };
    for (floor, raised) in [(0, 4), (41, 41)] {
        let applied = purge(Some(&gone), LookupResult::New, floor);
        let held = [Side::Connected(fingerprint(1)), Side::Connected(fingerprint(5))];
        let expected: Vec<_> = held.into_iter().chain([Side::Purge(Generation(raised))]).collect();
        assert_eq!((applied.row, applied.reply, applied.sides), (None, ChangeReply::Done, expected));
    }
    let nothing = purge(None, LookupResult::New, 0);
    assert_eq!((nothing.reply, nothing.sides), (ChangeReply::Done, vec![]), "a repetition");
}

#[test]
fn a_grant_that_is_connected_or_pending_is_not_purged_and_the_reply_says_why() {
    let gone = Row { tombstone: tombstone(true), ..row() };
    let in_doubt = Row { tombstone: tombstone(false), lease: None, ..claimed_row(&[1]) };
    for (row, known, why) in [
        (row(), LookupResult::New, PurgeRefusal::Connected),
        (Row { verdict: verdict(VerdictBy::Idp), ..row() }, LookupResult::New, PurgeRefusal::Connected),
        (in_doubt, LookupResult::New, PurgeRefusal::InDoubt),
        (gone, LookupResult::Revoking, PurgeRefusal::Revoking),
    ] {
        let applied = purge(Some(&row), known, 0);
        assert_eq!((applied.row, applied.reply, applied.sides), (None, ChangeReply::NotPurged(why), vec![]));
    }
}

#[test]
fn a_replayed_connect_of_a_purged_key_restores_nothing() {
    let again = Change::Connect(Box::new(connect(Some(1), 200)));
    let applied = again.apply(ChangeInput { row: None, now: NOW, floor: GENERATION, known: LookupResult::Spent });
    assert_eq!((applied.row, applied.sides), (None, vec![]));
    assert_eq!(applied.reply, ChangeReply::Unchanged(Unchanged::TokenAlreadySpent));
}

#[test]
fn a_response_for_a_purged_grant_is_revoked_if_that_ends_no_other_grant() {
    let response = commit(1, &claimed_row(&[1]), 2);
    let revoked = vec![Side::Spent(fingerprint(2)), Side::Revoke(token(2))];
    for (revocable, known, resolution, sides) in [
        (true, LookupResult::New, Resolution::Revoke, revoked),
        (false, LookupResult::New, Resolution::Drop, vec![]),
        (true, LookupResult::Spent, Resolution::Drop, vec![]),
        (true, LookupResult::Elsewhere, Resolution::Drop, vec![]),
    ] {
        let response = committed(&Commit { revocable, ..response.clone() });
        let applied = response.apply(ChangeInput { row: None, now: NOW, floor: GENERATION, known });
        assert_eq!((applied.row, applied.reply, applied.sides), (None, ChangeReply::Resolved(resolution), sides));
    }
}

#[test]
fn a_requested_purge_is_marked_on_the_tombstone_and_changes_nothing_else() {
    let disconnect =
        |purge| Change::Disconnect(DisconnectChange { revoke: true, unrevocable: false, purge, access_token: None });
    let (gone, ..) = taken(&disconnect(true), &row(), NOW);
    assert!(gone.tombstone.is_some_and(|tombstone| tombstone.purge));
    let (before, ..) = taken(&disconnect(false), &row(), NOW);
    let (marked, reply, sides) = taken(&disconnect(true), &before, NOW);
    assert_eq!(
        (marked, reply, sides),
        (gone.clone(), ChangeReply::Done, vec![]),
        "it was disconnected without a purge"
    );
    for again in [true, false] {
        assert_eq!(apply(&disconnect(again), &gone, NOW).row, None);
    }
}
