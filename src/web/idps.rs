//! The identity providers: their state, and what operators do about it.

use super::{
    audit,
    call::Call,
    problem::Problem,
    response::{ApiResponse, Granted},
};
use crate::{
    Error, Status, TokenKey,
    api::{AdoptedBody, EmptyBody, IdpBody, IdpsBody, ReasonBody, ReplicasBody, RetriedBody},
    apikey::ApiKey,
};

/// `GET /v1/idps`: the providers that the caller's key reaches.
pub(super) async fn list(call: &Call) -> Result<ApiResponse, Problem> {
    let supervisor = &call.api.supervisor;
    let mut idps = supervisor.idps();
    idps.retain(|idp| call.principal().reaches_idp(&idp.name));
    Ok(ApiResponse::json(&IdpsBody::of(idps)))
}

/// `POST /v1/idps/{idp}/hold`.
pub(super) async fn hold(call: &Call) -> Result<ApiResponse, Problem> {
    let (idp, ReasonBody { reason }) = (call.idp()?, call.json()?);
    call.api.supervisor.hold_idp(idp, &reason).await?;
    described(call)
}

/// `POST /v1/idps/{idp}/release`.
pub(super) async fn release(call: &Call) -> Result<ApiResponse, Problem> {
    call.json::<EmptyBody>()?;
    call.api.supervisor.release_idp(call.idp()?).await?;
    described(call)
}

/// `POST /v1/idps/{idp}/probe`.
pub(super) async fn probe(call: &Call) -> Result<ApiResponse, Problem> {
    call.json::<EmptyBody>()?;
    call.api.supervisor.probe_idp(call.idp()?)?;
    described(call)
}

/// `POST /v1/idps/{idp}/retry`.
pub(super) async fn retry(call: &Call) -> Result<ApiResponse, Problem> {
    call.json::<EmptyBody>()?;
    let idp = call.idp()?;
    let record = |key: &TokenKey, ended: &Result<Status, Error>| {
        audit::record_ended(call, "retry", key, ended);
    };
    let retried = call.api.supervisor.retry_refused(idp, record).await?;
    Ok(ApiResponse::json(&RetriedBody::from(retried)))
}

/// `POST /v1/adopt`: by callers that reach all grants.
pub(super) async fn adopt(call: &Call) -> Result<ApiResponse, Problem> {
    call.json::<EmptyBody>()?;
    if call.principal().key().is_some_and(ApiKey::is_limited) {
        return Err(Problem::forbidden("the store has all grants, and the API key is limited to some of them"));
    }
    let from = call.api.supervisor.adopt().await?;
    // Of one without a provider nobody else writes the line.
    audit::record(call, "adopt", (None, None), None, Ok(Granted { unmodified: false, generation: None }));
    Ok(ApiResponse::json(&AdoptedBody::new(from)))
}

/// `GET /v1/replicas`.
pub(super) async fn replicas(call: &Call) -> Result<ApiResponse, Problem> {
    Ok(ApiResponse::json(&ReplicasBody::of(call.api.supervisor.replicas().await?)))
}

fn described(call: &Call) -> Result<ApiResponse, Problem> {
    let (idp, supervisor) = (call.idp()?, &call.api.supervisor);
    let status = supervisor.idps().into_iter().find(|status| status.name == idp).ok_or(Error::UnknownIdp)?;
    Ok(ApiResponse::json(&IdpBody::from(status)))
}
