//! How long an answer is awaited. Time in which this process was held up does not count: what came meanwhile lies
//! unread in the socket, and may be the only copy of a rotated refresh token.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// No part of a patience is longer: so much of it may pass in a pause, however long that is.
const LONGEST_PART: Duration = Duration::from_secs(1);
const SHORTEST_PART: Duration = Duration::from_millis(10);

/// A patience, in parts. One that ends late is forgiven, as often as there are parts: a machine that is always late must
/// not wait for ever.
#[derive(Debug)]
struct Parts {
    each: Duration,
    left: u32,
    forgiven: u32,
}

impl Parts {
    fn of(patience: Duration) -> Self {
        let each = (patience / 8).clamp(SHORTEST_PART, LONGEST_PART);
        let parts = patience.as_nanos().div_ceil(each.as_nanos()).clamp(1, u32::MAX.into()) as u32;
        Self { each, left: parts, forgiven: parts }
    }

    /// Whether the patience is over with a part that ended so `late`. It never is with one that is forgiven.
    fn over(&mut self, late: Duration) -> bool {
        if late > self.each / 2 && self.forgiven > 0 {
            self.forgiven -= 1;
        } else {
            self.left -= 1;
        }
        self.left == 0
    }
}

/// Ends when `patience` does.
pub(super) async fn run_out(patience: Duration) {
    let mut parts = Parts::of(patience);
    let mut ticks = interval(parts.each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while !parts.over(ticks.tick().await.elapsed()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_TIME: Duration = Duration::from_millis(2);
    const PAUSED: Duration = Duration::from_secs(3_600);

    /// How many parts pass until it is over, if these are late.
    fn passed(patience: Duration, late: impl Fn(u32) -> bool) -> (Duration, u32) {
        let mut parts = Parts::of(patience);
        let passed = (1..).find(|part| parts.over(if late(*part) { PAUSED } else { IN_TIME }));
        (parts.each, passed.unwrap())
    }

    #[test]
    fn it_is_over_when_its_time_has_passed() {
        for (patience, each, parts) in
            [(120_000, 1_000, 120), (10_500, 1_000, 11), (4_000, 500, 8), (8, 10, 1), (0, 10, 1)]
        {
            let [patience, each] = [patience, each].map(Duration::from_millis);
            assert_eq!(passed(patience, |_| false), (each, parts), "{patience:?}");
        }
    }

    #[test]
    fn a_pause_is_no_patience_and_never_ends_it() {
        let seconds = Duration::from_secs(4);
        assert_eq!(passed(seconds, |part| part == 3).1, 9);
        assert_eq!(passed(seconds, |part| part == 8 || part == 9).1, 10, "the last one was in time");
    }

    #[test]
    fn a_machine_that_is_always_late_does_not_wait_for_ever() {
        assert_eq!(passed(Duration::from_secs(4), |_| true).1, 16);
    }
}
