//! The registry: one actor that finds, starts or replaces the actor of a key.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, dev::SendError};
use tokio::sync::mpsc;

use super::{
    command::Ask,
    router::RoutedRequest,
    shed::Bound,
    token::{ActorNews, ActorReport, Deliver, Retired, Surroundings, TokenActor},
};
use crate::{
    error::{Cause, Error},
    metrics::count,
    model::{BootTime, TokenKey},
};

/// Routes requests; owns no state that cannot be rebuilt by asking again.
pub(super) struct RegistryActor {
    around: Arc<Surroundings>,
    actors: HashMap<TokenKey, RunningActor>,
    restarts: HashMap<TokenKey, VecDeque<BootTime>>,
    started: u64,
    _guard: RegistryGuard,
}

struct RunningActor {
    actor: Addr<TokenActor>,
    number: u64,
}

/// Reports to the System's thread that the registry is gone, however it went.
struct RegistryGuard(mpsc::UnboundedSender<()>);

impl Drop for RegistryGuard {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

/// More restarts than this within [`RESTART_WINDOW`], and the key is left alone for as long.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

impl RegistryActor {
    pub(super) fn new(around: Arc<Surroundings>, ended: mpsc::UnboundedSender<()>) -> Self {
        Self { around, actors: HashMap::new(), restarts: HashMap::new(), started: 0, _guard: RegistryGuard(ended) }
    }

    /// Returns the running actor of the key, or a new one.
    fn actor(&mut self, key: &TokenKey, context: &Context<Self>) -> Addr<TokenActor> {
        if let Some(entry) = self.actors.get(key).filter(|entry| entry.actor.connected()) {
            return entry.actor.clone();
        }
        self.started += 1;
        let number = self.started;
        let registry = context.address().recipient();
        let actor = TokenActor::new(self.around.clone(), key.clone(), registry, number).start();
        self.actors.insert(key.clone(), RunningActor { actor: actor.clone(), number });
        actor
    }

    /// Returns how long the key is left alone, if its actor kept failing.
    fn left_alone(&mut self, key: &TokenKey) -> Option<Duration> {
        let now = self.around.refresher.ports().clock.read().boot;
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

    fn is_published(&self, key: &TokenKey) -> bool {
        self.around.refresher.ports().snapshot.current(key).is_some()
    }

    fn deliver(&mut self, key: &TokenKey, ask: Ask, context: &Context<Self>) {
        let is_stale = matches!(ask, Ask::Stale | Ask::StaleIfAwake);
        if let Some(retry_after) = self.left_alone(key) {
            if is_stale {
                // No actor looks at the row for a while.
                self.around.refresher.ports().snapshot.remove(key);
            }
            return ask.refuse(Error::Unavailable { retry_after, cause: Cause::Failing });
        }
        if is_stale {
            // Also if its mailbox is full.
            return self.actor(key, context).do_send(Deliver(ask));
        }
        match self.actor(key, context).try_send(Deliver(ask)) {
            Ok(()) => {}
            Err(SendError::Full(Deliver(ask))) => {
                self.around.shed.count(Bound::Mailbox);
                ask.refuse(Error::Busy { retry_after: Duration::from_secs(1) });
            }
            Err(SendError::Closed(Deliver(ask))) => {
                // The actor has just ended: a new one takes the message, and its mailbox is empty.
                self.actors.remove(key);
                self.actor(key, context).do_send(Deliver(ask));
            }
        }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Requests beyond this many at one moment are refused as busy.
        context.set_mailbox_capacity(1 << 16);
    }
}

/// The answer goes through the reply in the message; routing itself never waits.
impl Handler<RoutedRequest> for RegistryActor {
    type Result = ();

    fn handle(&mut self, RoutedRequest { key, ask }: RoutedRequest, context: &mut Self::Context) {
        #[cfg(feature = "testing")]
        assert!(!matches!(ask, Ask::PanicRegistry), "injected: the registry");
        match ask {
            Ask::AllStale { reply } => {
                // Also to those whose mailbox is full.
                self.actors.values().for_each(|running| running.actor.do_send(Deliver(Ask::Stale)));
                // Whoever asked may be gone.
                drop(reply.send(Ok(())));
            }
            // An actor that has just stopped may have published what it read before.
            Ask::StaleIfAwake if !self.actors.contains_key(&key) && !self.is_published(&key) => {}
            ask => self.deliver(&key, ask, context),
        }
    }
}

impl Handler<ActorReport> for RegistryActor {
    type Result = ();

    fn handle(&mut self, ActorReport { key, number, news }: ActorReport, context: &mut Self::Context) {
        if self.actors.get(&key).is_some_and(|entry| entry.number == number) {
            self.actors.remove(&key);
        }
        match news {
            ActorNews::Ended { panicked: false } => {}
            ActorNews::Ended { panicked: true } => {
                count(&self.around.restarts);
                let now = self.around.refresher.ports().clock.read().boot;
                self.restarts.entry(key.clone()).or_default().push_back(now);
                let name = self.around.refresher.ports().name(&key);
                tracing::error!(
                    grant.id = name.grant_id,
                    idp = key.idp(),
                    user = name.user,
                    "the actor of a grant panicked and is replaced"
                );
                // Work that the actor had to do ahead of need is still to be done.
                self.deliver(&key, Ask::Wake, context);
            }
            ActorNews::Retires(actor) => actor.do_send(Retired),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        idp::Priority,
        supervisor::{bench::Bench, status::Status},
    };

    fn registry(bench: &Bench) -> Addr<RegistryActor> {
        let (ended, _) = mpsc::unbounded_channel();
        RegistryActor::new(bench.assembled().0, ended).start()
    }

    async fn status(registry: &Addr<RegistryActor>, key: &TokenKey) -> Option<Result<Status, Error>> {
        let (reply, answer) = oneshot::channel();
        registry.send(RoutedRequest { key: key.clone(), ask: Ask::Status { reply } }).await.unwrap();
        answer.await.ok()
    }

    #[actix::test]
    async fn an_actor_stays_while_an_attempt_of_its_predecessor_runs() {
        let bench = Bench::with_idp("idp");
        let key = TokenKey::at("idp").user("alice");
        let row = Arc::new(bench.connect(&key, "ts-test-secret-1").await);
        let gate = bench.providers.get("idp").unwrap().gate.clone();
        let mut slots = Vec::new();
        while let Some(Ok(slot)) = gate.slot(&bench.clock, 0, 0, Priority::Foreground).now_or_never() {
            slots.push(slot);
        }
        let attempt = bench.refresher.join_or_start(&key, row, true).unwrap();
        let (around, ..) = bench.assembled();
        let (ended, _) = mpsc::unbounded_channel();
        let registry = RegistryActor::new(around.clone(), ended).start();
        registry.send(RoutedRequest { key: key.clone(), ask: Ask::Wake }).await.unwrap();
        for _ in 0..20 {
            bench.manual.advance(Duration::from_secs(1));
            bench.ledger.store().read(&key).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(around.awake.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(attempt.borrow().ended.is_none());
    }

    #[actix::test]
    async fn a_key_has_one_actor_and_a_failing_one_is_left_alone_for_a_while() {
        let bench = Bench::with_idp("idp");
        let key = TokenKey::at("idp").user("alice");
        bench.connect(&key, "ts-test-secret-1").await;
        let registry = registry(&bench);
        assert!(status(&registry, &key).await.unwrap().is_ok());
        for _ in 0..RESTARTS {
            registry.send(RoutedRequest { key: key.clone(), ask: Ask::Panic }).await.unwrap();
            // A dropped reply says that the actor died with the request: ask again.
            while status(&registry, &key).await.is_none() {}
        }
        let refused = status(&registry, &key).await.unwrap();
        assert!(matches!(refused, Err(Error::Unavailable { cause: Cause::Failing, .. })), "{refused:?}");
        let neighbour = TokenKey::at("idp").user("bob");
        assert!(status(&registry, &neighbour).await.unwrap().is_ok());
        bench.manual.advance(RESTART_WINDOW);
        assert!(status(&registry, &key).await.unwrap().is_ok());
    }
}
