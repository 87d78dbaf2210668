//! Changes that end an attempt without a response, and changes that end doubts.

use std::time::Duration;

use super::{Applied, ChangeReply, Claim, fault::AttemptFault};
use crate::{
    code::EvidenceCode,
    error::Cause,
    model::{Evidence, Generation, Id, Intent, LastError, Row, Sender, StoreTime, Verdict, VerdictBy, WallTime},
};

/// The end of an attempt without a response, with the claim that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    pub(crate) attempt: Id,
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    /// The failure: written to the row unless the row has a newer token.
    pub(crate) error: Option<AttemptFault>,
    pub(crate) retry_at: Option<WallTime>,
}

/// The token was not spent: removes the intent, unless an earlier sender's doubt remains.
pub(super) fn cancel(end: &Ending, row: &Row, now: StoreTime) -> Applied {
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

/// Whether the token was spent is not known, and no process will receive the response: settling starts now.
pub(super) fn close(end: &Ending, row: &Row, now: StoreTime) -> Applied {
    ended(end, row, now, |intent| Some(closed(intent, end.attempt, now)))
}

fn closed(intent: &Intent, attempt: Id, now: StoreTime) -> Intent {
    let mut intent = intent.clone();
    intent.settle_from = intent.settle_from.max(now);
    for sender in &mut intent.senders {
        sender.closed |= sender.attempt == attempt;
    }
    intent
}

fn ended(end: &Ending, row: &Row, now: StoreTime, change: impl Fn(&Intent) -> Option<Intent>) -> Applied {
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
        return Applied::unchanged(ChangeReply::Done);
    }
    let same = row.incarnation == end.incarnation && row.generation == end.generation;
    if let Some(fault) = end.error.as_ref().filter(|_| same) {
        left.last_error = Some(failed(row.last_error.as_deref(), fault, now).into());
        left.retry_at = end.retry_at;
        left.changed_at = now;
    }
    Applied::write(left, ChangeReply::Done)
}

/// Returns the failure that follows `previous`.
pub(super) fn failed(previous: Option<&LastError>, fault: &AttemptFault, now: StoreTime) -> LastError {
    let since = previous.map_or(now, LastError::since);
    let alerted = previous.is_some_and(|error| error.alerted) || now.since(since) >= LONG;
    // A code that nobody knows may pass by itself; after a while people have to look at it.
    let cause = if fault.cause == Cause::UnknownError && !alerted { Cause::IdpDown } else { fault.cause };
    LastError {
        evidence: fault.evidence.clone(),
        cause,
        at: now,
        failures: previous.map_or(0, |error| error.failures).saturating_add(1),
        since: Some(since),
        alerted,
    }
}

/// Failures that have lasted this long are reported: longer than a provider's restart takes. An expired access token is
/// no criterion: a grant that was idle has none when its first refresh fails.
const LONG: Duration = Duration::from_secs(15 * 60);

/// The store lost a response that another attempt had stored: the row's token is spent.
pub(super) fn raise(incarnation: Id, seen: Generation, unknown: Id, row: &Row, now: StoreTime) -> Applied {
    if row.incarnation != incarnation || row.generation >= seen || row.tombstone.is_some() {
        return Applied::refused();
    }
    let senders = vec![Sender::unknown(unknown)];
    // The token was spent after this version of the row was written: a grace counts from there at the latest.
    let since = row.changed_at.min(now);
    let intent = Intent { generation: seen, since, settle_from: now, recovered: false, senders };
    let raised = Row { generation: seen, intent: Some(intent), lease: None, changed_at: now, ..row.clone() };
    Applied::write(raised, ChangeReply::Done)
}

/// The row holds a refresh token that the key has spent: it was put back to an earlier generation. What the spent token
/// brought is not known here, so this is a doubt of another process: it waits for that response, and nothing is sent.
pub(super) fn put_back(claim: &Claim, row: &Row, now: StoreTime) -> Applied {
    if row.intent.is_some() || !row.sendable() || row.lease_live(now) {
        return Applied::refused();
    }
    // The incarnation stands for the unknown attempt: it is the id of none.
    let Applied { row: raised, .. } = raise(claim.incarnation, claim.generation.next(), row.incarnation, row, now);
    raised.map_or_else(Applied::refused, |raised| Applied::write(raised, ChangeReply::Refused))
}

/// Ends a doubt about a token that the row no longer spends: the request can no longer be processed.
pub(super) fn clear(incarnation: Id, intent: &Intent, row: &Row) -> Applied {
    if row.incarnation != incarnation || row.intent.as_ref() != Some(intent) || intent.generation >= row.generation {
        return Applied::refused();
    }
    Applied::write(Row { intent: None, ..row.clone() }, ChangeReply::Done)
}

/// Requires consent: whether the token is spent cannot be found out, and it is too late to wait.
pub(super) fn give_up(incarnation: Id, intent: &Intent, row: &Row, now: StoreTime) -> Applied {
    let same = row.incarnation == incarnation && row.intent.as_ref() == Some(intent);
    if !same || !row.sendable() || row.lease_live(now) {
        return Applied::refused();
    }
    let verdict =
        Box::new(Verdict { evidence: Evidence::ours(EvidenceCode::InDoubt), since: now, by: VerdictBy::Doubt });
    let row = Row { intent: None, verdict: Some(verdict), changed_at: now, ..row.clone() };
    Applied::write(row, ChangeReply::Done)
}

/// Requires consent: the access token has expired, and there is no refresh token.
pub(super) fn run_out(incarnation: Id, generation: Generation, row: &Row, now: StoreTime) -> Applied {
    let same = (row.incarnation, row.generation) == (incarnation, generation) && row.verdict.is_none();
    match row.required(now.by_wall_clock()).filter(|_| same) {
        Some((evidence, since)) => {
            let verdict = Box::new(Verdict { evidence: evidence.into_owned(), since, by: VerdictBy::Expiry });
            Applied::write(Row { verdict: Some(verdict), changed_at: now, ..row.clone() }, ChangeReply::Done)
        }
        None => Applied::refused(),
    }
}
