//! Between plaintext and rows: responses become commits, grants become connects, rows become tokens.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    clock::Reading,
    code::EvidenceCode,
    error::Error,
    idp::{IdpFailure, RefreshLifetime, TokenResponse},
    keyring::{Field, Keyring, OpenError},
    model::{
        AccessToken, BootTime, Expires, Expiry, Exposed, Generation, Grant, Id, Issued, Lifetime, Publication,
        RefreshToken, Row, Sealed, Spendable, TokenKey, WallTime,
    },
    protocol::{AttemptFault, Commit, ConnectChange, Expected, Unfinished, attempt::Claimed, schedule::due_at},
    supervisor::provider::Provider,
};

/// The document that is sealed beside the refresh token. A stored format: it grows by optional fields only.
#[derive(Serialize, Deserialize)]
struct GrantDocument {
    /// Empty if the grant was connected without an access token and was not refreshed yet.
    access_token: String,
    token_type: String,
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    params: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    extra: serde_json::Map<String, serde_json::Value>,
    /// What callers get beside the token, from the newest response that had it.
    #[serde(default, skip_serializing_if = "is_empty")]
    exposed: Exposed,
    /// The scheme of `Authorization` headers, where the provider has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    /// The lifetime of the access token in milliseconds, as a response stated it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_lifetime: Option<u64>,
    /// Whether the end of the access token was stated, not assumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    told_end: bool,
}

fn is_empty(exposed: &Exposed) -> bool {
    exposed.0.is_empty()
}

impl Drop for GrantDocument {
    fn drop(&mut self) {
        self.access_token.zeroize();
    }
}

/// A response as it is stored, and as it can be published.
pub(super) struct Landing {
    pub(super) commit: Commit,
    grant_id: String,
    /// Absent if the response has no valid access token.
    access_token: Option<AccessToken>,
    token_type: String,
    scope: String,
    exposed: Exposed,
    scheme: Option<String>,
    boot_end: Option<BootTime>,
}

impl Landing {
    /// Returns the token, to be published at `generation`.
    pub(super) fn issued(&self, key: &TokenKey, generation: Generation, journaled: bool) -> Option<Issued> {
        Some(Issued::new(Publication {
            key,
            grant_id: &self.grant_id,
            access_token: self.access_token.clone()?,
            token_type: &self.token_type,
            scope: &self.scope,
            expires: self.commit.expires,
            generation,
            due_at: self.commit.due_at,
            boot_end: self.boot_end,
            journaled,
            exposed: &self.exposed,
            scheme: self.scheme.as_deref(),
        }))
    }
}

/// The request that a response belongs to.
pub(super) struct Sent<'a> {
    pub(super) key: &'a TokenKey,
    pub(super) attempt: Id,
    pub(super) claimed: Claimed,
    /// The moment before the request was written.
    pub(super) at: Reading,
    /// The row whose refresh token was sent.
    pub(super) row: &'a Row,
}

/// Completes a response by what is known of the grant: the lifetime of the access token, if the response does not say it.
/// An access token that has expired already counts as none.
///
/// A lifetime that is missing is the one that this grant was last told; otherwise the one of the provider's settings;
/// otherwise the one that another grant of the provider was told; otherwise an hour. The same access token as before keeps
/// the end that was stated for it.
pub(super) fn complete(keyring: &Keyring, provider: &Provider, row: &Row, now: WallTime, answer: &mut TokenResponse) {
    if let Some(told) = answer.expires_in {
        provider.saw_lifetime(told);
    } else {
        let old = open_document(keyring, row).ok();
        let told = old.as_ref().and_then(|old| old.told_lifetime).map(Duration::from_millis);
        answer.expires_in = match row.expires {
            Expires::At(end) if keeps_told_end(old.as_ref(), answer) => Some(end.since(now)),
            _ => Some(told.unwrap_or_else(|| provider.usual_lifetime().unwrap_or(HOUR))),
        };
    }
    if answer.expires_in.is_some_and(|life| life.is_zero()) && answer.access_token.is_ok() {
        answer.access_token = Err(IdpFailure::ours(EvidenceCode::ExpiredAccessToken));
    }
}

/// Returns whether a response without a lifetime repeats an access token whose end was stated.
fn keeps_told_end(old: Option<&GrantDocument>, answer: &TokenResponse) -> bool {
    let new = answer.access_token.as_ref().ok();
    let same = old.zip(new).filter(|(old, new)| old.access_token == new.expose_secret());
    same.is_some_and(|(old, _)| old.told_end)
}

/// The lifetime of an access token of which nothing is known, beside a refresh token.
const HOUR: Duration = Duration::from_secs(3_600);

/// Seals a response; `retry_at` is when to try again if it has no access token.
///
/// The lifetime counts from the moment of sending, by the boot-time clock too; if the token had been sent
/// before, the response may be a replay, and the lifetime counts from the first time.
pub(super) fn land(
    keyring: &Keyring,
    provider: &Provider,
    sent: &Sent<'_>,
    answer: TokenResponse,
    retry_at: WallTime,
) -> Landing {
    let Sent { key, attempt, claimed, at, row } = sent;
    let answered_at = claimed.first_sent.map_or(at.wall, |first| first.by_wall_clock().min(at.wall));
    // A row that does not open loses its extra fields, not its new tokens.
    let old = open_document(keyring, row).ok();
    let told_lifetime = answer.expires_in.filter(|_| answer.told_lifetime).map(|life| life.as_millis() as u64);
    let told_end = answer.told_lifetime || keeps_told_end(old.as_ref(), &answer);
    let mut document = GrantDocument {
        access_token: String::new(),
        token_type: answer.token_type.unwrap_or_else(|| "Bearer".to_owned()),
        scope: answer.scope.or(old.as_ref().map(|old| old.scope.clone())).unwrap_or_default(),
        subject: old.as_ref().and_then(|old| old.subject.clone()).or(answer.subject),
        params: old.as_ref().map(|old| old.params.clone()).unwrap_or_default(),
        extra: old.as_ref().map(|old| old.extra.clone()).unwrap_or_default(),
        exposed: old.as_ref().map(|old| old.exposed.clone()).unwrap_or_default(),
        scheme: provider.idp.authorization_scheme.clone(),
        told_lifetime: told_lifetime.or(old.as_ref().and_then(|old| old.told_lifetime)),
        told_end,
    };
    document.exposed.0.extend(answer.exposed.0);
    let refresh_expires = match answer.refresh_expires {
        Some(RefreshLifetime::In(life)) => Some(Expires::At(answered_at + life)),
        Some(RefreshLifetime::Never) => Some(Expires::Never),
        None if answer.access_token.is_err() => None,
        // An expiry that the provider stated is not moved by an assumed one.
        None => provider.idp.refresh_lifetime.and_then(|life| {
            let assumed = [Expires::Unknown, end(row.issued_at, life)].contains(&row.refresh_expires);
            assumed.then(|| end(answered_at, life))
        }),
    };
    let (issued_at, expires, unfinished) = match &answer.access_token {
        Ok(token) => {
            token.expose_secret().clone_into(&mut document.access_token);
            (answered_at, answer.expires_in.map_or(Expires::Unknown, |life| end(answered_at, life)), None)
        }
        Err(failure) => {
            let fault = AttemptFault { cause: failure.cause(), evidence: failure.evidence.clone() };
            let unfinished = Some(Box::new(Unfinished { fault, retry_at }));
            // The old access token goes on as long as it is valid, unless the refresh has ended it.
            match old.as_ref().filter(|_| !provider.idp.rotation_ends_access_token) {
                Some(old) => {
                    document.access_token.clone_from(&old.access_token);
                    document.token_type.clone_from(&old.token_type);
                    document.told_end = old.told_end;
                    (row.issued_at, row.expires, unfinished)
                }
                None => (answered_at, Expires::At(answered_at), unfinished),
            }
        }
    };
    let ends = [expires, refresh_expires.unwrap_or(row.refresh_expires)];
    let commit = Commit {
        attempt: *attempt,
        epoch: claimed.epoch,
        incarnation: claimed.incarnation,
        generation: claimed.generation,
        parent: claimed.fingerprint,
        token: answer.refresh_token.map(|token| seal_refresh_token(keyring, key, &token)),
        document: seal_document(keyring, key, &document),
        issued_at,
        expires,
        refresh_expires,
        // Without an access token the next refresh is due as soon as the backoff is over.
        due_at: if unfinished.is_some() {
            Some(answered_at)
        } else {
            due_at(key, issued_at, ends, provider.times.margin)
        },
        revocable: provider.idp.revocable_alone(),
        unfinished,
    };
    let boot_end = expires.at().map(|end| at.boot + end.since(at.wall));
    let (token_type, scope) = (document.token_type.clone(), document.scope.clone());
    let (exposed, scheme) = (document.exposed.clone(), document.scheme.clone());
    let (grant_id, access_token) = (row.grant_id.clone(), answer.access_token.ok());
    Landing { commit, grant_id, access_token, token_type, scope, exposed, scheme, boot_end }
}

/// Seals a grant from the user's consent, with the state that its key must be in. A grant without a refresh token goes on
/// with that of `kept`, if there is one, and with what belongs to it.
pub(in crate::supervisor) fn connecting(
    keyring: &Keyring,
    provider: &Provider,
    key: &TokenKey,
    grant: Grant,
    kept: Option<&Row>,
    (only, compared): (Expected, Expected),
    now: WallTime,
) -> ConnectChange {
    let kept = kept.filter(|row| grant.refresh_token.is_none() && row.refresh_token.is_some());
    let old = kept.and_then(|row| open_document(keyring, row).ok());
    let refreshable = kept.is_some() || grant.refresh_token.is_some();
    let expires = connected_end(provider, &grant, refreshable, now);
    let told_lifetime = match grant.expiry {
        Lifetime::For(life) => Some(life.as_millis() as u64),
        Lifetime::Until(_) => old.as_ref().and_then(|old| old.told_lifetime),
    };
    let refresh_expires = match ends(grant.refresh_expiry, now) {
        _ if kept.is_some() => kept.map_or(Expires::Unknown, |row| row.refresh_expires),
        Expires::Unknown if grant.refresh_token.is_some() => {
            provider.idp.refresh_lifetime.map_or(Expires::Unknown, |life| end(now, life))
        }
        known => known,
    };
    let mut exposed = old.as_ref().map(|old| old.exposed.clone()).unwrap_or_default();
    exposed.0.extend(grant.exposed.0);
    let document = GrantDocument {
        access_token: grant.access_token.map_or_else(String::new, |token| token.expose_secret().to_owned()),
        token_type: grant.token_type,
        scope: grant.scope,
        subject: grant.subject.or(old.as_ref().and_then(|old| old.subject.clone())),
        params: old.as_ref().map_or(grant.params, |old| old.params.clone()),
        extra: grant.extra,
        exposed,
        scheme: provider.idp.authorization_scheme.clone(),
        told_lifetime,
        told_end: !matches!(grant.expiry, Lifetime::Until(Expiry::Unknown)),
    };
    ConnectChange {
        key: key.clone(),
        incarnation: Id::random(),
        client_id: grant.client_id.or_else(|| Some(provider.idp.clients[0].client_id.clone())),
        token: grant.refresh_token.map(|token| seal_refresh_token(keyring, key, &token)),
        elsewhere: Vec::new(),
        document: seal_document(keyring, key, &document),
        issued_at: now,
        expires,
        refresh_expires,
        due_at: due_at(key, now, [expires, refresh_expires], provider.times.margin).filter(|_| refreshable),
        cancels_revocations: !provider.idp.revocable_alone(),
        only,
        compared,
    }
}

/// When the access token of a grant from the user's consent expires; `refreshable` if the grant brings a refresh token, or
/// goes on with one that is stored.
fn connected_end(provider: &Provider, grant: &Grant, refreshable: bool, now: WallTime) -> Expires {
    let idp = &provider.idp;
    let expires = match ends(grant.expiry, now) {
        // The grant is due at once.
        _ if grant.access_token.is_none() => return Expires::At(now),
        // A grant that can be refreshed never lasts for ever because its response forgot a field.
        Expires::Unknown if refreshable => end(now, provider.usual_lifetime().unwrap_or(HOUR)),
        Expires::Unknown => idp.access_lifetime.map_or(Expires::Unknown, |life| end(now, life)),
        known => known,
    };
    match (expires, idp.access_lifetime_override, grant.expiry) {
        // It may be the end of a token that is not new: the settings only bring it nearer.
        (Expires::At(at), Some(life), Lifetime::Until(Expiry::At(_))) => earlier(at, end(now, life)),
        (_, Some(life), Lifetime::For(_) | Lifetime::Until(Expiry::Unknown)) => end(now, life),
        (Expires::At(at), None, _) if refreshable => earlier(at, end(now, idp.max_access_lifetime)),
        _ => expires,
    }
}

fn earlier(at: WallTime, other: Expires) -> Expires {
    Expires::At(other.at().map_or(at, |other| other.min(at)))
}

/// Opens the row's token for publication.
pub(in crate::supervisor) fn issued(keyring: &Keyring, row: &Row, now: Reading) -> Result<Issued, Error> {
    let document = open_document(keyring, row).map_err(|_| Error::Internal("the stored access token does not open"))?;
    let boot_end = row.expires.at().map(|end| now.boot + end.since(now.wall));
    // A missing token was never valid, wherever the wall clock is stepped.
    let boot_end = if document.access_token.is_empty() { Some(BootTime(0)) } else { boot_end };
    Ok(Issued::new(Publication {
        key: &row.key,
        grant_id: &row.grant_id,
        access_token: AccessToken::new(document.access_token.clone()),
        token_type: &document.token_type,
        scope: &document.scope,
        expires: row.expires,
        generation: row.generation,
        due_at: row.due_at,
        boot_end,
        journaled: false,
        exposed: &document.exposed,
        scheme: document.scheme.as_deref(),
    }))
}

/// Opens the row's refresh token and the parameters to send with it.
pub(super) fn spendable(keyring: &Keyring, row: &Row) -> Result<(RefreshToken, BTreeMap<String, String>), OpenError> {
    let sealed = &row.refresh_token.as_ref().ok_or(OpenError::TooShort)?.sealed;
    let token = open_refresh_token(keyring, &row.key, sealed)?;
    let params = open_document(keyring, row).map(|document| document.params.clone()).unwrap_or_default();
    Ok((token, params))
}

/// Returns the subject of the row's grant, where it is known.
pub(in crate::supervisor) fn subject(keyring: &Keyring, row: &Row) -> Option<String> {
    open_document(keyring, row).ok()?.subject.clone()
}

/// Returns the row's access token, sealed like a refresh token that is to be revoked; `None` if there is none.
pub(in crate::supervisor) fn lone_access_token(keyring: &Keyring, row: &Row) -> Option<Spendable> {
    let document = open_document(keyring, row).ok().filter(|document| !document.access_token.is_empty())?;
    Some(seal_refresh_token(keyring, &row.key, &document.access_token.as_str().into()))
}

/// Returns the row's access token; `None` if there is none, or if it does not open.
pub(super) fn access_token(keyring: &Keyring, row: &Row) -> Option<AccessToken> {
    let document = open_document(keyring, row).ok().filter(|document| !document.access_token.is_empty())?;
    Some(AccessToken::new(document.access_token.clone()))
}

/// Returns the parameters of the row's endpoints; none if the row does not open.
pub(in crate::supervisor) fn params(keyring: &Keyring, row: &Row) -> BTreeMap<String, String> {
    open_document(keyring, row).map(|document| document.params.clone()).unwrap_or_default()
}

/// Opens a sealed refresh token.
pub(in crate::supervisor) fn open_refresh_token(
    keyring: &Keyring,
    key: &TokenKey,
    sealed: &Sealed,
) -> Result<RefreshToken, OpenError> {
    let plain = keyring.open(key, Field::RefreshToken, sealed)?;
    std::str::from_utf8(&plain).map(RefreshToken::from).map_err(|_| OpenError::DoesNotOpen)
}

fn seal_refresh_token(keyring: &Keyring, key: &TokenKey, token: &RefreshToken) -> Spendable {
    Spendable {
        sealed: keyring.seal(key, Field::RefreshToken, token.expose_secret().as_bytes()),
        fingerprint: keyring.fingerprint(key.idp(), token),
    }
}

fn seal_document(keyring: &Keyring, key: &TokenKey, document: &GrantDocument) -> Sealed {
    let plain = Zeroizing::new(serde_json::to_vec(document).expect("plain structs have a JSON form"));
    keyring.seal(key, Field::Document, &plain)
}

fn open_document(keyring: &Keyring, row: &Row) -> Result<GrantDocument, OpenError> {
    let plain = keyring.open(&row.key, Field::Document, &row.document)?;
    serde_json::from_slice(&plain).map_err(|_| OpenError::DoesNotOpen)
}

fn ends(lifetime: Lifetime, now: WallTime) -> Expires {
    match lifetime {
        Lifetime::For(life) => end(now, life),
        Lifetime::Until(Expiry::At(time)) => Expires::At(time.into()),
        Lifetime::Until(Expiry::Never) => Expires::Never,
        Lifetime::Until(Expiry::Unknown) => Expires::Unknown,
    }
}

/// The expiry of a token that was issued then with this lifetime, rounded down to a whole second.
///
/// Providers count in whole seconds: a token that Keycloak issues at 10.9 s for 5 s carries an `exp` of 15,
/// and resource servers refuse it from then on, not from 15.9.
fn end(issued_at: WallTime, life: Duration) -> Expires {
    let end = issued_at + life;
    Expires::At(WallTime(end.0 - end.0.rem_euclid(1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_rounded_down_to_a_whole_second() {
        for (issued_at, life, expected) in [(10_900, 5_000, 15_000), (10_000, 5_000, 15_000), (10_999, 0, 10_000)] {
            let ends = end(WallTime(issued_at), Duration::from_millis(life));
            assert_eq!(ends, Expires::At(WallTime(expected)), "{issued_at} + {life}");
        }
    }
}
