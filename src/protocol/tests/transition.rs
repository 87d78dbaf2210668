use super::*;
use crate::protocol::Transition;

const LONG: Duration = Duration::from_secs(15 * 60);

/// Returns what the change reports. A repetition reports nothing.
fn reported_at(change: &Change, row: &Row, now: StoreTime) -> Vec<Transition> {
    let applied = apply(change, row, now);
    if let Some(written) = &applied.row {
        assert_eq!(apply(change, written, now).transitions, [], "{change:?}, repeated");
    }
    applied.transitions
}

fn reported(change: &Change, row: &Row) -> Vec<Transition> {
    reported_at(change, row, NOW + seconds(9))
}

fn connected(new: Option<u8>) -> Change {
    Change::Connect(Box::new(connect(new, 200)))
}

fn claims(senders: &[u8], change: impl FnOnce(&mut Row)) -> Row {
    let mut row = claimed_row(senders);
    change(&mut row);
    row
}

fn closed(row: &mut Row) {
    row.lease = None;
    row.intent.as_mut().unwrap().senders[0].closed = true;
}

fn alerted(row: &mut Row) {
    row.last_error = Some(Box::new(LastError { alerted: true, ..*last_error(NOW) }));
}

fn failed(attempt: u8, row: &Row) -> Ending {
    let fault = AttemptFault { evidence: Evidence::of("http_502"), cause: Cause::IdpDown };
    Ending { error: Some(fault), ..ending(attempt, row) }
}

fn renewed(generation: u64) -> Transition {
    Transition::Renewed { generation: Generation(generation) }
}

fn required(code: &str, by: VerdictBy) -> Transition {
    Transition::ReconnectRequired { evidence: Evidence::of(code), by }
}

fn in_doubt(code: &str) -> Transition {
    Transition::InDoubt { evidence: Evidence::of(code) }
}

#[test]
fn a_stored_response_is_a_renewal_and_ends_reported_trouble() {
    let response = committed(&commit(1, &claimed_row(&[1]), 2));
    let beside = committed(&Commit { epoch: 0, ..commit(1, &claimed_row(&[1]), 2) });
    let recovered = || vec![renewed(5), Transition::Recovered];
    let table: [(&str, &Change, Row, Vec<Transition>); 11] = [
        ("a plain refresh", &response, claimed_row(&[1]), vec![renewed(5)]),
        (
            "after a few failures",
            &response,
            claims(&[1], |row| row.last_error = Some(last_error(NOW))),
            vec![renewed(5)],
        ),
        ("after long failure", &response, claims(&[1], alerted), recovered()),
        ("in doubt", &response, claims(&[1], closed), recovered()),
        ("sent again", &response, claimed_row(&[1, 2]), recovered()),
        (
            "refused to another attempt",
            &response,
            claims(&[1], |row| row.verdict = verdict(VerdictBy::Idp)),
            recovered(),
        ),
        ("given up", &response, claims(&[1], |row| row.verdict = verdict(VerdictBy::Doubt)), recovered()),
        ("sticky", &response, claims(&[1], |row| row.verdict = verdict(VerdictBy::Application)), vec![renewed(5)]),
        (
            "after an access token",
            &response,
            Row { generation: Generation(5), lease: None, intent: None, ..claimed_row(&[1]) },
            vec![renewed(6)],
        ),
        (
            "the later of two responses",
            &beside,
            Row { generation: Generation(5), refresh_token: Some(token(3)), parent: Some(fingerprint(1)), ..row() },
            vec![renewed(6)],
        ),
        ("disconnected", &response, claims(&[1], |row| row.tombstone = tombstone(true)), vec![]),
    ];
    for (why, change, row, expected) in table {
        assert_eq!(reported(change, &row), expected, "{why}");
    }
    let newer = Row {
        generation: Generation(5),
        refresh_token: Some(token(3)),
        parent: Some(fingerprint(1)),
        commit: Some(Attempted { attempt: id(9), epoch: 99 }),
        ..row()
    };
    assert_eq!(reported(&response, &newer), [], "it becomes the alternative");
}

#[test]
fn a_verdict_is_reported_when_it_appears_and_hides_the_rest() {
    let by_idp = || vec![required("invalid_grant", VerdictBy::Idp)];
    let table: [(&str, Row, Vec<Transition>); 6] = [
        ("refused", claimed_row(&[1]), by_idp()),
        ("in doubt before", claimed_row(&[2, 1]), by_idp()),
        ("failing before", claims(&[1], alerted), by_idp()),
        ("another response takes its place", claims(&[1], |row| row.alt = alt(5, 6, 7)), vec![renewed(5)]),
        ("the row is newer", claims(&[1], |row| row.generation = Generation(5)), vec![]),
        ("refused before", claims(&[1], |row| row.verdict = verdict(VerdictBy::Doubt)), vec![]),
    ];
    for (why, row, expected) in table {
        assert_eq!(reported(&refuse(1, &claimed_row(&[1])), &row), expected, "{why}");
    }
    let require = Change::RequireReconnect { reason: "left".to_owned() };
    let doubted = claims(&[1], closed);
    let give_up = Change::GiveUp { incarnation: doubted.incarnation, intent: doubted.intent.clone().unwrap() };
    assert_eq!(reported(&require, &row()), [required("left", VerdictBy::Application)]);
    assert_eq!(reported(&require, &Row { verdict: verdict(VerdictBy::Idp), ..row() }), [], "it is required already");
    assert_eq!(reported(&give_up, &doubted), [required("in_doubt", VerdictBy::Doubt)]);
    let refused = claims(&[1], |row| row.verdict = verdict(VerdictBy::Idp));
    assert_eq!(reported(&Change::Close(failed(1, &refused)), &refused), [], "nothing is sent while a verdict lasts");
}

#[test]
fn a_doubt_is_reported_once_for_its_request() {
    let first = claimed_row(&[1]);
    let doubted = claims(&[1], closed);
    let again = claimed_row(&[1, 2]);
    let raise = Change::Raise { incarnation: row().incarnation, seen: Generation(9), unknown: id(9) };
    let table: [(&str, Change, &Row, Vec<Transition>); 10] = [
        ("claimed", Change::Claim(claim(1, &row())), &row(), vec![]),
        ("renewed", Change::Renew { attempt: id(1), lease: LEASE }, &first, vec![]),
        ("not spent", Change::Cancel(failed(1, &first)), &first, vec![]),
        ("no response", Change::Close(failed(1, &first)), &first, vec![in_doubt("http_502")]),
        ("the sender died", Change::Close(ending(1, &first)), &first, vec![in_doubt("unanswered")]),
        ("sent again by another attempt", Change::Recover(recover(2, &first)), &first, vec![in_doubt("unanswered")]),
        ("sent again", Change::Recover(recover(2, &doubted)), &doubted, vec![]),
        ("no response again", Change::Close(failed(2, &again)), &again, vec![]),
        ("not spent again", Change::Cancel(failed(2, &again)), &again, vec![]),
        ("the store lost writes", raise, &row(), vec![in_doubt("unanswered")]),
    ];
    for (why, change, row, expected) in table {
        // After the lease, where a recovery needs it.
        assert_eq!(reported_at(&change, row, NOW + LEASE), expected, "{why}");
    }
    let cleared = Row { generation: Generation(5), ..doubted };
    let clear = Change::Clear { incarnation: cleared.incarnation, intent: cleared.intent.clone().unwrap() };
    assert_eq!(reported(&clear, &cleared), [], "it was over when the row got a newer token");
}

#[test]
fn long_failure_is_reported_once_and_short_failure_never() {
    let mut row = claimed_row(&[1]);
    let mut heard = Vec::new();
    // At the end the clock is stepped back.
    for minutes in (0..=60).step_by(5).chain([1]) {
        row = Row { last_error: row.last_error, ..claimed_row(&[1]) };
        let now = NOW + Duration::from_secs(minutes * 60);
        let applied = apply(&Change::Cancel(failed(1, &row)), &row, now);
        row = applied.row.unwrap();
        heard.extend(applied.transitions.into_iter().map(|transition| (now, transition)));
    }
    let failing = Transition::Failing { evidence: Evidence::of("http_502"), since: NOW };
    assert_eq!(heard, [(NOW + LONG, failing)]);

    // A row of an older version has no `since`; and a doubt and an alert may come together.
    let older = claims(&[1], |row| row.last_error = Some(Box::new(LastError { since: None, ..*last_error(NOW) })));
    let failing = Transition::Failing { evidence: Evidence::of("http_502"), since: NOW };
    assert_eq!(reported_at(&Change::Close(failed(1, &older)), &older, NOW + LONG), [in_doubt("http_502"), failing]);
}

#[test]
fn a_connect_ends_reported_trouble_and_is_not_reported_itself() {
    let refused = |by| Row { verdict: verdict(by), ..row() };
    let failing = Row { last_error: Some(Box::new(LastError { alerted: true, ..*last_error(NOW) })), ..row() };
    let recovered = || vec![Transition::Recovered];
    let failed_and_refused = Row { verdict: verdict(VerdictBy::Idp), ..failing.clone() };
    let gone = Row { tombstone: tombstone(false), ..refused(VerdictBy::Idp) };
    let sent_by_others = claims(&[1, 2], |row| row.verdict = verdict(VerdictBy::Idp));
    let refreshed = Row { commit: Some(Attempted { attempt: id(9), epoch: 1 }), ..row() };
    let table: [(&str, Change, Row, Vec<Transition>); 11] = [
        ("nothing was wrong", connected(Some(2)), row(), vec![]),
        ("refreshed before", connected(Some(2)), refreshed, vec![]),
        ("refused", connected(Some(2)), refused(VerdictBy::Idp), recovered()),
        ("required by the application", connected(Some(2)), refused(VerdictBy::Application), recovered()),
        ("in doubt", connected(Some(2)), claims(&[1], closed), recovered()),
        ("failing", connected(Some(2)), failing.clone(), recovered()),
        ("failing, with an access token", connected(None), failing, recovered()),
        ("with the token that was refused", connected(Some(1)), refused(VerdictBy::Idp), recovered()),
        ("with the token that was refused, after long failure", connected(Some(1)), failed_and_refused, recovered()),
        ("with a token that others may have spent", connected(Some(1)), sent_by_others, vec![in_doubt("unanswered")]),
        ("disconnected", connected(Some(2)), gone, vec![]),
    ];
    for (why, change, row, expected) in table {
        assert_eq!(apply(&change, &row, NOW).transitions, expected, "{why}");
    }
    let found = ChangeInput { row: None, now: NOW, floor: Generation(0), known: LookupResult::New };
    assert_eq!(connected(Some(2)).apply(found).transitions, [], "the first connect");
}

#[test]
fn no_other_order_is_reported() {
    for row in [row(), claims(&[1], closed), Row { verdict: verdict(VerdictBy::Idp), ..row() }, claims(&[1], alerted)] {
        assert_eq!(reported(&disconnecting(true), &row), []);
        assert_eq!(reported(&Change::Hold { reason: "by hand".to_owned() }, &row), []);
        assert_eq!(reported(&Change::Release, &Row { held: Some("by hand".to_owned()), ..row }), []);
    }
}
