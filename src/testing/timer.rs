//! Timers that run from their creation, not from the first poll.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use futures_util::future::maybe_done;

use super::Fault;
use crate::clock::Clock;

pub(super) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts the timers that a fault needs.
///
/// A test may advance a manual clock as soon as it sees a request in the log; a timer that started
/// only afterwards would then wait for a time that never comes.
pub(super) async fn start(clock: &Clock, fault: Option<&Fault>) -> Vec<Timer> {
    let durations = match fault {
        Some(Fault::Delay(duration) | Fault::LateProcessing(duration)) => vec![*duration],
        Some(Fault::SlowBody(duration)) => (1..=PIECES).map(|piece| *duration * piece / PIECES).collect(),
        _ => Vec::new(),
    };
    let mut timers = Vec::with_capacity(durations.len());
    for duration in durations {
        let clock = clock.clone();
        let mut timer: Timer = Box::pin(maybe_done(async move { clock.sleep(duration).await }));
        poll_fn(|context| Poll::Ready(timer.as_mut().poll(context).is_ready())).await;
        timers.push(timer);
    }
    timers
}

/// Number of pieces of a slow body.
const PIECES: u32 = 8;
