//! The state machine of one attempt: from the journal's flush to the response's place in the store.
//!
//! Each event leads to one effect. The machine sees no secret and no clock; the attempt's task carries the effects out
//! and reports their outcome as events, and the exhaustive search does the same against a model.

use std::time::Duration;

use super::{
    AttemptFault, Change, ChangeReply, Claim, Ending, Recover, Refuse,
    doubt::{Doubt, ProbeAnswer, Rules, doubt},
    resolve::Resolution,
};
use crate::{
    error::Cause,
    model::{Evidence, Fingerprint, Generation, Id, Intent, Row, StoreTime, VerdictBy, WallTime},
};

/// Decides what one attempt does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AttemptMachine {
    id: Id,
    /// The journal to which the response would be written.
    owner: Id,
    /// The row for which the refresh was requested; if the stored row is another, the attempt ends.
    basis: (Id, Generation),
    rules: Rules,
    /// The attempt has claimed. Its id is never used for a second claim: the store may still execute the first one
    /// late.
    claimed: bool,
    /// The doubt that the provider was asked about, and what it said.
    probed: Option<(Intent, Option<ProbeAnswer>)>,
    phase: AttemptPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AttemptPhase {
    /// Local journal entries of the key are being stored.
    Flushing,
    /// The row is being read.
    Reading,
    /// The row is being corrected (a dead sender closed, a doubt cleared, ...); then it is read again.
    Adjusting,
    /// The identity provider is being asked whether the token is spent.
    Probing,
    /// Waits for a slot of the identity provider.
    Slot,
    Claiming,
    /// The refresh token may have been sent.
    Sent(Claimed),
    /// The response is in memory alone.
    Received,
    /// The response is in the journal.
    Journaled,
    /// The last change of the row is being made.
    Leaving,
    Done,
}

/// The claimed row and token, for the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claimed {
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) epoch: u64,
    /// When the token was first sent, if this is not the first time: the response may be a replay of the first one.
    pub(crate) first_sent: Option<StoreTime>,
    /// The token does not rotate: sending it does not spend it.
    pub(crate) stays: bool,
}

/// The outcome of an effect.
#[derive(Clone, Debug)]
pub(crate) enum AttemptEvent {
    Flushed,
    /// The row, with the open senders of its intent that are dead and whose journals are on our own disk.
    Read {
        row: Option<Row>,
        dead: Vec<Id>,
        now: StoreTime,
    },
    /// What the provider says of the token in doubt.
    Probed(ProbeAnswer),
    /// The slot is granted, for the row that was read last.
    Slot(Row),
    /// No request may be sent to the identity provider before this time; of a claim: it was not made.
    NotBefore(WallTime, Cause),
    /// The store replied to a claim, `elapsed` after it was issued.
    Claimed {
        reply: ChangeReply,
        row: Option<Row>,
        now: StoreTime,
        elapsed: Duration,
    },
    /// The store did not reply to a claim, or with an error.
    NoReply,
    Outcome(SendOutcome),
    /// A change was made (changes are repeated until the store replies).
    Changed {
        reply: ChangeReply,
    },
    /// The store has not replied to the commit so far.
    Silent,
    /// Whether the response was written to the journal.
    Journaled(bool),
}

/// The outcome of a refresh request.
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
    /// A response with the tokens of another subject, which are dropped.
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
    /// Ask the identity provider whether the token of the row that was read last is spent.
    Probe,
    /// Wait for a slot of the identity provider.
    Slot,
    /// Try this claim once.
    Claim(Change),
    /// Repeat the last claim: whether the store made it is not known.
    RepeatClaim,
    /// Send the claimed row's refresh token.
    Send(Claimed),
    /// Store the response.
    Commit,
    /// Write the response to the journal.
    Journal,
    /// Go on waiting for the commit.
    AwaitStore,
    /// Make this change, and repeat it until the store replies.
    Change(Change),
    End(End),
}

/// How an attempt ended. The row that was read last says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Its response is stored and current.
    Renewed,
    /// There was nothing (more) to do; the row shows why.
    Settled,
    /// The stored row is another than the one that it was started for.
    Outdated,
    /// There is nothing to do before this time, for this cause.
    Until(WallTime, Cause),
}

impl AttemptMachine {
    /// Starts an attempt to refresh the row at `basis`, and returns its first effect.
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
        (Self { id, owner, basis, rules, claimed: false, probed: None, phase }, effect)
    }

    /// Returns whether the refresh token may have been sent.
    pub(crate) fn sent(&self) -> bool {
        matches!(self.phase, AttemptPhase::Sent(_) | AttemptPhase::Received | AttemptPhase::Journaled)
    }

    /// Handles an event and returns the next effect.
    pub(crate) fn step(&mut self, event: AttemptEvent) -> AttemptEffect {
        let (phase, effect) = match (self.phase, event) {
            (AttemptPhase::Reading, AttemptEvent::Read { row, dead, now }) => self.decide(row, &dead, now),
            (AttemptPhase::Slot, AttemptEvent::Slot(row)) => {
                (AttemptPhase::Claiming, AttemptEffect::Claim(self.claim(&row)))
            }
            (
                AttemptPhase::Probing | AttemptPhase::Slot | AttemptPhase::Claiming,
                AttemptEvent::NotBefore(time, cause),
            ) => end(End::Until(time, cause)),
            (AttemptPhase::Probing, AttemptEvent::Probed(answer)) => {
                // The row is read again: the answer counts for this doubt alone.
                self.probed.iter_mut().for_each(|(_, said)| *said = Some(answer));
                (AttemptPhase::Reading, AttemptEffect::Read)
            }
            (AttemptPhase::Claiming, AttemptEvent::NoReply) => (AttemptPhase::Claiming, AttemptEffect::RepeatClaim),
            (
                AttemptPhase::Claiming,
                AttemptEvent::Claimed { reply: ChangeReply::Done, row: Some(row), now, elapsed },
            ) => self.claimed(&row, now, elapsed),
            (AttemptPhase::Claiming, AttemptEvent::Claimed { row: Some(row), .. }) if self.is_open_sender(&row) => {
                // The claim was made late and its lease is over already: nothing was sent for it.
                (AttemptPhase::Adjusting, AttemptEffect::Change(Change::Close(self.ending(&row, None))))
            }
            (AttemptPhase::Sent(claimed), AttemptEvent::Outcome(outcome)) => self.outcome(claimed, outcome),
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
                | AttemptPhase::Probing
                | AttemptPhase::Slot
                | AttemptPhase::Claiming,
                _,
            ) => (AttemptPhase::Reading, AttemptEffect::Read),
            // After the response an unexpected event must not lead to another request.
            (AttemptPhase::Received | AttemptPhase::Journaled, _) => (self.phase, AttemptEffect::AwaitStore),
            (AttemptPhase::Sent(_) | AttemptPhase::Done, _) => end(End::Settled),
        };
        self.phase = phase;
        self.claimed |= phase == AttemptPhase::Claiming;
        effect
    }

    /// Returns what has to be done before the row's token can be claimed.
    fn decide(&mut self, row: Option<Row>, dead: &[Id], now: StoreTime) -> (AttemptPhase, AttemptEffect) {
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
        let probed = self.probed.as_ref().filter(|(about, _)| Some(about) == row.intent.as_ref());
        let doubt = doubt(&row, now, &self.rules, probed.and_then(|(_, answer)| *answer));
        if let (Some(Doubt::Clear), Some(intent)) = (doubt, &row.intent) {
            return adjust(Change::Clear { incarnation: row.incarnation, intent: intent.clone() });
        }
        let basis = (row.incarnation, row.generation) == (incarnation, generation);
        if basis && row.verdict.is_none() && row.has_run_out(now.by_wall_clock()) {
            return adjust(Change::RunOut { incarnation, generation });
        }
        if !basis || !row.sendable() {
            let of_another_token = row.intent.as_ref().is_some_and(|intent| intent.generation < row.generation);
            return match doubt {
                Some(Doubt::Wait(time)) if of_another_token && !row.sendable() => wait(time, Cause::InDoubt),
                _ if basis => end(End::Settled),
                _ => end(End::Outdated),
            };
        }
        match (doubt, &row.intent) {
            (Some(Doubt::Wait(time)), _) => wait(time, Cause::InDoubt),
            (Some(Doubt::Probe), Some(intent)) => {
                self.probed = Some((intent.clone(), None));
                (AttemptPhase::Probing, AttemptEffect::Probe)
            }
            (Some(Doubt::Spent), Some(intent)) => {
                adjust(Change::Spent { incarnation: row.incarnation, intent: intent.clone() })
            }
            (Some(Doubt::GiveUp), Some(intent)) => {
                adjust(Change::GiveUp { incarnation: row.incarnation, intent: intent.clone() })
            }
            _ => match row.lease {
                // The lease of a sender whose intent is gone: a claim would be refused again and again.
                Some(lease) if lease.until > now => wait(lease.until, Cause::InDoubt),
                _ if self.claimed => wait(now, Cause::StoreDown),
                _ => (AttemptPhase::Slot, AttemptEffect::Slot),
            },
        }
    }

    /// Returns the claim for `row`.
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
        // `now` is when the store made the claim: its clock may have advanced by `elapsed` since.
        let grace_ends = intent.since + self.rules.grace;
        let in_grace = now + elapsed < grace_ends
            || self.rules.never_rotates(row)
            || self.rules.may_repeat(intent)
            || self.is_unspent(intent)
            || self.rules.try_in_doubt;
        // Since the claim was first tried the token was refused to another sender, or the row needs consent or is on
        // hold.
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

    fn outcome(&self, claimed: Claimed, outcome: SendOutcome) -> (AttemptPhase, AttemptEffect) {
        let Claimed { incarnation, generation, .. } = claimed;
        let ending =
            |fault, retry_at| Ending { attempt: self.id, incarnation, generation, error: Some(fault), retry_at };
        let refused = |evidence, by| {
            let refuse = Refuse { attempt: self.id, incarnation, generation, evidence, by };
            (AttemptPhase::Leaving, AttemptEffect::Change(Change::Refuse(refuse)))
        };
        match outcome {
            SendOutcome::Tokens => (AttemptPhase::Received, AttemptEffect::Commit),
            SendOutcome::NotSpent { fault, retry_at } => {
                (AttemptPhase::Leaving, AttemptEffect::Change(Change::Cancel(ending(fault, Some(retry_at)))))
            }
            SendOutcome::Unknown { fault, retry_at } if claimed.stays => {
                (AttemptPhase::Leaving, AttemptEffect::Change(Change::Cancel(ending(fault, Some(retry_at)))))
            }
            // The row is read again afterwards: the doubt says until when there is nothing to do.
            SendOutcome::Unknown { fault, .. } => {
                (AttemptPhase::Adjusting, AttemptEffect::Change(Change::Close(ending(fault, None))))
            }
            SendOutcome::InvalidGrant { evidence } => refused(evidence, VerdictBy::Idp),
            SendOutcome::Foreign { evidence } => refused(evidence, VerdictBy::Subject),
        }
    }

    /// Returns whether the provider said so of the token of this intent, which this attempt has recovered since.
    fn is_unspent(&self, recovered: &Intent) -> bool {
        let is_known = |about: &Intent| {
            let mut senders = recovered.senders.iter().filter(|sender| sender.attempt != self.id);
            about.generation == recovered.generation && senders.all(|sender| about.senders.contains(sender))
        };
        matches!(&self.probed, Some((about, Some(ProbeAnswer::Unspent))) if is_known(about))
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
