//! The points of an attempt at which tests can look in.

/// The points of an attempt after which a killed process leaves something else behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public for tests alone"))]
pub enum Point {
    /// The provider's slot is granted; nothing is claimed.
    BeforeClaim,
    /// The claim is stored; nothing is sent.
    Claimed,
    /// The response is in memory only.
    Answered,
    /// The response is stored; no reader has seen it.
    Committed,
    /// The response is in the journal; no reader has seen it.
    Journaled,
}
