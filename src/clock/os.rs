//! Reading the operating system's clocks.

pub(super) use clocks::{coarse, nanos, precise, suspended};

#[cfg(target_os = "linux")]
mod clocks {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::super::Reading;
    use crate::model::{BootTime, WallTime};

    /// The coarse clocks advance with the kernel's tick, 1 to 10 ms; without this margin a token that has just expired
    /// could be handed out.
    const TICK_MILLIS: i64 = 11;

    fn millis(time: Timespec) -> i64 {
        time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    pub(in crate::clock) fn precise() -> Reading {
        let wall = WallTime(millis(clock_gettime(ClockId::Realtime)));
        Reading { wall, boot: BootTime(millis(clock_gettime(ClockId::Boottime))) }
    }

    pub(in crate::clock) fn nanos() -> u64 {
        let time = clock_gettime(ClockId::Boottime);
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    }

    #[inline]
    pub(in crate::clock) fn coarse(suspended: i64) -> Reading {
        let wall = WallTime(millis(clock_gettime(ClockId::RealtimeCoarse)) + TICK_MILLIS);
        Reading { wall, boot: BootTime(millis(clock_gettime(ClockId::MonotonicCoarse)) + suspended + TICK_MILLIS) }
    }

    pub(in crate::clock) fn suspended() -> i64 {
        millis(clock_gettime(ClockId::Boottime)) - millis(clock_gettime(ClockId::Monotonic))
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "everything else takes time from this port")]
mod clocks {
    use std::{
        sync::LazyLock,
        time::{Instant, SystemTime},
    };

    use super::super::Reading;
    use crate::model::BootTime;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(in crate::clock) fn precise() -> Reading {
        Reading { wall: SystemTime::now().into(), boot: BootTime(0) + START.elapsed() }
    }

    pub(in crate::clock) fn nanos() -> u64 {
        START.elapsed().as_nanos().try_into().unwrap_or(u64::MAX)
    }

    pub(in crate::clock) fn coarse(_suspended: i64) -> Reading {
        precise()
    }

    pub(in crate::clock) fn suspended() -> i64 {
        0
    }
}
