use super::*;
use crate::protocol::{Disconnect, Kept, Unchanged, resolve::Resolution};

fn purge(row: Option<&Row>, known: Known, floor: u64) -> Applied {
    Change::Purge.apply(Found { row, now: NOW, floor: Generation(floor), known })
}

#[test]
fn a_purge_remembers_what_the_row_held_and_raises_the_floor() {
    let gone = Row { tombstone: tombstone(true), alt: alt(5, 6, 7), ..row() };
    for (floor, raised) in [(0, 4), (41, 41)] {
        let applied = purge(Some(&gone), Known::New, floor);
        let held = [Side::Connected(fingerprint(1)), Side::Connected(fingerprint(5))];
        let expected: Vec<_> = held.into_iter().chain([Side::Purge(Generation(raised))]).collect();
        assert_eq!((applied.row, applied.reply, applied.sides), (None, Reply::Done, expected));
    }
    let nothing = purge(None, Known::New, 0);
    assert_eq!((nothing.reply, nothing.sides), (Reply::Done, vec![]), "a repetition");
}

#[test]
fn what_lives_or_waits_for_something_is_not_purged_and_says_why() {
    let gone = Row { tombstone: tombstone(true), ..row() };
    let in_doubt = Row { tombstone: tombstone(false), lease: None, ..claimed_row(&[1]) };
    for (row, known, why) in [
        (row(), Known::New, Kept::Connected),
        (Row { verdict: verdict(VerdictBy::Idp), ..row() }, Known::New, Kept::Connected),
        (in_doubt, Known::New, Kept::InDoubt),
        (gone, Known::Revoking, Kept::Revoking),
    ] {
        let applied = purge(Some(&row), known, 0);
        assert_eq!((applied.row, applied.reply, applied.sides), (None, Reply::Kept(why), vec![]));
    }
}

#[test]
fn a_replayed_connect_of_a_purged_key_brings_nothing_back() {
    let again = Change::Connect(Box::new(connect(Some(1), 200)));
    let applied = again.apply(Found { row: None, now: NOW, floor: GENERATION, known: Known::Spent });
    assert_eq!((applied.row, applied.sides), (None, vec![]));
    assert_eq!(applied.reply, Reply::Unchanged(Unchanged::TokenAlreadySpent));
}

#[test]
fn an_answer_for_a_purged_grant_is_revoked_where_that_hits_nothing_else() {
    let answer = commit(1, &claimed_row(&[1]), 2);
    let revoked = vec![Side::Spent(fingerprint(2)), Side::Revoke(token(2))];
    for (revocable, known, resolution, sides) in [
        (true, Known::New, Resolution::Revoke, revoked),
        (false, Known::New, Resolution::Drop, vec![]),
        (true, Known::Spent, Resolution::Drop, vec![]),
        (true, Known::Elsewhere, Resolution::Drop, vec![]),
    ] {
        let answer = committed(&Commit { revocable, ..answer.clone() });
        let applied = answer.apply(Found { row: None, now: NOW, floor: GENERATION, known });
        assert_eq!((applied.row, applied.reply, applied.sides), (None, Reply::Resolved(resolution), sides));
    }
}

#[test]
fn a_purge_that_is_wanted_stands_on_the_tombstone_and_changes_nothing_else() {
    let disconnect = |purge| Change::Disconnect(Disconnect { revoke: true, purge });
    let (gone, ..) = taken(&disconnect(true), &row(), NOW);
    assert!(gone.tombstone.is_some_and(|tombstone| tombstone.purge));
    let (before, ..) = taken(&disconnect(false), &row(), NOW);
    let (marked, reply, sides) = taken(&disconnect(true), &before, NOW);
    assert_eq!((marked, reply, sides), (gone.clone(), Reply::Done, vec![]), "it was disconnected without it");
    for again in [true, false] {
        assert_eq!(apply(&disconnect(again), &gone, NOW).row, None);
    }
}
