//! Lets tests control a running supervisor: break its parts, advance its clock, read what it stored.

use std::{
    path::Path,
    sync::{Arc, Weak},
};

use tokio::runtime::Handle;

use super::ManualClock;
use crate::{
    Builder, Error, Generation, Keyring, RefreshToken, TokenKey, TokenSupervisor,
    clock::Clock,
    journal::Journal,
    model::Spendable,
    protocol::Commit,
    store::{self, faulty::Faulty},
    supervisor,
};
pub use crate::{store::faulty::StoreFault, supervisor::Point};

impl Builder {
    /// Takes the time from this clock.
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.testing.clock = Some(clock.clone());
        self
    }

    /// Calls `look` whenever an attempt reaches a point. `look` may block the attempt, panic, or end the process.
    pub fn at_points(mut self, look: impl Fn(Point) + Send + Sync + 'static) -> Self {
        self.testing.point = Some(Arc::new(look));
        self
    }
}

/// Controls of a running supervisor, for tests.
#[derive(Debug)]
pub struct Control<'a>(&'a TokenSupervisor);

impl TokenSupervisor {
    /// Returns the controls for tests.
    pub fn testing(&self) -> Control<'_> {
        Control(self)
    }
}

impl Control<'_> {
    /// Makes the key's actor panic; starts the actor first if there is none.
    pub async fn panic_actor(&self, key: &TokenKey) {
        supervisor::testing::panic_actor(self.0, key).await;
    }

    /// Makes the registry panic.
    pub fn panic_registry(&self) {
        supervisor::testing::panic_registry(self.0);
    }

    /// Ends the actors' System as if it had crashed.
    pub fn crash_system(&self) {
        supervisor::testing::crash_system(self.0);
    }

    /// Injects this fault into the store until another one is set.
    pub fn store_fault(&self, fault: StoreFault) {
        if let Some(store) = supervisor::testing::hooks(self.0).store.get() {
            store.set(fault);
        }
    }

    /// Returns how often attempts asked to renew their leases.
    pub fn lease_renewals(&self) -> usize {
        supervisor::testing::hooks(self.0).store.get().map_or(0, Faulty::renewals)
    }

    /// Makes the journal refuse entries, or accept them again.
    pub fn journal_fails(&self, fails: bool) {
        if let Some(journal) = supervisor::testing::hooks(self.0).journal.get().and_then(Weak::upgrade) {
            journal.fail_appends(fails);
        }
    }

    /// Makes the journal's disk look full before a claim, or free again.
    pub fn disk_full(&self, full: bool) {
        if let Some(journal) = supervisor::testing::hooks(self.0).journal.get().and_then(Weak::upgrade) {
            journal.fill(full);
        }
    }

    /// Makes the history's disk look full, or free again.
    pub fn history_full(&self, full: bool) {
        if let Some(history) = supervisor::testing::hooks(self.0).history.get().and_then(Weak::upgrade) {
            history.fill(full);
        }
    }

    /// Returns how many entries the journal has refused.
    pub fn journal_failures(&self) -> usize {
        let journal = supervisor::testing::hooks(self.0).journal.get().and_then(Weak::upgrade);
        journal.map_or(0, |journal| journal.failed_appends())
    }

    /// Returns how many journal entries wait for the store.
    pub fn journal_pending(&self) -> usize {
        let journal = supervisor::testing::hooks(self.0).journal.get().and_then(Weak::upgrade);
        journal.map_or(0, |journal| journal.pending())
    }

    /// Returns the refresh token that the store holds for a key.
    ///
    /// # Errors
    /// The store does not respond, or the token cannot be opened.
    pub async fn stored_refresh_token(&self, key: &TokenKey) -> Result<Option<RefreshToken>, Error> {
        supervisor::testing::stored(self.0, key).await
    }

    /// Returns how many attempts run.
    pub fn attempts(&self) -> usize {
        supervisor::testing::attempts(self.0)
    }

    /// Returns whether anything is published for the key: false if nobody has used it for long.
    pub fn is_published(&self, key: &TokenKey) -> bool {
        supervisor::testing::is_published(self.0, key)
    }
}

/// A refresh token that an ended process left on disk.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Kept {
    /// The generation that the token has, or will have once it is in the store.
    pub generation: Generation,
    /// The token; `None` if the response kept the previous one.
    pub refresh_token: Option<RefreshToken>,
    /// Whether the token is in the journal and not in the store.
    pub journaled: bool,
}

/// Returns what is kept of each key: in the store, then in the journal beside it. Neither may be in use; read copies
/// of the files to leave the files unchanged.
///
/// # Errors
/// The store, the journal or an entry in them cannot be opened.
pub async fn kept(path: &Path, keyring: &Keyring, keys: &[TokenKey]) -> Result<Vec<Vec<Kept>>, Error> {
    let clock = Clock::system(Handle::current());
    let unread = |error: store::StoreError| Error::Start(error.to_string());
    let store =
        store::open(&format!("sqlite://{}", path.display()), store::Migrate::Auto, &clock, keyring.row_codes())?;
    let journal = Journal::open(&path.with_extension("journal"), keyring)?;
    let mut all = Vec::with_capacity(keys.len());
    for key in keys {
        let open = |token: Option<&Spendable>| token.map(|it| supervisor::testing::open(keyring, key, &it.sealed));
        let mut kept = Vec::new();
        if let Some(row) = store.read(key).await.map_err(unread)?.row {
            let refresh_token = open(row.refresh_token.as_ref()).transpose()?;
            kept.push(Kept { generation: row.generation, refresh_token, journaled: false });
        }
        for entry in journal.pending_for(key) {
            let commit: Commit = serde_json::from_slice(&entry.payload)
                .map_err(|_| Error::Start("a journal entry was written by a later version".to_owned()))?;
            let refresh_token = open(commit.token.as_ref()).transpose()?;
            kept.push(Kept { generation: commit.generation.next(), refresh_token, journaled: true });
        }
        all.push(kept);
    }
    store.close().await.map_err(unread)?;
    Ok(all)
}

/// Returns the refresh token that a store holds for each key. The store must not be in use.
///
/// # Errors
/// The store or one of its rows cannot be opened.
pub async fn stored_refresh_token(
    path: &Path,
    keyring: &Keyring,
    keys: &[TokenKey],
) -> Result<Vec<Option<RefreshToken>>, Error> {
    let clock = Clock::system(Handle::current());
    let unread = |error: store::StoreError| Error::Start(error.to_string());
    let store =
        store::open(&format!("sqlite://{}", path.display()), store::Migrate::Auto, &clock, keyring.row_codes())?;
    let mut tokens = Vec::with_capacity(keys.len());
    for key in keys {
        let row = store.read(key).await.map_err(unread)?.row;
        let sealed = row.as_ref().and_then(|row| row.refresh_token.as_ref());
        tokens.push(match sealed {
            Some(token) => Some(supervisor::testing::open(keyring, key, &token.sealed)?),
            None => None,
        });
    }
    store.close().await.map_err(unread)?;
    Ok(tokens)
}

/// Checks every page and every row of a store, and returns what is wrong.
///
/// # Errors
/// The store cannot be opened.
#[cfg(feature = "sqlite")]
pub fn integrity(path: &Path, keyring: &Keyring) -> Result<Vec<String>, Error> {
    store::integrity(&format!("sqlite://{}", path.display()), keyring)
}
