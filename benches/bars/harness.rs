//! Measures two things in turns and prints the result.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

pub(crate) fn heading() {
    println!("{:44} {:>11} {:>11} {:>6}  bar", "what, beside its yardstick", "measured", "yardstick", "ratio");
}

pub(crate) fn row(what: &str, (measured, yardstick): (Duration, Duration), bar: &str) {
    let ratio = measured.as_secs_f64() / yardstick.as_secs_f64().max(1e-12);
    println!("{what:44} {:>11} {:>11} {ratio:>6.2}  {bar}", short(measured), short(yardstick));
}

/// A figure without a yardstick.
pub(crate) fn figure(what: &str, measured: &str, bar: &str) {
    println!("{what:44} {measured:>11} {:>11} {:>6}  {bar}", "-", "-");
}

pub(crate) fn short(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        ..1e4 => format!("{nanos:.0} ns"),
        ..1e7 => format!("{:.1} us", nanos / 1e3),
        _ => format!("{:.1} ms", nanos / 1e6),
    }
}

/// Measures both in turns and returns the medians.
pub(crate) fn turns(
    rounds: usize,
    ours: impl Fn() -> Duration,
    yardstick: impl Fn() -> Duration,
) -> (Duration, Duration) {
    let (ours, yardstick): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (ours(), yardstick())).unzip();
    (median(ours), median(yardstick))
}

pub(crate) fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort();
    figures[figures.len() / 2]
}

/// Returns the CPU time of the thread for one of many reads, so that other processes do not count.
pub(crate) fn each<T>(order: &[usize], mut read: impl FnMut(usize) -> T) -> Duration {
    let started = thread_time();
    for &at in order {
        black_box(read(at));
    }
    (thread_time() - started) / order.len() as u32
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Returns the same random order in every run.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    let mut seed: u64 = 1;
    for at in (1..count).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (seed >> 33) as usize % (at + 1));
    }
    order
}
