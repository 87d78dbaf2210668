//! What the edges of the crate need beside the public API.

use std::sync::atomic::Ordering;

use super::TokenSupervisor;
use crate::clock::Clock;

impl TokenSupervisor {
    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.core.clock
    }

    /// Stands for a user in logs.
    pub(crate) fn pseudonym(&self, user: &str) -> String {
        self.shared.core.keyring.pseudonym(user).to_string()
    }

    /// Whether it was told to shut down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.shared.core.stopping.borrow()
    }

    /// How many requests wait for their answer.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.core.in_flight.load(Ordering::Relaxed)
    }
}
