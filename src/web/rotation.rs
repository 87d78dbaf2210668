//! The keys that seal stored values: by callers that reach all grants.

use super::{
    audit,
    call::Call,
    problem::Problem,
    response::{ApiResponse, Granted},
};
use crate::{
    api::{KeysBody, ReplicaBody, ResealBody, ResealedBody},
    apikey::ApiKey,
};

/// `GET /v1/keys`.
pub(super) async fn list(call: &Call) -> Result<ApiResponse, Problem> {
    check_reach(call)?;
    let supervisor = &call.api.supervisor;
    let replicas = supervisor.replicas().await?.into_iter().map(ReplicaBody::from).collect();
    Ok(ApiResponse::json(&KeysBody::new(supervisor.keys().await?, replicas)))
}

/// `POST /v1/keys/reseal`. A run, which is many requests, is one line of the audit.
pub(super) async fn reseal(call: &Call) -> Result<ApiResponse, Problem> {
    check_reach(call)?;
    if call.body().is_empty() {
        return Err(Problem::invalid("the body is missing: begin with {}"));
    }
    let ResealBody { after } = call.json()?;
    let step = call.api.supervisor.reseal(after.map(|after| after.0)).await?;
    if after.is_none() {
        audit::record(call, "reseal", (None, None), None, Ok(Granted { unmodified: false, generation: None }));
    }
    Ok(ApiResponse::json(&ResealedBody::from(step)))
}

fn check_reach(call: &Call) -> Result<(), Problem> {
    match call.principal().key().is_some_and(ApiKey::is_limited) {
        true => Err(Problem::forbidden("the keys seal all grants, and the API key is limited to some of them")),
        false => Ok(()),
    }
}
