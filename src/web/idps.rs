//! The identity providers: how they are doing, and what people do about it.

use super::{
    answer::Answer,
    call::Call,
    problem::Problem,
    wire::{IdpBody, Items, Nothing, ReasonBody},
};

/// `GET /v1/idps`: those that the caller's key reaches.
pub(super) async fn list(call: &Call) -> Result<Answer, Problem> {
    let supervisor = &call.api.supervisor;
    let mut idps = supervisor.idps();
    idps.retain(|idp| call.caller().is_none_or(|caller| caller.reaches_idp(&idp.name)));
    Ok(Answer::json(&Items { items: idps.into_iter().map(IdpBody::of).collect() }))
}

/// `POST /v1/idps/{idp}/hold`.
pub(super) async fn hold(call: &Call) -> Result<Answer, Problem> {
    let (idp, ReasonBody { reason }) = (call.idp()?, call.json()?);
    call.api.supervisor.hold_idp(idp, &reason).await?;
    described(call)
}

/// `POST /v1/idps/{idp}/release`.
pub(super) async fn release(call: &Call) -> Result<Answer, Problem> {
    call.json::<Nothing>()?;
    call.api.supervisor.release_idp(call.idp()?).await?;
    described(call)
}

/// `POST /v1/idps/{idp}/probe`.
pub(super) async fn probe(call: &Call) -> Result<Answer, Problem> {
    call.json::<Nothing>()?;
    call.api.supervisor.probe_idp(call.idp()?)?;
    described(call)
}

fn described(call: &Call) -> Result<Answer, Problem> {
    let (idp, supervisor) = (call.idp()?, &call.api.supervisor);
    let status = supervisor.idps().into_iter().find(|status| status.name == idp).ok_or(crate::Error::UnknownIdp)?;
    Ok(Answer::json(&IdpBody::of(status)))
}
