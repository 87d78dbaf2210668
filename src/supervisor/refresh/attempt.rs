//! The task of one attempt: carries out the effects of `protocol::attempt` and reports their results to it.
//!
//! No future that touches the store or has sent a refresh token is dropped or raced with a timer here:
//! store operations run on the store's threads whoever waits, and the request is awaited to its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    observe::{observe, operator_delay},
    persist::{flush, mark, renew, until_stored},
    ports::Ports,
    probe, seal,
    strategy::{RefreshTokenGrant, Strategy},
    table::{EndedAttempt, NewAttempt, Progress},
    tally::{Heard, phase, tally},
};
use crate::{
    clock::FineTime,
    code::EvidenceCode,
    error::Cause,
    idp::{GateClosed, IdpFailure, Observation, Priority, ResponseOutcome, Slot, delay},
    journal::{self, Reserved},
    metrics::count,
    model::{BootTime, Evidence, Generation, Id, Issued, Row, TokenKey, TokenStanding},
    protocol::{
        AttemptFault, Change, ChangeReply,
        attempt::{AttemptEffect, AttemptEvent, AttemptMachine, Claimed, End, SendOutcome},
        doubt::ProbeAnswer,
        resolve::Resolution,
    },
    store::{Changed, StoreError, StoreFuture},
    supervisor::{
        by::By,
        jitter::random,
        point::Point,
        provider::{IdpCounters, Provider, RefreshOutcome, RefreshPhase},
    },
};

/// The machine's surroundings, with everything that it must not see: ports, secrets, the slot, the clock.
pub(super) struct Attempt {
    ports: Arc<Ports>,
    key: TokenKey,
    id: Id,
    basis: (Id, Generation),
    /// The row that the actor or the sweeper had when the attempt was started. It takes the place of the first read.
    known: Option<Arc<Row>>,
    progress: watch::Sender<Progress>,
    /// Whether a caller waits for the attempt.
    wanted: watch::Receiver<bool>,
    row: Option<Row>,
    slot: Option<Slot>,
    /// Room in the journal for the response.
    room: Option<Reserved>,
    claim: Option<(Change, BootTime)>,
    landing: Option<seal::Landing>,
    commit: Option<StoreFuture<Changed>>,
    journaled: bool,
    resolved: Option<Resolution>,
    counters: Arc<IdpCounters>,
    heard: Option<Heard>,
    began: BootTime,
}

/// How long the store may take for a commit before the response goes to the journal.
const SILENCE: Duration = Duration::from_millis(200);

/// The time between a failed commit and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a commit is the first of its response.
#[derive(Clone, Copy, PartialEq)]
enum Try {
    First,
    Again,
}

impl Attempt {
    pub(super) fn new(ports: Arc<Ports>, key: TokenKey, known: Arc<Row>, entry: NewAttempt) -> Self {
        let NewAttempt { id, progress, wanted } = entry;
        let (basis, known) = ((known.incarnation, known.generation), Some(known));
        let (row, slot, room, claim, landing, commit) = (None, None, None, None, None, None);
        let (journaled, resolved, heard) = (false, None, None);
        let began = ports.clock.read().boot;
        let counters = ports.providers.get(key.idp()).map(|provider| provider.counters.clone()).unwrap_or_default();
        Self {
            ports,
            key,
            id,
            basis,
            known,
            progress,
            wanted,
            row,
            slot,
            room,
            claim,
            landing,
            commit,
            journaled,
            resolved,
            counters,
            heard,
            began,
        }
    }

    pub(super) async fn run(mut self) {
        let ports = self.ports.clone();
        let end = match ports.providers.get(self.key.idp()) {
            Some(provider) => self.drive(&provider).await,
            None => End::Settled,
        };
        let row = self.row.take().map(Arc::new);
        // The table lets go first: an actor that hears of the end may want to start the next attempt.
        ports.attempts.remove(&self.key, self.id);
        self.progress.send_modify(|progress| progress.ended = Some(EndedAttempt { end, row }));
        // The attempt counts as running until its end was heard, so that a shutdown does not overtake the answers.
        self.progress.closed().await;
    }

    async fn drive(&mut self, provider: &Provider) -> End {
        let pending = !self.ports.journal.pending_for(&self.key).is_empty();
        let owner = self.ports.journal.owner();
        let (mut machine, mut effect) = AttemptMachine::start(self.id, owner, self.basis, provider.rules(), pending);
        loop {
            let (phase, began) = (phase(&effect), self.ports.clock.fine());
            let event = match effect {
                AttemptEffect::End(end) => return self.leave(end),
                AttemptEffect::Flush => self.flush().await,
                AttemptEffect::Read => self.read().await,
                AttemptEffect::Probe => self.probe(provider).await,
                AttemptEffect::Slot => self.wait_for_slot(provider).await,
                AttemptEffect::Claim(claim) => {
                    self.claim = Some((claim, self.ports.clock.read().boot));
                    self.try_claim().await
                }
                AttemptEffect::RepeatClaim => {
                    self.ports.clock.sleep(delay(1, None, random()).min(SILENCE)).await;
                    self.try_claim().await
                }
                AttemptEffect::Send(claimed) => self.send(provider, claimed).await,
                AttemptEffect::Change(change) => self.change(change).await,
                AttemptEffect::Commit => self.commit(Try::First).await,
                AttemptEffect::AwaitStore => self.commit(Try::Again).await,
                AttemptEffect::Journal => self.journal().await,
            };
            phase.into_iter().for_each(|phase| self.took(phase, began));
            let Some(event) = event else { return self.leave(End::Settled) };
            effect = machine.step(event);
            if !machine.sent() {
                self.progress.send_if_modified(|progress| progress.sent.take().is_some());
            }
        }
    }

    /// Publishes the token that was stored, and counts the result.
    fn leave(&mut self, end: End) -> End {
        if let (Some(landing), Some(row)) = (&self.landing, &self.row)
            && matches!(self.resolved, Some(Resolution::Own | Resolution::Replace))
            && row.commit.is_some_and(|by| by.attempt == self.id)
        {
            self.publish(landing.issued(&self.key, row.generation, false));
        }
        self.slot = None;
        let answer = self.landing.as_ref().map(|landing| &landing.commit).zip(self.resolved);
        if let Some(outcome) = tally(self.heard, answer, self.row.as_ref(), self.basis) {
            self.counters.refreshed(outcome);
            self.log(outcome);
        }
        end
    }

    /// Writes the line of a successful refresh. A failure has its own line, written where the response was read.
    fn log(&self, outcome: RefreshOutcome) {
        if matches!(outcome, RefreshOutcome::Rotated | RefreshOutcome::Kept)
            && let Some(row) = &self.row
        {
            tracing::info!(
                grant.id = row.grant_id,
                idp = self.key.idp(),
                generation = row.generation.get(),
                outcome = <&str>::from(outcome),
                duration_ms = self.ports.clock.read().boot.since(self.began).as_millis() as u64,
                "refreshed"
            );
        }
    }

    fn took(&self, phase: RefreshPhase, began: FineTime) {
        self.counters.took(phase, self.ports.clock.fine().since(began));
    }

    fn publish(&self, issued: Option<Issued>) {
        let Some(issued) = issued else { return };
        if *self.wanted.borrow() {
            self.ports.snapshot.mark_asked(&issued);
        }
        self.ports.snapshot.publish(&self.key, &issued);
        self.progress.send_modify(|progress| progress.published += 1);
    }

    async fn flush(&mut self) -> Option<AttemptEvent> {
        self.known = None;
        flush(&self.ports, &self.key).await;
        Some(AttemptEvent::Flushed)
    }

    /// Reads the row. The slot goes back: its purpose is decided anew.
    ///
    /// A row that is known and neither claimed nor in doubt is as good as one that is read: either may be out of date when it
    /// is claimed, and the claim compares it with the stored one.
    async fn read(&mut self) -> Option<AttemptEvent> {
        self.slot = None;
        if let Some(known) = self.known.take().filter(|row| row.intent.is_none() && row.lease.is_none()) {
            let row = Some(Row::clone(&known));
            self.row.clone_from(&row);
            return Some(AttemptEvent::Read { row, dead: Vec::new(), now: self.ports.clock.store_time() });
        }
        let read = until_stored(&self.ports, &self.key, || self.ports.ledger.store().read(&self.key)).await?;
        let senders = read.row.iter().filter_map(|row| row.intent.as_ref()).flat_map(|intent| &intent.senders);
        let dead = senders
            .filter(|sender| !sender.closed && self.ports.journal.owns(&sender.owner))
            .filter(|sender| sender.attempt != self.id && !self.ports.attempts.runs(&self.key, sender.attempt))
            .map(|sender| sender.attempt)
            .collect();
        self.row.clone_from(&read.row);
        Some(AttemptEvent::Read { row: read.row, dead, now: read.now })
    }

    /// Asks the provider whether the refresh token of the row is spent. Nothing is lost if there is no response.
    async fn probe(&mut self, provider: &Provider) -> Option<AttemptEvent> {
        let row = self.row.clone()?;
        match self.wait_for_slot(provider).await? {
            AttemptEvent::Slot(_) => {}
            closed => return Some(closed),
        }
        let Some(slot) = self.slot.take() else { return Some(AttemptEvent::Probed(ProbeAnswer::Nothing)) };
        let now = self.ports.clock.read();
        let (answer, said) = probe::ask(&self.ports.keyring, provider, &slot, &row, now.wall).await;
        // A good response says nothing about the token endpoint, whose outage may last.
        if let Some(said @ Err(_)) = said {
            let (seen, who, now) = (Observation::of_revocation(&said), self.key.stable_hash(), self.ports.clock.read());
            let (notices, _) = slot.report(seen, who, now, random());
            self.ports.providers.announce(self.key.idp(), notices, said.err().as_ref());
        }
        tracing::info!(
            grant.id = row.grant_id,
            idp = self.key.idp(),
            answer = <&str>::from(answer),
            "the provider was asked about a refresh token in doubt"
        );
        Some(AttemptEvent::Probed(answer))
    }

    async fn wait_for_slot(&mut self, provider: &Provider) -> Option<AttemptEvent> {
        let row = self.row.clone()?;
        let Some(login) = provider.gate.client_index(row.client_id.as_deref()) else {
            // Nothing will be sent: the claim is there to say so in the row.
            return Some(AttemptEvent::Slot(row));
        };
        let grant = self.key.stable_hash();
        let slot = loop {
            let lane = if *self.wanted.borrow_and_update() { Priority::Foreground } else { Priority::Background };
            tokio::select! {
                // In this order: a slot that is granted while the provider is put on hold goes back.
                biased;
                () = self.ports.providers.until_held(self.key.idp()) => return None,
                () = self.ports.stopped() => return None,
                slot = provider.gate.slot(&self.ports.clock, login, grant, lane) => break slot,
                Ok(()) = self.wanted.changed(), if lane == Priority::Background => {}
            }
        };
        match slot {
            Ok(slot) => {
                if self.room.is_none() {
                    match self.ports.journal.reserve() {
                        Ok(room) => self.room = Some(room),
                        Err(error) => return Some(self.not_now(journal::cause(&error))),
                    }
                }
                self.slot = Some(slot);
                Some(AttemptEvent::Slot(row))
            }
            Err(GateClosed { wait, cause }) => Some(AttemptEvent::NotBefore(self.ports.clock.now() + wait, cause)),
        }
    }

    async fn try_claim(&mut self) -> Option<AttemptEvent> {
        let (claim, issued) = self.claim.clone()?;
        self.ports.reach(Point::BeforeClaim);
        match self.ports.ledger.change(&self.key, By::Attempt, claim).await {
            Ok(Changed { reply, row, now, .. }) => {
                self.row.clone_from(&row);
                if reply == ChangeReply::Done {
                    self.ports.reach(Point::Claimed);
                }
                let elapsed = self.ports.clock.read().boot.since(issued);
                Some(AttemptEvent::Claimed { reply, row, now, elapsed })
            }
            Err(StoreError::Full) => Some(self.not_now(Cause::DiskFull)),
            Err(StoreError::Unavailable(_) | StoreError::Conflict) => Some(AttemptEvent::NoReply),
            Err(error) => self.corrupt(&error),
        }
    }

    /// The response could not be kept: nothing is sent before the disk was looked at again.
    fn not_now(&self, cause: Cause) -> AttemptEvent {
        AttemptEvent::NotBefore(self.ports.clock.now() + PAUSE, cause)
    }

    /// Sends the request. From here on the response is awaited, whoever is gone.
    async fn send(&mut self, provider: &Provider, claimed: Claimed) -> Option<AttemptEvent> {
        let row = self.row.clone()?;
        // Only an operator can help with either of these: soon is soon enough.
        let mut unsendable = |code: EvidenceCode, cause| {
            self.heard = Some(Heard::Failure(RefreshOutcome::Operator));
            let fault = AttemptFault { evidence: Evidence::ours(code), cause };
            let retry_at = self.ports.clock.now() + operator_delay(&row);
            Some(AttemptEvent::Outcome(SendOutcome::NotSpent { fault, retry_at }))
        };
        let Some(slot) = self.slot.take() else {
            tracing::error!(
                grant.id = row.grant_id,
                idp = row.key.idp(),
                "the grant was issued to a client that is not configured"
            );
            return unsendable(EvidenceCode::ClientUnknown, Cause::ClientUnknown);
        };
        let Ok(request) = RefreshTokenGrant.open(&self.ports.keyring, &row) else {
            tracing::error!(
                grant.id = row.grant_id,
                idp = row.key.idp(),
                "the stored refresh token does not open with the key ring's keys"
            );
            return unsendable(EvidenceCode::DoesNotOpen, Cause::StoreDown);
        };
        // Sets `sent` before it withdraws the token: `stand()`, on the actor's thread, reads `sent` after it has set the
        // standing, so that the later of the two always withdraws.
        self.progress.send_modify(|progress| progress.sent = Some(claimed.generation));
        if provider.idp.rotation_ends_access_token
            && let Some(issued) = self.ports.snapshot.current(&self.key)
            && issued.generation <= claimed.generation
        {
            issued.set_standing(TokenStanding::Withdrawn);
        }
        let (at, began) = (self.ports.clock.read(), self.ports.clock.fine());
        let renewal =
            self.ports.runtime.spawn(renew(self.ports.clone(), self.key.clone(), self.id, provider.times.rules.lease));
        let patience = provider.times.rules.patience;
        let mut outcome = request.send(provider, &slot, patience).await;
        renewal.abort();
        if let ResponseOutcome::Refreshed(answer) = &mut outcome {
            seal::complete(&self.ports.keyring, provider, &row, at.wall, answer);
        }
        self.took(RefreshPhase::Idp, began);
        self.heard = Some(Heard::of(&outcome, claimed.stays));
        if let ResponseOutcome::Unknown(failure) = &outcome
            && failure.evidence.status.is_none()
        {
            count(&self.counters.lost_responses);
        }
        let retry_at = observe(&self.ports, &self.key, provider, slot, &row, claimed.first_sent.is_some(), &outcome);
        let told = match outcome {
            ResponseOutcome::Refreshed(answer) if self.is_foreign(provider, &row, answer.subject.as_deref()) => {
                self.heard = Some(Heard::Refusal);
                SendOutcome::Foreign { evidence: Evidence::ours(EvidenceCode::AccountMismatch) }
            }
            ResponseOutcome::Refreshed(answer) => {
                let sent = seal::Sent { key: &self.key, attempt: self.id, claimed, at, row: &row };
                let began = self.ports.clock.fine();
                let landing = seal::land(&self.ports.keyring, provider, &sent, *answer, retry_at);
                self.took(RefreshPhase::Seal, began);
                let landing = self.landing.insert(landing);
                if landing.commit.child() != claimed.fingerprint {
                    provider.saw_rotation(self.key.idp());
                }
                self.ports.reach(Point::Answered);
                SendOutcome::Tokens
            }
            ResponseOutcome::NotSpent(failure) => SendOutcome::NotSpent { retry_at, fault: fault(failure) },
            ResponseOutcome::Unknown(failure) => SendOutcome::Unknown { retry_at, fault: fault(failure) },
            ResponseOutcome::InvalidGrant(failure) => SendOutcome::InvalidGrant { evidence: failure.evidence },
        };
        Some(AttemptEvent::Outcome(told))
    }

    /// Whether a response belongs to another user of the provider than the grant; false where either is not known.
    fn is_foreign(&self, provider: &Provider, row: &Row, subject: Option<&str>) -> bool {
        let Some(subject) = subject else { return false };
        let known = seal::subject(&self.ports.keyring, row);
        let foreign = known.is_some_and(|known| !provider.idp.same_subject(&known, subject));
        if foreign {
            // The tokens are neither stored nor revoked: they are another user's.
            tracing::error!(
                grant.id = row.grant_id,
                idp = row.key.idp(),
                "the response to a refresh holds tokens of another subject: they are dropped, and the user must reconnect"
            );
        }
        foreign
    }

    async fn change(&mut self, change: Change) -> Option<AttemptEvent> {
        let changed =
            until_stored(&self.ports, &self.key, || self.ports.ledger.change(&self.key, By::Attempt, change.clone()))
                .await?;
        self.row = changed.row;
        if matches!(change, Change::Spent { .. }) {
            self.heard = Some(Heard::Refusal);
        }
        Some(AttemptEvent::Changed { reply: changed.reply })
    }

    /// Waits for the store to take the response: at first for a moment, then for as long as it takes.
    async fn commit(&mut self, attempt: Try) -> Option<AttemptEvent> {
        let commit = &self.landing.as_ref()?.commit;
        let (ports, key) = (&self.ports, &self.key);
        let patience = match attempt {
            Try::First => Some(SILENCE),
            // In memory alone the response is not safe: the journal is tried again soon.
            Try::Again => (!self.journaled).then_some(PAUSE),
        };
        let pending = self.commit.get_or_insert_with(|| {
            let (ports, key, change) = (ports.clone(), key.clone(), Change::Commit(Box::new(commit.clone())));
            Box::pin(async move {
                if attempt == Try::Again {
                    ports.clock.sleep(PAUSE).await;
                }
                ports.ledger.change(&key, By::Attempt, change).await
            })
        });
        let answer = match patience {
            None => pending.await,
            Some(patience) => tokio::select! {
                answer = pending => answer,
                () = ports.clock.sleep(patience) => return Some(AttemptEvent::Silent),
            },
        };
        self.commit = None;
        match answer {
            Ok(Changed { reply, row, .. }) => {
                self.resolved = match reply {
                    ChangeReply::Resolved(resolution) => Some(resolution),
                    _ => None,
                };
                self.row = row;
                self.ports.reach(Point::Committed);
                if self.journaled {
                    mark(&self.ports, &self.key, self.id).await;
                }
                Some(AttemptEvent::Changed { reply })
            }
            // The journal keeps the response until the row can be read.
            Err(error @ StoreError::Corrupt { .. }) if self.journaled => self.corrupt(&error),
            Err(error) => {
                tracing::warn!(
                    grant.id = self.grant_id(),
                    idp = self.key.idp(),
                    error = %error,
                    "the store did not take a response: it is stored again soon"
                );
                Some(AttemptEvent::Silent)
            }
        }
    }

    /// Writes the response to the journal, and publishes it from there.
    async fn journal(&mut self) -> Option<AttemptEvent> {
        let landing = self.landing.as_ref()?;
        let payload = serde_json::to_vec(&landing.commit).expect("plain structs have a JSON form");
        let entry = crate::journal::JournalEntry { key: self.key.clone(), attempt: self.id, payload };
        let journal = self.ports.journal.clone();
        let written = self.ports.runtime.spawn_blocking(move || journal.append(entry)).await;
        self.journaled = matches!(written, Ok(Ok(())));
        if self.journaled {
            self.ports.reach(Point::Journaled);
            self.publish(landing.issued(&self.key, landing.commit.generation.next(), true));
        } else {
            tracing::error!(
                grant.id = self.grant_id(),
                idp = self.key.idp(),
                "a response can be written neither to the store nor to the journal: free some disk space"
            );
        }
        Some(AttemptEvent::Journaled(self.journaled))
    }

    fn corrupt(&self, error: &StoreError) -> Option<AttemptEvent> {
        tracing::error!(grant.id = self.grant_id(), idp = self.key.idp(), error = %error, "the grant cannot be refreshed");
        None
    }

    fn grant_id(&self) -> Option<&str> {
        self.row.as_ref().map(|row| row.grant_id.as_str())
    }
}

impl Drop for Attempt {
    /// Removes the attempt from the table also when its task panics: the next attempt finds its sender dead and goes on
    /// from there.
    fn drop(&mut self) {
        self.ports.attempts.remove(&self.key, self.id);
        self.ports.attempts.finish();
    }
}

fn fault(failure: IdpFailure) -> AttemptFault {
    AttemptFault { cause: failure.cause(), evidence: failure.evidence }
}
