//! One attempt's task: carries the machine's effects out and reports what came of them.
//!
//! No future that touches the store or has sent a refresh token is dropped or raced with a timer here:
//! store operations run on the store's threads whoever waits, and the request is awaited to its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Ended, Progress,
    learn::{failures, learn},
    repeat::{flush, mark, renew, until_answered},
    seal, subject,
    tally::{Heard, phase, tally},
};
use crate::{
    code::EvidenceCode,
    error::Cause,
    idp::{Closed, Failure, Lane, OPERATOR, Outcome, Slot, delay},
    metrics::count,
    model::{Evidence, Generation, Id, Issued, Row, Standing, Time, TokenKey},
    protocol::{
        Change, Fault, Reply,
        attempt::{Claimed, Effect, End, Event, Machine, Told},
        resolve::Resolution,
    },
    store::{Answer, Changed, StoreError},
    supervisor::{
        core::{Core, Point, Provider, random},
        metrics::{IdpCounters, Outcome as Counted, Phase},
    },
};

/// The machine with everything it must not see: ports, secrets, the slot, the clock.
pub(super) struct Attempt {
    core: Arc<Core>,
    key: TokenKey,
    id: Id,
    basis: (Id, Generation),
    progress: watch::Sender<Progress>,
    /// Whether a caller waits for it.
    wanted: watch::Receiver<bool>,
    row: Option<Row>,
    slot: Option<Slot>,
    claim: Option<(Change, Time)>,
    landing: Option<seal::Landing>,
    commit: Option<Answer<Changed>>,
    journaled: bool,
    resolved: Option<Resolution>,
    counters: Arc<IdpCounters>,
    heard: Option<Heard>,
}

/// How long a commit may be silent before its answer goes to the journal.
const SILENCE: Duration = Duration::from_millis(200);

/// How long after a refused commit the store is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Which try of a commit it is.
#[derive(Clone, Copy, PartialEq)]
enum Try {
    First,
    Again,
}

impl Attempt {
    pub(super) fn new(
        core: Arc<Core>,
        key: TokenKey,
        id: Id,
        basis: (Id, Generation),
        progress: watch::Sender<Progress>,
        wanted: watch::Receiver<bool>,
    ) -> Self {
        let (row, slot, claim, landing, commit) = (None, None, None, None, None);
        let (journaled, resolved, heard) = (false, None, None);
        let counters = core.provider(key.idp()).map(|provider| provider.counters.clone()).unwrap_or_default();
        Self {
            core,
            key,
            id,
            basis,
            progress,
            wanted,
            row,
            slot,
            claim,
            landing,
            commit,
            journaled,
            resolved,
            counters,
            heard,
        }
    }

    pub(super) async fn run(mut self) {
        let core = self.core.clone();
        let end = match core.provider(self.key.idp()) {
            Some(provider) => self.drive(&provider).await,
            None => End::Settled,
        };
        let row = self.row.take().map(Arc::new);
        // The table lets go first: whoever hears of the end may want to start the next attempt.
        core.attempts.remove(&self.key, self.id);
        self.progress.send_modify(|progress| progress.ended = Some(Ended { end, row }));
        // It counts as running until it was heard, so that a shutdown does not go before the answers.
        self.progress.closed().await;
    }

    async fn drive(&mut self, provider: &Provider) -> End {
        let pending = !self.core.journal.pending_for(&self.key).is_empty();
        let owner = self.core.journal.owner();
        let (mut machine, mut effect) = Machine::start(self.id, owner, self.basis, provider.rules(), pending);
        loop {
            let (phase, began) = (phase(&effect), self.core.clock.read().boot);
            let event = match effect {
                Effect::End(end) => return self.leave(end),
                Effect::Flush => self.flush().await,
                Effect::Read => self.read().await,
                Effect::Slot => self.wait_for_slot(provider).await,
                Effect::Claim(claim) => {
                    self.claim = Some((claim, self.core.clock.read().boot));
                    self.try_claim().await
                }
                Effect::RepeatClaim => {
                    self.core.clock.sleep(delay(1, None, random()).min(SILENCE)).await;
                    self.try_claim().await
                }
                Effect::Send(claimed) => self.send(provider, claimed).await,
                Effect::Change(change) => self.change(change).await,
                Effect::Commit => self.commit(Try::First).await,
                Effect::AwaitStore => self.commit(Try::Again).await,
                Effect::Journal => self.journal().await,
            };
            phase.into_iter().for_each(|phase| self.took(phase, began));
            let Some(event) = event else { return self.leave(End::Settled) };
            effect = machine.step(event);
            if !machine.sent() {
                self.progress.send_if_modified(|progress| progress.sent.take().is_some());
            }
        }
    }

    /// Publishes what the end means for readers.
    fn leave(&mut self, end: End) -> End {
        if let (Some(landing), Some(row)) = (&self.landing, &self.row)
            && matches!(self.resolved, Some(Resolution::Own | Resolution::Replace))
            && row.commit.is_some_and(|by| by.attempt == self.id)
        {
            let issued = Arc::new(landing.issued(row.generation, false));
            self.publish(&issued);
        }
        self.slot = None;
        let answer = self.landing.as_ref().map(|landing| &landing.commit).zip(self.resolved);
        if let Some(outcome) = tally(self.heard, answer, self.row.as_ref(), self.basis) {
            self.counters.refreshed(outcome);
        }
        end
    }

    fn took(&self, phase: Phase, began: Time) {
        self.counters.took(phase, self.core.clock.read().boot.since(began));
    }

    fn publish(&self, issued: &Arc<Issued>) {
        self.core.snapshot.publish(&self.key, issued);
        self.progress.send_modify(|progress| progress.published += 1);
    }

    async fn flush(&mut self) -> Option<Event> {
        flush(&self.core, &self.key).await;
        Some(Event::Flushed)
    }

    /// Reads the row. The slot goes back: whatever it was for is decided anew.
    async fn read(&mut self) -> Option<Event> {
        self.slot = None;
        let read = until_answered(&self.core, || self.core.store.read(&self.key)).await?;
        let senders = read.row.iter().filter_map(|row| row.intent.as_ref()).flat_map(|intent| &intent.senders);
        let dead = senders
            .filter(|sender| !sender.closed && self.core.journal.owns(&sender.owner))
            .filter(|sender| sender.attempt != self.id && !self.core.attempts.runs(&self.key, sender.attempt))
            .map(|sender| sender.attempt)
            .collect();
        self.row.clone_from(&read.row);
        Some(Event::Read { row: read.row, dead, now: read.now })
    }

    async fn wait_for_slot(&mut self, provider: &Provider) -> Option<Event> {
        let row = self.row.clone()?;
        let Some(login) = provider.gate.login(row.client_id.as_deref()) else {
            // Nothing will be sent: it is claimed to say so in the row.
            return Some(Event::Slot(row));
        };
        let slot = loop {
            let lane = if *self.wanted.borrow_and_update() { Lane::Wanted } else { Lane::Background };
            tokio::select! {
                // In this order: a slot that is granted while the provider is held goes back.
                biased;
                () = self.core.until_idp_held(self.key.idp()) => return None,
                () = self.core.stopped() => return None,
                slot = provider.gate.slot(&self.core.clock, login, lane) => break slot,
                Ok(()) = self.wanted.changed(), if lane == Lane::Background => {}
            }
        };
        match slot {
            Ok(slot) => {
                self.slot = Some(slot);
                Some(Event::Slot(row))
            }
            Err(Closed { wait, cause }) => Some(Event::NotBefore(self.core.clock.now() + wait, cause)),
        }
    }

    async fn try_claim(&mut self) -> Option<Event> {
        let (claim, issued) = self.claim.clone()?;
        self.core.reach(Point::BeforeClaim);
        match self.core.change(&self.key, claim).await {
            Ok(Changed { reply, row, now, .. }) => {
                self.row.clone_from(&row);
                if reply == Reply::Done {
                    self.core.reach(Point::Claimed);
                }
                let elapsed = self.core.clock.read().boot.since(issued);
                Some(Event::Claimed { reply, row, now, elapsed })
            }
            Err(StoreError::Unavailable(_)) => Some(Event::NoReply),
            Err(error) => self.corrupt(&error),
        }
    }

    /// From here on the answer is awaited, whoever is gone.
    async fn send(&mut self, provider: &Provider, claimed: Claimed) -> Option<Event> {
        let row = self.row.clone()?;
        // Only an operator can help with either of these: soon is soon enough.
        let mut unsendable = |code: EvidenceCode, cause| {
            self.heard = Some(Heard::Failure(Counted::Operator));
            let fault = Fault { evidence: Evidence::ours(code), cause };
            let wait = OPERATOR.half_jittered(failures(&row) + 1, random());
            Some(Event::Told(Told::NotSpent { fault, retry_at: self.core.clock.now() + wait }))
        };
        let Some(slot) = self.slot.take() else {
            tracing::error!(grant.id = row.grant_id, "a grant was issued to a client that is not configured");
            return unsendable(EvidenceCode::ClientUnknown, Cause::ClientUnknown);
        };
        let Ok((token, params)) = seal::spendable(&self.core.keyring, &row) else {
            tracing::error!(grant.id = row.grant_id, "the stored refresh token does not open with the key ring's keys");
            return unsendable(EvidenceCode::DoesNotOpen, Cause::StoreDown);
        };
        // First said, then withdrawn: an actor that stands the token anew looks here afterwards.
        self.progress.send_modify(|progress| progress.sent = Some(claimed.generation));
        if provider.idp.rotation_ends_access_token
            && let Some(issued) = self.core.snapshot.current(&self.key)
            && issued.generation <= claimed.generation
        {
            issued.set_standing(Standing::Withdrawn);
        }
        let at = self.core.clock.read();
        let renewal =
            self.core.runtime.spawn(renew(self.core.clone(), self.key.clone(), self.id, provider.times.rules.lease));
        let patience = provider.times.rules.patience;
        let outcome = provider.client.refresh(&provider.idp, slot.client(), &token, &params, patience).await;
        renewal.abort();
        self.took(Phase::Idp, at.boot);
        self.heard = Some(Heard::of(&outcome, claimed.stays));
        if let Outcome::Unknown(failure) = &outcome
            && failure.evidence.status.is_none()
        {
            count(&self.counters.lost_answers);
        }
        drop(token);
        let retry_at = learn(&self.core, &self.key, provider, slot, &row, &outcome);
        let told = match outcome {
            Outcome::Answered(answer) if subject::is_foreign(&self.core, &row, &answer) => {
                self.heard = Some(Heard::Refusal);
                Told::Foreign { evidence: Evidence::ours(EvidenceCode::AccountMismatch) }
            }
            Outcome::Answered(answer) => {
                let sent = seal::Sent { key: &self.key, attempt: self.id, claimed, at, row: &row };
                let began = self.core.clock.read().boot;
                let landing = seal::land(&self.core.keyring, provider, &sent, *answer);
                self.took(Phase::Seal, began);
                let landing = self.landing.insert(landing);
                if landing.commit.child() != claimed.fingerprint {
                    provider.saw_rotation(self.key.idp());
                }
                self.core.reach(Point::Answered);
                Told::Answered
            }
            Outcome::NotSpent(failure) => Told::NotSpent { retry_at, fault: fault(failure) },
            Outcome::Unknown(failure) => Told::Unknown { retry_at, fault: fault(failure) },
            Outcome::InvalidGrant(failure) => Told::InvalidGrant { evidence: failure.evidence },
        };
        Some(Event::Told(told))
    }

    async fn change(&mut self, change: Change) -> Option<Event> {
        let changed = until_answered(&self.core, || self.core.change(&self.key, change.clone())).await?;
        self.row = changed.row;
        Some(Event::Changed { reply: changed.reply })
    }

    /// Waits for the store to take the answer: at first for a moment, then for as long as it takes.
    async fn commit(&mut self, attempt: Try) -> Option<Event> {
        let commit = &self.landing.as_ref()?.commit;
        let (core, key) = (&self.core, &self.key);
        let patience = match attempt {
            Try::First => Some(SILENCE),
            // In memory alone the answer is not safe: look after the journal again soon.
            Try::Again => (!self.journaled).then_some(PAUSE),
        };
        let pending = self.commit.get_or_insert_with(|| {
            let (core, key, change) = (core.clone(), key.clone(), Change::Commit(Box::new(commit.clone())));
            Box::pin(async move {
                if attempt == Try::Again {
                    core.clock.sleep(PAUSE).await;
                }
                core.change(&key, change).await
            })
        });
        let answer = match patience {
            None => pending.await,
            Some(patience) => tokio::select! {
                answer = pending => answer,
                () = core.clock.sleep(patience) => return Some(Event::Silent),
            },
        };
        self.commit = None;
        match answer {
            Ok(Changed { reply, row, .. }) => {
                self.resolved = match reply {
                    Reply::Resolved(resolution) => Some(resolution),
                    _ => None,
                };
                self.row = row;
                self.core.reach(Point::Committed);
                if self.journaled {
                    mark(&self.core, self.id).await;
                }
                Some(Event::Changed { reply })
            }
            Err(error) => {
                tracing::warn!(error = %error, "the store did not take an answer; it is tried again");
                Some(Event::Silent)
            }
        }
    }

    /// Writes the answer to the journal, and publishes it from there.
    async fn journal(&mut self) -> Option<Event> {
        let landing = self.landing.as_ref()?;
        let payload = serde_json::to_vec(&landing.commit).expect("plain structs have a JSON form");
        let entry = crate::journal::Entry { key: self.key.clone(), attempt: self.id, payload };
        let journal = self.core.journal.clone();
        let written = self.core.runtime.spawn_blocking(move || journal.append(entry)).await;
        self.journaled = matches!(written, Ok(Ok(())));
        if self.journaled {
            self.core.reach(Point::Journaled);
            let issued = Arc::new(landing.issued(landing.commit.generation.next(), true));
            self.publish(&issued);
        } else {
            tracing::error!("an answer can be written neither to the store nor to the journal: free some space");
        }
        Some(Event::Journaled(self.journaled))
    }

    fn corrupt(&self, error: &StoreError) -> Option<Event> {
        tracing::error!(error = %error, "the grant cannot be refreshed");
        None
    }
}

impl Drop for Attempt {
    /// A task that panicked leaves the table too: the next attempt finds its sender dead and goes on from there.
    fn drop(&mut self) {
        self.core.attempts.remove(&self.key, self.id);
        self.core.attempts.finish();
    }
}

fn fault(failure: Failure) -> Fault {
    Fault { cause: failure.cause(), evidence: failure.evidence }
}
