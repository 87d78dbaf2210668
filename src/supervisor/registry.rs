//! The registry: one actor that finds, starts or replaces the actor of a key, and the handle that survives it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture, dev::SendError};
use tokio::sync::{mpsc, watch};

use super::{
    TokenSupervisor,
    command::{Ask, Command},
    core::Core,
    handle::Shared,
    metrics::Shed,
    token::{Deliver, Retired, TokenActor},
};
use crate::{
    error::{Cause, Error},
    metrics::count,
    model::{BootTime, TokenKey},
};

/// Routes requests; owns no state that cannot be rebuilt by asking again.
pub(super) struct RegistryActor {
    core: Arc<Core>,
    routes: Routes,
    actors: HashMap<TokenKey, Entry>,
    restarts: HashMap<TokenKey, VecDeque<BootTime>>,
    started: u64,
    _guard: Guard,
}

struct Entry {
    actor: Addr<TokenActor>,
    number: u64,
}

/// Tells the runtime that the registry is gone, however it went.
struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

/// More restarts than this within [`RESTART_WINDOW`], and the key is left alone for as long.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// A request for a key's actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Route {
    pub(super) key: TokenKey,
    pub(super) ask: Ask,
}

/// The actor of a key is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TokenActorEnded {
    pub(super) key: TokenKey,
    pub(super) number: u64,
    pub(super) panicked: bool,
}

/// The actor of a key wants to sleep.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retire {
    pub(super) key: TokenKey,
    pub(super) number: u64,
    pub(super) actor: Addr<TokenActor>,
}

/// A defect, for tests of what follows from one.
#[cfg(feature = "testing")]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PanicNow;

impl RegistryActor {
    pub(super) fn new(Shared { core, routes }: Shared, ended: mpsc::UnboundedSender<()>) -> Self {
        Self { core, routes, actors: HashMap::new(), restarts: HashMap::new(), started: 0, _guard: Guard(ended) }
    }

    /// The running actor of the key, or a new one.
    fn actor(&mut self, key: &TokenKey, context: &Context<Self>) -> Addr<TokenActor> {
        if let Some(entry) = self.actors.get(key).filter(|entry| entry.actor.connected()) {
            return entry.actor.clone();
        }
        self.started += 1;
        let number = self.started;
        let shared = Shared { core: self.core.clone(), routes: self.routes.clone() };
        let actor = TokenActor::new(shared, key.clone(), context.address(), number).start();
        self.actors.insert(key.clone(), Entry { actor: actor.clone(), number });
        actor
    }

    /// How long the key is left alone, because its actor kept failing.
    fn left_alone(&mut self, key: &TokenKey) -> Option<Duration> {
        let now = self.core.clock.read().boot;
        let restarts = self.restarts.get_mut(key)?;
        while restarts.front().is_some_and(|at| now.since(*at) >= RESTART_WINDOW) {
            restarts.pop_front();
        }
        if restarts.is_empty() {
            self.restarts.remove(key);
            return None;
        }
        let last = restarts.back().filter(|_| restarts.len() >= RESTARTS)?;
        Some((*last + RESTART_WINDOW).since(now))
    }

    fn deliver(&mut self, key: &TokenKey, ask: Ask, context: &Context<Self>) {
        if let Some(retry_after) = self.left_alone(key) {
            return ask.refuse(Error::Unavailable { retry_after, cause: Cause::Failing });
        }
        match self.actor(key, context).try_send(Deliver(ask)) {
            Ok(()) => {}
            Err(SendError::Full(Deliver(ask))) => {
                self.core.counters.shed(Shed::Mailbox);
                ask.refuse(Error::Busy { retry_after: Duration::from_secs(1) });
            }
            Err(SendError::Closed(Deliver(ask))) => {
                // It ended just now: a new one takes the message, and its mailbox is empty.
                self.actors.remove(key);
                self.actor(key, context).do_send(Deliver(ask));
            }
        }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Callers beyond this many in one moment are told to slow down.
        context.set_mailbox_capacity(1 << 16);
    }
}

/// Answers travel in the message; routing itself never waits.
impl Handler<Route> for RegistryActor {
    type Result = ();

    fn handle(&mut self, Route { key, ask }: Route, context: &mut Self::Context) {
        self.deliver(&key, ask, context);
    }
}

impl Handler<TokenActorEnded> for RegistryActor {
    type Result = ();

    fn handle(&mut self, TokenActorEnded { key, number, panicked }: TokenActorEnded, context: &mut Self::Context) {
        if self.actors.get(&key).is_some_and(|entry| entry.number == number) {
            self.actors.remove(&key);
        }
        if panicked {
            count(&self.core.counters.actor_restarts);
            self.restarts.entry(key.clone()).or_default().push_back(self.core.clock.read().boot);
            tracing::error!(idp = key.idp(), "the actor of a grant panicked and is replaced");
            // What it had to do ahead of need is still to be done.
            self.deliver(&key, Ask::Wake, context);
        }
    }
}

impl Handler<Retire> for RegistryActor {
    type Result = ();

    fn handle(&mut self, Retire { key, number, actor }: Retire, _: &mut Self::Context) {
        if self.actors.get(&key).is_some_and(|entry| entry.number == number) {
            self.actors.remove(&key);
        }
        actor.do_send(Retired);
    }
}

#[cfg(feature = "testing")]
impl Handler<PanicNow> for RegistryActor {
    type Result = ();

    fn handle(&mut self, _: PanicNow, _: &mut Self::Context) {
        panic!("injected: the registry");
    }
}

/// Where messages go: the registry of this moment.
#[derive(Clone)]
pub(super) struct Routes(watch::Receiver<Option<Addr<RegistryActor>>>);

impl Routes {
    pub(super) fn new(registry: watch::Receiver<Option<Addr<RegistryActor>>>) -> Self {
        Self(registry)
    }

    /// Hands a request to the registry; waits while a dead one is being replaced.
    ///
    /// # Errors
    /// Too many requests wait for routing, or the supervisor was shut down.
    pub(super) async fn route(&self, key: TokenKey, ask: Ask) -> Result<(), Error> {
        let mut route = Route { key, ask };
        let mut registry = self.0.clone();
        loop {
            let addr = registry.borrow_and_update().clone();
            if let Some(addr) = addr {
                route = match addr.try_send(route) {
                    Ok(()) => return Ok(()),
                    Err(SendError::Full(_)) => return Err(Error::Busy { retry_after: Duration::from_secs(1) }),
                    Err(SendError::Closed(route)) => route,
                };
            }
            registry.changed().await.map_err(|_| Error::ShutDown)?;
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn panic_registry(&self) {
        if let Some(registry) = &*self.0.borrow() {
            registry.do_send(PanicNow);
        }
    }
}

/// The message API for other actors. Survives the replacement of the registry behind it.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, alice, _| {
/// use token_supervisor::Acquire;
///
/// // An actor that is given this knows no supervisor.
/// let tokens: actix::Recipient<Acquire> = supervisor.registry().recipient();
/// let token = tokens.send(Acquire::new(&alice)).await??;
/// # assert_eq!(token.generation().get(), 1);
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Registry {
    supervisor: TokenSupervisor,
    front: Addr<FrontActor>,
}

impl Registry {
    pub(super) fn new(supervisor: TokenSupervisor, front: Addr<FrontActor>) -> Self {
        Self { supervisor, front }
    }

    /// Sends a command; the same as [`TokenSupervisor::call`].
    ///
    /// # Errors
    /// Those of the command; see [`Error`].
    pub async fn send<C: Command>(&self, command: C) -> Result<C::Answer, Error> {
        self.supervisor.call(command).await
    }

    /// An address for one kind of command, for actors that only know actix.
    pub fn recipient<C>(&self) -> Recipient<C>
    where
        C: Command,
        C::Answer: Send,
        FrontActor: Handler<C>,
    {
        self.front.clone().recipient()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// Takes commands as messages. Has no state, so it has nothing to fail with.
#[doc(hidden)]
pub struct FrontActor(Shared);

impl FrontActor {
    pub(super) fn new(shared: Shared) -> Self {
        Self(shared)
    }
}

impl Actor for FrontActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(1 << 16);
    }
}

/// The answer is a future beside the mailbox: other commands are taken while it waits.
impl<C> Handler<C> for FrontActor
where
    C: Command,
    C::Answer: Send,
{
    type Result = ResponseFuture<Result<C::Answer, Error>>;

    fn handle(&mut self, command: C, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.0.call(command))
    }
}
