//! What can happen next in a state, and what it does.
//!
//! A pause of a process needs no event: it is not chosen for a while. A store's outage is one fault for
//! each operation that hits it.

use std::rc::Rc;

use super::{
    idp::{Answer, Kind, Request, Token, fingerprint, token},
    invariants,
    world::{ATTEMPT, Attempt, Delayed, INCARNATION, Journal, OWNER, Setting, TICK, World, key, spendable},
};
use crate::{
    error::Cause,
    model::{Expires, Id, Sealed, Time},
    protocol::{
        Change, Commit, Connect, Disconnect, Fault, Reply,
        attempt::{Claimed, Effect, End, Event, Machine, Told},
    },
};

/// One thing that happens. Processes, requests, ... are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// A process starts an attempt, and reads the row unless its journal comes first.
    Start(u8),
    /// The attempt of a process does what its machine asks for.
    Do(u8, How),
    /// A process looks at the store's answer to its claim.
    Look(u8),
    /// The commit was silent again.
    Silent(u8),
    Renew(u8),
    /// The provider processes a request.
    Process(u8),
    /// The answer arrives.
    Answer(u8),
    /// Its sender hears a time-out, a broken connection, a 5xx; the request may be processed all the same.
    Unknown(u8),
    /// The provider does not process it and says so.
    Decline(u8),
    /// A delayed statement is executed.
    Execute(u8),
    /// An entry (journal, place) goes to the store; it is marked unless the acknowledgement is lost.
    Flush(u8, u8, How),
    Kill(u8),
    Restart(u8),
    /// Restart with a new disk.
    Replace(u8),
    Connect,
    /// Connect with a token that is not new.
    ConnectAgain(Token),
    ConnectWithout,
    Disconnect,
    RequireReconnect,
    /// A queued revocation reaches the provider.
    Revoke(u8),
    Tick,
}

/// How an operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Well,
    /// Done; its process is held up before it looks at the answer.
    Slowly,
    /// Done, but nobody is told.
    Unheard,
    /// Not done; nobody is told.
    Not,
    /// Perhaps done later; nobody is told.
    Late,
}

use How::{Late, Not, Slowly, Unheard, Well};

impl World {
    /// Everything that can happen now.
    pub(super) fn moves(&self, setting: &Setting) -> Vec<Move> {
        let mut moves = Vec::with_capacity(24);
        let faulty = self.left.faults > 0;
        for (place, process) in (0..).zip(&self.processes) {
            match &process.attempt {
                _ if !process.alive => {
                    moves.push(Move::Restart(place));
                    if self.left.disks > 0 && !setting.shared_disk {
                        moves.push(Move::Replace(place));
                    }
                    continue;
                }
                Some(attempt) => self.moves_of(place, attempt, setting, &mut moves),
                None if self.left.claims > 0 => moves.push(Move::Start(place)),
                None => {}
            }
            for (journal, entry) in self.pending(place) {
                moves.push(Move::Flush(journal, entry, Well));
                if faulty {
                    moves.push(Move::Flush(journal, entry, Unheard));
                }
            }
            if self.left.kills > 0 {
                moves.push(Move::Kill(place));
            }
        }
        for (place, request) in (0..).zip(&self.idp.requests) {
            let heard = self.listens(request);
            match request.answer {
                Some(_) if heard => moves.push(Move::Answer(place)),
                Some(_) => {}
                None => {
                    if self.processable(request, setting) {
                        moves.push(Move::Process(place));
                    }
                    if heard && faulty {
                        moves.push(Move::Decline(place));
                    }
                }
            }
            if heard && (faulty || self.now >= request.written + setting.rules.patience) {
                moves.push(Move::Unknown(place));
            }
        }
        moves.extend((0..).zip(&self.delayed).map(|(place, _)| Move::Execute(place)));
        moves.extend((0..).zip(&self.revocations).map(|(place, _)| Move::Revoke(place)));
        if self.left.orders > 0 {
            moves.extend([Move::Connect, Move::ConnectWithout, Move::ConnectAgain(0)]);
            moves.extend(self.current().filter(|current| *current != 0).map(Move::ConnectAgain));
            moves.extend([Move::Disconnect, Move::RequireReconnect]);
        }
        if self.time_may_pass() {
            moves.push(Move::Tick);
        }
        moves
    }

    fn moves_of(&self, place: u8, attempt: &Attempt, setting: &Setting, moves: &mut Vec<Move>) {
        if attempt.held.is_some() {
            return moves.push(Move::Look(place));
        }
        if attempt.sent && attempt.commit.is_none() {
            let renewed = self.now + setting.rules.lease;
            let renewable = |lease: &crate::model::Lease| lease.attempt == Id::of(ATTEMPT, attempt.id);
            if self.row.lease.as_ref().filter(|lease| renewable(lease)).is_some_and(|lease| lease.until != renewed) {
                moves.push(Move::Renew(place));
            }
            return;
        }
        let failures: &[How] = match attempt.effect {
            Effect::Flush if !self.pending(place).is_empty() => return,
            Effect::Claim(_) if attempt.claimed && self.left.claims == 0 => return,
            Effect::Claim(_) | Effect::RepeatClaim => &[Slowly, Unheard, Not, Late],
            Effect::Commit => &[Unheard, Not, Late],
            Effect::Journal => &[Unheard, Not],
            Effect::Change(_) => &[Unheard, Late],
            Effect::Send(_) => &[Not],
            Effect::AwaitStore => &[Unheard],
            _ => &[],
        };
        moves.push(Move::Do(place, Well));
        if self.left.faults > 0 {
            moves.extend(failures.iter().map(|how| Move::Do(place, *how)));
        }
        if matches!(attempt.effect, Effect::AwaitStore) && !attempt.journaled {
            moves.push(Move::Silent(place));
        }
    }

    /// Between the last look at the clock and the write nobody is held up: that no client can survive.
    pub(super) fn time_may_pass(&self) -> bool {
        let attempts = self.processes.iter().filter_map(|process| process.attempt.as_ref());
        !attempts.into_iter().any(|attempt| matches!(attempt.effect, Effect::Send(_)) && !attempt.sent)
    }

    /// No request is processed later than `settle` after its sender ended. For a sender that is held up, this
    /// is when it would have stopped waiting.
    pub(super) fn processable(&self, request: &Request, setting: &Setting) -> bool {
        let patience_ends = request.written + setting.rules.patience;
        let ended = request.orphaned.map_or(patience_ends, |orphaned| orphaned.min(patience_ends));
        request.answer.is_none() && self.now < ended + setting.rules.settle
    }

    /// Carries out a move.
    ///
    /// # Errors
    /// The invariant that it breaks.
    pub(super) fn carry_out(&mut self, chosen: Move, setting: &Setting) -> Result<(), String> {
        match chosen {
            Move::Start(process) => self.start(process, setting),
            Move::Do(process, how) => return self.perform(process, how, setting),
            Move::Look(process) => {
                let Some((reply, row, at)) = self.attempt(process).held.take() else { return Ok(()) };
                self.look(process, reply, row, at);
            }
            Move::Silent(process) => self.advance(process, Event::Silent),
            Move::Renew(process) => {
                let attempt = Id::of(ATTEMPT, self.attempt(process).id);
                self.apply(&Change::Renew { attempt, lease: setting.rules.lease })?;
            }
            Move::Process(request) => return self.process(request, setting),
            Move::Answer(request) => {
                let Request { attempt, token, answer, .. } = self.idp.requests.remove(request.into());
                if let (Some(process), Some(answer)) = (self.process_of(attempt), answer) {
                    self.answered(process, token, answer, setting);
                }
            }
            Move::Unknown(request) => {
                self.left.faults -=
                    u8::from(self.now < self.idp.requests[usize::from(request)].written + setting.rules.patience);
                let attempt = self.idp.requests[usize::from(request)].attempt;
                self.orphan(attempt);
                if let Some(process) = self.process_of(attempt) {
                    self.advance(process, Event::Told(Told::Unknown { fault: fault(), retry_at: Time(0) }));
                }
            }
            Move::Decline(request) => {
                self.left.faults -= 1;
                let Request { attempt, .. } = self.idp.requests.remove(request.into());
                if let Some(process) = self.process_of(attempt) {
                    self.advance(process, Event::Told(Told::NotSpent { fault: fault(), retry_at: Time(0) }));
                }
            }
            Move::Execute(place) => {
                let delayed = self.delayed.remove(place.into());
                self.apply(&delayed.change)?;
            }
            Move::Flush(journal, entry, how) => {
                let entries = &mut self.journals[usize::from(journal)].entries;
                let commit = if how == Well {
                    entries.remove(entry.into())
                } else {
                    self.left.faults -= 1;
                    entries[usize::from(entry)].clone()
                };
                self.apply(&Change::Commit(Box::new((*commit).clone())))?;
            }
            Move::Kill(process) => {
                self.left.kills -= 1;
                self.kill(process);
            }
            Move::Restart(process) => self.restart(process),
            Move::Replace(process) => {
                self.left.disks -= 1;
                let old = self.processes[usize::from(process)].disk;
                self.journals
                    .iter_mut()
                    .filter(|journal| journal.disk == old)
                    .for_each(|journal| journal.entries.clear());
                self.excuse_what_is_gone();
                self.processes[usize::from(process)].disk = self.journals.len() as u8;
                self.restart(process);
            }
            Move::Revoke(place) => return self.revoke(place, setting),
            Move::Tick => self.tick(setting),
            Move::Connect
            | Move::ConnectAgain(_)
            | Move::ConnectWithout
            | Move::Disconnect
            | Move::RequireReconnect => {
                self.left.orders -= 1;
                let change = self.order(chosen, setting);
                self.apply(&change)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, process: u8, setting: &Setting) {
        let id = (!self.attempts).trailing_zeros() as u8;
        self.attempts |= 1 << id;
        self.left.claims -= 1;
        let owner = Id::of(OWNER, self.processes[usize::from(process)].owner);
        let basis = (self.row.incarnation, self.row.generation);
        let pending = !self.pending(process).is_empty();
        let (machine, effect) = Machine::start(Id::of(ATTEMPT, id), owner, basis, setting.rules, pending);
        let (claim, issued, held, commit) = (None, None, None, None);
        let (claimed, sent, journaled) = (false, false, false);
        let attempt = Attempt { id, machine, effect, claimed, claim, issued, held, sent, commit, journaled };
        self.processes[usize::from(process)].attempt = Some(Rc::new(attempt));
        if !pending {
            self.read(process);
        }
    }

    /// What the attempt's task does for the effect that its machine asked for.
    fn perform(&mut self, process: u8, how: How, setting: &Setting) -> Result<(), String> {
        self.left.faults -= u8::from(how != Well);
        match self.attempt(process).effect.clone() {
            Effect::Flush => self.advance(process, Event::Flushed),
            Effect::Read => self.read(process),
            Effect::Claim(claim) => {
                let attempt = self.attempt(process);
                let again = std::mem::replace(&mut attempt.claimed, true);
                attempt.claim = Some(claim.clone());
                self.left.claims -= u8::from(again);
                return self.claim(process, &claim, how, setting);
            }
            Effect::RepeatClaim => {
                let claim = self.attempt(process).claim.clone();
                return claim.map_or(Ok(()), |claim| self.claim(process, &claim, how, setting));
            }
            Effect::Send(claimed) if how == Well => return self.send(process, claimed, setting),
            Effect::Send(_) => self.advance(process, Event::Told(Told::NotSpent { fault: fault(), retry_at: Time(0) })),
            Effect::Change(change) => {
                self.statement(&change, how, setting)?;
                if how == Well {
                    // Its reply is not looked at by these.
                    self.advance(process, Event::Changed { reply: Reply::Done });
                }
            }
            Effect::Commit | Effect::AwaitStore => return self.commit(process, how, setting),
            Effect::Journal => {
                if let Some(commit) = self.attempt(process).commit.clone().filter(|_| how != Not) {
                    let owner = usize::from(self.processes[usize::from(process)].owner);
                    if !self.journals[owner].entries.iter().any(|entry| entry.attempt == commit.attempt) {
                        self.journals[owner].entries.push(commit.clone());
                    }
                    if how == Well {
                        self.attempt(process).journaled = true;
                    }
                }
                self.advance(process, Event::Journaled(how == Well));
            }
            Effect::Slot | Effect::End(_) => {}
        }
        Ok(())
    }

    fn read(&mut self, process: u8) {
        let dead = self.dead_senders(process);
        let read = Event::Read { row: Some((*self.row).clone()), dead, now: self.now };
        self.advance(process, read);
    }

    fn statement(&mut self, change: &Change, how: How, setting: &Setting) -> Result<Option<Reply>, String> {
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
            _ => self.advance(process, Event::NoReply),
        }
        Ok(())
    }

    fn look(&mut self, process: u8, reply: Reply, row: Rc<crate::model::Row>, at: Time) {
        let attempt = self.attempt(process);
        let issued = attempt.issued.take();
        attempt.claim = None;
        let issued = issued.unwrap_or(self.now);
        let elapsed = self.now.since(issued);
        self.advance(process, Event::Claimed { reply, row: Some((*row).clone()), now: at, elapsed });
    }

    fn send(&mut self, process: u8, claimed: Claimed, setting: &Setting) -> Result<(), String> {
        let spent = token(claimed.fingerprint);
        let broken = invariants::second_request(self, spent, setting);
        let attempt = self.attempt(process);
        attempt.sent = true;
        let attempt = attempt.id;
        let (epoch, written) = (claimed.epoch, self.now);
        self.idp.requests.push(Request { attempt, epoch, token: spent, written, orphaned: None, answer: None });
        broken.map_or(Ok(()), Err)
    }

    fn process(&mut self, place: u8, setting: &Setting) -> Result<(), String> {
        let before = self.clone();
        let request = self.idp.requests[usize::from(place)].clone();
        let answer = self.idp.spend(setting.kind, setting.rules.grace, &request, self.now);
        if request.orphaned.is_some() {
            self.idp.requests.remove(place.into());
        } else {
            self.idp.requests[usize::from(place)].answer = Some(answer);
        }
        invariants::killed(&before, self, &request, setting).map_or(Ok(()), Err)
    }

    fn answered(&mut self, process: u8, parent: Token, answer: Answer, setting: &Setting) {
        let Answer::Token(new) = answer else {
            self.idp.tokens[usize::from(parent)].refused = true;
            return self.advance(process, Event::Told(Told::InvalidGrant { code: String::new() }));
        };
        let issued = &mut self.idp.tokens[usize::from(new)];
        (issued.delivered, issued.excused) = (true, false);
        if let Effect::Send(claimed) = self.attempt(process).effect {
            let commit = Commit {
                attempt: Id::of(ATTEMPT, self.attempt(process).id),
                epoch: claimed.epoch,
                incarnation: claimed.incarnation,
                generation: claimed.generation,
                parent: fingerprint(parent),
                token: (setting.kind != Kind::NotRotating).then(|| spendable(new)),
                document: Sealed(Vec::new()),
                issued_at: Time(0),
                expires: Expires::Unknown,
                refresh_expires: None,
                due_at: None,
                revocable: !setting.revokes_user,
            };
            self.attempt(process).commit = Some(Rc::new(commit));
        }
        self.advance(process, Event::Told(Told::Answered));
    }

    fn commit(&mut self, process: u8, how: How, setting: &Setting) -> Result<(), String> {
        let Some(commit) = self.attempt(process).commit.clone() else { return Ok(()) };
        let reply = self.statement(&Change::Commit(Box::new((*commit).clone())), how, setting)?;
        let Some(reply) = reply.filter(|_| how == Well) else {
            if !self.attempt(process).journaled {
                self.advance(process, Event::Silent);
            }
            return Ok(());
        };
        if self.attempt(process).journaled {
            let owner = usize::from(self.processes[usize::from(process)].owner);
            self.journals[owner].entries.retain(|entry| entry.attempt != commit.attempt);
        }
        if self.row.incarnation == commit.incarnation && self.row.generation <= commit.generation {
            return Err("6: what may have been published from the journal is ahead of the store".to_owned());
        }
        self.advance(process, Event::Changed { reply });
        Ok(())
    }

    /// The machine's next effect. The provider's slot is granted at once: waiting for it is a pause.
    fn advance(&mut self, process: u8, event: Event) {
        let row = self.row.clone();
        let attempt = self.attempt(process);
        let mut effect = attempt.machine.step(event);
        if matches!(effect, Effect::Slot) {
            effect = attempt.machine.step(Event::Slot((*row).clone()));
        }
        if !matches!(effect, Effect::Send(_)) && attempt.commit.is_none() {
            attempt.sent = false;
        }
        if let Effect::End(end) = effect {
            let (id, claimed) = (attempt.id, attempt.claimed);
            if !claimed {
                // It left no trace: its id can be given away again.
                self.attempts &= !(1 << id);
                self.left.claims += 1;
            }
            debug_assert!(!matches!(end, End::Renewed) || claimed);
            self.processes[usize::from(process)].attempt = None;
        } else {
            attempt.effect = effect;
        }
    }

    /// Senders whose journals this process has, and that run nowhere.
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

    fn kill(&mut self, process: u8) {
        let killed = &mut self.processes[usize::from(process)];
        killed.alive = false;
        let attempt = killed.attempt.take();
        self.journals
            .iter_mut()
            .filter(|journal| journal.holder == Some(process))
            .for_each(|journal| journal.holder = None);
        if let Some(attempt) = attempt {
            self.orphan(attempt.id);
            if !attempt.claimed {
                self.attempts &= !(1 << attempt.id);
                self.left.claims += 1;
            }
        }
        self.excuse_what_is_gone();
    }

    /// Nobody listens to this attempt's request any more.
    fn orphan(&mut self, attempt: u8) {
        let now = self.now;
        self.idp.requests.retain_mut(|request| {
            if request.attempt == attempt {
                request.orphaned.get_or_insert(now);
            }
            request.attempt != attempt || request.answer.is_none()
        });
    }

    fn restart(&mut self, process: u8) {
        let disk = self.processes[usize::from(process)].disk;
        let mut locked = None;
        for (owner, journal) in (0..).zip(&mut self.journals) {
            if journal.disk == disk && journal.holder.is_none() {
                journal.holder = Some(process);
                locked = locked.or(Some(owner));
            }
        }
        let owner = locked.unwrap_or_else(|| {
            self.journals.push(Journal { disk, holder: Some(process), entries: Vec::new() });
            self.journals.len() as u8 - 1
        });
        let started = &mut self.processes[usize::from(process)];
        (started.alive, started.owner) = (true, owner);
    }

    fn excuse_what_is_gone(&mut self) {
        for at in 0..self.idp.tokens.len() {
            if self.idp.tokens[at].delivered && !invariants::held(self, at as Token) {
                self.idp.tokens[at].excused = true;
            }
        }
    }

    fn revoke(&mut self, place: u8, setting: &Setting) -> Result<(), String> {
        let revoked = self.revocations.remove(place.into());
        let family = usize::from(self.idp.tokens[usize::from(revoked)].family);
        let lives = self.row.tombstone.is_none() && self.current().is_some();
        let (current, dead) =
            (usize::from(self.family()), lives && (setting.revokes_user || family == usize::from(self.family())));
        if setting.revokes_user {
            self.idp.families.fill(false);
        } else {
            self.idp.families[family] = false;
        }
        if dead && current < self.idp.families.len() {
            return Err("a revocation ended the grant that is connected".to_owned());
        }
        Ok(())
    }

    fn tick(&mut self, setting: &Setting) {
        self.now = self.now + TICK;
        let now = self.now;
        self.delayed.retain(|delayed| delayed.until > now);
        let requests = std::mem::take(&mut self.idp.requests);
        let matters = |request: &Request| request.orphaned.is_none() || self.processable(request, setting);
        self.idp.requests = requests.into_iter().filter(matters).collect();
    }

    fn order(&mut self, order: Move, setting: &Setting) -> Change {
        let token = match order {
            Move::Disconnect => return Change::Disconnect(Disconnect { revoke: true }),
            Move::RequireReconnect => return Change::RequireReconnect { reason: String::new() },
            Move::Connect => Some(self.idp.consent()),
            Move::ConnectAgain(token) => Some(token),
            _ => None,
        };
        let mut incarnation =
            Id::of(INCARNATION, token.map_or(u8::MAX, |token| self.idp.tokens[usize::from(token)].family));
        // What was connected before must not come back as something new; if it did, it would be told apart.
        incarnation.0[2] = self.left.orders + 1;
        Change::Connect(Box::new(Connect {
            key: key(),
            incarnation,
            client_id: None,
            token: token.map(spendable),
            document: Sealed(Vec::new()),
            issued_at: Time(0),
            expires: Expires::Unknown,
            refresh_expires: Expires::Unknown,
            due_at: None,
            cancels_revocations: setting.revokes_user,
        }))
    }

    pub(super) fn process_of(&self, attempt: u8) -> Option<u8> {
        let runs = |running: &Rc<Attempt>| running.id == attempt;
        let place = self.processes.iter().position(|process| process.attempt.as_ref().is_some_and(runs));
        place.map(|place| place as u8)
    }

    fn attempt(&mut self, process: u8) -> &mut Attempt {
        let attempt = self.processes[usize::from(process)].attempt.as_mut();
        Rc::make_mut(attempt.expect("moves are made for running attempts"))
    }
}

fn fault() -> Fault {
    Fault { code: String::new(), cause: Cause::IdpDown }
}
