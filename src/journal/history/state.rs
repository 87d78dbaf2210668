//! What the writer of a history and those who ask it share.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::segment::HistoryPlace;

/// What the writer and those who ask it share.
pub(super) struct HistoryState {
    tip: Mutex<HistoryTip>,
    /// Entries that found no room in the queue since the last one that did.
    pub(super) left_out: AtomicU64,
    /// Entries are left out, and that was logged.
    pub(super) is_lossy: AtomicBool,
    /// Makes the disk look full.
    #[cfg(any(test, feature = "testing"))]
    pub(super) full: AtomicBool,
}

/// How far a history goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryTip {
    /// The number of the last entry, also of one that could not be written.
    pub(crate) number: u64,
    /// The place behind it.
    pub(crate) place: HistoryPlace,
}

impl HistoryState {
    pub(super) fn new(tip: HistoryTip) -> Self {
        Self {
            tip: Mutex::new(tip),
            left_out: AtomicU64::new(0),
            is_lossy: AtomicBool::new(false),
            #[cfg(any(test, feature = "testing"))]
            full: AtomicBool::new(false),
        }
    }

    pub(super) fn tip(&self) -> MutexGuard<'_, HistoryTip> {
        self.tip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lossy(&self, why: &dyn std::fmt::Display) {
        if !self.is_lossy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the history has gaps from now on: {why}; if the store goes back in time, grants can be in doubt that the \
                 history could have brought back"
            );
        }
    }
}
