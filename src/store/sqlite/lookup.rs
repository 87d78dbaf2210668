//! What the tables beside the rows say about refresh tokens.

use diesel::{dsl::exists, prelude::*};

use super::statement::FindSpent;
use crate::{
    model::{Fingerprint, Row, Spendable, TokenKey},
    protocol::LookupResult,
    store::{
        schema::{fingerprints, grants, purged, revocations, spent as spent_tokens},
        spent::{self, SpentTokens},
        stored::Stored,
    },
};

pub(super) fn known(
    connection: &mut SqliteConnection,
    key: &TokenKey,
    fingerprint: Fingerprint,
    id: Option<i64>,
) -> QueryResult<LookupResult> {
    let (found, fingerprint, own) = (fingerprint, fingerprint.0.to_vec(), id.unwrap_or(0));
    let before = purged::table.filter(purged::key_hash.eq(hash(key))).select(purged::grant_row);
    let seen = fingerprints::table
        .filter(fingerprints::fingerprint.eq(&fingerprint))
        .filter(fingerprints::grant_row.eq(own).or(fingerprints::grant_row.eq_any(before)));
    if diesel::select(exists(seen)).get_result(connection)? || spent_by(connection, key, own, found)? {
        return Ok(LookupResult::Spent);
    }
    let live = held_elsewhere(&fingerprint, own).filter(grants::tombstone.is_null());
    let elsewhere: bool = diesel::select(exists(live)).get_result(connection)?;
    let elsewhere = elsewhere || diesel::select(exists(spent_elsewhere(&fingerprint, own))).get_result(connection)?;
    Ok(if elsewhere { LookupResult::Elsewhere } else { LookupResult::New })
}

/// Returns whether the key's row or an earlier one, which was purged, has spent the token.
fn spent_by(connection: &mut SqliteConnection, key: &TokenKey, own: i64, token: Fingerprint) -> QueryResult<bool> {
    let before = purged::table.filter(purged::key_hash.eq(hash(key))).select(purged::grant_row);
    let of_key = spent_tokens::grant_row.eq(own).or(spent_tokens::grant_row.eq_any(before));
    let all = spent_tokens::table.filter(of_key).select(spent_tokens::tokens).load::<Vec<u8>>(connection)?;
    Ok(all.iter().any(|tokens| spent::contains(tokens, token)))
}

/// Returns whether the row holds a refresh token that it has spent: then the row is from before that.
pub(super) fn spent_already(connection: &mut SqliteConnection, stored: &mut Stored) -> QueryResult<LookupResult> {
    let Some(held) = held(&stored.row) else { return Ok(LookupResult::New) };
    let spent = match &stored.spent {
        Some(spent) => spent,
        None => stored.spent.insert(read_spent(connection, stored.id)?),
    };
    let was_spent = spent.contains(held) || spent.is_after(&stored.row);
    // What an earlier version of the program remembered is there until the grant's next refresh.
    let was_spent = was_spent || (spent.is_unknown() && is_marked_spent(connection, held, stored.id)?);
    Ok(if was_spent { LookupResult::Spent } else { LookupResult::New })
}

/// Reads the newest refresh tokens that the grant has spent.
pub(super) fn read_spent(connection: &mut SqliteConnection, grant: i64) -> QueryResult<SpentTokens> {
    let found = FindSpent { grant }.get_result::<(i64, Vec<u8>)>(connection).optional()?;
    Ok(SpentTokens::stored(found))
}

pub(super) fn is_marked_spent(
    connection: &mut SqliteConnection,
    Fingerprint(token): Fingerprint,
    id: i64,
) -> QueryResult<bool> {
    let spent = fingerprints::table.find((token.as_slice(), id)).select(fingerprints::spent);
    Ok(spent.get_result::<bool>(connection).optional()? == Some(true))
}

/// Returns whether a token with one of these fingerprints is live or spent.
pub(super) fn known_as_any(connection: &mut SqliteConnection, fingerprints: &[Fingerprint]) -> QueryResult<bool> {
    for Fingerprint(fingerprint) in fingerprints {
        let live = held_elsewhere(fingerprint, 0).filter(grants::tombstone.is_null());
        if diesel::select(exists(live)).get_result(connection)?
            || diesel::select(exists(spent_elsewhere(fingerprint, 0))).get_result(connection)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks up the tokens of a disconnected row. Another tombstone that holds one of them may be revoking it.
pub(super) fn restorable(connection: &mut SqliteConnection, row: &Row, own: i64) -> QueryResult<LookupResult> {
    let mut unrevoked = true;
    for Spendable { sealed, fingerprint } in row.refresh_tokens() {
        let held: bool = diesel::select(exists(held_elsewhere(&fingerprint.0, own))).get_result(connection)?;
        if held || diesel::select(exists(spent_elsewhere(&fingerprint.0, own))).get_result(connection)? {
            return Ok(LookupResult::Elsewhere);
        }
        let queued = revocation_of(row.key.idp(), row.key.user(), row.key.account_name(), &sealed.0)
            .filter(revocations::failures.eq(0));
        unrevoked &= diesel::select(exists(queued)).get_result::<bool>(connection)?;
    }
    Ok(if unrevoked { LookupResult::Unrevoked } else { LookupResult::New })
}

pub(super) fn revoking_any(connection: &mut SqliteConnection, key: &TokenKey) -> QueryResult<LookupResult> {
    let queued = revocations_of(key.idp(), key.user(), key.account_name());
    let any = diesel::select(exists(queued)).get_result(connection)?;
    Ok(if any { LookupResult::Revoking } else { LookupResult::New })
}

#[diesel::dsl::auto_type]
fn held_elsewhere<'a>(fingerprint: &'a [u8], own: i64) -> _ {
    grants::table.filter(grants::fingerprint.eq(fingerprint)).filter(grants::id.ne(own))
}

#[diesel::dsl::auto_type]
fn spent_elsewhere<'a>(fingerprint: &'a [u8], own: i64) -> _ {
    fingerprints::table
        .filter(fingerprints::fingerprint.eq(fingerprint))
        .filter(fingerprints::grant_row.ne(own))
        .filter(fingerprints::spent.eq(true))
}

pub(super) fn held(row: &Row) -> Option<Fingerprint> {
    row.refresh_token.as_ref().map(|token| token.fingerprint)
}

pub(super) fn hash(key: &TokenKey) -> i64 {
    key.stable_hash().cast_signed()
}

#[diesel::dsl::auto_type]
pub(super) fn revocations_of<'a>(idp: &'a str, user: &'a str, account: &'a str) -> _ {
    revocations::table
        .filter(revocations::idp.eq(idp))
        .filter(revocations::user_id.eq(user))
        .filter(revocations::account.eq(account))
}

#[diesel::dsl::auto_type]
pub(super) fn revocation_of<'a>(idp: &'a str, user: &'a str, account: &'a str, token: &'a [u8]) -> _ {
    revocations::table
        .filter(revocations::idp.eq(idp))
        .filter(revocations::user_id.eq(user))
        .filter(revocations::account.eq(account))
        .filter(revocations::token.eq(token))
}
