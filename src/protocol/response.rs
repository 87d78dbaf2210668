//! A response as a change of the row.

use serde::{Deserialize, Serialize};

use super::fault::AttemptFault;
use crate::model::{Attempted, Evidence, Expires, Fingerprint, Generation, Id, Sealed, Spendable, VerdictBy, WallTime};

/// A sealed response, with the claim that it belongs to. The journal stores this too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) attempt: Id,
    pub(crate) epoch: u64,
    pub(crate) incarnation: Id,
    /// The generation that was claimed.
    pub(crate) generation: Generation,
    /// The refresh token that was spent.
    pub(crate) parent: Fingerprint,
    /// The new refresh token; `None` keeps the old one.
    pub(crate) token: Option<Spendable>,
    pub(crate) document: Sealed,
    pub(crate) issued_at: WallTime,
    pub(crate) expires: Expires,
    /// `None` keeps the row's.
    pub(crate) refresh_expires: Option<Expires>,
    pub(crate) due_at: Option<WallTime>,
    /// Whether the identity provider can revoke this token's family without the user's other families.
    pub(crate) revocable: bool,
    /// Why the response has a new refresh token and no valid access token: the row keeps the access token that it had, as
    /// long as that is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unfinished: Option<Box<Unfinished>>,
}

/// What is to be tried again after a response without a valid access token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    pub(crate) fault: AttemptFault,
    pub(crate) retry_at: WallTime,
}

/// A response that brought no token for this grant, with the claim that it belongs to. A retry would not help.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Refuse {
    pub(crate) attempt: Id,
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    pub(crate) evidence: Evidence,
    /// Whether the token was refused (`Idp`: `invalid_grant`) or spent for another subject (`Subject`).
    pub(crate) by: VerdictBy,
}

impl Commit {
    /// Returns the fingerprint of the refresh token that is current after this response.
    pub(crate) fn child(&self) -> Fingerprint {
        self.token.as_ref().map_or(self.parent, |token| token.fingerprint)
    }

    pub(super) fn by(&self) -> Attempted {
        Attempted { attempt: self.attempt, epoch: self.epoch }
    }
}
