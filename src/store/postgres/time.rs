//! The store's time: the clock of the database server.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    model::{BootTime, StoreTime},
};

/// The clock of the database, as this process knows it.
///
/// Between two readings the time is estimated by the boot-time clock, a little too early, since a reading was on its way for a
/// while. A write that is based on an estimate compares it with the database's clock in the same statement, and changes
/// nothing if they differ by more than [`APART`]. What only reads goes by [`Clock::store_time`], the same estimate.
pub(super) struct DatabaseClock {
    clock: Clock,
    /// When the database's clock was last read.
    last: Mutex<Option<BootTime>>,
}

/// How far the time of a change may be behind the database's clock when it is written, in milliseconds.
pub(super) const APART: i64 = 1_000;

/// How far it may be ahead: clocks are read in whole milliseconds, and do not run at the same speed.
pub(super) const AHEAD: i64 = 5;

/// An older reading is not used for an estimate.
const KEPT: Duration = Duration::from_secs(10);

impl DatabaseClock {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last: Mutex::default() }
    }

    /// Takes a reading of the database's clock, and returns the store's time: the reading, unless a test has set the time.
    pub(super) fn read(&self, millis: i64) -> StoreTime {
        if self.clock.is_set_by_hand() {
            return self.clock.store_time();
        }
        let time = StoreTime(millis);
        self.clock.set_store_time(time);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.read().boot);
        time
    }

    /// Returns the store's time without asking the database, if the last reading is recent.
    pub(super) fn estimate(&self) -> Option<StoreTime> {
        if self.clock.is_set_by_hand() {
            return Some(self.clock.store_time());
        }
        let at = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        (self.clock.read().boot.since(at) < KEPT).then(|| self.clock.store_time())
    }

    /// Returns the time to compare with the database's clock in the statement that writes; `None` if a test has set the time.
    pub(super) fn compared(&self, now: StoreTime) -> Option<i64> {
        (!self.clock.is_set_by_hand()).then_some(now.0)
    }
}
