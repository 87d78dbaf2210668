//! Requests that were told to slow down, counted by the bound that they met.

use std::sync::atomic::AtomicU64;

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;

use crate::metrics::count;

/// The bound that a request met, by the names of the metric's label.
#[derive(Clone, Copy, Debug, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Bound {
    RequestsInFlight,
    WaitersPerGrant,
    Mailbox,
}

#[derive(Debug, Default)]
pub(super) struct ShedRequests(pub(super) EnumMap<Bound, AtomicU64>);

impl ShedRequests {
    pub(super) fn count(&self, bound: Bound) {
        count(&self.0[bound]);
    }
}
