//! `/metrics`, in the text format of Prometheus. Labels are names from the configuration and words of ours, never users.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use super::{answer::Answer, call::Call, problem::Problem};
use crate::Cause;

/// What is counted here; everything else is looked up when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Requests for a token by their outcome, of each identity provider.
    requests: Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>,
}

impl Counters {
    /// Somebody asked for a token of an identity provider that is configured.
    pub(super) fn asked(&self, idp: &str, outcome: &'static str) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = requests.get_mut(idp).and_then(|outcomes| outcomes.get_mut(outcome)) {
            *count += 1;
        } else {
            requests.entry(idp.to_owned()).or_default().insert(outcome, 1);
        }
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(call: &Call) -> Result<Answer, Problem> {
    let supervisor = &call.api.supervisor;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, about: &str, samples: &[(String, u64)]| {
        // Writing to a string does not fail.
        writeln!(text, "# HELP {PREFIX}{name} {about}\n# TYPE {PREFIX}{name} {kind}").ok();
        for (labels, value) in samples {
            writeln!(text, "{PREFIX}{name}{labels} {value}").ok();
        }
    };
    let plain = |value: usize| [(String::new(), value as u64)];
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    family("build_info", "gauge", "Which version runs.", &[(version, 1)]);
    family("requests_total", "counter", "Requests for a token over HTTP.", &call.api.counters.samples());
    family("idp_paused", "gauge", "Nothing is sent to the identity provider for now.", &paused(call));
    family("waiters", "gauge", "Callers that wait for an answer.", &plain(supervisor.waiting()));
    let journal = plain(supervisor.journal_pending());
    family("journal_pending", "gauge", "Answers in the journal that the store has not got yet.", &journal);
    Ok(Answer::text(CONTENT_TYPE, text))
}

const PREFIX: &str = "token_supervisor_";
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Counters {
    fn samples(&self) -> Vec<(String, u64)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let of_idp = |(idp, outcomes): (&String, &BTreeMap<&str, u64>)| {
            let sample = |(outcome, count): (&&str, &u64)| (format!("{{idp=\"{idp}\",outcome=\"{outcome}\"}}"), *count);
            outcomes.iter().map(sample).collect::<Vec<_>>()
        };
        requests.iter().flat_map(of_idp).collect()
    }
}

/// Why, of those that are: they are in trouble, or people hold them.
fn paused(call: &Call) -> Vec<(String, u64)> {
    let supervisor = &call.api.supervisor;
    let reasons = supervisor.idps().into_iter().flat_map(|idp| {
        let held = supervisor.idp_held(&idp.name).ok().flatten().map(|_| Cause::IdpHeld);
        let sample = move |cause: Cause| (format!("{{idp=\"{}\",reason=\"{cause}\"}}", idp.name), 1);
        idp.paused.into_iter().chain(held).map(sample).collect::<Vec<_>>()
    });
    reasons.collect()
}
