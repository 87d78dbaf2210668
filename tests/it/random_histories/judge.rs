//! What must hold after every step, and what every answer may be.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use token_supervisor::{
    Error, Expiry, Generation, State, Token,
    testing::{Fault, Outcome, Presentation, TokenId},
};

use super::{
    plot::{Asked, Deed, DeedKind, Moment, Plot, What},
    setting::Setting,
    stage::{ALONE, Stage, breathe},
};
use crate::support::LIFE;

/// How long every command waits.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn look(stage: &Stage, plot: &mut Plot) -> Result<(), String> {
    answers(stage, plot).await?;
    if let Some(token) = stage.supervisor().cached(&plot.key) {
        rise(&mut plot.generation, token.generation())?;
    }
    presented(stage, plot)
}

pub(super) fn rise(highest: &mut Generation, seen: Generation) -> Result<(), String> {
    if seen < *highest {
        return Err(format!("the generation fell from {highest} to {seen}"));
    }
    *highest = seen;
    Ok(())
}

/// Takes the answers that have come, and those that must have come.
async fn answers(stage: &Stage, plot: &mut Plot) -> Result<(), String> {
    for asked in std::mem::take(&mut plot.asked) {
        let late = stage.elapsed >= asked.at.elapsed + DEADLINE;
        for _ in 0..if late { 10_000 } else { 0 } {
            if asked.answer.is_finished() {
                break;
            }
            breathe().await;
        }
        if !asked.answer.is_finished() {
            if late {
                return Err(format!("{:?} is not answered at its deadline", asked.what));
            }
            plot.asked.push(asked);
            continue;
        }
        answered(stage, plot, asked).await?;
    }
    Ok(())
}

async fn answered(stage: &Stage, plot: &mut Plot, asked: Asked) -> Result<(), String> {
    let Asked { what, at, step, cached, generation, restarts, answer } = asked;
    let answer = answer.await.map_err(|_| format!("{what:?} panicked"))?;
    match (what, answer) {
        (What::Token { min_ttl }, Ok(Some(token))) => {
            if token.generation() < generation {
                return Err(format!("a token of generation {} after {generation}", token.generation()));
            }
            valid(stage, plot, &token, min_ttl, at)
        }
        (What::Deed(deed), Ok(_)) => {
            plot.done(deed);
            Ok(())
        }
        (_, Ok(_)) => Ok(()),
        (_, Err(Error::ShutDown)) if restarts < stage.restarts => Ok(()),
        (_, Err(Error::Busy { .. } | Error::Unavailable { .. } | Error::Timeout)) => {
            let ready = cached && stage.supervisor().cached(&plot.key).is_some() && restarts == stage.restarts;
            if ready && what == (What::Token { min_ttl: Duration::ZERO }) {
                return Err("a good token lay ready and was not handed out".to_owned());
            }
            Ok(())
        }
        (What::Token { min_ttl }, Err(Error::MinTtlUnsatisfiable { .. })) if min_ttl > LIFE / 2 => Ok(()),
        (What::Elsewhere, Err(Error::NotConnected | Error::ReconnectRequired { .. })) => Ok(()),
        (What::Deed(_), Err(Error::DuplicateGrant)) if plot.asked_for(|kind| kind == DeedKind::ConnectElsewhere) => {
            Ok(())
        }
        (What::Deed(deed), Err(Error::NotConnected)) if plot.deeds[deed].kind == DeedKind::RequireReconnect => Ok(()),
        (_, Err(Error::NotConnected)) if plot.may_be(stage, State::Revoked, None, step) => Ok(()),
        (_, Err(Error::ReconnectRequired { .. })) if plot.may_be(stage, State::ReconnectRequired, None, step) => Ok(()),
        (_, Err(error)) => Err(format!("{what:?} was answered: {error}")),
    }
}

/// Whether a token that was handed out since then was good at that moment.
pub(super) fn valid(stage: &Stage, plot: &Plot, token: &Token, min_ttl: Duration, at: Moment) -> Result<(), String> {
    if let Expiry::At(end) = token.expiry()
        && end < at.wall + min_ttl
    {
        return Err("a token was handed out that does not live long enough".to_owned());
    }
    if token.access_token().expose_secret() == ALONE {
        return Ok(());
    }
    // The provider lives by the clock that nobody steps.
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + at.elapsed;
    let died = stage.world.sim.access_died_at(token.access_token()).filter(|died| *died < then);
    // What was read anew is judged by the wall clock alone.
    let killed = plot.ended > 0
        || plot.stepped
        || plot.asked_for(|kind| matches!(kind, DeedKind::Disconnect { .. } | DeedKind::ConnectNew))
        || (stage.setting.ends_access_tokens() && plot.lost(stage, None))
        // A new access token ends the old one, also where the answer is not believed.
        || (stage.setting.ends_access_tokens() && plot.was_kept(stage));
    match died {
        Some(_) if !killed => Err("a dead token was handed out".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the provider saw a refresh token once too often.
fn presented(stage: &Stage, plot: &Plot) -> Result<(), String> {
    let mut last: HashMap<TokenId, Presentation> = HashMap::new();
    for next in stage.world.sim.presentations() {
        let Some(token) = next.token.clone().filter(|token| *token.user == *plot.key.user()) else { continue };
        if let Some(before) = last.get(&token) {
            // `settle` is counted by the wall clock.
            let under_way = before.processed_at.map_or(before.will_be_processed(), |at| at > next.at);
            if under_way && !plot.stepped && !stage.setting.may_repeat() {
                return Err(format!("two requests with one refresh token: {before:?}, {next:?}"));
            }
            if next.duplicate && before.spent() && !before.lost(stage.setting) {
                return Err(format!("a spent refresh token was presented: {before:?}, {next:?}"));
            }
            if !next.spent() && next.processed_at.is_none() {
                continue;
            }
        }
        last.insert(token, next);
    }
    Ok(())
}

/// What the log says of a request.
trait Fate {
    fn spent(&self) -> bool;
    fn lost(&self, setting: &Setting) -> bool;
    fn will_be_processed(&self) -> bool;
}

impl Fate for Presentation {
    /// New tokens were made or given again.
    fn spent(&self) -> bool {
        matches!(self.outcome, Outcome::Rotated | Outcome::Replayed)
    }

    /// They may not have arrived.
    fn lost(&self, setting: &Setting) -> bool {
        let silent = |fault: &Fault| match fault {
            Fault::DropAfter | Fault::CutAt(_) | Fault::CloseDelimitedCutAt(_) => true,
            Fault::StatusAfter(_) | Fault::LateProcessing(_) => true,
            // A form does not show whether it is complete.
            Fault::CloseDelimited => setting.answers_in_forms(),
            _ => false,
        };
        self.spent() && self.fault.as_ref().is_some_and(silent)
    }

    fn will_be_processed(&self) -> bool {
        self.outcome == Outcome::NotProcessed
            && matches!(self.fault, Some(Fault::Hang | Fault::LateProcessing(_) | Fault::Delay(_)))
    }
}

impl Plot {
    /// Whether somebody who asked in this step may find the grant like this, with the tokens of this family, or of any.
    pub(super) fn may_be(&self, stage: &Stage, state: State, family: Option<u64>, step: usize) -> bool {
        let asked = |wanted: fn(DeedKind) -> bool| {
            self.deeds.iter().any(|deed| wanted(deed.kind) && !self.overtaken(deed.done, step))
        };
        let disconnected = asked(|kind| matches!(kind, DeedKind::Disconnect { .. }));
        match state {
            State::Revoked => disconnected,
            State::ReconnectRequired => {
                asked(|kind| kind == DeedKind::RequireReconnect)
                    || self.was_ended(family)
                    // Its tokens are revoked, or a connect without refresh token took its place.
                    || self.asked_for(|kind| matches!(kind, DeedKind::Disconnect { .. }))
                    || (!stage.setting.forgives() && self.lost(stage, family))
                    || (self.stepped && self.was_late(stage))
            }
            _ => true,
        }
    }

    pub(super) fn asked_for(&self, wanted: fn(DeedKind) -> bool) -> bool {
        self.deeds.iter().any(|deed| wanted(deed.kind))
    }

    /// Whether a new consent was stored after what had been done by then, and before this step.
    fn overtaken(&self, done: Option<usize>, step: usize) -> bool {
        let between = |deed: &Deed| done < Some(deed.asked) && deed.done.is_some_and(|stored| stored < step);
        done.is_some() && self.deeds.iter().any(|deed| deed.kind == DeedKind::ConnectNew && between(deed))
    }

    /// Whether an administrator ended the family, or any.
    fn was_ended(&self, family: Option<u64>) -> bool {
        self.consents.iter().take(self.ended).any(|consent| family.is_none_or(|family| family == consent.family))
    }

    /// Whether a request was processed after it had been given up: too late for `settle`, if the clock was stepped.
    fn was_late(&self, stage: &Stage) -> bool {
        let mine = |token: &TokenId| *token.user == *self.key.user();
        let late = |it: &Presentation| matches!(it.fault, Some(Fault::LateProcessing(_)));
        stage.world.sim.presentations().iter().any(|it| late(it) && it.token.as_ref().is_some_and(mine))
    }

    /// Whether an answer left the refresh token out.
    fn was_kept(&self, stage: &Stage) -> bool {
        let mine = |token: &TokenId| *token.user == *self.key.user();
        let kept = |it: &Presentation| it.fault == Some(Fault::WithoutRefreshToken);
        stage.world.sim.presentations().iter().any(|it| kept(it) && it.token.as_ref().is_some_and(mine))
    }

    /// Whether an answer with new tokens of the family, or of any, may not have arrived.
    pub(super) fn lost(&self, stage: &Stage, family: Option<u64>) -> bool {
        let mine =
            |token: &TokenId| *token.user == *self.key.user() && family.is_none_or(|family| family == token.family);
        stage.world.sim.presentations().iter().any(|it| it.lost(stage.setting) && it.token.as_ref().is_some_and(mine))
    }
}
