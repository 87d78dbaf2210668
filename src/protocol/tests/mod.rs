//! Tests of the protocol's functions, one file for each, and the samples that they share.

mod attempt;
mod attempt_sent;
mod claim;
mod commit;
mod connect;
mod doubt;
mod ending;
mod purge;
mod random;
mod refuse;
mod reseal;
mod transition;

use std::time::Duration;

use super::{
    Applied, AttemptFault, Change, ChangeInput, ChangeReply, Claim, Commit, ConnectChange, DisconnectChange, Ending,
    Expected, LookupResult, Recover, Refuse, Resealed, Side,
    doubt::{ProbeMeans, Rules},
};
use crate::{
    error::Cause,
    model::{
        Alt, Attempted, Evidence, Expires, Fingerprint, Generation, Id, Intent, LastError, Lease, Row, Sealed, Sender,
        Spendable, StoreTime, TokenKey, Tombstone, Verdict, VerdictBy, WallTime,
    },
};

pub(crate) const NOW: StoreTime = StoreTime(1_700_000_000_000);
/// The same moment by the wall clock.
pub(crate) const WALL_NOW: WallTime = WallTime(NOW.0);
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// The incarnation of [`row`].
pub(crate) const INCARNATION: Id = Id([100; 16]);
/// The generation of [`row`].
pub(crate) const GENERATION: Generation = Generation(4);

pub(crate) fn id(number: u8) -> Id {
    Id([number; 16])
}

pub(crate) fn fingerprint(number: u8) -> Fingerprint {
    Fingerprint([number; 16])
}

pub(crate) fn token(number: u8) -> Spendable {
    let sealed = Sealed(format!("ts-test-secret-{number}").into_bytes());
    Spendable { sealed, fingerprint: fingerprint(number) }
}

pub(crate) fn document(number: u8) -> Sealed {
    Sealed(format!("ts-test-secret-document-{number}").into_bytes())
}

/// The value, sealed with another key.
pub(crate) fn resealed(from: &Sealed) -> Resealed {
    Resealed { from: from.clone(), to: Sealed([&from.0[..], b"-resealed"].concat()) }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A grant that holds token 1, with nothing pending.
pub(crate) fn row() -> Row {
    Row {
        key: TokenKey::at("idp").user("alice"),
        grant_id: INCARNATION.public("g"),
        incarnation: INCARNATION,
        generation: GENERATION,
        client_id: Some("client".to_owned()),
        refresh_token: Some(token(1)),
        parent: None,
        commit: None,
        alt: None,
        epoch: 7,
        lease: None,
        intent: None,
        verdict: None,
        held: None,
        issued_at: WALL_NOW,
        expires: Expires::At(WALL_NOW + seconds(3_600)),
        refresh_expires: Expires::Unknown,
        notice_at: None,
        due_at: Some(WALL_NOW + seconds(3_000)),
        retry_at: None,
        last_error: None,
        document: document(1),
        tombstone: None,
        changed_at: NOW,
    }
}

/// [`row`], claimed by each of `senders`; the last one holds the lease.
pub(crate) fn claimed_row(senders: &[u8]) -> Row {
    let mut row = row();
    let sender = |&number| Sender { attempt: id(number), owner: id(number + 50), closed: false };
    row.epoch += senders.len() as u64;
    row.lease = senders.last().map(|&last| Lease { attempt: id(last), owner: id(last + 50), until: NOW + LEASE });
    row.intent = Some(Intent {
        generation: row.generation,
        since: NOW,
        settle_from: NOW,
        recovered: senders.len() > 1,
        senders: senders.iter().map(sender).collect(),
    });
    row
}

pub(crate) fn verdict(by: VerdictBy) -> Option<Box<Verdict>> {
    Some(Box::new(Verdict { evidence: Evidence::of("invalid_grant"), since: NOW, by }))
}

pub(crate) fn tombstone(revoke: bool) -> Option<Tombstone> {
    Some(Tombstone { at: NOW, revoke, restorable: true, purge: false, unrevocable: false })
}

pub(crate) fn alt(number: u8, attempt: u8, epoch: u64) -> Option<Alt> {
    Some(Alt { token: token(number), by: Attempted { attempt: id(attempt), epoch } })
}

pub(crate) fn claim(attempt: u8, row: &Row) -> Claim {
    let (incarnation, generation) = (row.incarnation, row.generation);
    Claim { attempt: id(attempt), owner: id(attempt + 50), incarnation, generation, lease: LEASE }
}

pub(crate) fn recover(attempt: u8, row: &Row) -> Recover {
    Recover { claim: claim(attempt, row), epoch: row.epoch, intent: row.intent.clone().unwrap() }
}

/// The response for an attempt that claimed `row`: token `new` for the row's token.
pub(crate) fn commit(attempt: u8, row: &Row, new: u8) -> Commit {
    Commit {
        attempt: id(attempt),
        epoch: row.epoch,
        incarnation: row.incarnation,
        generation: row.generation,
        parent: row.refresh_token.as_ref().unwrap().fingerprint,
        token: Some(token(new)),
        document: document(new),
        issued_at: WALL_NOW + seconds(10),
        expires: Expires::At(WALL_NOW + seconds(7_200)),
        refresh_expires: None,
        due_at: Some(WALL_NOW + seconds(6_000)),
        revocable: true,
        unfinished: None,
    }
}

pub(crate) fn committed(commit: &Commit) -> Change {
    Change::Commit(Box::new(commit.clone()))
}

pub(crate) fn ending(attempt: u8, row: &Row) -> Ending {
    let (incarnation, generation) = (row.incarnation, row.generation);
    Ending { attempt: id(attempt), incarnation, generation, error: None, retry_at: None }
}

pub(crate) fn refuse(attempt: u8, row: &Row) -> Change {
    let (incarnation, generation) = (row.incarnation, row.generation);
    let (evidence, by) = (Evidence::of("invalid_grant"), VerdictBy::Idp);
    Change::Refuse(Refuse { attempt: id(attempt), incarnation, generation, evidence, by })
}

/// The response of another subject for an attempt that claimed `row`.
pub(crate) fn foreign(attempt: u8, row: &Row) -> Change {
    let (incarnation, generation) = (row.incarnation, row.generation);
    let (evidence, by) = (Evidence::of("account_mismatch"), VerdictBy::Subject);
    Change::Refuse(Refuse { attempt: id(attempt), incarnation, generation, evidence, by })
}

/// A consent that brought token `new`, as incarnation `incarnation`.
pub(crate) fn connect(new: Option<u8>, incarnation: u8) -> ConnectChange {
    ConnectChange {
        key: row().key,
        incarnation: id(incarnation),
        client_id: Some("client".to_owned()),
        token: new.map(token),
        elsewhere: Vec::new(),
        document: document(new.unwrap_or(99)),
        issued_at: WALL_NOW + seconds(20),
        expires: Expires::At(WALL_NOW + seconds(3_620)),
        refresh_expires: Expires::Never,
        due_at: Some(WALL_NOW + seconds(3_020)),
        cancels_revocations: false,
        only: Expected::Anything,
        compared: Expected::Anything,
    }
}

pub(crate) fn disconnecting(revoke: bool) -> Change {
    Change::Disconnect(DisconnectChange { revoke, unrevocable: false, purge: false, access_token: None })
}

/// The third failure in a row, since then.
pub(crate) fn last_error(since: StoreTime) -> Box<LastError> {
    let evidence = Evidence::of("server_error");
    Box::new(LastError { evidence, cause: Cause::IdpDown, at: NOW, failures: 3, since: Some(since), alerted: false })
}

pub(crate) fn rules() -> Rules {
    Rules {
        settle: seconds(30),
        send_window: seconds(5),
        patience: seconds(20),
        lease: LEASE,
        grace: Duration::ZERO,
        retry_safe: false,
        try_in_doubt: false,
        never_rotates: false,
        probe: ProbeMeans::Absent,
    }
}

/// A row in which every field has an unusual value.
pub(crate) fn full_row() -> Row {
    let mut row = claimed_row(&[1, 2]);
    row.parent = Some(fingerprint(9));
    row.commit = Some(Attempted { attempt: id(8), epoch: 6 });
    row.alt = alt(5, 6, 7);
    row.verdict = verdict(VerdictBy::Application);
    row.held = Some("copied database".to_owned());
    row.refresh_expires = Expires::Never;
    row.retry_at = Some(WALL_NOW + seconds(40));
    row.notice_at = Some(NOW + seconds(50));
    row.last_error = Some(last_error(NOW));
    row.tombstone = tombstone(true);
    row
}

fn apply(change: &Change, row: &Row, now: StoreTime) -> Applied {
    change.apply(ChangeInput { row: Some(row), now, floor: Generation(0), known: LookupResult::New })
}

/// Applies a change that must be written, and checks that a repetition changes nothing.
fn taken(change: &Change, row: &Row, now: StoreTime) -> (Row, ChangeReply, Vec<Side>) {
    let once = apply(change, row, now);
    let written = once.row.expect("the change is written");
    let twice = apply(change, &written, now);
    assert!(twice.row.is_none_or(|again| again == written), "a repetition of {change:?} changes the row");
    assert_eq!(twice.sides, [], "a repetition of {change:?} writes beside the row");
    (written, once.reply, once.sides)
}

fn refused(change: &Change, row: &Row, now: StoreTime) {
    let applied = apply(change, row, now);
    assert!(applied.row.is_none() && applied.sides.is_empty(), "{change:?} changes the row");
    assert_eq!(applied.reply, ChangeReply::Refused);
}
