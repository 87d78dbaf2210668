//! What an attempt works with.

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::watch;

use super::table::Attempts;
use crate::{
    clock::Clock,
    journal::Journal,
    keyring::Keyring,
    model::TokenKey,
    supervisor::{ledger::Ledger, point::Point, provider::Providers, snapshot::Snapshot},
};

/// One for each supervisor, shared by all of its attempts.
pub(in crate::supervisor) struct Ports {
    pub(in crate::supervisor) clock: Clock,
    pub(in crate::supervisor) ledger: Ledger,
    pub(in crate::supervisor) keyring: Keyring,
    pub(in crate::supervisor) journal: Arc<Journal>,
    pub(in crate::supervisor) providers: Arc<Providers>,
    pub(in crate::supervisor) snapshot: Arc<Snapshot>,
    pub(in crate::supervisor) attempts: Arc<Attempts>,
    /// The runtime on which attempts and everything that waits for a port runs.
    pub(in crate::supervisor) runtime: tokio::runtime::Handle,
    pub(in crate::supervisor) leases_lost: AtomicU64,
    /// Turns true when nothing new may start.
    pub(in crate::supervisor) stopping: watch::Sender<bool>,
    #[cfg(feature = "testing")]
    pub(in crate::supervisor) hooks: crate::testing::Hooks,
}

/// A grant as lines of the log name it where its row is not at hand.
pub(in crate::supervisor) struct GrantName {
    /// If its token is published.
    pub(in crate::supervisor) grant_id: Option<String>,
    /// As the audit log names the user.
    pub(in crate::supervisor) user: String,
}

impl Ports {
    /// Returns how a line of the log names the grant of this key.
    pub(in crate::supervisor) fn name(&self, key: &TokenKey) -> GrantName {
        let issued = self.snapshot.current(key).filter(|issued| !issued.grant_id().is_empty());
        GrantName { grant_id: issued.map(|issued| issued.grant_id().to_owned()), user: self.ledger.name_of(key.user()) }
    }

    /// Lets a test look in at a point of an attempt.
    pub(super) fn reach(&self, _point: Point) {
        #[cfg(feature = "testing")]
        self.hooks.reach(_point);
    }

    /// Whether the supervisor is about to stop.
    pub(in crate::supervisor) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the supervisor starts to stop.
    pub(super) async fn stopped(&self) {
        self.stopping.subscribe().wait_for(|stopping| *stopping).await.ok();
    }
}
