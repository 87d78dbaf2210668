//! The configuration and start of a supervisor. The builder alone knows all of its rooms.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{runtime::Runtime, sync::watch};

use super::{
    TokenSupervisor,
    census::Counter,
    events::Channel,
    exchange::ReplicaExchange,
    front::Front,
    handle::Rooms,
    keys::reseal_check,
    ledger::Ledger,
    provider::Providers,
    recovery::{self, Recovery},
    refresh::{Ports, Refresher},
    replicas::Replicas,
    router::Router,
    runtime::Life,
    settings::{Limits, RefreshSettings},
    snapshot::Snapshot,
    token::Surroundings,
    upkeep::{Revoker, Upkeep},
};
#[cfg(not(feature = "testing"))]
use crate::clock::Clock;
use crate::{
    error::Error,
    idp::Idp,
    journal::{History, Journal},
    keyring::{CheckedRows, Keyring},
    model::{Sealed, valid_deployment_name},
    store::{
        self, Migrate, Store, StoreError,
        metered::{Metered, Meters},
    },
};

/// Configures and starts a supervisor.
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
    migrate: Option<Migrate>,
    keyring: Option<Keyring>,
    journal: Option<PathBuf>,
    deployment: Option<String>,
    idps: Vec<(String, Idp)>,
    refresh: RefreshSettings,
    limits: Limits,
    on_demand: bool,
    plain_users: bool,
    #[cfg(feature = "testing")]
    pub(crate) testing: crate::testing::Hooks,
}

impl TokenSupervisor {
    /// Configures a supervisor.
    pub fn builder() -> Builder {
        Builder {
            store: None,
            migrate: None,
            keyring: None,
            journal: None,
            deployment: None,
            idps: Vec::new(),
            refresh: RefreshSettings::default(),
            limits: Limits::default(),
            on_demand: false,
            plain_users: false,
            #[cfg(feature = "testing")]
            testing: crate::testing::Hooks::default(),
        }
    }
}

impl Builder {
    /// Sets the store of grants: `sqlite://PATH`, which is created if it does not exist, or
    /// `postgres://USER:PASSWORD@HOST/DATABASE` (feature `postgres`).
    ///
    /// PostgreSQL's parameter `schema` names the schema of the store (`token_supervisor`). TLS is always used and the server's
    /// certificate verified (`sslrootcert` names a private authority); `sslmode=disable` is accepted for loopback addresses.
    pub fn store(mut self, url: impl Into<String>) -> Self {
        self.store = Some(url.into());
        self
    }

    /// Sets when the schema of the store is brought up to date: at the start for SQLite unless set, never for PostgreSQL.
    pub fn migrate(mut self, migrate: Migrate) -> Self {
        self.migrate = Some(migrate);
        self
    }

    /// Sets the keys that seal stored tokens.
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// Sets the folder for responses that the store does not have yet; beside the SQLite file unless set. It must be on a
    /// disk that survives the process.
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// Names this deployment: the processes that share one store. The store keeps the first name under which it is opened.
    /// Opened under another one it is taken for a copy, such as a staging system's: valid tokens are served, and nothing is
    /// sent to an identity provider, because the original may spend the same refresh tokens, until
    /// [`adopt`](TokenSupervisor::adopt). Without a name this is not checked.
    pub fn deployment(mut self, name: impl Into<String>) -> Self {
        self.deployment = Some(name.into());
        self
    }

    /// Adds an identity provider under the name that keys use.
    pub fn idp(mut self, name: impl Into<String>, idp: Idp) -> Self {
        self.idps.push((name.into(), idp));
        self
    }

    /// Sets the times of refreshes, where an identity provider does not set its own.
    pub fn refresh(mut self, refresh: RefreshSettings) -> Self {
        self.refresh = refresh;
        self
    }

    /// Sets how many callers may wait for one grant (16 384); callers beyond that get [`Error::Busy`].
    pub fn waiters_per_grant(mut self, waiters: usize) -> Self {
        self.limits.waiters_per_grant = waiters;
        self
    }

    /// Sets how many requests may wait for their answers (131 072); requests beyond that get [`Error::Busy`]. Valid tokens
    /// are served all the same.
    pub fn requests_in_flight(mut self, requests: usize) -> Self {
        self.limits.requests_in_flight = requests;
        self
    }

    /// Sets how long a token stays in memory after its last use (10 min). The grant is refreshed all the same.
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.limits.idle_after = idle;
        self
    }

    /// Sets how often what other processes may have written is looked for: holds, due grants that were passed over (5 s). A grant
    /// is refreshed when it comes due, whatever this period is.
    pub fn sweep_every(mut self, period: Duration) -> Self {
        self.limits.sweep_every = period;
        self
    }

    /// Sets how long tokens in memory are served while the changes of other processes at the same PostgreSQL store do not reach
    /// this one (5 min): one of them may have disconnected the grant meanwhile. After that, each token is read from the store
    /// before it is handed out.
    pub fn served_unheard(mut self, longest: Duration) -> Self {
        self.limits.served_unheard = longest;
        self
    }

    /// Refreshes only the grants that are asked for, not those that are due: for programs that live for one request, such as
    /// a command. Responses that an earlier process left in the journal are stored all the same.
    pub fn on_demand(mut self) -> Self {
        self.on_demand = true;
        self
    }

    /// Names users as they are in the lines of the `audit` target (field `user`), instead of by a digest that only the key
    /// ring's owner can compute.
    pub fn plain_users(mut self, plain: bool) -> Self {
        self.plain_users = plain;
        self
    }

    /// Sets how long copies of what the store has are kept beside the journal (48 h; zero for none). With them, grants that were
    /// refreshed, connected or disconnected after a backup are brought back when the store is restored from it. Each refresh takes
    /// 1 to 3 KB.
    pub fn history_kept(mut self, kept: Duration) -> Self {
        self.limits.history_kept = kept;
        self
    }

    #[cfg(feature = "config")]
    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long the row of a disconnected grant is kept, for [`restore`](TokenSupervisor::restore) and for questions
    /// about it, before it is purged (30 days). Old rows are searched for once an hour.
    pub fn tombstones_kept(mut self, kept: Duration) -> Self {
        self.limits.tombstones_kept = kept;
        self
    }

    /// Opens store, journal and keys, and starts the supervisor's threads.
    ///
    /// Dropping the future leaves nothing running.
    ///
    /// # Errors
    /// [`Error::Configuration`], [`Error::Start`], [`Error::StoreInUse`] or [`Error::Journal`]: what is missing or
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
        let opened = opened.map_err(|_| Error::Internal("opening store and journal panicked"))??;
        let ports = opened.refresher.ports();
        check_keys(ports.ledger.store(), &ports.keyring).await?;
        let is_recovering = recovery::check(ports).await.map_err(|error| Error::Start(error.to_string()))?;
        ports.providers.read_holds(&ports.ledger).await.map_err(|error| Error::Start(error.to_string()))?;
        opened.assemble(guard.release()?, on_demand, is_recovering).await
    }

    fn open(self, runtime: tokio::runtime::Handle) -> Result<Opened, Error> {
        let missing = |what: &str| Error::Configuration(format!("{what}: see TokenSupervisor::builder"));
        if let Some(name) = self.deployment.as_deref().filter(|name| !valid_deployment_name(name)) {
            return Err(Error::Configuration(format!(
                "deployment: {name:?} is no name: use 1 to 64 characters, without spaces at the ends and control characters"
            )));
        }
        let url = self.store.as_deref().ok_or_else(|| missing("no store is set"))?;
        let keyring = self.keyring.ok_or_else(|| missing("no key ring is set"))?;
        #[cfg(feature = "testing")]
        let clock = self.testing.clock(&runtime);
        #[cfg(not(feature = "testing"))]
        let clock = Clock::system(runtime.clone());
        let events = Arc::new(Channel::default());
        let refresh = self.refresh.with_least_settle(store::least_settle(url));
        let providers = Arc::new(Providers::new(self.idps, refresh, self.deployment, clock.clone(), events.clone())?);
        let migrate = self.migrate.unwrap_or_else(|| Migrate::default_of(url));
        let store = store::open(url, migrate, &clock, keyring.row_codes())?;
        let folder = match (self.journal, store::sqlite_path(url)) {
            (Some(folder), _) => folder,
            (None, Some(path)) => store::journal_beside(path),
            (None, None) => return Err(missing("no journal is set, which a PostgreSQL store needs")),
        };
        #[cfg(feature = "testing")]
        let store = self.testing.wrap(store);
        let meters = Arc::new(Meters::new(clock.clone()));
        // What is not polled opens nothing.
        let replicas = Replicas::new(store.open_line().is_some(), clock.read().boot);
        let store = Arc::new(Metered::new(store, meters.clone()));
        let journal = Arc::new(Journal::open(&folder, &keyring)?);
        let history = Arc::new(History::open(&folder, journal.owner(), &keyring, &clock, self.limits.history_kept));
        #[cfg(feature = "testing")]
        self.testing.share(&journal, &history);
        let refresher = Refresher::new(Ports {
            ledger: Ledger::new(store, events, keyring.clone(), self.plain_users, replicas, history),
            snapshot: Arc::new(Snapshot::new(clock.clone())),
            clock,
            keyring,
            journal,
            providers,
            attempts: Arc::default(),
            runtime,
            leases_lost: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            #[cfg(feature = "testing")]
            hooks: self.testing,
        });
        Ok(Opened { refresher, meters, limits: self.limits })
    }
}

/// Checks that the keyring is the one that the store was created with.
async fn check_keys(store: &dyn Store, keyring: &Keyring) -> Result<(), Error> {
    let failed = |error: StoreError| Error::Start(error.to_string());
    let checked = store.keyring_check(keyring.check_value().0).await.map_err(failed)?.ok_or_else(|| {
        Error::Start(
            "the store has grants and no check value of its keys, which another program has deleted: restore the store from \
             its backup"
                .into(),
        )
    })?;
    if keyring.verify_check(&Sealed(checked))? == CheckedRows::WithoutCodes {
        tracing::info!("computing the codes of the stored rows, once");
        let mut after = Some(0);
        while let Some(id) = after {
            after = store.code_rows(id).await.map_err(failed)?;
        }
        store.set_meta("key_check", Some(keyring.check_value().0)).await.map_err(failed)?;
    }
    // The active key may have been promoted since the last start.
    reseal_check(store, keyring).await.map_err(|error| Error::Start(error.to_string()))?;
    Ok(())
}

/// Everything that is opened before the supervisor's own threads run.
struct Opened {
    refresher: Refresher,
    meters: Arc<Meters>,
    limits: Limits,
}

impl Opened {
    /// Introduces the rooms to one another and starts them.
    async fn assemble(self, runtime: Runtime, on_demand: bool, is_recovering: bool) -> Result<TokenSupervisor, Error> {
        let Self { refresher, meters, limits } = self;
        let ports = refresher.ports();
        let (ledger, clock, providers) = (ports.ledger.clone(), ports.clock.clone(), ports.providers.clone());
        let (registry, registries) = watch::channel(None);
        let router = Router::new(registries);
        let around = Arc::new(Surroundings::new(refresher.clone(), router.clone(), limits));
        let front = Front::new(&around);
        let revoker = Arc::new(Revoker::new(refresher.clone(), front.clone(), limits.sweep_every));
        let grants = Counter::new(ledger.clone(), clock.clone(), ports.runtime.clone());
        let recovery = Arc::new(Recovery::new(refresher.clone(), router.clone()));
        let exchange = ReplicaExchange::new(refresher.clone(), router, limits.served_unheard).start(on_demand);
        let life = Life::start(runtime, around.clone(), front.clone(), registry, exchange, recovery.clone())
            .await
            .map_err(|error| Error::Start(format!("the operating system gave no thread: {error}")))?;
        life.background(clock.watch_steps());
        if on_demand && is_recovering {
            // A command does not come back.
            recovery.step().await.map_err(|error| Error::Start(error.to_string()))?;
        }
        life.background(Upkeep::new(&around, &front, revoker.clone(), recovery).run(on_demand));
        Ok(TokenSupervisor::new(Rooms { front, providers, ledger, refresher, around, revoker, grants, meters, life }))
    }
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
