//! `/metrics`, in the text format of Prometheus: what the supervisor has, and what is counted here. Labels are names from
//! the configuration and words of ours, never users.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{answer::Answer, call::Call, problem::Problem};
use crate::{Metric, MetricKind, Sample, metrics::Histogram};

/// What is counted here: requests for a token over HTTP.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, Requests>>);

/// Of one identity provider.
#[derive(Debug, Default)]
struct Requests {
    outcomes: BTreeMap<&'static str, u64>,
    seconds: [Histogram; PATHS.len()],
}

/// Where a token came from.
#[derive(Clone, Copy)]
pub(super) enum Path {
    /// It was there.
    Snapshot,
    /// The grant's actor had to look.
    Actor,
    /// A refresh brought it.
    Refresh,
    /// Nothing of the grant was in memory.
    Cold,
}

const PATHS: [&str; 4] = ["snapshot", "actor", "refresh", "cold"];

impl Counters {
    /// Somebody asked for a token of an identity provider that is configured; where it came from and how long it took, if
    /// there was one.
    pub(super) fn asked(&self, idp: &str, outcome: &'static str, granted: Option<(Path, Duration)>) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !requests.contains_key(idp) {
            requests.insert(idp.to_owned(), Requests::default());
        }
        let Some(requests) = requests.get_mut(idp) else { return };
        *requests.outcomes.entry(outcome).or_default() += 1;
        if let Some((path, time)) = granted {
            requests.seconds[path as usize].record(time);
        }
    }

    fn metrics(&self) -> [Metric; 2] {
        let mut total = Metric::new("requests_total", MetricKind::Counter, "Requests for a token over HTTP.");
        let help = "How long granted requests for a token over HTTP took.";
        let mut seconds = Metric::new("request_seconds", MetricKind::Histogram, help);
        for (idp, requests) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            for (outcome, count) in &requests.outcomes {
                total.push(&[("idp", idp), ("outcome", outcome)], *count as f64);
            }
            for (path, took) in PATHS.iter().zip(&requests.seconds) {
                seconds.push_histogram(&[("idp", idp), ("path", path)], took);
            }
        }
        [total, seconds]
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(call: &Call) -> Result<Answer, Problem> {
    let mut build = Metric::new("build_info", MetricKind::Gauge, "Which version runs.");
    build.push(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut metrics = vec![build];
    metrics.extend(call.api.counters.metrics());
    metrics.extend(call.api.supervisor.metrics().await);
    Ok(Answer::text(CONTENT_TYPE, metrics.iter().map(text).collect::<String>()))
}

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writing to a string does not fail.
fn text(metric: &Metric) -> String {
    let Metric { name, help, kind, .. } = metric;
    let name = format!("token_supervisor_{name}");
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str());
    for Sample { suffix, labels, value, .. } in &metric.samples {
        write!(text, "{name}{suffix}").ok();
        for (index, (label, value)) in labels.iter().enumerate() {
            write!(text, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(value)).ok();
        }
        writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" }).ok();
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let mut metric = Metric::new("x_total", MetricKind::Counter, "How many x.");
        metric.push(&[("idp", "a\"b\\c\nd"), ("op", "read")], 2.0);
        metric.push(&[], 0.5);
        let expected = "# HELP token_supervisor_x_total How many x.\n# TYPE token_supervisor_x_total counter\n\
            token_supervisor_x_total{idp=\"a\\\"b\\\\c\\nd\",op=\"read\"} 2\ntoken_supervisor_x_total 0.5\n";
        assert_eq!(text(&metric), expected);
    }
}
