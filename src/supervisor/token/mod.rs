//! One actor per user and identity provider: it owns the key's view of its row and those who wait for it.
//!
//! `machine` decides; this file carries its effects out. The actor can die at any time: attempts and store
//! operations run elsewhere, and whoever waits hears that the reply was dropped and asks again.

mod change;
mod machine;
mod report;

use std::sync::{Arc, atomic::Ordering};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};
use tokio::sync::{oneshot, watch};

use super::{
    command::{Ask, Refreshed, Reply, Revoke},
    core::{Core, Provider},
    handle::Shared,
    metrics::Shed,
    refresh::{Attempts, Progress, seal},
    registry::{RegistryActor, Retire, Routes, TokenActorEnded},
    snapshot::last_use,
    status::Status,
};
use crate::{
    clock::Reading,
    error::{Cause, Error},
    idp::{Closed, Lane},
    model::{BootTime, Row, Standing, State, Token, TokenKey, WallTime},
    protocol::{Change, DisconnectChange, attempt::End},
    store::StoreError,
};
pub(super) use change::refusal;
use machine::{Effect, Event, GateSight, HELD, Limits, Machine, Sight, Waiting};

/// The actor of one key.
pub(super) struct TokenActor {
    core: Arc<Core>,
    routes: Routes,
    key: TokenKey,
    machine: Machine<Reply<Token>, Reply<Refreshed>>,
    /// Asked for while the row is being read.
    unread: Vec<Unread>,
    /// To be carried out once the attempt that runs has ended.
    purges: Vec<Reply<Status>>,
    /// How many changes of the row are waited for.
    changing: usize,
    /// The registry routes nothing here any more.
    retired: bool,
    timer: Option<(WallTime, SpawnHandle)>,
    guard: Guard,
}

/// Answers that need the row.
enum Unread {
    Status(Reply<Status>),
    Watch(Reply<()>),
}

/// Tells the registry that the actor is gone, however it went.
struct Guard {
    core: Arc<Core>,
    registry: Addr<RegistryActor>,
    key: TokenKey,
    /// Tells this actor from its predecessors and successors.
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.core.counters.actors.fetch_sub(1, Ordering::Relaxed);
        let panicked = std::thread::panicking();
        self.registry.do_send(TokenActorEnded { key: self.key.clone(), number: self.number, panicked });
    }
}

/// Something for the key's actor.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Deliver(pub(super) Ask);

/// The registry routes nothing here any more: stop as soon as nobody waits.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Retired;

impl TokenActor {
    pub(super) fn new(
        Shared { core, routes }: Shared,
        key: TokenKey,
        registry: Addr<RegistryActor>,
        number: u64,
    ) -> Self {
        let limits = Limits { waiters: core.limits.waiters_per_grant, idle_after: core.limits.idle_after };
        core.counters.actors.fetch_add(1, Ordering::Relaxed);
        let guard = Guard { core: core.clone(), registry, key: key.clone(), number };
        let (machine, unread, purges, timer) = (Machine::new(limits), Vec::new(), Vec::new(), None);
        Self { core, routes, key, machine, unread, purges, changing: 0, retired: false, timer, guard }
    }

    fn provider(&self) -> Option<Arc<Provider>> {
        self.core.provider(self.key.idp())
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
        let published = self.core.snapshot.current(&self.key);
        let now = self.core.clock.read();
        let sight = Sight {
            now,
            published: published.as_ref(),
            last_used: published.as_deref().map_or(BootTime(0), last_use),
            watched: self.core.snapshot.is_watched(&self.key),
            gate: self.gate(now),
            wanted: !self.unread.is_empty() || self.changing > 0,
        };
        self.machine.step(event, sight)
    }

    fn gate(&self, now: Reading) -> GateSight {
        let held = self.core.idp_held(self.key.idp()).map(|_| Closed { wait: HELD, cause: Cause::IdpHeld });
        self.provider().map_or_else(GateSight::default, |provider| GateSight {
            closed: held.or_else(|| provider.gate.closed(now)),
            recovered: provider.gate.recovered().map(|at| at.wall),
        })
    }

    fn carry_out(&mut self, effect: Effect<Reply<Token>, Reply<Refreshed>>, context: &mut Context<Self>) {
        match effect {
            Effect::Read => self.read(context),
            Effect::Publish(row) => self.publish(&row),
            Effect::Forget => match self.machine.row() {
                Some(row) => self.core.snapshot.end(&self.key, row.generation),
                None => self.core.snapshot.remove(&self.key),
            },
            Effect::Stand(standing) => self.stand(standing),
            Effect::Start(row, lane) => self.start(&row, lane, context),
            Effect::Hurry => self.core.attempts.hurry(&self.key),
            // Whoever asked may be gone.
            Effect::Answer(reply, answer) => {
                if let Err(Error::Busy { .. }) = answer {
                    self.core.counters.shed(Shed::WaitersPerGrant);
                }
                drop(reply.send(answer));
            }
            Effect::Refreshed(reply, answer) => {
                let status = self.status();
                drop(reply.send(answer.map(|refreshed| Refreshed { refreshed, status })));
            }
            Effect::WakeAt(time) => self.wake_at(time, context),
            Effect::Sleep => {
                self.core.snapshot.remove(&self.key);
                self.guard.registry.do_send(Retire {
                    key: self.key.clone(),
                    number: self.guard.number,
                    actor: context.address(),
                });
            }
        }
    }

    fn read(&self, context: &mut Context<Self>) {
        let read = self.core.store.read(&self.key);
        context.spawn(read.into_actor(self).map(|read, actor, context| match read {
            Ok(read) => {
                actor.feed(Event::Row(read.row.map(Arc::new)), context);
                actor.follow_running(context);
            }
            Err(error) => {
                tracing::warn!(error = %error, "a grant could not be read");
                actor.refuse_unread(&error);
                actor.feed(Event::Unreadable, context);
            }
        }));
    }

    fn publish(&self, row: &Row) {
        match seal::issued(&self.core.keyring, row, self.core.clock.read()) {
            Ok(issued) => self.core.snapshot.publish(&self.key, &Arc::new(issued)),
            Err(error) => tracing::error!(grant.id = row.grant_id, error = %error, "a grant cannot be served"),
        }
    }

    /// Says how what is published stands. A token that a refresh under way may have ended stays withdrawn: this
    /// actor may be new, or have read the row while the attempt of its predecessor ran.
    fn stand(&self, standing: Standing) {
        let Some(issued) = self.core.snapshot.current(&self.key) else { return };
        issued.set_standing(standing);
        let ends = self.provider().is_some_and(|provider| provider.idp.rotation_ends_access_token);
        // Looked at after the change: the attempt says that it sends before it withdraws, so one of us is last.
        if ends && self.core.attempts.sent(&self.key).is_some_and(|sent| issued.generation <= sent) {
            issued.set_standing(Standing::Withdrawn);
        }
    }

    /// A new actor finds its predecessor's attempt by starting one: the table hands out the running one.
    fn start(&mut self, row: &Row, lane: Lane, context: &mut Context<Self>) {
        let basis = (row.incarnation, row.generation);
        match Attempts::join_or_start(&self.core, &self.key, basis, lane == Lane::Wanted) {
            Some(progress) => self.follow(progress, context),
            None => {
                // Nothing starts any more: those who wait are told, valid tokens are served on.
                self.machine.refuse(&Error::ShutDown).into_iter().for_each(|effect| self.carry_out(effect, context));
            }
        }
    }

    /// Joins the attempt of a predecessor that died.
    fn follow_running(&mut self, context: &mut Context<Self>) {
        if let Some(progress) = self.core.attempts.joined(&self.key)
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
                // Its task panicked: the row tells what is left of it.
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
        for reply in std::mem::take(&mut self.purges) {
            self.purge(reply, context);
        }
    }

    fn wake_at(&mut self, time: WallTime, context: &mut Context<Self>) {
        if let Some((set, timer)) = self.timer {
            if set <= time {
                // It wakes too early, and is set anew then: cheaper than setting it anew with every message.
                return;
            }
            context.cancel_future(timer);
        }
        let clock = self.core.clock.clone();
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

    /// The registry that routed here died, and its successor starts actors of its own: this one has nothing left
    /// to do once nobody waits. Without this its timer would keep it alive beside them.
    fn is_forgotten(&self) -> bool {
        !self.guard.registry.connected() && !self.machine.is_busy() && self.changing == 0
    }

    /// Whether somebody was answered.
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
        self.core.status(&self.key, self.machine.row().map(|row| &**row), self.core.clock.store_time(), None)
    }

    /// Whether an attempt has published what it stored and is about to bring the row: whoever was given that token must
    /// not be told of the one before.
    fn row_is_behind(&self) -> bool {
        let stored = self.core.snapshot.current(&self.key).filter(|issued| !issued.journaled);
        let known = self.machine.row().map(|row| row.generation);
        self.machine.follows_attempt() && stored.map(|issued| issued.generation) > known
    }

    fn refuse_unread(&mut self, error: &StoreError) {
        for unread in std::mem::take(&mut self.unread) {
            match unread {
                Unread::Status(reply) => drop(reply.send(Err(refusal(error)))),
                Unread::Watch(reply) => drop(reply.send(Err(refusal(error)))),
            }
        }
    }
}

impl Actor for TokenActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Bounded by the machine, which answers those beyond the bound.
        context.set_mailbox_capacity(self.core.limits.waiters_per_grant.saturating_add(16));
    }
}

/// Answers are sent through the reply in the message, so that no future is held for each of many callers.
impl Handler<Deliver> for TokenActor {
    type Result = ();

    fn handle(&mut self, Deliver(ask): Deliver, context: &mut Self::Context) {
        if !matches!(ask, Ask::Wake | Ask::Stale) {
            self.machine.touch(self.core.clock.read());
        }
        match ask {
            Ask::Acquire { min_ttl, timeout, reply } => {
                let deadline = self.core.clock.read().boot + timeout;
                let waiting = Waiting { who: reply, min_ttl, deadline };
                self.feed(Event::Asked(waiting), context);
            }
            Ask::Watch { reply } => {
                self.unread.push(Unread::Watch(reply));
                self.feed(Event::Tick, context);
            }
            Ask::Status { reply } => {
                self.unread.push(Unread::Status(reply));
                self.feed(Event::Tick, context);
            }
            Ask::Rejected { generation, reply } => self.reject(Some(generation), reply, context),
            Ask::RejectedToken { token, reply } => self.reject_token(token, reply, context),
            Ask::RefreshNow { reply } => self.feed(Event::RefreshNow(reply), context),
            Ask::Connect { grant, only, reply } => self.connect(*grant, only, reply, context),
            Ask::Disconnect { revoke, purge, reply } => {
                // What cannot be revoked is not queued: it can be restored for as long as it lives.
                let revocable = self.provider().is_some_and(|provider| provider.idp.revocation_url.is_some());
                let disconnect = DisconnectChange { revoke: revoke == Revoke::Yes && revocable, purge };
                self.change(Change::Disconnect(disconnect), reply, context);
            }
            Ask::RequireReconnect { reason, reply } => {
                self.change(Change::RequireReconnect { reason }, reply, context);
            }
            Ask::Hold { reason, reply } => self.change(Change::Hold { reason }, reply, context),
            Ask::Release { reply } => self.change(Change::Release, reply, context),
            Ask::Restore { reply } => self.change(Change::Restore, reply, context),
            Ask::Purge { reply } => self.purge(reply, context),
            Ask::Wake => self.feed(Event::Tick, context),
            Ask::Stale => self.feed(Event::Stale, context),
            #[cfg(feature = "testing")]
            Ask::Panic => panic!("injected: the actor of a key"),
        }
    }
}

impl Handler<Retired> for TokenActor {
    type Result = ();

    fn handle(&mut self, _: Retired, context: &mut Self::Context) {
        // Whoever slipped in between asks again and finds a new actor. A change is not asked for again: the second
        // answer would speak of the first.
        self.retired = true;
        if self.changing == 0 {
            context.stop();
        }
    }
}
