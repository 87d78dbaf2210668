//! Counters of the load.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;

/// Counters that many tasks add to.
pub(crate) struct DemoMeter {
    reads: AtomicU64,
    /// Times of reads in nanoseconds, to three digits.
    times: Mutex<Histogram<u64>>,
    /// How often a pair's callers saw an error.
    errors: Mutex<BTreeMap<(usize, String), u64>>,
}

/// Longer times count as this one, in nanoseconds: no caller waits so long.
const LONGEST: u64 = 120_000_000_000;

impl DemoMeter {
    pub(crate) fn new() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds");
        Self { reads: AtomicU64::new(0), times: Mutex::new(times), errors: Mutex::default() }
    }

    pub(crate) fn add_reads(&self, reads: u64) {
        self.reads.fetch_add(reads, Relaxed);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    pub(crate) fn add_time(&self, time: Duration) {
        locked(&self.times).saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST));
    }

    pub(crate) fn times(&self) -> Histogram<u64> {
        locked(&self.times).clone()
    }

    /// Returns the 99th percentile of the timed reads, in microseconds.
    pub(super) fn p99(&self) -> f64 {
        locked(&self.times).value_at_quantile(0.99) as f64 / 1_000.0
    }

    pub(crate) fn add_error(&self, pair: usize, seen: String) {
        *locked(&self.errors).entry((pair, seen)).or_default() += 1;
    }

    pub(crate) fn errors(&self) -> BTreeMap<(usize, String), u64> {
        locked(&self.errors).clone()
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_three_digits_and_the_longest_ones_too() {
        let meter = DemoMeter::new();
        assert_eq!(meter.p99(), 0.0);
        for nanos in 1..=10_000 {
            meter.add_time(Duration::from_nanos(nanos * 10));
        }
        assert!((98.9..99.2).contains(&meter.p99()), "{}", meter.p99());
        meter.add_time(Duration::MAX);
        assert_eq!(meter.times().len(), 10_001);
    }
}
