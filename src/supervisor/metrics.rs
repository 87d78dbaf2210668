//! What the supervisor counts, and all of it as families of samples.
//!
//! Nothing is counted where a valid token is handed out: that costs nanoseconds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{TokenSupervisor, census::Counts, core::Core};
use crate::{
    error::Cause,
    metrics::{Histogram, Metric, MetricKind, count, load},
    model::State,
    protocol::{ChangeReply, resolve::Resolution},
    store::{Census, Counted},
};

/// What is counted of the supervisor as a whole.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) fenced_writes: AtomicU64,
    pub(super) leases_lost: AtomicU64,
    pub(super) actors: AtomicUsize,
    pub(super) actor_restarts: AtomicU64,
    shed: [AtomicU64; Shed::NAMES.len()],
    pub(super) census: Counts,
}

/// Why a request was told to slow down.
#[derive(Clone, Copy)]
pub(super) enum Shed {
    RequestsInFlight,
    WaitersPerGrant,
    Mailbox,
}

impl Shed {
    const NAMES: [&str; 3] = ["requests_in_flight", "waiters_per_grant", "mailbox"];
}

impl Counters {
    pub(super) fn shed(&self, why: Shed) {
        count(&self.shed[why as usize]);
    }

    /// An answer that came when its row had moved on.
    pub(super) fn replied(&self, reply: ChangeReply) {
        if matches!(
            reply,
            ChangeReply::Resolved(Resolution::Drop | Resolution::Revoke | Resolution::Alt | Resolution::MovedOn)
        ) {
            count(&self.fenced_writes);
        }
    }
}

/// What is counted of one identity provider; outlives its settings.
#[derive(Debug, Default)]
pub(super) struct IdpCounters {
    refreshes: [AtomicU64; Outcome::NAMES.len()],
    pub(super) lost_answers: AtomicU64,
    phases: [Histogram; Phase::NAMES.len()],
}

/// What a refresh came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It brought another refresh token.
    Rotated,
    /// It brought none, or the same.
    Kept,
    /// Somebody else had stored a newer token.
    Adopted,
    /// Somebody else was at it, too.
    Race,
    /// Only consent helps.
    User,
    /// Our client or its settings were refused.
    Operator,
    Throttled,
    Transient,
    InDoubt,
}

impl Outcome {
    const NAMES: [&str; 9] =
        ["rotated", "kept", "adopted", "race", "user", "operator", "throttled", "transient", "in_doubt"];
}

/// What a refresh spends its time with.
#[derive(Clone, Copy)]
pub(super) enum Phase {
    Gate,
    Claim,
    Idp,
    Seal,
    Commit,
}

impl Phase {
    const NAMES: [&str; 5] = ["gate", "claim", "idp", "seal", "commit"];
}

impl IdpCounters {
    pub(super) fn refreshed(&self, outcome: Outcome) {
        count(&self.refreshes[outcome as usize]);
    }

    pub(super) fn took(&self, phase: Phase, time: Duration) {
        self.phases[phase as usize].took(time);
    }
}

impl TokenSupervisor {
    /// What the supervisor has counted and measured, to be shown to whatever collects metrics. Names are those of the
    /// HTTP API's `/metrics`, without their prefix. Grants are counted in the store, once a minute at most and only if
    /// somebody asks; a count that takes longer than 5 s is told by the next call, and the one before meanwhile.
    ///
    /// Dropping the future loses nothing.
    pub async fn metrics(&self) -> Vec<Metric> {
        let core = &self.shared.core;
        let mut metrics = core.of_idps();
        metrics.extend(core.of_grants().await);
        metrics.extend(core.meters.metrics());
        metrics.extend(core.of_the_process());
        metrics
    }

    /// Whether the store's last answer was that it gives none.
    pub fn is_store_down(&self) -> bool {
        self.shared.core.meters.is_down()
    }
}

fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Counter, help)
}

fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Gauge, help)
}

impl Core {
    fn of_the_process(&self) -> Vec<Metric> {
        let counters = &self.counters;
        let number = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as f64;
        let mut actors = gauge("actors", "Actors that are awake, and refreshes that run.");
        actors.push(&[("state", "awake")], number(&counters.actors));
        actors.push(&[("state", "refreshing")], self.attempts.len() as f64);
        let mut shed = counter("shed_total", "Requests that were told to slow down.");
        for (why, total) in Shed::NAMES.iter().zip(&counters.shed) {
            shed.push(&[("reason", why)], load(total));
        }
        vec![
            actors,
            counter("actor_restarts_total", "Actors that panicked and were replaced.")
                .of(load(&counters.actor_restarts)),
            shed,
            gauge("waiters", "Callers that wait for an answer.").of(number(&self.in_flight)),
            gauge("journal_pending", "Answers in the journal that the store has not got yet.")
                .of(self.journal.pending() as f64),
            counter("fenced_writes_total", "Answers whose row had moved on when they came.")
                .of(load(&counters.fenced_writes)),
            counter("leases_lost_total", "Leases that were gone when their holder wanted to keep them.")
                .of(load(&counters.leases_lost)),
        ]
    }

    fn of_idps(&self) -> Vec<Metric> {
        let mut paused = gauge("idp_paused", "Nothing is sent to the identity provider for now.");
        let mut breaker = gauge("idp_breaker", "1 while requests are held back but for one that probes, else 0.");
        let mut refreshes = counter("refreshes_total", "Refreshes by what they came to.");
        let mut seconds =
            Metric::new("refresh_seconds", MetricKind::Histogram, "How long the phases of refreshes took.");
        let mut lost = counter("lost_answers_total", "Refreshes that were sent and brought no whole answer.");
        let (idps, now) = (self.idps.load(), self.clock.read());
        for (idp, provider) in idps.iter().collect::<BTreeMap<_, _>>() {
            let (gate, counters) = (&provider.gate, &provider.counters);
            let held = self.idp_held(idp).map(|_| Cause::IdpHeld);
            for reason in gate.closed(now).map(|closed| closed.cause).into_iter().chain(held) {
                paused.push(&[("idp", idp), ("reason", reason.as_str())], 1.0);
            }
            breaker.push(&[("idp", idp)], f64::from(u8::from(gate.is_broken())));
            for (outcome, total) in Outcome::NAMES.iter().zip(&counters.refreshes) {
                refreshes.push(&[("idp", idp), ("outcome", outcome)], load(total));
            }
            for (phase, took) in Phase::NAMES.iter().zip(&counters.phases) {
                seconds.observe(&[("idp", idp), ("phase", phase)], took);
            }
            lost.push(&[("idp", idp)], load(&counters.lost_answers));
        }
        vec![paused, breaker, refreshes, seconds, lost]
    }

    async fn of_grants(self: &Arc<Self>) -> Vec<Metric> {
        let census = self.census().await;
        let stands_still = |idp: &str| self.provider(idp).is_none() || self.idp_held(idp).is_some();
        census.map_or_else(Vec::new, |census| of_census(&census, stands_still))
    }
}

/// `stands_still` tells the providers that are held or not configured any more: nothing is sent there.
fn of_census(census: &Census, stands_still: impl Fn(&str) -> bool) -> Vec<Metric> {
    let mut grants = gauge(
        "grants",
        "Grants by what they are doing, as last counted: a minute ago at most, longer in a large store.",
    );
    let mut lag = gauge("due_lag_seconds", "How late the most overdue refresh is.");
    let mut impact =
        gauge("first_impact_seconds", "Until the first still valid token of a failing or held grant runs out.");
    let mut idps: BTreeMap<&str, Vec<&Counted>> = BTreeMap::new();
    for counted in &census.counted {
        idps.entry(&counted.idp).or_default().push(counted);
    }
    for (idp, counted) in idps {
        for state in State::ALL {
            let alike = counted.iter().filter(|counted| counted.marks.state() == state);
            let total = alike.map(|counted| counted.grants).sum::<u64>();
            grants.push(&[("idp", idp), ("state", state.as_str())], total as f64);
        }
        let alive = || counted.iter().filter(|counted| !counted.marks.ended);
        let stands_still = stands_still(idp);
        let sendable =
            |counted: &Counted| counted.refreshable && !counted.marks.required && !counted.held && !stands_still;
        let overdue = alive().filter(|counted| counted.marks.due && sendable(counted));
        let first = overdue.filter_map(|counted| counted.first_due).min();
        lag.push(&[("idp", idp)], first.map_or(0.0, |due| census.now.by_wall_clock().since(due).as_secs_f64()));
        let hindered = |counted: &Counted| {
            let Counted { failing, held, marks, .. } = counted;
            *failing || *held || stands_still || marks.required || (marks.doubted && !marks.leased)
        };
        let first = alive().filter(|counted| hindered(counted)).filter_map(|counted| counted.first_end).min();
        if let Some(end) = first {
            impact.push(&[("idp", idp)], end.since(census.now.by_wall_clock()).as_secs_f64());
        }
    }
    vec![grants, lag, impact]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_whose_row_had_moved_on_are_fenced() {
        let counters = Counters::default();
        for reply in [ChangeReply::Done, ChangeReply::Refused]
            .into_iter()
            .chain([Resolution::Own, Resolution::Replace].map(ChangeReply::Resolved))
        {
            counters.replied(reply);
        }
        assert_eq!(load(&counters.fenced_writes), 0.0);
        for moved in [Resolution::Drop, Resolution::Revoke, Resolution::Alt, Resolution::MovedOn] {
            counters.replied(ChangeReply::Resolved(moved));
        }
        assert_eq!(load(&counters.fenced_writes), 4.0);
    }
}
