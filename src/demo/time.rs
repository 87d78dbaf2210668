//! Time for measuring and pausing: the demo is the machine's, not the supervisor's.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

/// A moment that can be measured from and compared with an identity provider's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(Instant);

static START: OnceLock<(Instant, SystemTime)> = OnceLock::new();

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the supervisor's clock is not to be trusted by who checks it")]
    pub(super) fn now() -> Self {
        let now = Instant::now();
        START.get_or_init(|| (now, SystemTime::now()));
        Self(now)
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// By a wall clock that nobody steps, like those of the simulated identity providers.
    pub(super) fn wall(self) -> SystemTime {
        START.get().map_or(SystemTime::UNIX_EPOCH, |(start, wall)| *wall + self.0.saturating_duration_since(*start))
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo waits by the machine's time")]
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
