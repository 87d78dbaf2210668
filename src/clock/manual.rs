//! A clock that tests set by hand.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;

use super::Reading;
use crate::model::BootTime;

/// A clock that moves only on demand. Clones share the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    now: Mutex<Reading>,
    moved: Notify,
}

impl ManualClock {
    /// Creates a clock that shows `start`.
    pub fn new(start: SystemTime) -> Self {
        let now = Mutex::new(Reading { wall: start.into(), boot: BootTime(0) });
        Self(Arc::new(Manual { now, moved: Notify::new() }))
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> SystemTime {
        self.reading().wall.into()
    }

    /// Lets time pass: both clocks advance, and every future that waits for the new time is woken.
    pub fn advance(&self, by: Duration) {
        {
            let mut now = self.lock();
            *now = now.plus(by);
        }
        self.0.moved.notify_waiters();
    }

    /// Sets the wall clock, as an administrator or NTP does; the boot-time clock does not change.
    pub fn step_to(&self, wall: SystemTime) {
        self.lock().wall = wall.into();
        self.0.moved.notify_waiters();
    }

    pub(super) fn reading(&self) -> Reading {
        *self.lock()
    }

    /// Resolves once `reached` holds.
    pub(super) async fn wait(&self, reached: impl Fn(Reading) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.0.moved.notified());
            moved.as_mut().enable();
            if reached(self.reading()) {
                return;
            }
            moved.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
