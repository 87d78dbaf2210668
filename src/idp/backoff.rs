//! How long to wait after a failure: exponential with full jitter, unless the provider says when.
//!
//! The one file that uses the `backoff` crate, for its policy alone; the waiting is ours. The crate is
//! unmaintained upstream (RUSTSEC-2025-0012, no known defect): replacing it means replacing `Policy::ceiling`.
//! Its own randomisation is switched off, because ours comes from an argument.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// How waits grow: doubling from the first to the longest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    first: Duration,
    longest: Duration,
}

/// Of one grant, or one operation, that fails.
pub(crate) const GRANT: Policy = Policy::seconds(1, 300);
/// Of a provider that does not answer: it is asked once in a while by one request alone.
pub(crate) const OUTAGE: Policy = Policy::seconds(1, 30);
/// Of what only an operator can mend.
pub(crate) const OPERATOR_BACKOFF: Policy = Policy::seconds(60, 300);
/// Of a provider that asks to slow down without saying for how long.
pub(crate) const THROTTLE: Policy = Policy::seconds(1, 60);

impl Policy {
    const fn seconds(first: u64, longest: u64) -> Self {
        Self { first: Duration::from_secs(first), longest: Duration::from_secs(longest) }
    }

    /// How long to wait after the `failures`th failure in a row: at least half of what the policy says, so that a
    /// wait that others rely on is one.
    pub(crate) fn half_jittered(self, failures: u32, random: u64) -> Duration {
        let half = self.ceiling(failures) / 2;
        half + fraction(half, random)
    }

    fn ceiling(self, failures: u32) -> Duration {
        let mut policy: ExponentialBackoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.first)
            .with_multiplier(2.0)
            .with_max_interval(self.longest)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        // Ten doublings of a second are beyond the longest.
        (0..failures.clamp(1, 10)).filter_map(|_| policy.next_backoff()).last().unwrap_or(self.longest)
    }
}

/// Below this a retry is a busy loop.
const SHORTEST: Duration = Duration::from_millis(50);
/// What a provider may ask for; longer than that we look for ourselves.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// How long to wait after `failures` failures in a row (1 is the first).
///
/// `retry_after` wins, up to an hour. Otherwise the wait is anywhere below 1 s, 2 s, 4 s ... 5 min, by
/// `random`, so that those who failed together do not come back together: after the third failure and
/// with `random` in the middle of its range, 2 s.
pub(crate) fn delay(failures: u32, retry_after: Option<Duration>, random: u64) -> Duration {
    let wait = match retry_after {
        Some(asked) => asked.min(LONGEST_ASKED),
        None => fraction(GRANT.ceiling(failures), random),
    };
    wait.max(SHORTEST)
}

/// `random / 2^64` of `whole`.
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
            assert_eq!(GRANT.ceiling(failures), longest, "{failures}");
            assert_eq!(delay(failures, None, 1 << 63), longest / 2);
            assert_eq!(delay(failures, None, 0), SHORTEST);
            assert!(delay(failures, None, u64::MAX) < longest);
        }
    }

    #[test]
    fn half_of_a_wait_that_others_rely_on_is_certain() {
        for (failures, seconds) in [(1, 60), (2, 120), (3, 240), (4, 300), (u32::MAX, 300)] {
            let longest = Duration::from_secs(seconds);
            assert_eq!(OPERATOR_BACKOFF.half_jittered(failures, 0), longest / 2);
            assert!(OPERATOR_BACKOFF.half_jittered(failures, u64::MAX) < longest);
        }
    }

    #[test]
    fn what_the_provider_asks_for_wins_up_to_an_hour() {
        for (asked, expected) in [(0, SHORTEST), (7, Duration::from_secs(7)), (86_400, LONGEST_ASKED)] {
            assert_eq!(delay(9, Some(Duration::from_secs(asked)), u64::MAX), expected);
        }
    }
}
