//! The status of a grant, without its tokens.

use std::time::SystemTime;

use crate::{
    model::{Evidence, Expires, Expiry, Generation, Row, State, StoreTime, Warning},
    protocol::Unchanged,
};

/// The status of one grant. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The state of the grant.
    pub state: State,
    /// The short public name of the grant for logs and support, such as `g_7hq2zk3pwm`; empty if absent.
    pub grant_id: String,
    /// The number of grants that were stored for the key so far.
    pub generation: Generation,
    /// Why the grant is on hold, if it is: nothing is sent for it until an operator releases it.
    pub held: Option<String>,
    /// When the access token expires.
    pub expiry: Expiry,
    /// When the refresh token expires.
    pub refresh_expiry: Expiry,
    /// When the next refresh is due; `None` while the grant or its identity provider is on hold, and while the grant is in
    /// doubt, which has no set end.
    pub next_refresh_at: Option<SystemTime>,
    /// The error code of the last refresh, if it failed.
    pub last_error: Option<String>,
    /// Why the user must go through consent again, if so: the identity provider's error code, or ours.
    pub reason: Option<String>,
    /// The evidence for `reason`, else for `last_error`: what the identity provider said, or our own finding.
    pub evidence: Option<Evidence>,
    /// What will need the user although nothing is wrong now: [`Warning::NoRefreshToken`].
    pub warning: Option<Warning>,
    /// Since when refreshes fail, if the last one failed.
    pub failing_since: Option<SystemTime>,
    /// Since when the grant is in this state.
    pub since: Option<SystemTime>,
    /// Why a connect changed nothing, if this is the result of one that did not.
    pub unchanged: Option<Unchanged>,
}

impl Status {
    /// Returns the status of a key with this row, as far as the row says.
    pub(super) fn of(row: Option<&Row>, now: StoreTime, unchanged: Option<Unchanged>) -> Self {
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
                warning: None,
                failing_since: None,
                since: None,
                unchanged,
            };
        };
        let live = row.tombstone.is_none();
        // A disconnected grant is not refreshed any more.
        let (required, error) = (row.required(now.by_wall_clock()), row.last_error.as_ref().filter(|_| live));
        let (reason, required_since) = required.map(|(evidence, since)| (evidence.into_owned(), since)).unzip();
        let alone = live && row.refresh_token.is_none() && reason.is_none();
        let state = row.state(now);
        Self {
            state,
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
            reason: reason.as_ref().map(|evidence| evidence.code.clone()),
            evidence: reason.or(error.map(|error| error.evidence.clone())),
            warning: alone.then_some(Warning::NoRefreshToken),
            failing_since: error.map(|error| error.since().into()),
            since: Some(required_since.unwrap_or_else(|| since(row, state)).into()),
            unchanged,
        }
    }
}

/// Returns since when the row is in this state, in which no reconnect is required.
fn since(row: &Row, state: State) -> StoreTime {
    match (state, &row.intent, row.tombstone) {
        (State::InDoubt, Some(intent), _) => intent.since,
        (State::Refreshing, Some(intent), _) => intent.settle_from,
        (State::Revoked, _, Some(tombstone)) => tombstone.at,
        _ => row.changed_at,
    }
}

fn public(expires: Expires) -> Expiry {
    match expires {
        Expires::At(time) => Expiry::At(time.into()),
        Expires::Never => Expiry::Never,
        Expires::Unknown => Expiry::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Intent,
        protocol::tests::{NOW, claimed_row, row, seconds, tombstone},
    };

    #[test]
    fn a_key_without_a_row_is_absent_and_one_with_a_row_has_its_grant() {
        let absent = Status::of(None, StoreTime(0), None);
        assert_eq!((absent.state, absent.generation, absent.since), (State::Absent, Generation(0), None));
        let row = row();
        let status = Status::of(Some(&row), row.changed_at, None);
        assert_eq!((status.generation, status.grant_id), (row.generation, row.grant_id));
    }

    #[test]
    fn a_doubt_counts_from_the_first_sending_and_a_refresh_from_its_claim() {
        let claimed = claimed_row(&[1]);
        let intent = claimed.intent.clone().unwrap();
        let again = Intent { recovered: true, settle_from: intent.since + seconds(40), ..intent };
        let doubtful = Row { lease: None, changed_at: NOW + seconds(99), ..claimed.clone() };
        let retried = Row { intent: Some(again.clone()), ..claimed };
        let gone = Row { tombstone: tombstone(true), ..doubtful.clone() };
        for (row, state, since) in [
            (&doubtful, State::InDoubt, again.since),
            (&retried, State::Refreshing, again.settle_from),
            (&gone, State::Revoked, NOW),
        ] {
            let status = Status::of(Some(row), NOW + seconds(1), None);
            assert_eq!((status.state, status.since), (state, Some(since.into())));
        }
    }
}
