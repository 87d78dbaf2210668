//! The value of the store by which its keys are checked at start.

use crate::{
    keyring::{Keyring, OpenError},
    model::Sealed,
    store::{Store, StoreError},
};

/// Why the check value is not sealed with the active key.
#[derive(Debug, thiserror::Error)]
pub(in crate::supervisor) enum CheckReseal {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the check value of the keys {0}")]
    Open(#[from] OpenError),
}

/// Seals the check value with the active key, if another key did: a process that lacks the active key could not read what is stored from now
/// on, and is refused at its start. Returns whether it was sealed again.
pub(in crate::supervisor) async fn reseal_check(store: &dyn Store, keyring: &Keyring) -> Result<bool, CheckReseal> {
    let Some(stored) = store.keyring_check(keyring.check_value().0).await? else { return Ok(false) };
    match keyring.reseal_check(&Sealed(stored.clone()))? {
        // Another process may be first.
        Some(resealed) => Ok(store.swap_meta("key_check", stored, resealed.0).await?),
        None => Ok(false),
    }
}
