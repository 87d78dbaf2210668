//! The verdict: what the providers' ledgers say about the stored tokens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;
use token_supervisor::{
    RefreshToken, State,
    testing::{Outcome, SimulatedIdp, Standing, stored_refresh_token},
};

use super::{
    DemoArgs,
    load::{Reader, injected_panics},
    meter::DemoMeter,
    naive::Naive,
    time::{Moment, pause},
    world::{Pair, World},
};

/// The result, printed as JSON or in words.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) pairs: u32,
    pub(super) seconds: f64,
    pub(super) seed: u64,
    /// The URL of the HTTP API.
    pub(super) server: String,
    pub(super) refreshes: u64,
    pub(super) refreshes_per_second: f64,
    pub(super) reads: u64,
    pub(super) reads_per_second: f64,
    pub(super) read_p99_us: f64,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) actor_panics: u64,
    pub(super) registry_panics: u64,
    pub(super) duplicate_spends: u64,
    pub(super) lost_rotations: u64,
    pub(super) caller_errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) naive: Option<Compared>,
    /// Each problem, with its grant. Empty if all went well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) findings: Vec<String>,
    pub(super) result: &'static str,
}

/// The result of the client without supervision. It does not affect the verdict.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    pub(super) duplicate_spends: u64,
    /// Users whose grant is lost.
    pub(super) logged_out: u64,
    pub(super) of: u64,
    pub(super) caller_errors: u64,
    pub(super) refreshes: u64,
}

/// The problems, counted and in words; empty and zero if there are none.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) lost_rotations: u64,
    pub(crate) texts: Vec<String>,
    /// Why the stored tokens could not be judged, if so.
    pub(crate) unjudged: Option<String>,
}

/// Waits until no grant is in doubt or being refreshed, then reads every token once more.
pub(crate) async fn quiet_down(world: &Arc<World>, meter: &Arc<DemoMeter>, within: Duration) {
    let started = Moment::now();
    let mut restless: Vec<usize> = (0..world.pairs.len()).collect();
    while !restless.is_empty() && started.elapsed() < within {
        let mut still = Vec::new();
        for pair in restless {
            let state = world.supervisor.status(&world.pairs[pair].key).await.map(|status| status.state);
            let passing = matches!(state, Ok(State::InDoubt | State::Refreshing | State::Backoff) | Err(_));
            still.extend(passing.then_some(pair));
        }
        restless = still;
        pause(Duration::from_millis(50)).await;
    }
    for pair in 0..world.pairs.len() {
        Reader { world: world.clone(), meter: meter.clone() }.wait(pair, false).await;
    }
}

/// Stops the supervisor and compares the stored tokens with the providers' ledgers.
pub(crate) async fn find(world: &World, meter: &DemoMeter) -> Findings {
    let mut findings = Findings::default();
    for ((pair, seen), times) in meter.errors() {
        findings.add(world, pair, &format!("callers saw: {seen}, {times} times"));
    }
    for (name, sim) in &world.idps {
        for spent in sim.presentations() {
            if let (true, Outcome::Refused | Outcome::KilledFamily, Some(token)) =
                (spent.duplicate, spent.outcome, spent.token)
            {
                let (user, serial) = (&token.user, token.serial);
                findings.texts.push(format!("{name}/{user}: refresh token {serial} was spent twice"));
            }
        }
    }
    let stopped = world.supervisor.shutdown(Duration::from_secs(15)).await;
    if stopped.abandoned > 0 {
        return findings.without_judgement(format!("{} refreshes did not finish", stopped.abandoned));
    }
    let keys: Vec<_> = world.pairs.iter().map(|pair| pair.key.clone()).collect();
    let stored = match stored_refresh_token(&world.store, &world.keyring, &keys).await {
        Ok(stored) => stored,
        Err(error) => return findings.without_judgement(format!("the store cannot be read: {error}")),
    };
    for (pair, standing) in lost(&world.pairs, &stored) {
        findings.lost_rotations += 1;
        findings.add(world, pair, &format!("the stored refresh token is {standing}"));
    }
    findings
}

/// Returns the pairs whose stored refresh token is unusable, with its standing.
fn lost(pairs: &[Pair], stored: &[Option<RefreshToken>]) -> Vec<(usize, String)> {
    let standings = pairs.iter().zip(stored).map(|(pair, token)| token.as_ref().map(|token| pair.sim.standing(token)));
    let bad = standings.enumerate().filter_map(|(pair, standing)| match standing {
        Some(Standing::Current | Standing::WithinGrace) => None,
        Some(standing) => Some((pair, format!("{standing:?}"))),
        None => Some((pair, "missing".to_owned())),
    });
    bad.collect()
}

impl Compared {
    pub(super) fn new(naive: &Naive) -> Self {
        Self {
            duplicate_spends: duplicate_spends(naive.idps()),
            logged_out: lost(naive.pairs(), &naive.stored()).len() as u64,
            of: naive.pairs().len() as u64,
            caller_errors: naive.meter().errors().values().sum(),
            refreshes: refreshes(naive.idps()),
        }
    }
}

impl Findings {
    fn without_judgement(mut self, why: String) -> Self {
        self.texts.push(why.clone());
        self.unjudged = Some(why);
        self
    }

    fn add(&mut self, world: &World, pair: usize, text: &str) {
        let key = &world.pairs[pair].key;
        self.texts.push(format!("{}/{}: {text}", key.idp(), key.user()));
    }
}

impl Summary {
    pub(super) fn new(
        args: &DemoArgs,
        seed: u64,
        world: &World,
        meter: &DemoMeter,
        elapsed: Duration,
        reads: u64,
        findings: Findings,
    ) -> Self {
        let Findings { lost_rotations, mut texts, unjudged: _ } = findings;
        let refreshes = refreshes(&world.idps);
        let caller_errors = meter.errors().values().sum();
        let duplicate_spends = duplicate_spends(&world.idps);
        if refreshes == 0 && elapsed > world.lifetime {
            texts.push("nothing was refreshed".to_owned());
        }
        let (actor_panics, registry_panics) = injected_panics();
        let failed = !texts.is_empty() || duplicate_spends + lost_rotations + caller_errors > 0;
        let per_second = |count: u64| tenths(count as f64 / elapsed.as_secs_f64());
        Self {
            pairs: args.pairs,
            seconds: tenths(elapsed.as_secs_f64()),
            seed,
            server: String::new(),
            refreshes,
            refreshes_per_second: per_second(refreshes),
            reads,
            reads_per_second: per_second(reads),
            read_p99_us: meter.p99(),
            faults: faults(world),
            actor_panics,
            registry_panics,
            duplicate_spends,
            lost_rotations,
            caller_errors,
            naive: None,
            findings: texts,
            result: if failed { "fail" } else { "pass" },
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.result == "pass"
    }
}

/// Returns how many refreshes the providers processed with success.
fn refreshes(idps: &[(&'static str, SimulatedIdp)]) -> u64 {
    let count = |sim: &SimulatedIdp| {
        let processed = |outcome| matches!(outcome, Outcome::Rotated | Outcome::Replayed);
        sim.presentations().iter().filter(|spent| processed(spent.outcome)).count() as u64
    };
    idps.iter().map(|(_, sim)| count(sim)).sum()
}

/// Returns how often a spent refresh token was presented again outside a grace period.
pub(crate) fn duplicate_spends(idps: &[(&'static str, SimulatedIdp)]) -> u64 {
    idps.iter().map(|(_, sim)| sim.duplicate_spends()).sum()
}

/// Returns how often each fault was injected, over all providers.
pub(crate) fn faults(world: &World) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for (name, times) in world.idps.iter().flat_map(|(_, sim)| sim.faults_injected()) {
        *all.entry(name).or_default() += times;
    }
    all
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
