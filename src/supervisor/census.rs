//! How many grants do what, for people who watch: counted in the store when somebody asks, by one count at a time.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::select;
use tokio::sync::Notify;

use super::core::Core;
use crate::{model::BootTime, store::Census};

/// How old a count may be: every row is read for it.
const EVERY: Duration = Duration::from_secs(60);
/// The part of the time that may be spent on counting.
const ONE_IN: u32 = 20;
/// How long whoever asks waits for a count that runs; then the one before must do.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last count, and the one that runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    state: Mutex<State>,
    counted: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<Census>>,
    runs: bool,
    /// When the next is due, by the boot-time clock.
    next: Option<BootTime>,
}

impl Counts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a count is to begin now.
    fn begins(&mut self, now: BootTime) -> bool {
        let begins = !self.runs && self.next.is_none_or(|next| now >= next);
        self.runs |= begins;
        begins
    }

    /// None if the store had no answer.
    fn ended(&mut self, began: BootTime, now: BootTime, census: Option<Census>) {
        let pause = EVERY.max(now.since(began).saturating_mul(ONE_IN));
        *self = Self { last: census.map(Arc::new), runs: false, next: Some(began + pause) };
    }
}

impl Core {
    /// The last count; a new one if that is due. None before the first, and while the store gives none.
    ///
    /// Dropping the future does not stop a count, which would only have to begin again.
    pub(super) async fn census(self: &Arc<Self>) -> Option<Arc<Census>> {
        let counts = &self.counters.census;
        let mut counted = pin!(counts.counted.notified());
        counted.as_mut().enable();
        let began = self.clock.read().boot;
        let begins = counts.state().begins(began);
        if begins {
            let core = self.clone();
            self.runtime.spawn(async move {
                let census = core.store.census().await.ok();
                core.counters.census.state().ended(began, core.clock.read().boot, census);
                core.counters.census.counted.notify_waiters();
            });
        }
        let runs = counts.state().runs;
        if runs {
            select(counted, Box::pin(self.clock.sleep(PATIENCE))).await;
        }
        counts.state().last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StoreTime;

    const SECOND: Duration = Duration::from_secs(1);

    fn census() -> Census {
        Census { counted: Vec::new(), now: StoreTime(0) }
    }

    #[test]
    fn one_count_runs_at_a_time_and_none_too_often() {
        let (mut state, start) = (State::default(), BootTime(1_000));
        assert!(state.begins(start));
        assert!(!state.begins(start + 100 * EVERY), "it runs");
        state.ended(start, start + SECOND, Some(census()));
        assert!(state.last.is_some() && !state.begins(start + 59 * SECOND));
        let second = start + 60 * SECOND;
        assert!(state.begins(second) && state.last.is_some(), "the last one is there until the next");
        state.ended(second, second + 5 * SECOND, None);
        assert!(state.last.is_none() && !state.begins(second + 99 * SECOND), "it took long");
        assert!(state.begins(second + 100 * SECOND));
    }
}
