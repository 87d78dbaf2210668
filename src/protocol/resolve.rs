//! What becomes of a response whose commit finds that the row has changed.

use super::Commit;
use crate::model::{Row, VerdictBy};

/// The place of a response. The first case that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Resolution {
    /// It is in the row: through this commit, an earlier try of it, or another response with the same token.
    Own,
    /// It belongs to a grant that no longer exists (another incarnation or a tombstone): its token is to be revoked.
    Revoke,
    /// It belongs to a grant that no longer exists, and the identity provider cannot revoke it alone.
    Drop,
    /// It succeeds the row's token, or is the later of two responses to the same parent: it replaces the row's token.
    Replace,
    /// It is another response to the same parent, and which of the two is valid is not known yet.
    Alt,
    /// The row holds a newer token.
    MovedOn,
}

/// Returns the place of a response in a row that did not accept the commit.
pub(crate) fn resolve(row: &Row, commit: &Commit) -> Resolution {
    if row.commit.is_some_and(|by| by.attempt == commit.attempt) {
        return Resolution::Own;
    }
    if row.incarnation != commit.incarnation {
        return if commit.revocable { Resolution::Revoke } else { Resolution::Drop };
    }
    if row.tombstone.is_some() {
        return Resolution::Revoke;
    }
    let holds = |fingerprint| row.refresh_token.as_ref().is_some_and(|token| token.fingerprint == fingerprint);
    let row_is_being_spent = row.intent.as_ref().is_some_and(|intent| intent.generation == row.generation);
    if commit.token.is_some() && holds(commit.parent) && !holds(commit.child()) {
        // The row's generation grew without a new refresh token (a connect without one, or a store that lost writes and
        // was raised): the row's token is spent, and this is its successor, unless a later one was seen.
        let later_one_seen = row_is_being_spent && row.generation > commit.generation.next();
        return if later_one_seen { Resolution::MovedOn } else { Resolution::Replace };
    }
    if row.parent != Some(commit.parent) || commit.token.is_none() {
        return Resolution::MovedOn;
    }
    if holds(commit.child()) {
        return Resolution::Own;
    }
    let refused = row.verdict.as_ref().is_some_and(|verdict| verdict.by != VerdictBy::Application);
    if row.commit.is_none_or(|by| commit.epoch > by.epoch) && (refused || !row_is_being_spent) {
        return Resolution::Replace;
    }
    if row.alt.as_ref().is_some_and(|alt| alt.by.epoch > commit.epoch) {
        return Resolution::MovedOn;
    }
    Resolution::Alt
}
