//! Reasons for which the simulated provider refuses a refresh token.

/// The reason for which a refresh token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Reused,
    Superseded,
    FamilyDead,
    Ended,
    Revoked,
}
