//! One grant: its state, and every change of it.

use std::{pin::pin, time::Duration};

use actix_web::http::{StatusCode, header::IfNoneMatch};
use futures_util::future::{Either, select};
use serde::de::DeserializeOwned;

use super::{
    call::{AT_A_GLANCE, Call},
    etag,
    parameters::{PURGE, REVOKE},
    problem::Problem,
    response::ApiResponse,
};
use crate::{
    Cause, Command, Connect, Disconnect, Error, Generation, GetStatus, Hold, Purge, RefreshNow, RejectToken, Release,
    RequireReconnect, Restore, Retry, Revocation, Revoke, State, Status, TokenKey,
    api::{EmptyBody, OwnMembers, ReasonBody, RefreshedBody, RejectedBody, StatusBody},
};

/// Carries out the command that follows from the body and the time that is left, and responds with the grant's status.
async fn change<B: DeserializeOwned, C: Command<Answer = Status>>(
    call: &Call,
    command: impl FnOnce(&TokenKey, B, Duration) -> C,
) -> Result<ApiResponse, Problem> {
    let key = call.key()?;
    let command = command(key, call.json()?, call.left());
    Ok(described(key, &call.api.supervisor.call(command).await?))
}

fn described(key: &TokenKey, status: &Status) -> ApiResponse {
    ApiResponse::json(&StatusBody::of(key, status)).about(&status.grant_id, status.generation)
}

/// `POST .../reconnect`.
pub(super) async fn reconnect(call: &Call) -> Result<ApiResponse, Problem> {
    change(call, |key, ReasonBody { reason }, left| RequireReconnect::new(key, reason).timeout(left)).await
}

/// `POST .../hold`.
pub(super) async fn hold(call: &Call) -> Result<ApiResponse, Problem> {
    change(call, |key, ReasonBody { reason }, left| Hold::new(key, reason).timeout(left)).await
}

/// `POST .../release`.
pub(super) async fn release(call: &Call) -> Result<ApiResponse, Problem> {
    change(call, |key, EmptyBody {}, left| Release::new(key).timeout(left)).await
}

/// `POST .../restore`.
pub(super) async fn restore(call: &Call) -> Result<ApiResponse, Problem> {
    let (key, supervisor) = (call.key()?, &call.api.supervisor);
    call.json::<EmptyBody>()?;
    let before = revocation(call, key).await;
    let status = supervisor.call(Restore::new(key).timeout(call.left())).await.map_err(|error| match error {
        Error::NotConnected => Problem::not_connected(Revocation::refusal(before)),
        error => error.into(),
    })?;
    let body = StatusBody::of(key, &status).with_revocation(before.map(Revocation::after_restore));
    Ok(ApiResponse::json(&body).about(&status.grant_id, status.generation))
}

/// `POST .../retry`.
pub(super) async fn retry(call: &Call) -> Result<ApiResponse, Problem> {
    change(call, |key, EmptyBody {}, left| Retry::new(key).timeout(left)).await
}

/// `POST .../purge`.
pub(super) async fn purge(call: &Call) -> Result<ApiResponse, Problem> {
    let (key, supervisor) = (call.key()?, &call.api.supervisor);
    call.json::<EmptyBody>()?;
    // A grant can be purged although its identity provider is no longer configured.
    let before = status_of(call).await?;
    if before.state == State::Absent {
        let known = supervisor.idps().iter().any(|idp| idp.name == key.idp());
        return Err(if known { Error::NotConnected } else { Error::UnknownIdp }.into());
    }
    let purged = change(call, |key, EmptyBody {}, left| Purge::new(key).timeout(left)).await?;
    Ok(purged.of_grant(&before.grant_id))
}

async fn status_of(call: &Call) -> Result<Status, Problem> {
    Ok(call.api.supervisor.call(GetStatus::new(call.key()?).timeout(call.left())).await?)
}

/// How far the revocation of a disconnected grant is, if the store says so in time.
async fn revocation(call: &Call, key: &TokenKey) -> Option<Revocation> {
    let supervisor = &call.api.supervisor;
    let deadline = supervisor.clock().sleep(call.left().min(AT_A_GLANCE));
    match select(pin!(supervisor.revocation(key)), pin!(deadline)).await {
        Either::Left((revocation, _)) => revocation.ok().flatten(),
        Either::Right(_) => None,
    }
}

/// `GET .../{user}`: the state of the grant.
pub(super) async fn status(call: &Call) -> Result<ApiResponse, Problem> {
    let (key, status) = (call.key()?, status_of(call).await?);
    if status.state == State::Absent {
        return Err(Error::NotConnected.into());
    }
    let revocation = if status.state == State::Revoked { revocation(call, key).await } else { None };
    let user_hash = call.api.supervisor.pseudonym(key.user());
    let body = StatusBody::of(key, &status).with_revocation(revocation).with_user_hash(user_hash);
    Ok(ApiResponse::json(&body).about(&status.grant_id, status.generation))
}

/// Responds with the status of a grant that is not absent.
fn connected(key: &TokenKey, status: &Status) -> Result<ApiResponse, Problem> {
    if status.state == State::Absent { Err(Error::NotConnected.into()) } else { Ok(described(key, status)) }
}

/// `PUT .../{user}`: stores the tokens from the user's consent.
pub(super) async fn connect(call: &Call) -> Result<ApiResponse, Problem> {
    let (key, supervisor) = (call.key()?, &call.api.supervisor);
    let own: OwnMembers<'_> = call.json()?;
    let read = supervisor.grant_from_response(key.idp(), call.body())?;
    let grant = own.complete(read).map_err(Problem::invalid)?;
    let connect = expecting(call, Connect::new(key, grant))?;
    // Decides between 200 and 201 alone: another caller may connect in between.
    let before = status_of(call).await?;
    let status = supervisor.call(connect.timeout(call.left())).await?;
    let created = status.unchanged.is_none() && matches!(before.state, State::Absent | State::Revoked);
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(described(key, &status).status(code))
}

/// Adds the preconditions of the request (RFC 9110, section 13.1).
fn expecting(call: &Call, connect: Connect) -> Result<Connect, Problem> {
    match (call.if_none_match(), call.if_match()?) {
        (None, None) => Ok(connect),
        (Some(IfNoneMatch::Any), None) => Ok(connect.only_if_absent()),
        (None, Some(tag)) => match etag::generation(&tag) {
            Some(generation) => Ok(connect.only_if(generation)),
            None => Err(Problem::invalid("If-Match must be one entity tag such as \"g41\"")),
        },
        (Some(_), None) => Err(Problem::invalid("If-None-Match must be * here")),
        (Some(_), Some(_)) => Err(Problem::invalid("give If-Match or If-None-Match, not both")),
    }
}

/// `POST .../refresh`.
pub(super) async fn refresh(call: &Call) -> Result<ApiResponse, Problem> {
    let key = call.key()?;
    call.json::<EmptyBody>()?;
    let refreshed = call.api.supervisor.call(RefreshNow::new(key).timeout(call.left())).await?;
    let status = &refreshed.status;
    Ok(ApiResponse::json(&RefreshedBody::of(key, &refreshed)).about(&status.grant_id, status.generation))
}

/// `POST .../rejected`.
pub(super) async fn rejected(call: &Call) -> Result<ApiResponse, Problem> {
    let key = call.key()?;
    let rejected = match call.json()? {
        RejectedBody { generation: Some(generation), access_token: None } => {
            RejectToken::new(key, Generation(generation.0))
        }
        RejectedBody { generation: None, access_token: Some(token) } => RejectToken::token(key, &token),
        _ => return Err(Problem::invalid("name the refused token: give generation or access_token")),
    };
    connected(key, &call.api.supervisor.call(rejected.timeout(call.left())).await?)
}

/// `DELETE .../{user}`.
pub(super) async fn disconnect(call: &Call) -> Result<ApiResponse, Problem> {
    let (key, supervisor) = (call.key()?, &call.api.supervisor);
    call.json::<EmptyBody>()?;
    let revoke = if call.flag(&REVOKE) { Revoke::Yes } else { Revoke::No };
    let mut disconnect = Disconnect::new(key, revoke).timeout(call.left());
    let purge = call.flag(&PURGE);
    if purge {
        disconnect = disconnect.purge();
    }
    let status = supervisor.call(disconnect).await?;
    if purge {
        match supervisor.call(Purge::new(key).timeout(call.left())).await {
            // A refresh or a revocation is pending. The tombstone records that it is to be deleted afterwards.
            Ok(_) | Err(Error::Unavailable { cause: Cause::InDoubt | Cause::Revoking, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ApiResponse::empty(StatusCode::NO_CONTENT).about(&status.grant_id, status.generation))
}
