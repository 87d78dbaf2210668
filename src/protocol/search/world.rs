//! A state of the model: one row, the journals, the processes with their attempts, the identity provider.
//!
//! Times are absolute in a state, but two states that differ only in the time of day are the same: the digest takes
//! every time as its distance from now, and distances between which no rule distinguishes as one.

use std::{rc::Rc, time::Duration};

use super::idp::{ModelIdp, Request, ReusePolicy, TokenIndex, fingerprint, token};
use crate::{
    model::{Expires, Generation, Id, Row, Sealed, Spendable, StoreTime, TokenKey, WallTime},
    protocol::{
        Change, ChangeInput, ChangeReply, Commit, Lookup, LookupResult, Side,
        attempt::{AttemptEffect, AttemptMachine},
        doubt::{ProbeMeans, Rules},
    },
};

/// A doubt is given up an hour after it began if the access token's expiration is unknown: eight ticks.
pub(super) const TICK: Duration = Duration::from_secs(450);
/// The clock starts late enough that no time saturates.
const START: StoreTime = StoreTime(1_000_000_000_000);

/// What stays the same throughout a search.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) kind: ReusePolicy,
    pub(super) replicas: u8,
    /// All journals are in one directory, so that a process that starts takes over those of dead processes.
    pub(super) shared_disk: bool,
    /// A revocation ends all of the user's families, not one alone.
    pub(super) revokes_user: bool,
    pub(super) rules: Rules,
}

impl Setting {
    /// Returns the setting with a provider that can be asked whether a token is spent.
    pub(super) fn probing(self, probe: ProbeMeans) -> Self {
        Self { rules: Rules { probe, ..self.rules }, ..self }
    }

    pub(super) fn new(kind: ReusePolicy, replicas: u8) -> Self {
        let rules = Rules {
            settle: TICK,
            send_window: TICK,
            patience: 2 * TICK,
            lease: TICK,
            // Longer than lease, send window, settling and patience together, as the configuration requires.
            grace: if kind.has_grace() { 6 * TICK } else { Duration::ZERO },
            retry_safe: kind == ReusePolicy::RetrySafe,
            try_in_doubt: false,
            never_rotates: kind == ReusePolicy::NotRotating,
            probe: ProbeMeans::Absent,
        };
        Self { kind, replicas, shared_disk: false, revokes_user: false, rules }
    }
}

/// How many faults and orders may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Operations that are lost, late or failing, outages, delays.
    pub(super) faults: u8,
    pub(super) kills: u8,
    /// Disks that are lost together with a killed process.
    pub(super) disks: u8,
    /// Attempts that reach a claim.
    pub(super) claims: u8,
    /// Connects, disconnects, required reconnects.
    pub(super) orders: u8,
}

impl Budget {
    /// Returns whether `other` allows everything that this budget allows.
    pub(super) fn fits_into(self, other: Self) -> bool {
        let each = |budget: Self| [budget.faults, budget.kills, budget.disks, budget.claims, budget.orders];
        each(self).iter().zip(each(other)).all(|(own, others)| *own <= others)
    }
}

#[derive(Clone, Debug, Hash)]
pub(super) struct ModelWorld {
    pub(super) now: StoreTime,
    pub(super) left: Budget,
    pub(super) row: Rc<Row>,
    /// The store's table of fingerprints, as a set of tokens.
    pub(super) known: u32,
    /// The refresh tokens that the store knows as spent.
    pub(super) spent: u32,
    /// Tokens that are to be revoked.
    pub(super) revocations: Vec<ModelRevocation>,
    /// Statements that their senders have given up, and that the store may still execute.
    pub(super) delayed: Vec<Delayed>,
    pub(super) processes: Vec<Process>,
    /// The index of a journal is its owner.
    pub(super) journals: Vec<ModelJournal>,
    pub(super) idp: ModelIdp,
    /// The attempt ids that are in use, as a set.
    pub(super) attempts: u32,
    /// Those of them that claimed while the row was on hold, as a set: they must not send.
    pub(super) claimed_held: u32,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct ModelRevocation {
    pub(super) token: TokenIndex,
    /// The request may have been sent.
    pub(super) begun: bool,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Delayed {
    pub(super) change: Rc<Change>,
    /// The statement's timeout.
    pub(super) until: StoreTime,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Process {
    pub(super) alive: bool,
    pub(super) disk: u8,
    /// Its journal.
    pub(super) owner: u8,
    pub(super) attempt: Option<Rc<ModelAttempt>>,
    /// The row as the process read it last at the start of an attempt.
    pub(super) known: Option<Rc<Row>>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct ModelJournal {
    pub(super) disk: u8,
    /// The live process that holds its lock.
    pub(super) holder: Option<u8>,
    pub(super) entries: Vec<Rc<Commit>>,
}

/// A running attempt: the production state machine, and what its task keeps for it.
#[derive(Clone, Debug, Hash)]
pub(super) struct ModelAttempt {
    pub(super) id: u8,
    pub(super) machine: AttemptMachine,
    /// What is to be done next.
    pub(super) effect: AttemptEffect,
    /// It has claimed, so that its id may be stored elsewhere.
    pub(super) claimed: bool,
    /// The claim without a reply.
    pub(super) claim: Option<Change>,
    /// When that claim was first tried.
    pub(super) issued: Option<StoreTime>,
    /// The store's reply to the claim, which the process has not read yet.
    pub(super) held: Option<(ChangeReply, Rc<Row>, StoreTime)>,
    /// The request was sent.
    pub(super) sent: bool,
    /// The response.
    pub(super) commit: Option<Rc<Commit>>,
    pub(super) journaled: bool,
}

impl ModelWorld {
    /// Creates a state in which the key is connected and every process runs.
    pub(super) fn new(setting: &Setting, left: Budget) -> Self {
        let mut idp = ModelIdp::default();
        let token = idp.consent();
        let processes = (0..setting.replicas).map(|place| Process {
            alive: true,
            disk: if setting.shared_disk { 0 } else { place },
            owner: place,
            attempt: None,
            known: None,
        });
        let processes: Vec<_> = processes.collect();
        let journal = |(place, process): (usize, &Process)| ModelJournal {
            disk: process.disk,
            holder: Some(place as u8),
            entries: vec![],
        };
        let journals = processes.iter().enumerate().map(journal).collect();
        Self {
            now: START,
            left,
            row: Rc::new(first_row(token)),
            known: 1,
            spent: 0,
            revocations: Vec::new(),
            delayed: Vec::new(),
            processes,
            journals,
            idp,
            attempts: 0,
            claimed_held: 0,
        }
    }

    /// Makes a change as a store does: reads, applies, writes.
    pub(super) fn apply(&mut self, change: &Change) -> Result<ChangeReply, String> {
        let waits = |held: &Spendable| {
            self.revocations.iter().any(|queued| queued.token == token(held.fingerprint) && !queued.begun)
        };
        let known = match change.looks_up(true) {
            Some(Lookup::Token(looked_up) | Lookup::TokenAnywhere(looked_up, _))
                if self.known & 1 << token(looked_up) != 0 =>
            {
                LookupResult::Spent
            }
            Some(Lookup::Current)
                if self
                    .row
                    .refresh_token
                    .as_ref()
                    .is_some_and(|held| self.spent & 1 << token(held.fingerprint) != 0) =>
            {
                LookupResult::Spent
            }
            Some(Lookup::Restorable) if self.row.refresh_tokens().all(waits) => LookupResult::Unrevoked,
            _ => LookupResult::New,
        };
        let found = ChangeInput { row: Some(&self.row), now: self.now, floor: Generation(0), known };
        let applied = change.apply(found);
        let held = |row: &Row| row.refresh_token.as_ref().map(|token| token.fingerprint);
        let brought = applied.row.as_ref().and_then(held).filter(|current| held(&self.row) != Some(*current));
        if let Some(current) = brought {
            self.spent &= !(1 << token(current));
        }
        for side in applied.sides {
            match side {
                Side::Connected(connected) => self.known |= 1 << token(connected),
                Side::Spent(spent) => {
                    self.known |= 1 << token(spent);
                    self.spent |= 1 << token(spent);
                }
                Side::Revoke(revoked) => {
                    let token = token(revoked.fingerprint);
                    if !self.revocations.iter().any(|queued| queued.token == token) {
                        self.revocations.push(ModelRevocation { token, begun: false });
                    }
                }
                // A revocation that was sent cannot be taken back.
                Side::Keep(kept) => {
                    self.revocations.retain(|queued| queued.begun || queued.token != token(kept.fingerprint));
                }
                Side::CancelRevocations => self.revocations.clear(),
                Side::Reseal(_) => return Err("no move reseals".to_owned()),
                Side::Purge(_) => return Err("no move purges".to_owned()),
            }
        }
        if let Some(mut row) = applied.row {
            if row.generation < self.row.generation {
                return Err(format!("the generation fell from {:?} to {:?}", self.row.generation, row.generation));
            }
            if let Some(lease) = row.lease.filter(|_| row.epoch > self.row.epoch && self.row.held.is_some()) {
                self.claimed_held |= 1 << lease.attempt.0[1];
            }
            plain(&mut row);
            self.row = Rc::new(row);
        }
        Ok(applied.reply)
    }

    /// Returns the token that the row would spend.
    pub(super) fn current(&self) -> Option<TokenIndex> {
        self.row.refresh_token.as_ref().map(|held| token(held.fingerprint))
    }

    /// Returns the family of the row's grant.
    pub(super) fn family(&self) -> u8 {
        self.row.incarnation.0[1]
    }

    /// Returns whether a live process still waits for the response to this request.
    pub(super) fn listens(&self, request: &Request) -> bool {
        let mut attempts = self.processes.iter().filter_map(|process| process.attempt.as_ref());
        let waits =
            |attempt: &Rc<ModelAttempt>| attempt.id == request.attempt && attempt.sent && attempt.commit.is_none();
        request.orphaned.is_none() && attempts.any(waits)
    }

    /// Returns the entries that this process has to store: (journal, index).
    pub(super) fn pending(&self, process: u8) -> Vec<(u8, u8)> {
        let running = self.processes[usize::from(process)].attempt.as_ref().map(|attempt| Id::of(ATTEMPT, attempt.id));
        let mut pending = Vec::new();
        for (at, journal) in self.journals.iter().enumerate().filter(|(_, journal)| journal.holder == Some(process)) {
            let entries = journal.entries.iter().enumerate().filter(|(_, entry)| Some(entry.attempt) != running);
            pending.extend(entries.map(|(place, _)| (at as u8, place as u8)));
        }
        pending
    }
}

pub(super) const ATTEMPT: u8 = 1;
pub(super) const INCARNATION: u8 = 2;
pub(super) const OWNER: u8 = 3;

impl Id {
    /// Returns a small id that shows its kind.
    pub(super) fn of(sort: u8, number: u8) -> Self {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (sort, number);
        Self(bytes)
    }
}

pub(super) fn spendable(token: TokenIndex) -> Spendable {
    Spendable { sealed: Sealed(Vec::new()), fingerprint: fingerprint(token) }
}

fn first_row(token: TokenIndex) -> Row {
    Row {
        key: key(),
        grant_id: String::new(),
        incarnation: Id::of(INCARNATION, 0),
        generation: Generation(1),
        client_id: None,
        refresh_token: Some(spendable(token)),
        parent: None,
        commit: None,
        alt: None,
        epoch: 0,
        lease: None,
        intent: None,
        verdict: None,
        held: None,
        issued_at: WallTime(0),
        expires: Expires::Unknown,
        refresh_expires: Expires::Unknown,
        notice_at: None,
        due_at: None,
        retry_at: None,
        last_error: None,
        document: Sealed(Vec::new()),
        tombstone: None,
        changed_at: StoreTime(0),
    }
}

/// Returns the only key: `TokenKey` shares its buffer, so that rows are cheap to copy.
pub(super) fn key() -> TokenKey {
    thread_local!(static KEY: TokenKey = TokenKey::at("i").user("u"));
    KEY.with(TokenKey::clone)
}

/// Removes from a row what no rule of the protocol reads, so that fewer states differ.
fn plain(row: &mut Row) {
    row.grant_id.clear();
    (row.due_at, row.retry_at, row.notice_at, row.last_error) = (None, None, None, None);
    (row.issued_at, row.changed_at) = (WallTime(0), StoreTime(0));
    if let Some(verdict) = &mut row.verdict {
        verdict.since = StoreTime(0);
        verdict.evidence.code.clear();
    }
    if let Some(tombstone) = &mut row.tombstone {
        tombstone.at = StoreTime(0);
    }
}
