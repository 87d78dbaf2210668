//! How an attempt without an answer leaves the row, and how doubts end.

use std::time::Duration;

use super::{Applied, Reply};
use crate::{
    code::EvidenceCode,
    error::Cause,
    model::{Evidence, Generation, Id, Intent, LastError, Row, Sender, Time, Verdict, VerdictBy},
};

/// The end of an attempt that has no answer, with the claim it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    pub(crate) attempt: Id,
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    /// What went wrong: written as the row's status unless the row has moved on.
    pub(crate) error: Option<Fault>,
    pub(crate) retry_at: Option<Time>,
}

/// What went wrong, and what it means for callers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fault {
    pub(crate) evidence: Evidence,
    pub(crate) cause: Cause,
}

/// Nothing was spent: the intent goes, unless an earlier sender's doubt stands behind it.
pub(super) fn cancel(end: &Ending, row: &Row, now: Time) -> Applied {
    ended(end, row, now, |intent| {
        if !intent.recovered {
            return None;
        }
        if intent.senders.len() == 1 {
            return Some(closed(intent, end.attempt, now));
        }
        let senders = intent.senders.iter().filter(|sender| sender.attempt != end.attempt).copied().collect();
        Some(Intent { senders, ..intent.clone() })
    })
}

/// Whether it was spent is not known, and nobody will hear the answer: settling starts now.
pub(super) fn close(end: &Ending, row: &Row, now: Time) -> Applied {
    ended(end, row, now, |intent| Some(closed(intent, end.attempt, now)))
}

fn closed(intent: &Intent, attempt: Id, now: Time) -> Intent {
    let mut intent = intent.clone();
    intent.settle_from = intent.settle_from.max(now);
    for sender in &mut intent.senders {
        sender.closed |= sender.attempt == attempt;
    }
    intent
}

fn ended(end: &Ending, row: &Row, now: Time, change: impl Fn(&Intent) -> Option<Intent>) -> Applied {
    let mut left = row.clone();
    let own_lease = row.lease.is_some_and(|lease| lease.attempt == end.attempt);
    if own_lease {
        left.lease = None;
    }
    let open = |sender: &Sender| sender.attempt == end.attempt && !sender.closed;
    if let Some(intent) = row.intent.as_ref().filter(|intent| intent.senders.iter().any(open)) {
        left.intent = change(intent);
    }
    if left == *row {
        return Applied::unchanged(Reply::Done);
    }
    let same = row.incarnation == end.incarnation && row.generation == end.generation;
    if let Some(Fault { evidence, cause }) = end.error.as_ref().filter(|_| same) {
        left.last_error = Some(failed(row.last_error.as_deref(), evidence, *cause, now).into());
        left.retry_at = end.retry_at;
        left.changed_at = now;
    }
    Applied::write(left, Reply::Done)
}

/// The failure after `previous` in a row.
fn failed(previous: Option<&LastError>, evidence: &Evidence, cause: Cause, now: Time) -> LastError {
    let since = previous.map_or(now, LastError::since);
    LastError {
        evidence: evidence.clone(),
        cause,
        at: now,
        failures: previous.map_or(0, |error| error.failures).saturating_add(1),
        since: Some(since),
        alerted: previous.is_some_and(|error| error.alerted) || now.since(since) >= LONG,
    }
}

/// Failures that have gone on for so long are told to people: longer than a provider's restart takes. That the access
/// token ends meanwhile tells nothing by itself: a grant that slept has none when its first refresh fails.
const LONG: Duration = Duration::from_secs(15 * 60);

/// Somebody else's answer was stored and then forgotten by the store: what the row holds is spent.
pub(super) fn raise(incarnation: Id, seen: Generation, unknown: Id, row: &Row, now: Time) -> Applied {
    if row.incarnation != incarnation || row.generation >= seen || row.tombstone.is_some() {
        return Applied::refused();
    }
    let senders = vec![Sender { attempt: unknown, owner: unknown, closed: false }];
    // Whoever spent it did so after the row as it came back was written: a grace counts from there at the latest.
    let since = row.changed_at.min(now);
    let intent = Intent { generation: seen, since, settle_from: now, recovered: false, senders };
    let raised = Row { generation: seen, intent: Some(intent), lease: None, changed_at: now, ..row.clone() };
    Applied::write(raised, Reply::Done)
}

/// The row spends another token now, and the doubted request can no longer be processed.
pub(super) fn clear(incarnation: Id, intent: &Intent, row: &Row) -> Applied {
    if row.incarnation != incarnation || row.intent.as_ref() != Some(intent) || intent.generation >= row.generation {
        return Applied::refused();
    }
    Applied::write(Row { intent: None, ..row.clone() }, Reply::Done)
}

/// Nobody can say whether the token is spent, and it is too late to wait: the user is asked.
pub(super) fn give_up(incarnation: Id, intent: &Intent, row: &Row, now: Time) -> Applied {
    let same = row.incarnation == incarnation && row.intent.as_ref() == Some(intent);
    if !same || !row.sendable() || row.lease_live(now) {
        return Applied::refused();
    }
    let verdict =
        Box::new(Verdict { evidence: Evidence::ours(EvidenceCode::InDoubt), since: now, by: VerdictBy::Doubt });
    let row = Row { intent: None, verdict: Some(verdict), changed_at: now, ..row.clone() };
    Applied::write(row, Reply::Done)
}
