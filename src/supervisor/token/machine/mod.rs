//! The decisions of a key's actor: serve, wait, refuse, and when to start an attempt. Pure: the actor brings
//! events, the time and the published token, and carries the effects out.
//!
//! This file holds what is known, and how events change it; `serve` decides what follows for callers that wait.

mod serve;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Reading,
    error::{Cause, Error},
    idp::{GateClosed, Priority},
    model::{BootTime, Generation, Issued, Row, StoreTime, Token, TokenStanding, WallTime},
    protocol::attempt::End,
};

/// What the actor knows, and the callers that wait. `W` is a caller that waits for a token, `R` one that waits for a refresh.
pub(super) struct Machine<W, R> {
    view: View,
    /// The row was changed while it was being read: the row that comes may be from before the change.
    stale: bool,
    running: Option<Priority>,
    pause: Option<Pause>,
    rejected: Option<Rejected>,
    /// The gate as it was when the last event came.
    gate: GateSight,
    waiters: Vec<Waiting<W>>,
    /// Callers with the generation that the refresh is to replace; `None` until the row is known.
    refreshers: Vec<(R, Option<Generation>)>,
    limits: MachineLimits,
    /// By the boot-time clock; `None` if nobody has asked.
    last_asked: Option<BootTime>,
    /// When to read the row again although nothing was heard of it: callers wait for a refresh by another process.
    look_again: Option<WallTime>,
}

#[derive(Clone, Debug)]
enum View {
    /// The row was not read yet, or the known row is out of date.
    Unread,
    Reading,
    /// The row without ciphertext: it is kept for as long as the actor lives.
    Read(Option<Arc<Row>>),
    /// The row at this generation was due in a page of the sweeper, and an attempt runs for it. The page may be from before a
    /// change: a caller is answered from the row that the attempt brings, or from one that is read for the caller.
    Due(Generation),
    /// The actor is about to stop.
    Stopping,
}

/// A time before which no attempt starts, for a reason that is not in the row.
#[derive(Clone, Copy, Debug)]
struct Pause {
    since: WallTime,
    until: WallTime,
    cause: Cause,
    /// A later generation ends the pause: it has another token.
    generation: Generation,
}

/// A resource server refused the token of this generation.
#[derive(Clone, Copy, Debug)]
struct Rejected {
    generation: Generation,
    /// When a refresh had failed last when the row was first known after the report.
    known_failure: Option<Option<StoreTime>>,
    /// The rejection counts from then on: right after the token was issued, another one would hardly fare better.
    from: WallTime,
}

/// The state of the gate before the identity provider.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GateSight {
    pub(super) closed: Option<GateClosed>,
    /// When the last outage or pause ended, by the wall clock: earlier failures say nothing any more.
    pub(super) recovered: Option<WallTime>,
    /// When this process began to use the provider, by the wall clock: a refusal of the client before that may be mended.
    pub(super) opened: Option<WallTime>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct MachineLimits {
    pub(super) waiters: usize,
}

/// A caller that waits for a token.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    pub(super) who: W,
    pub(super) min_ttl: Duration,
    /// By the boot-time clock.
    pub(super) deadline: BootTime,
}

pub(super) enum Event<W, R> {
    /// The row was read, by this actor or by an attempt, or written.
    Row(Option<Arc<Row>>),
    /// The row was changed, and the new row is not known.
    Stale,
    /// The row could not be read.
    Unreadable,
    Asked(Waiting<W>),
    /// The sweeper found the row due.
    Due(Arc<Row>),
    Rejected(Generation),
    RefreshNow(R),
    /// An attempt published a token, or is about to end the current one.
    Progress,
    /// An attempt ended; the row comes with it, unless it must be read again.
    Ended(End, Option<Arc<Row>>),
    /// Time has passed, or the key is due.
    Tick,
}

pub(super) enum Effect<W, R> {
    /// Read the row.
    Read,
    /// Publish the row's token.
    Publish(Arc<Row>),
    /// Hand out nothing of the key any more.
    Forget,
    /// Update the standing of the published token, unless it is of a later generation than this one.
    Stand(Generation, TokenStanding),
    /// Join or start an attempt for a caller that saw this row.
    Start(Arc<Row>, Priority),
    /// A caller waits now for the attempt that runs.
    Hurry,
    Answer(W, Result<Token, Error>),
    Refreshed(R, Result<bool, Error>),
    WakeAt(WallTime),
    /// Nothing happens to the key: stop. It was asked last at this time, by the boot-time clock.
    Stop(Option<BootTime>),
}

/// What the actor sees beside events.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) now: Reading,
    /// The published token of the key.
    pub(super) published: Option<&'a Issued>,
    pub(super) gate: GateSight,
    /// A caller waits for the row itself.
    pub(super) wanted: bool,
}

/// `retry_after` for grants that need an operator.
pub(super) const HELD: Duration = Duration::from_secs(60);

/// `retry_after` where nothing better is known.
const SOON: Duration = Duration::from_secs(1);

/// How long an actor stays after a request: the next one then needs neither another actor nor another read.
const LINGER: Duration = Duration::from_secs(1);

impl<W, R> Machine<W, R> {
    pub(super) fn new(limits: MachineLimits) -> Self {
        Self {
            view: View::Unread,
            stale: false,
            running: None,
            pause: None,
            rejected: None,
            gate: GateSight::default(),
            waiters: Vec::new(),
            refreshers: Vec::new(),
            limits,
            last_asked: None,
            look_again: None,
        }
    }

    /// Returns the row, if it is known.
    pub(super) fn row(&self) -> Option<&Arc<Row>> {
        match &self.view {
            View::Read(row) => row.as_ref(),
            View::Unread | View::Reading | View::Due(_) | View::Stopping => None,
        }
    }

    /// Whether the actor has decided to stop: its successor gets what comes.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.view, View::Stopping)
    }

    /// Whether the row is being read.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.view, View::Reading)
    }

    /// Whether the row has been read.
    pub(super) fn knows_row(&self) -> bool {
        matches!(self.view, View::Read(_))
    }

    /// Records a request: the actor is in use.
    pub(super) fn touch(&mut self, now: Reading) {
        self.last_asked = Some(now.boot);
    }

    /// Whether anybody has asked this actor for anything.
    pub(super) fn was_asked(&self) -> bool {
        self.last_asked.is_some()
    }

    /// Returns the generation of the token that was rejected, if it is the one that the row has.
    pub(super) fn rejected(&self) -> Option<Generation> {
        self.rejected.map(|rejected| rejected.generation)
    }

    /// Whether an attempt runs whose end this actor will hear.
    pub(super) fn follows_attempt(&self) -> bool {
        self.running.is_some()
    }

    /// Whether another process refreshes the token: it tells when it has ended.
    fn is_refreshed_elsewhere(&self, now: WallTime) -> bool {
        self.running.is_none() && self.row().is_some_and(|row| row.verdict.is_none() && is_leased(row, now))
    }

    /// Whether a caller waits or an attempt runs.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some()
            || !self.waiters.is_empty()
            || !self.refreshers.is_empty()
            || matches!(self.view, View::Reading)
    }

    /// Refuses all callers that wait for an attempt, because none starts any more.
    pub(super) fn refuse(&mut self, error: &Error) -> Vec<Effect<W, R>> {
        self.running = None;
        let waiters = self.waiters.drain(..).map(|waiting| Effect::Answer(waiting.who, Err(error.clone())));
        let mut effects: Vec<_> = waiters.collect();
        effects.extend(self.refreshers.drain(..).map(|(who, _)| Effect::Refreshed(who, Err(error.clone()))));
        effects
    }

    /// Records that an attempt runs which this actor did not start. Returns false if that was known.
    pub(super) fn join(&mut self) -> bool {
        let known = self.running.is_some();
        self.running.get_or_insert(Priority::Background);
        !known
    }

    /// Forgets callers that are gone: they need no answer.
    pub(super) fn forget_waiters(&mut self, gone: impl Fn(&W) -> bool) {
        self.waiters.retain(|waiting| !gone(&waiting.who));
    }

    /// Returns the effects of an event. Call it again with `Tick` after effects changed the published token.
    pub(super) fn step(&mut self, event: Event<W, R>, sight: Sight<'_>) -> Vec<Effect<W, R>> {
        self.gate = sight.gate;
        let mut effects = Vec::new();
        if self.look_again.is_some_and(|time| time <= sight.now.wall) {
            self.look_again = None;
            if let (View::Read(_), None) = (&self.view, self.running) {
                self.view = View::Unread;
            }
        }
        // Callers that wait were judged by everything that happened before: a newcomer changes nothing for them.
        let judged = if matches!(event, Event::Asked(_)) { self.waiters.len() } else { 0 };
        match event {
            Event::Row(row) => self.learn(row, sight.now.wall, &mut effects),
            Event::Stale => self.outdate(),
            Event::Due(row) => {
                if matches!(self.view, View::Unread) && !self.is_busy() && self.refresh_is_due(&row, sight.now.wall) {
                    self.view = View::Due(row.generation);
                    self.running = Some(Priority::Background);
                    return vec![Effect::Start(row, Priority::Background)];
                }
                if matches!(self.view, View::Unread) && !self.is_busy() && !sight.wanted {
                    // It cannot be refreshed now after all: the sweeper finds it again.
                    self.stop(&mut effects);
                    return effects;
                }
            }
            Event::Unreadable => {
                // The row is read again with the next request, not at once and again and again.
                self.refuse_all(&mut effects);
                self.rest(sight, &mut effects);
                return effects;
            }
            Event::Asked(waiting) => {
                if self.waiters.len() >= self.limits.waiters {
                    effects.push(Effect::Answer(waiting.who, Err(Error::Busy { retry_after: SOON })));
                } else {
                    self.waiters.push(waiting);
                }
            }
            Event::Rejected(generation) => self.reject(generation, sight.now.wall, &mut effects),
            Event::RefreshNow(who) => self.refreshers.push((who, None)),
            Event::Progress | Event::Tick => {}
            Event::Ended(end, row) => self.ended(end, row, sight.now.wall, &mut effects),
        }
        // A publication changes which tokens callers can get: they are served when it is done.
        if !effects.iter().any(|effect| matches!(effect, Effect::Publish(_) | Effect::Forget)) {
            self.serve(judged, sight, &mut effects);
        }
        effects
    }

    fn learn(&mut self, row: Option<Arc<Row>>, now: WallTime, effects: &mut Vec<Effect<W, R>>) {
        if let (View::Read(Some(known)), Some(row)) = (&self.view, &row)
            && known.generation > row.generation
        {
            return;
        }
        match &row {
            Some(row) if row.tombstone.is_none() => {
                effects.push(Effect::Publish(row.clone()));
                effects.push(Effect::Stand(row.generation, row.standing()));
            }
            _ => effects.push(Effect::Forget),
        }
        let generation = row.as_ref().map_or(Generation(0), |row| row.generation);
        self.look_again = None;
        self.pause =
            self.pause.filter(|pause| pause.generation >= generation && !pause.is_obsolete(row.as_deref(), now));
        self.forget_rejection_if_refresh_failed(row.as_deref());
        self.rejected =
            self.rejected.zip(row.as_ref()).filter(|(rejected, row)| row.generation == rejected.generation).map(
                // The rejection may have been reported before the row was known.
                |(rejected, row)| Rejected { from: counts_from(row), ..rejected },
            );
        effects.extend(self.rejected.map(|rejected| Effect::Stand(rejected.generation, rejected.standing(now))));
        let stale = std::mem::take(&mut self.stale);
        let known = || row.map(|row| Arc::new(row.without_ciphertext()));
        self.view = if stale { View::Unread } else { View::Read(known()) };
    }

    /// Has the row read again before anything is decided by it.
    fn outdate(&mut self) {
        match self.view {
            View::Read(_) | View::Due(_) => self.view = View::Unread,
            View::Reading => self.stale = true,
            View::Unread | View::Stopping => {}
        }
    }

    /// Forgets a rejection if a refresh that should have replaced the token has failed since, here or elsewhere.
    fn forget_rejection_if_refresh_failed(&mut self, row: Option<&Row>) {
        let (Some(rejected), Some(row)) = (&mut self.rejected, row) else { return };
        let failed_at = row.last_error.as_ref().map(|error| error.at);
        match rejected.known_failure {
            None => rejected.known_failure = Some(failed_at),
            Some(known) if failed_at > known && row.lease.is_none() => self.rejected = None,
            Some(_) => {}
        }
    }

    fn refuse_all(&mut self, effects: &mut Vec<Effect<W, R>>) {
        let running = self.running;
        self.stale = false;
        effects.extend(self.refuse(&Error::Unavailable { retry_after: SOON, cause: Cause::StoreDown }));
        (self.view, self.running) = (View::Unread, running);
    }

    fn reject(&mut self, generation: Generation, now: WallTime, effects: &mut Vec<Effect<W, R>>) {
        let (known, from, known_failure) = match &self.view {
            View::Read(Some(row)) => {
                (row.generation, counts_from(row), Some(row.last_error.as_ref().map(|error| error.at)))
            }
            View::Read(None) => return,
            View::Unread | View::Reading | View::Due(_) | View::Stopping => (Generation(0), now, None),
        };
        if generation < known {
            return;
        }
        if generation > known {
            // Another process stored that generation: read it before deciding. What is being read may be from before that.
            self.outdate();
        }
        let rejected = Rejected { generation, known_failure, from };
        self.rejected = Some(rejected);
        if generation == known {
            effects.push(Effect::Stand(generation, rejected.standing(now)));
        }
    }

    fn ended(&mut self, end: End, row: Option<Arc<Row>>, now: WallTime, effects: &mut Vec<Effect<W, R>>) {
        self.running = None;
        self.pause = None;
        let before = self.row().cloned();
        let started = match &self.view {
            View::Due(generation) => Some(*generation),
            _ => before.as_ref().map(|before| before.generation),
        };
        match (end, &row) {
            (End::Until(time, cause), Some(row)) => {
                self.pause = Some(Pause { since: now, until: time, cause, generation: row.generation });
            }
            (End::Settled, Some(row))
                if started == Some(row.generation)
                    && (row.sendable() || (row.verdict.is_none() && row.has_run_out(now)))
                    && row.retry_at.is_none_or(|retry| retry <= now) =>
            {
                // The attempt changed nothing and nothing says why: do not run in circles.
                self.pause =
                    Some(Pause { since: now, until: now + SOON, cause: Cause::IdpDown, generation: row.generation });
            }
            (End::Renewed, Some(row)) if row.due_at.is_some_and(|due| due <= row.changed_at.by_wall_clock()) => {
                // The token was due when it was issued: the next one will hardly be better.
                self.pause =
                    Some(Pause { since: now, until: now + SOON, cause: Cause::IdpDown, generation: row.generation });
            }
            (_, None) => {
                self.view = View::Unread;
                self.pause = Some(Pause {
                    since: now,
                    until: now + SOON,
                    cause: Cause::Failing,
                    generation: Generation(u64::MAX),
                });
            }
            _ => {}
        }
        let required = |row: &Row| row.verdict.is_some();
        match (&before, &row) {
            // A reconnect was required while the attempt's end was on its way, with the row from before the requirement.
            (Some(known), Some(row)) if known.generation == row.generation && required(known) && !required(row) => {
                self.view = View::Unread;
            }
            // What is known is of another incarnation than what is stored.
            (Some(known), Some(row)) if end == End::Outdated && known.generation > row.generation => self.outdate(),
            (_, Some(_)) => self.learn(row, now, effects),
            (_, None) => {}
        }
        let elsewhere = matches!(end, End::Until(..)) && self.is_refreshed_elsewhere(now);
        if end != End::Renewed
            && !elsewhere
            && self.rejected.take().is_some()
            && let Some(row) = self.row()
        {
            // A rejected token is served again once the refresh that should replace it has failed.
            effects.push(Effect::Stand(row.generation, row.standing()));
        }
        self.answer_refreshers(now, effects);
    }
}

impl Pause {
    /// Whether it waits for a sender of which the row knows nothing any more.
    fn is_obsolete(&self, row: Option<&Row>, now: WallTime) -> bool {
        self.cause == Cause::InDoubt && row.is_some_and(|row| row.intent.is_none() && !is_leased(row, now))
    }
}

/// Whether an attempt may be under way that has the row's lease.
fn is_leased(row: &Row, now: WallTime) -> bool {
    row.lease.is_some_and(|lease| lease.until.by_wall_clock() > now)
}

impl Rejected {
    fn counts(&self, now: WallTime) -> bool {
        now >= self.from
    }

    fn standing(&self, now: WallTime) -> TokenStanding {
        if self.counts(now) { TokenStanding::Withdrawn } else { TokenStanding::Rejected }
    }
}

/// Returns the time from which a rejection of the row's token starts a refresh: at once, if the token came with a connect; a
/// minute or a quarter of its lifetime after it was issued, if a refresh brought it. Otherwise a resource server that refuses
/// every token would cause refreshes without end.
fn counts_from(row: &Row) -> WallTime {
    const MINUTE: Duration = Duration::from_secs(60);
    let early = row.lifetime().map_or(MINUTE, |life| (life / 4).min(MINUTE));
    if row.commit.is_some() { row.issued_at + early } else { row.issued_at }
}
