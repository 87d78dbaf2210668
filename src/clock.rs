//! The `Clock` port: the machine's clocks, or one that a test turns by hand.
//!
//! Three readings, one source: the wall clock (what identity providers and rows speak of), the
//! boot-time clock (which nobody can step and which goes on in suspend), and a coarse pair of both for
//! the hot path, rounded against us.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, sync::Notify};

use crate::model::Time;

/// Where time comes from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System(Arc<System>),
    Manual(ManualClock),
}

#[derive(Debug)]
struct System {
    /// Timers live on our runtime, so that futures which wait can be polled on any other.
    timers: Handle,
    /// Boot-time clock minus monotonic clock in milliseconds: the time spent suspended.
    suspended: AtomicI64,
    /// Wakes every sleeper after a step of the wall clock or a suspend.
    stepped: Notify,
}

/// A reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) wall: Time,
    pub(crate) boot: Time,
}

impl Reading {
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self { wall: self.wall + duration, boot: self.boot + duration }
    }
}

impl Clock {
    /// The machine's clocks, with timers on `timers`.
    pub(crate) fn system(timers: Handle) -> Self {
        let suspended = AtomicI64::new(os::suspended());
        Self(Kind::System(Arc::new(System { timers, suspended, stepped: Notify::new() })))
    }

    /// A clock that only a test moves.
    pub(crate) fn manual(clock: &ManualClock) -> Self {
        Self(Kind::Manual(clock.clone()))
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> Time {
        self.read().wall
    }

    /// Both clocks, precisely.
    pub(crate) fn read(&self) -> Reading {
        match &self.0 {
            Kind::System(_) => os::precise(),
            Kind::Manual(clock) => clock.lock().reading(),
        }
    }

    /// Both clocks for the hot path: no system call, never earlier than they are.
    pub(crate) fn coarse(&self) -> Reading {
        match &self.0 {
            Kind::System(system) => os::coarse(system.suspended.load(Ordering::Relaxed)),
            Kind::Manual(clock) => clock.lock().reading(),
        }
    }

    /// Resolves once `duration` has passed on the boot-time clock. Dropping it cancels the wait.
    pub(crate) async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::System(system) => system.timer(duration).await,
            Kind::Manual(clock) => {
                let end = clock.lock().reading().boot + duration;
                clock.wait(|state| state.reading().boot >= end).await;
            }
        }
    }

    /// Resolves at the wall-clock time `until`, or earlier if the wall clock was stepped or the
    /// machine slept: look at the clock again. Dropping it cancels the wait.
    pub(crate) async fn wait_until(&self, until: Time) {
        match &self.0 {
            Kind::System(system) => {
                let stepped = system.stepped.notified();
                let left = until.since(self.now());
                if left > Duration::ZERO {
                    futures_util::future::select(std::pin::pin!(stepped), std::pin::pin!(system.timer(left))).await;
                }
            }
            Kind::Manual(clock) => clock.wait(|state| state.reading().wall >= until).await,
        }
    }

    /// Watches for steps and suspends; runs for as long as the supervisor does.
    pub(crate) async fn watch_steps(self) {
        let Kind::System(system) = &self.0 else { return };
        let mut last = os::precise();
        loop {
            system.timer(Duration::from_secs(1)).await;
            let (now, suspended) = (os::precise(), os::suspended());
            let before = system.suspended.swap(suspended, Ordering::Relaxed);
            let drift = (now.wall.0 - last.wall.0) - (now.boot.0 - last.boot.0);
            if drift.abs() > STEP_MILLIS || (suspended - before).abs() > STEP_MILLIS {
                tracing::info!(
                    clock.drift_ms = drift,
                    clock.suspended_ms = suspended - before,
                    "the clock was stepped"
                );
                system.stepped.notify_waiters();
            }
            last = now;
        }
    }
}

/// Below this a difference between the clocks is drift, not a step.
const STEP_MILLIS: i64 = 500;

impl System {
    #[expect(clippy::disallowed_methods, reason = "this is the port that everything else takes time from")]
    fn timer(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        let _on_our_runtime = self.timers.enter();
        tokio::time::sleep(duration)
    }
}

/// A clock that moves only when told to. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    state: Mutex<ManualState>,
    moved: Notify,
}

#[derive(Debug)]
struct ManualState {
    wall: Time,
    boot: Time,
}

impl ManualState {
    fn reading(&self) -> Reading {
        Reading { wall: self.wall, boot: self.boot }
    }
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: SystemTime) -> Self {
        let state = Mutex::new(ManualState { wall: start.into(), boot: Time(0) });
        Self(Arc::new(Manual { state, moved: Notify::new() }))
    }

    /// The wall-clock time.
    pub fn now(&self) -> SystemTime {
        self.lock().wall.into()
    }

    /// Lets time pass: both clocks move, and whoever waits for that is woken.
    pub fn advance(&self, by: Duration) {
        {
            let mut state = self.lock();
            (state.wall, state.boot) = (state.wall + by, state.boot + by);
        }
        self.0.moved.notify_waiters();
    }

    /// Sets the wall clock, as an administrator or NTP does; the boot-time clock does not notice.
    pub fn step_to(&self, wall: SystemTime) {
        self.lock().wall = wall.into();
        self.0.moved.notify_waiters();
    }

    async fn wait(&self, reached: impl Fn(&ManualState) -> bool) {
        loop {
            let moved = self.0.moved.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            if reached(&self.lock()) {
                return;
            }
            moved.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(target_os = "linux")]
mod os {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::Reading;
    use crate::model::Time;

    /// The coarse clocks advance with the kernel's tick, 1 to 10 ms; reading them late would hand out
    /// a token that has just ended.
    const TICK_MILLIS: i64 = 11;

    fn millis(time: Timespec) -> i64 {
        time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    pub(super) fn precise() -> Reading {
        let wall = Time(millis(clock_gettime(ClockId::Realtime)));
        Reading { wall, boot: Time(millis(clock_gettime(ClockId::Boottime))) }
    }

    pub(super) fn coarse(suspended: i64) -> Reading {
        let wall = Time(millis(clock_gettime(ClockId::RealtimeCoarse)) + TICK_MILLIS);
        Reading { wall, boot: Time(millis(clock_gettime(ClockId::MonotonicCoarse)) + suspended + TICK_MILLIS) }
    }

    pub(super) fn suspended() -> i64 {
        millis(clock_gettime(ClockId::Boottime)) - millis(clock_gettime(ClockId::Monotonic))
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the port that everything else takes time from")]
mod os {
    use std::{
        sync::LazyLock,
        time::{Instant, SystemTime},
    };

    use super::Reading;
    use crate::model::Time;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn precise() -> Reading {
        Reading { wall: SystemTime::now().into(), boot: Time(0) + START.elapsed() }
    }

    pub(super) fn coarse(_suspended: i64) -> Reading {
        precise()
    }

    pub(super) fn suspended() -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_manual_clock_wakes_sleepers_and_steps_only_the_wall() {
        let manual = ManualClock::new(SystemTime::UNIX_EPOCH);
        let clock = Clock::manual(&manual);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(5)).await }
        });
        manual.step_to(SystemTime::UNIX_EPOCH + Duration::from_secs(3_600));
        clock.wait_until(Time(3_600_000)).await;
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished(), "a step of the wall clock is not time that has passed");
        manual.advance(Duration::from_secs(5));
        sleeper.await.unwrap();
        assert_eq!(clock.read().boot, Time(5_000));
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
