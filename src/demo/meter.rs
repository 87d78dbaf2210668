//! Counters of the load.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Counters that many tasks add to.
pub(super) struct DemoMeter {
    reads: AtomicU64,
    /// Sampled times in buckets, eight for each power of two of nanoseconds.
    times: [AtomicU64; 64 * 8],
    /// How often a pair's callers saw an error.
    errors: Mutex<BTreeMap<(usize, String), u64>>,
}

impl DemoMeter {
    pub(super) fn new() -> Self {
        Self { reads: AtomicU64::new(0), times: [const { AtomicU64::new(0) }; 64 * 8], errors: Mutex::default() }
    }

    pub(super) fn add_reads(&self, reads: u64) {
        self.reads.fetch_add(reads, Relaxed);
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    pub(super) fn add_time(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.times[bucket(nanos)].fetch_add(1, Relaxed);
    }

    /// Returns the 99th percentile of the sampled reads, in microseconds.
    pub(super) fn p99(&self) -> f64 {
        let counts: Vec<u64> = self.times.iter().map(|count| count.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * 99).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        bucket.map_or(0.0, |bucket| upper_end(bucket) as f64 / 1_000.0)
    }

    pub(super) fn add_error(&self, pair: usize, seen: String) {
        *self.errors.lock().unwrap_or_else(PoisonError::into_inner).entry((pair, seen)).or_default() += 1;
    }

    pub(super) fn errors(&self) -> BTreeMap<(usize, String), u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(8);
    let power = nanos.ilog2();
    let eighth = (nanos >> (power - 3)) & 7;
    power as usize * 8 + eighth as usize
}

fn upper_end(bucket: usize) -> u64 {
    let (power, eighth) = (bucket as u32 / 8, bucket as u64 % 8);
    (9 + eighth).saturating_mul(1_u64.checked_shl(power.saturating_sub(3)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_at_most_an_eighth_off() {
        let meter = DemoMeter::new();
        for nanos in 1..=10_000 {
            meter.add_time(Duration::from_nanos(nanos * 10));
        }
        let p99 = meter.p99();
        assert!((99.0..112.0).contains(&p99), "{p99}");
        assert_eq!(DemoMeter::new().p99(), 0.0);
        let once = DemoMeter::new();
        once.add_time(Duration::from_nanos(500));
        assert!(once.p99() >= 0.5);
    }

    #[test]
    fn every_time_has_a_bucket_that_ends_after_it() {
        for nanos in [0, 1, 7, 8, 9, 1_000, 123_456_789, u64::MAX / 2] {
            assert!(upper_end(bucket(nanos)) > nanos, "{nanos}");
        }
        assert!(bucket(u64::MAX) < 64 * 8);
    }
}
