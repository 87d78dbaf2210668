//! Why an attempt brought no access token.

use serde::{Deserialize, Serialize};

use crate::{error::Cause, model::Evidence};

/// The failure of an attempt, and what it means for callers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct AttemptFault {
    pub(crate) evidence: Evidence,
    pub(crate) cause: Cause,
}
