//! A wrapper around a store that measures how long operations take, how many fail, and whether the last one failed.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;

use super::{
    Census, Changed, DueCursor, DuePage, Expiring, KeyUse, Line, Listed, Names, Outbox, QueuedRevocation, ReadRow,
    ReplicaReport, RowPosition, SealedPage, Store, StoreError, StoreFuture,
};
use crate::{
    clock::Clock,
    keyring::KeyId,
    metrics::{Histogram, Metric, MetricKind, count, load},
    model::{BootTime, Sealed, StoreTime, TokenKey, WallTime},
    protocol::Change,
};

pub(crate) struct Metered {
    store: Arc<dyn Store>,
    meters: Arc<Meters>,
}

pub(crate) struct Meters {
    clock: Clock,
    ops: EnumMap<Op, Meter>,
    /// Whether the last read failed because the store is unavailable.
    reads_fail: AtomicBool,
    last_write: Mutex<LastWrite>,
}

/// The outcome of the last write, as far as it concerns all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LastWrite {
    Succeeded,
    Failed(BootTime),
    DiskFull(BootTime),
}

/// What failed is repeated within seconds. A failure that is older was not repeated, and says nothing about now.
const RECENT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Meter {
    seconds: Histogram,
    errors: AtomicU64,
}

/// The kind of a store operation, as its metrics name it.
#[derive(Clone, Copy, Debug, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Op {
    Claim,
    Commit,
    Change,
    Read,
    List,
    Due,
    Revocation,
    Meta,
}

impl Op {
    fn writes(self) -> bool {
        matches!(self, Self::Claim | Self::Commit | Self::Change)
    }
}

impl Meters {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            ops: EnumMap::default(),
            reads_fail: AtomicBool::new(false),
            last_write: Mutex::new(LastWrite::Succeeded),
        }
    }

    /// Returns whether the last read, or the last write a moment ago, failed because the store is unavailable.
    pub(crate) fn is_down(&self) -> bool {
        let now = self.clock.read().boot;
        let write = *lock(&self.last_write);
        self.reads_fail.load(Ordering::Relaxed) || matches!(write, LastWrite::Failed(at) if now.since(at) < RECENT)
    }

    /// Returns whether the last write, a moment ago, failed because the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        let now = self.clock.read().boot;
        matches!(*lock(&self.last_write), LastWrite::DiskFull(at) if now.since(at) < RECENT)
    }

    pub(crate) fn metrics(&self) -> [Metric; 2] {
        let mut seconds = Metric::new("store_seconds", MetricKind::Histogram, "Duration of store operations.");
        let mut errors = Metric::new("store_errors_total", MetricKind::Counter, "Store operations that failed.");
        for (op, meter) in &self.ops {
            let op = op.into();
            seconds.push_histogram(&[("op", op)], &meter.seconds);
            errors.push(&[("op", op)], load(&meter.errors));
        }
        [seconds, errors]
    }

    fn measure<T: Send + 'static>(self: &Arc<Self>, op: Op, operation: StoreFuture<T>) -> StoreFuture<T> {
        let meters = self.clone();
        let started = meters.clock.fine();
        Box::pin(async move {
            let result = operation.await;
            let meter = &meters.ops[op];
            meter.seconds.record(meters.clock.fine().since(started));
            // A lost comparison is a reply like any other: the store responds, and others wrote.
            if !matches!(result, Ok(_) | Err(StoreError::Conflict)) {
                count(&meter.errors);
            }
            if op.writes() {
                *lock(&meters.last_write) = match result {
                    Err(StoreError::Unavailable(_)) => LastWrite::Failed(meters.clock.read().boot),
                    Err(StoreError::Full) => LastWrite::DiskFull(meters.clock.read().boot),
                    _ => LastWrite::Succeeded,
                };
            } else {
                meters.reads_fail.store(matches!(result, Err(StoreError::Unavailable(_))), Ordering::Relaxed);
            }
            result
        })
    }
}

fn lock(last_write: &Mutex<LastWrite>) -> MutexGuard<'_, LastWrite> {
    last_write.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metered {
    pub(crate) fn new(store: Arc<dyn Store>, meters: Arc<Meters>) -> Self {
        Self { store, meters }
    }
}

impl Store for Metered {
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let op = match change {
            Change::Claim(_) | Change::Recover(_) => Op::Claim,
            Change::Commit(_) => Op::Commit,
            _ => Op::Change,
        };
        self.meters.measure(op, self.store.change(key, change))
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        self.meters.measure(Op::Read, self.store.read(key))
    }

    fn due(&self, idp: &str, by: WallTime, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        self.meters.measure(Op::Due, self.store.due(idp, by, after, limit))
    }

    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        self.meters.measure(Op::List, self.store.expiring(noticed, after, limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        self.meters.measure(Op::List, self.store.list(names, after, limit))
    }

    fn census(&self) -> StoreFuture<Census> {
        self.meters.measure(Op::List, self.store.census())
    }

    fn key_use(&self) -> StoreFuture<Vec<KeyUse>> {
        self.meters.measure(Op::List, self.store.key_use())
    }

    fn sealed_by_others(&self, active: KeyId, after: RowPosition, limit: u32) -> StoreFuture<SealedPage> {
        self.meters.measure(Op::List, self.store.sealed_by_others(active, after, limit))
    }

    fn queued(&self, after: i64, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.meters.measure(Op::Revocation, self.store.queued(after, limit))
    }

    fn reseal_revocation(&self, revocation: &QueuedRevocation, resealed: Sealed) -> StoreFuture<()> {
        self.meters.measure(Op::Revocation, self.store.reseal_revocation(revocation, resealed))
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.meters.measure(Op::Revocation, self.store.revocations(limit))
    }

    fn outbox(&self, key: Option<TokenKey>) -> StoreFuture<Outbox> {
        self.meters.measure(Op::Revocation, self.store.outbox(key))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: StoreTime) -> StoreFuture<bool> {
        self.meters.measure(Op::Revocation, self.store.revoking(revocation, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> StoreFuture<()> {
        self.meters.measure(Op::Revocation, self.store.revoked(id, retry_at))
    }

    fn forget_spent(&self, before: StoreTime) -> StoreFuture<()> {
        self.meters.measure(Op::Meta, self.store.forget_spent(before))
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.meters.measure(Op::Meta, self.store.meta(name, value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        self.meters.measure(Op::Meta, self.store.set_meta(name, value))
    }

    fn swap_meta(&self, name: &'static str, expected: Vec<u8>, value: Vec<u8>) -> StoreFuture<bool> {
        self.meters.measure(Op::Meta, self.store.swap_meta(name, expected, value))
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.meters.measure(Op::Meta, self.store.metas(prefix))
    }

    fn keyring_check(&self, value: Vec<u8>) -> StoreFuture<Option<Vec<u8>>> {
        self.meters.measure(Op::Meta, self.store.keyring_check(value))
    }

    fn code_rows(&self, after: i64) -> StoreFuture<Option<i64>> {
        self.meters.measure(Op::Meta, self.store.code_rows(after))
    }

    fn unreadable(&self) -> usize {
        self.store.unreadable()
    }

    fn open_line(&self) -> Option<StoreFuture<Line>> {
        self.store.open_line()
    }

    fn say(&self, texts: Vec<String>) -> StoreFuture<()> {
        self.store.say(texts)
    }

    fn report(&self, id: &str, report: Option<Vec<u8>>) -> StoreFuture<()> {
        self.meters.measure(Op::Meta, self.store.report(id, report))
    }

    fn reports(&self) -> StoreFuture<Vec<ReplicaReport>> {
        self.meters.measure(Op::Meta, self.store.reports())
    }

    fn server(&self) -> StoreFuture<Option<String>> {
        self.meters.measure(Op::Meta, self.store.server())
    }

    fn is_elsewhere(&self) -> bool {
        self.store.is_elsewhere()
    }

    fn rely_on(&self, server: &str) {
        self.store.rely_on(server);
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn only_a_store_that_does_not_answer_is_down_and_a_conflict_is_no_error() {
        let corrupt = StoreError::Corrupt { grant_id: "g_1".to_owned(), column: "intent" };
        let unavailable = || StoreError::Unavailable("disk full".to_owned());
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let meters = Arc::new(Meters::new(Clock::manual(&clock)));
        for (answer, down, errors) in [
            (Ok(()), false, 0),
            (Err(unavailable()), true, 1),
            (Err(StoreError::Conflict), false, 1),
            (Err(corrupt), false, 2),
            (Err(StoreError::Full), false, 3),
        ] {
            let given = answer.clone();
            assert_eq!(meters.measure(Op::Change, Box::pin(async { given })).await, answer);
            assert_eq!(meters.is_down(), down, "{answer:?}");
            assert_eq!(meters.is_full(), answer == Err(StoreError::Full), "{answer:?}");
            assert_eq!(meters.ops[Op::Change].errors.load(Ordering::Relaxed), errors, "{answer:?}");
        }
        clock.advance(RECENT);
        assert!(!meters.is_full(), "what failed was not repeated");
        meters.measure::<()>(Op::Change, Box::pin(async { Err(StoreError::Unavailable(String::new())) })).await.ok();
        meters.measure(Op::Read, Box::pin(async { Ok(()) })).await.ok();
        assert!(meters.is_down(), "reads succeed while writes fail");
    }
}
