//! The `audit` target: one line for each token that is handed out and each change of a grant, or of all grants at an
//! identity provider, that is asked for.

use super::{call::Call, response::Granted};
use crate::model::{Generation, TokenKey, valid_idp_name};

/// Writes the line of one token or change: the caller, the action, the identity provider, the user if there is one, and
/// the outcome, which is the code of a problem. Invalid names are left out.
pub(super) fn record(
    call: &Call,
    action: &'static str,
    idp: Option<&str>,
    user: Option<&str>,
    outcome: Result<Granted, &'static str>,
) {
    if !tracing::enabled!(target: "audit", tracing::Level::INFO) {
        return;
    }
    let name = match outcome {
        Ok(Granted { unmodified: true, .. }) => "not_modified",
        Ok(_) => "ok",
        Err(code) => code,
    };
    tracing::info!(
        target: "audit",
        caller = call.principal().name(),
        action,
        idp = idp.filter(|idp| valid_idp_name(idp)),
        user = user.filter(|user| TokenKey::at("any").user(user).validate().is_ok()).map(|user| match call.api.plain_users {
            true => user.to_owned(),
            false => call.api.supervisor.pseudonym(user),
        }),
        generation = outcome.ok().and_then(|granted| granted.generation).map(Generation::get),
        outcome = name,
        request_id = call.id,
        "asked over HTTP"
    );
}
