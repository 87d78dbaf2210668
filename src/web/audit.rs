//! The `audit` target: one line for each token that is handed out and each change of a grant, or of all grants at an
//! identity provider, that is asked for.

use std::borrow::Cow;

use super::{call::Call, response::Granted};
use crate::{
    Error, Status,
    model::{Generation, TokenKey, valid_idp_name, valid_user_name},
};

/// The name of the events of the target `audit` that are about a token, handed out or refused; those of changes have other
/// names. A subscriber may keep such lines for a moment, to write many at once.
pub const TOKEN_LINE: &str = "audit.token";
/// The name of the events that are about a change.
const CHANGE_LINE: &str = "audit.change";

/// Writes the line of one grant of many that a request changes.
pub(super) fn record_ended(call: &Call, action: &'static str, key: &TokenKey, ended: &Result<Status, Error>) {
    let outcome = ended.as_ref().map(|status| Granted { unmodified: false, generation: Some(status.generation) });
    let grant_id = ended.as_ref().ok().map(|status| status.grant_id.as_str());
    record(call, action, (Some(key.idp()), Some(key.user())), grant_id, outcome.map_err(Error::code));
}

/// Writes the line of one token or change: the caller, the action, the identity provider, the user if there is one, and
/// the outcome, which is the code of a problem. Invalid names are left out.
pub(super) fn record(
    call: &Call,
    action: &'static str,
    (idp, user): (Option<&str>, Option<&str>),
    grant_id: Option<&str>,
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
    let user = user.filter(|user| valid_user_name(user)).map(|user| match call.api.plain_users {
        true => Cow::Borrowed(user),
        false => Cow::Owned(call.api.supervisor.pseudonym(user)),
    });
    macro_rules! line {
        ($name:expr) => {
            tracing::info!(
                name: $name,
                target: "audit",
                caller = call.principal().name(),
                action,
                idp = idp.filter(|idp| valid_idp_name(idp)),
                user = user.as_deref(),
                generation = outcome.ok().and_then(|granted| granted.generation).map(Generation::get),
                outcome = name,
                grant.id = grant_id.filter(|id| !id.is_empty()),
                request_id = call.id,
                trace_id = call.trace_id,
                "asked over HTTP"
            )
        };
    }
    if HANDS_OUT.contains(&action) { line!(TOKEN_LINE) } else { line!(CHANGE_LINE) }
}

/// The actions that hand out tokens and change nothing.
const HANDS_OUT: [&str; 2] = ["token", "authorize"];
