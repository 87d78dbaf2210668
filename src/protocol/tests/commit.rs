use super::*;
use crate::protocol::resolve::{Resolution, resolve};

fn generation_of(row: &Row) -> u64 {
    row.generation.0
}

#[test]
fn a_commit_stores_the_response_and_ends_the_claim() {
    let claimed = claimed_row(&[1]);
    let commit = commit(1, &claimed, 2);
    let now = NOW + seconds(11);
    let (stored, reply, sides) = taken(&committed(&commit), &claimed, now);
    let expected = Row {
        generation: Generation(5),
        refresh_token: Some(token(2)),
        parent: Some(fingerprint(1)),
        commit: Some(Attempted { attempt: id(1), epoch: claimed.epoch }),
        lease: None,
        intent: None,
        document: document(2),
        issued_at: commit.issued_at,
        expires: commit.expires,
        due_at: commit.due_at,
        changed_at: now,
        ..claimed
    };
    assert_eq!(stored, expected);
    assert_eq!((reply, sides), (ChangeReply::Resolved(Resolution::Own), vec![Side::Spent(fingerprint(1))]));
}

#[test]
fn a_commit_compares_incarnation_and_generation_and_never_the_lease() {
    let claimed = claimed_row(&[1]);
    let response = committed(&commit(1, &claimed, 2));
    type RowChange = fn(&mut Row);
    let moved: [(&str, RowChange, bool); 8] = [
        ("another attempt has the lease", |row| row.lease = claimed_row(&[1, 2]).lease, true),
        ("nothing is left of its claim", |row| (row.lease, row.intent) = (None, None), true),
        ("the store lost writes", |row| row.generation = Generation(2), true),
        ("on hold", |row| row.held = Some("by hand".to_owned()), true),
        ("the doubt was given up", |row| (row.intent, row.verdict) = (None, verdict(VerdictBy::Doubt)), true),
        ("refused to another sender", |row| row.verdict = verdict(VerdictBy::Idp), true),
        ("connected again", |row| row.incarnation = id(101), false),
        ("disconnected", |row| row.tombstone = tombstone(false), false),
    ];
    for (why, change, lands) in moved {
        let mut row = claimed.clone();
        change(&mut row);
        let stored = apply(&response, &row, NOW).row.unwrap_or(row);
        assert_eq!(stored.refresh_token == Some(token(2)), lands, "{why}");
        assert_eq!(stored.generation == Generation(5), lands, "{why}");
    }
}

#[test]
fn a_commit_clears_every_verdict_but_the_applications_own() {
    for (by, stays) in [(VerdictBy::Idp, false), (VerdictBy::Doubt, false), (VerdictBy::Application, true)] {
        let row = Row { verdict: verdict(by), ..claimed_row(&[1]) };
        let (stored, ..) = taken(&committed(&commit(1, &row, 2)), &row, NOW);
        assert_eq!(stored.verdict.is_some(), stays, "{by:?}");
        assert_eq!(stored.refresh_token, Some(token(2)));
    }
}

#[test]
fn the_latest_sender_ends_the_intent_and_an_earlier_one_only_its_own_part() {
    let row = claimed_row(&[1, 2]);
    let (earlier, ..) = taken(&committed(&commit(1, &row, 3)), &row, NOW);
    let left: Vec<_> = earlier.intent.unwrap().senders.iter().map(|sender| sender.attempt).collect();
    assert_eq!((left, earlier.lease), (vec![id(2)], row.lease));
    let (latest, ..) = taken(&committed(&commit(2, &row, 3)), &row, NOW);
    assert_eq!((latest.intent, latest.lease), (None, None));
}

#[test]
fn a_commit_clears_the_alternative_token_and_the_last_failure() {
    let row = Row { alt: alt(5, 6, 7), intent: claimed_row(&[1]).intent, ..full_row() };
    let row = Row { tombstone: None, ..row };
    let (stored, ..) = taken(&committed(&commit(1, &row, 2)), &row, NOW);
    assert_eq!((stored.alt, stored.last_error, stored.retry_at), (None, None, None));
}

#[test]
fn a_response_without_a_refresh_token_keeps_the_stored_one() {
    let row = claimed_row(&[1]);
    let response = Commit { token: None, ..commit(1, &row, 2) };
    let (stored, _, sides) = taken(&committed(&response), &row, NOW);
    assert_eq!((stored.refresh_token, stored.parent), (Some(token(1)), Some(fingerprint(1))));
    assert_eq!((stored.generation, sides), (Generation(5), vec![]));
    let ends = Commit { refresh_expires: Some(Expires::Never), ..response };
    assert_eq!(taken(&committed(&ends), &row, NOW).0.refresh_expires, Expires::Never);
}

/// The row after attempt 1 (epoch 8) stored token 2, and attempt 9's late response (token 3) to the same parent.
fn moved() -> (Row, Commit) {
    let claimed = claimed_row(&[1]);
    let stored = taken(&committed(&commit(1, &claimed, 2)), &claimed, NOW).0;
    (stored, Commit { epoch: 9, ..commit(9, &claimed, 3) })
}

fn being_spent(row: &mut Row) {
    let intent = claimed_row(&[4]).intent.unwrap();
    row.intent = Some(Intent { generation: row.generation, ..intent });
}

#[test]
fn a_response_for_a_changed_row_gets_the_first_place_that_applies() {
    type SpoilCommit = fn(&mut Row, &mut Commit);
    let table: [(&str, SpoilCommit, Resolution); 20] = [
        ("stored before", |row, _| row.commit = Some(Attempted { attempt: id(9), epoch: 9 }), Resolution::Own),
        (
            "stored before, and disconnected",
            |row, _| (row.commit, row.tombstone) = (Some(Attempted { attempt: id(9), epoch: 9 }), tombstone(true)),
            Resolution::Own,
        ),
        ("another incarnation", |row, _| row.incarnation = id(101), Resolution::Revoke),
        (
            "another incarnation, and all grants of the user would be revoked",
            |row, response| (row.incarnation, response.revocable) = (id(101), false),
            Resolution::Drop,
        ),
        ("tombstone", |row, _| row.tombstone = tombstone(true), Resolution::Revoke),
        ("same parent, same token", |_, response| response.token = Some(token(2)), Resolution::Own),
        ("same parent, later epoch", |_, _| {}, Resolution::Replace),
        ("later epoch, the row's token is being spent", |row, _| being_spent(row), Resolution::Alt),
        (
            "later epoch, being spent, refused",
            |row, _| {
                being_spent(row);
                row.verdict = verdict(VerdictBy::Idp);
            },
            Resolution::Replace,
        ),
        (
            "later epoch, being spent, doubt given up",
            |row, _| {
                being_spent(row);
                row.verdict = verdict(VerdictBy::Doubt);
            },
            Resolution::Replace,
        ),
        (
            "later epoch, being spent although the application requires a reconnect",
            |row, _| {
                being_spent(row);
                row.verdict = verdict(VerdictBy::Application);
            },
            Resolution::Alt,
        ),
        (
            "later epoch, an older token is in doubt",
            |row, _| row.intent = claimed_row(&[4]).intent,
            Resolution::Replace,
        ),
        ("earlier epoch", |_, response| response.epoch = 7, Resolution::Alt),
        ("the same epoch", |_, response| response.epoch = 8, Resolution::Alt),
        (
            "earlier epoch than the alternative",
            |row, response| (row.alt, response.epoch) = (alt(5, 6, 8), 7),
            Resolution::MovedOn,
        ),
        (
            "later epoch than the alternative",
            |row, response| (row.alt, response.epoch) = (alt(5, 6, 6), 7),
            Resolution::Alt,
        ),
        ("another parent", |_, response| response.parent = fingerprint(7), Resolution::MovedOn),
        (
            "another parent, refused",
            |row, response| {
                response.parent = fingerprint(7);
                row.verdict = verdict(VerdictBy::Idp);
            },
            Resolution::MovedOn,
        ),
        ("no new token", |_, response| response.token = None, Resolution::MovedOn),
        ("connected, never refreshed", |row, _| (row.parent, row.commit) = (None, None), Resolution::MovedOn),
    ];
    for (why, spoil, place) in table {
        let (mut row, mut response) = moved();
        spoil(&mut row, &mut response);
        assert_eq!(resolve(&row, &response), place, "{why}");
        let before = generation_of(&row);
        let applied = apply(&committed(&response), &row, NOW);
        assert_eq!(applied.reply, ChangeReply::Resolved(place), "{why}");
        let after = applied.row.map_or(before, |row| generation_of(&row));
        assert_eq!(after, before + u64::from(place == Resolution::Replace), "{why}");
    }
}

#[test]
fn a_response_replaces_the_token_that_it_spent_whatever_the_generation() {
    let claimed = claimed_row(&[1]);
    let response = commit(1, &claimed, 2);
    // Given up, then connected without a refresh token, twice.
    let connected = Row { generation: Generation(6), verdict: verdict(VerdictBy::Doubt), ..row() };
    let (stored, reply, sides) = taken(&committed(&response), &connected, NOW);
    assert_eq!(reply, ChangeReply::Resolved(Resolution::Replace));
    assert_eq!((stored.refresh_token, stored.generation), (Some(token(2)), Generation(7)));
    assert_eq!((stored.verdict, sides), (None, vec![Side::Spent(fingerprint(1))]));

    // The store lost writes, and an attempt had seen the generation of this response ...
    let raised = |seen| {
        let raise = Change::Raise { incarnation: INCARNATION, seen: Generation(seen), unknown: id(9) };
        taken(&raise, &row(), NOW).0
    };
    let (stored, ..) = taken(&committed(&response), &raised(5), NOW);
    assert_eq!((stored.refresh_token, stored.generation), (Some(token(2)), Generation(6)));
    // ... or a later one: then this response is spent too, and the doubt must remain.
    let applied = apply(&committed(&response), &raised(6), NOW);
    assert_eq!((applied.row, applied.reply), (None, ChangeReply::Resolved(Resolution::MovedOn)));

    // A provider that kept the token returns nothing that could be lost.
    for kept in [None, Some(token(1))] {
        let kept = Commit { token: kept, ..commit(1, &claimed, 1) };
        assert_eq!(resolve(&connected, &kept), Resolution::MovedOn);
    }
}

#[test]
fn the_later_response_replaces_the_token_and_leaves_the_alternative() {
    let (row, response) = moved();
    let row = Row { alt: alt(5, 6, 7), verdict: verdict(VerdictBy::Idp), ..row };
    let (stored, _, sides) = taken(&committed(&response), &row, NOW);
    assert_eq!((stored.refresh_token, stored.generation), (Some(token(3)), Generation(6)));
    assert_eq!((stored.commit, stored.verdict), (Some(Attempted { attempt: id(9), epoch: 9 }), None));
    assert_eq!((stored.alt, sides), (row.alt, vec![Side::Spent(fingerprint(2))]));
}

#[test]
fn an_alternative_token_that_becomes_current_leaves_no_copy() {
    let (row, response) = moved();
    let mut spent = row.clone();
    being_spent(&mut spent);
    let (beside, ..) = taken(&committed(&response), &spent, NOW);
    assert_eq!(beside.alt, alt(3, 9, 9));
    // The acknowledgement was lost, and the spending was cancelled meanwhile.
    let (stored, ..) = taken(&committed(&response), &Row { intent: None, ..beside }, NOW);
    assert_eq!((stored.refresh_token, stored.alt), (Some(token(3)), None));
}

#[test]
fn the_earlier_response_becomes_the_alternative() {
    let (row, response) = moved();
    let response = Commit { epoch: 7, ..response };
    let (stored, _, sides) = taken(&committed(&response), &row, NOW);
    assert_eq!(stored, Row { alt: alt(3, 9, 7), ..row });
    assert_eq!(sides, []);
}

#[test]
fn a_response_ends_its_sender_and_its_lease_wherever_its_place_is() {
    let (row, response) = moved();
    let lease = Some(Lease { attempt: id(9), owner: id(59), until: NOW + LEASE });
    let senders = [4, 9, 5].map(|number| Sender { attempt: id(number), owner: id(number + 50), closed: false });
    let intent = Intent { senders: senders.to_vec(), generation: row.generation, ..claimed_row(&[4]).intent.unwrap() };
    let row = Row { lease, intent: Some(intent), ..row };
    let own = Commit { token: Some(token(2)), ..response.clone() };
    let another = Commit { parent: fingerprint(7), ..response.clone() };
    for (response, place) in [(response, Resolution::Alt), (own, Resolution::Own), (another, Resolution::MovedOn)] {
        let (left, reply, _) = taken(&committed(&response), &row, NOW);
        assert_eq!(reply, ChangeReply::Resolved(place));
        let others: Vec<_> = left.intent.unwrap().senders.iter().map(|sender| sender.attempt).collect();
        assert_eq!((others, left.lease), (vec![id(4), id(5)], None), "{place:?}");
    }
}

#[test]
fn a_late_response_makes_a_disconnect_final() {
    let gone = Row { tombstone: tombstone(true), generation: Generation(5), ..row() };
    let left = apply(&committed(&commit(1, &row(), 2)), &gone, NOW).row.unwrap();
    let before = gone.tombstone.unwrap();
    assert_eq!((before.restorable, left.tombstone), (true, Some(Tombstone { restorable: false, ..before })));
}

#[test]
fn a_response_for_a_disconnected_grant_is_revoked() {
    let claimed = claimed_row(&[1]);
    let response = committed(&commit(1, &claimed, 2));
    let tombstone = taken(&disconnecting(true), &claimed, NOW).0;
    let applied = apply(&response, &tombstone, NOW);
    assert_eq!(applied.sides, [Side::Spent(fingerprint(2)), Side::Revoke(token(2))]);
    let left = applied.row.unwrap();
    assert!(!left.tombstone.unwrap().restorable);
    assert!(left.intent.as_ref().unwrap().senders[0].closed, "it stays until nothing is in flight any more");
    assert_eq!((left.generation, left.refresh_token), (Generation(5), Some(token(1))));

    let connected = Row { incarnation: id(101), generation: Generation(5), ..row() };
    let applied = apply(&response, &connected, NOW);
    assert_eq!(applied.sides, [Side::Spent(fingerprint(2)), Side::Revoke(token(2))]);
    assert!(applied.row.is_none_or(|row| row == connected));
}
