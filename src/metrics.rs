//! What is counted and measured: atomics where it happens, families of samples for those who look.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// One family of samples, as in the data model of Prometheus; see [`TokenSupervisor::metrics`](crate::TokenSupervisor::metrics).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, without a prefix. Of counters it ends in `_total`.
    pub name: &'static str,
    /// What it counts or measures.
    pub help: &'static str,
    /// What may become of its values.
    pub kind: MetricKind,
    /// Its values of this moment.
    pub samples: Vec<Sample>,
}

/// What may become of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// They grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// Its samples are buckets that grow, their sum and their count.
    Histogram,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// What follows the metric's name: of histograms `_bucket`, `_sum` or `_count`, else nothing.
    pub suffix: &'static str,
    /// Names and values. Never a user.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl MetricKind {
    /// The name in the text format of Prometheus.
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

    /// With one value and no labels.
    pub(crate) fn of(mut self, value: f64) -> Self {
        self.push(&[], value);
        self
    }

    /// A histogram's buckets, sum and count, if it has seen anything.
    pub(crate) fn observe(&mut self, labels: &[(&'static str, &str)], seen: &Histogram) {
        let buckets = seen.buckets.each_ref().map(load);
        let count = buckets.iter().sum::<f64>();
        if count == 0.0 {
            return;
        }
        let mut below = 0.0;
        let bounds = BOUNDS.map(|millis| (millis as f64 / 1_000.0).to_string());
        for (bound, bucket) in bounds.iter().map(String::as_str).chain(["+Inf"]).zip(buckets) {
            below += bucket;
            self.push_as("_bucket", &[labels, &[("le", bound)]].concat(), below);
        }
        self.push_as("_sum", labels, load(&seen.sum_millis) / 1_000.0);
        self.push_as("_count", labels, count);
    }
}

/// A counter's value.
pub(crate) fn load(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Upper bounds in milliseconds: no clock of ours is finer.
const BOUNDS: [u64; 13] = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 30_000, 120_000];

/// How long something took, each time.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative; the last one has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_millis: AtomicU64,
}

impl Histogram {
    pub(crate) fn took(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        count(&self.buckets[BOUNDS.partition_point(|bound| *bound < millis)]);
        self.sum_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_hold_what_is_at_most_their_bound() {
        let (seen, mut metric) = (Histogram::default(), Metric::new("x_seconds", MetricKind::Histogram, "X."));
        metric.observe(&[], &seen);
        assert_eq!(metric.samples, [], "nothing was seen");
        for millis in [0, 1, 2, 250, 251, 120_001] {
            seen.took(Duration::from_millis(millis));
        }
        metric.observe(&[("op", "read")], &seen);
        let of = |suffix: &str, le: Option<&str>| {
            let fits = |sample: &&Sample| {
                let bound = sample.labels.iter().find(|(name, _)| *name == "le").map(|(_, bound)| bound.as_str());
                sample.suffix == suffix && bound == le && sample.labels[0] == ("op", "read".to_owned())
            };
            metric.samples.iter().find(fits).map(|sample| sample.value)
        };
        for (le, expected) in [("0.001", 2.0), ("0.005", 3.0), ("0.25", 4.0), ("0.5", 5.0), ("120", 5.0), ("+Inf", 6.0)]
        {
            assert_eq!(of("_bucket", Some(le)), Some(expected), "{le}");
        }
        assert_eq!((of("_sum", None), of("_count", None)), (Some(120.505), Some(6.0)));
        assert_eq!(metric.samples.len(), BOUNDS.len() + 3);
    }
}
