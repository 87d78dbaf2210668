//! A store that is watched, around the real one: how long its answers take, how many are errors, and whether the last one
//! was.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Answer, Census, Changed, Cursor, Expiring, Listed, Names, Page, Read, Revocation, Store, StoreError};
use crate::{
    clock::Clock,
    metrics::{Histogram, Metric, MetricKind, count, load},
    model::{StoreTime, TokenKey, WallTime},
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

    fn watch<T: Send + 'static>(self: &Arc<Self>, op: Op, answer: Answer<T>) -> Answer<T> {
        let meters = self.clone();
        let asked = meters.clock.read().boot;
        Box::pin(async move {
            let answer = answer.await;
            let meter = &meters.ops[op as usize];
            meter.seconds.took(meters.clock.read().boot.since(asked));
            // A lost comparison is a reply like any other: the store is available, and another change was written.
            if !matches!(answer, Ok(_) | Err(StoreError::Conflict)) {
                count(&meter.errors);
            }
            meters.down.store(matches!(answer, Err(StoreError::Unavailable(_))), Ordering::Relaxed);
            answer
        })
    }
}

impl Metered {
    pub(crate) fn new(store: Arc<dyn Store>, meters: Arc<Meters>) -> Self {
        Self { store, meters }
    }
}

impl Store for Metered {
    fn change(&self, key: &TokenKey, change: Change) -> Answer<Changed> {
        let op = match change {
            Change::Claim(_) | Change::Recover(_) => Op::Claim,
            Change::Commit(_) => Op::Commit,
            _ => Op::Change,
        };
        self.meters.watch(op, self.store.change(key, change))
    }

    fn read(&self, key: &TokenKey) -> Answer<Read> {
        self.meters.watch(Op::Read, self.store.read(key))
    }

    fn due(&self, by: WallTime, after: Option<Cursor>, limit: u32) -> Answer<Page> {
        self.meters.watch(Op::Due, self.store.due(by, after, limit))
    }

    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> Answer<Vec<Expiring>> {
        self.meters.watch(Op::List, self.store.expiring(noticed, after, limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> Answer<Listed> {
        self.meters.watch(Op::List, self.store.list(names, after, limit))
    }

    fn census(&self) -> Answer<Census> {
        self.meters.watch(Op::List, self.store.census())
    }

    fn revocations(&self, limit: u32) -> Answer<Vec<Revocation>> {
        self.meters.watch(Op::Revocation, self.store.revocations(limit))
    }

    fn revoking(&self, revocation: &Revocation, retry_at: StoreTime) -> Answer<bool> {
        self.meters.watch(Op::Revocation, self.store.revoking(revocation, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> Answer<()> {
        self.meters.watch(Op::Revocation, self.store.revoked(id, retry_at))
    }

    fn forget_spent(&self, before: StoreTime) -> Answer<()> {
        self.meters.watch(Op::Meta, self.store.forget_spent(before))
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> Answer<Vec<u8>> {
        self.meters.watch(Op::Meta, self.store.meta(name, value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> Answer<()> {
        self.meters.watch(Op::Meta, self.store.set_meta(name, value))
    }

    fn metas(&self, prefix: &'static str) -> Answer<Vec<(String, Vec<u8>)>> {
        self.meters.watch(Op::Meta, self.store.metas(prefix))
    }

    fn close(&self) -> Answer<()> {
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
        let meters = Arc::new(Meters::new(Clock::manual(&ManualClock::new(SystemTime::UNIX_EPOCH))));
        for (answer, down, errors) in [
            (Ok(()), false, 0),
            (Err(unavailable()), true, 1),
            (Err(StoreError::Conflict), false, 1),
            (Err(corrupt), false, 2),
        ] {
            let given = answer.clone();
            assert_eq!(meters.watch(Op::Change, Box::pin(async { given })).await, answer);
            assert_eq!(meters.is_down(), down, "{answer:?}");
            assert_eq!(meters.ops[Op::Change as usize].errors.load(Ordering::Relaxed), errors, "{answer:?}");
        }
    }
}
