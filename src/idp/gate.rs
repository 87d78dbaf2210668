//! The gate before an identity provider: how many requests at once, how many a second, and whether at all.
//!
//! One per provider and process, so that a slow or broken provider holds up its own grants alone, and what one
//! request learns is heard by all. `health` decides; here is the waiting. Those whom a caller waits for go before
//! what is refreshed ahead of need.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    health::{Admitted, GateClosed, Health, HealthChange, Observation},
    provider::Idp,
};
use crate::{
    clock::{Clock, Reading},
    model::{Evidence, Time},
};

/// Hands out the right to send one request.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Arc<Semaphore>,
    /// At most one of those nobody waits for is in the queue below.
    background: Semaphore,
    /// The queue, first come first served, and the boot time from which the next request may be sent.
    next: tokio::sync::Mutex<Time>,
    /// Between two requests.
    interval: Duration,
    health: Mutex<Health>,
    /// What was said when there was no token, and when.
    last_error: Mutex<Option<(Evidence, Time)>>,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A caller waits for it.
    Foreground,
    /// Nobody does yet.
    Background,
}

/// The right to send one request; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Arc<Gate>,
    admitted: Option<Admitted>,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(idp: &Idp) -> Self {
        Self::with(idp, Health::new(idp))
    }

    /// For new settings of the same provider.
    pub(crate) fn reconfigured(&self, idp: &Idp, now: Reading) -> Self {
        Self::with(idp, self.health().reconfigured(idp, now))
    }

    fn with(idp: &Idp, health: Health) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(idp.max_concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            background: Semaphore::new(1),
            next: tokio::sync::Mutex::new(Time(0)),
            interval: idp.requests_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())),
            health: Mutex::new(health),
            last_error: Mutex::default(),
        }
    }

    /// The login of a grant that was issued to this client, if it is configured.
    pub(crate) fn client_index(&self, client_id: Option<&str>) -> Option<usize> {
        self.health().client_index(client_id)
    }

    /// Waits for a slot. Dropping the future gives up the place.
    ///
    /// # Errors
    /// [`GateClosed`] at once, or after the wait if the gate was closed in the meantime.
    pub(crate) async fn slot(
        self: &Arc<Self>,
        clock: &Clock,
        login: usize,
        lane: Priority,
    ) -> Result<Slot, GateClosed> {
        self.open_to(login, clock)?;
        let _alone = match lane {
            Priority::Foreground => None,
            Priority::Background => Some(self.background.acquire().await.expect("the semaphore is never closed")),
        };
        let mut next = self.next.lock().await;
        self.open_to(login, clock)?;
        let permit = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        let early = next.since(clock.read().boot);
        if !early.is_zero() {
            clock.sleep(early).await;
        }
        let now = clock.read().boot;
        let admitted = self.health().admit(login, now)?;
        *next = now + self.interval;
        Ok(Slot { gate: self.clone(), admitted: Some(admitted), _permit: permit })
    }

    fn open_to(&self, login: usize, clock: &Clock) -> Result<(), GateClosed> {
        self.health().closed_to(login, clock.read().boot).map_or(Ok(()), Err)
    }

    /// Whether this login may not ask now.
    pub(crate) fn closed_to(&self, login: usize, now: Reading) -> Option<GateClosed> {
        self.health().closed_to(login, now.boot)
    }

    /// Whether nobody may ask now.
    pub(crate) fn closed(&self, now: Reading) -> Option<GateClosed> {
        self.health().closed(now.boot)
    }

    /// Whether one of our clients is refused.
    pub(crate) fn is_paused(&self) -> bool {
        self.health().is_paused()
    }

    /// Whether requests are held back until one that probes goes well.
    pub(crate) fn is_broken(&self) -> bool {
        self.health().is_broken()
    }

    /// When the last outage or pause ended.
    pub(crate) fn recovered(&self) -> Option<Reading> {
        self.health().recovered()
    }

    /// The next request goes through, whatever was learnt: people say that the provider is well again.
    pub(crate) fn probe_now(&self, now: Reading) {
        self.health().probe_now(now.boot);
    }

    /// Remembers why there was no token.
    pub(crate) fn record_error(&self, evidence: &Evidence, now: Reading) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some((evidence.clone(), now.wall));
    }

    pub(crate) fn last_error(&self) -> Option<(Evidence, Time)> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The place of the client and secret to send, among the provider's clients.
    pub(crate) fn credentials_index(&self) -> usize {
        self.admitted.map_or(0, |admitted| admitted.client)
    }

    pub(crate) fn client_index(&self) -> usize {
        self.admitted.map_or(0, |admitted| admitted.login)
    }

    /// Learns from the answer to the request of the grant `who`, and lets the next one in. True beside the notices:
    /// another secret is to be tried at once.
    pub(crate) fn report(
        mut self,
        said: Observation,
        who: u64,
        now: Reading,
        random: u64,
    ) -> (Vec<HealthChange>, bool) {
        match self.admitted.take() {
            Some(admitted) => self.gate.health().report(admitted, said, who, now, random),
            None => (Vec::new(), false),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(admitted) = self.admitted.take() {
            self.gate.health().give_back(admitted);
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
