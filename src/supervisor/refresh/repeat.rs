//! What is asked of the store again and again while an attempt runs.

use std::{sync::Arc, time::Duration};

use crate::{
    idp::delay,
    metrics::count,
    model::{Id, TokenKey},
    protocol::{Change, Commit, Reply},
    store::{StoreError, StoreFuture},
    supervisor::core::{Core, random},
};

/// Writes the key's journal entries to the store.
pub(in crate::supervisor) async fn flush(core: &Arc<Core>, key: &TokenKey) {
    for entry in core.journal.pending_for(key) {
        let Ok(commit) = serde_json::from_slice::<Commit>(&entry.payload) else {
            tracing::error!("a journal entry was written by a later version: start that one");
            continue;
        };
        let change = Change::Commit(Box::new(commit));
        if until_answered(core, || core.change(key, change.clone())).await.is_some() {
            mark(core, entry.attempt).await;
        }
    }
}

pub(super) async fn mark(core: &Arc<Core>, attempt: Id) {
    let journal = core.journal.clone();
    let marked = core.runtime.spawn_blocking(move || journal.mark(attempt)).await;
    if !matches!(marked, Ok(Ok(()))) {
        tracing::warn!("a journal entry could not be marked as stored: it will be stored once more, harmlessly");
    }
}

/// Repeats an operation until the store answers; `None` if the row cannot be read.
pub(super) async fn until_answered<T>(core: &Core, operation: impl Fn() -> StoreFuture<T>) -> Option<T> {
    let mut failures = 0;
    loop {
        match operation().await {
            Ok(value) => return Some(value),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(error = %error, "the grant cannot be refreshed");
                return None;
            }
            Err(StoreError::Unavailable(error)) => {
                if failures == 0 {
                    tracing::warn!(error, "the store does not answer; the operation is repeated");
                }
                core.clock.sleep(delay(failures, None, random()).min(Duration::from_secs(5))).await;
                failures += 1;
            }
        }
    }
}

/// Keeps the lease while the answer is awaited. A lost lease changes nothing for its holder.
pub(super) async fn renew(core: Arc<Core>, key: TokenKey, attempt: Id, lease: Duration) {
    let mut lost = false;
    loop {
        core.clock.sleep(lease / 3).await;
        let renewed = core.change(&key, Change::Renew { attempt, lease }).await;
        if renewed.is_ok_and(|changed| changed.reply == Reply::Refused) && !std::mem::replace(&mut lost, true) {
            count(&core.counters.leases_lost);
        }
    }
}
