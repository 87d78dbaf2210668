//! The delay after a failure: exponential with full jitter, unless the provider says when to retry.
//!
//! No other file uses the `backoff` crate. Only its policy is used, and callers do the waiting. The crate is
//! unmaintained upstream (RUSTSEC-2025-0012, no known defect): replacing it means replacing `BackoffPolicy::ceiling`.
//! Its own randomization is switched off, because randomness comes from an argument.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// Delays that double from the first to the longest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackoffPolicy {
    first: Duration,
    longest: Duration,
}

/// For a grant or an operation that fails.
pub(crate) const GRANT_BACKOFF: BackoffPolicy = BackoffPolicy::seconds(1, 300);
/// For a provider that does not respond: a single request probes after each delay.
pub(crate) const OUTAGE_BACKOFF: BackoffPolicy = BackoffPolicy::seconds(1, 30);
/// For a fault that only an operator can resolve.
pub(crate) const OPERATOR_BACKOFF: BackoffPolicy = BackoffPolicy::seconds(60, 300);
/// For a provider that asks to slow down without saying for how long.
pub(crate) const THROTTLE_BACKOFF: BackoffPolicy = BackoffPolicy::seconds(1, 60);

impl BackoffPolicy {
    const fn seconds(first: u64, longest: u64) -> Self {
        Self { first: Duration::from_secs(first), longest: Duration::from_secs(longest) }
    }

    /// Returns the delay after the `failures`th consecutive failure: at least half of the ceiling, for delays that
    /// other requests rely on.
    pub(crate) fn half_jittered(self, failures: u32, random: u64) -> Duration {
        let half = self.ceiling(failures) / 2;
        half + fraction(half, random)
    }

    /// Returns the longest delay after the `failures`th consecutive failure.
    fn ceiling(self, failures: u32) -> Duration {
        let mut policy: ExponentialBackoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.first)
            .with_multiplier(2.0)
            .with_max_interval(self.longest)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        // Ten doublings of one second exceed every longest delay.
        (0..failures.clamp(1, 10)).filter_map(|_| policy.next_backoff()).last().unwrap_or(self.longest)
    }
}

/// A retry after less than this is a busy loop.
pub(crate) const SHORTEST_DELAY: Duration = Duration::from_millis(50);
/// The longest `retry_after` that is followed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Returns the delay after `failures` consecutive failures (1 is the first).
///
/// The delay is spread by `random` below 1 s, 2 s, 4 s ... 5 min, so that grants that failed together do not retry
/// together. Example: after the third failure and with `random` in the middle of its range, 2 s. `retry_after` makes it
/// longer, up to an hour, and never shorter: some providers ask for no wait at all, or for one in the past.
pub(crate) fn delay(failures: u32, retry_after: Option<Duration>, random: u64) -> Duration {
    let own = fraction(GRANT_BACKOFF.ceiling(failures), random).max(SHORTEST_DELAY);
    own.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

/// Returns `random / 2^64` of `whole`.
fn fraction(whole: Duration, random: u64) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_a_second_to_five_minutes() {
        for (failures, seconds) in [(0, 1), (1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (u32::MAX, 300)] {
            let longest = Duration::from_secs(seconds);
            assert_eq!(GRANT_BACKOFF.ceiling(failures), longest, "{failures}");
            assert_eq!(delay(failures, None, 1 << 63), longest / 2);
            assert_eq!(delay(failures, None, 0), SHORTEST_DELAY);
            assert!(delay(failures, None, u64::MAX) < longest);
        }
    }

    #[test]
    fn half_jitter_keeps_at_least_half_of_the_ceiling() {
        for (failures, seconds) in [(1, 60), (2, 120), (3, 240), (4, 300), (u32::MAX, 300)] {
            let longest = Duration::from_secs(seconds);
            assert_eq!(OPERATOR_BACKOFF.half_jittered(failures, 0), longest / 2);
            assert!(OPERATOR_BACKOFF.half_jittered(failures, u64::MAX) < longest);
        }
    }

    #[test]
    fn retry_after_makes_a_delay_longer_and_never_shorter() {
        for (failures, random, asked, expected) in [
            (1, 0, 0, SHORTEST_DELAY),
            (1, 1 << 63, 0, Duration::from_millis(500)),
            (9, 1 << 63, 0, Duration::from_secs(128)),
            (9, 1 << 63, 7, Duration::from_secs(128)),
            (9, 0, 7, Duration::from_secs(7)),
            (1, u64::MAX, 600, Duration::from_secs(600)),
            (9, u64::MAX, 86_400, LONGEST_RETRY_AFTER),
        ] {
            assert_eq!(delay(failures, Some(Duration::from_secs(asked)), random), expected, "{failures} {asked}");
        }
    }
}
