//! State that the server's thread and the test share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{
    Profile,
    family::{FamilyLedger, Ticket},
    fault::{Fault, Faults},
};
use crate::{
    clock::{Clock, Reading},
    model::{Id, WallTime},
};

pub(super) struct IdpShared {
    pub(super) profile: Profile,
    pub(super) clock: Clock,
    started: Reading,
    /// Hanging requests subscribe to it.
    pub(super) released: watch::Sender<HangRelease>,
    state: Mutex<IdpState>,
}

/// Which hanging requests go on or are dropped, by the number of tokens presented before them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HangRelease {
    /// Requests below this number go on.
    pub(super) go: usize,
    /// Requests below this number are dropped. It is kept, because a slow subscriber sees only the latest value.
    pub(super) abandoned: usize,
}

pub(super) struct IdpState {
    pub(super) ledger: FamilyLedger,
    pub(super) faults: Faults,
    /// Complete POSTs to the token endpoint.
    pub(super) requests: u64,
    /// Complete POSTs to the revocation endpoint.
    pub(super) revocations: u64,
    /// The status with which the revocation endpoint responds instead of revoking.
    pub(super) revocation_status: Option<u16>,
    /// Complete POSTs to the introspection endpoint.
    pub(super) introspections: u64,
    /// The status with which the introspection endpoint responds instead of an answer.
    pub(super) introspection_status: Option<u16>,
}

impl IdpShared {
    pub(super) fn new(profile: Profile, clock: Clock) -> Self {
        // Two servers in one test must not issue the same tokens.
        let seed = Id::random().0.iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte));
        let state = IdpState {
            ledger: FamilyLedger::new(&profile, seed),
            faults: Faults::default(),
            requests: 0,
            revocations: 0,
            revocation_status: None,
            introspections: 0,
            introspection_status: None,
        };
        let (started, (released, _)) = (clock.read(), watch::channel(HangRelease::default()));
        Self { profile, clock, started, released, state: Mutex::new(state) }
    }

    /// Returns the time of the provider's own wall clock, which does not follow steps of ours.
    pub(super) fn now(&self) -> WallTime {
        self.started.wall + self.clock.read().boot.since(self.started.boot)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, IdpState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a complete request and logs the refresh token it presents.
    pub(super) fn arrived(
        &self,
        refresh_token: Option<&str>,
        query: Option<&str>,
        fault: Option<&Fault>,
    ) -> Option<Ticket> {
        let now = self.now();
        let mut state = self.lock();
        state.requests += 1;
        let ticket = refresh_token.map(|token| state.ledger.arrived(token, fault, now));
        if let Some((ticket, query)) = ticket.zip(query) {
            state.ledger.came_with(ticket, query);
        }
        ticket
    }

    /// Logs that the whole response was handed to the connection.
    pub(super) fn answered(&self, ticket: Ticket) {
        let now = self.now();
        self.lock().ledger.answered(ticket, now);
    }
}
