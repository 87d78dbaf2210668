//! What the supervisor's parts share: the ports, the settings, the attempt table and the snapshot.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    RefreshSettings,
    events::Channel,
    holds::Holds,
    metrics::{Counters, IdpCounters},
    refresh::Attempts,
    settings::Times,
    snapshot::Snapshot,
};
use crate::{
    clock::Clock,
    idp::{Client, Gate, Idp, Rotation},
    journal::Journal,
    keyring::Keyring,
    model::TokenKey,
    protocol::{Change, doubt::Rules},
    store::{Changed, Store, StoreFuture, metered::Meters},
};

/// One for each supervisor; outlives actors and registry.
pub(super) struct Core {
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Keyring,
    pub(super) journal: Arc<Journal>,
    /// Replaced as a whole when settings change; an attempt keeps those that it started with.
    pub(super) idps: ArcSwap<HashMap<String, Arc<Provider>>>,
    pub(super) refresh: RefreshSettings,
    pub(super) snapshot: Snapshot,
    pub(super) attempts: Attempts,
    pub(super) events: Channel,
    pub(super) counters: Counters,
    /// What is seen of the store.
    pub(super) meters: Arc<Meters>,
    pub(super) limits: Limits,
    /// Requests that wait for an answer.
    pub(super) in_flight: AtomicUsize,
    /// Where attempts and everything that waits for a port runs.
    pub(super) runtime: tokio::runtime::Handle,
    /// The identity providers that people hold, and why; also of names that are not configured now.
    pub(super) holds: Holds,
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
    pub(super) gate: Arc<Gate>,
    pub(super) counters: Arc<IdpCounters>,
    /// It has rotated a refresh token although it promised never to.
    pub(super) rotates: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) waiters_per_grant: usize,
    pub(crate) idle_after: Duration,
    pub(crate) sweep_every: Duration,
    /// How long a tombstone stands before it is purged.
    pub(crate) tombstones_kept: Duration,
    /// How many attempts of one provider may run before the sweeper starts no more of them.
    pub(super) swept_at_once: usize,
    /// How many requests may wait for an answer at the same time.
    pub(crate) requests_in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiters_per_grant: 16_384,
            idle_after: Duration::from_secs(600),
            sweep_every: Duration::from_secs(5),
            tombstones_kept: Duration::from_secs(30 * 24 * 3_600),
            swept_at_once: 1_024,
            requests_in_flight: 131_072,
        }
    }
}

impl Provider {
    /// The settings of `idp` at work; its gate knows what `before` has learnt.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn new(
        idp: Idp,
        refresh: &RefreshSettings,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        idp.validate()?;
        let times = Times::of(&idp, refresh)?;
        let client = Client::new(&idp, times.connect_timeout, clock.clone())?;
        let gate = Arc::new(before.map_or_else(|| Gate::new(&idp), |before| before.gate.renewed(&idp, clock.read())));
        let rotates = AtomicBool::new(before.is_some_and(Self::has_rotated));
        let counters = before.map_or_else(Arc::default, |before| before.counters.clone());
        Ok(Self { idp, times, client, gate, counters, rotates })
    }

    pub(super) fn has_rotated(&self) -> bool {
        self.rotates.load(Ordering::Relaxed)
    }

    /// An answer brought another refresh token than the one that was sent.
    pub(super) fn saw_rotation(&self, name: &str) {
        if self.idp.rotation == Rotation::Never && !self.rotates.swap(true, Ordering::Relaxed) {
            tracing::warn!(idp = name, "it rotates refresh tokens although its settings promise never: set rotation");
        }
    }

    /// The times and rules that hold by what is known now.
    pub(super) fn rules(&self) -> Rules {
        let rules = self.times.rules;
        Rules { never_rotates: rules.never_rotates && !self.has_rotated(), ..rules }
    }
}

impl Core {
    /// Why nothing is started for this identity provider, if people hold it.
    pub(super) fn idp_held(&self, name: &str) -> Option<String> {
        self.holds.reasons.borrow().get(name).cloned()
    }

    /// Resolves when people hold this identity provider.
    pub(super) async fn until_idp_held(&self, name: &str) {
        self.holds.reasons.subscribe().wait_for(|reasons| reasons.contains_key(name)).await.ok();
    }

    /// The provider's settings of this moment, if it is configured.
    pub(super) fn provider(&self, name: &str) -> Option<Arc<Provider>> {
        self.idps.load().get(name).cloned()
    }

    /// Carries out one operation on one row, and tells what it made happen. Nobody here asks the store itself.
    pub(super) fn change(self: &Arc<Self>, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let (core, key, changed) = (self.clone(), key.clone(), self.store.change(key, change));
        Box::pin(async move {
            let mut changed = changed.await?;
            core.events.tell(&key, &mut changed);
            core.counters.replied(changed.reply);
            Ok(changed)
        })
    }

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
