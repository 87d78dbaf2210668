//! The `audit` target: one line for each token that is handed out and each change of a grant, or of all grants at an
//! identity provider, that is asked for.

use super::call::Call;
use crate::model::{Generation, TokenKey, valid_idp_name};

/// What a granted request came to.
#[derive(Clone, Copy)]
pub(super) struct Granted {
    /// Nothing was handed out: the caller has it.
    pub(super) unmodified: bool,
    pub(super) generation: Option<Generation>,
}

/// Tells who asked for what at which identity provider, of whose grant if it is about one, and what came of it: the
/// code of the problem, if it is one. What can be no name is not repeated.
pub(super) fn tell(
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
        caller = call.caller().map_or("-", |caller| caller.name()),
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
