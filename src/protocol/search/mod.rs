//! An exhaustive search through the protocol: every interleaving of steps and faults.
//!
//! It drives the production types themselves (the state machine of an attempt, the changes of a row) against a small
//! model of their surroundings: the store with one row, the journals, one or two processes that may be killed and
//! restarted, and an identity provider with each policy for reused tokens.
//!
//! * [`world`]: a state of the model; [`digest`]: its digest, which distinguishes it; [`idp`]: the provider.
//! * [`moves`]: the moves that are possible in a state; [`attempts`] and [`effects`]: what they do.
//! * [`invariants`]: what must hold in every state; [`liveness`]: what every state must lead to.
//! * [`trace`]: the description of a violation, with the fewest moves that lead to it.
//!
//! A budget bounds how much may go wrong, and the budgets grow. A 64-bit digest distinguishes states, so that tens of
//! millions fit into memory; among as many, two are confused with a probability below a thousandth.
//!
//! `cargo test` searches a few states. `.ci/run check-protocol` searches further: `TOKEN_SUPERVISOR_CHECK_BUDGET` is the
//! number of states after which a search is cut off, optionally followed by words that select the searches by name:
//! `10000000 strict 2`.

mod attempts;
mod digest;
mod effects;
mod idp;
mod invariants;
mod liveness;
mod moves;
mod trace;
mod world;

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use idp::ReusePolicy;
use moves::Move;
use world::{Budget, ModelWorld, Setting};

use super::doubt::ProbeMeans;

/// Passes digests through: they are hashes already.
#[derive(Default)]
struct Given(u64);

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }
}

struct SearchResult {
    states: usize,
    moves: u64,
    depth: u32,
    complete: bool,
    violation: Option<String>,
}

/// Searches breadth-first, so that the first violation has the shortest trace.
fn search(setting: &Setting, budget: Budget, most: usize, sample: u64) -> SearchResult {
    let first = ModelWorld::new(setting, budget);
    let mut seen: HashSet<u64, BuildHasherDefault<Given>> = HashSet::default();
    // The parent of each state, and which of its moves led here.
    let mut ways: Vec<(u32, u8)> = vec![(0, 0)];
    let mut frontier = VecDeque::from([(0_u32, 0_u32, first)]);
    let mut found = SearchResult { states: 1, moves: 0, depth: 0, complete: true, violation: None };
    seen.insert(ModelWorld::new(setting, budget).digest());
    let traced = |ways: &[(u32, u8)], at: u32, last: Option<Move>, broken: String, rest: &[Move]| {
        let mut chosen = Vec::new();
        let mut at = at;
        while at != 0 {
            chosen.push(ways[at as usize].1);
            at = ways[at as usize].0;
        }
        let mut world = ModelWorld::new(setting, budget);
        let mut moves = Vec::new();
        for place in chosen.into_iter().rev() {
            let next = world.moves(setting)[usize::from(place)];
            moves.push(next);
            world.carry_out(next, setting).ok();
        }
        moves.extend(last);
        format!("{broken}\n{}", trace::describe(ModelWorld::new(setting, budget), &moves, rest, setting))
    };
    while let Some((at, depth, world)) = frontier.pop_front() {
        found.depth = depth;
        for (place, chosen) in (0..).zip(world.moves(setting)) {
            let mut next = world.clone();
            found.moves += 1;
            let broken = next.carry_out(chosen, setting).err();
            if let Some(broken) = broken.or_else(|| invariants::broken(&next, setting)) {
                found.violation = Some(traced(&ways, at, Some(chosen), broken, &[]));
                return found;
            }
            let digest = next.digest();
            if !seen.insert(digest) {
                continue;
            }
            if digest % sample == 0
                && let Err((broken, rest)) = liveness::comes_to_rest(&next, digest & 64 == 0, setting)
            {
                found.violation = Some(traced(&ways, at, Some(chosen), broken, &rest));
                return found;
            }
            found.states += 1;
            if found.states > most {
                found.complete = false;
                return found;
            }
            frontier.push_back((ways.len() as u32, depth + 1, next));
            ways.push((at, place));
        }
    }
    found
}

/// Budgets, in the order in which they are searched.
///
/// The first three have orders and little else, so that a search that is cut off early still covers some, and two in
/// combination. Pauses and timeouts cost nothing: even without a fault two paused senders meet.
const BUDGETS: [Budget; 17] = [
    budget([0, 0, 0, 1, 2]),
    budget([1, 0, 0, 1, 1]),
    budget([0, 0, 0, 2, 1]),
    budget([1, 0, 0, 2, 0]),
    budget([1, 1, 0, 2, 0]),
    budget([0, 0, 0, 3, 0]),
    budget([0, 1, 0, 3, 0]),
    budget([0, 0, 0, 2, 2]),
    budget([1, 0, 0, 2, 1]),
    budget([1, 1, 1, 2, 1]),
    budget([0, 1, 1, 3, 1]),
    budget([1, 0, 0, 3, 0]),
    budget([2, 0, 0, 3, 0]),
    budget([2, 1, 0, 3, 0]),
    budget([1, 0, 0, 2, 2]),
    budget([2, 2, 1, 3, 2]),
    budget([3, 2, 1, 4, 2]),
];

const fn budget([faults, kills, disks, claims, orders]: [u8; 5]) -> Budget {
    Budget { faults, kills, disks, claims, orders }
}

fn settings() -> Vec<(String, Setting)> {
    let kinds = [
        ReusePolicy::Strict,
        ReusePolicy::Reject,
        ReusePolicy::SamePair,
        ReusePolicy::LastWins,
        ReusePolicy::RetrySafe,
        ReusePolicy::NotRotating,
    ];
    let mut settings = Vec::new();
    for kind in kinds {
        for replicas in [1, 2] {
            settings.push((format!("{kind:?} {replicas}"), Setting::new(kind, replicas)));
        }
    }
    let shared = Setting { shared_disk: true, ..Setting::new(ReusePolicy::Strict, 2) };
    settings.push(("Strict 2 shared disk".to_owned(), shared));
    for (name, kind, replicas, probe) in [
        ("Strict 1 introspection", ReusePolicy::Strict, 1, ProbeMeans::Introspection),
        ("Strict 2 introspection", ReusePolicy::Strict, 2, ProbeMeans::Introspection),
        ("Reject 2 access token", ReusePolicy::Reject, 2, ProbeMeans::AccessToken),
    ] {
        settings.push((name.to_owned(), Setting::new(kind, replicas).probing(probe)));
    }
    let user = Setting { revokes_user: true, ..Setting::new(ReusePolicy::Reject, 1) };
    settings.push(("Reject 1 revokes user".to_owned(), user));
    settings
}

#[expect(clippy::disallowed_methods, reason = "requests a longer search; nothing else reads it")]
fn asked_for() -> Option<(usize, Vec<String>)> {
    let text = std::env::var("TOKEN_SUPERVISOR_CHECK_BUDGET").ok()?;
    let mut words = text.split_whitespace().map(str::to_lowercase);
    let most = words.next()?.parse().expect("TOKEN_SUPERVISOR_CHECK_BUDGET must begin with a number of states");
    Some((most, words.collect()))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the search reports how long it took")]
fn every_interleaving_keeps_the_invariants() {
    let asked = asked_for();
    let (most, words) = asked.clone().unwrap_or((2_000, Vec::new()));
    let mut violations = Vec::new();
    for (name, setting) in settings() {
        let lower = name.to_lowercase();
        if !words.iter().all(|word| lower.split(' ').any(|part| part == word)) {
            continue;
        }
        let mut cut_off: Vec<Budget> = Vec::new();
        for budget in BUDGETS {
            // It allows everything that a search which was cut off allows: it would be cut off sooner.
            if cut_off.iter().any(|smaller| smaller.fits_into(budget)) {
                continue;
            }
            let start = std::time::Instant::now();
            let sample = if most > 1_000_000 { 16 } else { 1 };
            let SearchResult { states, moves, depth, complete, violation } = search(&setting, budget, most, sample);
            let took = start.elapsed().max(Duration::from_millis(1));
            let Budget { faults, kills, disks, claims, orders } = budget;
            println!(
                "{name:<24} faults {faults} kills {kills} disks {disks} claims {claims} orders {orders}: {states:>9} states, \
                 {moves:>10} moves, depth {depth:>3}, {:>6.1} s, {:>7.0} states/s{}",
                took.as_secs_f64(),
                states as f64 / took.as_secs_f64(),
                if complete { "" } else { ", cut off" },
            );
            if let Some(violation) = violation {
                println!("{violation}\n");
                violations.push(format!("{name}: {}", violation.lines().next().unwrap_or_default()));
                break;
            }
            if !complete {
                cut_off.push(budget);
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}
