//! The counters of one identity provider; they outlive its settings.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;

use crate::{
    idp::Flaw,
    metrics::{Histogram, count},
};

#[derive(Debug, Default)]
pub(in crate::supervisor) struct IdpCounters {
    pub(in crate::supervisor) refreshes: EnumMap<RefreshOutcome, AtomicU64>,
    pub(in crate::supervisor) lost_responses: AtomicU64,
    pub(in crate::supervisor) phases: EnumMap<RefreshPhase, Histogram>,
    /// Responses that could only be read tolerantly.
    pub(in crate::supervisor) tolerated: EnumMap<Flaw, AtomicU64>,
    /// Fields with a value that makes no sense, by their names.
    pub(in crate::supervisor) drift: Mutex<BTreeMap<&'static str, u64>>,
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

    /// Counts a field that differs from what it should be. Returns whether it is the first time.
    pub(in crate::supervisor) fn drifted(&self, field: &'static str) -> bool {
        let mut drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        let count = drift.entry(field).or_default();
        *count += 1;
        *count == 1
    }

    pub(in crate::supervisor) fn took(&self, phase: RefreshPhase, time: Duration) {
        self.phases[phase].record(time);
    }
}
