//! Operations of store and journal that an attempt repeats until they succeed.

use std::{sync::Arc, time::Duration};

use super::ports::Ports;
use crate::{
    idp::delay,
    metrics::count,
    model::{Id, TokenKey},
    protocol::{Change, ChangeReply, Commit},
    store::{StoreError, StoreFuture},
    supervisor::{by::By, jitter::random},
};

/// Writes the key's journal entries to the store.
pub(super) async fn flush(ports: &Ports, key: &TokenKey) {
    for entry in ports.journal.pending_for(key) {
        let Ok(commit) = serde_json::from_slice::<Commit>(&entry.payload) else {
            let name = ports.name(key);
            tracing::error!(
                grant.id = name.grant_id,
                idp = key.idp(),
                user = name.user,
                "a later version of this program wrote a journal entry: start that version"
            );
            continue;
        };
        let change = Change::Commit(Box::new(commit));
        if until_stored(ports, key, || ports.ledger.change(key, By::Attempt, change.clone())).await.is_some() {
            mark(ports, key, entry.attempt).await;
        }
    }
}

/// Marks the journal entry of an attempt as stored.
pub(super) async fn mark(ports: &Ports, key: &TokenKey, attempt: Id) {
    let journal = ports.journal.clone();
    let marked = ports.runtime.spawn_blocking(move || journal.mark(attempt)).await;
    if !matches!(marked, Ok(Ok(()))) {
        let name = ports.name(key);
        tracing::warn!(
            grant.id = name.grant_id,
            idp = key.idp(),
            user = name.user,
            "a journal entry could not be marked as stored: it will be stored again, which is harmless"
        );
    }
}

/// Repeats an operation until the store responds; `None` if the row cannot be read.
pub(super) async fn until_stored<T>(
    ports: &Ports,
    key: &TokenKey,
    operation: impl Fn() -> StoreFuture<T>,
) -> Option<T> {
    let mut failures = 0;
    loop {
        match operation().await {
            Ok(value) => return Some(value),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(grant.id = error.grant_id(), error = %error, "the grant cannot be refreshed");
                return None;
            }
            Err(error) => {
                if failures == 0 {
                    let name = ports.name(key);
                    tracing::warn!(
                        grant.id = name.grant_id,
                        idp = key.idp(),
                        user = name.user,
                        error = %error,
                        "the store does not respond: the operation is repeated"
                    );
                }
                ports.clock.sleep(delay(failures, None, random()).min(Duration::from_secs(5))).await;
                failures += 1;
            }
        }
    }
}

/// Renews the lease while the response is awaited. A lost lease changes nothing for its holder.
pub(super) async fn renew(ports: Arc<Ports>, key: TokenKey, attempt: Id, lease: Duration) {
    let mut lost = false;
    loop {
        ports.clock.sleep(lease / 3).await;
        let renewed = ports.ledger.change(&key, By::Attempt, Change::Renew { attempt, lease }).await;
        if renewed.is_ok_and(|changed| changed.reply == ChangeReply::Refused) && !std::mem::replace(&mut lost, true) {
            count(&ports.leases_lost);
        }
    }
}
