use super::*;
use crate::protocol::doubt::{Doubt, ProbeAnswer, ProbeMeans, doubt};

/// Returns what to do about a row that was claimed `elapsed` seconds ago.
fn after(row: &Row, rules: &Rules, elapsed: u64) -> Doubt {
    doubt(row, NOW + seconds(elapsed), rules, None).unwrap()
}

fn wait(until: u64) -> Doubt {
    Doubt::Wait(NOW + seconds(until))
}

/// Claimed by another process that is silent; its lease is over.
fn foreign() -> Row {
    Row { lease: None, ..claimed_row(&[1]) }
}

/// The same, and the sender is closed: no process will receive the response.
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

fn repeating() -> Rules {
    Rules { retry_safe: true, ..rules() }
}

#[test]
fn there_is_no_doubt_without_an_intent() {
    assert_eq!(doubt(&row(), NOW, &rules(), None), None);
}

#[test]
fn a_token_is_sent_again_after_settling_if_no_process_can_receive_the_response() {
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
fn a_live_lease_is_always_waited_for() {
    let leased = Row { lease: claimed_row(&[1]).lease, ..closed() };
    for rules in [rules(), grace(), trying(), never()] {
        assert_eq!(after(&leased, &rules, 29), wait(30));
    }
}

#[test]
fn another_processs_sender_gets_its_send_window_and_patience_before_settling() {
    // 5 s to send, 20 s to wait for the response, 30 s to settle.
    assert_eq!(after(&foreign(), &grace(), 54), wait(55));
    assert_eq!(after(&foreign(), &grace(), 55), Doubt::Recover);
    // Without a grace it may hold the response: wait as long as that does not affect the user.
    assert_eq!(after(&foreign(), &rules(), 54), wait(55));
    assert_eq!(after(&foreign(), &rules(), 55), wait(3_660));
}

#[test]
fn a_token_that_stays_valid_until_its_successor_is_used_is_sent_again_after_settling_whoever_sent_it() {
    assert_eq!(after(&closed(), &repeating(), 29), wait(30));
    assert_eq!(after(&closed(), &repeating(), 30), Doubt::Recover);
    assert_eq!(after(&foreign(), &repeating(), 54), wait(55));
    assert_eq!(after(&foreign(), &repeating(), 55), Doubt::Recover);
    assert_eq!(after(&foreign(), &repeating(), 99_999), Doubt::Recover, "consent is not required");
    // What the store has lost may have been followed by more, so that the successor was used.
    let mut row = foreign();
    row.intent.as_mut().unwrap().senders.push(Sender::unknown(id(7)));
    assert_eq!(after(&row, &repeating(), 55), wait(3_660));
    assert_eq!(after(&row, &repeating(), 3_660), Doubt::GiveUp);
}

#[test]
fn one_open_sender_among_closed_ones_is_waited_for() {
    let mut row = Row { lease: None, ..claimed_row(&[1, 2]) };
    row.intent.as_mut().unwrap().senders[1].closed = true;
    assert_eq!(after(&row, &rules(), 100), wait(3_660));
    row.intent.as_mut().unwrap().senders[0].closed = true;
    assert_eq!(after(&row, &rules(), 100), Doubt::Recover);
}

#[test]
fn the_grace_counts_from_the_first_sending_to_the_millisecond() {
    let mut row = foreign();
    row.intent.as_mut().unwrap().settle_from = NOW + seconds(500);
    assert_eq!(after(&row, &grace(), 554), wait(555));
    let end = NOW + seconds(600);
    assert_eq!(doubt(&row, StoreTime(end.0 - 1), &grace(), None), Some(Doubt::Recover));
    assert_eq!(doubt(&row, end, &grace(), None), Some(wait(3_660)));
}

#[test]
fn a_doubt_about_another_processs_request_ends_before_waiting_affects_the_user() {
    let at = |end: u64| Expires::At(WALL_NOW + seconds(end));
    // (access token expires, refresh token expires, time of giving up): two leases are a minute.
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
fn a_doubt_is_not_given_up_before_settling_even_if_the_tokens_have_expired() {
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
fn a_token_that_never_rotates_is_only_waited_for() {
    assert_eq!(after(&closed(), &never(), 0), Doubt::Recover);
    // Another process's request: two are not in flight at once, and it spent nothing.
    assert_eq!(after(&foreign(), &never(), 54), wait(55));
    assert_eq!(after(&foreign(), &never(), 55), Doubt::Recover);
    assert_eq!(after(&foreign(), &never(), 99_999), Doubt::Recover, "consent is not required");
}

#[test]
fn a_provider_is_asked_before_a_token_is_sent_again_or_given_up() {
    use ProbeAnswer::{Nothing, Silent, Spent, Unspent};
    let asking = |probe| Rules { probe, ..rules() };
    let [introspects, by_access] = [ProbeMeans::Introspection, ProbeMeans::AccessToken].map(asking);
    let table = [
        // Nobody will receive the response.
        (closed(), introspects, None, Doubt::Probe),
        (closed(), introspects, Some(Unspent), Doubt::Recover),
        (closed(), introspects, Some(Spent), Doubt::Spent),
        (closed(), introspects, Some(Silent), Doubt::Recover),
        (closed(), by_access, None, Doubt::Recover),
        // Another process may receive it.
        (foreign(), introspects, None, Doubt::Probe),
        (foreign(), introspects, Some(Unspent), Doubt::Recover),
        (foreign(), introspects, Some(Spent), wait(3_660)),
        (foreign(), introspects, Some(Silent), wait(160)),
        (foreign(), by_access, None, Doubt::Probe),
        (foreign(), by_access, Some(Unspent), Doubt::Recover),
        (foreign(), by_access, Some(Nothing), wait(3_660)),
        (foreign(), by_access, Some(Silent), wait(160)),
        // Where sending it is harmless, or one process may still send it, nobody is asked.
        (foreign(), Rules { probe: ProbeMeans::Introspection, ..grace() }, None, Doubt::Recover),
        (foreign(), Rules { probe: ProbeMeans::Introspection, ..repeating() }, None, Doubt::Recover),
        (foreign(), Rules { probe: ProbeMeans::Introspection, ..never() }, None, Doubt::Recover),
    ];
    for (row, rules, probed, expected) in table {
        let found = doubt(&row, NOW + seconds(100), &rules, probed);
        assert_eq!(found, Some(expected), "{probed:?} by {:?}", rules.probe);
        assert_eq!(doubt(&row, NOW + seconds(29), &rules, probed).map(|it| it != Doubt::Probe), Some(true));
    }
    let late = |row: &Row, rules: &Rules, probed| doubt(row, NOW + seconds(3_660), rules, probed);
    for probed in [Spent, Silent, Nothing] {
        assert_eq!(late(&foreign(), &introspects, Some(probed)), Some(Doubt::GiveUp), "{probed:?}");
    }
    let trying = Rules { probe: ProbeMeans::Introspection, ..trying() };
    assert_eq!(late(&foreign(), &trying, Some(Silent)), Some(Doubt::Recover));
    assert_eq!(late(&foreign(), &trying, Some(Spent)), Some(Doubt::GiveUp), "it is known that it would be refused");
}
