//! The attempt's machine from the moment at which the request has left.

use super::{
    attempt::{ME, Script, changed, claimed, mine, name, plays, read, read_at, start},
    *,
};
use crate::protocol::{
    Fault,
    attempt::{Effect, Event, Machine, Told},
    resolve::Resolution,
};

fn landed(place: Resolution) -> Event {
    Event::Changed { reply: Reply::Resolved(place) }
}

fn fault() -> Fault {
    Fault { evidence: Evidence::of("timeout"), cause: Cause::IdpDown }
}

fn unknown() -> Event {
    Event::Told(Told::Unknown { fault: fault(), retry_at: NOW + seconds(60) })
}

fn not_spent() -> Event {
    Event::Told(Told::NotSpent { fault: fault(), retry_at: NOW + seconds(60) })
}

/// To the moment at which the request has left.
fn sent(rules: Rules) -> Machine {
    let mut machine = start(rules);
    let script = vec![(read(row()), "slot"), (Event::Slot(row()), "claim"), (claimed(Reply::Done, mine(), 0), "send")];
    plays("sent", &mut machine, script);
    assert!(machine.sent());
    machine
}

fn answered() -> Machine {
    let mut machine = sent(rules());
    plays("answered", &mut machine, vec![(Event::Told(Told::Answered), "commit")]);
    machine
}

#[test]
fn what_the_provider_says_decides() {
    let never = Rules { never_rotates: true, ..rules() };
    let refusal = || Event::Told(Told::InvalidGrant { evidence: Evidence::of("invalid_grant") });
    let mut closed = Row { lease: None, ..mine() };
    closed.intent.as_mut().unwrap().senders[0].closed = true;
    let table: Vec<(&str, Rules, Script)> = vec![
        ("answered", rules(), vec![(Event::Told(Told::Answered), "commit")]),
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
fn the_end_of_an_attempt_carries_its_error_and_its_claim() {
    let Effect::Change(Change::Cancel(end)) = sent(rules()).step(not_spent()) else { panic!("cancels") };
    assert_eq!((end.attempt, end.incarnation, end.generation), (id(ME), INCARNATION, GENERATION));
    assert_eq!((end.error, end.retry_at), (Some(fault()), Some(NOW + seconds(60))));
    let Effect::Change(Change::Close(end)) = sent(rules()).step(unknown()) else { panic!("closes") };
    assert_eq!((end.error, end.retry_at), (Some(fault()), None), "a doubt is no backoff");
}

#[test]
fn an_answer_ends_in_the_store() {
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
        plays("at once", &mut answered(), vec![(landed(place), end_of(place))]);
        let journaled = vec![
            (Event::Silent, "journal"),
            (Event::Journaled(true), "await"),
            (Event::Silent, "await"),
            (landed(place), end_of(place)),
        ];
        plays("by way of the journal", &mut answered(), journaled);
    }
}

#[test]
fn a_journal_that_fails_is_tried_again_while_the_store_is_silent() {
    let script = vec![
        (Event::Silent, "journal"),
        (Event::Journaled(false), "await"),
        (Event::Silent, "journal"),
        (Event::Journaled(true), "await"),
        (Event::Silent, "await"),
        (landed(Resolution::Own), "renewed"),
    ];
    plays("full disk", &mut answered(), script);
}

#[test]
fn once_sent_nothing_leads_to_another_request() {
    let events: Vec<fn() -> Event> = vec![
        || Event::Flushed,
        || read(row()),
        || Event::Slot(row()),
        || Event::NoReply,
        || claimed(Reply::Done, mine(), 0),
        changed,
        not_spent,
        || Event::Told(Told::Answered),
    ];
    for event in &events {
        for mut machine in [answered(), {
            let mut machine = answered();
            machine.step(Event::Silent);
            machine.step(Event::Journaled(true));
            machine
        }] {
            assert!(machine.sent(), "the old access token may be dead until the store has the new one");
            let effect = name(&machine.step(event()));
            assert!(["await", "settled"].contains(&&*effect), "{:?} leads to {effect}", event());
        }
        let mut done = start(rules());
        done.step(Event::Read { row: None, dead: vec![], now: NOW });
        assert_eq!(name(&done.step(event())), "settled");
        if !matches!(event(), Event::Told(_)) {
            assert_eq!(name(&sent(rules()).step(event())), "settled", "{:?}", event());
        }
    }
}
