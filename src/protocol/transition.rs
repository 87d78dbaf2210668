//! What a change of a row means to operators and applications.
//!
//! Transitions are found in the transaction that writes the row, so that exactly one process reports each of them,
//! whichever processes die meanwhile.

use serde::{Deserialize, Serialize};

use crate::{
    code::EvidenceCode,
    model::{Evidence, Generation, LastError, Row, StoreTime, Verdict, VerdictBy},
};

/// A transition of a grant that is reported. Processes tell it each other as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transition {
    /// The response to a refresh was stored. A connect is not reported: its caller knows.
    Renewed { generation: Generation },
    /// The user must go through consent again.
    ReconnectRequired { evidence: Evidence, by: VerdictBy },
    /// A refresh token was sent, and whether it was spent is not known.
    InDoubt { evidence: Evidence },
    /// Refreshes have failed for long, and are still retried.
    Failing { evidence: Evidence, since: StoreTime },
    /// All trouble that was reported is over.
    Recovered,
}

/// Returns what to report when `after` is written over `before`: for most changes nothing, without an allocation.
/// Nothing is reported about a tombstone: the caller that disconnected the grant expects nothing more.
pub(super) fn transitions(before: Option<&Row>, after: &Row) -> Vec<Transition> {
    let Some(before) = before.filter(|_| after.tombstone.is_none()) else { return Vec::new() };
    let (was, is) = (ReportedTrouble::of(before), ReportedTrouble::of(after));
    let mut found = Vec::new();
    if before.incarnation == after.incarnation && before.commit != after.commit {
        found.push(Transition::Renewed { generation: after.generation });
    }
    if let (None, Some(Verdict { evidence, by, .. })) = (was.verdict, is.verdict) {
        found.push(Transition::ReconnectRequired { evidence: evidence.clone(), by: *by });
    }
    if !was.doubted && is.doubted {
        let failure = after.last_error.as_ref().filter(|_| before.last_error != after.last_error);
        let evidence = failure.map_or_else(|| Evidence::ours(EvidenceCode::Unanswered), |error| error.evidence.clone());
        found.push(Transition::InDoubt { evidence });
    }
    if let (None, Some(error)) = (was.failing, is.failing) {
        found.push(Transition::Failing { evidence: error.evidence.clone(), since: error.since() });
    }
    if was.any() && !is.any() {
        found.push(Transition::Recovered);
    }
    found
}

/// The part of a row's state that has been reported, or is to be.
#[derive(Default)]
struct ReportedTrouble<'a> {
    verdict: Option<&'a Verdict>,
    doubted: bool,
    failing: Option<&'a LastError>,
}

impl<'a> ReportedTrouble<'a> {
    /// A verdict hides the rest, because nothing is sent while it lasts; what remains after it is reported then.
    fn of(row: &'a Row) -> Self {
        if row.tombstone.is_some() {
            return Self::default();
        }
        if row.verdict.is_some() {
            return Self { verdict: row.verdict.as_deref(), ..Self::default() };
        }
        let failing = row.last_error.as_deref().filter(|error| error.alerted);
        Self { verdict: None, doubted: doubted(row), failing }
    }

    fn any(&self) -> bool {
        self.verdict.is_some() || self.doubted || self.failing.is_some()
    }
}

/// Returns whether the response to a request may be lost: a sender reported that, or another attempt sends the token
/// again, or the store lost writes. Each lasts until the intent is gone, however often the token is sent again.
fn doubted(row: &Row) -> bool {
    row.intent.as_ref().filter(|intent| intent.generation == row.generation).is_some_and(|intent| {
        intent.recovered || row.lease.is_none() || intent.senders.iter().any(|sender| sender.closed)
    })
}
