use super::*;
use crate::{model::State, protocol::Transition};

fn fault() -> AttemptFault {
    AttemptFault { evidence: Evidence::of("temporarily_unavailable"), cause: Cause::IdpThrottled }
}

fn failing(attempt: u8, row: &Row) -> Ending {
    Ending { error: Some(fault()), retry_at: Some(WALL_NOW + seconds(60)), ..ending(attempt, row) }
}

fn senders(row: &Row) -> Vec<(Id, bool)> {
    row.intent.iter().flat_map(|intent| &intent.senders).map(|sender| (sender.attempt, sender.closed)).collect()
}

#[test]
fn a_cancel_ends_the_claim_and_writes_the_failure() {
    let claimed = Row { last_error: full_row().last_error, ..claimed_row(&[1]) };
    let now = NOW + seconds(4);
    let (left, reply, sides) = taken(&Change::Cancel(failing(1, &claimed)), &claimed, now);
    let before = claimed.last_error.clone().unwrap();
    let error = LastError {
        evidence: fault().evidence,
        cause: Cause::IdpThrottled,
        at: now,
        failures: 4,
        since: before.since,
        ..*before
    };
    let retry_at = Some(WALL_NOW + seconds(60));
    let expected =
        Row { lease: None, intent: None, retry_at, last_error: Some(error.into()), changed_at: now, ..claimed };
    assert_eq!((left, reply, sides), (expected, ChangeReply::Done, vec![]));
}

#[test]
fn a_cancelled_recovery_leaves_the_earlier_doubt() {
    let row = claimed_row(&[1, 2]);
    let (left, ..) = taken(&Change::Cancel(ending(2, &row)), &row, NOW + seconds(9));
    assert_eq!((senders(&left), left.lease), (vec![(id(1), false)], None));
    assert_eq!(left.intent.unwrap().settle_from, NOW);

    let mut alone = claimed_row(&[2]);
    alone.intent.as_mut().unwrap().recovered = true;
    let (left, ..) = taken(&Change::Cancel(ending(2, &alone)), &alone, NOW + seconds(9));
    assert_eq!(senders(&left), [(id(2), true)], "the token that it recovered may have been spent");
    assert_eq!(left.intent.unwrap().settle_from, NOW + seconds(9));
}

#[test]
fn a_close_marks_the_own_sender_and_starts_settling() {
    let row = claimed_row(&[1, 2]);
    let (left, ..) = taken(&Change::Close(ending(1, &row)), &row, NOW + seconds(9));
    assert_eq!((senders(&left), left.lease), (vec![(id(1), true), (id(2), false)], row.lease));
    let (left, ..) = taken(&Change::Close(failing(2, &left)), &left, NOW + seconds(12));
    assert_eq!((senders(&left), left.lease), (vec![(id(1), true), (id(2), true)], None));
    assert_eq!(left.intent.unwrap().settle_from, NOW + seconds(12));
    assert_eq!(left.last_error.unwrap().evidence, fault().evidence);
}

#[test]
fn settling_counts_from_the_latest_close_and_no_repetition_moves_it() {
    let row = claimed_row(&[1, 2]);
    let close = |attempt| Change::Close(ending(attempt, &row));
    let settle_from = |row: &Row| row.intent.as_ref().unwrap().settle_from;
    let (left, ..) = taken(&close(1), &row, NOW + seconds(9));
    let again = apply(&close(1), &left, NOW + seconds(20));
    assert_eq!((again.row, again.reply), (None, ChangeReply::Done), "its acknowledgement was lost");
    let (left, ..) = taken(&close(2), &left, NOW + seconds(7));
    assert_eq!(settle_from(&left), NOW + seconds(9), "a clock that was stepped back");
}

#[test]
fn an_ending_without_its_claim_changes_nothing() {
    let rows = [row(), claimed_row(&[2]), Row { incarnation: id(101), ..row() }];
    for row in &rows {
        for change in [Change::Cancel(failing(1, row)), Change::Close(failing(1, row))] {
            let applied = apply(&change, row, NOW);
            assert_eq!((applied.row, applied.reply), (None, ChangeReply::Done), "{change:?}");
        }
    }
}

#[test]
fn a_failure_is_not_written_to_a_newer_row() {
    let claimed = claimed_row(&[1]);
    let refreshed = Row { generation: Generation(5), ..claimed.clone() };
    let connected = Row { incarnation: id(101), ..claimed.clone() };
    for moved in [refreshed, connected] {
        for change in [Change::Cancel(failing(1, &claimed)), Change::Close(failing(1, &claimed))] {
            let (left, ..) = taken(&change, &moved, NOW);
            assert_eq!((left.last_error, left.retry_at), (None, None));
        }
    }
}

#[test]
fn a_store_that_lost_writes_is_raised_as_a_doubt_with_an_unknown_sender() {
    let raise = Change::Raise { incarnation: INCARNATION, seen: Generation(6), unknown: id(9) };
    let stale = claimed_row(&[1]);
    let (raised, ..) = taken(&raise, &stale, NOW + seconds(1));
    assert_eq!((raised.generation, raised.lease), (Generation(6), None));
    assert_eq!(raised.intent.as_ref().unwrap().generation, Generation(6));
    assert_eq!(senders(&raised), [(id(9), false)]);
    let since = |changed_at| {
        let (raised, ..) = taken(&raise, &Row { changed_at, ..row() }, NOW + seconds(1));
        let Intent { since, settle_from, .. } = raised.intent.unwrap();
        assert_eq!(settle_from, NOW + seconds(1));
        since
    };
    assert_eq!(since(NOW.minus(seconds(600))), NOW.minus(seconds(600)), "it may have been spent right after that");
    assert_eq!(since(NOW + seconds(9)), NOW + seconds(1), "a clock that was stepped back");
    for row in [
        Row { generation: Generation(6), ..row() },
        Row { generation: Generation(7), ..row() },
        Row { incarnation: id(101), ..row() },
        Row { tombstone: tombstone(true), ..row() },
    ] {
        refused(&raise, &row, NOW);
    }
}

#[test]
fn a_doubt_is_cleared_only_as_it_was_read_and_if_the_row_spends_another_token() {
    let doubtful = claimed_row(&[1]);
    let clear = Change::Clear { incarnation: INCARNATION, intent: doubtful.intent.clone().unwrap() };
    let moved = Row { generation: Generation(5), lease: None, ..doubtful.clone() };
    let (cleared, _, sides) = taken(&clear, &moved, NOW);
    assert_eq!((&cleared, sides), (&Row { intent: None, ..moved.clone() }, vec![]));
    let changed = claimed_row(&[1, 2]).intent;
    for row in [doubtful, Row { intent: changed, ..moved.clone() }, Row { incarnation: id(101), ..moved }] {
        refused(&clear, &row, NOW);
    }
}

#[test]
fn giving_up_requires_consent_and_ends_the_doubt() {
    let doubtful = Row { lease: None, ..claimed_row(&[1]) };
    let give_up = Change::GiveUp { incarnation: INCARNATION, intent: doubtful.intent.clone().unwrap() };
    let (given_up, ..) = taken(&give_up, &doubtful, NOW + seconds(8));
    let verdict = Verdict { evidence: Evidence::of("in_doubt"), since: NOW + seconds(8), by: VerdictBy::Doubt }.into();
    assert_eq!((given_up.intent, given_up.verdict), (None, Some(verdict)));
    assert_eq!((given_up.generation, given_up.refresh_token), (GENERATION, Some(token(1))));
    for row in [
        claimed_row(&[1]),
        Row { held: Some("by hand".to_owned()), ..doubtful.clone() },
        Row { verdict: super::verdict(VerdictBy::Idp), ..doubtful.clone() },
        Row { tombstone: tombstone(true), ..doubtful.clone() },
        Row { intent: claimed_row(&[2]).intent, ..doubtful },
    ] {
        refused(&give_up, &row, NOW);
    }
}

#[test]
fn a_token_that_is_said_to_be_spent_is_refused_without_being_sent() {
    let doubtful = Row { lease: None, ..claimed_row(&[1]) };
    let spent = Change::Spent { incarnation: INCARNATION, intent: doubtful.intent.clone().unwrap() };
    let (refused_by, reply, sides) = taken(&spent, &doubtful, NOW + seconds(8));
    let verdict = Verdict { evidence: Evidence::of("in_doubt"), since: NOW + seconds(8), by: VerdictBy::Idp }.into();
    assert_eq!((refused_by.intent.clone(), refused_by.verdict.clone()), (None, Some(verdict)));
    assert_eq!((refused_by.refresh_token.clone(), reply, sides), (Some(token(1)), ChangeReply::Done, vec![]));
    // An operator may know better.
    let (retried, ..) = taken(&Change::Retry, &refused_by, NOW + seconds(9));
    assert_eq!((retried.verdict, retried.refresh_token), (None, Some(token(1))));

    let alt = alt(7, 6, 5);
    let (promoted, reply, sides) = taken(&spent, &Row { alt: alt.clone(), ..doubtful.clone() }, NOW);
    assert_eq!((promoted.refresh_token, promoted.alt), (alt.map(|alt| alt.token), None));
    assert_eq!((reply, sides), (ChangeReply::Promoted, vec![Side::Spent(fingerprint(1))]));
    for row in [
        claimed_row(&[1]),
        Row { held: Some("by hand".to_owned()), ..doubtful.clone() },
        Row { verdict: super::verdict(VerdictBy::Idp), ..doubtful.clone() },
        Row { tombstone: tombstone(true), ..doubtful.clone() },
        Row { generation: Generation(5), ..doubtful.clone() },
        Row { intent: claimed_row(&[2]).intent, ..doubtful },
    ] {
        refused(&spent, &row, NOW);
    }
}

#[test]
fn a_late_response_is_stored_after_the_doubt_was_given_up() {
    let claimed = claimed_row(&[1]);
    let doubtful = Row { lease: None, ..claimed.clone() };
    let give_up = Change::GiveUp { incarnation: INCARNATION, intent: doubtful.intent.clone().unwrap() };
    let (given_up, ..) = taken(&give_up, &doubtful, NOW);
    let (stored, ..) = taken(&committed(&commit(1, &claimed, 2)), &given_up, NOW);
    assert_eq!((stored.refresh_token, stored.verdict), (Some(token(2)), None));
}

#[test]
fn a_grant_without_a_refresh_token_ends_with_its_access_token() {
    let lone = Row { refresh_token: None, ..row() };
    let run_out = Change::RunOut { incarnation: INCARNATION, generation: GENERATION };
    let end = NOW + seconds(3_600);
    assert_eq!((lone.state(NOW), lone.state(end)), (State::Fresh, State::ReconnectRequired));
    assert_eq!(row().state(end), State::Due, "a refresh token goes on");
    let (ended, reply, sides) = taken(&run_out, &lone, end + seconds(9));
    let evidence = Evidence::of("no_refresh_token");
    let verdict = Verdict { evidence: evidence.clone(), since: end, by: VerdictBy::Expiry };
    assert_eq!((ended.verdict.as_deref(), reply, sides), (Some(&verdict), ChangeReply::Done, vec![]));
    let after = |row: &Row, late: u64| {
        let (now, floor, known) = (NOW + seconds(late), Generation(0), LookupResult::New);
        run_out.apply(ChangeInput { row: Some(row), now, floor, known })
    };
    let applied = after(&lone, 3_600);
    assert_eq!(applied.transitions, [Transition::ReconnectRequired { evidence, by: VerdictBy::Expiry }]);
    for (row, late) in [
        (lone.clone(), 3_599),
        (row(), 9_999),
        (ended, 9_999),
        (Row { expires: Expires::Never, ..lone.clone() }, 9_999),
        (Row { expires: Expires::Unknown, ..lone.clone() }, 9_999),
        (Row { tombstone: tombstone(true), ..lone.clone() }, 9_999),
        (Row { generation: GENERATION.next(), ..lone.clone() }, 9_999),
        (Row { incarnation: id(9), ..lone }, 9_999),
    ] {
        let applied = after(&row, late);
        assert_eq!((applied.row, applied.reply), (None, ChangeReply::Refused), "{row:?}");
    }
}
