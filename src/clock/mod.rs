//! The `Clock` port: the machine's clocks, or one that a test sets by hand.
//!
//! It has three readings: the wall clock (for times of identity providers and in rows), the boot-time clock (which
//! cannot be stepped and goes on in suspend), and a coarse pair of both for the hot path, rounded up.

#[cfg(any(test, feature = "testing"))]
mod manual;
mod os;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};

#[cfg(any(test, feature = "testing"))]
pub use manual::ManualClock;

use crate::model::{BootTime, StoreTime, WallTime};

/// The source of time. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    System(Arc<System>),
    #[cfg(any(test, feature = "testing"))]
    Manual(ManualClock),
}

#[derive(Debug)]
struct System {
    /// Timers run on our runtime, so that waiting futures can be polled on any other.
    timers: Handle,
    /// Boot-time clock minus monotonic clock, in milliseconds: the time spent suspended.
    suspended: AtomicI64,
    /// The store's clock minus the boot-time clock, in milliseconds; [`NO_CLOCK`] if the store has no clock of its own.
    store: AtomicI64,
    /// Wakes every sleeper after a step of the wall clock or a suspend.
    stepped: Notify,
}

/// A reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) wall: WallTime,
    pub(crate) boot: BootTime,
}

/// A point on the boot-time clock, finer than [`BootTime`]: for measuring alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FineTime(u64);

impl FineTime {
    /// Returns the time that has passed since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Reading {
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self { wall: self.wall + duration, boot: self.boot + duration }
    }
}

impl Clock {
    /// Returns the machine's clocks, with timers on `timers`.
    pub(crate) fn system(timers: Handle) -> Self {
        let suspended = AtomicI64::new(os::suspended());
        Self(ClockSource::System(Arc::new(System {
            timers,
            suspended,
            store: AtomicI64::new(NO_CLOCK),
            stepped: Notify::new(),
        })))
    }

    /// Returns a clock that only a test moves.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn manual(clock: &ManualClock) -> Self {
        Self(ClockSource::Manual(clock.clone()))
    }

    /// Returns whether a test moves the clock: then it is the store's clock, too, whatever the store is.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_set_by_hand(&self) -> bool {
        match &self.0 {
            ClockSource::System(_) => false,
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(_) => true,
        }
    }

    /// Reads the wall clock.
    pub(crate) fn now(&self) -> WallTime {
        self.read().wall
    }

    /// Reads the store's clock, as far as this process knows it: with SQLite it is the wall clock, otherwise the store's last
    /// reading and what has passed since by the boot-time clock.
    pub(crate) fn store_time(&self) -> StoreTime {
        let Reading { wall, boot } = self.read();
        match &self.0 {
            ClockSource::System(system) => match system.store.load(Ordering::Relaxed) {
                NO_CLOCK => wall.by_store_clock(),
                offset => StoreTime(boot.0 + offset),
            },
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(_) => wall.by_store_clock(),
        }
    }

    /// Takes a reading of the store's own clock. A clock that a test moves stays the store's.
    #[cfg(feature = "postgres")]
    pub(crate) fn set_store_time(&self, time: StoreTime) {
        let boot = self.read().boot;
        match &self.0 {
            ClockSource::System(system) => system.store.store(time.0 - boot.0, Ordering::Relaxed),
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(_) => {}
        }
    }

    /// Reads both clocks precisely.
    pub(crate) fn read(&self) -> Reading {
        match &self.0 {
            ClockSource::System(_) => os::precise(),
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(clock) => clock.reading(),
        }
    }

    /// Reads the boot-time clock to measure how long something takes.
    pub(crate) fn fine(&self) -> FineTime {
        match &self.0 {
            ClockSource::System(_) => FineTime(os::nanos()),
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(clock) => {
                FineTime(clock.reading().boot.since(BootTime(0)).as_nanos().try_into().unwrap_or(u64::MAX))
            }
        }
    }

    /// Reads both clocks for the hot path: no system call, and never earlier than the precise reading.
    #[inline]
    pub(crate) fn coarse(&self) -> Reading {
        match &self.0 {
            ClockSource::System(system) => os::coarse(system.suspended.load(Ordering::Relaxed)),
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(clock) => clock.reading(),
        }
    }

    /// Resolves once `duration` has passed on the boot-time clock. Dropping it cancels the wait.
    pub(crate) async fn sleep(&self, duration: Duration) {
        match &self.0 {
            ClockSource::System(system) => system.timer(duration).await,
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(clock) => {
                let end = clock.reading().boot + duration;
                clock.wait(|now| now.boot >= end).await;
            }
        }
    }

    /// Resolves at the wall-clock time `until`, or earlier if the wall clock was stepped or the machine was suspended:
    /// read the clock again. Dropping it cancels the wait.
    pub(crate) async fn wait_until(&self, until: WallTime) {
        match &self.0 {
            ClockSource::System(system) => {
                let stepped = system.stepped.notified();
                let left = until.since(self.now());
                if left > Duration::ZERO {
                    futures_util::future::select(std::pin::pin!(stepped), std::pin::pin!(system.timer(left))).await;
                }
            }
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(clock) => clock.wait(|now| now.wall >= until).await,
        }
    }

    /// Watches for steps and suspends; runs as long as the supervisor does.
    pub(crate) async fn watch_steps(self) {
        match &self.0 {
            ClockSource::System(system) => system.watch_steps().await,
            #[cfg(any(test, feature = "testing"))]
            ClockSource::Manual(_) => {}
        }
    }
}

/// The value that stands for a store without a clock of its own: the wall clock counts.
const NO_CLOCK: i64 = i64::MIN;

/// A smaller difference between the clocks is drift, not a step.
const STEP_MILLIS: i64 = 500;

impl System {
    #[expect(clippy::disallowed_methods, reason = "everything else takes time from this port")]
    fn timer(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        let _on_our_runtime = self.timers.enter();
        tokio::time::sleep(duration)
    }

    async fn watch_steps(&self) {
        let mut last = os::precise();
        loop {
            self.timer(Duration::from_secs(1)).await;
            let (now, suspended) = (os::precise(), os::suspended());
            let before = self.suspended.swap(suspended, Ordering::Relaxed);
            let drift = (now.wall.0 - last.wall.0) - (now.boot.0 - last.boot.0);
            if drift.abs() > STEP_MILLIS || (suspended - before).abs() > STEP_MILLIS {
                tracing::info!(
                    clock.drift_ms = drift,
                    clock.suspended_ms = suspended - before,
                    "the clock was stepped"
                );
                self.stepped.notify_waiters();
            }
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn the_manual_clock_wakes_sleepers_and_steps_only_the_wall_clock() {
        let manual = ManualClock::new(SystemTime::UNIX_EPOCH);
        let clock = Clock::manual(&manual);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(5)).await }
        });
        manual.step_to(SystemTime::UNIX_EPOCH + Duration::from_secs(3_600));
        clock.wait_until(WallTime(3_600_000)).await;
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished(), "a step of the wall clock is not time that has passed");
        manual.advance(Duration::from_secs(5));
        sleeper.await.unwrap();
        assert_eq!(clock.read().boot, BootTime(5_000));
    }

    #[tokio::test]
    async fn the_coarse_clock_is_never_behind() {
        let clock = Clock::system(Handle::current());
        for _ in 0..1_000 {
            let (precise, coarse) = (clock.read(), clock.coarse());
            assert!(coarse.wall >= precise.wall && coarse.boot >= precise.boot);
        }
    }
}
