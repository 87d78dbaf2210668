//! The metrics of the supervisor.
//!
//! Nothing is counted where a valid token is handed out: that costs nanoseconds.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{PoisonError, atomic::Ordering},
};

use super::{TokenSupervisor, front::Front, provider::Providers, token::Surroundings};
use crate::{
    clock::Reading,
    error::Cause,
    journal,
    keyring::KeyLabel,
    metrics::{Metric, MetricKind, load},
    model::State,
    store::{Census, Counted, KeyUse, Outbox},
};

impl TokenSupervisor {
    /// Returns the metrics, for a collector. Names are those of the HTTP API's `/metrics`, without their prefix. Grants are
    /// counted in the store, once a minute at most and only when metrics are read; while a count takes longer than 5 s, the
    /// one before is returned.
    ///
    /// Dropping the future loses nothing.
    pub async fn metrics(&self) -> Vec<Metric> {
        let rooms = &self.rooms;
        let providers = &rooms.providers;
        let mut metrics = of_idps(providers, self.clock().read());
        if let Some(counted) = rooms.grants.counted().await {
            metrics.extend(of_census(&counted.census, |idp| providers.stands_still(idp)));
            metrics.push(of_keys(&counted.keys, rooms.refresher.ports().keyring.labels()));
        }
        metrics.extend(rooms.meters.metrics());
        let full = f64::from(u8::from(self.is_disk_full()));
        metrics.push(
            gauge("unreadable_rows", "Stored grants that cannot be read: damaged, or changed by another program.")
                .of(self.unreadable_rows() as f64),
        );
        let replicas = rooms.ledger.replicas();
        metrics.push(
            gauge("replicas", "Live processes at the same store, this one included.").of(replicas.live_count() as f64),
        );
        let cut_off = f64::from(u8::from(self.is_cut_off()));
        metrics.push(gauge("cut_off", "1 while the changes of other replicas do not arrive.").of(cut_off));
        metrics.push(gauge("disk_full", "1 while the disk of the store or of the journal is full.").of(full));
        metrics.extend(of_process(&rooms.around, &rooms.front));
        metrics
    }

    /// Whether the store's last operation failed because the store did not respond, or the journal cannot be written.
    pub fn is_store_down(&self) -> bool {
        self.rooms.meters.is_down() || self.journal_trouble() == Some(Cause::StoreDown)
    }

    /// Whether the changes of other processes at the same PostgreSQL store have not reached this one for 15 s: it serves the
    /// tokens that it has for [`served_unheard`](crate::Builder::served_unheard), and reads each from the store after that.
    pub fn is_cut_off(&self) -> bool {
        self.rooms.ledger.replicas().is_cut_off(self.clock().read().boot)
    }

    /// Whether the disk of the store or of the journal is full. Asks the journal's disk for room.
    pub fn is_disk_full(&self) -> bool {
        self.rooms.meters.is_full() || self.journal_trouble() == Some(Cause::DiskFull)
    }

    /// Returns how many of the stored grants that were read since the start cannot be read: they are damaged, or were changed
    /// by another program.
    pub fn unreadable_rows(&self) -> usize {
        self.rooms.ledger.store().unreadable()
    }

    /// Returns the files of damaged journals that were set aside at a start. Responses in their damaged parts are lost
    /// unless a good copy of the file is put back; their grants are in doubt.
    pub fn damaged_journals(&self) -> Vec<PathBuf> {
        self.rooms.refresher.ports().journal.damaged()
    }

    fn journal_trouble(&self) -> Option<Cause> {
        self.rooms.refresher.ports().journal.reserve().err().map(|error| journal::cause(&error))
    }
}

fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Counter, help)
}

fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Gauge, help)
}

fn of_process(around: &Surroundings, front: &Front) -> Vec<Metric> {
    let ports = around.refresher.ports();
    let mut actors = gauge("actors", "Actors that are awake, and refreshes that run.");
    actors.push(&[("state", "awake")], around.awake.load(Ordering::Relaxed) as f64);
    actors.push(&[("state", "refreshing")], ports.attempts.len() as f64);
    let mut shed = counter("shed_total", "Requests that were told to slow down, and connections that were closed.");
    for (bound, total) in &around.shed.0 {
        shed.push(&[("reason", bound.into())], load(total));
    }
    vec![
        actors,
        counter("actor_restarts_total", "Actors that panicked and were replaced.").of(load(&around.restarts)),
        shed,
        gauge("waiters", "Callers that wait for an answer.").of(front.waiting() as f64),
        gauge("journal_pending", "Responses in the journal that the store does not have yet.")
            .of(ports.journal.pending() as f64),
        counter("fenced_writes_total", "Responses whose row had moved on when they were stored.")
            .of(load(ports.ledger.fenced_writes())),
        counter("leases_lost_total", "Leases that were gone when their holder renewed them.")
            .of(load(&ports.leases_lost)),
    ]
}

fn of_idps(providers: &Providers, now: Reading) -> Vec<Metric> {
    let mut paused = gauge("idp_paused", "1 while refreshes at the identity provider are paused or on hold.");
    let mut breaker =
        gauge("idp_breaker", "1 while the breaker lets one request at a time through as a probe, else 0.");
    let mut refreshes = counter("refreshes_total", "Refreshes by their result.");
    let mut seconds = Metric::new("refresh_seconds", MetricKind::Histogram, "Duration of the phases of refreshes.");
    let mut tolerated = counter("tolerated_answers_total", "Responses that are not JSON, and were read all the same.");
    let mut drift =
        counter("preset_drift_total", "Fields of responses whose value makes no sense as what it should be.");
    let mut lost = counter("lost_answers_total", "Refreshes that were sent and brought no complete response.");
    for (idp, provider) in providers.all().iter().collect::<BTreeMap<_, _>>() {
        let (gate, counters) = (&provider.gate, &provider.counters);
        let held = providers.held(idp).map(|_| Cause::IdpHeld);
        for reason in gate.closed(now).map(|closed| closed.cause).into_iter().chain(held) {
            paused.push(&[("idp", idp), ("reason", reason.as_str())], 1.0);
        }
        breaker.push(&[("idp", idp)], f64::from(u8::from(gate.is_broken())));
        for (outcome, total) in &counters.refreshes {
            refreshes.push(&[("idp", idp), ("outcome", outcome.into())], load(total));
        }
        for (phase, took) in &counters.phases {
            seconds.push_histogram(&[("idp", idp), ("phase", phase.into())], took);
        }
        lost.push(&[("idp", idp)], load(&counters.lost_responses));
        for (flaw, total) in &counters.tolerated {
            tolerated.push(&[("idp", idp), ("reason", flaw.into())], load(total));
        }
        for (field, total) in counters.drift.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            drift.push(&[("idp", idp), ("field", field)], *total as f64);
        }
    }
    vec![paused, breaker, refreshes, seconds, lost, tolerated, drift]
}

/// `stands_still` says of a provider whether nothing is sent there: it is on hold, or not configured any more.
fn of_census(census: &Census, stands_still: impl Fn(&str) -> bool) -> Vec<Metric> {
    let mut grants =
        gauge("grants", "Grants by state, as last counted: a minute ago at most, longer in a large store.");
    let mut lag = gauge("due_lag_seconds", "Seconds that the most overdue refresh is late.");
    let mut impact =
        gauge("first_impact_seconds", "Seconds until the first still valid token of a failing or held grant expires.");
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
    let Outbox { pending, unconfirmed } = census.outbox;
    let pending = gauge("outbox_pending", "Revocations that are queued, as last counted.").of(pending as f64);
    let unconfirmed =
        gauge("outbox_unconfirmed", "Those of them that were sent and are not confirmed: they are retried.")
            .of(unconfirmed as f64);
    vec![grants, lag, impact, pending, unconfirmed]
}

/// A key that has sealed nothing counts as zero: it can be removed.
fn of_keys(used: &[KeyUse], keys: Vec<KeyLabel>) -> Metric {
    let mut rows =
        gauge("key_rows", "Grants and queued revocations with a value that the key sealed, as last counted.");
    let mut counts: BTreeMap<String, u64> = keys.into_iter().map(|key| (key.id, 0)).collect();
    counts.extend(used.iter().map(|used| (used.key.to_string(), used.rows + used.revocations)));
    for (key, count) in counts {
        rows.push(&[("key", &key)], count as f64);
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervisor::{bench::Bench, provider::RefreshOutcome, shed::Bound};

    #[tokio::test]
    async fn every_value_of_a_label_has_a_sample_with_its_name() {
        let bench = Bench::with_idp("idp");
        let counters = &bench.providers.get("idp").unwrap().counters;
        counters.refreshed(RefreshOutcome::InDoubt);
        counters.phases.iter().for_each(|(phase, _)| counters.took(phase, Duration::ZERO));
        let (around, front, ..) = bench.assembled();
        around.shed.count(Bound::WaitersPerGrant);
        let mut metrics = of_idps(&bench.providers, bench.clock.read());
        metrics.extend(of_process(&around, &front));
        let text = format!("{metrics:?}");
        for name in [
            "rotated",
            "kept",
            "adopted",
            "race",
            "user",
            "operator",
            "throttled",
            "transient",
            "in_doubt",
            "gate",
            "claim",
            "seal",
            "commit",
            "requests_in_flight",
            "waiters_per_grant",
            "mailbox",
        ] {
            assert!(text.contains(&format!("{name:?}")), "{name} in {text}");
        }
    }
}
