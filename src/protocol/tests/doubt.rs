use super::*;
use crate::protocol::doubt::{Doubt, doubt};

/// How long ago the row was claimed.
fn after(row: &Row, rules: &Rules, elapsed: u64) -> Doubt {
    doubt(row, NOW + seconds(elapsed), rules).unwrap()
}

fn wait(until: u64) -> Doubt {
    Doubt::Wait(NOW + seconds(until))
}

/// Claimed by another process that says nothing any more; its lease is gone.
fn foreign() -> Row {
    Row { lease: None, ..claimed_row(&[1]) }
}

/// The same, and the sender said (or its journal's lock told) that nobody hears the answer.
fn closed() -> Row {
    let mut row = foreign();
    row.intent.as_mut().unwrap().senders[0].closed = true;
    row
}

fn grace() -> Rules {
    Rules { grace: seconds(600), ..rules() }
}

fn trying() -> Rules {
    Rules { try_in_doubt: true, ..rules() }
}

fn never() -> Rules {
    Rules { never_rotates: true, ..rules() }
}

#[test]
fn without_intent_there_is_no_doubt() {
    assert_eq!(doubt(&row(), NOW, &rules()), None);
}

#[test]
fn a_token_is_sent_again_after_settling_if_nobody_can_hear_the_answer() {
    for rules in [rules(), trying(), grace()] {
        for (elapsed, expected) in [(0, wait(30)), (29, wait(30)), (30, Doubt::Recover), (99_999, Doubt::Recover)] {
            assert_eq!(after(&closed(), &rules, elapsed), expected, "{rules:?} after {elapsed} s");
        }
    }
}

#[test]
fn settling_runs_from_the_latest_claim_or_close() {
    let mut row = closed();
    row.intent.as_mut().unwrap().settle_from = NOW + seconds(100);
    assert_eq!(after(&row, &rules(), 129), wait(130));
    assert_eq!(after(&row, &rules(), 130), Doubt::Recover);
}

#[test]
fn a_lease_that_is_renewed_is_waited_for_whatever_else_holds() {
    let leased = Row { lease: claimed_row(&[1]).lease, ..closed() };
    for rules in [rules(), grace(), trying(), never()] {
        assert_eq!(after(&leased, &rules, 29), wait(30));
    }
}

#[test]
fn a_foreign_sender_is_given_its_send_window_and_patience_before_settling() {
    // 5 s to send, 20 s to wait for the answer, 30 s to settle.
    assert_eq!(after(&foreign(), &grace(), 54), wait(55));
    assert_eq!(after(&foreign(), &grace(), 55), Doubt::Recover);
    // Without a grace it may hold the answer: wait for as long as that costs the user nothing.
    assert_eq!(after(&foreign(), &rules(), 54), wait(55));
    assert_eq!(after(&foreign(), &rules(), 55), wait(3_660));
}

#[test]
fn one_open_sender_among_closed_ones_is_enough_to_wait() {
    let mut row = Row { lease: None, ..claimed_row(&[1, 2]) };
    row.intent.as_mut().unwrap().senders[1].closed = true;
    assert_eq!(after(&row, &rules(), 100), wait(3_660));
    row.intent.as_mut().unwrap().senders[0].closed = true;
    assert_eq!(after(&row, &rules(), 100), Doubt::Recover);
}

#[test]
fn the_grace_counts_from_the_first_sending_and_ends_to_the_millisecond() {
    let mut row = foreign();
    row.intent.as_mut().unwrap().settle_from = NOW + seconds(500);
    assert_eq!(after(&row, &grace(), 554), wait(555));
    let end = NOW + seconds(600);
    assert_eq!(doubt(&row, StoreTime(end.0 - 1), &grace()), Some(Doubt::Recover));
    assert_eq!(doubt(&row, end, &grace()), Some(wait(3_660)));
}

#[test]
fn a_foreign_doubt_ends_when_waiting_would_cost_the_user_something() {
    let at = |end: u64| Expires::At(WALL_NOW + seconds(end));
    // (access token ends, refresh token ends, give up then): two leases are a minute.
    let table = [
        (at(3_600), Expires::Unknown, 3_660),
        (at(3_600), Expires::Never, 3_660),
        (at(3_600), at(90_000), 3_660),
        (at(3_600), at(2_000), 1_940),
        (Expires::Never, Expires::Unknown, 3_600),
        (Expires::Unknown, Expires::Never, 3_600),
        (Expires::Unknown, at(1_000), 940),
    ];
    for (expires, refresh_expires, deadline) in table {
        let row = Row { expires, refresh_expires, ..foreign() };
        assert_eq!(after(&row, &rules(), deadline - 1), wait(deadline), "{expires:?} {refresh_expires:?}");
        assert_eq!(after(&row, &rules(), deadline), Doubt::GiveUp, "{expires:?} {refresh_expires:?}");
        assert_eq!(after(&row, &trying(), deadline), Doubt::Recover, "{expires:?} {refresh_expires:?}");
    }
}

#[test]
fn it_is_not_given_up_before_settling_even_if_the_tokens_have_ended() {
    let ended = Row { expires: Expires::At(WallTime(0)), refresh_expires: Expires::At(WallTime(0)), ..foreign() };
    assert_eq!(after(&ended, &rules(), 54), wait(55));
    assert_eq!(after(&ended, &rules(), 55), Doubt::GiveUp);
}

#[test]
fn a_doubt_about_another_token_only_has_to_settle() {
    for rules in [rules(), grace(), trying(), never()] {
        for row in [foreign(), closed()] {
            let settled = if row == closed() { 30 } else { 55 };
            for tombstone in [None, tombstone(true)] {
                let row = Row { generation: Generation(5), tombstone, lease: claimed_row(&[2]).lease, ..row.clone() };
                assert_eq!(after(&row, &rules, settled - 1), wait(settled));
                assert_eq!(after(&row, &rules, settled), Doubt::Clear);
            }
        }
    }
}

#[test]
fn a_token_that_never_rotates_is_never_in_doubt_only_waited_for() {
    assert_eq!(after(&closed(), &never(), 0), Doubt::Recover);
    // Somebody else's request: two are not in flight at once, and nothing was spent by it.
    assert_eq!(after(&foreign(), &never(), 54), wait(55));
    assert_eq!(after(&foreign(), &never(), 55), Doubt::Recover);
    assert_eq!(after(&foreign(), &never(), 99_999), Doubt::Recover, "the user is not asked");
}
