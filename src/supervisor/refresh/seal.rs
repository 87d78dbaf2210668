//! Between plaintext and rows: responses become commits, grants become connects, rows become tokens.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    clock::Reading,
    error::Error,
    idp::{RefreshLifetime, TokenResponse},
    keyring::{Field, Keyring, OpenError},
    model::{
        AccessToken, BootTime, Expires, Expiry, Generation, Grant, Id, Issued, Lifetime, RefreshToken, Row, Sealed,
        Spendable, TokenKey, WallTime,
    },
    protocol::{Commit, ConnectChange, Expected, attempt::Claimed, schedule::due_at},
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
}

impl Drop for GrantDocument {
    fn drop(&mut self) {
        self.access_token.zeroize();
    }
}

/// A response as it is stored, and as it can be published.
pub(super) struct Landing {
    pub(super) commit: Commit,
    access_token: AccessToken,
    token_type: String,
    scope: String,
    boot_end: Option<BootTime>,
}

impl Landing {
    /// Returns the token, to be published at `generation`.
    pub(super) fn issued(&self, generation: Generation, journaled: bool) -> Issued {
        Issued::new(
            self.access_token.clone(),
            &self.token_type,
            &self.scope,
            self.commit.expires,
            generation,
            self.commit.due_at,
            self.boot_end,
            journaled,
        )
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

/// Seals a response.
///
/// The lifetime counts from the moment of sending, by the boot-time clock too; if the token had been sent
/// before, the response may be a replay, and the lifetime counts from the first time.
pub(super) fn land(keyring: &Keyring, provider: &Provider, sent: &Sent<'_>, answer: TokenResponse) -> Landing {
    let Sent { key, attempt, claimed, at, row } = sent;
    let issued_at = claimed.first_sent.map_or(at.wall, |first| first.by_wall_clock().min(at.wall));
    let lifetime = answer.expires_in.or(provider.idp.access_lifetime);
    let expires = lifetime.map_or(Expires::Unknown, |life| end(issued_at, life));
    // A row that does not open loses its extra fields, not its new tokens.
    let old = open_document(keyring, row).ok();
    let token_type = answer.token_type.unwrap_or_else(|| "Bearer".to_owned());
    let scope = answer.scope.or(old.as_ref().map(|old| old.scope.clone())).unwrap_or_default();
    let document = GrantDocument {
        access_token: answer.access_token.expose_secret().to_owned(),
        token_type: token_type.clone(),
        scope: scope.clone(),
        subject: old.as_ref().and_then(|old| old.subject.clone()).or(answer.subject),
        params: old.as_ref().map(|old| old.params.clone()).unwrap_or_default(),
        extra: old.as_ref().map(|old| old.extra.clone()).unwrap_or_default(),
    };
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
        refresh_expires: match answer.refresh_expires {
            Some(RefreshLifetime::In(life)) => Some(Expires::At(issued_at + life)),
            Some(RefreshLifetime::Never) => Some(Expires::Never),
            // An expiry that the provider stated is not moved by an assumed one.
            None => provider.idp.refresh_lifetime.and_then(|life| {
                let assumed = [Expires::Unknown, end(row.issued_at, life)].contains(&row.refresh_expires);
                assumed.then(|| end(issued_at, life))
            }),
        },
        due_at: due_at(key, issued_at, expires, provider.times.margin),
        revocable: provider.idp.revocable_alone(),
    };
    let boot_end = expires.at().map(|end| at.boot + end.since(at.wall));
    Landing { commit, access_token: answer.access_token, token_type, scope, boot_end }
}

/// Seals a grant from the user's consent, with the state that its key must be in.
pub(in crate::supervisor) fn connecting(
    keyring: &Keyring,
    provider: &Provider,
    key: &TokenKey,
    grant: Grant,
    (only, compared): (Expected, Expected),
    now: WallTime,
) -> ConnectChange {
    let expires = match ends(grant.expiry, now) {
        // The grant is due at once.
        _ if grant.access_token.is_none() => Expires::At(now),
        Expires::Unknown => provider.idp.access_lifetime.map_or(Expires::Unknown, |life| end(now, life)),
        known => known,
    };
    let refresh_expires = match ends(grant.refresh_expiry, now) {
        Expires::Unknown if grant.refresh_token.is_some() => {
            provider.idp.refresh_lifetime.map_or(Expires::Unknown, |life| end(now, life))
        }
        known => known,
    };
    let document = GrantDocument {
        access_token: grant.access_token.map_or_else(String::new, |token| token.expose_secret().to_owned()),
        token_type: grant.token_type,
        scope: grant.scope,
        subject: grant.subject,
        params: grant.params,
        extra: grant.extra,
    };
    ConnectChange {
        key: key.clone(),
        incarnation: Id::random(),
        client_id: grant.client_id.or_else(|| Some(provider.idp.clients[0].client_id.clone())),
        token: grant.refresh_token.map(|token| seal_refresh_token(keyring, key, &token)),
        document: seal_document(keyring, key, &document),
        issued_at: now,
        expires,
        refresh_expires,
        due_at: due_at(key, now, expires, provider.times.margin),
        cancels_revocations: !provider.idp.revocable_alone(),
        only,
        compared,
    }
}

/// Opens the row's token for publication.
pub(in crate::supervisor) fn issued(keyring: &Keyring, row: &Row, now: Reading) -> Result<Issued, Error> {
    let document = open_document(keyring, row).map_err(|_| Error::Internal("the stored access token does not open"))?;
    let boot_end = row.expires.at().map(|end| now.boot + end.since(now.wall));
    // A missing token was never valid, wherever the wall clock is stepped.
    let boot_end = if document.access_token.is_empty() { Some(BootTime(0)) } else { boot_end };
    Ok(Issued::new(
        AccessToken::new(document.access_token.clone()),
        &document.token_type,
        &document.scope,
        row.expires,
        row.generation,
        row.due_at,
        boot_end,
        false,
    ))
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
