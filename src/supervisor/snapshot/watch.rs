//! Watches: one key, many reads, each an atomic load.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use papaya::{Compute, HashMap, Operation, ResizeMode};
use tokio::sync::watch;

use super::hash::CachedHash;
use crate::{
    clock::Clock,
    model::{Issued, Token, TokenKey},
};

type Cells = HashMap<TokenKey, Weak<WatchCell>, CachedHash>;

/// The keys that are watched.
pub(super) struct Watches(Arc<Cells>);

impl Default for Watches {
    fn default() -> Self {
        Self(Arc::new(HashMap::builder().resize_mode(ResizeMode::Blocking).hasher(CachedHash::default()).build()))
    }
}

impl Watches {
    pub(super) fn get(&self, key: &TokenKey) -> Option<Arc<WatchCell>> {
        self.0.pin().get(key)?.upgrade()
    }

    /// Returns the key's cell; makes it if the key is not watched yet.
    pub(super) fn join(&self, key: &TokenKey) -> Arc<WatchCell> {
        let made = Arc::new(WatchCell {
            current: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
            key: key.clone(),
            all: self.0.clone(),
        });
        let cells = self.0.pin();
        let joined = cells.compute(key.clone(), |current| match current.and_then(|(_, cell)| cell.upgrade()) {
            Some(held) => Operation::Abort(held),
            None => Operation::Insert(Arc::downgrade(&made)),
        });
        match joined {
            Compute::Aborted(held) => held,
            _ => made,
        }
    }
}

/// The cell that the watches of a key share. It is removed with the last of them, whether or not anything was ever stored
/// for the key: callers may watch any key.
pub(super) struct WatchCell {
    current: ArcSwapOption<Token>,
    changes: watch::Sender<u64>,
    key: TokenKey,
    all: Arc<Cells>,
}

impl Drop for WatchCell {
    fn drop(&mut self) {
        // The key may have another cell by now.
        self.all.pin().remove_if(&self.key, |_, cell| cell.strong_count() == 0).ok();
    }
}

impl WatchCell {
    pub(super) fn publish(&self, issued: &Issued) {
        let token = Arc::new(Token::fresh(issued.clone()));
        let before = self.current.rcu(|current| match current {
            Some(held) if !supersedes(issued, held.issued()) => Some(Arc::clone(held)),
            _ => Some(Arc::clone(&token)),
        });
        if before.is_none_or(|held| supersedes(issued, held.issued())) {
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
pub(super) fn supersedes(new: &Issued, held: &Issued) -> bool {
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
        self.with(Token::clone)
    }

    /// Lends the token to `read` if it is valid at this moment, and returns what `read` returns. The reference counter of a
    /// [fresh](crate::Freshness::Fresh) token is not raised, so that any number of threads can read one key without waiting for
    /// each other.
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
    pub fn with<R>(&self, read: impl FnOnce(&Token) -> R) -> Option<R> {
        let current = self.cell.current.load();
        let now = self.clock.coarse();
        current.as_ref().filter(|token| token.issued().valid_at(now.wall, now.boot))?.lend(now.wall, read)
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
        assert!(watches.get(&key).is_none() && watches.0.is_empty());
    }
}
