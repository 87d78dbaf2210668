//! Tells the sweeper that something comes due earlier than it knows.

use tokio::sync::watch;

use crate::{clock::Clock, model::WallTime};

/// The earliest time that was set since the sweeper began to look at what is due.
pub(super) struct Alarm(watch::Sender<WallTime>);

/// The time of an alarm that rings at once.
const AT_ONCE: WallTime = WallTime(i64::MIN);

impl Default for Alarm {
    fn default() -> Self {
        Self(watch::Sender::new(WallTime::MAX))
    }
}

impl Alarm {
    /// Records that something comes due at this time.
    pub(super) fn set(&self, at: WallTime) {
        self.0.send_if_modified(|earliest| {
            let is_earlier = at < *earliest;
            *earliest = at.min(*earliest);
            is_earlier
        });
    }

    /// Makes the sweeper look at once.
    pub(super) fn ring(&self) {
        self.set(AT_ONCE);
    }

    /// Records that the sweeper begins to look: it sees what is due by itself.
    pub(super) fn looking(&self) {
        self.0.send_replace(WallTime::MAX);
    }

    /// Resolves at the time `until`, or at an earlier time that is set, but not before `least`; at once when it is rung.
    pub(super) async fn wait(&self, clock: &Clock, least: WallTime, until: WallTime) {
        let mut set = self.0.subscribe();
        loop {
            let earliest = *set.borrow_and_update();
            if earliest == AT_ONCE {
                return;
            }
            tokio::select! {
                () = clock.wait_until(earliest.min(until).max(least)) => return,
                _ = set.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn it_rings_at_the_earliest_time_and_not_too_often() {
        let manual = ManualClock::new(SystemTime::UNIX_EPOCH);
        let (clock, alarm) = (Clock::manual(&manual), Alarm::default());
        let context = &mut Context::from_waker(Waker::noop());
        alarm.set(WallTime(500));
        alarm.looking();
        {
            let mut waiting = pin!(alarm.wait(&clock, WallTime(1_000), WallTime(9_000)));
            assert_eq!(waiting.as_mut().poll(context), Poll::Pending, "what was set before the look is seen by it");
            alarm.set(WallTime(5_000));
            alarm.set(WallTime(6_000));
            alarm.set(WallTime(3_000));
            assert_eq!(waiting.as_mut().poll(context), Poll::Pending);
            manual.advance(Duration::from_millis(2_999));
            assert_eq!(waiting.as_mut().poll(context), Poll::Pending);
            manual.advance(Duration::from_millis(1));
            assert_eq!(waiting.as_mut().poll(context), Poll::Ready(()));
        }
        alarm.looking();
        let mut waiting = pin!(alarm.wait(&clock, WallTime(3_500), WallTime(9_000)));
        alarm.set(WallTime(3_000));
        assert_eq!(waiting.as_mut().poll(context), Poll::Pending, "not so soon");
        alarm.ring();
        assert_eq!(waiting.as_mut().poll(context), Poll::Ready(()));
    }
}
