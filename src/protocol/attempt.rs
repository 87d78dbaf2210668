//! The machine of one attempt: from the journal's flush to the answer's place in the store.
//!
//! One event in, one effect out. It sees no secret and no clock; the attempt's task carries the effects
//! out and reports what came of them, and the exhaustive search does the same against a model.

use std::time::Duration;

use super::{
    AttemptFault, Change, ChangeReply, Claim, Ending, Recover, Refuse,
    doubt::{Doubt, Rules, doubt},
    resolve::Resolution,
};
use crate::{
    error::Cause,
    model::{Evidence, Fingerprint, Generation, Id, Row, StoreTime, VerdictBy, WallTime},
};

/// The decisions of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AttemptMachine {
    id: Id,
    /// The journal into which the answer would go.
    owner: Id,
    /// What whoever asked for the refresh saw; another row is adopted instead.
    basis: (Id, Generation),
    rules: Rules,
    /// It has claimed. Its id never names a second claim, which a late statement of the first could meet.
    claimed: bool,
    phase: AttemptPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AttemptPhase {
    /// Local journal entries of the key go to the store.
    Flushing,
    /// The row is being read.
    Reading,
    /// The row is being put right (a dead sender closed, a doubt cleared, ...), then it is read again.
    Adjusting,
    /// The identity provider's slot is awaited.
    Slot,
    Claiming,
    /// The refresh token may have left.
    Sent(Claimed),
    /// The response is in memory alone.
    Received,
    /// The answer is in the journal.
    Journaled,
    /// The last change of the row.
    Leaving,
    Done,
}

/// What was claimed: goes into the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claimed {
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) epoch: u64,
    /// When this token was first sent, if it was sent before: the answer may be a replay of that one's.
    pub(crate) first_sent: Option<StoreTime>,
    /// The promise that it is not spent by being sent holds.
    pub(crate) stays: bool,
}

/// What came of an effect.
#[derive(Clone, Debug)]
pub(crate) enum AttemptEvent {
    Flushed,
    /// The row, with the open senders of its intent that died on our own disk.
    Read {
        row: Option<Row>,
        dead: Vec<Id>,
        now: StoreTime,
    },
    /// The slot is granted; the row that was read last.
    Slot(Row),
    /// The identity provider is not to be asked before then.
    NotBefore(WallTime, Cause),
    /// The store answered a claim, so long after it was issued.
    Claimed {
        reply: ChangeReply,
        row: Option<Row>,
        now: StoreTime,
        elapsed: Duration,
    },
    /// The store did not answer a claim, or with an error.
    NoReply,
    Outcome(SendOutcome),
    /// A change was carried out (these are repeated until the store answers).
    Changed {
        reply: ChangeReply,
    },
    /// The store has not answered the commit so far.
    Silent,
    /// The answer is in the journal, or could not be written to it.
    Journaled(bool),
}

/// What the identity provider's answer means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SendOutcome {
    /// A response with tokens.
    Tokens,
    NotSpent {
        fault: AttemptFault,
        retry_at: WallTime,
    },
    InvalidGrant {
        evidence: Evidence,
    },
    /// It is the answer of another subject: dropped.
    Foreign {
        evidence: Evidence,
    },
    Unknown {
        fault: AttemptFault,
        retry_at: WallTime,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AttemptEffect {
    /// Write the key's journal entries to the store.
    Flush,
    /// Read the row.
    Read,
    /// Wait for the identity provider's slot.
    Slot,
    /// Try this claim once.
    Claim(Change),
    /// Try the last claim again: whether the store took it is not known.
    RepeatClaim,
    /// Send the claimed row's refresh token.
    Send(Claimed),
    /// Store the answer.
    Commit,
    /// Write the answer to the journal.
    Journal,
    /// Go on waiting for the commit.
    AwaitStore,
    /// Carry out this change, and repeat it until the store answers.
    Change(Change),
    End(End),
}

/// How an attempt ended. The row, read last, says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Its answer counts.
    Renewed,
    /// There was nothing (more) to do: the row tells why.
    Settled,
    /// There is nothing to do before then, and why.
    Until(WallTime, Cause),
}

impl AttemptMachine {
    /// An attempt for whoever saw `basis`, and its first effect.
    pub(crate) fn start(
        id: Id,
        owner: Id,
        basis: (Id, Generation),
        rules: Rules,
        journal_pending: bool,
    ) -> (Self, AttemptEffect) {
        let (phase, effect) = if journal_pending {
            (AttemptPhase::Flushing, AttemptEffect::Flush)
        } else {
            (AttemptPhase::Reading, AttemptEffect::Read)
        };
        (Self { id, owner, basis, rules, claimed: false, phase }, effect)
    }

    /// Whether the refresh token may have left.
    pub(crate) fn sent(&self) -> bool {
        matches!(self.phase, AttemptPhase::Sent(_) | AttemptPhase::Received | AttemptPhase::Journaled)
    }

    /// The next effect.
    pub(crate) fn step(&mut self, event: AttemptEvent) -> AttemptEffect {
        let (phase, effect) = match (self.phase, event) {
            (AttemptPhase::Reading, AttemptEvent::Read { row, dead, now }) => self.decide(row, &dead, now),
            (AttemptPhase::Slot, AttemptEvent::Slot(row)) => {
                (AttemptPhase::Claiming, AttemptEffect::Claim(self.claim(&row)))
            }
            (AttemptPhase::Slot, AttemptEvent::NotBefore(time, cause)) => end(End::Until(time, cause)),
            (AttemptPhase::Claiming, AttemptEvent::NoReply) => (AttemptPhase::Claiming, AttemptEffect::RepeatClaim),
            (
                AttemptPhase::Claiming,
                AttemptEvent::Claimed { reply: ChangeReply::Done, row: Some(row), now, elapsed },
            ) => self.claimed(&row, now, elapsed),
            (AttemptPhase::Claiming, AttemptEvent::Claimed { row: Some(row), .. }) if self.is_open_sender(&row) => {
                // The claim came late and its lease is gone already: nothing was sent for it.
                (AttemptPhase::Adjusting, AttemptEffect::Change(Change::Close(self.ending(&row, None))))
            }
            (AttemptPhase::Sent(claimed), AttemptEvent::Outcome(told)) => self.told(claimed, told),
            (AttemptPhase::Received, AttemptEvent::Silent) => (AttemptPhase::Received, AttemptEffect::Journal),
            (AttemptPhase::Received, AttemptEvent::Journaled(true)) => {
                (AttemptPhase::Journaled, AttemptEffect::AwaitStore)
            }
            (AttemptPhase::Received, AttemptEvent::Journaled(false)) => {
                (AttemptPhase::Received, AttemptEffect::AwaitStore)
            }
            (AttemptPhase::Received | AttemptPhase::Journaled, AttemptEvent::Changed { reply }) => end(match reply {
                ChangeReply::Resolved(Resolution::Own | Resolution::Replace) => End::Renewed,
                _ => End::Settled,
            }),
            (AttemptPhase::Leaving, _) => end(End::Settled),
            (
                AttemptPhase::Flushing
                | AttemptPhase::Reading
                | AttemptPhase::Adjusting
                | AttemptPhase::Slot
                | AttemptPhase::Claiming,
                _,
            ) => (AttemptPhase::Reading, AttemptEffect::Read),
            // From here on an event that does not fit must not lead to another request.
            (AttemptPhase::Received | AttemptPhase::Journaled, _) => (self.phase, AttemptEffect::AwaitStore),
            (AttemptPhase::Sent(_) | AttemptPhase::Done, _) => end(End::Settled),
        };
        self.phase = phase;
        self.claimed |= phase == AttemptPhase::Claiming;
        effect
    }

    /// What the row asks for before its token can be claimed.
    fn decide(&self, row: Option<Row>, dead: &[Id], now: StoreTime) -> (AttemptPhase, AttemptEffect) {
        let Some(row) = row else { return end(End::Settled) };
        let adjust = |change| (AttemptPhase::Adjusting, AttemptEffect::Change(change));
        let wait = |time: StoreTime, cause| end(End::Until(time.by_wall_clock(), cause));
        let (incarnation, generation) = self.basis;
        if row.incarnation == incarnation && row.generation < generation && row.tombstone.is_none() {
            return adjust(Change::Raise { incarnation, seen: generation, unknown: self.id });
        }
        if let Some(&attempt) = dead.first() {
            return adjust(Change::Close(Ending { attempt, ..self.ending(&row, None) }));
        }
        let doubt = doubt(&row, now, &self.rules);
        if let (Some(Doubt::Clear), Some(intent)) = (doubt, &row.intent) {
            return adjust(Change::Clear { incarnation: row.incarnation, intent: intent.clone() });
        }
        if (row.incarnation, row.generation) != (incarnation, generation) || !row.sendable() {
            let of_another_token = row.intent.as_ref().is_some_and(|intent| intent.generation < row.generation);
            return match doubt {
                Some(Doubt::Wait(time)) if of_another_token && !row.sendable() => wait(time, Cause::InDoubt),
                _ => end(End::Settled),
            };
        }
        match (doubt, &row.intent) {
            (Some(Doubt::Wait(time)), _) => wait(time, Cause::InDoubt),
            (Some(Doubt::GiveUp), Some(intent)) => {
                adjust(Change::GiveUp { incarnation: row.incarnation, intent: intent.clone() })
            }
            _ => match row.lease {
                // Of a sender whose intent is over: a claim would be refused, again and again.
                Some(lease) if lease.until > now => wait(lease.until, Cause::InDoubt),
                _ if self.claimed => wait(now, Cause::StoreDown),
                _ => (AttemptPhase::Slot, AttemptEffect::Slot),
            },
        }
    }

    /// The claim that fits `row`.
    fn claim(&self, row: &Row) -> Change {
        let claim = Claim {
            attempt: self.id,
            owner: self.owner,
            incarnation: row.incarnation,
            generation: row.generation,
            lease: self.rules.lease,
        };
        match row.intent.clone() {
            Some(intent) => Change::Recover(Recover { claim, epoch: row.epoch, intent }),
            None => Change::Claim(claim),
        }
    }

    fn claimed(&self, row: &Row, now: StoreTime, elapsed: Duration) -> (AttemptPhase, AttemptEffect) {
        let (Some(token), Some(intent)) = (&row.refresh_token, &row.intent) else {
            return (AttemptPhase::Reading, AttemptEffect::Read);
        };
        let another_may_answer = intent.senders.iter().any(|sender| !sender.closed && sender.attempt != self.id);
        // The store's time is from when it took the claim: until now it may have grown by what elapsed since.
        let grace_ends = intent.since + self.rules.grace;
        let in_grace = now + elapsed < grace_ends || self.rules.never_rotates(row) || self.rules.try_in_doubt;
        // Refused to another sender, a reconnect required, or held, since the claim was first tried.
        let moot = row.verdict.is_some() || row.held.is_some();
        if elapsed > self.rules.send_window || (another_may_answer && !in_grace) || moot {
            return (AttemptPhase::Leaving, AttemptEffect::Change(Change::Cancel(self.ending(row, None))));
        }
        let claimed = Claimed {
            incarnation: row.incarnation,
            generation: row.generation,
            fingerprint: token.fingerprint,
            epoch: row.epoch,
            first_sent: intent.recovered.then_some(intent.since),
            stays: self.rules.never_rotates(row),
        };
        (AttemptPhase::Sent(claimed), AttemptEffect::Send(claimed))
    }

    fn told(&self, claimed: Claimed, told: SendOutcome) -> (AttemptPhase, AttemptEffect) {
        let Claimed { incarnation, generation, .. } = claimed;
        let ending =
            |fault, retry_at| Ending { attempt: self.id, incarnation, generation, error: Some(fault), retry_at };
        let refused = |evidence, by| {
            let refuse = Refuse { attempt: self.id, incarnation, generation, evidence, by };
            (AttemptPhase::Leaving, AttemptEffect::Change(Change::Refuse(refuse)))
        };
        match told {
            SendOutcome::Tokens => (AttemptPhase::Received, AttemptEffect::Commit),
            SendOutcome::NotSpent { fault, retry_at } => {
                (AttemptPhase::Leaving, AttemptEffect::Change(Change::Cancel(ending(fault, Some(retry_at)))))
            }
            SendOutcome::Unknown { fault, retry_at } if claimed.stays => {
                (AttemptPhase::Leaving, AttemptEffect::Change(Change::Cancel(ending(fault, Some(retry_at)))))
            }
            // Read again afterwards: the doubt says until when there is nothing to do.
            SendOutcome::Unknown { fault, .. } => {
                (AttemptPhase::Adjusting, AttemptEffect::Change(Change::Close(ending(fault, None))))
            }
            SendOutcome::InvalidGrant { evidence } => refused(evidence, VerdictBy::Idp),
            SendOutcome::Foreign { evidence } => refused(evidence, VerdictBy::Subject),
        }
    }

    fn is_open_sender(&self, row: &Row) -> bool {
        let senders = row.intent.iter().flat_map(|intent| &intent.senders);
        senders.into_iter().any(|sender| sender.attempt == self.id && !sender.closed)
    }

    fn ending(&self, row: &Row, retry_at: Option<WallTime>) -> Ending {
        Ending { attempt: self.id, incarnation: row.incarnation, generation: row.generation, error: None, retry_at }
    }
}

fn end(end: End) -> (AttemptPhase, AttemptEffect) {
    (AttemptPhase::Done, AttemptEffect::End(end))
}
