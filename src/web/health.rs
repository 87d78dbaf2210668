//! Whether the process lives, and whether it should be asked. No user data.

use std::sync::OnceLock;

use actix_web::{http::StatusCode, web::Bytes};
use serde::Serialize;

use super::{
    answer::{Answer, line},
    call::Call,
    openapi,
    problem::Problem,
    routes::STRICT,
};
use crate::Cause;

/// `GET /livez`: it answers.
pub(super) async fn livez(_: &Call) -> Result<Answer, Problem> {
    Ok(Answer::json(&Health { status: "ok", degraded: Vec::new() }))
}

/// `GET /readyz`: valid tokens can be served.
pub(super) async fn readyz(call: &Call) -> Result<Answer, Problem> {
    call.api.watch();
    let degraded = degraded(call);
    if call.api.is_draining() || call.flag(&STRICT)? && !degraded.is_empty() {
        let status = if call.api.is_draining() { "draining" } else { "degraded" };
        return Ok(Answer::json(&Health { status, degraded }).status(StatusCode::SERVICE_UNAVAILABLE));
    }
    Ok(Answer::json(&Health { status: "ok", degraded }))
}

/// `GET /openapi.json`.
pub(super) async fn openapi(_: &Call) -> Result<Answer, Problem> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| line(&openapi::document()).into());
    Ok(Answer::text("application/json", document.clone()))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    degraded: Vec<String>,
}

fn degraded(call: &Call) -> Vec<String> {
    let supervisor = &call.api.supervisor;
    let stopped = supervisor.idps().into_iter().flat_map(|idp| {
        let held = idp.held.is_some().then_some(Cause::IdpHeld);
        held.into_iter().chain(idp.paused).map(move |cause| format!("{cause}:{}", idp.name))
    });
    let journal = (supervisor.journal_pending() > 0).then(|| "journal".to_owned());
    let store = supervisor.is_store_down().then(|| "store_down".to_owned());
    store.into_iter().chain(journal).chain(stopped).collect()
}
