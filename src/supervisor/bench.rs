//! What the unit tests of the rooms stand on: a store in a temporary folder, a clock that tests turn, and providers that
//! nothing listens for.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use actix::{Actor, Context, Handler, Recipient};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

use super::{
    by::By,
    events::Channel,
    front::Front,
    ledger::Ledger,
    provider::Providers,
    refresh::{Ports, Refresher, seal},
    registry::RegistryActor,
    replicas::Replicas,
    router::{RoutedRequest, Router},
    settings::{Limits, RefreshSettings},
    snapshot::Snapshot,
    token::Surroundings,
};
use crate::{
    clock::{Clock, ManualClock},
    journal::{History, Journal},
    keyring::Keyring,
    model::{AccessToken, Grant, RefreshToken, Row, StoreTime, TokenKey},
    presets,
    protocol::{Change, ChangeReply, Expected},
    store::{
        self, Changed,
        faulty::{Faulty, StoreFault},
    },
};

pub(super) struct Bench {
    pub(super) manual: ManualClock,
    pub(super) clock: Clock,
    pub(super) events: Arc<Channel>,
    pub(super) ledger: Ledger,
    pub(super) providers: Arc<Providers>,
    pub(super) refresher: Refresher,
    store: Faulty,
    _folder: tempfile::TempDir,
}

/// A front with a registry behind it that runs.
pub(super) struct Running {
    pub(super) front: Front,
    _registry: watch::Sender<Option<Recipient<RoutedRequest>>>,
}

impl Bench {
    /// Without an identity provider. Must be called in a tokio runtime.
    pub(super) fn new() -> Self {
        let manual = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Self::with_clock(Clock::manual(&manual), manual)
    }

    /// With the machine's clocks; its `manual` one turns nothing.
    pub(super) fn in_real_time() -> Self {
        Self::with_clock(Clock::system(Handle::current()), ManualClock::new(SystemTime::UNIX_EPOCH))
    }

    fn with_clock(clock: Clock, manual: ManualClock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("t.db").display());
        let (keyring, events) = (Keyring::generate(), Arc::new(Channel::default()));
        let store = Faulty::new(store::open(&url, store::Migrate::Auto, &clock, keyring.row_codes()).unwrap());
        let journal = Arc::new(Journal::open(&folder.path().join("journal"), &keyring).unwrap());
        let kept = Duration::from_secs(48 * 3_600);
        let history = History::open(&folder.path().join("journal"), journal.owner(), &keyring, &clock, kept);
        let history = Arc::new(history);
        let ledger = Ledger::new(
            Arc::new(store.clone()),
            events.clone(),
            keyring.clone(),
            false,
            Replicas::new(false, clock.read().boot),
            history,
        );
        let refresh = RefreshSettings::default();
        let providers = Arc::new(Providers::new(Vec::new(), refresh, None, clock.clone(), events.clone()).unwrap());
        let refresher = Refresher::new(Ports {
            clock: clock.clone(),
            ledger: ledger.clone(),
            keyring,
            journal,
            providers: providers.clone(),
            snapshot: Arc::new(Snapshot::new(clock.clone())),
            attempts: Arc::default(),
            runtime: Handle::current(),
            leases_lost: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            #[cfg(feature = "testing")]
            hooks: crate::testing::Hooks::default(),
        });
        Self { manual, clock, events, ledger, providers, refresher, store, _folder: folder }
    }

    /// With an identity provider of this name, at whose address nothing listens.
    pub(super) fn with_idp(name: &str) -> Self {
        let bench = Self::new();
        bench.providers.set(name, presets::oauth2("http://127.0.0.1:1/token", "id", "ts-test-secret-x")).unwrap();
        bench
    }

    /// From now on the store does not respond.
    pub(super) fn break_store(&self) {
        self.store.set(StoreFault::Down);
    }

    /// Connects the key with an access token of an hour.
    pub(super) async fn connect(&self, key: &TokenKey, refresh_token: &str) -> Row {
        self.connect_for(key, refresh_token, 3_600).await
    }

    /// Connects the key with an access token that lives for this many seconds.
    pub(super) async fn connect_for(&self, key: &TokenKey, refresh_token: &str, seconds: u64) -> Row {
        if self.providers.get(key.idp()).is_none() {
            let idp = presets::oauth2("http://127.0.0.1:1/token", "id", "ts-test-secret-x");
            self.providers.set(key.idp(), idp).unwrap();
        }
        let provider = self.providers.get(key.idp()).unwrap();
        let grant = Grant::new(AccessToken::from(format!("{refresh_token}-access")))
            .refresh_token(RefreshToken::from(refresh_token))
            .expires_in(Duration::from_secs(seconds));
        let keyring = &self.refresher.ports().keyring;
        let any = (Expected::Anything, Expected::Anything);
        let connect = seal::connecting(keyring, &provider, key, grant, None, any, self.clock.now());
        let change = Change::Connect(Box::new(connect));
        self.ledger.change(key, By::Attempt, change).await.unwrap().row.unwrap()
    }

    pub(super) async fn row(&self, key: &TokenKey) -> Option<Row> {
        self.ledger.store().read(key).await.unwrap().row
    }

    /// Everything that a thread of the System needs; nothing runs yet.
    pub(super) fn assembled(
        &self,
    ) -> (Arc<Surroundings>, Front, Router, watch::Sender<Option<Recipient<RoutedRequest>>>) {
        let (registry, registries) = watch::channel(None);
        let router = Router::new(registries);
        let around = Arc::new(Surroundings::new(self.refresher.clone(), router.clone(), Limits::default()));
        let front = Front::new(&around);
        (around, front, router, registry)
    }

    /// Starts a registry in the System of the test.
    pub(super) fn running(&self) -> Running {
        let (around, front, _, registry) = self.assembled();
        let (ended, _) = mpsc::unbounded_channel();
        registry.send_replace(Some(RegistryActor::new(around, ended).start().recipient()));
        Running { front, _registry: registry }
    }

    /// A router that reports the keys of its requests instead of a registry.
    pub(super) fn recording_router(&self) -> (Router, mpsc::UnboundedReceiver<TokenKey>) {
        struct Recorder(mpsc::UnboundedSender<TokenKey>);

        impl Actor for Recorder {
            type Context = Context<Self>;
        }

        impl Handler<RoutedRequest> for Recorder {
            type Result = ();

            fn handle(&mut self, route: RoutedRequest, _: &mut Self::Context) {
                self.0.send(route.key).ok();
            }
        }

        let (routed, keys) = mpsc::unbounded_channel();
        let (_, registries) = watch::channel(Some(Recorder(routed).start().recipient()));
        (Router::new(registries), keys)
    }
}

/// A change with this result, of no row.
pub(super) fn changed(reply: ChangeReply) -> Changed {
    Changed { reply, row: None, now: StoreTime(0), replaced: None, transitions: Vec::new() }
}

/// The log as text; clones share it.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<String>>);

impl Log {
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A subscriber that collects each event as a line of its fields.
pub(super) fn captured() -> (Log, impl tracing::Subscriber + Send + Sync) {
    struct Collector(Log);

    impl tracing::Subscriber for Collector {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "audit"
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            struct Line<'a>(&'a mut String);

            impl tracing::field::Visit for Line<'_> {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0.push_str(&format!("{}={value:?} ", field.name()));
                }
            }

            let mut text = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            event.record(&mut Line(&mut text));
            text.push('\n');
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    let log = Log::default();
    (log.clone(), Collector(log))
}
