//! A wrapper around a store that injects faults.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    Census, Changed, DueCursor, DuePage, Expiring, KeyUse, Line, Listed, Names, Outbox, QueuedRevocation, ReadRow,
    ReplicaReport, RowPosition, SealedPage, Store, StoreError, StoreFuture,
};
use crate::{
    keyring::KeyId,
    model::{Sealed, StoreTime, TokenKey, WallTime},
    protocol::Change,
};

/// The fault that the store shows until another one is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreFault {
    /// No fault.
    #[default]
    None,
    /// Every operation fails and has no effect.
    Down,
    /// Reads of single grants fail.
    ReadsFail,
    /// Claims fail and have no effect.
    ClaimsFail,
    /// Commits fail and have no effect.
    CommitsFail,
    /// Claims take effect, but report a failure.
    ClaimAcknowledgementsLost,
    /// Commits take effect, but report a failure.
    CommitAcknowledgementsLost,
    /// Commits wait until the fault is over; then they take effect.
    CommitsHang,
    /// Connects wait until the fault is over; then they take effect.
    ConnectsHang,
    /// What the process tells others at the same store is lost on the way, also to itself.
    NothingIsHeard,
}

/// The wrapper; every clone sets the same fault.
#[derive(Clone)]
pub(crate) struct Faulty {
    store: Arc<dyn Store>,
    fault: Arc<Mutex<watch::Sender<StoreFault>>>,
    renewals: Arc<AtomicUsize>,
}

impl Faulty {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let fault = Arc::new(Mutex::new(watch::Sender::new(StoreFault::None)));
        Self { store, fault, renewals: Arc::default() }
    }

    pub(crate) fn set(&self, fault: StoreFault) {
        self.fault().send_replace(fault);
    }

    /// Returns how many lease renewals were requested.
    pub(crate) fn renewals(&self) -> usize {
        self.renewals.load(Ordering::Relaxed)
    }

    fn fault(&self) -> MutexGuard<'_, watch::Sender<StoreFault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unless_down<T: Send + 'static>(&self, operation: impl FnOnce(&dyn Store) -> StoreFuture<T>) -> StoreFuture<T> {
        if *self.fault().borrow() == StoreFault::Down { refused() } else { operation(&*self.store) }
    }
}

fn refused<T: Send + 'static>() -> StoreFuture<T> {
    Box::pin(async { Err(StoreError::Unavailable("fault injected".to_owned())) })
}

impl Store for Faulty {
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let mut fault = self.fault().subscribe();
        let now = *fault.borrow_and_update();
        let claim = matches!(change, Change::Claim(_) | Change::Recover(_));
        let commit = matches!(change, Change::Commit(_));
        let connect = matches!(change, Change::Connect(_));
        if matches!(change, Change::Renew { .. }) {
            self.renewals.fetch_add(1, Ordering::Relaxed);
        }
        let hangs = (now == StoreFault::CommitsHang && commit) || (now == StoreFault::ConnectsHang && connect);
        match now {
            StoreFault::Down => refused(),
            StoreFault::ClaimsFail if claim => refused(),
            StoreFault::CommitsFail if commit => refused(),
            StoreFault::ClaimAcknowledgementsLost if claim => lost(self.store.change(key, change)),
            StoreFault::CommitAcknowledgementsLost if commit => lost(self.store.change(key, change)),
            _ if hangs => {
                let (store, key) = (self.store.clone(), key.clone());
                Box::pin(async move {
                    fault.wait_for(|fault| *fault != now).await.ok();
                    store.change(&key, change).await
                })
            }
            _ => self.store.change(key, change),
        }
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        match *self.fault().borrow() {
            StoreFault::Down | StoreFault::ReadsFail => refused(),
            _ => self.store.read(key),
        }
    }

    fn due(&self, idp: &str, by: WallTime, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        self.unless_down(|store| store.due(idp, by, after, limit))
    }

    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        self.unless_down(|store| store.expiring(noticed, after, limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        self.unless_down(|store| store.list(names, after, limit))
    }

    fn census(&self) -> StoreFuture<Census> {
        self.unless_down(|store| store.census())
    }

    fn key_use(&self) -> StoreFuture<Vec<KeyUse>> {
        self.unless_down(|store| store.key_use())
    }

    fn sealed_by_others(&self, active: KeyId, after: RowPosition, limit: u32) -> StoreFuture<SealedPage> {
        self.unless_down(|store| store.sealed_by_others(active, after, limit))
    }

    fn queued(&self, after: i64, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.unless_down(|store| store.queued(after, limit))
    }

    fn reseal_revocation(&self, revocation: &QueuedRevocation, resealed: Sealed) -> StoreFuture<()> {
        self.unless_down(|store| store.reseal_revocation(revocation, resealed))
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.unless_down(|store| store.revocations(limit))
    }

    fn outbox(&self, key: Option<TokenKey>) -> StoreFuture<Outbox> {
        self.unless_down(|store| store.outbox(key))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: StoreTime) -> StoreFuture<bool> {
        self.unless_down(|store| store.revoking(revocation, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> StoreFuture<()> {
        self.unless_down(|store| store.revoked(id, retry_at))
    }

    fn forget_spent(&self, before: StoreTime) -> StoreFuture<()> {
        self.unless_down(|store| store.forget_spent(before))
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.unless_down(|store| store.meta(name, value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        self.unless_down(|store| store.set_meta(name, value))
    }

    fn swap_meta(&self, name: &'static str, expected: Vec<u8>, value: Vec<u8>) -> StoreFuture<bool> {
        self.unless_down(|store| store.swap_meta(name, expected, value))
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.unless_down(|store| store.metas(prefix))
    }

    fn keyring_check(&self, value: Vec<u8>) -> StoreFuture<Option<Vec<u8>>> {
        self.unless_down(|store| store.keyring_check(value))
    }

    fn code_rows(&self, after: i64) -> StoreFuture<Option<i64>> {
        self.unless_down(|store| store.code_rows(after))
    }

    fn unreadable(&self) -> usize {
        self.store.unreadable()
    }

    fn open_line(&self) -> Option<StoreFuture<Line>> {
        let (opening, fault) = (self.store.open_line()?, self.fault().subscribe());
        let opening = self.unless_down(|_| opening);
        Some(Box::pin(async move {
            let Line { heard, say } = opening.await?;
            let say = move |texts| match *fault.borrow() {
                StoreFault::Down => refused(),
                StoreFault::NothingIsHeard => Box::pin(async { Ok(()) }),
                _ => say(texts),
            };
            Ok(Line { heard, say: Box::new(say) })
        }))
    }

    fn say(&self, texts: Vec<String>) -> StoreFuture<()> {
        match *self.fault().borrow() {
            StoreFault::NothingIsHeard => Box::pin(async { Ok(()) }),
            StoreFault::Down => refused(),
            _ => self.store.say(texts),
        }
    }

    fn report(&self, id: &str, report: Option<Vec<u8>>) -> StoreFuture<()> {
        let id = id.to_owned();
        self.unless_down(move |store| store.report(&id, report))
    }

    fn reports(&self) -> StoreFuture<Vec<ReplicaReport>> {
        self.unless_down(|store| store.reports())
    }

    fn server(&self) -> StoreFuture<Option<String>> {
        self.unless_down(|store| store.server())
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

fn lost(operation: StoreFuture<Changed>) -> StoreFuture<Changed> {
    Box::pin(async {
        operation.await?;
        Err(StoreError::Unavailable("fault injected: acknowledgement lost".to_owned()))
    })
}
