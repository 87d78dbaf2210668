//! Tests of the attempt's state machine after the request was sent.

use super::{
    attempt::{ME, Script, changed, claimed, mine, name, plays, read, read_at, start},
    *,
};
use crate::protocol::{
    AttemptFault,
    attempt::{AttemptEffect, AttemptEvent, AttemptMachine, SendOutcome},
    resolve::Resolution,
};

fn landed(place: Resolution) -> AttemptEvent {
    AttemptEvent::Changed { reply: ChangeReply::Resolved(place) }
}

fn fault() -> AttemptFault {
    AttemptFault { evidence: Evidence::of("timeout"), cause: Cause::IdpDown }
}

fn unknown() -> AttemptEvent {
    AttemptEvent::Outcome(SendOutcome::Unknown { fault: fault(), retry_at: WALL_NOW + seconds(60) })
}

fn not_spent() -> AttemptEvent {
    AttemptEvent::Outcome(SendOutcome::NotSpent { fault: fault(), retry_at: WALL_NOW + seconds(60) })
}

/// Drives the machine until the request is sent.
fn sent(rules: Rules) -> AttemptMachine {
    let mut machine = start(rules);
    let script = vec![
        (read(row()), "slot"),
        (AttemptEvent::Slot(row()), "claim"),
        (claimed(ChangeReply::Done, mine(), 0), "send"),
    ];
    plays("sent", &mut machine, script);
    assert!(machine.sent());
    machine
}

fn received() -> AttemptMachine {
    let mut machine = sent(rules());
    plays("tokens", &mut machine, vec![(AttemptEvent::Outcome(SendOutcome::Tokens), "commit")]);
    machine
}

#[test]
fn the_outcome_of_the_request_decides() {
    let never = Rules { never_rotates: true, ..rules() };
    let refusal = || AttemptEvent::Outcome(SendOutcome::InvalidGrant { evidence: Evidence::of("invalid_grant") });
    let mut closed = Row { lease: None, ..mine() };
    closed.intent.as_mut().unwrap().senders[0].closed = true;
    let table: Vec<(&str, Rules, Script)> = vec![
        ("tokens", rules(), vec![(AttemptEvent::Outcome(SendOutcome::Tokens), "commit")]),
        ("not spent", rules(), vec![(not_spent(), "cancel 1"), (changed(), "settled")]),
        ("refused", rules(), vec![(refusal(), "refuse"), (changed(), "settled")]),
        ("unknown", rules(), vec![(unknown(), "close 1"), (changed(), "read"), (read(closed.clone()), "until 30")]),
        (
            "unknown, and never sent again by the same attempt",
            rules(),
            vec![(unknown(), "close 1"), (changed(), "read"), (read_at(closed, 30), "until 30")],
        ),
        ("unknown, never rotates", never, vec![(unknown(), "cancel 1"), (changed(), "settled")]),
    ];
    for (why, rules, script) in table {
        plays(why, &mut sent(rules), script);
    }
}

#[test]
fn the_ending_of_an_attempt_carries_its_failure_and_its_claim() {
    let AttemptEffect::Change(Change::Cancel(end)) = sent(rules()).step(not_spent()) else { panic!("cancels") };
    assert_eq!((end.attempt, end.incarnation, end.generation), (id(ME), INCARNATION, GENERATION));
    assert_eq!((end.error, end.retry_at), (Some(fault()), Some(WALL_NOW + seconds(60))));
    let AttemptEffect::Change(Change::Close(end)) = sent(rules()).step(unknown()) else { panic!("closes") };
    assert_eq!((end.error, end.retry_at), (Some(fault()), None), "a doubt is no backoff");
}

#[test]
fn a_response_is_stored() {
    let end_of = |place| match place {
        Resolution::Own | Resolution::Replace => "renewed",
        _ => "settled",
    };
    for place in [
        Resolution::Own,
        Resolution::Replace,
        Resolution::Alt,
        Resolution::Revoke,
        Resolution::Drop,
        Resolution::MovedOn,
    ] {
        plays("at once", &mut received(), vec![(landed(place), end_of(place))]);
        let journaled = vec![
            (AttemptEvent::Silent, "journal"),
            (AttemptEvent::Journaled(true), "await"),
            (AttemptEvent::Silent, "await"),
            (landed(place), end_of(place)),
        ];
        plays("by way of the journal", &mut received(), journaled);
    }
}

#[test]
fn a_failed_journal_is_retried_while_the_store_is_silent() {
    let script = vec![
        (AttemptEvent::Silent, "journal"),
        (AttemptEvent::Journaled(false), "await"),
        (AttemptEvent::Silent, "journal"),
        (AttemptEvent::Journaled(true), "await"),
        (AttemptEvent::Silent, "await"),
        (landed(Resolution::Own), "renewed"),
    ];
    plays("full disk", &mut received(), script);
}

#[test]
fn nothing_leads_to_another_request_once_one_is_sent() {
    let events: Vec<fn() -> AttemptEvent> = vec![
        || AttemptEvent::Flushed,
        || read(row()),
        || AttemptEvent::Slot(row()),
        || AttemptEvent::NoReply,
        || claimed(ChangeReply::Done, mine(), 0),
        changed,
        not_spent,
        || AttemptEvent::Outcome(SendOutcome::Tokens),
    ];
    for event in &events {
        for mut machine in [received(), {
            let mut machine = received();
            machine.step(AttemptEvent::Silent);
            machine.step(AttemptEvent::Journaled(true));
            machine
        }] {
            assert!(machine.sent(), "the old access token may be invalid until the store has the new one");
            let effect = name(&machine.step(event()));
            assert!(["await", "settled"].contains(&&*effect), "{:?} leads to {effect}", event());
        }
        let mut done = start(rules());
        done.step(AttemptEvent::Read { row: None, dead: vec![], now: NOW });
        assert_eq!(name(&done.step(event())), "settled");
        if !matches!(event(), AttemptEvent::Outcome(_)) {
            assert_eq!(name(&sent(rules()).step(event())), "settled", "{:?}", event());
        }
    }
}
