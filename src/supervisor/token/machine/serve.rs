//! Which callers can be answered, what has to be started, and when to look again.

use std::time::Duration;

use super::{Effect, HELD, LINGER, Machine, Pause, SOON, Sight, View, Waiting};
use crate::{
    code::EvidenceCode,
    error::{Cause, Error},
    idp::{GateClosed, Priority},
    model::{Issued, LastError, Row, Token, WallTime},
};

/// The decision about a caller that waits.
enum Judgement {
    Give(Token),
    Fail(Error),
    Wait,
    Start,
}

impl<W, R> Machine<W, R> {
    pub(super) fn answer_refreshers(&mut self, now: WallTime, effects: &mut Vec<Effect<W, R>>) {
        let View::Read(row) = &self.view else { return };
        for (who, before) in std::mem::take(&mut self.refreshers) {
            let answer = match (row, before) {
                (Some(row), None) if row.tombstone.is_none() => {
                    // This caller came after the attempt that has just ended.
                    self.refreshers.push((who, before));
                    continue;
                }
                (Some(row), Some(before))
                    if row.tombstone.is_none() && row.generation > before && row.last_error.is_none() =>
                {
                    Ok(true)
                }
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

    /// Answers the callers that can be answered, starts what must be started, and says when to look again. The first
    /// `judged` callers are known to have to go on waiting.
    pub(super) fn serve(&mut self, judged: usize, sight: Sight<'_>, effects: &mut Vec<Effect<W, R>>) {
        let now = sight.now;
        let mut start = false;
        for waiting in self.waiters.split_off(judged) {
            match self.judge(&waiting, sight) {
                Judgement::Give(token) => effects.push(Effect::Answer(waiting.who, Ok(token))),
                Judgement::Fail(error) => effects.push(Effect::Answer(waiting.who, Err(error))),
                Judgement::Wait => self.waiters.push(waiting),
                Judgement::Start => {
                    start = true;
                    self.waiters.push(waiting);
                }
            }
        }
        match &self.view {
            View::Stopping => return,
            View::Due(_) if self.waiters.is_empty() && self.refreshers.is_empty() && !sight.wanted => return,
            View::Unread | View::Due(_) => {
                self.view = View::Reading;
                effects.push(Effect::Read);
            }
            View::Reading => {}
            View::Read(None) => self.answer_refreshers(now.wall, effects),
            View::Read(Some(row)) => {
                let row = row.clone();
                self.admit_refreshers(&row, now.wall, effects);
                start |= self.refresh_is_due(&row, now.wall);
                if self.running.is_none() && !self.refreshers.is_empty() {
                    // A caller's explicit refresh ignores the backoff, but does not go around a doubt.
                    match self.hindrance(&Row { retry_at: None, ..(*row).clone() }, now.wall) {
                        Some(_) => self.answer_refreshers(now.wall, effects),
                        None => start = true,
                    }
                }
                let wanted = !self.waiters.is_empty() || !self.refreshers.is_empty();
                match self.running {
                    None if start => {
                        let lane = if wanted { Priority::Foreground } else { Priority::Background };
                        self.running = Some(lane);
                        effects.push(Effect::Start(row, lane));
                    }
                    Some(Priority::Background) if wanted => {
                        self.running = Some(Priority::Foreground);
                        effects.push(Effect::Hurry);
                    }
                    _ => {}
                }
            }
        }
        self.rest(sight, effects);
    }

    fn judge(&self, waiting: &Waiting<W>, sight: Sight<'_>) -> Judgement {
        let now = sight.now;
        let View::Read(row) = &self.view else { return Judgement::Wait };
        let Some(row) = row.as_ref().filter(|row| row.tombstone.is_none()) else {
            return Judgement::Fail(Error::NotConnected);
        };
        let rejected = self.rejected.filter(|rejected| rejected.counts(now.wall));
        let refused = |issued: &Issued| rejected.is_some_and(|rejected| issued.generation <= rejected.generation);
        let needed = now.plus(waiting.min_ttl);
        let token = sight
            .published
            .filter(|issued| issued.generation >= row.generation || self.running.is_some())
            .filter(|issued| issued.valid_at(needed.wall, needed.boot) && !refused(issued))
            .and_then(|issued| issued.hand_out(now.wall));
        if let Some(token) = token {
            return Judgement::Give(token);
        }
        // Only the full lifetime of a token counts: one that was rejected or expired unused is replaced like any other.
        if let Some(life) = row.lifetime().filter(|life| waiting.min_ttl > *life * 3 / 4)
            && !waiting.min_ttl.is_zero()
        {
            return Judgement::Fail(Error::MinTtlUnsatisfiable { max_ttl: life * 3 / 4 });
        }
        if self.running.is_some() {
            return Judgement::Wait;
        }
        match self.hindrance(row, now.wall) {
            None => Judgement::Start,
            // The next step comes before the caller's deadline: worth waiting for.
            Some(Error::Unavailable { retry_after, cause })
                if !matches!(cause, Cause::Held | Cause::IdpHeld)
                    && (now.boot + retry_after < waiting.deadline || self.is_refreshed_elsewhere(now.wall)) =>
            {
                Judgement::Wait
            }
            Some(error) => Judgement::Fail(error),
        }
    }

    /// Returns why no attempt can start now, if none can.
    fn hindrance(&self, row: &Row, now: WallTime) -> Option<Error> {
        if let Some((evidence, since)) = row.required(now) {
            return Some(Error::ReconnectRequired { reason: evidence.code.clone(), since: since.into() });
        }
        if row.held.is_some() {
            return Some(Error::Unavailable { retry_after: HELD, cause: Cause::Held });
        }
        if row.refresh_token.is_none() {
            let since = row.expires.at().unwrap_or(row.changed_at.by_wall_clock()).into();
            return Some(Error::ReconnectRequired { reason: EvidenceCode::NoRefreshToken.to_string(), since });
        }
        if let Some(GateClosed { wait, cause: cause @ Cause::IdpHeld }) = self.gate.closed {
            // Whatever else there is: only an operator can help.
            return Some(Error::Unavailable { retry_after: wait, cause });
        }
        let backoff = self.backs_off(row).zip(row.last_error.as_ref()).map(|(until, error)| (until, error.cause));
        let pause = self.pause().map(|pause| (pause.until, pause.cause));
        let gate = self.gate.closed.map(|closed| (now + closed.wait, closed.cause));
        let gate = gate.into_iter().chain(too_soon(row, now).map(|until| (until, Cause::IdpDown)));
        let (until, cause) = pause.into_iter().chain(backoff).chain(gate).max_by_key(|(time, _)| *time)?;
        (until > now).then(|| Error::Unavailable { retry_after: until.since(now), cause })
    }

    /// Returns until when the grant's own backoff holds, if it does: a backoff that the provider caused ends when the provider
    /// has recovered.
    fn backs_off(&self, row: &Row) -> Option<WallTime> {
        let over = |error: &LastError| self.is_over(error.cause, error.at.by_wall_clock());
        row.retry_at.filter(|_| !row.last_error.as_deref().is_some_and(over))
    }

    fn pause(&self) -> Option<Pause> {
        self.pause.filter(|pause| !self.is_over(pause.cause, pause.since))
    }

    fn is_over(&self, cause: Cause, since: WallTime) -> bool {
        let of_the_provider = matches!(cause, Cause::IdpDown | Cause::IdpThrottled | Cause::ClientRefused);
        let mended = cause == Cause::ClientRefused && self.gate.opened.is_some_and(|opened| opened > since);
        mended || (of_the_provider && self.gate.recovered.is_some_and(|recovered| recovered > since))
    }

    /// Whether an attempt is to be started although no caller waits.
    pub(super) fn refresh_is_due(&self, row: &Row, now: WallTime) -> bool {
        if row.verdict.is_none() && row.has_run_out(now) {
            // The attempt sends nothing: it writes the verdict.
            return self.pause().is_none_or(|pause| pause.until <= now);
        }
        let wanted = match &row.intent {
            Some(_) => true,
            None => {
                let rejected = self.rejected.is_some_and(|rejected| rejected.counts(now));
                row.sendable() && (rejected || row.due_at.is_some_and(|due| due <= now))
            }
        };
        let waits = self.gate.closed.is_some() || self.pause().is_some_and(|pause| pause.until > now);
        let waits = waits || (row.intent.is_none() && too_soon(row, now).is_some());
        let backs_off = self.backs_off(row).is_some_and(|until| until > now) && row.sendable();
        wanted && !waits && !backs_off && !row.doubt_is_moot()
    }

    /// Decides when to look again, or whether to stop.
    pub(super) fn rest(&mut self, sight: Sight<'_>, effects: &mut Vec<Effect<W, R>>) {
        let now = sight.now;
        if self.is_busy() {
            // Callers that wait for a time rather than for an attempt are served then.
            if let (View::Read(Some(row)), None) = (&self.view, self.running)
                && let Some(Error::Unavailable { retry_after, .. }) = self.hindrance(row, now.wall)
            {
                // The other process may die, or not be heard.
                let again = self.is_refreshed_elsewhere(now.wall).then_some(now.wall + SOON);
                // With every event: the time that was set first holds.
                self.look_again = again.map(|again| self.look_again.map_or(again, |set| set.min(again)));
                let next = now.wall + retry_after;
                effects.push(Effect::WakeAt(again.map_or(next, |again| again.min(next))));
            }
            return;
        }
        if sight.wanted {
            return;
        }
        let stays = self.row().and_then(|row| {
            let idle = self.last_asked.map(|asked| now.boot.since(asked)).filter(|idle| *idle < LINGER);
            self.stays(row, now.wall).or(idle.map(|idle| now.wall + (LINGER - idle)))
        });
        match stays {
            Some(until) => effects.push(Effect::WakeAt(until)),
            None => self.stop(effects),
        }
    }

    pub(super) fn stop(&mut self, effects: &mut Vec<Effect<W, R>>) {
        self.view = View::Stopping;
        effects.push(Effect::Stop(self.last_asked));
    }

    /// Returns until when the actor stays although no caller waits, if it stays: what it knows of the key is not in the row,
    /// or the row would be due for the sweeper again at once.
    fn stays(&self, row: &Row, now: WallTime) -> Option<WallTime> {
        let pause = self.pause().map(|pause| pause.until);
        let in_doubt = row.intent.is_some() && !row.doubt_is_moot();
        let stands = in_doubt || self.rejected.is_some();
        let gate = self.gate.closed.map(|closed| now + closed.wait).filter(|_| stands);
        let is_due = |at| stands || row.due_at.is_some_and(|due| due <= at);
        let backoff = self.backs_off(row).filter(|retry| row.sendable() && is_due(*retry));
        let rejected = self.rejected.map(|rejected| rejected.from);
        let until = [rejected, pause, backoff, gate, too_soon(row, now)].into_iter().flatten().max();
        let look_again = now + if row.sendable() { SOON } else { HELD };
        until.filter(|until| *until > now).or(stands.then_some(look_again))
    }

    /// Decides about callers that want a refresh and were not considered yet with a known row.
    fn admit_refreshers(&mut self, row: &Row, now: WallTime, effects: &mut Vec<Effect<W, R>>) {
        let lately = row.lifetime().map_or(Duration::from_secs(10), |life| (life / 4).min(Duration::from_secs(10)));
        let just_refreshed =
            self.running.is_none() && row.sendable() && row.commit.is_some() && now < row.issued_at + lately;
        for (who, before) in std::mem::take(&mut self.refreshers) {
            if before.is_none() && just_refreshed {
                effects.push(Effect::Refreshed(who, Ok(false)));
            } else {
                self.refreshers.push((who, before.or(Some(row.generation))));
            }
        }
    }
}

/// Returns until when no refresh starts because the last one brought a token with a very short life: a provider gets at
/// most two requests a second for a grant.
fn too_soon(row: &Row, now: WallTime) -> Option<WallTime> {
    const INTERVAL: Duration = Duration::from_millis(500);
    let due = row.due_at.map(|due| due.since(row.issued_at));
    let short = row.commit.is_some() && [row.lifetime(), due].into_iter().flatten().any(|life| life < 4 * INTERVAL);
    // A wall clock that was stepped back says nothing.
    let until = row.issued_at + INTERVAL;
    (short && (row.issued_at..until).contains(&now)).then_some(until)
}
