//! Hooks through which a test controls a supervisor.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use tokio::runtime::Handle;

use super::ManualClock;
use crate::{
    clock::Clock,
    journal::{History, Journal},
    store::{Store, faulty::Faulty},
    supervisor::Point,
};

/// What a test sets before the start (`clock`, `point`) and controls afterwards (`store`, `journal`).
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(super) clock: Option<ManualClock>,
    pub(super) point: Option<Arc<dyn Fn(Point) + Send + Sync>>,
    pub(super) store: Arc<OnceLock<Faulty>>,
    pub(super) journal: Arc<OnceLock<Weak<Journal>>>,
    pub(super) history: Arc<OnceLock<Weak<History>>>,
}

impl Hooks {
    pub(crate) fn clock(&self, timers: &Handle) -> Clock {
        self.clock.as_ref().map_or_else(|| Clock::system(timers.clone()), Clock::manual)
    }

    pub(crate) fn wrap(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(self.store.get_or_init(|| Faulty::new(store)).clone())
    }

    pub(crate) fn share(&self, journal: &Arc<Journal>, history: &Arc<History>) {
        self.journal.set(Arc::downgrade(journal)).ok();
        self.history.set(Arc::downgrade(history)).ok();
    }

    pub(crate) fn reach(&self, point: Point) {
        if let Some(look) = &self.point {
            look(point);
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("clock", &self.clock).finish_non_exhaustive()
    }
}
