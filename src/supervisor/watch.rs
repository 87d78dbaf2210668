//! One key, many reads: a watch is an atomic load.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::snapshot::supersedes;
use crate::{
    clock::Clock,
    model::{Issued, Token},
};

/// What watchers of a key share.
pub(super) struct WatchCell {
    current: ArcSwapOption<Issued>,
    changes: watch::Sender<u64>,
}

impl WatchCell {
    pub(super) fn new() -> Self {
        Self { current: ArcSwapOption::empty(), changes: watch::Sender::new(0) }
    }

    pub(super) fn publish(&self, issued: &Arc<Issued>) {
        let before = self.current.rcu(|current| match current {
            Some(held) if !supersedes(issued, held) => Some(Arc::clone(held)),
            _ => Some(Arc::clone(issued)),
        });
        if before.is_none_or(|held| supersedes(issued, &held)) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn withdraw(&self) {
        self.current.store(None);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Follows the token of one key. While a watch exists, the key's actor does not sleep.
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

    /// The valid token of this moment, or `None`: then ask with
    /// [`TokenSupervisor::token`](super::TokenSupervisor::token), which waits and says why.
    ///
    /// An atomic load: no message, lock, allocation or system call.
    pub fn token(&self) -> Option<Token> {
        let issued = self.cell.current.load();
        let now = self.clock.coarse();
        issued.as_ref().filter(|issued| issued.valid_at(now.wall, now.boot))?.hand_out(now.wall)
    }

    /// Resolves when another token was published since the last call, or the key lost its token.
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        // The sender lives in the cell that this watch holds: it cannot be gone.
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
