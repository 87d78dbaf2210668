//! Counts requests for a token over HTTP.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;

use crate::{Metric, MetricKind, metrics::Histogram};

/// The requests for a token, by identity provider.
#[derive(Debug, Default)]
pub(super) struct RequestCounters(Mutex<BTreeMap<String, IdpRequests>>);

/// Request metrics of one provider.
#[derive(Debug, Default)]
struct IdpRequests {
    outcomes: BTreeMap<&'static str, u64>,
    seconds: EnumMap<TokenPath, Histogram>,
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum TokenPath {
    /// It was published already.
    Snapshot,
    /// The grant's actor had to be asked.
    Actor,
    /// A refresh produced it.
    Refresh,
    /// Nothing of the grant was in memory.
    Cold,
}

impl RequestCounters {
    /// Counts a request at a configured identity provider; for a granted one, also where the token came from and how
    /// long it took.
    pub(super) fn count(&self, idp: &str, outcome: &'static str, granted: Option<(TokenPath, Duration)>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(idp) {
            all.insert(idp.to_owned(), IdpRequests::default());
        }
        let Some(requests) = all.get_mut(idp) else { return };
        *requests.outcomes.entry(outcome).or_default() += 1;
        if let Some((path, time)) = granted {
            requests.seconds[path].record(time);
        }
    }

    pub(super) fn metrics(&self) -> [Metric; 2] {
        let mut total = Metric::new("requests_total", MetricKind::Counter, "Requests for a token over HTTP.");
        let help = "How long granted requests for a token over HTTP took.";
        let mut seconds = Metric::new("request_seconds", MetricKind::Histogram, help);
        for (idp, requests) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            for (outcome, count) in &requests.outcomes {
                total.push(&[("idp", idp), ("outcome", outcome)], *count as f64);
            }
            for (path, took) in &requests.seconds {
                seconds.push_histogram(&[("idp", idp), ("path", path.into())], took);
            }
        }
        [total, seconds]
    }
}
