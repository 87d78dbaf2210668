//! The `audit` target: one line for each token that is handed out and each change of a grant, or of all grants at an
//! identity provider, that is asked for.

use super::{call::Call, problem::Problem};
use crate::model::{Generation, TokenKey};

/// What a granted request came to.
#[derive(Clone, Copy)]
pub(super) struct Granted {
    /// Nothing was handed out: the caller has it.
    pub(super) unmodified: bool,
    pub(super) generation: Option<Generation>,
}

/// Tells who asked for what at which identity provider, of which grant if it is about one, and what came of it.
pub(super) fn tell(
    call: &Call,
    action: &'static str,
    idp: &str,
    key: Option<&TokenKey>,
    outcome: Result<Granted, &Problem>,
) {
    if !tracing::enabled!(target: "audit", tracing::Level::INFO) {
        return;
    }
    let name = match outcome {
        Ok(Granted { unmodified: true, .. }) => "not_modified",
        Ok(_) => "ok",
        Err(problem) => problem.code(),
    };
    tracing::info!(
        target: "audit",
        caller = call.caller().map_or("-", |caller| caller.name()),
        action,
        idp,
        user = key.map(|key| match call.api.plain_users {
            true => key.user().to_owned(),
            false => call.api.supervisor.pseudonym(key.user()),
        }),
        generation = outcome.ok().and_then(|granted| granted.generation).map(Generation::get),
        outcome = name,
        request_id = call.id,
        "asked over HTTP"
    );
}
