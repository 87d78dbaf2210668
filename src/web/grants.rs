//! One grant: connect, look, and the verbs.

use actix_web::http::{StatusCode, header};

use super::{
    answer::Answer,
    call::Call,
    etag,
    problem::Problem,
    routes::{PURGE, REVOKE},
    wire::{GrantBody, Nothing, ReasonBody, RejectedBody, StatusBody},
};
use crate::{
    Cause, Connect, Disconnect, Error, Generation, GetStatus, Hold, Purge, RefreshNow, RejectToken, Release,
    RequireReconnect, Restore, Revoke, State, Status, TokenKey,
};

/// `PUT .../{user}`: stores what the user's consent gave.
pub(super) async fn connect(call: &Call) -> Result<Answer, Problem> {
    let (key, supervisor) = (call.key()?, &call.api.supervisor);
    let grant = call.json::<GrantBody>()?.grant(supervisor.clock().now()).map_err(Problem::invalid)?;
    let connect = expecting(call, Connect::new(key, grant))?;
    // Only what the answer is called depends on it: somebody else may connect in between.
    let before = supervisor.call(GetStatus::new(key).timeout(call.left()?)).await?;
    let status = supervisor.call(connect.timeout(call.left()?)).await?;
    let created = status.unchanged.is_none() && matches!(before.state, State::Absent | State::Revoked);
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(described(key, &status).status(code))
}

/// What the request's preconditions (RFC 9110, 13.1) ask of the key.
fn expecting(call: &Call, connect: Connect) -> Result<Connect, Problem> {
    match (call.precondition(&header::IF_NONE_MATCH), call.precondition(&header::IF_MATCH)) {
        (None, None) => Ok(connect),
        (Some("*"), None) => Ok(connect.only_if_absent()),
        (None, Some(tag)) => match etag::one(tag) {
            Some(generation) => Ok(connect.only_if(generation)),
            None => Err(Problem::invalid("If-Match must be one entity tag such as \"g41\"")),
        },
        (Some(_), None) => Err(Problem::invalid("If-None-Match must be * here")),
        (Some(_), Some(_)) => Err(Problem::invalid("give If-Match or If-None-Match, not both")),
    }
}

/// `GET .../{user}`: what can be said about it.
pub(super) async fn status(call: &Call) -> Result<Answer, Problem> {
    let key = call.key()?;
    let status = call.api.supervisor.call(GetStatus::new(key).timeout(call.left()?)).await?;
    if status.state == State::Absent {
        return Err(Error::NotConnected.into());
    }
    Ok(described(key, &status))
}

/// `POST .../refresh`.
pub(super) async fn refresh(call: &Call) -> Result<Answer, Problem> {
    let key = call.key()?;
    call.json::<Nothing>()?;
    let refreshed = call.api.supervisor.call(RefreshNow::new(key).timeout(call.left()?)).await?;
    let body = StatusBody::of(key, &refreshed.status).refreshed(refreshed.refreshed);
    Ok(Answer::json(&body).generation(refreshed.status.generation))
}

/// `POST .../rejected`.
pub(super) async fn rejected(call: &Call) -> Result<Answer, Problem> {
    let (key, supervisor) = (call.key()?, &call.api.supervisor);
    let rejected = match call.json()? {
        RejectedBody { generation: Some(generation), access_token: None } => {
            RejectToken::new(key, Generation(generation.0))
        }
        RejectedBody { generation: None, access_token: Some(token) } => RejectToken::token(key, &token.into()),
        _ => return Err(Problem::invalid("say which token it was: by its generation, or the token itself")),
    };
    let status = supervisor.call(rejected.timeout(call.left()?)).await?;
    if status.state == State::Absent {
        return Err(Error::NotConnected.into());
    }
    Ok(described(key, &status))
}

/// `POST .../reconnect`.
pub(super) async fn reconnect(call: &Call) -> Result<Answer, Problem> {
    let (key, ReasonBody { reason }) = (call.key()?, call.json()?);
    let status = call.api.supervisor.call(RequireReconnect::new(key, reason).timeout(call.left()?)).await?;
    Ok(described(key, &status))
}

/// `POST .../hold`.
pub(super) async fn hold(call: &Call) -> Result<Answer, Problem> {
    let (key, ReasonBody { reason }) = (call.key()?, call.json()?);
    let status = call.api.supervisor.call(Hold::new(key, reason).timeout(call.left()?)).await?;
    Ok(described(key, &status))
}

/// `POST .../release`.
pub(super) async fn release(call: &Call) -> Result<Answer, Problem> {
    let key = call.key()?;
    call.json::<Nothing>()?;
    let status = call.api.supervisor.call(Release::new(key).timeout(call.left()?)).await?;
    Ok(described(key, &status))
}

/// `POST .../restore`.
pub(super) async fn restore(call: &Call) -> Result<Answer, Problem> {
    let key = call.key()?;
    call.json::<Nothing>()?;
    let status = call.api.supervisor.call(Restore::new(key).timeout(call.left()?)).await?;
    Ok(described(key, &status))
}

/// `POST .../purge`.
pub(super) async fn purge(call: &Call) -> Result<Answer, Problem> {
    let key = call.key()?;
    call.json::<Nothing>()?;
    let supervisor = &call.api.supervisor;
    // What is left of an identity provider that is configured no more can be purged, too.
    let before = supervisor.call(GetStatus::new(key).timeout(call.left()?)).await?;
    if before.state == State::Absent {
        let known = supervisor.idps().iter().any(|idp| idp.name == key.idp());
        return Err(if known { Error::NotConnected } else { Error::UnknownIdp }.into());
    }
    let status = supervisor.call(Purge::new(key).timeout(call.left()?)).await?;
    Ok(described(key, &status))
}

/// `DELETE .../{user}`.
pub(super) async fn disconnect(call: &Call) -> Result<Answer, Problem> {
    let key = call.key()?;
    call.json::<Nothing>()?;
    let revoke = if call.flag(&REVOKE)? { Revoke::Yes } else { Revoke::No };
    let mut disconnect = Disconnect::new(key, revoke).timeout(call.left()?);
    let purge = call.flag(&PURGE)?;
    if purge {
        disconnect = disconnect.purge();
    }
    let status = call.api.supervisor.call(disconnect).await?;
    if purge {
        match call.api.supervisor.call(Purge::new(key).timeout(call.left()?)).await {
            // Something of the grant is to come. The tombstone says that it is to go then.
            Ok(_) | Err(Error::Unavailable { cause: Cause::InDoubt | Cause::Revoking, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT).generation(status.generation))
}

fn described(key: &TokenKey, status: &Status) -> Answer {
    Answer::json(&StatusBody::of(key, status)).generation(status.generation)
}
