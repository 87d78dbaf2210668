//! How a supervisor is configured and started.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Runtime, sync::watch};

use super::{
    RefreshSettings, TokenSupervisor,
    core::{Core, Limits, Provider},
    events::Channel,
    handle::Shared,
    holds::{self, Holds},
    metrics::Counters,
    offboard::purge_old,
    recover::flush_journal,
    refresh::Attempts,
    runtime::Life,
    snapshot::Snapshot,
    sweep::{revoke_all, sweep},
};
use crate::{
    clock::Clock,
    error::Error,
    idp::Idp,
    journal::Journal,
    keyring::Keyring,
    model::{Sealed, valid_idp_name},
    store::{
        self,
        metered::{Metered, Meters},
    },
};

/// A supervisor to be started.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |_, _, _| {
/// use std::time::Duration;
/// use token_supervisor::{Keyring, RefreshSettings, TokenSupervisor, presets};
///
/// # let folder = tempfile::tempdir()?;
/// # let (store, journal) = (format!("sqlite://{}/t.db", folder.path().display()), folder.path().join("journal"));
/// # let (keys, client_secret) = (folder.path().join("keys"), "ts-test-secret-client");
/// Keyring::generate().write_new(&keys)?; // once
/// let supervisor = TokenSupervisor::builder()
///     .store(store) // such as "sqlite:///var/lib/app/tokens.db"
///     .journal(journal)
///     .keyring(Keyring::from_file(&keys)?)
///     .idp("github", presets::github("Iv1.0123456789abcdef", client_secret).max_concurrency(4))
///     .idp("acme", presets::oauth2("https://acme.example/oauth/token", "our-client", client_secret))
///     .refresh(RefreshSettings::default().margin(Duration::from_secs(120)))
///     .idle_after(Duration::from_secs(300))
///     .start()
///     .await?;
/// # supervisor.shutdown(Duration::from_secs(5)).await;
/// # Ok(()) });
/// ```
#[derive(Clone)]
#[must_use]
pub struct Builder {
    store: Option<String>,
    keyring: Option<Keyring>,
    journal: Option<PathBuf>,
    idps: Vec<(String, Idp)>,
    refresh: RefreshSettings,
    limits: Limits,
    on_demand: bool,
    #[cfg(feature = "testing")]
    pub(crate) testing: crate::testing::Hooks,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            store: None,
            keyring: None,
            journal: None,
            idps: Vec::new(),
            refresh: RefreshSettings::default(),
            limits: Limits::default(),
            on_demand: false,
            #[cfg(feature = "testing")]
            testing: crate::testing::Hooks::default(),
        }
    }

    /// Where grants are stored: `sqlite://PATH`. Created if it does not exist.
    pub fn store(mut self, url: impl Into<String>) -> Self {
        self.store = Some(url.into());
        self
    }

    /// The keys that seal what is stored.
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// The folder for answers that the store has not got yet; beside the SQLite file unless set. It must be on a
    /// disk that survives the process.
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// An identity provider under the name that keys use.
    pub fn idp(mut self, name: impl Into<String>, idp: Idp) -> Self {
        self.idps.push((name.into(), idp));
        self
    }

    /// The times of refreshes, where an identity provider does not set its own.
    pub fn refresh(mut self, refresh: RefreshSettings) -> Self {
        self.refresh = refresh;
        self
    }

    /// How many callers may wait for one grant (16 384); those beyond it are told to slow down.
    pub fn waiters_per_grant(mut self, waiters: usize) -> Self {
        self.limits.waiters_per_grant = waiters;
        self
    }

    /// How many requests may wait for an answer at the same time (131 072); those beyond it are told to slow down. Valid
    /// tokens are served all the same.
    pub fn requests_in_flight(mut self, requests: usize) -> Self {
        self.limits.requests_in_flight = requests;
        self
    }

    /// How long a key's actor stays awake after the last use (10 min).
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.limits.idle_after = idle;
        self
    }

    /// How often grants without an actor are looked after (5 s).
    pub fn sweep_every(mut self, period: Duration) -> Self {
        self.limits.sweep_every = period;
        self
    }

    /// For programs that live for one request, such as a command: does what is asked for, and nothing that is due for
    /// other grants. What a process before it left in the journal is stored all the same.
    pub fn on_demand(mut self) -> Self {
        self.on_demand = true;
        self
    }

    #[cfg(feature = "config")]
    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long what is stored of a disconnected grant is kept, for [`restore`](TokenSupervisor::restore) and for people who
    /// ask what became of it, before it is purged (30 days). It is looked for once an hour.
    pub fn tombstones_kept(mut self, kept: Duration) -> Self {
        self.limits.tombstones_kept = kept;
        self
    }

    /// Opens store, journal and keys, and starts the supervisor's threads.
    ///
    /// Dropping the future leaves nothing running.
    ///
    /// # Errors
    /// [`Error::Configuration`], [`Error::Start`], [`Error::StoreInUse`] or [`Error::Journal`]: what is missing,
    /// contradictory, or cannot be opened, and what to do about it. A wrong or missing key is noticed here, not at use.
    pub async fn start(self) -> Result<TokenSupervisor, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("token-supervisor-io")
            .enable_all()
            .build()
            .map_err(|error| Error::Start(format!("the operating system gave no threads: {error}")))?;
        let guard = Undropped(Some(runtime));
        let runtime = guard.0.as_ref().map(|runtime| runtime.handle().clone());
        let runtime = runtime.ok_or(Error::Internal("a runtime that was just made is gone"))?;
        let (handle, on_demand) = (runtime.clone(), self.on_demand);
        let opened = runtime.spawn_blocking(move || self.open(handle)).await;
        let core = opened.map_err(|_| Error::Internal("opening store and journal panicked"))??;
        let checked = core.store.meta("key_check", core.keyring.check_value().0).await;
        let checked = checked.map_err(|error| Error::Start(error.to_string()))?;
        core.keyring.verify_check(&Sealed(checked))?;
        holds::read(&core).await.map_err(|error| Error::Start(error.to_string()))?;
        let life = Life::start(Arc::new(core), guard.release()?)
            .await
            .map_err(|error| Error::Start(format!("the operating system gave no thread: {error}")))?;
        let shared = life.shared.clone();
        life.background(shared.core.clock.clone().watch_steps());
        life.background(start_work(shared.clone(), on_demand));
        Ok(TokenSupervisor::new(shared, Arc::new(life)))
    }

    fn open(self, runtime: tokio::runtime::Handle) -> Result<Core, Error> {
        let missing = |what: &str| Error::Configuration(format!("{what}: see TokenSupervisor::builder"));
        let url = self.store.as_deref().ok_or_else(|| missing("no store is set"))?;
        let keyring = self.keyring.ok_or_else(|| missing("no key ring is set"))?;
        #[cfg(feature = "testing")]
        let clock = self.testing.clock(&runtime);
        #[cfg(not(feature = "testing"))]
        let clock = Clock::system(runtime.clone());
        let idps = providers(self.idps, &self.refresh, &clock)?;
        let store = store::open(url, &clock)?;
        let folder = match (self.journal, store::sqlite_path(url)) {
            (Some(folder), _) => folder,
            (None, Some(path)) => Path::new(path).with_extension("journal"),
            (None, None) => return Err(missing("no journal is set")),
        };
        #[cfg(feature = "testing")]
        let store = self.testing.wrap(store);
        let meters = Arc::new(Meters::new(clock.clone()));
        let store = Arc::new(Metered::new(store, meters.clone()));
        let journal = Arc::new(Journal::open(&folder, &keyring)?);
        #[cfg(feature = "testing")]
        self.testing.share(&journal);
        let snapshot = Snapshot::new(clock.clone());
        let stopping = watch::Sender::new(false);
        let (attempts, limits, in_flight) = (Attempts::new(), self.limits, AtomicUsize::new(0));
        Ok(Core {
            clock,
            store,
            keyring,
            journal,
            idps: ArcSwap::from_pointee(idps),
            refresh: self.refresh,
            snapshot,
            attempts,
            events: Channel::new(),
            counters: Counters::default(),
            meters,
            limits,
            in_flight,
            runtime,
            holds: Holds::default(),
            stopping,
            #[cfg(feature = "testing")]
            testing: self.testing,
        })
    }
}

/// Nothing is swept before what the last process left in the journal is stored.
async fn start_work(shared: Shared, on_demand: bool) {
    flush_journal(shared.core.clone()).await;
    if on_demand {
        return;
    }
    tokio::join!(sweep(shared.clone()), revoke_all(shared.clone()), purge_old(shared));
}

fn providers(
    idps: Vec<(String, Idp)>,
    refresh: &RefreshSettings,
    clock: &Clock,
) -> Result<HashMap<String, Arc<Provider>>, Error> {
    let mut providers = HashMap::new();
    for (name, idp) in idps {
        let provider = provider(&name, idp, refresh, clock, None)?;
        if providers.insert(name.clone(), provider).is_some() {
            return Err(wrong_idp(&name, "it is configured twice"));
        }
    }
    Ok(providers)
}

/// An identity provider under its name; `before` are its settings so far.
pub(super) fn provider(
    name: &str,
    idp: Idp,
    refresh: &RefreshSettings,
    clock: &Clock,
    before: Option<&Provider>,
) -> Result<Arc<Provider>, Error> {
    if !valid_idp_name(name) {
        return Err(wrong_idp(name, "its name must match [a-z0-9][a-z0-9_-]{0,63}"));
    }
    Provider::new(idp, refresh, clock, before).map(Arc::new).map_err(|text| wrong_idp(name, &text))
}

fn wrong_idp(name: &str, text: &str) -> Error {
    Error::Configuration(format!("identity provider {name:?}: {text}"))
}

/// A runtime that may be dropped inside asynchronous code.
struct Undropped(Option<Runtime>);

impl Undropped {
    fn release(mut self) -> Result<Runtime, Error> {
        self.0.take().ok_or(Error::Internal("a runtime that was just made is gone"))
    }
}

impl Drop for Undropped {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("idps", &self.idps).field("refresh", &self.refresh).finish_non_exhaustive()
    }
}
