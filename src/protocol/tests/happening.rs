use super::*;
use crate::protocol::{Disconnect, Happening};

const LONG: Duration = Duration::from_secs(15 * 60);

/// What the change tells. A repetition of it tells nothing.
fn told_at(change: &Change, row: &Row, now: Time) -> Vec<Happening> {
    let applied = apply(change, row, now);
    if let Some(written) = &applied.row {
        assert_eq!(apply(change, written, now).happened, [], "{change:?}, repeated");
    }
    applied.happened
}

fn told(change: &Change, row: &Row) -> Vec<Happening> {
    told_at(change, row, NOW + seconds(9))
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
    let fault = Fault { evidence: Evidence::of("http_502"), cause: Cause::IdpDown };
    Ending { error: Some(fault), ..ending(attempt, row) }
}

fn renewed(generation: u64) -> Happening {
    Happening::Renewed { generation: Generation(generation) }
}

fn required(code: &str, by: VerdictBy) -> Happening {
    Happening::ReconnectRequired { evidence: Evidence::of(code), by }
}

fn in_doubt(code: &str) -> Happening {
    Happening::InDoubt { evidence: Evidence::of(code) }
}

#[test]
fn a_stored_answer_is_a_renewal_and_ends_what_was_told() {
    let answer = committed(&commit(1, &claimed_row(&[1]), 2));
    let beside = committed(&Commit { epoch: 0, ..commit(1, &claimed_row(&[1]), 2) });
    let recovered = || vec![renewed(5), Happening::Recovered];
    let table: [(&str, &Change, Row, Vec<Happening>); 11] = [
        ("a plain refresh", &answer, claimed_row(&[1]), vec![renewed(5)]),
        ("after a few failures", &answer, claims(&[1], |row| row.last_error = Some(last_error(NOW))), vec![renewed(5)]),
        ("after long failure", &answer, claims(&[1], alerted), recovered()),
        ("in doubt", &answer, claims(&[1], closed), recovered()),
        ("sent again", &answer, claimed_row(&[1, 2]), recovered()),
        ("refused to another", &answer, claims(&[1], |row| row.verdict = verdict(VerdictBy::Idp)), recovered()),
        ("given up", &answer, claims(&[1], |row| row.verdict = verdict(VerdictBy::Doubt)), recovered()),
        ("sticky", &answer, claims(&[1], |row| row.verdict = verdict(VerdictBy::Application)), vec![renewed(5)]),
        (
            "after an access token",
            &answer,
            Row { generation: Generation(5), lease: None, intent: None, ..claimed_row(&[1]) },
            vec![renewed(6)],
        ),
        (
            "the later of two",
            &beside,
            Row { generation: Generation(5), refresh_token: Some(token(3)), parent: Some(fingerprint(1)), ..row() },
            vec![renewed(6)],
        ),
        ("disconnected", &answer, claims(&[1], |row| row.tombstone = tombstone(true)), vec![]),
    ];
    for (why, change, row, expected) in table {
        assert_eq!(told(change, &row), expected, "{why}");
    }
    let newer = Row {
        generation: Generation(5),
        refresh_token: Some(token(3)),
        parent: Some(fingerprint(1)),
        commit: Some(Attempted { attempt: id(9), epoch: 99 }),
        ..row()
    };
    assert_eq!(told(&answer, &newer), [], "kept beside");
}

#[test]
fn a_verdict_is_told_when_it_appears_and_hides_the_rest() {
    let by_idp = || vec![required("invalid_grant", VerdictBy::Idp)];
    let table: [(&str, Row, Vec<Happening>); 6] = [
        ("refused", claimed_row(&[1]), by_idp()),
        ("in doubt before", claimed_row(&[2, 1]), by_idp()),
        ("failing before", claims(&[1], alerted), by_idp()),
        ("another answer takes its place", claims(&[1], |row| row.alt = alt(5, 6, 7)), vec![renewed(5)]),
        ("the row is newer", claims(&[1], |row| row.generation = Generation(5)), vec![]),
        ("refused before", claims(&[1], |row| row.verdict = verdict(VerdictBy::Doubt)), vec![]),
    ];
    for (why, row, expected) in table {
        assert_eq!(told(&refuse(1, &claimed_row(&[1])), &row), expected, "{why}");
    }
    let require = Change::RequireReconnect { reason: "left".to_owned() };
    let doubted = claims(&[1], closed);
    let give_up = Change::GiveUp { incarnation: doubted.incarnation, intent: doubted.intent.clone().unwrap() };
    assert_eq!(told(&require, &row()), [required("left", VerdictBy::Application)]);
    assert_eq!(told(&require, &Row { verdict: verdict(VerdictBy::Idp), ..row() }), [], "it is required already");
    assert_eq!(told(&give_up, &doubted), [required("in_doubt", VerdictBy::Doubt)]);
    let refused = claims(&[1], |row| row.verdict = verdict(VerdictBy::Idp));
    assert_eq!(told(&Change::Close(failed(1, &refused)), &refused), [], "nothing is sent under a verdict");
}

#[test]
fn a_doubt_is_told_once_for_its_request() {
    let first = claimed_row(&[1]);
    let doubted = claims(&[1], closed);
    let again = claimed_row(&[1, 2]);
    let raise = Change::Raise { incarnation: row().incarnation, seen: Generation(9), unknown: id(9) };
    let table: [(&str, Change, &Row, Vec<Happening>); 10] = [
        ("claimed", Change::Claim(claim(1, &row())), &row(), vec![]),
        ("renewed", Change::Renew { attempt: id(1), lease: LEASE }, &first, vec![]),
        ("not spent", Change::Cancel(failed(1, &first)), &first, vec![]),
        ("not answered", Change::Close(failed(1, &first)), &first, vec![in_doubt("http_502")]),
        ("its sender died", Change::Close(ending(1, &first)), &first, vec![in_doubt("unanswered")]),
        ("sent again by another", Change::Recover(recover(2, &first)), &first, vec![in_doubt("unanswered")]),
        ("sent again", Change::Recover(recover(2, &doubted)), &doubted, vec![]),
        ("not answered again", Change::Close(failed(2, &again)), &again, vec![]),
        ("not spent again", Change::Cancel(failed(2, &again)), &again, vec![]),
        ("the store went back", raise, &row(), vec![in_doubt("unanswered")]),
    ];
    for (why, change, row, expected) in table {
        // After the lease, where a recovery needs it.
        assert_eq!(told_at(&change, row, NOW + LEASE), expected, "{why}");
    }
    let cleared = Row { generation: Generation(5), ..doubted };
    let clear = Change::Clear { incarnation: cleared.incarnation, intent: cleared.intent.clone().unwrap() };
    assert_eq!(told(&clear, &cleared), [], "it was over when the row moved on");
}

#[test]
fn long_failure_is_told_once_and_short_failure_never() {
    let mut row = claimed_row(&[1]);
    let mut heard = Vec::new();
    // At last the clock was stepped back.
    for minutes in (0..=60).step_by(5).chain([1]) {
        row = Row { last_error: row.last_error, ..claimed_row(&[1]) };
        let now = NOW + Duration::from_secs(minutes * 60);
        let applied = apply(&Change::Cancel(failed(1, &row)), &row, now);
        row = applied.row.unwrap();
        heard.extend(applied.happened.into_iter().map(|happening| (now, happening)));
    }
    let failing = Happening::Failing { evidence: Evidence::of("http_502"), since: NOW };
    assert_eq!(heard, [(NOW + LONG, failing)]);

    // A row of an older version does not know since when; and a doubt and an alert may come together.
    let older = claims(&[1], |row| row.last_error = Some(Box::new(LastError { since: None, ..*last_error(NOW) })));
    let failing = Happening::Failing { evidence: Evidence::of("http_502"), since: NOW };
    assert_eq!(told_at(&Change::Close(failed(1, &older)), &older, NOW + LONG), [in_doubt("http_502"), failing]);
}

#[test]
fn a_connect_ends_what_was_told_and_is_no_news_itself() {
    let refused = |by| Row { verdict: verdict(by), ..row() };
    let failing = Row { last_error: Some(Box::new(LastError { alerted: true, ..*last_error(NOW) })), ..row() };
    let recovered = || vec![Happening::Recovered];
    let failed_and_refused = Row { verdict: verdict(VerdictBy::Idp), ..failing.clone() };
    let gone = Row { tombstone: tombstone(false), ..refused(VerdictBy::Idp) };
    let sent_by_others = claims(&[1, 2], |row| row.verdict = verdict(VerdictBy::Idp));
    let refreshed = Row { commit: Some(Attempted { attempt: id(9), epoch: 1 }), ..row() };
    let table: [(&str, Change, Row, Vec<Happening>); 11] = [
        ("nothing was wrong", connected(Some(2)), row(), vec![]),
        ("refreshed before", connected(Some(2)), refreshed, vec![]),
        ("refused", connected(Some(2)), refused(VerdictBy::Idp), recovered()),
        ("required by the application", connected(Some(2)), refused(VerdictBy::Application), recovered()),
        ("in doubt", connected(Some(2)), claims(&[1], closed), recovered()),
        ("failing", connected(Some(2)), failing.clone(), recovered()),
        ("failing, with an access token", connected(None), failing, recovered()),
        ("with what was refused", connected(Some(1)), refused(VerdictBy::Idp), recovered()),
        ("with what was refused, after long failure", connected(Some(1)), failed_and_refused, recovered()),
        ("with what others may have spent", connected(Some(1)), sent_by_others, vec![in_doubt("unanswered")]),
        ("disconnected", connected(Some(2)), gone, vec![]),
    ];
    for (why, change, row, expected) in table {
        assert_eq!(apply(&change, &row, NOW).happened, expected, "{why}");
    }
    let found = Found { row: None, now: NOW, floor: Generation(0), known: Known::New };
    assert_eq!(connected(Some(2)).apply(found).happened, [], "the first");
}

#[test]
fn what_people_do_otherwise_is_no_news_to_them() {
    for row in [row(), claims(&[1], closed), Row { verdict: verdict(VerdictBy::Idp), ..row() }, claims(&[1], alerted)] {
        assert_eq!(told(&Change::Disconnect(Disconnect { revoke: true, purge: false }), &row), []);
        assert_eq!(told(&Change::Hold { reason: "by hand".to_owned() }, &row), []);
        assert_eq!(told(&Change::Release, &Row { held: Some("by hand".to_owned()), ..row }), []);
    }
}
