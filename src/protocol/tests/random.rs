//! Random sequences of operations by a few attempts on one row, against the invariants.

use proptest::prelude::*;

use super::*;
use crate::protocol::{
    Transition,
    doubt::{Doubt, doubt},
    resolve::Resolution,
};

#[derive(Clone, Copy, Debug)]
enum RandomStep {
    Claim(usize),
    Recover(usize),
    /// The provider responds; `true`: with the pair that another request with the same token got.
    Respond(usize, bool),
    /// A response reaches the store, perhaps again.
    Land(usize),
    Refuse(usize),
    /// The response is another subject's: the token that was sent is spent for good.
    Foreign(usize),
    Cancel(usize),
    Close(usize),
    Clear,
    GiveUp,
    ConnectNew,
    ConnectSame,
    ConnectAccessToken,
    Disconnect,
    Restore,
    RequireReconnect,
    Retry,
    Hold,
    Release,
    Reseal,
    Pass(u64),
}

fn step() -> impl Strategy<Value = RandomStep> {
    let one = 0..3_usize;
    prop_oneof![
        6 => one.clone().prop_map(RandomStep::Claim),
        6 => one.clone().prop_map(RandomStep::Recover),
        6 => (one.clone(), any::<bool>()).prop_map(|(attempt, same)| RandomStep::Respond(attempt, same)),
        8 => (0..8_usize).prop_map(RandomStep::Land),
        3 => one.clone().prop_map(RandomStep::Refuse),
        1 => one.clone().prop_map(RandomStep::Foreign),
        3 => one.clone().prop_map(RandomStep::Cancel),
        3 => one.prop_map(RandomStep::Close),
        3 => Just(RandomStep::Clear),
        1 => Just(RandomStep::GiveUp),
        1 => Just(RandomStep::ConnectNew),
        1 => Just(RandomStep::ConnectSame),
        1 => Just(RandomStep::ConnectAccessToken),
        1 => Just(RandomStep::Disconnect),
        2 => Just(RandomStep::Restore),
        1 => Just(RandomStep::RequireReconnect),
        2 => Just(RandomStep::Retry),
        1 => Just(RandomStep::Hold),
        2 => Just(RandomStep::Release),
        2 => Just(RandomStep::Reseal),
        6 => (1..100_u64).prop_map(RandomStep::Pass),
    ]
}

/// An attempt with its claim, until its end is stored.
#[derive(Clone)]
struct Sending {
    id: u8,
    claimed: Row,
}

struct RandomWorld {
    row: Row,
    now: StoreTime,
    running: [Option<Sending>; 3],
    /// Tokens that may be spent, with the attempt that may have spent them, until its outcome is known.
    maybe_spent: Vec<(u8, Fingerprint)>,
    responses: Vec<Commit>,
    numbers: u8,
    listener: Listener,
}

/// A listener that knows only what was reported.
#[derive(Default)]
struct Listener {
    refused: bool,
    troubled: bool,
}

impl RandomWorld {
    fn new() -> Self {
        let (running, maybe_spent) = ([None, None, None], Vec::new());
        Self {
            row: row(),
            now: NOW,
            running,
            maybe_spent,
            responses: Vec::new(),
            numbers: 10,
            listener: Listener::default(),
        }
    }

    fn number(&mut self) -> u8 {
        self.numbers += 1;
        self.numbers
    }

    fn change(&mut self, change: &Change, known: LookupResult) -> ChangeReply {
        let applied = change.apply(ChangeInput { row: Some(&self.row), now: self.now, floor: Generation(0), known });
        let before = self.row.generation;
        if let Some(row) = applied.row {
            assert!(row.generation >= self.row.generation, "{change:?} lowers the generation");
            self.row = row;
        }
        let again = change.apply(ChangeInput { row: Some(&self.row), now: self.now, floor: Generation(0), known });
        let harmless = again.row.is_none_or(|row| row == self.row) || matches!(change, Change::Connect(_));
        assert!(harmless, "a repetition of {change:?} changes the row");
        self.listen(&applied.transitions, applied.reply, before);
        applied.reply
    }

    /// Checks that a listener knows whether the user must reconnect and whether a doubt remains, and that every stored
    /// response is reported once.
    fn listen(&mut self, transitions: &[Transition], reply: ChangeReply, before: Generation) {
        let listener = &mut self.listener;
        let mut renewed = false;
        for transition in transitions {
            match transition {
                Transition::Renewed { generation } => renewed = *generation == self.row.generation,
                Transition::ReconnectRequired { .. } => (listener.refused, listener.troubled) = (true, true),
                Transition::InDoubt { .. } | Transition::Failing { .. } => {
                    (listener.refused, listener.troubled) = (false, true);
                }
                Transition::Recovered => {
                    assert!(listener.troubled, "recovered without reported trouble");
                    (listener.refused, listener.troubled) = (false, false);
                }
            }
        }
        let lands =
            matches!(reply, ChangeReply::Promoted | ChangeReply::Resolved(Resolution::Own | Resolution::Replace));
        assert_eq!(renewed, lands && self.row.generation > before, "{reply:?} reported {transitions:?}");
        if self.row.tombstone.is_some() {
            self.listener = Listener::default();
            return;
        }
        assert_eq!(listener.refused, self.row.verdict.is_some(), "{reply:?} reported {transitions:?}");
        let doubt = self.row.intent.as_ref().filter(|intent| intent.generation == self.row.generation);
        let in_doubt = doubt.is_some_and(|intent| intent.senders.iter().all(|sender| sender.closed));
        assert!(!in_doubt || listener.troubled, "{reply:?} reported {transitions:?}, and a doubt remains");
        let calm = doubt.is_none() && self.row.verdict.is_none() && self.row.last_error.is_none();
        assert!(!calm || !listener.troubled, "{reply:?} reported {transitions:?}, and nothing is wrong");
    }

    fn ended(&mut self, attempt: u8) {
        self.maybe_spent.retain(|(by, _)| *by != attempt);
    }

    /// A token that was refused may be sent again, unless an attempt may still be sending it.
    fn may_be_sent_again(&mut self, refused: Fingerprint) {
        let open: Vec<u8> = self.running.iter().flatten().map(|sending| sending.id).collect();
        self.maybe_spent.retain(|(by, token)| *token != refused || open.contains(by));
    }

    fn play(&mut self, step: RandomStep) {
        let spendable = self.row.refresh_token.clone();
        match step {
            RandomStep::Claim(slot) | RandomStep::Recover(slot) => {
                if self.running[slot].is_some() {
                    return;
                }
                let Some(token) = spendable else { return };
                let number = self.number();
                let change = match (step, &self.row.intent) {
                    (RandomStep::Recover(_), Some(_))
                        if doubt(&self.row, self.now, &rules(), None) != Some(Doubt::Clear) =>
                    {
                        Change::Recover(recover(number, &self.row))
                    }
                    _ => Change::Claim(claim(number, &self.row)),
                };
                if self.change(&change, LookupResult::New) == ChangeReply::Done {
                    self.running[slot] = Some(Sending { id: number, claimed: self.row.clone() });
                    self.maybe_spent.push((number, token.fingerprint));
                }
            }
            RandomStep::Respond(slot, same_pair) => {
                let Some(sending) = self.running[slot].take() else { return };
                let mut response = commit(sending.id, &sending.claimed, 0);
                let pair = self.responses.iter().find(|other| same_pair && other.parent == response.parent);
                response.token = Some(match pair {
                    Some(pair) => pair.token.clone().unwrap(),
                    None => token(self.number()),
                });
                self.responses.push(response);
            }
            RandomStep::Land(which) => {
                if let Some(response) = self.responses.get(which).or(self.responses.last()).cloned() {
                    self.land(&response);
                }
            }
            RandomStep::Refuse(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&refuse(sending.id, &sending.claimed), LookupResult::New);
                    self.ended(sending.id);
                }
            }
            RandomStep::Foreign(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&foreign(sending.id, &sending.claimed), LookupResult::New);
                }
            }
            RandomStep::Cancel(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&Change::Cancel(ending(sending.id, &sending.claimed)), LookupResult::New);
                    self.ended(sending.id);
                }
            }
            RandomStep::Close(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&Change::Close(ending(sending.id, &sending.claimed)), LookupResult::New);
                }
            }
            RandomStep::Clear | RandomStep::GiveUp => {
                let Some(intent) = self.row.intent.clone() else { return };
                let incarnation = self.row.incarnation;
                self.change(
                    &match step {
                        RandomStep::Clear => Change::Clear { incarnation, intent },
                        _ => Change::GiveUp { incarnation, intent },
                    },
                    LookupResult::New,
                );
            }
            RandomStep::ConnectNew => {
                let (new, incarnation) = (self.number(), self.number());
                self.change(&Change::Connect(Box::new(connect(Some(new), incarnation))), LookupResult::New);
            }
            RandomStep::ConnectSame => {
                let Some(held) = spendable else { return };
                let again = ConnectChange { token: Some(held.clone()), ..connect(None, 0) };
                if self.change(&Change::Connect(Box::new(again)), LookupResult::Spent) == ChangeReply::Done {
                    // The provider refused the token and then issued it once more.
                    self.may_be_sent_again(held.fingerprint);
                }
            }
            RandomStep::ConnectAccessToken => {
                let incarnation = self.number();
                self.change(&Change::Connect(Box::new(connect(None, incarnation))), LookupResult::New);
            }
            RandomStep::Disconnect => {
                self.change(&disconnecting(true), LookupResult::New);
            }
            RandomStep::Restore => {
                let refused = self.row.tombstone.is_some_and(|tombstone| !tombstone.restorable);
                let reply = self.change(&Change::Restore, LookupResult::Unrevoked);
                assert_eq!(reply, if refused { ChangeReply::Refused } else { ChangeReply::Done });
            }
            RandomStep::RequireReconnect => {
                self.change(&Change::RequireReconnect { reason: "left".to_owned() }, LookupResult::New);
            }
            RandomStep::Retry => {
                let gone = self.row.tombstone.is_some();
                let lifts = !gone && self.row.verdict.as_ref().is_some_and(|verdict| verdict.by == VerdictBy::Idp);
                let reply = self.change(&Change::Retry, LookupResult::New);
                assert_eq!(reply, if gone { ChangeReply::Refused } else { ChangeReply::Done });
                if let Some(held) = spendable.filter(|_| lifts) {
                    // The provider refused the token: there is nothing left to lose.
                    self.may_be_sent_again(held.fingerprint);
                }
            }
            RandomStep::Hold => {
                self.change(&Change::Hold { reason: "by hand".to_owned() }, LookupResult::New);
            }
            RandomStep::Release => {
                self.change(&Change::Release, LookupResult::New);
            }
            RandomStep::Reseal => {
                let tokens = self.row.refresh_tokens().map(|token| &token.sealed);
                let values = tokens.chain([&self.row.document]).map(resealed).collect();
                let leased = self.row.lease_live(self.now);
                let reply = self.change(&Change::Reseal(values), LookupResult::New);
                assert_eq!(reply, if leased { ChangeReply::Refused } else { ChangeReply::Done });
            }
            RandomStep::Pass(elapsed) => self.now = self.now + seconds(elapsed),
        }
    }

    fn land(&mut self, response: &Commit) {
        let ChangeReply::Resolved(place) = self.change(&committed(response), LookupResult::New) else {
            panic!("a commit is resolved")
        };
        self.ended(response.attempt.0[0]);
        let held = self.row.refresh_token.as_ref().map(|token| token.fingerprint);
        let beside = self.row.alt.as_ref().map(|alt| alt.token.fingerprint);
        let child = Some(response.token.as_ref().unwrap().fingerprint);
        match place {
            Resolution::Replace => assert_eq!(held, child),
            Resolution::Alt => assert_eq!(beside, child),
            Resolution::Own => {
                let stored_by_us = self.row.commit.is_some_and(|by| by.attempt == response.attempt);
                assert!(held == child || stored_by_us, "a response is lost");
            }
            Resolution::MovedOn => {
                assert_ne!(held, Some(response.parent), "the row holds the spent token, and its successor is lost");
            }
            Resolution::Revoke | Resolution::Drop => {
                assert!(self.row.tombstone.is_some() || self.row.incarnation != response.incarnation);
            }
        }
    }

    /// Checks that a row that holds a token that may be spent has an intent.
    fn check(&self) {
        let released = Row { held: None, ..self.row.clone() };
        let Some(held) = released.refresh_token.as_ref().filter(|_| released.sendable()) else { return };
        let doubted = self.row.intent.as_ref().is_some_and(|intent| intent.generation == self.row.generation);
        let spent = self.maybe_spent.iter().any(|(_, token)| *token == held.fingerprint);
        assert!(doubted || !spent, "the row holds a token that may be spent, without an intent");
        assert!(self.row.alt.as_ref().is_none_or(|alt| alt.token != *held), "the alternative is the row's own token");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_operations_loses_a_token_or_hides_a_spent_one(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = RandomWorld::new();
        for step in steps {
            world.play(step);
            world.check();
        }
    }
}
