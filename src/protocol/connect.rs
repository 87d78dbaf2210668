//! Changes by operators and applications: connect, disconnect, restore, require a reconnect, retry, hold, release, purge.

use serde::{Deserialize, Serialize};

use super::{Applied, ChangeInput, ChangeReply, LookupResult, PurgeRefusal, Side, Unchanged, schedule::notice_at};
use crate::model::{
    Evidence, Expires, Fingerprint, Generation, Id, Row, Sealed, Spendable, StoreTime, TokenKey, Tombstone, Verdict,
    VerdictBy, WallTime,
};

/// A grant from the user's consent, sealed. The history stores this too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ConnectChange {
    pub(crate) key: TokenKey,
    /// Random; used if this connect starts a new incarnation.
    pub(crate) incarnation: Id,
    pub(crate) client_id: Option<String>,
    pub(crate) token: Option<Spendable>,
    /// The fingerprints of the refresh token at other providers that have the same token endpoint and client.
    pub(crate) elsewhere: Vec<Fingerprint>,
    pub(crate) document: Sealed,
    pub(crate) issued_at: WallTime,
    pub(crate) expires: Expires,
    pub(crate) refresh_expires: Expires,
    pub(crate) due_at: Option<WallTime>,
    /// Queued revocations would end this grant too (the identity provider revokes all grants of the user).
    pub(crate) cancels_revocations: bool,
    /// What the key must hold, according to the application.
    pub(crate) only: Expected,
    /// What the key held when the grant's subject was compared with the stored one.
    pub(crate) compared: Expected,
}

/// What a key must hold for a connect to change it. A tombstone counts as nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expected {
    Anything,
    Nothing,
    /// This grant: a generation is never reused.
    At(Generation),
}

impl Expected {
    fn fits(self, row: Option<&Row>) -> bool {
        let live = row.filter(|row| row.tombstone.is_none()).map(|row| row.generation);
        match self {
            Self::Anything => true,
            Self::Nothing => live.is_none(),
            Self::At(generation) => live == Some(generation),
        }
    }
}

/// Ends a grant at the application's request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DisconnectChange {
    /// Whether to revoke the tokens at the identity provider.
    pub(crate) revoke: bool,
    /// A revocation was requested that the identity provider cannot carry out.
    pub(crate) unrevocable: bool,
    /// Whether to purge the tombstone as soon as nothing of the grant is pending.
    pub(crate) purge: bool,
    /// The access token of a grant without a refresh token, to be revoked instead.
    pub(crate) access_token: Option<Spendable>,
}

pub(super) fn connect(connect: &ConnectChange, found: ChangeInput<'_>) -> Applied {
    let applied = connected(connect, found);
    if applied.row.is_none() {
        // Also for a repetition, which no longer finds what it expected because of its first run.
        return applied;
    }
    if !connect.only.fits(found.row) {
        return Applied::unchanged(ChangeReply::Mismatch);
    }
    if !connect.compared.fits(found.row) {
        return Applied::unchanged(ChangeReply::Moved);
    }
    applied
}

fn connected(connect: &ConnectChange, found: ChangeInput<'_>) -> Applied {
    if found.known == LookupResult::Elsewhere {
        return Applied::unchanged(ChangeReply::Duplicate);
    }
    let Some(row) = found.row else {
        // A purged grant of the key was connected with this token, has spent it or held it.
        return match found.known {
            LookupResult::Spent => Applied::unchanged(ChangeReply::Unchanged(Unchanged::TokenAlreadySpent)),
            _ => fresh(connect, found),
        };
    };
    let Some(token) = &connect.token else { return access_token_only(connect, row, found) };
    let current = row.refresh_token.as_ref().is_some_and(|held| held.fingerprint == token.fingerprint);
    if current && row.tombstone.is_none() {
        return again(row, found.now);
    }
    if current || found.known == LookupResult::Spent {
        return Applied::unchanged(ChangeReply::Unchanged(Unchanged::TokenAlreadySpent));
    }
    fresh(connect, found)
}

/// Starts a new incarnation: requests in flight for the old one no longer match.
fn fresh(connect: &ConnectChange, found: ChangeInput<'_>) -> Applied {
    let (before, now) = (found.row, found.now);
    let consent_expires = if connect.token.is_some() { connect.refresh_expires } else { connect.expires };
    let row = Row {
        key: connect.key.clone(),
        grant_id: before.map_or_else(|| connect.incarnation.public("g"), |row| row.grant_id.clone()),
        incarnation: connect.incarnation,
        generation: before.map_or(found.floor, |row| row.generation.max(found.floor)).next(),
        client_id: connect.client_id.clone(),
        refresh_token: connect.token.clone(),
        parent: None,
        commit: None,
        alt: None,
        epoch: before.map_or(0, |row| row.epoch),
        lease: None,
        intent: None,
        verdict: None,
        held: before.and_then(|row| row.held.clone()),
        issued_at: connect.issued_at,
        expires: connect.expires,
        refresh_expires: connect.refresh_expires,
        notice_at: notice_at(consent_expires, connect.issued_at, now),
        due_at: connect.due_at,
        retry_at: None,
        last_error: None,
        document: connect.document.clone(),
        tombstone: None,
        changed_at: now,
    };
    let mut applied = Applied::write(row, ChangeReply::Done);
    if let Some(before) = before {
        applied = applied.superseding(before);
    }
    if let Some(token) = &connect.token {
        applied = applied.with(Side::Connected(token.fingerprint));
    }
    if connect.cancels_revocations { applied.with(Side::CancelRevocations) } else { applied }
}

/// The same refresh token again: consent returned it once more, or the user was enabled again.
fn again(row: &Row, now: StoreTime) -> Applied {
    lifted(row, now).unwrap_or_else(|| Applied::unchanged(ChangeReply::Unchanged(Unchanged::AlreadyConnected)))
}

/// Sends a refused refresh token once more: a token that was refused cannot be lost by that. Any other row stays as it is.
pub(super) fn retry(row: &Row, now: StoreTime) -> Applied {
    if row.tombstone.is_some() {
        return Applied::refused();
    }
    lifted(row, now).unwrap_or_else(|| Applied::unchanged(ChangeReply::Done))
}

/// Lifts the identity provider's own refusal, and no other verdict; `None` if there is no such refusal. The incarnation and
/// an intent stay, because a late response must still match.
fn lifted(row: &Row, now: StoreTime) -> Option<Applied> {
    let refused = row.verdict.as_ref().is_some_and(|verdict| verdict.by == VerdictBy::Idp);
    refused.then(|| {
        let due_at = Some(now.by_wall_clock());
        let row = Row { verdict: None, due_at, retry_at: None, last_error: None, changed_at: now, ..row.clone() };
        Applied::write(row, ChangeReply::Done)
    })
}

/// Stores an access token alone and keeps the refresh token. While that one is being spent nothing is stored: a new
/// generation would hide that the row's token belongs to the request in flight.
fn access_token_only(connect: &ConnectChange, row: &Row, found: ChangeInput<'_>) -> Applied {
    if row.tombstone.is_some() || row.refresh_token.is_none() {
        return fresh(connect, found);
    }
    if row.intent.is_some() {
        return Applied::unchanged(ChangeReply::Unchanged(Unchanged::RefreshInFlight));
    }
    let stored = Row {
        generation: row.generation.max(found.floor).next(),
        document: connect.document.clone(),
        issued_at: connect.issued_at,
        expires: connect.expires,
        due_at: connect.due_at,
        retry_at: None,
        last_error: None,
        changed_at: found.now,
        ..row.clone()
    };
    Applied::write(stored, ChangeReply::Done)
}

/// Writes the tombstone immediately. If a request is in flight, tokens are revoked after it has settled.
pub(super) fn disconnect(disconnect: &DisconnectChange, row: &Row, now: StoreTime) -> Applied {
    if let Some(tombstone) = row.tombstone {
        if tombstone.purge || !disconnect.purge {
            return Applied::unchanged(ChangeReply::Done);
        }
        let tombstone = Some(Tombstone { purge: true, ..tombstone });
        return Applied::write(Row { tombstone, ..row.clone() }, ChangeReply::Done);
    }
    let DisconnectChange { revoke, unrevocable, purge, ref access_token } = *disconnect;
    let lone = access_token.as_ref().filter(|_| revoke && row.refresh_token.is_none());
    let restorable = row.verdict.is_none() && row.intent.is_none() && lone.is_none();
    let tombstone = Some(Tombstone { at: now, revoke, restorable, purge, unrevocable });
    let generation = row.generation.next();
    let mut applied =
        Applied::write(Row { tombstone, generation, lease: None, changed_at: now, ..row.clone() }, ChangeReply::Done);
    // A token that was or may have been sent must not be connected under another key, which would send it again.
    if let (Some(_), Some(token)) =
        (row.intent.as_ref().filter(|sent| sent.generation == row.generation), &row.refresh_token)
    {
        applied = applied.with(Side::Spent(token.fingerprint));
    }
    if let Some(token) = lone {
        applied = applied.with(Side::Revoke(token.clone()));
    }
    if revoke && row.intent.is_none() { applied.revoking(row) } else { applied }
}

/// Undoes a disconnect, unless a token of the grant is, or may be, revoked, spent or another key's by now.
///
/// The incarnation stays: a response that is still on its way belongs to this grant and has to find its place in it. To
/// a new incarnation it would be the response of a grant that no longer exists, and its revocation would end this one.
pub(super) fn restore(row: &Row, found: ChangeInput<'_>) -> Applied {
    let Some(tombstone) = row.tombstone else { return Applied::unchanged(ChangeReply::Done) };
    let tokens_live = match found.known {
        LookupResult::Unrevoked => true,
        LookupResult::New => !tombstone.revoke,
        LookupResult::Spent | LookupResult::Elsewhere | LookupResult::Revoking => false,
    };
    if !tombstone.restorable || !tokens_live {
        return Applied::refused();
    }
    let (generation, due_at) = (row.generation.next(), Some(found.now.by_wall_clock()));
    let (retry_at, last_error, changed_at) = (None, None, found.now);
    let restored = Row { tombstone: None, generation, due_at, retry_at, last_error, changed_at, ..row.clone() };
    let mut applied = Applied::write(restored, ChangeReply::Done);
    applied.sides.extend(row.refresh_tokens().cloned().map(Side::Keep));
    applied
}

/// Requires consent until the next connect.
pub(super) fn verdict(row: &Row, evidence: Evidence, by: VerdictBy, now: StoreTime) -> Applied {
    if row.tombstone.is_some() {
        return Applied::refused();
    }
    let since = row.verdict.as_ref().map_or(now, |verdict| verdict.since);
    let verdict = Some(Box::new(Verdict { evidence, since, by }));
    Applied::write(Row { verdict, changed_at: now, ..row.clone() }, ChangeReply::Done)
}

/// Puts the row on hold: no attempt starts until the release; a running one goes on, and its response is stored.
/// `changed_at` stays: a doubt that is raised about this row counts its grace from there.
pub(super) fn hold(reason: &str, row: &Row) -> Applied {
    if row.tombstone.is_some() {
        return Applied::refused();
    }
    if row.held.as_deref() == Some(reason) {
        return Applied::unchanged(ChangeReply::Done);
    }
    Applied::write(Row { held: Some(reason.to_owned()), ..row.clone() }, ChangeReply::Done)
}

/// Ends a hold, also of a tombstone: the next connect would keep it.
pub(super) fn release(row: &Row) -> Applied {
    if row.held.is_none() {
        return Applied::unchanged(ChangeReply::Done);
    }
    Applied::write(Row { held: None, ..row.clone() }, ChangeReply::Done)
}

/// Deletes a tombstone of which nothing is pending. The tokens that it held are remembered like those that it was
/// connected with: a replay restores nothing, and a token that was not revoked may be connected under another key, as
/// before.
pub(super) fn purge(row: &Row, found: ChangeInput<'_>) -> Applied {
    let kept = if row.tombstone.is_none() {
        Some(PurgeRefusal::Connected)
    } else if row.intent.is_some() {
        Some(PurgeRefusal::InDoubt)
    } else {
        (found.known == LookupResult::Revoking).then_some(PurgeRefusal::Revoking)
    };
    if let Some(kept) = kept {
        return Applied::unchanged(ChangeReply::NotPurged(kept));
    }
    let mut applied = Applied::unchanged(ChangeReply::Done);
    applied.sides.extend(row.refresh_tokens().map(|token| Side::Connected(token.fingerprint)));
    applied.with(Side::Purge(row.generation.max(found.floor)))
}
