//! Watches: one key, many reads, each an atomic load.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwapAny;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    model::{Issued, IssuedBlock, IssuedRef, Token, TokenKey, TokenRef},
};

type Cells = Mutex<HashMap<TokenKey, Weak<WatchCell>>>;

/// The keys that are watched.
#[derive(Default)]
pub(super) struct Watches(Arc<Cells>);

impl Watches {
    pub(super) fn get(&self, key: &TokenKey) -> Option<Arc<WatchCell>> {
        lock(&self.0).get(key)?.upgrade()
    }

    /// Returns the keys that are watched.
    pub(super) fn keys(&self) -> Vec<TokenKey> {
        lock(&self.0).keys().cloned().collect()
    }

    /// Returns the key's cell; makes it if the key is not watched yet.
    pub(super) fn join(&self, key: &TokenKey) -> Arc<WatchCell> {
        let mut cells = lock(&self.0);
        if let Some(held) = cells.get(key).and_then(Weak::upgrade) {
            return held;
        }
        let made = Arc::new(WatchCell {
            current: ArcSwapAny::new(None),
            changes: watch::Sender::new(0),
            key: key.clone(),
            all: self.0.clone(),
        });
        cells.insert(key.clone(), Arc::downgrade(&made));
        made
    }
}

fn lock(cells: &Cells) -> MutexGuard<'_, HashMap<TokenKey, Weak<WatchCell>>> {
    cells.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cell that the watches of a key share. It is removed with the last of them, whether or not anything was ever stored
/// for the key: callers may watch any key.
pub(super) struct WatchCell {
    current: ArcSwapAny<Option<IssuedBlock>>,
    changes: watch::Sender<u64>,
    key: TokenKey,
    all: Arc<Cells>,
}

impl Drop for WatchCell {
    fn drop(&mut self) {
        let mut cells = lock(&self.all);
        // The key may have another cell by now.
        if cells.get(&self.key).is_some_and(|cell| cell.strong_count() == 0) {
            cells.remove(&self.key);
        }
    }
}

impl WatchCell {
    pub(super) fn publish(&self, issued: &Issued) {
        let replaces = |held: &Option<IssuedBlock>| {
            held.as_ref().is_none_or(|held| supersedes(issued.by_ref(), IssuedRef::new(held)))
        };
        let before = self.current.rcu(|current| match replaces(current) {
            true => Some(issued.clone().into_block()),
            false => current.clone(),
        });
        if replaces(&before) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn withdraw(&self) {
        self.current.store(None);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Whether publishing `new` replaces `held`: a higher generation does, and at an equal one the stored token replaces one
/// that only the journal had.
pub(super) fn supersedes(new: IssuedRef<'_>, held: IssuedRef<'_>) -> bool {
    new.generation > held.generation || (new.generation == held.generation && held.journaled && !new.journaled)
}

/// Follows the token of one key. While a watch exists, the key's token stays published.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, alice, _| {
/// let mut watch = supervisor.watch(&alice).await?;
/// let first = watch.token().map(|token| token.generation());
/// # supervisor.refresh_now(&alice).await?;
/// watch.changed().await; // there is another one
/// assert!(watch.token().map(|token| token.generation()) > first);
/// # Ok(()) });
/// ```
pub struct TokenWatch {
    cell: Arc<WatchCell>,
    changes: watch::Receiver<u64>,
    clock: Clock,
}

impl TokenWatch {
    pub(super) fn new(cell: Arc<WatchCell>, clock: Clock) -> Self {
        let changes = cell.changes.subscribe();
        Self { cell, changes, clock }
    }

    /// Returns the token if it is valid at this moment; otherwise ask with
    /// [`TokenSupervisor::token`](crate::TokenSupervisor::token), which waits and says why there is none.
    ///
    /// An atomic load: no message, lock, allocation or system call.
    pub fn token(&self) -> Option<Token> {
        self.with(|token| token.to_token())
    }

    /// Lends the token to `read` if it is valid at this moment, and returns what `read` returns. No reference counter is
    /// raised, so that any number of threads can read one key without waiting for each other.
    ///
    /// `read` must be short: neither block nor wait in it. A token that is replaced meanwhile stays in memory until `read`
    /// returns. Nothing else waits for it, and it may use the supervisor.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// let watch = supervisor.watch(&alice).await?;
    /// let header = watch.with(|token| token.authorization());
    /// assert!(header.is_some_and(|header| header.starts_with("Bearer ")));
    /// # Ok(()) });
    /// ```
    #[inline]
    pub fn with<R>(&self, read: impl FnOnce(TokenRef<'_>) -> R) -> Option<R> {
        let current = self.cell.current.load();
        let issued = IssuedRef::new(current.as_ref()?);
        let now = self.clock.coarse();
        if !issued.valid_at(now.wall, now.boot) {
            return None;
        }
        issued.lend(now.wall).map(read)
    }

    /// Resolves when another token was published since the last call, or when the key lost its token.
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        // The watch holds the cell with the sender: it cannot be gone.
        self.changes.changed().await.ok();
    }
}

impl Clone for TokenWatch {
    fn clone(&self) -> Self {
        Self { cell: self.cell.clone(), changes: self.changes.clone(), clock: self.clock.clone() }
    }
}

impl std::fmt::Debug for TokenWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenWatch").field("token", &self.token()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_share_a_cell_that_goes_with_the_last_of_them() {
        let (watches, key) = (Watches::default(), TokenKey::at("idp").user("alice"));
        let (first, second) = (watches.join(&key), watches.join(&key));
        assert!(Arc::ptr_eq(&first, &second));
        drop(first);
        assert!(watches.get(&key).is_some_and(|cell| Arc::ptr_eq(&cell, &second)));
        drop(second);
        assert!(watches.get(&key).is_none() && lock(&watches.0).is_empty());
    }
}
