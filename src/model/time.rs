//! Points in time, as whole milliseconds: one type for each clock, so that times of two clocks cannot be mixed up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Defines the time of one clock. Arithmetic saturates.
macro_rules! time_of_one_clock {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) i64);

        impl $name {
            /// Returns the time from `earlier` until `self`; zero if `earlier` is later.
            pub(crate) fn since(self, earlier: Self) -> Duration {
                Duration::from_millis(self.0.saturating_sub(earlier.0).try_into().unwrap_or(0))
            }
        }

        impl std::ops::Add<Duration> for $name {
            type Output = Self;

            fn add(self, duration: Duration) -> Self {
                Self(self.0.saturating_add(millis(duration)))
            }
        }
    };
}

time_of_one_clock! {
    /// A time by the wall clock of this machine, since the Unix epoch: the clock of providers, and of expirations and
    /// due times in rows. It can be stepped.
    WallTime
}

time_of_one_clock! {
    /// A reading of the boot-time clock, which cannot be stepped and goes on in suspend. It means nothing to another
    /// process or after a restart: no row and no journal holds one.
    BootTime
}

time_of_one_clock! {
    /// A time by the store's clock, since the Unix epoch: leases, settling, graces and records of what happened to a
    /// row count by it, because every process that shares the store sees the same one.
    StoreTime
}

impl WallTime {
    /// Later than any time that can be computed.
    pub(crate) const MAX: Self = Self(i64::MAX);

    pub(crate) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Takes this time for one by the store's clock; see [`StoreTime::by_wall_clock`].
    pub(crate) fn by_store_clock(self) -> StoreTime {
        StoreTime(self.0)
    }
}

impl BootTime {
    /// Later than any time that can be computed.
    pub(crate) const MAX: Self = Self(i64::MAX);
}

impl StoreTime {
    pub(crate) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Takes this time for one by the wall clock. This and [`WallTime::by_store_clock`] are the only conversions
    /// between two clocks.
    ///
    /// They are sound because both clocks count from the Unix epoch: with SQLite they are the same clock, and the clock
    /// of a store on another machine is synchronized (NTP). Where a time is converted, a small difference only makes a
    /// refresh or a notice early or late, or an expiration early. The decision to send a refresh token compares store
    /// times alone, except for the last wait in `protocol::doubt`, which has a margin of two leases.
    pub(crate) fn by_wall_clock(self) -> WallTime {
        WallTime(self.0)
    }
}

/// The duration in whole milliseconds; at most so many that a time of today and it stay below [`WallTime::MAX`].
pub(crate) fn millis(duration: Duration) -> i64 {
    const MOST: i64 = i64::MAX / 4;
    duration.as_millis().try_into().map_or(MOST, |millis: i64| millis.min(MOST))
}

impl From<SystemTime> for WallTime {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl From<WallTime> for SystemTime {
    fn from(time: WallTime) -> Self {
        let distance = Duration::from_millis(time.0.unsigned_abs());
        let moved = if time.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        moved.unwrap_or(UNIX_EPOCH)
    }
}

/// For reports alone: nothing of ours compares a [`SystemTime`].
impl From<StoreTime> for SystemTime {
    fn from(time: StoreTime) -> Self {
        time.by_wall_clock().into()
    }
}

/// When a token expires, as a row holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Expires {
    At(WallTime),
    Never,
    Unknown,
}

impl Expires {
    /// Returns the time of expiry, if it is known.
    pub(crate) fn at(self) -> Option<WallTime> {
        match self {
            Self::At(time) => Some(time),
            Self::Never | Self::Unknown => None,
        }
    }
}
