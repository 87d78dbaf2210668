//! What can be said about a grant without its tokens.

use std::time::SystemTime;

use super::core::Core;
use crate::{
    model::{Evidence, Expires, Expiry, Generation, Row, State, StoreTime, TokenKey},
    protocol::Unchanged,
};

/// The state of one grant. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Its short public name for logs and people, such as `g_7hq2zk3pwm`; empty if absent.
    pub grant_id: String,
    /// The number of its stored grants.
    pub generation: Generation,
    /// Why nothing is sent for it until people release it, if so.
    pub held: Option<String>,
    /// When its access token ends.
    pub expiry: Expiry,
    /// When its refresh token ends.
    pub refresh_expiry: Expiry,
    /// When the next refresh should start, if one is to: none does while the grant or its identity provider is held, nor
    /// while a doubt lasts, which has no set end.
    pub next_refresh_at: Option<SystemTime>,
    /// The code of the last failure, if the last refresh failed.
    pub last_error: Option<String>,
    /// Why the user must go through consent again, if so: the identity provider's code, or ours.
    pub reason: Option<String>,
    /// What the identity provider said, or our own finding: the reason, else the last failure.
    pub evidence: Option<Evidence>,
    /// Since when refreshes fail, if the last one did.
    pub failing_since: Option<SystemTime>,
    /// Since when it is in this state.
    pub since: Option<SystemTime>,
    /// Why a connect changed nothing, if this answers one that did not.
    pub unchanged: Option<Unchanged>,
}

impl Status {
    fn of(row: Option<&Row>, now: StoreTime, unchanged: Option<Unchanged>) -> Self {
        let Some(row) = row else {
            return Self {
                state: State::Absent,
                grant_id: String::new(),
                generation: Generation(0),
                held: None,
                expiry: Expiry::Unknown,
                refresh_expiry: Expiry::Unknown,
                next_refresh_at: None,
                last_error: None,
                reason: None,
                evidence: None,
                failing_since: None,
                since: None,
                unchanged,
            };
        };
        let live = row.tombstone.is_none();
        // Nothing is tried for what is disconnected.
        let (verdict, error) = (row.verdict.as_ref(), row.last_error.as_ref().filter(|_| live));
        Self {
            state: row.state(now),
            grant_id: row.grant_id.clone(),
            generation: row.generation,
            held: row.held.clone(),
            expiry: public(row.expires),
            refresh_expiry: public(row.refresh_expires),
            next_refresh_at: row
                .due_at
                .max(row.retry_at)
                .filter(|_| row.sendable() && row.intent.is_none())
                .map(SystemTime::from),
            last_error: error.map(|error| error.evidence.code.clone()),
            reason: verdict.map(|verdict| verdict.evidence.code.clone()),
            evidence: verdict.map(|verdict| &verdict.evidence).or(error.map(|error| &error.evidence)).cloned(),
            failing_since: error.map(|error| error.since().into()),
            since: Some(verdict.map_or(row.changed_at, |verdict| verdict.since).into()),
            unchanged,
        }
    }
}

impl Core {
    /// The status of a key with this row, which may be from before a refresh that runs here.
    pub(super) fn status(
        &self,
        key: &TokenKey,
        row: Option<&Row>,
        now: StoreTime,
        unchanged: Option<Unchanged>,
    ) -> Status {
        let mut status = Status::of(row, now, unchanged);
        let runs = self.attempts.sent(key) == Some(status.generation);
        if runs && matches!(status.state, State::Fresh | State::Due | State::Backoff | State::InDoubt) {
            (status.state, status.next_refresh_at) = (State::Refreshing, None);
        }
        if self.provider(key.idp()).is_none() || self.idp_held(key.idp()).is_some() {
            status.next_refresh_at = None;
        }
        status
    }
}

fn public(expires: Expires) -> Expiry {
    match expires {
        Expires::At(time) => Expiry::At(time.into()),
        Expires::Never => Expiry::Never,
        Expires::Unknown => Expiry::Unknown,
    }
}
