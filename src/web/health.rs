//! Whether the process lives, and whether it is ready. No user data.

use actix_web::http::StatusCode;

use super::{call::Call, parameters::STRICT, problem::Problem, response::ApiResponse};
use crate::{Cause, api::HealthBody};

/// `GET /livez`: the process responds.
pub(super) async fn livez(_: &Call) -> Result<ApiResponse, Problem> {
    Ok(ApiResponse::json(&HealthBody::new("ok", Vec::new())))
}

/// `GET /readyz`: whether valid tokens can be served.
pub(super) async fn readyz(call: &Call) -> Result<ApiResponse, Problem> {
    call.api.watch();
    let degraded = degraded(call);
    if call.api.is_draining() || call.flag(&STRICT) && !degraded.is_empty() {
        let status = if call.api.is_draining() { "draining" } else { "degraded" };
        return Ok(ApiResponse::json(&HealthBody::new(status, degraded)).status(StatusCode::SERVICE_UNAVAILABLE));
    }
    Ok(ApiResponse::json(&HealthBody::new("ok", degraded)))
}

fn degraded(call: &Call) -> Vec<String> {
    let supervisor = &call.api.supervisor;
    let stopped = supervisor.idps().into_iter().flat_map(|idp| {
        let held = idp.held.is_some().then_some(Cause::IdpHeld);
        held.into_iter().chain(idp.paused).map(move |cause| format!("{cause}:{}", idp.name))
    });
    let journal = (supervisor.journal_pending() > 0).then(|| "journal".to_owned());
    let store = supervisor.is_store_down().then(|| Cause::StoreDown.to_string());
    let cut_off = supervisor.is_cut_off().then(|| "cut_off".to_owned());
    let disk = supervisor.is_disk_full().then(|| Cause::DiskFull.to_string());
    let damaged = (!supervisor.damaged_journals().is_empty()).then(|| "journal_damaged".to_owned());
    let unreadable = (supervisor.unreadable_rows() > 0).then(|| "unreadable_rows".to_owned());
    store
        .into_iter()
        .chain(cut_off)
        .chain(disk)
        .chain(unreadable)
        .chain(journal)
        .chain(damaged)
        .chain(stopped)
        .collect()
}
