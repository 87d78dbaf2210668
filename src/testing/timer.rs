//! Timers that run from the moment they are made, not from the first time they are waited for.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use futures_util::future::maybe_done;

use super::Fault;
use crate::clock::Clock;

pub(super) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The timers that a fault needs, started.
///
/// With a manual clock, whoever sees a request in the log may turn the clock at once; a timer that
/// started only afterwards would then wait for a time that never comes.
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

/// Pieces of a slow body.
const PIECES: u32 = 8;
