//! Random sequences of operations by a few attempts on one row, against the invariants.

use proptest::prelude::*;

use super::*;
use crate::protocol::{
    Disconnect, Happening,
    doubt::{Doubt, doubt},
    resolve::Resolution,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim(usize),
    Recover(usize),
    /// The provider answers; `true`: with the pair that another request with the same token got.
    Answer(usize, bool),
    /// An answer reaches the store, perhaps again.
    Land(usize),
    Refuse(usize),
    /// The answer is somebody else's: what was sent is spent for good.
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
    Hold,
    Release,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0..3_usize;
    prop_oneof![
        6 => one.clone().prop_map(Step::Claim),
        6 => one.clone().prop_map(Step::Recover),
        6 => (one.clone(), any::<bool>()).prop_map(|(attempt, same)| Step::Answer(attempt, same)),
        8 => (0..8_usize).prop_map(Step::Land),
        3 => one.clone().prop_map(Step::Refuse),
        1 => one.clone().prop_map(Step::Foreign),
        3 => one.clone().prop_map(Step::Cancel),
        3 => one.prop_map(Step::Close),
        3 => Just(Step::Clear),
        1 => Just(Step::GiveUp),
        1 => Just(Step::ConnectNew),
        1 => Just(Step::ConnectSame),
        1 => Just(Step::ConnectAccessToken),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Restore),
        1 => Just(Step::RequireReconnect),
        1 => Just(Step::Hold),
        2 => Just(Step::Release),
        6 => (1..100_u64).prop_map(Step::Pass),
    ]
}

/// One attempt with what it claimed, until its end is in the store.
#[derive(Clone)]
struct Sending {
    id: u8,
    claimed: Row,
}

struct World {
    row: Row,
    now: StoreTime,
    running: [Option<Sending>; 3],
    /// Tokens that may be spent: by the attempt of that number, until it is known what came of it.
    maybe_spent: Vec<(u8, Fingerprint)>,
    answers: Vec<Commit>,
    numbers: u8,
    listener: Listener,
}

/// Somebody who knows what was told and nothing else.
#[derive(Default)]
struct Listener {
    refused: bool,
    troubled: bool,
}

impl World {
    fn new() -> Self {
        let (running, maybe_spent) = ([None, None, None], Vec::new());
        Self {
            row: row(),
            now: NOW,
            running,
            maybe_spent,
            answers: Vec::new(),
            numbers: 10,
            listener: Listener::default(),
        }
    }

    fn number(&mut self) -> u8 {
        self.numbers += 1;
        self.numbers
    }

    fn change(&mut self, change: &Change, known: Known) -> Reply {
        let applied = change.apply(Found { row: Some(&self.row), now: self.now, floor: Generation(0), known });
        let before = self.row.generation;
        if let Some(row) = applied.row {
            assert!(row.generation >= self.row.generation, "the generation falls with {change:?}");
            self.row = row;
        }
        let again = change.apply(Found { row: Some(&self.row), now: self.now, floor: Generation(0), known });
        let harmless = again.row.is_none_or(|row| row == self.row) || matches!(change, Change::Connect(_));
        assert!(harmless, "a repetition of {change:?} changes the row");
        self.listen(&applied.happened, applied.reply, before);
        applied.reply
    }

    /// Whoever listens knows whether the user must reconnect, and of every doubt that stands; and hears of every
    /// answer that was stored, once.
    fn listen(&mut self, happened: &[Happening], reply: Reply, before: Generation) {
        let listener = &mut self.listener;
        let mut renewed = false;
        for happening in happened {
            match happening {
                Happening::Renewed { generation } => renewed = *generation == self.row.generation,
                Happening::ReconnectRequired { .. } => (listener.refused, listener.troubled) = (true, true),
                Happening::InDoubt { .. } | Happening::Failing { .. } => {
                    (listener.refused, listener.troubled) = (false, true);
                }
                Happening::Recovered => {
                    assert!(listener.troubled, "recovered from nothing that was told");
                    (listener.refused, listener.troubled) = (false, false);
                }
            }
        }
        let lands = matches!(reply, Reply::Promoted | Reply::Resolved(Resolution::Own | Resolution::Replace));
        assert_eq!(renewed, lands && self.row.generation > before, "{reply:?} told {happened:?}");
        if self.row.tombstone.is_some() {
            self.listener = Listener::default();
            return;
        }
        assert_eq!(listener.refused, self.row.verdict.is_some(), "{reply:?} told {happened:?}");
        let doubt = self.row.intent.as_ref().filter(|intent| intent.generation == self.row.generation);
        let in_doubt = doubt.is_some_and(|intent| intent.senders.iter().all(|sender| sender.closed));
        assert!(!in_doubt || listener.troubled, "{reply:?} told {happened:?}, and a doubt stands");
        let calm = doubt.is_none() && self.row.verdict.is_none() && self.row.last_error.is_none();
        assert!(!calm || !listener.troubled, "{reply:?} told {happened:?}, and all is well");
    }

    fn ended(&mut self, attempt: u8) {
        self.maybe_spent.retain(|(by, _)| *by != attempt);
    }

    fn play(&mut self, step: Step) {
        let spendable = self.row.refresh_token.clone();
        match step {
            Step::Claim(slot) | Step::Recover(slot) => {
                if self.running[slot].is_some() {
                    return;
                }
                let Some(token) = spendable else { return };
                let number = self.number();
                let change = match (step, &self.row.intent) {
                    (Step::Recover(_), Some(_)) if doubt(&self.row, self.now, &rules()) != Some(Doubt::Clear) => {
                        Change::Recover(recover(number, &self.row))
                    }
                    _ => Change::Claim(claim(number, &self.row)),
                };
                if self.change(&change, Known::New) == Reply::Done {
                    self.running[slot] = Some(Sending { id: number, claimed: self.row.clone() });
                    self.maybe_spent.push((number, token.fingerprint));
                }
            }
            Step::Answer(slot, same_pair) => {
                let Some(sending) = self.running[slot].take() else { return };
                let mut answer = commit(sending.id, &sending.claimed, 0);
                let pair = self.answers.iter().find(|other| same_pair && other.parent == answer.parent);
                answer.token = Some(match pair {
                    Some(pair) => pair.token.clone().unwrap(),
                    None => token(self.number()),
                });
                self.answers.push(answer);
            }
            Step::Land(which) => {
                if let Some(answer) = self.answers.get(which).or(self.answers.last()).cloned() {
                    self.land(&answer);
                }
            }
            Step::Refuse(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&refuse(sending.id, &sending.claimed), Known::New);
                    self.ended(sending.id);
                }
            }
            Step::Foreign(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&foreign(sending.id, &sending.claimed), Known::New);
                }
            }
            Step::Cancel(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&Change::Cancel(ending(sending.id, &sending.claimed)), Known::New);
                    self.ended(sending.id);
                }
            }
            Step::Close(slot) => {
                if let Some(sending) = self.running[slot].take() {
                    self.change(&Change::Close(ending(sending.id, &sending.claimed)), Known::New);
                }
            }
            Step::Clear | Step::GiveUp => {
                let Some(intent) = self.row.intent.clone() else { return };
                let incarnation = self.row.incarnation;
                self.change(
                    &match step {
                        Step::Clear => Change::Clear { incarnation, intent },
                        _ => Change::GiveUp { incarnation, intent },
                    },
                    Known::New,
                );
            }
            Step::ConnectNew => {
                let (new, incarnation) = (self.number(), self.number());
                self.change(&Change::Connect(Box::new(connect(Some(new), incarnation))), Known::New);
            }
            Step::ConnectSame => {
                let Some(held) = spendable else { return };
                let again = Connect { token: Some(held.clone()), ..connect(None, 0) };
                if self.change(&Change::Connect(Box::new(again)), Known::Spent) == Reply::Done {
                    // The provider refused it and then gave it once more: it is good again, unless somebody
                    // may still be sending it.
                    let open: Vec<u8> = self.running.iter().flatten().map(|sending| sending.id).collect();
                    self.maybe_spent.retain(|(by, token)| *token != held.fingerprint || open.contains(by));
                }
            }
            Step::ConnectAccessToken => {
                let incarnation = self.number();
                self.change(&Change::Connect(Box::new(connect(None, incarnation))), Known::New);
            }
            Step::Disconnect => {
                self.change(&Change::Disconnect(Disconnect { revoke: true, purge: false }), Known::New);
            }
            Step::Restore => {
                let refused = self.row.tombstone.is_some_and(|tombstone| !tombstone.restorable);
                let reply = self.change(&Change::Restore, Known::Unrevoked);
                assert_eq!(reply, if refused { Reply::Refused } else { Reply::Done });
            }
            Step::RequireReconnect => {
                self.change(&Change::RequireReconnect { reason: "left".to_owned() }, Known::New);
            }
            Step::Hold => {
                self.change(&Change::Hold { reason: "by hand".to_owned() }, Known::New);
            }
            Step::Release => {
                self.change(&Change::Release, Known::New);
            }
            Step::Pass(elapsed) => self.now = self.now + seconds(elapsed),
        }
    }

    fn land(&mut self, answer: &Commit) {
        let Reply::Resolved(place) = self.change(&committed(answer), Known::New) else {
            panic!("a commit is resolved")
        };
        self.ended(answer.attempt.0[0]);
        let held = self.row.refresh_token.as_ref().map(|token| token.fingerprint);
        let beside = self.row.alt.as_ref().map(|alt| alt.token.fingerprint);
        let child = Some(answer.token.as_ref().unwrap().fingerprint);
        match place {
            Resolution::Replace => assert_eq!(held, child),
            Resolution::Alt => assert_eq!(beside, child),
            Resolution::Own => {
                let stored_by_us = self.row.commit.is_some_and(|by| by.attempt == answer.attempt);
                assert!(held == child || stored_by_us, "an answer is lost");
            }
            Resolution::MovedOn => {
                assert_ne!(held, Some(answer.parent), "the row holds what was spent, and its successor is lost");
            }
            Resolution::Revoke | Resolution::Drop => {
                assert!(self.row.tombstone.is_some() || self.row.incarnation != answer.incarnation);
            }
        }
    }

    /// Nothing that may be spent is held by a row that says nothing of it.
    fn check(&self) {
        let released = Row { held: None, ..self.row.clone() };
        let Some(held) = released.refresh_token.as_ref().filter(|_| released.sendable()) else { return };
        let doubted = self.row.intent.as_ref().is_some_and(|intent| intent.generation == self.row.generation);
        let spent = self.maybe_spent.iter().any(|(_, token)| *token == held.fingerprint);
        assert!(doubted || !spent, "the row holds a token that may be spent, and no intent says so");
        assert!(self.row.alt.as_ref().is_none_or(|alt| alt.token != *held), "the alternative is the row's own token");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_operations_loses_a_token_or_hides_a_spent_one(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
            world.check();
        }
    }
}
