//! What the edges of the crate need beside the public API.

use tokio::task::JoinHandle;

use super::TokenSupervisor;
use crate::{
    clock::Clock,
    model::{Generation, TokenKey},
};

impl TokenSupervisor {
    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.core.clock
    }

    /// Stands for a user in logs.
    pub(crate) fn pseudonym(&self, user: &str) -> String {
        self.shared.core.keyring.pseudonym(user).to_string()
    }

    /// Runs what must end even if whoever asked for it is gone.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.shared.core.runtime.spawn(task)
    }

    /// Whether keys can name it.
    pub(crate) fn has_idp(&self, name: &str) -> bool {
        self.shared.core.provider(name).is_some()
    }

    /// Whether it was told to shut down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.shared.core.stopping.borrow()
    }

    /// The generation of what is published for the key, good or not; `None` if nothing of it is in memory.
    pub(crate) fn published(&self, key: &TokenKey) -> Option<Generation> {
        self.shared.core.snapshot.current(key).map(|issued| issued.generation)
    }
}
