//! Time for measuring and pausing, by the system clock instead of the supervisor's.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

/// A moment to measure from, and to compare with a provider's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant);

static START: OnceLock<(Instant, SystemTime)> = OnceLock::new();

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the demo checks the supervisor, so it does not trust its clock")]
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        START.get_or_init(|| (now, SystemTime::now()));
        Self(now)
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Returns the moment by a wall clock without steps, like those of the simulated providers.
    pub(crate) fn wall(self) -> SystemTime {
        START.get().map_or(SystemTime::UNIX_EPOCH, |(start, wall)| *wall + self.0.saturating_duration_since(*start))
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo waits by the system clock")]
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
