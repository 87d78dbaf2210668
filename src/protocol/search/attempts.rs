//! The moves of attempts: the counterpart of the attempt's task in `supervisor/refresh`.

use std::rc::Rc;

use super::{
    idp::{ModelResponse, Request, ReusePolicy, TokenIndex, fingerprint, token},
    invariants,
    moves::How::{self, Late, Not, Slowly, Unheard, Well},
    world::{ATTEMPT, Delayed, ModelAttempt, ModelWorld, OWNER, Setting, spendable},
};
use crate::{
    error::Cause,
    model::{Evidence, Expires, Id, Row, Sealed, StoreTime, WallTime},
    protocol::{
        AttemptFault, Change, ChangeReply, Commit, Unfinished,
        attempt::{AttemptEffect, AttemptEvent, AttemptMachine, Claimed, End, SendOutcome},
        doubt::{ProbeAnswer, ProbeMeans},
    },
};

impl ModelWorld {
    /// Starts an attempt of a process, which reads the row unless it goes by the row that it knows.
    pub(super) fn start(&mut self, process: u8, known: Option<Rc<Row>>, setting: &Setting) {
        let id = (!self.attempts).trailing_zeros() as u8;
        self.attempts |= 1 << id;
        self.left.claims -= 1;
        let owner = Id::of(OWNER, self.processes[usize::from(process)].owner);
        let row = known.clone().unwrap_or_else(|| self.row.clone());
        let basis = (row.incarnation, row.generation);
        let pending = !self.pending(process).is_empty();
        let (machine, effect) = AttemptMachine::start(Id::of(ATTEMPT, id), owner, basis, setting.rules, pending);
        let (claim, issued, held, commit) = (None, None, None, None);
        let (claimed, sent, journaled) = (false, false, false);
        let attempt = ModelAttempt { id, machine, effect, claimed, claim, issued, held, sent, commit, journaled };
        self.processes[usize::from(process)].attempt = Some(Rc::new(attempt));
        self.processes[usize::from(process)].known = Some(row.clone());
        match known {
            Some(_) => {
                let read = AttemptEvent::Read { row: Some((*row).clone()), dead: Vec::new(), now: self.now };
                self.advance_with(process, read, &row);
            }
            None if !pending => self.read(process),
            None => {}
        }
    }

    /// Carries out the machine's effect, as the attempt's task does.
    pub(super) fn perform(&mut self, process: u8, how: How, setting: &Setting) -> Result<(), String> {
        self.left.faults -= u8::from(how != Well);
        match self.attempt(process).effect.clone() {
            AttemptEffect::Flush => self.advance(process, AttemptEvent::Flushed),
            AttemptEffect::Read => self.read(process),
            AttemptEffect::Probe => {
                let answer = match self.current() {
                    _ if how != Well => ProbeAnswer::Silent,
                    Some(current) if self.idp.live(current) => ProbeAnswer::Unspent,
                    // An access token may be refused for other reasons.
                    _ if setting.rules.probe == ProbeMeans::AccessToken => ProbeAnswer::Nothing,
                    current => {
                        // It can be sent again if somebody thinks that the provider is wrong: there is nothing left to lose.
                        current.into_iter().for_each(|it| self.idp.tokens[usize::from(it)].refused = true);
                        ProbeAnswer::Spent
                    }
                };
                self.advance(process, AttemptEvent::Probed(answer));
            }
            AttemptEffect::Claim(claim) => {
                let attempt = self.attempt(process);
                let again = std::mem::replace(&mut attempt.claimed, true);
                attempt.claim = Some(claim.clone());
                self.left.claims -= u8::from(again);
                return self.claim(process, &claim, how, setting);
            }
            AttemptEffect::RepeatClaim => {
                let claim = self.attempt(process).claim.clone();
                return claim.map_or(Ok(()), |claim| self.claim(process, &claim, how, setting));
            }
            AttemptEffect::Send(claimed) if how == Well => return self.send(process, claimed, setting),
            AttemptEffect::Send(_) => self.advance(
                process,
                AttemptEvent::Outcome(SendOutcome::NotSpent { fault: fault(), retry_at: WallTime(0) }),
            ),
            AttemptEffect::Change(change) => {
                self.statement(&change, how, setting)?;
                if how == Well {
                    // The machine ignores the reply to these.
                    self.advance(process, AttemptEvent::Changed { reply: ChangeReply::Done });
                }
            }
            AttemptEffect::Commit | AttemptEffect::AwaitStore => return self.commit(process, how, setting),
            AttemptEffect::Journal => {
                if let Some(commit) = self.attempt(process).commit.clone().filter(|_| how != Not) {
                    let owner = usize::from(self.processes[usize::from(process)].owner);
                    if !self.journals[owner].entries.iter().any(|entry| entry.attempt == commit.attempt) {
                        self.journals[owner].entries.push(commit.clone());
                    }
                    if how == Well {
                        self.attempt(process).journaled = true;
                    }
                }
                self.advance(process, AttemptEvent::Journaled(how == Well));
            }
            AttemptEffect::Slot | AttemptEffect::End(_) => {}
        }
        Ok(())
    }

    fn read(&mut self, process: u8) {
        let dead = self.dead_senders(process);
        let read = AttemptEvent::Read { row: Some((*self.row).clone()), dead, now: self.now };
        self.advance(process, read);
    }

    fn statement(&mut self, change: &Change, how: How, setting: &Setting) -> Result<Option<ChangeReply>, String> {
        match how {
            Not => Ok(None),
            Late => {
                let until = self.now + setting.rules.settle;
                self.delayed.push(Delayed { change: Rc::new(change.clone()), until });
                Ok(None)
            }
            Well | Slowly | Unheard => self.apply(change).map(Some),
        }
    }

    fn claim(&mut self, process: u8, claim: &Change, how: How, setting: &Setting) -> Result<(), String> {
        let now = self.now;
        self.attempt(process).issued.get_or_insert(now);
        let reply = self.statement(claim, how, setting)?;
        let row = self.row.clone();
        match reply {
            Some(reply) if how == Well => self.look(process, reply, row, now),
            Some(reply) if how == Slowly => self.attempt(process).held = Some((reply, row, now)),
            _ => self.advance(process, AttemptEvent::NoReply),
        }
        Ok(())
    }

    pub(super) fn look(&mut self, process: u8, reply: ChangeReply, row: Rc<Row>, at: StoreTime) {
        let attempt = self.attempt(process);
        let issued = attempt.issued.take();
        attempt.claim = None;
        let issued = issued.unwrap_or(self.now);
        let elapsed = self.now.since(issued);
        self.advance(process, AttemptEvent::Claimed { reply, row: Some((*row).clone()), now: at, elapsed });
    }

    fn send(&mut self, process: u8, claimed: Claimed, setting: &Setting) -> Result<(), String> {
        let spent = token(claimed.fingerprint);
        let attempt = self.attempt(process).id;
        let broken = invariants::second_request(self, spent, setting).or_else(|| invariants::sent_held(self, attempt));
        let attempt = self.attempt(process);
        attempt.sent = true;
        let attempt = attempt.id;
        let (epoch, written) = (claimed.epoch, self.now);
        self.idp.requests.push(Request { attempt, epoch, token: spent, written, orphaned: None, response: None });
        broken.map_or(Ok(()), Err)
    }

    pub(super) fn receive(
        &mut self,
        process: u8,
        parent: TokenIndex,
        response: ModelResponse,
        unfinished: Option<Box<Unfinished>>,
        setting: &Setting,
    ) {
        let ModelResponse::Token(new) = response else {
            self.idp.tokens[usize::from(parent)].refused = true;
            return self
                .advance(process, AttemptEvent::Outcome(SendOutcome::InvalidGrant { evidence: Evidence::of("") }));
        };
        let issued = &mut self.idp.tokens[usize::from(new)];
        (issued.delivered, issued.excused) = (true, false);
        if let AttemptEffect::Send(claimed) = self.attempt(process).effect {
            let commit = Commit {
                attempt: Id::of(ATTEMPT, self.attempt(process).id),
                epoch: claimed.epoch,
                incarnation: claimed.incarnation,
                generation: claimed.generation,
                parent: fingerprint(parent),
                token: (setting.kind != ReusePolicy::NotRotating).then(|| spendable(new)),
                document: Sealed(Vec::new()),
                issued_at: WallTime(0),
                expires: Expires::Unknown,
                refresh_expires: None,
                due_at: None,
                revocable: !setting.revokes_user,
                unfinished,
            };
            self.attempt(process).commit = Some(Rc::new(commit));
        }
        self.advance(process, AttemptEvent::Outcome(SendOutcome::Tokens));
    }

    fn commit(&mut self, process: u8, how: How, setting: &Setting) -> Result<(), String> {
        let Some(commit) = self.attempt(process).commit.clone() else { return Ok(()) };
        let reply = self.statement(&Change::Commit(Box::new((*commit).clone())), how, setting)?;
        let Some(reply) = reply.filter(|_| how == Well) else {
            if !self.attempt(process).journaled {
                self.advance(process, AttemptEvent::Silent);
            }
            return Ok(());
        };
        if self.attempt(process).journaled {
            let owner = usize::from(self.processes[usize::from(process)].owner);
            self.journals[owner].entries.retain(|entry| entry.attempt != commit.attempt);
        }
        if self.row.incarnation == commit.incarnation && self.row.generation <= commit.generation {
            return Err("6: a token that may have been published from the journal is ahead of the store".to_owned());
        }
        self.advance(process, AttemptEvent::Changed { reply });
        Ok(())
    }

    /// Passes an event to the machine. The provider's slot is granted immediately: waiting for it is a pause.
    pub(super) fn advance(&mut self, process: u8, event: AttemptEvent) {
        let row = self.row.clone();
        self.advance_with(process, event, &row);
    }

    /// The same, with the row that the machine read last.
    fn advance_with(&mut self, process: u8, event: AttemptEvent, row: &Row) {
        let attempt = self.attempt(process);
        let mut effect = attempt.machine.step(event);
        if matches!(effect, AttemptEffect::Slot) {
            effect = attempt.machine.step(AttemptEvent::Slot(row.clone()));
        }
        if !matches!(effect, AttemptEffect::Send(_)) && attempt.commit.is_none() {
            attempt.sent = false;
        }
        if let AttemptEffect::End(end) = effect {
            let (id, claimed) = (attempt.id, attempt.claimed);
            if !claimed {
                // It left no trace: its id can be used again.
                self.attempts &= !(1 << id);
                self.left.claims += 1;
            }
            debug_assert!(!matches!(end, End::Renewed) || claimed);
            self.processes[usize::from(process)].attempt = None;
        } else {
            attempt.effect = effect;
        }
    }

    /// Returns the senders whose journals this process holds and that do not run.
    fn dead_senders(&self, process: u8) -> Vec<Id> {
        let running = self.processes[usize::from(process)].attempt.as_ref().map(|attempt| Id::of(ATTEMPT, attempt.id));
        let ours = |owner: Id| {
            self.journals.get(usize::from(owner.0[1])).is_some_and(|journal| journal.holder == Some(process))
        };
        let senders = self.row.intent.iter().flat_map(|intent| &intent.senders);
        let dead = senders.filter(|sender| {
            !sender.closed && sender.owner.0[0] == OWNER && ours(sender.owner) && Some(sender.attempt) != running
        });
        dead.map(|sender| sender.attempt).collect()
    }

    pub(super) fn process_of(&self, attempt: u8) -> Option<u8> {
        let runs = |running: &Rc<ModelAttempt>| running.id == attempt;
        let place = self.processes.iter().position(|process| process.attempt.as_ref().is_some_and(runs));
        place.map(|place| place as u8)
    }

    pub(super) fn attempt(&mut self, process: u8) -> &mut ModelAttempt {
        let attempt = self.processes[usize::from(process)].attempt.as_mut();
        Rc::make_mut(attempt.expect("only running attempts have moves"))
    }
}

pub(super) fn fault() -> AttemptFault {
    AttemptFault { evidence: Evidence::of(""), cause: Cause::IdpDown }
}
