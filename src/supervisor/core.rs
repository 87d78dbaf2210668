//! What the supervisor's parts share: the ports, the settings, the attempt table and the snapshot.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{refresh::Attempts, settings::Times, snapshot::Snapshot};
use crate::{
    clock::Clock,
    idp::{Client, Gate, Idp},
    journal::Journal,
    keyring::Keyring,
    store::Store,
};

/// One for each supervisor; outlives actors and registry.
pub(super) struct Core {
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Keyring,
    pub(super) journal: Arc<Journal>,
    pub(super) idps: HashMap<String, Provider>,
    pub(super) snapshot: Snapshot,
    pub(super) attempts: Attempts,
    pub(super) limits: Limits,
    /// Where attempts and everything that waits for a port runs.
    pub(super) runtime: tokio::runtime::Handle,
    /// Held while what is held is read or written, so that nobody goes by what was read before it was written.
    pub(super) holds: tokio::sync::Mutex<()>,
    /// Turns true when nothing new may start.
    pub(super) stopping: watch::Sender<bool>,
    #[cfg(feature = "testing")]
    pub(crate) testing: crate::testing::Hooks,
}

/// One configured identity provider.
pub(super) struct Provider {
    pub(super) idp: Idp,
    pub(super) times: Times,
    pub(super) client: Client,
    pub(super) gate: Gate,
    /// Why nothing is started for it, if people hold it: a copy of what the store says.
    pub(super) hold: watch::Sender<Option<String>>,
}

impl Provider {
    /// Why nothing is started for it, if people hold it.
    pub(super) fn held(&self) -> Option<String> {
        self.hold.borrow().clone()
    }

    /// Resolves when people hold it.
    pub(super) async fn until_held(&self) {
        self.hold.subscribe().wait_for(Option::is_some).await.ok();
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) waiters_per_grant: usize,
    pub(super) idle_after: Duration,
    pub(super) sweep_every: Duration,
    /// The sweeper starts no more while this many attempts run.
    pub(super) swept_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiters_per_grant: 16_384,
            idle_after: Duration::from_secs(600),
            sweep_every: Duration::from_secs(5),
            swept_at_once: 256,
        }
    }
}

impl Core {
    /// A place in an attempt at which a test can look in.
    pub(super) fn reach(&self, _point: Point) {
        #[cfg(feature = "testing")]
        self.testing.reach(_point);
    }

    /// Resolves when the supervisor starts to stop.
    pub(super) async fn stopped(&self) {
        self.stopping.subscribe().wait_for(|stopping| *stopping).await.ok();
    }
}

/// The places in an attempt after which a killed process leaves something else behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub enum Point {
    /// The identity provider's slot is granted; nothing is claimed.
    BeforeClaim,
    /// The claim is stored; nothing is sent.
    Claimed,
    /// The answer is in memory alone.
    Answered,
    /// The answer is stored; nobody has seen it.
    Committed,
    /// The answer is in the journal; nobody has seen it.
    Journaled,
}

/// 64 random bits, for jitter.
pub(super) fn random() -> u64 {
    // Without randomness there is no jitter, and nothing else is lost.
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
