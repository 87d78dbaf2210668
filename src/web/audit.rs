//! The `audit` target: one line for each token that is handed out and each change of a grant that is asked for.

use super::call::Call;
use crate::model::{Generation, TokenKey};

/// Tells who asked for what, and what came of it.
pub(super) fn tell(
    call: &Call,
    action: &'static str,
    key: &TokenKey,
    outcome: Result<Option<Generation>, &'static str>,
) {
    if !tracing::enabled!(target: "audit", tracing::Level::INFO) {
        return;
    }
    tracing::info!(
        target: "audit",
        caller = call.caller().map_or("-", |caller| caller.name()),
        action,
        idp = key.idp(),
        user = call.api.supervisor.pseudonym(key.user()),
        generation = outcome.ok().flatten().map(Generation::get),
        outcome = outcome.err().unwrap_or("ok"),
        request_id = call.id,
        "grant accessed"
    );
}
