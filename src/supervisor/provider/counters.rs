//! The counters of one identity provider; they outlive its settings.

use std::{sync::atomic::AtomicU64, time::Duration};

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;

use crate::metrics::{Histogram, count};

#[derive(Debug, Default)]
pub(in crate::supervisor) struct IdpCounters {
    pub(in crate::supervisor) refreshes: EnumMap<RefreshOutcome, AtomicU64>,
    pub(in crate::supervisor) lost_responses: AtomicU64,
    pub(in crate::supervisor) phases: EnumMap<RefreshPhase, Histogram>,
}

/// The result of a refresh, by the names of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(in crate::supervisor) enum RefreshOutcome {
    /// The response brought another refresh token.
    Rotated,
    /// The response brought no refresh token, or the same one.
    Kept,
    /// Another process had stored a newer token.
    Adopted,
    /// Another process refreshed at the same time.
    Race,
    /// Only the user's consent helps.
    User,
    /// The provider refused the client or its settings.
    Operator,
    Throttled,
    Transient,
    InDoubt,
}

/// The phases of a refresh, by the names of the metric's label.
#[derive(Clone, Copy, Debug, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(in crate::supervisor) enum RefreshPhase {
    Gate,
    Claim,
    Idp,
    Seal,
    Commit,
}

impl IdpCounters {
    pub(in crate::supervisor) fn refreshed(&self, outcome: RefreshOutcome) {
        count(&self.refreshes[outcome]);
    }

    pub(in crate::supervisor) fn took(&self, phase: RefreshPhase, time: Duration) {
        self.phases[phase].record(time);
    }
}
