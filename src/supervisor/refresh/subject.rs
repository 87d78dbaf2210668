//! Whose grant it is: another subject is never mixed into it.

use super::seal;
use crate::{idp::TokenResponse, model::Row, supervisor::core::Core};

/// Whether an answer belongs to another user of the identity provider than the grant. Where either is not known
/// it does not.
pub(super) fn is_foreign(core: &Core, row: &Row, answer: &TokenResponse) -> bool {
    let Some(subject) = &answer.subject else { return false };
    let foreign = seal::subject(&core.keyring, row).is_some_and(|known| known != *subject);
    if foreign {
        // Neither stored nor revoked: they are somebody else's.
        tracing::error!(
            grant.id = row.grant_id,
            idp = row.key.idp(),
            "a refresh was answered with tokens of another subject: they are dropped, and the user must reconnect"
        );
    }
    foreign
}
