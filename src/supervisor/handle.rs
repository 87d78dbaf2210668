//! The handle that callers hold.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::Recipient;
use tokio::task::JoinHandle;

use super::{
    by::By,
    census::Counter,
    command::{Acquire, Command, Watch},
    events::{Events, Subscription, TokenEvent, hand_over},
    front::Front,
    ledger::{Ledger, unavailable},
    provider::Providers,
    refresh::Refresher,
    runtime::{Life, Shutdown},
    snapshot::{Snapshot, TokenWatch},
    token::Surroundings,
    upkeep::Revoker,
};
#[cfg(feature = "web")]
use crate::model::Generation;
use crate::{
    clock::Clock,
    error::Error,
    model::{Token, TokenKey, TokenRef},
    store::metered::Meters,
};

/// Keeps tokens alive. A cheap handle: clones are the same supervisor.
///
/// It runs on threads of its own, so that it can be used from any runtime and nothing of it dies with one. The
/// last drop starts a shutdown without waiting for it; [`shutdown`](Self::shutdown) waits.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, alice, _| {
/// use std::time::Duration;
/// use token_supervisor::{Acquire, Error};
///
/// let token = supervisor.token(&alice).await?;
/// println!("{} until {:?}", token.generation(), token.expiry());
/// let now_or_never = supervisor.cached(&alice); // where nothing can be awaited
/// # assert!(now_or_never.is_some());
///
/// // With a wish, or a deadline of one's own:
/// let asked = Acquire::new(&alice).min_ttl(Duration::from_secs(60)).timeout(Duration::from_secs(2));
/// match supervisor.call(asked).await {
///     Ok(token) => println!("{}", token.scope()),
///     Err(Error::NotConnected | Error::ReconnectRequired { .. }) => println!("send alice through consent"),
///     Err(error) if error.is_transient() => println!("later: {:?}", error.retry_after()),
///     Err(error) => println!("{error}"),
/// }
///
/// let stopped = supervisor.shutdown(Duration::from_secs(30)).await;
/// assert_eq!(stopped.abandoned, 0);
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct TokenSupervisor {
    /// The snapshot once more, so that the hot path reaches it in one step.
    snapshot: Arc<Snapshot>,
    by: By,
    pub(super) rooms: Arc<Rooms>,
}

/// The owners behind the handle's methods. Dropping them starts a shutdown.
pub(super) struct Rooms {
    pub(super) front: Front,
    pub(super) providers: Arc<Providers>,
    pub(super) ledger: Ledger,
    pub(super) refresher: Refresher,
    pub(super) around: Arc<Surroundings>,
    pub(super) revoker: Arc<Revoker>,
    pub(super) grants: Counter,
    pub(super) meters: Arc<Meters>,
    pub(super) life: Life,
}

impl TokenSupervisor {
    pub(super) fn new(rooms: Rooms) -> Self {
        let snapshot = rooms.refresher.ports().snapshot.clone();
        Self { snapshot, by: By::default(), rooms: Arc::new(rooms) }
    }

    /// Returns a handle whose changes have this author in the audit log.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// use token_supervisor::By;
    ///
    /// let operator = supervisor.acting_as(By::SystemUser("root".into()));
    /// operator.hold(&alice, "moves to another account").await?; // audit: caller=user:root action=hold
    /// # Ok(()) });
    /// ```
    pub fn acting_as(&self, by: By) -> Self {
        Self { by, ..self.clone() }
    }

    pub(super) fn by(&self) -> &By {
        &self.by
    }

    /// Returns a valid token of the key. Resolves at the first poll while the published token is valid; otherwise waits for
    /// a refresh, up to 10 s (use [`Acquire`] for another timeout or a minimum validity).
    ///
    /// Dropping the future neither stops nor changes a refresh.
    ///
    /// # Errors
    /// See [`Error`]: each says what to do next.
    #[inline]
    pub fn token<'a>(&'a self, key: &'a TokenKey) -> impl Future<Output = Result<Token, Error>> + Send + Unpin + 'a {
        Asking { supervisor: self, key, waiting: None }
    }

    /// Returns the published token of the key if it is still valid: only the hot path of [`token`](Self::token). No
    /// message, lock, allocation or system call. `None` does not say why there is no token: ask with `token`.
    #[inline]
    pub fn cached(&self, key: &TokenKey) -> Option<Token> {
        self.snapshot.get(key, Duration::ZERO)
    }

    /// Lends the published token of the key to `read` if it is still valid, and returns what `read` returns: like
    /// [`cached`](Self::cached), but no reference counter is raised, so that any number of threads can read one key without
    /// waiting for each other. `None` does not say why there is no token.
    ///
    /// `read` must be short: neither block nor wait in it. A token that is replaced meanwhile stays in memory until `read`
    /// returns. Nothing else waits for it, and it may use the supervisor.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// let header = match supervisor.with(&alice, |token| token.authorization()) {
    ///     Some(header) => header,
    ///     None => supervisor.token(&alice).await?.authorization(), // waits, or says why there is none
    /// };
    /// # assert!(header.starts_with("Bearer "));
    /// # Ok(()) });
    /// ```
    #[inline]
    pub fn with<R>(&self, key: &TokenKey, read: impl FnOnce(TokenRef<'_>) -> R) -> Option<R> {
        self.snapshot.with(key, read)
    }

    /// Sends a command to the key's actor and waits for the answer until the command's deadline.
    ///
    /// Dropping the future forgoes the answer; what the command started goes on.
    ///
    /// # Errors
    /// See [`Error`]: each says what to do next.
    pub fn call<C: Command>(&self, command: C) -> impl Future<Output = Result<C::Answer, Error>> + Send + use<C> {
        self.rooms.front.call(command, self.by.clone())
    }

    /// Watches one key: many reads, each an atomic load. While the watch exists, the key's token stays published.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if nothing is stored for the key; otherwise see [`Error`].
    pub async fn watch(&self, key: &TokenKey) -> Result<TokenWatch, Error> {
        key.validate().map_err(Error::InvalidRequest)?;
        let watch = self.snapshot.watch(key);
        self.call(Watch(key.clone())).await?;
        Ok(watch)
    }

    /// Sends the revocations that are due, once, and waits for the responses. Returns how many of them are to be retried.
    /// For programs whose supervisor does nothing by itself ([`Builder::on_demand`](super::Builder::on_demand)); others need
    /// not call it.
    ///
    /// Dropping the future skips the rest; the response to a request that was sent is awaited all the same.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not respond.
    pub async fn revoke_queued(&self) -> Result<usize, Error> {
        self.rooms.revoker.revoke_queued().await.map_err(|error| unavailable(&error))
    }

    /// Returns how many responses in the journal the store does not have yet.
    pub fn journal_pending(&self) -> usize {
        self.rooms.refresher.ports().journal.pending()
    }

    /// Returns the events of grants and identity providers from now on, without secrets.
    ///
    /// The last 1 024 events are kept for slow readers; nothing waits for a reader.
    ///
    /// ```
    /// # use token_supervisor::testing::{Profile, SimulatedIdp};
    /// # use token_supervisor::{EventKind, Keyring, TokenKey, TokenSupervisor, presets};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let simulated = SimulatedIdp::start(Profile::gitlab())?;
    /// # let supervisor = TokenSupervisor::builder()
    /// #     .store(format!("sqlite://{}/tokens.db", folder.path().display()))
    /// #     .keyring(Keyring::generate())
    /// #     .idp("gitlab", simulated.idp())
    /// #     .start()
    /// #     .await?;
    /// # let alice = TokenKey::at("gitlab").user("alice");
    /// # supervisor.connect(&alice, simulated.consent("alice")).await?;
    /// let mut events = supervisor.events();
    /// # simulated.end_family("alice"); // alice revokes the application
    /// # supervisor.refresh_now(&alice).await.unwrap_err();
    /// # supervisor.shutdown(std::time::Duration::from_secs(5)).await;
    /// # let mut mails = 0;
    /// while let Some(event) = events.recv().await {
    ///     match event {
    ///         Ok(event) => match event.kind {
    ///             EventKind::ReconnectRequired { evidence, .. } => {
    ///                 println!("{:?} must sign in again: {evidence}", event.key); // send a mail
    /// #               mails += 1;
    ///             }
    ///             kind => println!("{} {}", event.grant_id, kind.as_str()),
    ///         },
    ///         Err(lagged) => println!("{lagged}"), // ask for the status of what matters
    ///     }
    /// }
    /// # assert_eq!(mails, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn events(&self) -> Events {
        self.rooms.ledger.events().listen()
    }

    /// Sends [`events`](Self::events) to an actor, one at a time: the next one is sent when the actor has handled the
    /// last. An actor that is too slow gets the number of events it missed
    /// ([`EventKind::Missed`](super::EventKind::Missed)). Ends when the returned value is dropped, when the actor
    /// is gone, or with the supervisor.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, simulated| {
    /// use actix::{Actor, Context, Handler};
    /// use token_supervisor::{EventKind, TokenEvent};
    ///
    /// struct Mailer;
    ///
    /// impl Actor for Mailer {
    ///     type Context = Context<Self>;
    /// }
    ///
    /// impl Handler<TokenEvent> for Mailer {
    ///     type Result = ();
    ///
    ///     fn handle(&mut self, event: TokenEvent, _: &mut Self::Context) {
    ///         if let EventKind::ReconnectRequired { evidence, .. } = event.kind {
    ///             println!("{:?} must sign in again: {evidence}", event.key); // send a mail
    ///         }
    ///     }
    /// }
    ///
    /// # tokio::task::LocalSet::new().run_until(async {
    /// let subscription = supervisor.subscribe(Mailer.start().recipient());
    /// # drop(subscription);
    /// # }).await;
    /// # Ok(()) });
    /// ```
    pub fn subscribe(&self, recipient: Recipient<TokenEvent>) -> Subscription {
        let task = self.spawn(hand_over(self.events(), recipient, self.clock().clone()));
        Subscription(task.abort_handle())
    }

    /// Starts no more refreshes, and waits until those under way are stored, at most for `within`. Valid tokens are
    /// still served. Once nothing is under way the store is closed. Idempotent; dropping the future leaves the shutdown
    /// half-way: call it again.
    pub async fn shutdown(&self, within: Duration) -> Shutdown {
        self.rooms.life.shutdown(within).await
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.rooms.refresher.ports().clock
    }

    /// Runs a task that must end even if its caller is gone.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.rooms.refresher.ports().runtime.spawn(task)
    }
}

impl TokenSupervisor {
    /// Returns the name that stands for a user in lines of the `audit` target: a digest with a key of the key ring.
    pub fn pseudonym(&self, user: &str) -> String {
        self.rooms.refresher.ports().keyring.pseudonym(user).to_string()
    }
}

#[cfg(feature = "web")]
impl TokenSupervisor {
    /// Whether the identity provider is configured.
    pub(crate) fn has_idp(&self, name: &str) -> bool {
        self.rooms.providers.get(name).is_some()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.rooms.refresher.is_stopping()
    }

    /// Returns the generation of the key's published token, valid or not; `None` if nothing of it is in memory.
    pub(crate) fn published(&self, key: &TokenKey) -> Option<Generation> {
        self.snapshot.current(key).map(|issued| issued.generation)
    }
}

impl std::fmt::Debug for TokenSupervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSupervisor").finish_non_exhaustive()
    }
}

/// A request for a token. Not an `async fn`, so that the hot path is compiled into the caller's code: a token that
/// is copied through memory on its way costs more than its lookup.
struct Asking<'a> {
    supervisor: &'a TokenSupervisor,
    key: &'a TokenKey,
    /// On the heap, so that the future of callers that need not wait is a few words.
    waiting: Option<PendingToken>,
}

type PendingToken = Pin<Box<dyn Future<Output = Result<Token, Error>> + Send>>;

impl Future for Asking<'_> {
    type Output = Result<Token, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiting.is_none()
            && let Some(token) = self.supervisor.cached(self.key)
        {
            return Poll::Ready(Ok(token));
        }
        self.wait(context)
    }
}

impl Asking<'_> {
    /// Not inlined: a read of a valid token must be so short that the processor works on two of them at a time.
    #[cold]
    #[inline(never)]
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<Token, Error>> {
        let (supervisor, key) = (self.supervisor, self.key);
        self.waiting.get_or_insert_with(|| Box::pin(supervisor.call(Acquire::new(key)))).as_mut().poll(context)
    }
}
