//! The processes that work with the same store: what this one has to tell the others, and which of them live.
//!
//! This module only keeps; [`exchange`](super::exchange) does the talking. A store for one process has no other: then nothing
//! is kept here.

mod news;
mod queue;

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(super) use self::{
    news::{ChangedNews, EventNews, News, hear, texts},
    queue::NewsQueue,
};
use crate::{
    keyring::KeyLabel,
    model::{BootTime, Id},
    store::ReplicaReport,
};

/// A process writes its report this often, and proves that it hears the others.
pub(super) const REPORTED_EVERY: Duration = Duration::from_secs(5);

/// A process that has not written its report for so long is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// A process that could not prove for so long that it hears the others is degraded.
const UNHEARD_AFTER: Duration = Duration::from_secs(15);

/// A process that works with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replica {
    /// The name of the process: random, new with each start.
    pub id: String,
    /// The version of the program.
    pub version: String,
    /// The keys that the process has.
    pub keys: Vec<KeyLabel>,
    /// The name of the process's journal, which stays the same over restarts.
    pub journal: String,
    /// How long ago the process wrote its report.
    pub last_seen: Duration,
    /// Whether the process is about to stop, and leaves due grants to the others.
    pub is_stopping: bool,
    /// Whether it is this process.
    pub is_this: bool,
}

impl Replica {
    /// Whether the process has not reported for so long that it is taken for dead.
    pub(super) fn is_dead(&self) -> bool {
        self.last_seen >= DEAD_AFTER
    }
}

/// The report of a process, as the store keeps it.
#[derive(Serialize, Deserialize)]
struct Report {
    version: String,
    keys: Vec<KeyLabel>,
    journal: String,
    /// What the process has stored lately may not have been told.
    #[serde(default)]
    unheard: bool,
    #[serde(default)]
    stopping: bool,
}

pub(super) struct Replicas {
    id: Id,
    /// Whether other processes can use the store.
    is_shared: bool,
    pub(super) queue: NewsQueue,
    live: Mutex<Vec<Replica>>,
    /// The processes that were found dead, with the age of their reports in milliseconds.
    dead: Mutex<HashMap<String, u64>>,
    /// When the process last began a proof that it hears the others, which succeeded; by the boot-time clock.
    heard_at: AtomicI64,
    /// What is published is to be compared with the store: something may have been missed.
    pub(super) to_compare: watch::Sender<bool>,
    /// Whether the last comparison is complete.
    is_compared: AtomicBool,
    /// The number of proofs that were begun.
    echoes: AtomicU64,
    /// The highest proof that came back.
    pub(super) echoed: watch::Sender<u64>,
    /// The number of changes that are under way.
    changing: watch::Sender<usize>,
}

/// A change that is under way.
pub(super) struct Changing(watch::Sender<usize>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What a look at the reports of all processes brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sighting {
    /// A process died, perhaps before it told what it had stored, or lives and does not get it told.
    pub(super) untold: bool,
    /// The number of processes that share the work, at least one.
    pub(super) live: usize,
}

impl Replicas {
    pub(super) fn new(is_shared: bool, now: BootTime) -> Self {
        Self {
            id: Id::random(),
            is_shared,
            queue: NewsQueue::default(),
            live: Mutex::default(),
            dead: Mutex::default(),
            heard_at: AtomicI64::new(now.0),
            to_compare: watch::Sender::new(false),
            is_compared: AtomicBool::new(true),
            echoes: AtomicU64::new(0),
            echoed: watch::Sender::new(0),
            changing: watch::Sender::new(0),
        }
    }

    /// Whether other processes can use the store.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The name of this process.
    pub(super) fn name(&self) -> String {
        self.id.public("r")
    }

    /// Counts a change that is under way, for as long as the result lives: it may have to be told.
    pub(super) fn changing(&self) -> Changing {
        self.changing.send_modify(|count| *count += 1);
        Changing(self.changing.clone())
    }

    /// Resolves when no change is under way.
    pub(super) async fn none_changing(&self) {
        self.changing.subscribe().wait_for(|count| *count == 0).await.ok();
    }

    /// Tells the other processes, soon; not if there can be none.
    pub(super) fn tell(&self, news: impl FnOnce() -> News) {
        if self.is_shared {
            self.queue.put(news());
        }
    }

    /// Returns the report of this process. `unheard`: what it has stored lately may not have been told.
    pub(super) fn report(keys: Vec<KeyLabel>, journal: String, unheard: bool, stopping: bool) -> Vec<u8> {
        let report = Report { version: env!("CARGO_PKG_VERSION").to_owned(), keys, journal, unheard, stopping };
        serde_json::to_vec(&report).expect("plain structs have a JSON form")
    }

    /// Returns the report of this process as the store would return it.
    pub(super) fn own(&self, report: Vec<u8>) -> ReplicaReport {
        ReplicaReport { id: self.name(), report, age_ms: 0 }
    }

    /// Takes the reports of all processes.
    pub(super) fn sight(&self, reports: Vec<ReplicaReport>) -> Sighting {
        let unheard =
            |found: &ReplicaReport| serde_json::from_slice::<Report>(&found.report).is_ok_and(|report| report.unheard);
        let others_unheard = reports.iter().any(|found| unheard(found) && found.id != self.name());
        // One that is not there any more has told everything before it left. One that is dead again has lived in between.
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = reports.iter().filter(|found| Duration::from_millis(found.age_ms) >= DEAD_AFTER);
        let silent: HashMap<_, _> = silent.map(|found| (found.id.clone(), found.age_ms)).collect();
        let died = silent.iter().any(|(id, age)| dead.get(id).is_none_or(|before| age < before));
        *dead = silent;
        drop(dead);
        *self.live() = self.read(reports).into_iter().filter(|replica| !replica.is_dead()).collect();
        Sighting { untold: died || others_unheard, live: self.live_count() }
    }

    /// Returns the journals of the processes that were there within this time.
    pub(super) fn journals(reports: &[ReplicaReport], within: Duration) -> impl Iterator<Item = String> {
        let lately = reports.iter().filter(move |found| Duration::from_millis(found.age_ms) < within);
        lately.filter_map(|found| Some(serde_json::from_slice::<Report>(&found.report).ok()?.journal))
    }

    /// Reads the reports of processes, also of those that have died since.
    pub(super) fn read(&self, reports: Vec<ReplicaReport>) -> Vec<Replica> {
        let own = self.name();
        let of = |found: ReplicaReport| {
            // A later version may write another report: the process lives all the same.
            let report = serde_json::from_slice::<Report>(&found.report).ok();
            let (version, keys, journal, is_stopping) = report
                .map_or_else(Default::default, |report| (report.version, report.keys, report.journal, report.stopping));
            let last_seen = Duration::from_millis(found.age_ms);
            Replica { version, keys, journal, last_seen, is_stopping, is_this: found.id == own, id: found.id }
        };
        reports.into_iter().map(of).collect()
    }

    fn live(&self) -> MutexGuard<'_, Vec<Replica>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of processes that share the work, as far as this one knows; at least one.
    pub(super) fn live_count(&self) -> usize {
        self.live().iter().filter(|replica| !replica.is_stopping).count().max(1)
    }

    /// Whether the refreshes of a key are this process's share: each key belongs to one of the processes that live.
    pub(super) fn has_share(&self, key: u64) -> bool {
        let live = self.live();
        let of = |replica: &Replica| rank(&replica.id, key);
        let best = live.iter().filter(|replica| !replica.is_stopping).max_by_key(|replica| of(replica));
        best.is_none_or(|best| best.is_this)
    }

    /// Returns the number of the next proof.
    pub(super) fn next_echo(&self) -> u64 {
        self.echoes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Something may have been missed: what is published is to be compared with the store.
    pub(super) fn compare(&self) {
        self.is_compared.store(false, Ordering::SeqCst);
        self.to_compare.send_replace(true);
    }

    /// Everything that was published has been compared with the store, unless [`compare`](Self::compare) was called since.
    pub(super) fn compared(&self) {
        // `compare` sets this to false before it sets the other one: whichever of the two comes last, this is false then.
        self.is_compared.store(true, Ordering::SeqCst);
        if *self.to_compare.borrow() {
            self.is_compared.store(false, Ordering::SeqCst);
        }
    }

    /// Records a proof that was begun at that time: whatever others had said before has been heard. It counts only once what
    /// may have been missed before is made up for.
    pub(super) fn heard(&self, began: BootTime) {
        if self.is_compared.load(Ordering::SeqCst) {
            self.heard_at.fetch_max(began.0, Ordering::SeqCst);
        }
    }

    /// Returns how long changes by other processes may have been missed.
    pub(super) fn unheard(&self, now: BootTime) -> Duration {
        now.since(BootTime(self.heard_at.load(Ordering::SeqCst)))
    }

    /// Whether changes by other processes do not reach this one.
    pub(super) fn is_cut_off(&self, now: BootTime) -> bool {
        self.is_shared && self.unheard(now) >= UNHEARD_AFTER
    }
}

/// The rank of a process for a key: the process with the highest one has the key.
fn rank(replica: &str, key: u64) -> u64 {
    // FNV-1a: the same in every process, whatever its version.
    let bytes = replica.bytes().chain(key.to_le_bytes());
    let mixed = bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The last bytes reach the high bits only now.
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, age_ms: u64) -> ReplicaReport {
        let report = Replicas::report(Vec::new(), "j".to_owned(), false, false);
        ReplicaReport { id: id.to_owned(), report, age_ms }
    }

    #[test]
    fn a_process_that_is_silent_has_died_and_one_that_said_so_has_left() {
        let replicas = Replicas::new(true, BootTime(0));
        let own = replicas.name();
        let sight = |others: &[ReplicaReport]| {
            let Sighting { untold, live } = replicas.sight([&[report(&own, 0)], others].concat());
            (untold, live)
        };
        assert_eq!(sight(&[report("r_b", 19_999)]), (false, 2));
        assert_eq!(sight(&[report("r_b", 20_000)]), (true, 1));
        assert_eq!(sight(&[report("r_b", 25_000)]), (false, 1), "it is known to be dead");
        assert_eq!(sight(&[report("r_b", 21_000)]), (true, 1), "it has lived in between");
        assert_eq!(sight(&[report("r_b", 0)]), (false, 2));
        assert_eq!(sight(&[]), (false, 1), "it left");
        let newer = ReplicaReport { id: "r_new".to_owned(), report: b"[1]".to_vec(), age_ms: 0 };
        assert_eq!(sight(&[newer]), (false, 2));
        let state = |unheard, stopping| {
            let report = Replicas::report(Vec::new(), "j".to_owned(), unheard, stopping);
            ReplicaReport { id: "r_b".to_owned(), report, age_ms: 0 }
        };
        assert_eq!(sight(&[state(true, false)]), (true, 2), "what it stores is not told");
        assert_eq!(sight(&[state(false, true)]), (false, 1), "it takes no share any more");
        assert!(replicas.live().iter().any(|replica| replica.is_this && replica.version == env!("CARGO_PKG_VERSION")));
        assert!((0..64).all(|key| replicas.has_share(key)));
    }

    #[test]
    fn each_key_belongs_to_one_process_and_the_shares_are_even() {
        let processes: Vec<_> = (0..3).map(|_| Replicas::new(true, BootTime(0))).collect();
        assert!(processes[0].has_share(1), "alone");
        let reports: Vec<_> = processes.iter().map(|process| report(&process.name(), 0)).collect();
        for process in &processes {
            process.sight(reports.clone());
        }
        let mut shares = [0; 3];
        for key in 0..30_000_u64 {
            let owners: Vec<_> = (0..3).filter(|at| processes[*at].has_share(key * 0x9e37_79b9)).collect();
            assert_eq!(owners.len(), 1);
            shares[owners[0]] += 1;
        }
        assert!(shares.iter().all(|share| (8_000..12_000).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_proof_counts_only_once_what_was_missed_is_made_up_for() {
        let replicas = Replicas::new(true, BootTime(1_000));
        assert!(!replicas.is_cut_off(BootTime(15_999)) && replicas.is_cut_off(BootTime(16_000)));
        replicas.compare();
        replicas.heard(BootTime(16_000));
        assert!(replicas.is_cut_off(BootTime(16_000)));
        replicas.compared();
        replicas.heard(BootTime(16_000));
        assert!(replicas.is_cut_off(BootTime(16_000)), "another comparison is due");
        replicas.to_compare.send_replace(false);
        replicas.compared();
        replicas.heard(BootTime(16_000));
        assert_eq!(replicas.unheard(BootTime(16_500)), Duration::from_millis(500));
        assert!(!Replicas::new(false, BootTime(0)).is_cut_off(BootTime(i64::MAX)));
    }
}
