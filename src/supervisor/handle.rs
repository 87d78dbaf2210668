//! What callers hold.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use actix::Recipient;
use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::{
    Builder, Events, Registry, Subscription, TokenEvent, TokenWatch,
    command::{Acquire, Command, Watch},
    core::Core,
    events::hand_over,
    metrics::Shed,
    registry::Routes,
    runtime::Life,
    sweep::revoke_queued,
    token::refusal,
};
use crate::{
    error::{Cause, Error},
    model::{Token, TokenKey},
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
    pub(super) shared: Shared,
    life: Arc<Life>,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Refreshes that were under way and are stored.
    pub finished: usize,
    /// Refreshes that were still under way at the deadline. Their answers are stored if they come before the
    /// process ends; if not, the next process finds their intents.
    pub abandoned: usize,
}

impl TokenSupervisor {
    /// Configures a supervisor.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(shared: Shared, life: Arc<Life>) -> Self {
        Self { shared, life }
    }

    /// A valid token of the key. Resolves at the first poll while the published token is good; else waits for a
    /// refresh, up to 10 s (use [`Acquire`] for another deadline or a minimum life).
    ///
    /// Dropping the future neither stops nor changes a refresh.
    ///
    /// # Errors
    /// See [`Error`]: each says what to do next.
    #[inline]
    pub fn token<'a>(&'a self, key: &'a TokenKey) -> impl Future<Output = Result<Token, Error>> + Send + Unpin + 'a {
        Asking { supervisor: self, key, waiting: None }
    }

    /// The published token of the key, if it is good: the hot path of [`token`](Self::token) alone. No message,
    /// lock, allocation or system call. `None` says nothing but that: ask with `token`.
    #[inline]
    pub fn cached(&self, key: &TokenKey) -> Option<Token> {
        self.shared.cached_for(key, Duration::ZERO)
    }

    /// Sends a command to the key's actor and waits for the answer until the command's deadline.
    ///
    /// Dropping the future forgoes the answer; what the command started goes on.
    ///
    /// # Errors
    /// See [`Error`]: each says what to do next.
    pub fn call<C: Command>(&self, command: C) -> impl Future<Output = Result<C::Answer, Error>> + Send + use<C> {
        self.shared.call(command)
    }

    /// Watches one key: many reads, each an atomic load. While the watch exists, the key's actor stays awake.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if nothing is stored for the key; otherwise see [`Error`].
    pub async fn watch(&self, key: &TokenKey) -> Result<TokenWatch, Error> {
        key.validate().map_err(Error::InvalidRequest)?;
        let core = &self.shared.core;
        let watch = TokenWatch::new(core.snapshot.watch(key), core.clock.clone());
        self.call(Watch(key.clone())).await?;
        Ok(watch)
    }

    /// Sends the revocations that are due, once, and waits for the answers; how many of them are to be tried again. For
    /// programs whose supervisor does nothing by itself ([`Builder::on_demand`]); others need not call it.
    ///
    /// Dropping the future forgoes the rest; a request that was sent is awaited all the same.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not answer.
    pub async fn revoke_queued(&self) -> Result<usize, Error> {
        revoke_queued(&self.shared).await.map_err(|error| refusal(&error))
    }

    /// How many answers wait in the journal for the store.
    pub fn journal_pending(&self) -> usize {
        self.shared.core.journal.pending()
    }

    /// The message API, for other actors.
    pub fn registry(&self) -> Registry {
        Registry::new(self.clone(), self.life.front())
    }

    /// Tells what happens to grants and identity providers from now on, without secrets.
    ///
    /// The last 1 024 events are kept for whoever reads slowly; nobody waits for a reader.
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
        self.shared.core.events.listen()
    }

    /// Sends what [`events`](Self::events) tells to an actor, one event at a time: the next one goes when it has
    /// handled the last. If it is too slow for what happens it is told how many it missed
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
        let core = &self.shared.core;
        let task = core.runtime.spawn(hand_over(core.events.listen(), recipient, core.clock.clone()));
        Subscription(task.abort_handle())
    }

    /// Starts no more refreshes, and waits until those under way are stored, at most for `within`. Valid tokens are
    /// served on. Once nothing is under way the store is closed. Idempotent; dropping the future leaves the
    /// shutdown half-way, to be called again.
    pub async fn shutdown(&self, within: Duration) -> Shutdown {
        self.life.shutdown(within).await
    }

    #[cfg(feature = "testing")]
    pub(crate) fn life(&self) -> &Life {
        &self.life
    }
}

impl std::fmt::Debug for TokenSupervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSupervisor").finish_non_exhaustive()
    }
}

/// Asks for a token. Not an `async fn`, so that the caller's code is compiled with the hot path in it: a token that
/// is copied through memory on its way costs more than its lookup.
struct Asking<'a> {
    supervisor: &'a TokenSupervisor,
    key: &'a TokenKey,
    /// On the heap, so that the future of those who need not wait is a few words.
    waiting: Option<Waiting>,
}

type Waiting = Pin<Box<dyn Future<Output = Result<Token, Error>> + Send>>;

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
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<Token, Error>> {
        let (supervisor, key) = (self.supervisor, self.key);
        self.waiting.get_or_insert_with(|| Box::pin(supervisor.call(Acquire::new(key)))).as_mut().poll(context)
    }
}

/// What every handle needs to ask; keeps nothing alive beyond itself.
#[derive(Clone)]
#[doc(hidden)]
pub struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) routes: Routes,
}

/// Counts a request for as long as it waits for its answer.
struct InFlight(Arc<Core>);

impl InFlight {
    fn enter(core: &Arc<Core>) -> Result<Self, Error> {
        let before = core.in_flight.fetch_add(1, Ordering::Relaxed);
        let entered = Self(core.clone());
        if before >= core.limits.requests_in_flight {
            core.counters.shed(Shed::RequestsInFlight);
            return Err(Error::Busy { retry_after: Duration::from_secs(1) });
        }
        Ok(entered)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A key's actor that dies with a request is replaced and asked again this often.
const TRIES: u32 = 3;

impl Shared {
    #[inline]
    pub(super) fn cached_for(&self, key: &TokenKey, min_ttl: Duration) -> Option<Token> {
        self.core.snapshot.get(key, min_ttl)
    }

    pub(super) fn call<C: Command>(
        &self,
        command: C,
    ) -> impl Future<Output = Result<C::Answer, Error>> + Send + use<C> {
        let shared = self.clone();
        async move {
            command.check()?;
            if let Some(answer) = command.fast(&shared) {
                return Ok(answer);
            }
            let _in_flight = InFlight::enter(&shared.core)?;
            let configured = shared.core.provider(command.key().idp()).is_some();
            if !configured && command.needs_idp() {
                return Err(Error::UnknownIdp);
            }
            let deadline = shared.core.clock.sleep(command.timeout_after());
            match select(Box::pin(shared.ask(command)), Box::pin(deadline)).await {
                Either::Left((Err(Error::NotConnected), _)) if !configured => Err(Error::UnknownIdp),
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Err(Error::Timeout),
            }
        }
    }

    /// Asks until somebody answers. Commands may be repeated: connects and reports by their fingerprints and
    /// generations, refreshes because there is one attempt per key.
    async fn ask<C: Command>(&self, command: C) -> Result<C::Answer, Error> {
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let routed = self.routes.route(command.key().clone(), command.clone().ask(reply)).await;
            if let Err(Error::Busy { .. }) = routed {
                self.core.counters.shed(Shed::Mailbox);
            }
            routed?;
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(Error::Unavailable { retry_after: Duration::from_secs(1), cause: Cause::Failing })
    }
}
