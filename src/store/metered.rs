//! A store that is watched, around the real one: how long its answers take, how many are errors, and whether the last one
//! was.

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

/// What was seen of a store.
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

/// What a store is asked for.
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

    /// Whether the last answer was that there is none.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn metrics(&self) -> [Metric; 2] {
        let mut seconds = Metric::new("store_seconds", MetricKind::Histogram, "How long the store took to answer.");
        let mut errors =
            Metric::new("store_errors_total", MetricKind::Counter, "Answers of the store that were errors.");
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

    fn watch<T: Send + 'static>(&self, op: Op, answer: StoreFuture<T>) -> StoreFuture<T> {
        let meters = self.meters.clone();
        let asked = meters.clock.read().boot;
        Box::pin(async move {
            let answer = answer.await;
            let meter = &meters.ops[op as usize];
            meter.seconds.took(meters.clock.read().boot.since(asked));
            if answer.is_err() {
                count(&meter.errors);
            }
            meters.down.store(matches!(answer, Err(StoreError::Unavailable(_))), Ordering::Relaxed);
            answer
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
        self.watch(op, self.store.change(key, change))
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        self.watch(Op::Read, self.store.read(key))
    }

    fn due(&self, by: Time, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        self.watch(Op::Due, self.store.due(by, after, limit))
    }

    fn expiring(&self, noticed: Range<Time>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        self.watch(Op::List, self.store.expiring(noticed, after, limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        self.watch(Op::List, self.store.list(names, after, limit))
    }

    fn census(&self) -> StoreFuture<Census> {
        self.watch(Op::List, self.store.census())
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.watch(Op::Revocation, self.store.revocations(limit))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: Time) -> StoreFuture<bool> {
        self.watch(Op::Revocation, self.store.revoking(revocation, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<Time>) -> StoreFuture<()> {
        self.watch(Op::Revocation, self.store.revoked(id, retry_at))
    }

    fn forget_spent(&self, before: Time) -> StoreFuture<()> {
        self.watch(Op::Meta, self.store.forget_spent(before))
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.watch(Op::Meta, self.store.meta(name, value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        self.watch(Op::Meta, self.store.set_meta(name, value))
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.watch(Op::Meta, self.store.metas(prefix))
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}
