//! One actor per user and identity provider: it owns the key's view of its row and the callers that wait for it.
//!
//! `machine` decides; this file carries its effects out, `change` carries out changes of the row, `rejection` takes reports
//! of rejected tokens. The actor can die at any time: attempts and operations of the store run elsewhere, and callers that
//! wait hear that the reply was dropped and ask again. The actor reports to the registry by messages (`supervision`), and
//! knows nothing else of it.

mod change;
mod machine;
mod rejection;
mod supervision;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, SpawnHandle, WrapFuture,
};
use tokio::sync::{oneshot, watch};

use self::machine::{Effect, Event, GateSight, HELD, Machine, MachineLimits, Sight, Waiting};
pub(super) use self::supervision::{ActorNews, ActorReport, Retired, Surroundings};
use super::{
    by::By,
    command::{Ask, ChangeRequest, Refreshed, Reply},
    ledger::unavailable,
    provider::Provider,
    refresh::{Ports, Progress, seal, withdraw_sent},
    shed::Bound,
    status::Status,
};
use crate::{
    clock::Reading,
    error::{Cause, Error},
    idp::{GateClosed, Priority},
    model::{BootTime, Generation, Issued, Row, State, Token, TokenKey, TokenStanding, WallTime},
    protocol::{Change, attempt::End},
    store::StoreError,
};

/// The actor of one key.
pub(super) struct TokenActor {
    around: Arc<Surroundings>,
    key: TokenKey,
    machine: Machine<Reply<Token>, Reply<Refreshed>>,
    /// Requests that came while the row is being read.
    unread: Vec<Unread>,
    /// Purges to carry out once the attempt that runs has ended.
    purges: Vec<(By, Reply<Status>)>,
    /// The number of changes of the row that are under way.
    changing: usize,
    /// What came after this actor had decided to stop: its successor gets it.
    passed_on: Vec<Ask>,
    timer: Option<(WallTime, SpawnHandle)>,
    guard: ActorGuard,
}

/// An actor that is about to stop looks after this time whether its registry is still there.
const UNHEARD: Duration = Duration::from_secs(1);

/// Requests that need the row.
enum Unread {
    Status(Reply<Status>),
    Watch(Reply<()>),
}

/// Reports to the registry, and when it is dropped that the actor is gone, however it went.
struct ActorGuard {
    around: Arc<Surroundings>,
    registry: Recipient<ActorReport>,
    key: TokenKey,
    number: u64,
}

impl ActorGuard {
    fn report(&self, news: ActorNews) {
        self.registry.do_send(ActorReport { key: self.key.clone(), number: self.number, news });
    }
}

impl Drop for ActorGuard {
    fn drop(&mut self) {
        self.around.awake.fetch_sub(1, Ordering::Relaxed);
        self.report(ActorNews::Ended { panicked: std::thread::panicking() });
    }
}

/// A request for the key's actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Deliver(pub(super) Ask);

impl TokenActor {
    pub(super) fn new(around: Arc<Surroundings>, key: TokenKey, registry: Recipient<ActorReport>, number: u64) -> Self {
        let limits = MachineLimits { waiters: around.limits.waiters_per_grant };
        around.awake.fetch_add(1, Ordering::Relaxed);
        let guard = ActorGuard { around: around.clone(), registry, key: key.clone(), number };
        let (unread, purges, passed_on) = (Vec::new(), Vec::new(), Vec::new());
        let machine = Machine::new(limits);
        Self { around, key, machine, unread, purges, changing: 0, passed_on, timer: None, guard }
    }

    fn ports(&self) -> &Ports {
        self.around.refresher.ports()
    }

    fn provider(&self) -> Option<Arc<Provider>> {
        self.ports().providers.get(self.key.idp())
    }

    fn feed(&mut self, event: Event<Reply<Token>, Reply<Refreshed>>, context: &mut Context<Self>) {
        let mut effects = self.decide(event);
        loop {
            let republished = effects.iter().any(|effect| matches!(effect, Effect::Publish(_) | Effect::Forget));
            for effect in effects {
                self.carry_out(effect, context);
            }
            if !self.answer_unread() && !republished {
                break;
            }
            effects = self.decide(Event::Tick);
        }
    }

    fn decide(&mut self, event: Event<Reply<Token>, Reply<Refreshed>>) -> Vec<Effect<Reply<Token>, Reply<Refreshed>>> {
        let ports = self.ports();
        let published = ports.snapshot.current(&self.key);
        let now = ports.clock.read();
        let sight = Sight {
            now,
            published: published.as_ref(),
            gate: self.gate(now),
            wanted: !self.unread.is_empty() || self.changing > 0 || !self.purges.is_empty(),
        };
        self.machine.step(event, sight)
    }

    fn gate(&self, now: Reading) -> GateSight {
        let held =
            self.ports().providers.held(self.key.idp()).map(|_| GateClosed { wait: HELD, cause: Cause::IdpHeld });
        self.provider().map_or_else(GateSight::default, |provider| GateSight {
            closed: held.or_else(|| provider.gate.closed_to_grant(|| self.key.stable_hash(), now)),
            recovered: provider.gate.recovered().map(|at| at.wall),
            opened: Some(provider.gate.opened().wall),
        })
    }

    fn carry_out(&mut self, effect: Effect<Reply<Token>, Reply<Refreshed>>, context: &mut Context<Self>) {
        match effect {
            Effect::Read => self.read(context),
            Effect::Publish(row) => self.publish(&row),
            Effect::Forget => match self.machine.row() {
                Some(row) => self.ports().snapshot.end(&self.key, row.generation),
                None => self.ports().snapshot.remove(&self.key),
            },
            Effect::Stand(generation, standing) => self.stand(generation, standing),
            Effect::Start(row, lane) => self.start(row, lane, context),
            Effect::Hurry => self.ports().attempts.hurry(&self.key),
            // The caller may be gone.
            Effect::Answer(reply, answer) => {
                if let Err(Error::Busy { .. }) = answer {
                    self.around.shed.count(Bound::WaitersPerGrant);
                }
                drop(reply.send(answer));
            }
            Effect::Refreshed(reply, answer) => {
                let status = self.status();
                drop(reply.send(answer.map(|refreshed| Refreshed { refreshed, status })));
            }
            Effect::WakeAt(time) => self.wake_at(time, context),
            Effect::Stop(asked) => {
                let (ports, unused) = (self.ports(), self.around.limits.idle_after);
                let is_refreshing = |key: &TokenKey| ports.attempts.runs_for(key);
                ports.snapshot.leave(&self.key, asked.unwrap_or(BootTime(0)), unused, is_refreshing);
                self.guard.report(ActorNews::Retires(context.address().recipient()));
                // A registry that dies now tells nobody.
                self.wake_at(self.ports().clock.now() + UNHEARD, context);
            }
        }
    }

    fn read(&self, context: &mut Context<Self>) {
        let read = self.ports().ledger.store().read(&self.key);
        context.spawn(read.into_actor(self).map(|read, actor, context| match read {
            Ok(read) => {
                // Before the row: an actor stops if nothing happens to its key.
                actor.follow_running(context);
                // A change has brought the row meanwhile: what was read may be from before it.
                if actor.machine.is_reading() {
                    actor.feed(Event::Row(read.row.map(Arc::new)), context);
                }
            }
            Err(error) => {
                let name = actor.ports().name(&actor.key);
                tracing::warn!(
                    grant.id = name.grant_id.as_deref().or(error.grant_id()),
                    idp = actor.key.idp(),
                    user = name.user,
                    error = %error,
                    "a grant could not be read"
                );
                if matches!(error, StoreError::Unavailable(_)) && actor.ports().snapshot.current(&actor.key).is_some() {
                    // What is published may be out of date, and nothing else would look at it again.
                    actor.ports().ledger.replicas().compare();
                }
                actor.refuse_unread(&error);
                actor.feed(Event::Unreadable, context);
            }
        }));
    }

    fn publish(&self, row: &Row) {
        let ports = self.ports();
        let is_published = |issued: Issued| issued.generation >= row.generation && !issued.journaled;
        if row.is_without_ciphertext() || ports.snapshot.current(&self.key).is_some_and(is_published) {
            return;
        }
        match seal::issued(&ports.keyring, row, ports.clock.read()) {
            Ok(issued) => {
                if self.machine.was_asked() {
                    ports.snapshot.mark_asked(&issued);
                }
                ports.snapshot.publish(&self.key, &issued);
            }
            Err(error) => tracing::error!(grant.id = row.grant_id, error = %error, "a grant cannot be served"),
        }
    }

    /// Updates the standing of the published token. One of a later generation has been journaled, and the row does not tell of
    /// it yet.
    fn stand(&self, generation: Generation, standing: TokenStanding) {
        let current = self.ports().snapshot.current(&self.key);
        if let Some(issued) = current.filter(|issued| issued.generation <= generation) {
            issued.set_standing(standing);
            withdraw_sent(&self.ports().providers, &self.ports().attempts, &self.key, &issued);
        }
    }

    /// A new actor finds its predecessor's attempt by starting one: the table hands out the running one.
    fn start(&mut self, row: Arc<Row>, lane: Priority, context: &mut Context<Self>) {
        match self.around.refresher.join_or_start(&self.key, row, lane == Priority::Foreground) {
            Some(progress) => self.follow(progress, context),
            None => {
                // Nothing starts any more: callers that wait get an error, valid tokens are still served.
                self.machine.refuse(&Error::ShutDown).into_iter().for_each(|effect| self.carry_out(effect, context));
            }
        }
    }

    /// Joins the attempt of a predecessor that died.
    fn follow_running(&mut self, context: &mut Context<Self>) {
        if let Some(progress) = self.ports().attempts.progress(&self.key)
            && self.machine.join()
        {
            self.follow(progress, context);
        }
    }

    fn follow(&self, mut progress: watch::Receiver<Progress>, context: &mut Context<Self>) {
        let next = async move {
            let alive = progress.changed().await.is_ok();
            (progress, alive)
        };
        context.spawn(next.into_actor(self).map(|(mut progress, alive), actor, context| {
            let ended = progress.borrow_and_update().ended.clone();
            match ended {
                Some(ended) => actor.ended(ended.end, ended.row, context),
                // The attempt's task panicked: the row says what is left of it.
                None if !alive => actor.ended(End::Settled, None, context),
                None => {
                    actor.feed(Event::Progress, context);
                    actor.follow(progress, context);
                }
            }
        }));
    }

    fn ended(&mut self, end: End, row: Option<Arc<Row>>, context: &mut Context<Self>) {
        self.feed(Event::Ended(end, row), context);
        for (by, reply) in std::mem::take(&mut self.purges) {
            self.change(by, Change::Purge, reply, context);
        }
    }

    fn wake_at(&mut self, time: WallTime, context: &mut Context<Self>) {
        if let Some((set, timer)) = self.timer {
            if set <= time {
                // The timer fires too early and is set again then: cheaper than setting it again with every message.
                return;
            }
            context.cancel_future(timer);
        }
        let clock = self.ports().clock.clone();
        let wait = async move { clock.wait_until(time).await };
        let timer = context.spawn(wait.into_actor(self).map(|(), actor, context| {
            actor.timer = None;
            if actor.is_forgotten() {
                return context.stop();
            }
            actor.machine.forget_waiters(oneshot::Sender::is_closed);
            actor.feed(Event::Tick, context);
        }));
        self.timer = Some((time, timer));
    }

    /// Whether the registry that started this actor died and no caller waits: the next registry starts actors of its own,
    /// and this actor's timer would keep it alive beside them.
    fn is_forgotten(&self) -> bool {
        !self.guard.registry.connected() && !self.machine.is_busy() && self.changing == 0
    }

    /// Answers the requests that need the row, if it is known. Returns whether there were any.
    fn answer_unread(&mut self) -> bool {
        if self.unread.is_empty() || !self.machine.knows_row() || self.row_is_behind() {
            return false;
        }
        let status = self.status();
        for unread in std::mem::take(&mut self.unread) {
            match unread {
                Unread::Status(reply) => drop(reply.send(Ok(status.clone()))),
                Unread::Watch(reply) => drop(reply.send(match status.state {
                    State::Absent | State::Revoked => Err(Error::NotConnected),
                    _ => Ok(()),
                })),
            }
        }
        true
    }

    fn status(&self) -> Status {
        let now = self.ports().clock.store_time();
        self.around.refresher.status(&self.key, self.machine.row().map(|row| &**row), now, None)
    }

    /// Whether an attempt has published the token that it stored and is about to bring the row: a caller that was given that
    /// token must not get the status of the one before.
    fn row_is_behind(&self) -> bool {
        let stored = self.ports().snapshot.current(&self.key).filter(|issued| !issued.journaled);
        let known = self.machine.row().map(|row| row.generation);
        self.machine.follows_attempt() && stored.map(|issued| issued.generation) > known
    }

    fn refuse_unread(&mut self, error: &StoreError) {
        for unread in std::mem::take(&mut self.unread) {
            match unread {
                Unread::Status(reply) => drop(reply.send(Err(unavailable(error)))),
                Unread::Watch(reply) => drop(reply.send(Err(unavailable(error)))),
            }
        }
    }
}

impl Actor for TokenActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Bounded by the machine, which answers those beyond the bound.
        context.set_mailbox_capacity(self.around.limits.waiters_per_grant.saturating_add(16));
    }
}

/// Answers go through the reply in the message, so that no future is held for each of many callers.
impl Handler<Deliver> for TokenActor {
    type Result = ();

    fn handle(&mut self, Deliver(ask): Deliver, context: &mut Self::Context) {
        if self.machine.is_stopping() {
            return self.passed_on.push(ask);
        }
        if ask.is_of_a_caller() {
            let now = self.ports().clock.read();
            self.machine.touch(now);
        }
        match ask {
            Ask::Acquire { min_ttl, timeout, reply } => {
                let deadline = self.ports().clock.read().boot + timeout;
                let waiting = Waiting { who: reply, min_ttl, deadline };
                self.feed(Event::Asked(waiting), context);
            }
            Ask::Watch { reply } => {
                self.unread.push(Unread::Watch(reply));
                // Its token may have left the memory while nobody used it.
                let lives = self.machine.row().is_some_and(|row| row.tombstone.is_none());
                let is_missing = lives && self.ports().snapshot.current(&self.key).is_none();
                self.feed(if is_missing { Event::Stale } else { Event::Tick }, context);
            }
            Ask::Status { reply } => {
                self.unread.push(Unread::Status(reply));
                self.feed(Event::Tick, context);
            }
            Ask::Rejected { generation, reply } => self.reject(Some(generation), reply, context),
            Ask::RejectedToken { token, reply } => self.reject_token(token, reply, context),
            Ask::RefreshNow { reply } => self.feed(Event::RefreshNow(reply), context),
            Ask::Connect { by, grant, only, reply } => self.connect(by, *grant, only, reply, context),
            Ask::Change(ChangeRequest { by, what, reply }) => self.change(by, what, reply, context),
            Ask::Wake => self.feed(Event::Tick, context),
            Ask::Due(due) => self.feed(Event::Due(due.row), context),
            Ask::Stale | Ask::StaleIfAwake | Ask::AllStale { .. } => self.feed(Event::Stale, context),
            Ask::RejectedElsewhere { generation } => self.feed(Event::Rejected(generation), context),
            #[cfg(feature = "testing")]
            Ask::Panic | Ask::PanicRegistry => panic!("injected: the actor of a key"),
        }
    }
}

impl Handler<Retired> for TokenActor {
    type Result = ();

    fn handle(&mut self, _: Retired, context: &mut Self::Context) {
        let passed_on = std::mem::take(&mut self.passed_on);
        if !passed_on.is_empty() {
            let (router, key) = (self.around.router.clone(), self.key.clone());
            self.ports().runtime.spawn(async move {
                for ask in passed_on {
                    // A request that is not routed is dropped with its reply, and its caller asks again.
                    router.route(key.clone(), ask).await.ok();
                }
            });
        }
        context.stop();
    }
}
