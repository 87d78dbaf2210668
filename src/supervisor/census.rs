//! The census of grants for metrics: counted in the store when metrics are read, by one count at a time.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::select;
use tokio::sync::Notify;

use super::ledger::Ledger;
use crate::{
    clock::Clock,
    model::BootTime,
    store::{Census, KeyUse, StoreError},
};

/// The time between two counts: every row is read for one.
const EVERY: Duration = Duration::from_secs(60);
/// At most one part in this many of the time is spent on counting.
const ONE_IN: u32 = 20;
/// How long a reader of metrics waits for a count that runs, before it gets the one before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is counted in the store.
#[derive(Debug)]
pub(super) struct CountedStore {
    pub(super) census: Census,
    pub(super) keys: Vec<KeyUse>,
}

/// The last count, and the one that runs.
#[derive(Debug, Default)]
struct Counts {
    state: Mutex<CountState>,
    counted: Notify,
}

#[derive(Debug, Default)]
struct CountState {
    last: Option<Arc<CountedStore>>,
    runs: bool,
    /// When the next count is due, by the boot-time clock.
    next: Option<BootTime>,
}

impl Counts {
    fn state(&self) -> MutexGuard<'_, CountState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountState {
    /// Whether a count begins now.
    fn begins(&mut self, now: BootTime) -> bool {
        let begins = !self.runs && self.next.is_none_or(|next| now >= next);
        self.runs |= begins;
        begins
    }

    /// Records the end of a count; `None` if the store did not respond.
    fn ended(&mut self, began: BootTime, now: BootTime, counted: Option<CountedStore>) {
        let pause = EVERY.max(now.since(began).saturating_mul(ONE_IN));
        *self = Self { last: counted.map(Arc::new), runs: false, next: Some(began + pause) };
    }
}

/// Counts the store's grants for metrics.
pub(super) struct Counter {
    ledger: Ledger,
    clock: Clock,
    runtime: tokio::runtime::Handle,
    counts: Arc<Counts>,
}

impl Counter {
    pub(super) fn new(ledger: Ledger, clock: Clock, runtime: tokio::runtime::Handle) -> Self {
        Self { ledger, clock, runtime, counts: Arc::default() }
    }

    /// Returns the last count, or a new one if that is due; `None` before the first, and while the store does not respond.
    ///
    /// Dropping the future does not stop a count, which would only have to begin again.
    pub(super) async fn counted(&self) -> Option<Arc<CountedStore>> {
        let counts = &self.counts;
        let mut counted = pin!(counts.counted.notified());
        counted.as_mut().enable();
        let began = self.clock.read().boot;
        let begins = counts.state().begins(began);
        if begins {
            let (ledger, clock, counts) = (self.ledger.clone(), self.clock.clone(), counts.clone());
            self.runtime.spawn(async move {
                let counted = count(&ledger).await.ok();
                counts.state().ended(began, clock.read().boot, counted);
                counts.counted.notify_waiters();
            });
        }
        let runs = counts.state().runs;
        if runs {
            select(counted, Box::pin(self.clock.sleep(PATIENCE))).await;
        }
        counts.state().last.clone()
    }
}

async fn count(ledger: &Ledger) -> Result<CountedStore, StoreError> {
    let store = ledger.store();
    Ok(CountedStore { census: store.census().await?, keys: store.key_use().await? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::StoreTime, store::Outbox};

    const SECOND: Duration = Duration::from_secs(1);

    fn counted() -> CountedStore {
        let census = Census { counted: Vec::new(), outbox: Outbox::default(), now: StoreTime(0) };
        CountedStore { census, keys: Vec::new() }
    }

    #[test]
    fn one_count_runs_at_a_time_and_none_too_often() {
        let (mut state, start) = (CountState::default(), BootTime(1_000));
        assert!(state.begins(start));
        assert!(!state.begins(start + 100 * EVERY), "it runs");
        state.ended(start, start + SECOND, Some(counted()));
        assert!(state.last.is_some() && !state.begins(start + 59 * SECOND));
        let second = start + 60 * SECOND;
        assert!(state.begins(second) && state.last.is_some(), "the last one is there until the next");
        state.ended(second, second + 5 * SECOND, None);
        assert!(state.last.is_none() && !state.begins(second + 99 * SECOND), "it took long");
        assert!(state.begins(second + 100 * SECOND));
    }
}
