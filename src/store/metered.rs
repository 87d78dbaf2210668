//! A wrapper around a store that measures how long operations take, how many fail, and whether the last one failed.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    Census, Changed, DueCursor, DuePage, Expiring, Listed, Names, QueuedRevocation, ReadRow, Store, StoreError,
    StoreFuture,
};
use crate::{
    clock::Clock,
    metrics::{Histogram, Metric, MetricKind, count, load},
    model::{Time, TokenKey},
    protocol::Change,
};

pub(crate) struct Metered {
    store: Arc<dyn Store>,
    meters: Arc<Meters>,
}

pub(crate) struct Meters {
    clock: Clock,
    ops: [Meter; OPS.len()],
    down: AtomicBool,
}

#[derive(Default)]
struct Meter {
    seconds: Histogram,
    errors: AtomicU64,
}

/// The kind of a store operation, as its metrics name it.
#[derive(Clone, Copy)]
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

const OPS: [&str; 8] = ["claim", "commit", "change", "read", "list", "due", "revocation", "meta"];

impl Meters {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, ops: Default::default(), down: AtomicBool::new(false) }
    }

    /// Returns whether the last operation failed because the store is unavailable.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn metrics(&self) -> [Metric; 2] {
        let mut seconds = Metric::new("store_seconds", MetricKind::Histogram, "Duration of store operations.");
        let mut errors = Metric::new("store_errors_total", MetricKind::Counter, "Store operations that failed.");
        for (op, meter) in OPS.iter().zip(&self.ops) {
            seconds.observe(&[("op", op)], &meter.seconds);
            errors.push(&[("op", op)], load(&meter.errors));
        }
        [seconds, errors]
    }
}

impl Metered {
    pub(crate) fn new(store: Arc<dyn Store>, meters: Arc<Meters>) -> Self {
        Self { store, meters }
    }

    fn measure<T: Send + 'static>(&self, op: Op, operation: StoreFuture<T>) -> StoreFuture<T> {
        let meters = self.meters.clone();
        let started = meters.clock.read().boot;
        Box::pin(async move {
            let result = operation.await;
            let meter = &meters.ops[op as usize];
            meter.seconds.took(meters.clock.read().boot.since(started));
            if result.is_err() {
                count(&meter.errors);
            }
            meters.down.store(matches!(result, Err(StoreError::Unavailable(_))), Ordering::Relaxed);
            result
        })
    }
}

impl Store for Metered {
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let op = match change {
            Change::Claim(_) | Change::Recover(_) => Op::Claim,
            Change::Commit(_) => Op::Commit,
            _ => Op::Change,
        };
        self.measure(op, self.store.change(key, change))
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        self.measure(Op::Read, self.store.read(key))
    }

    fn due(&self, by: Time, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        self.measure(Op::Due, self.store.due(by, after, limit))
    }

    fn expiring(&self, noticed: Range<Time>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        self.measure(Op::List, self.store.expiring(noticed, after, limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        self.measure(Op::List, self.store.list(names, after, limit))
    }

    fn census(&self) -> StoreFuture<Census> {
        self.measure(Op::List, self.store.census())
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.measure(Op::Revocation, self.store.revocations(limit))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: Time) -> StoreFuture<bool> {
        self.measure(Op::Revocation, self.store.revoking(revocation, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<Time>) -> StoreFuture<()> {
        self.measure(Op::Revocation, self.store.revoked(id, retry_at))
    }

    fn forget_spent(&self, before: Time) -> StoreFuture<()> {
        self.measure(Op::Meta, self.store.forget_spent(before))
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.measure(Op::Meta, self.store.meta(name, value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        self.measure(Op::Meta, self.store.set_meta(name, value))
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.measure(Op::Meta, self.store.metas(prefix))
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}
