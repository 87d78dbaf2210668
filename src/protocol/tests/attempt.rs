use super::*;
use crate::{
    error::Cause,
    protocol::{
        attempt::{AttemptEffect, AttemptEvent, AttemptMachine, End},
        doubt::{ProbeAnswer, ProbeMeans},
    },
};

pub(super) const ME: u8 = 1;

/// Events, and the effect of each.
pub(super) type Script = Vec<(AttemptEvent, &'static str)>;

pub(super) fn start(rules: Rules) -> AttemptMachine {
    AttemptMachine::start(id(ME), id(ME + 50), (INCARNATION, GENERATION), rules, false).0
}

pub(super) fn name(effect: &AttemptEffect) -> String {
    match effect {
        AttemptEffect::Flush => "flush".into(),
        AttemptEffect::Read => "read".into(),
        AttemptEffect::Probe => "probe".into(),
        AttemptEffect::Slot => "slot".into(),
        AttemptEffect::Claim(Change::Recover(_)) => "recover".into(),
        AttemptEffect::Claim(_) => "claim".into(),
        AttemptEffect::RepeatClaim => "repeat".into(),
        AttemptEffect::Send(_) => "send".into(),
        AttemptEffect::Commit => "commit".into(),
        AttemptEffect::Journal => "journal".into(),
        AttemptEffect::AwaitStore => "await".into(),
        AttemptEffect::Change(Change::Cancel(end)) => format!("cancel {}", end.attempt.0[0]),
        AttemptEffect::Change(Change::Close(end)) => format!("close {}", end.attempt.0[0]),
        AttemptEffect::Change(Change::Refuse(_)) => "refuse".into(),
        AttemptEffect::Change(Change::Raise { .. }) => "raise".into(),
        AttemptEffect::Change(Change::Clear { .. }) => "clear".into(),
        AttemptEffect::Change(Change::Spent { .. }) => "spent".into(),
        AttemptEffect::Change(Change::GiveUp { .. }) => "give up".into(),
        AttemptEffect::Change(Change::RunOut { .. }) => "run out".into(),
        AttemptEffect::Change(other) => format!("{other:?}"),
        AttemptEffect::End(End::Renewed) => "renewed".into(),
        AttemptEffect::End(End::Settled) => "settled".into(),
        AttemptEffect::End(End::Outdated) => "outdated".into(),
        AttemptEffect::End(End::Until(time, _)) => format!("until {}", time.since(WALL_NOW).as_secs()),
    }
}

/// Passes the events to the machine and compares the effects.
pub(super) fn plays(why: &str, machine: &mut AttemptMachine, script: Script) {
    for (step, (event, expected)) in script.into_iter().enumerate() {
        let what = format!("{why}, step {step}: {event:?}");
        assert_eq!(name(&machine.step(event)), expected, "{what}");
    }
}

pub(super) fn read(row: Row) -> AttemptEvent {
    read_at(row, 0)
}

pub(super) fn read_at(row: Row, elapsed: u64) -> AttemptEvent {
    AttemptEvent::Read { row: Some(row), dead: vec![], now: NOW + seconds(elapsed) }
}

pub(super) fn claimed(reply: ChangeReply, row: Row, elapsed: u64) -> AttemptEvent {
    AttemptEvent::Claimed { reply, row: Some(row), now: NOW + seconds(elapsed), elapsed: seconds(elapsed) }
}

pub(super) fn changed() -> AttemptEvent {
    AttemptEvent::Changed { reply: ChangeReply::Done }
}

pub(super) fn mine() -> Row {
    claimed_row(&[ME])
}

fn doubtful() -> Row {
    Row { lease: None, ..claimed_row(&[9]) }
}

#[test]
fn journal_entries_of_the_key_go_first() {
    let (mut machine, first) = AttemptMachine::start(id(ME), id(51), (INCARNATION, GENERATION), rules(), true);
    assert_eq!(name(&first), "flush");
    plays("flushed", &mut machine, vec![(AttemptEvent::Flushed, "read"), (read(row()), "slot")]);
}

#[test]
fn the_row_decides_what_happens_before_the_claim() {
    let newer = Row { generation: Generation(5), ..row() };
    let moved_doubt = Row { generation: Generation(5), ..doubtful() };
    let gone = Row { tombstone: tombstone(true), ..moved_doubt.clone() };
    let unclaimed = Row { intent: None, ..claimed_row(&[9]) };
    let refused_later = Row { verdict: verdict(VerdictBy::Idp), ..moved_doubt.clone() };
    let table: Vec<(&str, AttemptEvent, &str)> = vec![
        ("nothing stored", AttemptEvent::Read { row: None, dead: vec![], now: NOW }, "settled"),
        ("free", read(row()), "slot"),
        ("newer than the row for which the refresh was requested", read(newer.clone()), "outdated"),
        ("another incarnation", read(Row { incarnation: id(101), ..row() }), "outdated"),
        ("disconnected", read(Row { tombstone: tombstone(true), ..row() }), "settled"),
        ("refused", read(Row { verdict: verdict(VerdictBy::Idp), ..row() }), "settled"),
        (
            "refused, its doubt no longer matters",
            read_at(Row { verdict: verdict(VerdictBy::Idp), ..doubtful() }, 99_999),
            "settled",
        ),
        ("on hold", read(Row { held: Some("by hand".into()), ..row() }), "settled"),
        ("no refresh token", read(Row { refresh_token: None, ..row() }), "settled"),
        ("no refresh token, and its end", read_at(Row { refresh_token: None, ..row() }, 3_600), "run out"),
        (
            "its end is known",
            read_at(Row { refresh_token: None, verdict: verdict(VerdictBy::Expiry), ..row() }, 3_600),
            "settled",
        ),
        ("the store lost writes", read(Row { generation: Generation(3), ..row() }), "raise"),
        (
            "the store lost writes, a connect among them",
            read(Row { generation: Generation(3), incarnation: id(99), ..row() }),
            "outdated",
        ),
        (
            "a dead sender whose journal is on our own disk",
            AttemptEvent::Read { row: Some(doubtful()), dead: vec![id(9)], now: NOW },
            "close 9",
        ),
        ("leased by another", read(claimed_row(&[9])), "until 30"),
        ("a lease that outlives its intent", read(unclaimed.clone()), "until 30"),
        ("the end of a lease that outlives its intent", read_at(unclaimed, 30), "slot"),
        ("in doubt, settling", read_at(doubtful(), 10), "until 55"),
        ("in doubt, waiting", read_at(doubtful(), 60), "until 3660"),
        ("in doubt, given up", read_at(doubtful(), 3_660), "give up"),
        ("an old doubt, settling", read_at(moved_doubt.clone(), 10), "outdated"),
        ("an old doubt, settled", read_at(moved_doubt, 55), "clear"),
        ("an old doubt of a refused row, settling", read_at(refused_later.clone(), 10), "until 55"),
        ("an old doubt of a refused row, settled", read_at(refused_later, 55), "clear"),
        ("disconnected, settling", read_at(gone.clone(), 10), "until 55"),
        ("disconnected, settled", read_at(gone, 55), "clear"),
    ];
    for (why, event, expected) in table {
        plays(why, &mut start(rules()), vec![(event, expected)]);
    }
}

#[test]
fn a_corrected_row_is_read_again() {
    for (why, event) in [
        ("raised", read(Row { generation: Generation(3), ..row() })),
        ("closed", AttemptEvent::Read { row: Some(doubtful()), dead: vec![id(9)], now: NOW }),
        ("given up", read_at(doubtful(), 3_660)),
    ] {
        let mut machine = start(rules());
        machine.step(event);
        plays(why, &mut machine, vec![(changed(), "read"), (read(row()), "slot")]);
    }
}

#[test]
fn a_doubt_is_recovered_with_the_row_that_was_read() {
    let trying = Rules { try_in_doubt: true, ..rules() };
    let recovered = claimed_row(&[9, ME]);
    let mut machine = start(trying);
    plays(
        "recovery",
        &mut machine,
        vec![(read_at(doubtful(), 3_660), "slot"), (AttemptEvent::Slot(doubtful()), "recover")],
    );
    let AttemptEffect::Send(sending) = machine.step(claimed(ChangeReply::Done, recovered.clone(), 0)) else {
        panic!("sends")
    };
    assert_eq!((sending.first_sent, sending.epoch), (Some(NOW), recovered.epoch), "the response may be a replay");
    assert_eq!((sending.fingerprint, sending.generation), (fingerprint(1), GENERATION));
}

#[test]
fn a_probe_decides_about_the_doubt_that_it_was_about() {
    let asking = Rules { probe: ProbeMeans::Introspection, ..rules() };
    let (after_settling, asked) = (|| read_at(doubtful(), 100), || (read_at(doubtful(), 100), "probe"));
    let said = |answer| (AttemptEvent::Probed(answer), "read");
    let recovered = claimed_row(&[9, ME]);
    let later_doubt = Row { lease: None, ..claimed_row(&[8]) };
    let both = Row { lease: None, ..claimed_row(&[9, 8]) };
    let mut closed = doubtful();
    closed.intent.as_mut().unwrap().senders[0].closed = true;
    let recovery = |row: Row, effect| {
        let claim = vec![(after_settling(), "slot"), (AttemptEvent::Slot(doubtful()), "recover")];
        [vec![asked(), said(ProbeAnswer::Unspent)], claim, vec![(claimed(ChangeReply::Done, row, 0), effect)]].concat()
    };
    let table: Vec<(&str, Script)> = vec![
        ("not spent", recovery(recovered, "send")),
        // The store would have refused the claim; that another sender's request is in flight is not decided by the probe.
        ("not spent, but sent since", recovery(both, "cancel 1")),
        ("spent, and another process may have the response", {
            vec![asked(), said(ProbeAnswer::Spent), (after_settling(), "until 3660")]
        }),
        ("spent, and nobody has the response", {
            vec![(read_at(closed.clone(), 100), "probe"), said(ProbeAnswer::Spent), (read_at(closed, 100), "spent")]
        }),
        ("no response", vec![asked(), said(ProbeAnswer::Silent), (after_settling(), "until 160")]),
        ("about another doubt", vec![asked(), said(ProbeAnswer::Unspent), (read_at(later_doubt, 100), "probe")]),
        ("the provider is closed", {
            vec![asked(), (AttemptEvent::NotBefore(WALL_NOW + seconds(7), Cause::IdpDown), "until 7")]
        }),
    ];
    for (why, script) in table {
        plays(why, &mut start(asking), script);
    }
}

#[test]
fn a_claim_leads_to_a_request_or_releases_its_lease() {
    let graceful = Rules { grace: seconds(60), ..rules() };
    let recovered = claimed_row(&[9, ME]);
    let over = Row { lease: None, ..claimed_row(&[ME, 9]) };
    let mut closed = over.clone();
    closed.intent.as_mut().unwrap().senders[0].closed = true;
    let answered_at = |now, elapsed| {
        let row = Some(claimed_row(&[9, ME]));
        AttemptEvent::Claimed { reply: ChangeReply::Done, row, now: NOW + seconds(now), elapsed: seconds(elapsed) }
    };
    let table: Vec<(&str, Rules, Row, Script)> = vec![
        ("within the window", rules(), row(), vec![(claimed(ChangeReply::Done, mine(), 5), "send")]),
        (
            "later than the window",
            rules(),
            row(),
            vec![(claimed(ChangeReply::Done, mine(), 6), "cancel 1"), (changed(), "settled")],
        ),
        (
            "no reply, repeated",
            rules(),
            row(),
            vec![
                (AttemptEvent::NoReply, "repeat"),
                (AttemptEvent::NoReply, "repeat"),
                (claimed(ChangeReply::Done, mine(), 1), "send"),
            ],
        ),
        (
            "no reply, made late",
            rules(),
            row(),
            vec![
                (AttemptEvent::NoReply, "repeat"),
                (claimed(ChangeReply::Done, mine(), 9), "cancel 1"),
                (changed(), "settled"),
            ],
        ),
        (
            "no reply, made late, and another attempt has the lease",
            rules(),
            row(),
            vec![
                (AttemptEvent::NoReply, "repeat"),
                (claimed(ChangeReply::Refused, over, 99), "close 1"),
                (changed(), "read"),
                (read_at(closed, 99), "until 3660"),
            ],
        ),
        (
            "refused: another was faster",
            rules(),
            row(),
            vec![(claimed(ChangeReply::Refused, claimed_row(&[9]), 0), "read"), (read(claimed_row(&[9])), "until 30")],
        ),
        (
            "refused: the row is newer",
            rules(),
            row(),
            vec![
                (claimed(ChangeReply::Refused, Row { generation: Generation(5), ..row() }, 0), "read"),
                (read(Row { generation: Generation(5), ..row() }), "outdated"),
            ],
        ),
        (
            "recovered within the grace",
            graceful,
            doubtful(),
            vec![(claimed(ChangeReply::Done, recovered.clone(), 5), "send")],
        ),
        (
            "recovered, never rotates",
            Rules { never_rotates: true, ..rules() },
            doubtful(),
            vec![(claimed(ChangeReply::Done, recovered.clone(), 5), "send")],
        ),
        (
            "refused to another attempt while the reply was lost",
            graceful,
            doubtful(),
            vec![
                (AttemptEvent::NoReply, "repeat"),
                (
                    claimed(ChangeReply::Done, Row { verdict: verdict(VerdictBy::Idp), ..recovered.clone() }, 3),
                    "cancel 1",
                ),
                (changed(), "settled"),
            ],
        ),
        (
            "put on hold while the reply was lost",
            rules(),
            row(),
            vec![
                (AttemptEvent::NoReply, "repeat"),
                (claimed(ChangeReply::Done, Row { held: Some("by hand".into()), ..mine() }, 3), "cancel 1"),
                (changed(), "settled"),
            ],
        ),
        ("recovered, and the grace ended meanwhile", graceful, doubtful(), vec![(answered_at(60, 3), "cancel 1")]),
        (
            "recovered, and the grace ended while the reply was on its way",
            graceful,
            doubtful(),
            vec![(answered_at(57, 3), "cancel 1")],
        ),
        ("recovered, and the grace is about to end", graceful, doubtful(), vec![(answered_at(56, 3), "send")]),
    ];
    for (why, rules, row, script) in table {
        let mut machine = start(rules);
        // Read at a time at which the row can be claimed or recovered.
        let now = if row.intent.is_some() { 55 } else { 0 };
        machine.step(read_at(row.clone(), now));
        machine.step(AttemptEvent::Slot(row));
        plays(why, &mut machine, script);
    }
}

#[test]
fn an_attempt_ends_if_the_provider_accepts_no_request_for_now() {
    let script =
        vec![(read(row()), "slot"), (AttemptEvent::NotBefore(WALL_NOW + seconds(7), Cause::IdpThrottled), "until 7")];
    plays("throttled", &mut start(rules()), script);
}
