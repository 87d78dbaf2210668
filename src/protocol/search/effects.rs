//! What the moves do, except those of attempts.

use super::{
    attempts::fault,
    idp::{Request, TokenIndex},
    invariants,
    moves::{How, Move},
    world::{ATTEMPT, INCARNATION, ModelJournal, ModelWorld, Setting, TICK, key, spendable},
};
use crate::{
    model::{Evidence, Expires, Id, Sealed, WallTime},
    protocol::{
        Change, ConnectChange, DisconnectChange, Expected, Unfinished,
        attempt::{AttemptEvent, SendOutcome},
    },
};

impl ModelWorld {
    /// Makes a move.
    ///
    /// # Errors
    /// Returns the invariant that the move breaks.
    pub(super) fn carry_out(&mut self, chosen: Move, setting: &Setting) -> Result<(), String> {
        match chosen {
            Move::Start(process) => self.start(process, None, setting),
            Move::StartKnowing(process) => {
                let known = self.processes[usize::from(process)].known.clone();
                self.start(process, known, setting);
            }
            Move::Do(process, how) => return self.perform(process, how, setting),
            Move::Look(process) => {
                let Some((reply, row, at)) = self.attempt(process).held.take() else { return Ok(()) };
                self.look(process, reply, row, at);
            }
            Move::Silent(process) => self.advance(process, AttemptEvent::Silent),
            Move::Renew(process) => {
                let attempt = Id::of(ATTEMPT, self.attempt(process).id);
                self.apply(&Change::Renew { attempt, lease: setting.rules.lease })?;
            }
            Move::Process(request) => return self.process(request, setting),
            Move::Respond(request) => {
                let Request { attempt, token, response, .. } = self.idp.requests.remove(request.into());
                if let (Some(process), Some(response)) = (self.process_of(attempt), response) {
                    self.receive(process, token, response, None, setting);
                }
            }
            Move::WithoutAccessToken(request) => {
                self.left.faults -= 1;
                let Request { attempt, token, response, .. } = self.idp.requests.remove(request.into());
                if let (Some(process), Some(response)) = (self.process_of(attempt), response) {
                    let unfinished = Unfinished { fault: fault(), retry_at: WallTime(0) };
                    self.receive(process, token, response, Some(Box::new(unfinished)), setting);
                }
            }
            Move::Foreign(request) => {
                self.left.faults -= 1;
                let Request { attempt, .. } = self.idp.requests.remove(request.into());
                if let Some(process) = self.process_of(attempt) {
                    self.advance(process, AttemptEvent::Outcome(SendOutcome::Foreign { evidence: Evidence::of("") }));
                }
            }
            Move::Unknown(request) => {
                self.left.faults -=
                    u8::from(self.now < self.idp.requests[usize::from(request)].written + setting.rules.patience);
                let attempt = self.idp.requests[usize::from(request)].attempt;
                self.orphan(attempt);
                if let Some(process) = self.process_of(attempt) {
                    self.advance(
                        process,
                        AttemptEvent::Outcome(SendOutcome::Unknown { fault: fault(), retry_at: WallTime(0) }),
                    );
                }
            }
            Move::Decline(request) => {
                self.left.faults -= 1;
                let Request { attempt, .. } = self.idp.requests.remove(request.into());
                if let Some(process) = self.process_of(attempt) {
                    self.advance(
                        process,
                        AttemptEvent::Outcome(SendOutcome::NotSpent { fault: fault(), retry_at: WallTime(0) }),
                    );
                }
            }
            Move::Execute(place) => {
                let delayed = self.delayed.remove(place.into());
                self.apply(&delayed.change)?;
            }
            Move::Flush(journal, entry, how) => {
                let entries = &mut self.journals[usize::from(journal)].entries;
                let commit = if how == How::Well {
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
            Move::Release => {
                self.apply(&Change::Release)?;
            }
            Move::Connect
            | Move::ConnectAgain(_)
            | Move::ConnectWithout
            | Move::Disconnect
            | Move::Restore
            | Move::RequireReconnect
            | Move::Retry
            | Move::Hold => {
                self.left.orders -= 1;
                let change = self.order(chosen, setting);
                self.apply(&change)?;
            }
        }
        Ok(())
    }

    fn process(&mut self, place: u8, setting: &Setting) -> Result<(), String> {
        let before = self.clone();
        let request = self.idp.requests[usize::from(place)].clone();
        let response = self.idp.spend(setting.kind, setting.rules.grace, &request, self.now);
        if request.orphaned.is_some() {
            self.idp.requests.remove(place.into());
        } else {
            self.idp.requests[usize::from(place)].response = Some(response);
        }
        invariants::killed(&before, self, &request, setting).map_or(Ok(()), Err)
    }

    fn kill(&mut self, process: u8) {
        let killed = &mut self.processes[usize::from(process)];
        killed.alive = false;
        killed.known = None;
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

    /// Marks this attempt's request as one for whose response no process waits.
    fn orphan(&mut self, attempt: u8) {
        let now = self.now;
        self.idp.requests.retain_mut(|request| {
            if request.attempt == attempt {
                request.orphaned.get_or_insert(now);
            }
            request.attempt != attempt || request.response.is_none()
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
            self.journals.push(ModelJournal { disk, holder: Some(process), entries: Vec::new() });
            self.journals.len() as u8 - 1
        });
        let started = &mut self.processes[usize::from(process)];
        (started.alive, started.owner) = (true, owner);
    }

    fn excuse_what_is_gone(&mut self) {
        for at in 0..self.idp.tokens.len() {
            if self.idp.tokens[at].delivered && !invariants::held(self, at as TokenIndex) {
                self.idp.tokens[at].excused = true;
            }
        }
    }

    fn revoke(&mut self, place: u8, setting: &Setting) -> Result<(), String> {
        let queued = &mut self.revocations[usize::from(place)];
        if !std::mem::replace(&mut queued.begun, true) {
            return Ok(());
        }
        let revoked = self.revocations.remove(place.into()).token;
        let family = usize::from(self.idp.tokens[usize::from(revoked)].family);
        let connected = self.row.tombstone.is_none() && self.current().is_some();
        let (current, dead) =
            (usize::from(self.family()), connected && (setting.revokes_user || family == usize::from(self.family())));
        if setting.revokes_user {
            self.idp.families.fill(false);
        } else {
            self.idp.families[family] = false;
        }
        if dead && current < self.idp.families.len() {
            return Err("a revocation ended the connected grant".to_owned());
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
            Move::Disconnect => {
                return Change::Disconnect(DisconnectChange {
                    revoke: true,
                    unrevocable: false,
                    purge: false,
                    access_token: None,
                });
            }
            Move::Restore => return Change::Restore,
            Move::RequireReconnect => return Change::RequireReconnect { reason: String::new() },
            Move::Retry => return Change::Retry,
            Move::Hold => return Change::Hold { reason: String::new() },
            Move::Connect => Some(self.idp.consent()),
            Move::ConnectAgain(token) => Some(token),
            _ => None,
        };
        let mut incarnation =
            Id::of(INCARNATION, token.map_or(u8::MAX, |token| self.idp.tokens[usize::from(token)].family));
        // A repeated connect must not start a new incarnation; the order's number would reveal one.
        incarnation.0[2] = self.left.orders + 1;
        Change::Connect(Box::new(ConnectChange {
            key: key(),
            incarnation,
            client_id: None,
            token: token.map(spendable),
            elsewhere: Vec::new(),
            document: Sealed(Vec::new()),
            issued_at: WallTime(0),
            expires: Expires::Unknown,
            refresh_expires: Expires::Unknown,
            due_at: None,
            cancels_revocations: setting.revokes_user,
            only: Expected::Anything,
            compared: Expected::Anything,
        }))
    }
}
