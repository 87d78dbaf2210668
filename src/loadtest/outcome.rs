//! The result of a load test.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{host::HostMachine, series::LoadSample};
use crate::demo::{
    meter::DemoMeter,
    words::{folded, grouped, per_second},
};

#[derive(Debug, Serialize)]
pub(super) struct LoadResult {
    pub(super) version: &'static str,
    pub(super) parameters: LoadParameters,
    pub(super) machine: HostMachine,
    /// How long the load ran.
    pub(super) seconds: f64,
    /// Whether it was ended early.
    pub(super) interrupted: bool,
    pub(super) reads: u64,
    pub(super) reads_per_second: f64,
    pub(super) latency: Latency,
    /// In this process: refresh requests that the providers received. On a server: new tokens that readers saw.
    pub(super) refreshes: u64,
    pub(super) refreshes_per_second: f64,
    /// How often each fault was injected.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// How often callers got each error.
    pub(super) errors: BTreeMap<String, u64>,
    /// What the providers' ledgers say at the end; none for a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) losses: Option<Losses>,
    pub(super) samples: Vec<LoadSample>,
}

#[derive(Debug, Serialize)]
pub(super) struct LoadParameters {
    /// What was measured.
    pub(super) target: String,
    /// In UTC.
    pub(super) started_at: String,
    pub(super) pairs: u64,
    pub(super) readers: u64,
    pub(super) seconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lifetime_seconds: Option<u64>,
    /// The seed that chooses the faults and the order of reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
}

/// The time from a caller's request to the token, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    /// The number of reads that were timed.
    pub(super) timed: u64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p99_9_us: f64,
    pub(super) max_us: f64,
    /// Each quantile with its time, up to the largest of which the number of reads says something.
    pub(super) quantiles: Vec<(f64, f64)>,
}

#[derive(Debug, Serialize)]
pub(super) struct Losses {
    /// Refresh tokens that were spent twice.
    pub(super) duplicate_spends: u64,
    /// Grants whose stored refresh token the provider does not accept.
    pub(super) lost_rotations: u64,
    /// Why nothing can be said about the stored tokens, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unjudged: Option<String>,
}

impl LoadResult {
    pub(super) fn new(
        parameters: LoadParameters,
        elapsed: Duration,
        interrupted: bool,
        reads: u64,
        refreshes: u64,
        times: &Histogram<u64>,
        samples: Vec<LoadSample>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = |count: u64| (count as f64 / seconds.max(0.001) * 10.0).round() / 10.0;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            parameters,
            machine: HostMachine::this(),
            seconds: (seconds * 10.0).round() / 10.0,
            interrupted,
            reads,
            reads_per_second: rate(reads),
            latency: Latency::of(times),
            refreshes,
            refreshes_per_second: rate(refreshes),
            faults: BTreeMap::new(),
            errors: BTreeMap::new(),
            losses: None,
            samples,
        }
    }

    /// Adds the errors of all callers, without their grants.
    pub(super) fn add_errors(&mut self, meter: &DemoMeter) {
        for ((_, error), times) in meter.errors() {
            *self.errors.entry(error).or_default() += times;
        }
    }

    /// Returns whether a token was lost or spent twice, or may have been.
    pub(super) fn lost(&self) -> bool {
        let lost = |losses: &Losses| losses.duplicate_spends + losses.lost_rotations > 0 || losses.unjudged.is_some();
        self.losses.as_ref().is_some_and(lost)
    }

    /// Returns the largest resident memory of the samples, and the last one.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        let all = self.samples.iter().filter_map(|sample| sample.resident_bytes);
        let last = all.clone().next_back()?;
        Some((all.max()?, last))
    }

    pub(super) fn in_words(&self, written: &[PathBuf]) -> String {
        let LoadParameters { pairs, readers, seconds, .. } = &self.parameters;
        let elapsed = Duration::from_secs_f64(self.seconds);
        let early = if self.interrupted { format!(" of {seconds}, ended early") } else { String::new() };
        let reads = per_second(self.reads as f64, elapsed);
        let mut lines = vec![
            format!("load     {} s{early}  {} pairs  {readers} readers", self.seconds, grouped(*pairs)),
            format!(
                "reads    {}  {reads}  refreshes {}  {:.0}/s",
                grouped(self.reads),
                grouped(self.refreshes),
                self.refreshes_per_second
            ),
            format!("latency  {}", self.latency.in_words()),
        ];
        lines.extend(self.memory().map(|(most, last)| {
            format!("memory   {} at the end, {} at most, simulated providers included", bytes(last), bytes(most))
        }));
        let errors: Vec<_> = self.errors.iter().map(|(error, times)| format!("{error} x{times}")).collect();
        let errors = if errors.is_empty() { vec!["none".to_owned()] } else { errors };
        lines.push(folded("errors   ", &errors));
        lines.extend(self.losses.as_ref().map(|losses| format!("losses   {}", losses.in_words())));
        lines.extend(written.iter().map(|path| format!("written  {}", path.display())));
        lines.join("\n") + "\n"
    }
}

impl Latency {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1_000.0;
        // Ten points for each further nine: 0, 0.9, 0.99 and so on, and those between.
        let largest = (times.len().max(10) as f64).log10();
        let points = (largest * 10.0) as u32;
        let quantile = |point: u32| 1.0 - 10_f64.powf(-f64::from(point) / 10.0);
        Self {
            timed: times.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: times.max() as f64 / 1_000.0,
            quantiles: (0..=points).map(|point| (quantile(point), at(quantile(point)))).collect(),
        }
    }

    pub(super) fn named(&self) -> [(&'static str, f64); 5] {
        let Self { p50_us, p90_us, p99_us, p99_9_us, max_us, .. } = *self;
        [("p50", p50_us), ("p90", p90_us), ("p99", p99_us), ("p99.9", p99_9_us), ("max", max_us)]
    }

    fn in_words(&self) -> String {
        self.named().map(|(name, time)| format!("{name} {}", micros(time))).join("  ")
    }
}

impl Losses {
    pub(super) fn in_words(&self) -> String {
        match &self.unjudged {
            Some(why) => format!("unknown: {why}"),
            None => format!("duplicate spends {}  lost rotations {}", self.duplicate_spends, self.lost_rotations),
        }
    }
}

/// Formats microseconds.
pub(super) fn micros(micros: f64) -> String {
    let (number, unit) = match micros {
        1_000_000.0.. => (micros / 1e6, "s"),
        1_000.0.. => (micros / 1e3, "ms"),
        _ => (micros, "us"),
    };
    let places = usize::from(number < 10.0) + usize::from(number < 1.0);
    format!("{number:.places$} {unit}")
}

/// Formats bytes.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_has_the_quantiles_that_the_number_of_reads_supports() {
        let mut times = Histogram::new(3).unwrap();
        assert_eq!(Latency::of(&times).p99_9_us, 0.0);
        for micros in 1..=1_000_u64 {
            times.record(micros * 1_000).unwrap();
        }
        let latency = Latency::of(&times);
        assert!(
            (499.0..502.0).contains(&latency.p50_us) && (998.0..1_002.0).contains(&latency.p99_9_us),
            "{latency:?}"
        );
        let (last, _) = latency.quantiles.last().unwrap();
        assert!((0.998..=0.999_1).contains(last), "{latency:?}");
        assert!(latency.quantiles.windows(2).all(|two| two[0].1 <= two[1].1), "{latency:?}");
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([0.25, 4.5, 31.0, 2_500.0, 3e6].map(micros), ["0.25 us", "4.5 us", "31 us", "2.5 ms", "3.0 s"]);
        assert_eq!([58_000_000, 1_240_000_000].map(bytes), ["58 MB", "1.2 GB"]);
    }
}
