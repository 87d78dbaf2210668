//! The decisions of a key's actor: serve, wait, refuse, and when to start an attempt. Pure: the actor brings
//! events, the time and what is published, and carries the effects out.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Reading,
    error::{Cause, Error},
    model::{Generation, Issued, Row, Standing, Time, Token},
    protocol::attempt::End,
    supervisor::status::Status,
};

/// What the actor knows and who waits. `W` is a caller waiting for a token, `R` one waiting for a refresh.
pub(super) struct Machine<W, R> {
    view: View,
    running: bool,
    pause: Option<Pause>,
    /// A resource server refused the token of this generation.
    rejected: Option<Generation>,
    waiters: Vec<Waiting<W>>,
    /// With the generation that the refresh is to replace; `None` until the row is known.
    refreshers: Vec<(R, Option<Generation>)>,
    limits: Limits,
    /// By the boot-time clock.
    last_asked: Time,
}

#[derive(Clone, Debug)]
enum View {
    /// The row was not read yet, or what is known of it is out of date.
    Unread,
    Reading,
    Read(Option<Arc<Row>>),
    /// Nothing is published: only a caller has the row read again.
    Asleep,
}

/// Nothing is to be started before then, for a reason that is not in the row.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Time,
    cause: Cause,
    /// A later one ends the pause: it is another token's.
    generation: Generation,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) waiters: usize,
    pub(super) idle_after: Duration,
}

/// A caller who waits for a token.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    pub(super) who: W,
    pub(super) min_ttl: Duration,
    /// By the boot-time clock.
    pub(super) deadline: Time,
    /// A refresh has succeeded while it waited.
    pub(super) renewed: bool,
}

pub(super) enum Event<W, R> {
    /// The row was read, by us or by an attempt, or written.
    Row(Option<Arc<Row>>),
    /// The row could not be read.
    Unreadable,
    Asked(Waiting<W>),
    Rejected(Generation),
    RefreshNow(R),
    /// An attempt published a token, or is about to end the current one.
    Progress,
    /// An attempt ended; the row comes with it, unless it must be read again.
    Ended(End, Option<Arc<Row>>),
    /// Time has passed, or something came due.
    Tick,
}

pub(super) enum Effect<W, R> {
    /// Read the row.
    Read,
    /// Publish the row's token.
    Publish(Arc<Row>),
    /// Nothing of the key may be handed out any more.
    Forget,
    /// What is published stands like this from now on.
    Stand(Standing),
    /// Join or start an attempt for whoever saw this row.
    Start(Arc<Row>),
    Answer(W, Result<Token, Error>),
    Refreshed(R, Result<bool, Error>),
    WakeAt(Time),
    /// Nobody has asked for long: stop.
    Sleep,
}

/// What the actor sees besides events.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) now: Reading,
    /// What is published for the key.
    pub(super) published: Option<&'a Arc<Issued>>,
    /// The last use of the fast path, by the boot-time clock.
    pub(super) last_used: Time,
    pub(super) watched: bool,
    /// Somebody waits for the row itself.
    pub(super) wanted: bool,
}

/// What becomes of a caller now.
enum Verdict {
    Give(Token),
    Fail(Error),
    Wait,
    Start,
}

/// A caller is told this if nothing better is known.
const SOON: Duration = Duration::from_secs(1);

impl<W, R> Machine<W, R> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            view: View::Unread,
            running: false,
            pause: None,
            rejected: None,
            waiters: Vec::new(),
            refreshers: Vec::new(),
            limits,
            last_asked: Time(0),
        }
    }

    /// The row as it is known.
    pub(super) fn row(&self) -> Option<&Arc<Row>> {
        match &self.view {
            View::Read(row) => row.as_ref(),
            View::Unread | View::Reading | View::Asleep => None,
        }
    }

    /// Whether the row has been read.
    pub(super) fn knows_row(&self) -> bool {
        matches!(self.view, View::Read(_))
    }

    /// Somebody asked for something: the actor is in use.
    pub(super) fn touch(&mut self, now: Reading) {
        self.last_asked = now.boot;
    }

    /// Whether somebody waits or an attempt runs.
    pub(super) fn is_busy(&self) -> bool {
        self.running || !self.waiters.is_empty() || !self.refreshers.is_empty() || matches!(self.view, View::Reading)
    }

    /// Nothing starts any more: whoever would have to wait for it is told.
    pub(super) fn refuse(&mut self, error: &Error) -> Vec<Effect<W, R>> {
        self.running = false;
        let waiters = self.waiters.drain(..).map(|waiting| Effect::Answer(waiting.who, Err(error.clone())));
        let mut effects: Vec<_> = waiters.collect();
        effects.extend(self.refreshers.drain(..).map(|(who, _)| Effect::Refreshed(who, Err(error.clone()))));
        effects
    }

    /// An attempt runs that this actor did not start. False if it knew.
    pub(super) fn join(&mut self) -> bool {
        !std::mem::replace(&mut self.running, true)
    }

    /// Callers that are gone need no answer.
    pub(super) fn forget_waiters(&mut self, gone: impl Fn(&W) -> bool) {
        self.waiters.retain(|waiting| !gone(&waiting.who));
    }

    /// The effects of an event. To be called again with `Tick` after effects changed what is published.
    pub(super) fn step(&mut self, event: Event<W, R>, sight: Sight<'_>) -> Vec<Effect<W, R>> {
        let mut effects = Vec::new();
        match event {
            Event::Row(row) => self.learn(row, &mut effects),
            Event::Unreadable => {
                // Read again when somebody asks: not at once, and again and again.
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
            Event::Rejected(generation) => self.reject(generation, &mut effects),
            Event::RefreshNow(who) => self.refreshers.push((who, None)),
            Event::Progress | Event::Tick => {}
            Event::Ended(end, row) => self.ended(end, row, sight.now.wall, &mut effects),
        }
        // A publication changes what callers can be given: they are served when it is done.
        if !effects.iter().any(|effect| matches!(effect, Effect::Publish(_) | Effect::Forget)) {
            self.serve(sight, &mut effects);
        }
        effects
    }

    fn learn(&mut self, row: Option<Arc<Row>>, effects: &mut Vec<Effect<W, R>>) {
        if let (View::Read(Some(known)), Some(row)) = (&self.view, &row)
            && known.generation > row.generation
        {
            return;
        }
        match &row {
            Some(row) if row.tombstone.is_none() => {
                effects.push(Effect::Publish(row.clone()));
                effects.push(Effect::Stand(standing(row)));
            }
            _ => effects.push(Effect::Forget),
        }
        let generation = row.as_ref().map_or(Generation(0), |row| row.generation);
        self.pause = self.pause.filter(|pause| pause.generation >= generation);
        self.rejected = self.rejected.filter(|rejected| row.as_ref().is_some_and(|row| row.generation == *rejected));
        if self.rejected.is_some() {
            effects.push(Effect::Stand(Standing::Withdrawn));
        }
        self.view = View::Read(row);
    }

    fn refuse_all(&mut self, effects: &mut Vec<Effect<W, R>>) {
        let running = self.running;
        effects.extend(self.refuse(&Error::Unavailable { retry_after: SOON, cause: Cause::StoreDown }));
        (self.view, self.running) = (View::Unread, running);
    }

    fn reject(&mut self, generation: Generation, effects: &mut Vec<Effect<W, R>>) {
        let known = match &self.view {
            View::Read(Some(row)) => row.generation,
            View::Read(None) => return,
            View::Unread | View::Reading | View::Asleep => Generation(0),
        };
        if generation < known {
            return;
        }
        if generation > known {
            // Somebody else stored that one: read it before deciding.
            self.view = View::Unread;
        }
        self.rejected = Some(generation);
        if generation == known {
            effects.push(Effect::Stand(Standing::Withdrawn));
        }
    }

    /// Decides about those who want a refresh and have not been looked at since the row is known.
    fn admit_refreshers(&mut self, row: &Row, now: Time, effects: &mut Vec<Effect<W, R>>) {
        let lately = row.lifetime().map_or(Duration::from_secs(10), |life| (life / 4).min(Duration::from_secs(10)));
        let just_refreshed = !self.running && row.sendable() && row.commit.is_some() && now < row.issued_at + lately;
        for (who, before) in std::mem::take(&mut self.refreshers) {
            if before.is_none() && just_refreshed {
                effects.push(Effect::Refreshed(who, Ok(false)));
            } else {
                self.refreshers.push((who, before.or(Some(row.generation))));
            }
        }
    }

    fn ended(&mut self, end: End, row: Option<Arc<Row>>, now: Time, effects: &mut Vec<Effect<W, R>>) {
        self.running = false;
        self.pause = None;
        let before = self.row().cloned();
        match (end, &row) {
            (End::Until(time), Some(row)) => {
                let cause = if row.intent.is_some() { Cause::InDoubt } else { Cause::IdpThrottled };
                self.pause = Some(Pause { until: time, cause, generation: row.generation });
            }
            (End::Settled, Some(row))
                if before.as_ref().is_some_and(|before| before.generation == row.generation)
                    && row.sendable()
                    && row.retry_at.is_none_or(|retry| retry <= now) =>
            {
                // Nothing came of it and nothing says why: do not run in circles.
                self.pause = Some(Pause { until: now + SOON, cause: Cause::IdpDown, generation: row.generation });
            }
            (End::Renewed, Some(row)) if row.due_at.is_some_and(|due| due <= row.changed_at) => {
                // Issued at its end: the next one will hardly be better.
                self.pause = Some(Pause { until: now + SOON, cause: Cause::IdpDown, generation: row.generation });
            }
            (_, None) => {
                self.view = View::Unread;
                self.pause = Some(Pause { until: now + SOON, cause: Cause::Failing, generation: Generation(u64::MAX) });
            }
            _ => {}
        }
        if row.is_some() {
            self.learn(row, effects);
        }
        if end == End::Renewed {
            self.waiters.iter_mut().for_each(|waiting| waiting.renewed = true);
        } else if self.rejected.take().is_some()
            && let Some(row) = self.row()
        {
            // A refused token is served again once the refresh that should replace it has failed.
            effects.push(Effect::Stand(standing(row)));
        }
        self.answer_refreshers(now, effects);
    }

    fn answer_refreshers(&mut self, now: Time, effects: &mut Vec<Effect<W, R>>) {
        let View::Read(row) = &self.view else { return };
        for (who, before) in std::mem::take(&mut self.refreshers) {
            let answer = match (row, before) {
                (Some(row), None) if row.tombstone.is_none() => {
                    // Came after what has just ended.
                    self.refreshers.push((who, before));
                    continue;
                }
                (Some(row), Some(before)) if row.tombstone.is_none() && row.generation > before => Ok(true),
                (Some(row), _) if row.tombstone.is_none() => {
                    Err(self.hindrance(row, now).unwrap_or(Error::Unavailable {
                        retry_after: SOON,
                        cause: row.last_error.as_ref().map_or(Cause::IdpDown, |error| error.cause),
                    }))
                }
                _ => Err(Error::NotConnected),
            };
            effects.push(Effect::Refreshed(who, answer));
        }
    }

    /// Answers whom it can, starts what must be started, and says when to look again.
    fn serve(&mut self, sight: Sight<'_>, effects: &mut Vec<Effect<W, R>>) {
        let now = sight.now;
        let mut start = false;
        for waiting in std::mem::take(&mut self.waiters) {
            match self.judge(&waiting, sight) {
                Verdict::Give(token) => effects.push(Effect::Answer(waiting.who, Ok(token))),
                Verdict::Fail(error) => effects.push(Effect::Answer(waiting.who, Err(error))),
                Verdict::Wait => self.waiters.push(waiting),
                Verdict::Start => {
                    start = true;
                    self.waiters.push(waiting);
                }
            }
        }
        match &self.view {
            View::Asleep if self.waiters.is_empty() && self.refreshers.is_empty() && !sight.wanted => return,
            View::Unread | View::Asleep => {
                self.view = View::Reading;
                effects.push(Effect::Read);
            }
            View::Reading => {}
            View::Read(None) => self.answer_refreshers(now.wall, effects),
            View::Read(Some(row)) => {
                let row = row.clone();
                self.admit_refreshers(&row, now.wall, effects);
                start |= self.refresh_is_due(&row, now.wall);
                if !self.running && !self.refreshers.is_empty() {
                    // An operator's wish goes before the backoff, but not around a doubt.
                    match self.hindrance(&Row { retry_at: None, ..(*row).clone() }, now.wall) {
                        Some(_) => self.answer_refreshers(now.wall, effects),
                        None => start = true,
                    }
                }
                if start && !self.running {
                    self.running = true;
                    effects.push(Effect::Start(row));
                }
            }
        }
        self.rest(sight, effects);
    }

    fn judge(&self, waiting: &Waiting<W>, sight: Sight<'_>) -> Verdict {
        let now = sight.now;
        let View::Read(row) = &self.view else { return Verdict::Wait };
        let Some(row) = row.as_ref().filter(|row| row.tombstone.is_none()) else {
            return Verdict::Fail(Error::NotConnected);
        };
        let refused = |issued: &Issued| self.rejected.is_some_and(|rejected| issued.generation <= rejected);
        let needed = now.plus(waiting.min_ttl);
        let token = sight
            .published
            .filter(|issued| issued.generation >= row.generation || self.running)
            .filter(|issued| issued.valid_at(needed.wall, needed.boot) && !refused(issued))
            .and_then(|issued| issued.hand_out(now.wall));
        if let Some(token) = token {
            return Verdict::Give(token);
        }
        if let Some(life) = row.lifetime().filter(|life| waiting.renewed || waiting.min_ttl > *life * 3 / 4)
            && !waiting.min_ttl.is_zero()
        {
            return Verdict::Fail(Error::MinTtlUnsatisfiable { max_ttl: life * 3 / 4 });
        }
        if self.running {
            return Verdict::Wait;
        }
        match self.hindrance(row, now.wall) {
            None => Verdict::Start,
            // The next step lies before the caller's deadline: worth waiting for.
            Some(Error::Unavailable { retry_after, cause })
                if cause != Cause::Held && now.boot + retry_after < waiting.deadline =>
            {
                Verdict::Wait
            }
            Some(error) => Verdict::Fail(error),
        }
    }

    /// Why no attempt can start now.
    fn hindrance(&self, row: &Row, now: Time) -> Option<Error> {
        if let Some(verdict) = &row.verdict {
            let (reason, since) = (verdict.code.clone(), verdict.since.into());
            return Some(Error::ReconnectRequired { reason, since });
        }
        if row.held.is_some() {
            return Some(Error::Unavailable { retry_after: Duration::from_secs(60), cause: Cause::Held });
        }
        if row.refresh_token.is_none() {
            let since = row.expires.at().unwrap_or(row.changed_at).into();
            return Some(Error::ReconnectRequired { reason: "no_refresh_token".to_owned(), since });
        }
        let backoff = row.last_error.as_ref().and_then(|error| row.retry_at.map(|at| (at, error.cause)));
        let pause = self.pause.map(|pause| (pause.until, pause.cause));
        let (until, cause) = pause.into_iter().chain(backoff).max_by_key(|(time, _)| *time)?;
        (until > now).then(|| Error::Unavailable { retry_after: until.since(now), cause })
    }

    /// Whether an attempt is to be started although nobody waits.
    fn refresh_is_due(&self, row: &Row, now: Time) -> bool {
        let wanted = match &row.intent {
            Some(_) => true,
            None => row.sendable() && (self.rejected.is_some() || row.due_at.is_some_and(|due| due <= now)),
        };
        let waits = self.pause.is_some_and(|pause| pause.until > now);
        let backs_off = row.retry_at.is_some_and(|retry| retry > now) && row.sendable();
        // A doubt about a token that the row no longer spends is cleared whatever else holds: nothing is sent for it.
        let current = row.intent.as_ref().is_none_or(|intent| intent.generation == row.generation);
        let moot = row.tombstone.is_none() && !row.sendable() && current;
        wanted && !waits && !backs_off && !moot
    }

    /// When to look again, or whether to go to sleep.
    fn rest(&mut self, sight: Sight<'_>, effects: &mut Vec<Effect<W, R>>) {
        let (now, idle_after) = (sight.now, self.limits.idle_after);
        if self.is_busy() {
            // Whoever waits for a time rather than for an attempt is served then.
            if let (View::Read(Some(row)), false) = (&self.view, self.running)
                && let Some(Error::Unavailable { retry_after, .. }) = self.hindrance(row, now.wall)
            {
                effects.push(Effect::WakeAt(now.wall + retry_after));
            }
            return;
        }
        let used = self.last_asked.max(sight.last_used);
        let idle = now.boot.since(used);
        // Whoever asks for keys that do not exist must not fill the memory.
        let absent = matches!(self.view, View::Read(None));
        if !sight.wanted && (absent || (idle >= idle_after && !sight.watched)) {
            self.view = View::Asleep;
            effects.push(Effect::Sleep);
            return;
        }
        // Watched, it looks again after another such time.
        let idle_left = if idle < idle_after { idle_after - idle } else { idle_after };
        let mut wake = now.wall + idle_left.max(SOON);
        if let Some(row) = self.row() {
            let next = row.due_at.max(row.retry_at).filter(|_| row.sendable());
            let next = next.max(self.pause.map(|pause| pause.until));
            wake = next.filter(|next| *next > now.wall).map_or(wake, |next| wake.min(next));
        }
        effects.push(Effect::WakeAt(wake));
    }

    pub(super) fn status(&self, now: Time) -> Status {
        Status::of(self.row().map(|row| &**row), now, None)
    }
}

/// How what is published stands, judged by its row.
fn standing(row: &Row) -> Standing {
    if row.verdict.is_some() {
        Standing::ReconnectRequired
    } else if row.intent.is_some() {
        Standing::InDoubt
    } else if row.last_error.is_some() {
        Standing::Failing
    } else {
        Standing::Good
    }
}
