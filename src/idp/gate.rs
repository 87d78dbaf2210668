//! The gate of an identity provider: limits concurrent requests and the request rate, and closes when the provider's
//! health says so.
//!
//! There is one gate per provider and process, so that a slow or broken provider delays its own grants alone, and the
//! response to one request counts for all. `health` decides; this module waits. Requests that a caller waits for go
//! before refreshes ahead of expiry.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    breaker::GateClosed,
    health::{Admission, HealthChange, IdpHealth, Observation},
    provider::Idp,
    surge::SurgeSight,
};
use crate::{
    clock::{Clock, Reading},
    model::{BootTime, Evidence, WallTime},
};

/// Grants the permission to send one request at a time.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Arc<Semaphore>,
    /// Admits one background request at a time to the queue below.
    background: Semaphore,
    /// The queue, first in first out, and the boot time from which the next request may be sent.
    next: tokio::sync::Mutex<BootTime>,
    /// The shortest time between two requests of all processes together.
    interval: Duration,
    /// The number of processes that share the limits.
    processes: AtomicU32,
    /// The slots of the other processes.
    elsewhere: Mutex<Option<OwnedSemaphorePermit>>,
    max_concurrency: usize,
    /// When this process began to use the provider.
    opened: Reading,
    health: Mutex<IdpHealth>,
    /// The last reason for a refresh without a token, and when it was recorded.
    last_error: Mutex<Option<(Evidence, WallTime)>>,
}

/// The order in which requests wait for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A caller waits for the request.
    Foreground,
    /// No caller waits for the request.
    Background,
}

/// The permission to send one request. Dropping it admits the next request.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Arc<Gate>,
    admission: Option<Admission>,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(idp: &Idp, now: Reading) -> Self {
        Self::with(idp, IdpHealth::new(idp), now)
    }

    /// Returns the gate under new settings of the same provider.
    pub(crate) fn reconfigured(&self, idp: &Idp, now: Reading) -> Self {
        let gate = Self::with(idp, self.health().reconfigured(idp, now), self.opened);
        gate.share(self.processes.load(Ordering::Relaxed) as usize);
        gate
    }

    fn with(idp: &Idp, health: IdpHealth, opened: Reading) -> Self {
        let max_concurrency = idp.max_concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            slots: Arc::new(Semaphore::new(max_concurrency)),
            processes: AtomicU32::new(1),
            elsewhere: Mutex::default(),
            max_concurrency,
            background: Semaphore::new(1),
            next: tokio::sync::Mutex::new(BootTime(0)),
            interval: idp.requests_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())),
            opened,
            health: Mutex::new(health),
            last_error: Mutex::default(),
        }
    }

    /// Returns the index of the client that a grant was issued to, if that client is configured.
    pub(crate) fn client_index(&self, client_id: Option<&str>) -> Option<usize> {
        self.health().client_index(client_id)
    }

    /// Waits for a slot for a request of `grant`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`GateClosed`] immediately, or after the wait if the gate was closed in the meantime.
    pub(crate) async fn slot(
        self: &Arc<Self>,
        clock: &Clock,
        client: usize,
        grant: u64,
        priority: Priority,
    ) -> Result<Slot, GateClosed> {
        self.open_to(client, grant, clock)?;
        let _turn = match priority {
            Priority::Foreground => None,
            Priority::Background => Some(self.background.acquire().await.expect("the semaphore is never closed")),
        };
        let mut next = self.next.lock().await;
        self.open_to(client, grant, clock)?;
        let permit = loop {
            let permit = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
            match self.leave_to_others(permit) {
                Some(permit) => break permit,
                None => self.open_to(client, grant, clock)?,
            }
        };
        let early = next.since(clock.read().boot);
        if !early.is_zero() {
            clock.sleep(early).await;
        }
        let now = clock.read().boot;
        let admission = self.health().admit(client, grant, now)?;
        *next = now + self.interval * self.processes.load(Ordering::Relaxed);
        Ok(Slot { gate: self.clone(), admission: Some(admission), _permit: permit })
    }

    /// Divides the limits among so many processes, this one included: each gets its part of the rate and of the slots, at least
    /// one slot. Slots that are in use are given up when they become free.
    pub(crate) fn share(&self, processes: usize) {
        self.processes.store(processes.clamp(1, 1_000) as u32, Ordering::Relaxed);
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let held = elsewhere.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = self.slots_elsewhere();
        if held > wanted {
            drop(elsewhere.as_mut().and_then(|permits| permits.split(held - wanted)));
        }
        let free = self.slots.available_permits().min(wanted.saturating_sub(held));
        let more = Arc::clone(&self.slots).try_acquire_many_owned(free.try_into().unwrap_or(u32::MAX));
        if let Ok(more) = more.map_err(drop).and_then(|more| if free > 0 { Ok(more) } else { Err(()) }) {
            match elsewhere.as_mut() {
                Some(permits) => permits.merge(more),
                None => *elsewhere = Some(more),
            }
        }
    }

    /// The number of slots that belong to the other processes.
    fn slots_elsewhere(&self) -> usize {
        let processes = self.processes.load(Ordering::Relaxed) as usize;
        self.max_concurrency - (self.max_concurrency / processes).max(1)
    }

    /// Gives a slot up that belongs to another process by now; returns it otherwise.
    fn leave_to_others(&self, slot: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if elsewhere.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) >= self.slots_elsewhere() {
            return Some(slot);
        }
        match elsewhere.as_mut() {
            Some(held) => held.merge(slot),
            None => *elsewhere = Some(slot),
        }
        None
    }

    fn open_to(&self, client: usize, grant: u64, clock: &Clock) -> Result<(), GateClosed> {
        self.health().closed_to(client, grant, clock.read().boot).map_or(Ok(()), Err)
    }

    /// Returns why this client may not send a request of this grant now.
    pub(crate) fn closed_to(&self, client: usize, grant: u64, now: Reading) -> Option<GateClosed> {
        self.health().closed_to(client, grant, now.boot)
    }

    /// Returns why no client may send a request of this grant now.
    pub(crate) fn closed_to_grant(&self, grant: impl FnOnce() -> u64, now: Reading) -> Option<GateClosed> {
        let health = self.health();
        // Which grant it is matters only while something is wrong.
        if health.is_broken() { health.closed_to_grant(grant(), now.boot) } else { health.closed(now.boot) }
    }

    /// Returns why no client may send a request now.
    pub(crate) fn closed(&self, now: Reading) -> Option<GateClosed> {
        self.health().closed(now.boot)
    }

    /// Returns whether the provider refuses one of the configured clients.
    pub(crate) fn is_paused(&self) -> bool {
        self.health().is_paused()
    }

    /// Returns whether requests are held back until a probe succeeds.
    pub(crate) fn is_broken(&self) -> bool {
        self.health().is_broken()
    }

    /// Returns when this process began to use the provider.
    pub(crate) fn opened(&self) -> Reading {
        self.opened
    }

    /// Returns when the last outage or pause ended, or the settings changed.
    pub(crate) fn recovered(&self) -> Option<Reading> {
        self.health().recovered()
    }

    /// Lets the next request probe immediately: an operator says that the provider works again.
    pub(crate) fn probe_now(&self, now: Reading) {
        self.health().probe_now(now.boot);
    }

    /// Ends a surge of refusals because people say so. Returns whether there was one.
    pub(crate) fn end_surge(&self) -> bool {
        self.health().end_surge()
    }

    /// Returns the surge of refusals that lasts, if there is one.
    pub(crate) fn surge(&self, now: Reading) -> Option<SurgeSight> {
        self.health().surge(now.boot)
    }

    /// Takes the time since which refused grants are to be tried once more, because a surge is over.
    pub(crate) fn take_refused_since(&self) -> Option<WallTime> {
        self.health().take_refused_since()
    }

    /// Records why a refresh returned no token.
    pub(crate) fn record_error(&self, evidence: &Evidence, now: Reading) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some((evidence.clone(), now.wall));
    }

    pub(crate) fn last_error(&self) -> Option<(Evidence, WallTime)> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn health(&self) -> MutexGuard<'_, IdpHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Returns the index of the credentials to send in [`Idp::clients`].
    pub(crate) fn credentials_index(&self) -> usize {
        self.admission.map_or(0, |admission| admission.credentials)
    }

    pub(crate) fn client_index(&self) -> usize {
        self.admission.map_or(0, |admission| admission.client)
    }

    /// Updates the provider's health by the response to a request of `grant`, and admits the next request. The flag
    /// beside the changes says that another secret is to be tried immediately.
    pub(crate) fn report(
        mut self,
        observed: Observation,
        grant: u64,
        now: Reading,
        random: u64,
    ) -> (Vec<HealthChange>, bool) {
        match self.admission.take() {
            Some(admission) => self.gate.health().report(admission, observed, grant, now, random),
            None => (Vec::new(), false),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.gate.health().give_back(admission);
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
