//! Changes of the lease: claim, recover, renew.

use std::time::Duration;

use super::{Applied, ChangeReply};
use crate::model::{Generation, Id, Intent, Lease, Row, Sender, StoreTime};

/// Takes the lease of a row without an intent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) attempt: Id,
    /// The journal to which the response would be written.
    pub(crate) owner: Id,
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    pub(crate) lease: Duration,
}

/// Takes the lease of a row with an intent, to send its token again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recover {
    pub(crate) claim: Claim,
    pub(crate) epoch: u64,
    pub(crate) intent: Intent,
}

pub(super) fn claim(claim: &Claim, row: &Row, now: StoreTime) -> Applied {
    if holds(claim, row) {
        return Applied::unchanged(ChangeReply::Done);
    }
    if !fits(claim, row, now) || row.intent.is_some() {
        return Applied::refused();
    }
    let intent = Intent {
        generation: row.generation,
        since: now,
        settle_from: now,
        recovered: false,
        senders: vec![sender(claim)],
    };
    taken(claim, row, intent, now)
}

pub(super) fn recover(recover: &Recover, row: &Row, now: StoreTime) -> Applied {
    let Recover { claim, epoch, intent } = recover;
    if holds(claim, row) {
        return Applied::unchanged(ChangeReply::Done);
    }
    if !fits(claim, row, now) || row.epoch != *epoch || row.intent.as_ref() != Some(intent) {
        return Applied::refused();
    }
    if intent.generation != row.generation {
        // A doubt about another token says nothing about this one: it has to be cleared first.
        return Applied::refused();
    }
    let mut intent = intent.clone();
    intent.recovered = true;
    intent.settle_from = now;
    intent.senders.retain(|sender| !sender.closed);
    intent.senders.push(sender(claim));
    taken(claim, row, intent, now)
}

/// Extends the lease. A lost lease is not taken back: its former holder goes on waiting for the response without it.
pub(super) fn renew(attempt: Id, lease: Duration, row: &Row, now: StoreTime) -> Applied {
    match row.lease {
        Some(held) if held.attempt == attempt => {
            let lease = Some(Lease { until: now + lease, ..held });
            Applied::write(Row { lease, ..row.clone() }, ChangeReply::Done)
        }
        _ => Applied::refused(),
    }
}

/// Returns whether the claim repeats one whose acknowledgement was lost.
fn holds(claim: &Claim, row: &Row) -> bool {
    row.incarnation == claim.incarnation
        && row.generation == claim.generation
        && row.lease.is_some_and(|lease| lease.attempt == claim.attempt)
}

fn fits(claim: &Claim, row: &Row, now: StoreTime) -> bool {
    row.incarnation == claim.incarnation && row.generation == claim.generation && row.sendable() && !row.lease_live(now)
}

fn sender(claim: &Claim) -> Sender {
    Sender { attempt: claim.attempt, owner: claim.owner, closed: false }
}

fn taken(claim: &Claim, row: &Row, intent: Intent, now: StoreTime) -> Applied {
    let lease = Lease { attempt: claim.attempt, owner: claim.owner, until: now + claim.lease };
    let taken = Row { epoch: row.epoch + 1, lease: Some(lease), intent: Some(intent), ..row.clone() };
    Applied::write(taken, ChangeReply::Done)
}
