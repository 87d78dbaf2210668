//! Changes by a response: commit it, find its place, or accept a refusal.

use super::{
    Applied, ChangeReply, Commit, LookupResult, Refuse, Side,
    ending::failed,
    resolve::{Resolution, resolve},
    schedule::next_notice_at,
};
use crate::{
    code::EvidenceCode,
    model::{Alt, Evidence, Generation, Id, Intent, Row, StoreTime, Verdict, VerdictBy},
};

/// Compares incarnation and generation, never the lease: an attempt that overran its lease has the only copy of a
/// token.
pub(super) fn commit(commit: &Commit, row: &Row, now: StoreTime) -> Applied {
    let own = row.commit.is_some_and(|by| by.attempt == commit.attempt);
    let fits = row.incarnation == commit.incarnation && row.generation <= commit.generation && row.tombstone.is_none();
    if own || !fits {
        return landed(commit, row, now, resolve(row, commit));
    }
    let mut stored = store(commit, row, commit.generation.next(), now);
    stored.alt = None;
    Applied::write(stored, ChangeReply::Resolved(Resolution::Own)).superseding(row)
}

fn landed(commit: &Commit, row: &Row, now: StoreTime, resolution: Resolution) -> Applied {
    let mut left = row.clone();
    withdraw(&mut left, commit.attempt);
    let write = |row: Row| Applied::write(row, ChangeReply::Resolved(resolution));
    match (resolution, &commit.token) {
        (Resolution::Revoke, token) => {
            let mut left = row.clone();
            if let Some(tombstone) = &mut left.tombstone {
                tombstone.restorable = false;
                close_sender(&mut left, commit.attempt);
            }
            let applied = write(left);
            match token {
                Some(token) => applied.with(Side::Spent(token.fingerprint)).with(Side::Revoke(token.clone())),
                None => applied,
            }
        }
        (Resolution::Own | Resolution::Drop | Resolution::MovedOn, _) | (_, None) => {
            if left == *row {
                Applied::unchanged(ChangeReply::Resolved(resolution))
            } else {
                write(left)
            }
        }
        (Resolution::Replace, Some(_)) => {
            let mut stored = store(commit, row, row.generation.next(), now);
            // An earlier try whose acknowledgement was lost may have put it there.
            stored.alt.take_if(|alt| alt.by.attempt == commit.attempt);
            write(stored).superseding(row)
        }
        (Resolution::Alt, Some(token)) => {
            left.alt = Some(Alt { token: token.clone(), by: commit.by() });
            write(left)
        }
    }
}

/// The grant of the response was purged: like a response to another incarnation, except that no row shows whether it
/// held this token. If it did, the token was remembered, and may belong to another key by now.
pub(super) fn orphan(commit: &Commit, known: LookupResult) -> Applied {
    match commit.token.as_ref().filter(|_| commit.revocable && known == LookupResult::New) {
        Some(token) => Applied::unchanged(ChangeReply::Resolved(Resolution::Revoke))
            .with(Side::Spent(token.fingerprint))
            .with(Side::Revoke(token.clone())),
        None => Applied::unchanged(ChangeReply::Resolved(Resolution::Drop)),
    }
}

/// Returns the row with the response stored in it. `alt` stays as it is.
fn store(commit: &Commit, row: &Row, generation: Generation, now: StoreTime) -> Row {
    let mut stored = row.clone();
    withdraw(&mut stored, commit.attempt);
    stored.generation = generation;
    stored.refresh_token = commit.token.clone().or(stored.refresh_token);
    stored.parent = Some(commit.parent);
    stored.commit = Some(commit.by());
    stored.verdict = stored.verdict.filter(|verdict| verdict.by == VerdictBy::Application);
    stored.document = commit.document.clone();
    (stored.issued_at, stored.expires, stored.due_at) = (commit.issued_at, commit.expires, commit.due_at);
    stored.refresh_expires = commit.refresh_expires.unwrap_or(row.refresh_expires);
    stored.notice_at = next_notice_at(row, stored.refresh_expires, commit.issued_at, now);
    stored.last_error =
        commit.unfinished.as_ref().map(|left| failed(row.last_error.as_deref(), &left.fault, now).into());
    (stored.retry_at, stored.changed_at) = (commit.unfinished.as_ref().map(|left| left.retry_at), now);
    stored
}

/// Releases the attempt's lease and removes it from the intent; removes the intent if the attempt was its latest
/// sender.
fn withdraw(row: &mut Row, attempt: Id) {
    if row.lease.is_some_and(|lease| lease.attempt == attempt) {
        row.lease = None;
    }
    if let Some(intent) = &mut row.intent {
        if intent.senders.last().is_some_and(|sender| sender.attempt == attempt) {
            row.intent = None;
        } else {
            intent.senders.retain(|sender| sender.attempt != attempt);
        }
    }
}

/// Closes the attempt's sender in a tombstone's intent. The intent stays until it is cleared, and the row's tokens are
/// revoked then.
fn close_sender(row: &mut Row, attempt: Id) {
    let senders = row.intent.iter_mut().flat_map(|intent| &mut intent.senders);
    senders.filter(|sender| sender.attempt == attempt).for_each(|sender| sender.closed = true);
}

/// Accepts a refusal: leaves a newer row as it is, promotes the alternative token, or requires consent. After the
/// response of another subject the alternative is not promoted: an operator has to find out whose it is.
pub(super) fn refuse(refuse: &Refuse, row: &Row, now: StoreTime) -> Applied {
    let mut left = row.clone();
    if left.lease.is_some_and(|lease| lease.attempt == refuse.attempt) {
        left.lease = None;
    }
    let mut named = false;
    if let Some(intent) = &mut left.intent {
        named = intent.senders.iter().any(|sender| sender.attempt == refuse.attempt);
        intent.senders.retain(|sender| sender.attempt != refuse.attempt);
        if intent.senders.is_empty() {
            left.intent = None;
        }
    }
    let moved = row.incarnation != refuse.incarnation || row.generation > refuse.generation || row.tombstone.is_some();
    // Without its sender this is a repetition: a connect may have lifted the refusal meanwhile.
    // A connect can lift a refusal, but not bring back a token that is spent.
    let known = row.verdict.as_ref().is_some_and(|verdict| verdict.by != VerdictBy::Idp || refuse.by == VerdictBy::Idp);
    if moved || known || !named {
        return if left == *row { Applied::refused() } else { Applied::write(left, ChangeReply::Refused) };
    }
    // Any other sender of the refused token gets the same response, or none: its doubt is about another token now.
    if refuse.by == VerdictBy::Idp
        && let Some(alt) = left.alt.take()
    {
        return promoted(left, alt, row, now);
    }
    let since = row.verdict.as_ref().map_or(now, |verdict| verdict.since);
    left.verdict = Some(Box::new(Verdict { evidence: refuse.evidence.clone(), since, by: refuse.by }));
    left.changed_at = now;
    let applied = Applied::write(left, ChangeReply::Done);
    match row.refresh_token.as_ref().filter(|_| refuse.by == VerdictBy::Subject) {
        Some(token) => applied.with(Side::Spent(token.fingerprint)),
        None => applied,
    }
}

/// Accepts the provider's word that the token of a doubt is spent: like its refusal, after which the token can be tried once
/// more. No process will receive the response to it.
pub(super) fn spent(incarnation: Id, intent: &Intent, row: &Row, now: StoreTime) -> Applied {
    let same = row.incarnation == incarnation && row.intent.as_ref() == Some(intent);
    let about_this_token = intent.generation == row.generation;
    if !same || !about_this_token || !row.sendable() || row.lease_live(now) {
        return Applied::refused();
    }
    let mut left = Row { intent: None, lease: None, ..row.clone() };
    if let Some(alt) = left.alt.take() {
        return promoted(left, alt, row, now);
    }
    let verdict = Verdict { evidence: Evidence::ours(EvidenceCode::InDoubt), since: now, by: VerdictBy::Idp };
    (left.verdict, left.changed_at) = (Some(Box::new(verdict)), now);
    Applied::write(left, ChangeReply::Done)
}

/// Returns `left`, what is left of `row`, with the alternative token in the place of one that is refused.
fn promoted(left: Row, alt: Alt, row: &Row, now: StoreTime) -> Applied {
    let promoted = Row {
        generation: row.generation.next(),
        refresh_token: Some(alt.token),
        commit: Some(alt.by),
        due_at: Some(now.by_wall_clock()),
        changed_at: now,
        ..left
    };
    Applied::write(promoted, ChangeReply::Promoted).superseding(row)
}
