//! No more faults: everything must come to an end, and to a good one.

use std::time::Duration;

use token_supervisor::{
    Acquire, Cause, Command, Disconnect, Error, Generation, GetStatus, RefreshNow, Release, RequireReconnect, Revoke,
    State, Status, TokenKey, testing::Standing,
};

use super::{
    judge::{look, rise, valid},
    plot::{Deed, DeedKind, Plot},
    stage::{Stage, breathe},
};
use crate::support::LIFE;

pub(super) async fn come_to_rest(stage: &mut Stage, plot: &mut Plot) -> Result<(), String> {
    let state = settle(stage, plot).await?;
    let stored = stored(stage, &plot.key).await?;
    let family = stored.as_ref().and_then(|token| stage.world.sim.token_id(token)).map(|token| token.family);
    if !plot.may_be(stage, state, family, usize::MAX) {
        return Err(format!("at rest it is {state}, for no reason"));
    }
    if let Some(wanted) = plot.last_word().filter(|wanted| *wanted != state) {
        return Err(format!("at rest it is {state}, although it was made {wanted}"));
    }
    match (state, stored) {
        (State::Revoked, Some(token)) if plot.is_to_be_revoked() => {
            for _ in 0..4_000 {
                if matches!(stage.world.sim.standing(&token), Standing::Revoked | Standing::FamilyDead) {
                    return Ok(());
                }
                stage.advance(Duration::from_secs(40));
                breathe().await;
            }
            Err("its tokens are not revoked".to_owned())
        }
        (State::Revoked | State::ReconnectRequired, _) => Ok(()),
        (_, None) if plot.asked_for(|kind| matches!(kind, DeedKind::Disconnect { .. })) => Ok(()),
        (_, None) => Err("no refresh token is stored".to_owned()),
        (_, Some(_)) => works(stage, plot, family).await,
    }
}

/// Lets time pass until nothing is under way any more.
async fn settle(stage: &mut Stage, plot: &mut Plot) -> Result<State, String> {
    stage.heal();
    // Faults that no request has met yet belong to no other history.
    stage.world.sim.forget_faults();
    stage.world.sim.fail_revocations(None);
    let (mut rounds, mut busy) = (0, 0);
    while rounds < 600 && busy < 10_000 {
        stage.world.sim.release();
        // An attempt under way is not hurried past its send window, however slow the machine is.
        if stage.supervisor().testing().attempts() > 0 {
            busy += 1;
            stage.advance(Duration::from_millis(100));
        } else {
            rounds += 1;
            stage.advance(Duration::from_secs(if rounds < 50 { 1 } else { 40 }));
        }
        breathe().await;
        look(stage, plot).await?;
        let testing = stage.supervisor().testing();
        if testing.attempts() > 0 || testing.journal_pending() > 0 || !plot.asked.is_empty() {
            continue;
        }
        if !release(stage, &plot.key).await? {
            continue;
        }
        let Some(state) = status(stage, plot).await? else { continue };
        let at_rest = match state {
            State::Fresh | State::ReconnectRequired | State::Revoked => true,
            // Without refresh token there is nothing that could be done when it is due.
            State::Due => stored(stage, &plot.key).await?.is_none(),
            _ => false,
        };
        if at_rest && nothing_is_behind(stage).await && status(stage, plot).await? == Some(state) {
            return Ok(state);
        }
    }
    let testing = stage.supervisor().testing();
    let (attempts, entries) = (testing.attempts(), testing.journal_pending());
    Err(format!("no rest: {attempts} attempts, {entries} journal entries, {} wait", plot.asked.len()))
}

/// People let go of what they hold. False if they did not yet know that there was nothing.
async fn release(stage: &mut Stage, key: &TokenKey) -> Result<bool, String> {
    if stage.supervisor().idps().iter().any(|idp| idp.held.is_some()) {
        let released = stage.supervisor().release_idp("idp").await;
        return released.map(|()| false).map_err(|error| format!("it is not released: {error}"));
    }
    match stage.called(GetStatus::new(key)).await {
        Ok(Status { held: None, .. }) => Ok(true),
        _ => Ok(stage.called(Release::new(key)).await.is_err_and(|error| error == Error::NotConnected)),
    }
}

/// What timed out may still be on its way to the store, which takes one thing after the other.
async fn nothing_is_behind(stage: &mut Stage) -> bool {
    let nobody = TokenKey::at("idp").user("nobody");
    let answer = stage.called(RequireReconnect::new(&nobody, "to be the last")).await;
    matches!(answer, Err(Error::NotConnected)) && stage.supervisor().testing().attempts() == 0
}

async fn status(stage: &mut Stage, plot: &mut Plot) -> Result<Option<State>, String> {
    match stage.called(GetStatus::new(&plot.key)).await {
        Ok(status) => {
            rise(&mut plot.stored, status.generation).map_err(|what| format!("{what}, by its status"))?;
            Ok(Some(status.state))
        }
        Err(Error::Unavailable { cause: Cause::Failing, .. } | Error::Timeout) => Ok(None),
        Err(error) => Err(format!("no status at rest: {error}")),
    }
}

/// The grant gives a token and can be refreshed, or a reconnect is required for a reason.
async fn works(stage: &mut Stage, plot: &mut Plot, family: Option<u64>) -> Result<(), String> {
    let at = stage.now();
    let token = match insisted(stage, &plot.key, Acquire::new(&plot.key)).await {
        Ok(token) => token,
        // Its asker was told that the time was over, and it was carried out all the same.
        Err(Error::NotConnected) if plot.may_be(stage, State::Revoked, family, usize::MAX) => return Ok(()),
        Err(Error::ReconnectRequired { .. }) if plot.may_be(stage, State::ReconnectRequired, family, usize::MAX) => {
            return Ok(());
        }
        Err(error) => return Err(format!("no token at rest: {error}")),
    };
    valid(stage, plot, &token, Duration::ZERO, at)?;
    match insisted(stage, &plot.key, RefreshNow::new(&plot.key)).await {
        Ok(_) => {}
        Err(Error::ReconnectRequired { .. }) if plot.may_be(stage, State::ReconnectRequired, family, usize::MAX) => {
            return Ok(());
        }
        Err(Error::NotConnected) if plot.may_be(stage, State::Revoked, family, usize::MAX) => return Ok(()),
        Err(error) => return Err(format!("no refresh at rest: {error}")),
    }
    rise(&mut plot.generation, token.generation())?;
    look(stage, plot).await?;
    let Some(token) = stored(stage, &plot.key).await? else { return Err("no refresh token is stored".to_owned()) };
    match stage.world.sim.standing(&token) {
        Standing::Current => Ok(()),
        _ if plot.may_be(stage, State::ReconnectRequired, family, usize::MAX) => Ok(()),
        standing => Err(format!("the stored refresh token is {standing:?}")),
    }
}

/// Asks again after a pause: the provider may have wished for one, the wall clock, by which pauses are counted, was
/// stepped back, or the machine is slower than the clock. A hold whose asker was told that the time was over may have
/// taken effect since.
async fn insisted<C: Command>(stage: &mut Stage, key: &TokenKey, command: C) -> Result<C::Answer, Error> {
    for _ in 0..9 {
        match stage.called(command.clone()).await {
            Err(Error::Unavailable { cause: Cause::Held | Cause::IdpHeld, .. }) => {
                release(stage, key).await.ok();
            }
            Err(Error::Unavailable {
                retry_after,
                cause: Cause::IdpDown | Cause::IdpThrottled | Cause::InDoubt | Cause::ClientRefused,
            }) => stage.advance(retry_after),
            Err(Error::Timeout) => {}
            answer => return answer,
        }
    }
    stage.called(command).await
}

/// What was connected must not live on into the next history.
pub(super) async fn leave(stage: &mut Stage, plot: &mut Plot) -> Result<(), String> {
    for key in [plot.key.clone(), plot.other.clone()] {
        match stage.called(Disconnect::new(&key, Revoke::No).timeout(LIFE)).await {
            Ok(_) | Err(Error::NotConnected) => {}
            Err(error) => return Err(format!("no disconnect at rest: {error}")),
        }
    }
    (plot.generation, plot.stored) = (Generation::new(0), Generation::new(0));
    for _ in 0..300 {
        if stage.supervisor().testing().attempts() == 0 {
            return Ok(());
        }
        stage.world.sim.release();
        stage.advance(Duration::from_millis(100));
        breathe().await;
    }
    Err("an attempt is left over".to_owned())
}

async fn stored(stage: &Stage, key: &TokenKey) -> Result<Option<token_supervisor::RefreshToken>, String> {
    stage.supervisor().testing().stored_refresh_token(key).await.map_err(|error| error.to_string())
}

impl Plot {
    /// The state in which somebody left the grant, if nothing else was asked for afterwards or beside it.
    fn last_word(&self) -> Option<State> {
        let last = self.deeds.iter().rposition(|deed| {
            matches!(deed.kind, DeedKind::Disconnect { .. } | DeedKind::RequireReconnect) && deed.done.is_some()
        })?;
        let beside = |other: &Deed| other.done.is_none_or(|done| done >= self.deeds[last].asked);
        let alone = self
            .deeds
            .iter()
            .enumerate()
            .all(|(at, deed)| at == last || deed.kind == DeedKind::ConnectElsewhere || !beside(deed));
        let state =
            if self.deeds[last].kind == DeedKind::RequireReconnect { State::ReconnectRequired } else { State::Revoked };
        alone.then_some(state)
    }

    fn is_to_be_revoked(&self) -> bool {
        self.deeds.iter().all(|deed| match deed.kind {
            DeedKind::Disconnect { revoke } => revoke && deed.done.is_some(),
            _ => true,
        })
    }
}
