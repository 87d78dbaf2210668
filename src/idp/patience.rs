//! The time that a response is awaited. Time in which this process was suspended does not count: a response that
//! arrived meanwhile lies unread in the socket, and may be the only copy of a rotated refresh token.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// The longest part of a countdown, and thereby the most that a suspension of any length can take from it.
const LONGEST_PART: Duration = Duration::from_secs(1);
const SHORTEST_PART: Duration = Duration::from_millis(10);

/// A countdown in parts. A part that ends late does not count, at most as often as there are parts: on a machine that
/// is always late the countdown still ends.
#[derive(Debug)]
struct Countdown {
    each: Duration,
    left: u32,
    /// How many more late parts do not count.
    late_parts: u32,
}

impl Countdown {
    fn of(patience: Duration) -> Self {
        let each = (patience / 8).clamp(SHORTEST_PART, LONGEST_PART);
        let parts = patience.as_nanos().div_ceil(each.as_nanos()).clamp(1, u32::MAX.into()) as u32;
        Self { each, left: parts, late_parts: parts }
    }

    /// Counts a part that ended this `late`. Returns whether the countdown is over.
    fn is_over_after(&mut self, late: Duration) -> bool {
        if late > self.each / 2 && self.late_parts > 0 {
            self.late_parts -= 1;
        } else {
            self.left -= 1;
        }
        self.left == 0
    }
}

/// Completes when `patience` has passed.
pub(super) async fn run_out(patience: Duration) {
    let mut countdown = Countdown::of(patience);
    let mut ticks = interval(countdown.each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while !countdown.is_over_after(ticks.tick().await.elapsed()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_TIME: Duration = Duration::from_millis(2);
    const SUSPENDED: Duration = Duration::from_secs(3_600);

    /// Returns the length of a part and how many parts pass until the countdown is over, if these parts are late.
    fn passed(patience: Duration, late: impl Fn(u32) -> bool) -> (Duration, u32) {
        let mut countdown = Countdown::of(patience);
        let passed = (1..).find(|part| countdown.is_over_after(if late(*part) { SUSPENDED } else { IN_TIME }));
        (countdown.each, passed.unwrap())
    }

    #[test]
    fn the_countdown_is_over_when_its_time_has_passed() {
        for (patience, each, parts) in
            [(120_000, 1_000, 120), (10_500, 1_000, 11), (4_000, 500, 8), (8, 10, 1), (0, 10, 1)]
        {
            let [patience, each] = [patience, each].map(Duration::from_millis);
            assert_eq!(passed(patience, |_| false), (each, parts), "{patience:?}");
        }
    }

    #[test]
    fn a_suspension_does_not_count_and_never_ends_the_countdown() {
        let seconds = Duration::from_secs(4);
        assert_eq!(passed(seconds, |part| part == 3).1, 9);
        assert_eq!(passed(seconds, |part| part == 8 || part == 9).1, 10, "the last part was in time");
    }

    #[test]
    fn a_machine_that_is_always_late_does_not_wait_for_ever() {
        assert_eq!(passed(Duration::from_secs(4), |_| true).1, 16);
    }
}
