//! What the server turned away, by its reason: for the metric, and for the log, which it must not flood.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;
use tokio::time::Instant;

use crate::Metric;

/// Why a connection was closed or a request refused, by the names of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum ShedReason {
    /// The peer does not read its response.
    SlowReader,
    /// The peer does not finish the head of a request.
    SlowHead,
    /// The head of a request is too long.
    LargeHead,
    /// There are too many connections.
    Connections,
    /// The peer sends too many requests without a valid API key.
    WrongKey,
    /// The bearer of an API key sends more requests than the key allows.
    KeyRate,
}

impl ShedReason {
    fn in_words(self) -> &'static str {
        match self {
            Self::SlowReader => "closed a connection: the peer does not read its response",
            Self::SlowHead => "closed a connection: the peer does not finish its request",
            Self::LargeHead => "closed a connection: the head of the request is too long",
            Self::Connections => "closed a connection: there are too many connections",
            Self::WrongKey => "refused a request: the peer sends too many without a valid API key",
            Self::KeyRate => "refused a request: the API key is used more often than its requests_per_second",
        }
    }
}

/// How much was turned away for which reason.
#[derive(Debug, Default)]
pub(super) struct ShedCounts(EnumMap<ShedReason, ShedCount>);

#[derive(Debug, Default)]
struct ShedCount {
    total: AtomicU64,
    logged: Mutex<Logged>,
}

/// When a reason was logged, and how often it occurred since.
#[derive(Debug, Default)]
struct Logged {
    at: Option<Instant>,
    since: u64,
}

/// One log line for each reason in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

impl ShedCounts {
    /// Counts a connection or a request of this peer, or of the bearer of the key with this name.
    pub(super) fn count(&self, reason: ShedReason, peer: impl fmt::Display, caller: Option<&str>) {
        let count = &self.0[reason];
        count.total.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut logged = count.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.since += 1;
        if logged.at.is_some_and(|at| now < at + LOG_EVERY) {
            return;
        }
        let since = std::mem::take(&mut logged.since);
        logged.at = Some(now);
        drop(logged);
        tracing::warn!(%peer, caller, since, "{}", reason.in_words());
    }

    pub(super) fn total(&self, reason: ShedReason) -> u64 {
        self.0[reason].total.load(Ordering::Relaxed)
    }

    /// Adds its samples to the metric of everything that was turned away.
    pub(super) fn push_to(&self, shed_total: &mut Metric) {
        for (reason, _) in &self.0 {
            shed_total.push(&[("reason", reason.into())], self.total(reason) as f64);
        }
    }
}
