//! Counters and histograms: atomics that the code updates, and metric families built from them on request.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A metric family, as in the data model of Prometheus. See
/// [`TokenSupervisor::metrics`](crate::TokenSupervisor::metrics).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, without a prefix. Names of counters end in `_total`.
    pub name: &'static str,
    /// Help text: what the metric counts or measures.
    pub help: &'static str,
    /// The type of the metric.
    pub kind: MetricKind,
    /// The values at the time of the call.
    pub samples: Vec<Sample>,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// The values only increase.
    Counter,
    /// The values increase and decrease.
    Gauge,
    /// The samples are cumulative buckets, the sum and the count.
    Histogram,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// The suffix of the metric's name: `_bucket`, `_sum` or `_count` for histograms, otherwise empty.
    pub suffix: &'static str,
    /// Names and values of the labels. A label never names a user.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl MetricKind {
    /// Returns the name of the type in the text format of Prometheus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    pub(crate) fn new(name: &'static str, kind: MetricKind, help: &'static str) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    pub(crate) fn push(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.push_as("", labels, value);
    }

    fn push_as(&mut self, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
    }

    /// Adds a single value without labels.
    pub(crate) fn of(mut self, value: f64) -> Self {
        self.push(&[], value);
        self
    }

    /// Adds the buckets, sum and count of a histogram. A histogram without any measurement adds nothing.
    pub(crate) fn push_histogram(&mut self, labels: &[(&'static str, &str)], histogram: &Histogram) {
        let buckets = histogram.buckets.each_ref().map(load);
        let count = buckets.iter().sum::<f64>();
        if count == 0.0 {
            return;
        }
        let mut cumulative = 0.0;
        let bounds = BOUNDS.map(|micros| (micros as f64 / 1e6).to_string());
        for (bound, bucket) in bounds.iter().map(String::as_str).chain(["+Inf"]).zip(buckets) {
            cumulative += bucket;
            self.push_as("_bucket", &[labels, &[("le", bound)]].concat(), cumulative);
        }
        self.push_as("_sum", labels, load(&histogram.sum_nanos) / 1e9);
        self.push_as("_count", labels, count);
    }
}

/// Returns the value of a counter.
pub(crate) fn load(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

/// Increments a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Upper bounds of the buckets in microseconds: from a token in memory to the patience for a response.
const BOUNDS: [u64; 19] = [
    10,
    25,
    50,
    100,
    250,
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    30_000_000,
    120_000_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative; the last bucket has no upper bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, duration: Duration) {
        count(&self.buckets[BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < duration)]);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_include_their_bound() {
        let (histogram, mut metric) = (Histogram::default(), Metric::new("x_seconds", MetricKind::Histogram, "X."));
        metric.push_histogram(&[], &histogram);
        assert_eq!(metric.samples, [], "an empty histogram adds no samples");
        for nanos in [0, 10_000, 10_001, 250_000_000, 250_000_001, 120_000_000_001] {
            histogram.record(Duration::from_nanos(nanos));
        }
        metric.push_histogram(&[("op", "read")], &histogram);
        let of = |suffix: &str, le: Option<&str>| {
            let fits = |sample: &&Sample| {
                let bound = sample.labels.iter().find(|(name, _)| *name == "le").map(|(_, bound)| bound.as_str());
                sample.suffix == suffix && bound == le && sample.labels[0] == ("op", "read".to_owned())
            };
            metric.samples.iter().find(fits).map(|sample| sample.value)
        };
        for (le, expected) in
            [("0.00001", 2.0), ("0.000025", 3.0), ("0.25", 4.0), ("0.5", 5.0), ("120", 5.0), ("+Inf", 6.0)]
        {
            assert_eq!(of("_bucket", Some(le)), Some(expected), "{le}");
        }
        assert_eq!((of("_sum", None), of("_count", None)), (Some(120.500_020_003), Some(6.0)));
        assert_eq!(metric.samples.len(), BOUNDS.len() + 3);
    }
}
