//! What the tables beside the rows say about refresh tokens, and the locks that make it last until the commit.
//!
//! SQLite's store has one writer. Here, connections that connect or restore the same refresh token exclude each other by an
//! advisory lock on its fingerprint. A unique index would not do: a response that is stored must not be refused because of another key,
//! and the fingerprints of one token at two providers differ.

use diesel::{
    OptionalExtension as _,
    sql_types::{BigInt, Binary, Bool},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{failure::OperationError, statement::sql};
use crate::{
    model::{Fingerprint, Row, TokenKey},
    protocol::LookupResult,
    store::spent,
};

/// Holds up other transactions that lock one of these tokens until this one ends.
pub(super) async fn lock_tokens(
    connection: &mut AsyncPgConnection,
    tokens: impl IntoIterator<Item = Fingerprint>,
) -> Result<(), OperationError> {
    let beginning = |token: Fingerprint| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&token.0[..8]);
        i64::from_le_bytes(bytes)
    };
    let mut locks: Vec<_> = tokens.into_iter().map(beginning).collect();
    // In one order everywhere, so that no two transactions wait for each other.
    locks.sort_unstable();
    locks.dedup();
    for lock in locks {
        exclusive(connection, lock).await?;
    }
    Ok(())
}

/// Holds up other transactions that lock this key, which has no row that could be locked.
pub(super) async fn lock_key(connection: &mut AsyncPgConnection, key: &TokenKey) -> Result<(), OperationError> {
    exclusive(connection, hash(key)).await
}

/// Holds up purges, which raise the generation above which new rows start.
pub(super) async fn lock_floor(connection: &mut AsyncPgConnection) -> Result<(), OperationError> {
    sql::<()>("SELECT pg_advisory_xact_lock_shared(").long(FLOOR).sql(")").execute(connection).await?;
    Ok(())
}

/// Holds up inserts of rows, whose generation starts above the one that this transaction raises.
pub(super) async fn lock_floor_to_raise(connection: &mut AsyncPgConnection) -> Result<(), OperationError> {
    exclusive(connection, FLOOR).await
}

/// An arbitrary number.
const FLOOR: i64 = 0x746f_6b65_6e5f_666c;

async fn exclusive(connection: &mut AsyncPgConnection, lock: i64) -> Result<(), OperationError> {
    sql::<()>("SELECT pg_advisory_xact_lock(").long(lock).sql(")").execute(connection).await?;
    Ok(())
}

pub(super) async fn known(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    fingerprint: Fingerprint,
    id: Option<i64>,
) -> Result<LookupResult, OperationError> {
    let (own, token) = (id.unwrap_or(0), fingerprint.0.as_slice());
    let seen = sql::<(Bool, Bool)>("SELECT EXISTS (SELECT FROM fingerprints WHERE fingerprint = ")
        .bytes(token)
        .sql(" AND (grant_row = ")
        .long(own)
        .sql(" OR grant_row IN (SELECT grant_row FROM purged WHERE key_hash = ")
        .long(hash(key))
        .sql("))), EXISTS (SELECT FROM grants WHERE fingerprint = ")
        .bytes(token)
        .sql(" AND id <> ")
        .long(own)
        .sql(" AND tombstone IS NULL) OR EXISTS (SELECT FROM fingerprints WHERE fingerprint = ")
        .bytes(token)
        .sql(" AND grant_row <> ")
        .long(own)
        .sql(" AND spent)");
    let (seen, elsewhere) = seen.get_result::<(bool, bool)>(connection).await?;
    if seen || spent_by(connection, key, own, fingerprint).await? {
        return Ok(LookupResult::Spent);
    }
    Ok(if elsewhere { LookupResult::Elsewhere } else { LookupResult::New })
}

/// Returns whether the key's row or an earlier one, which was purged, has spent the token.
async fn spent_by(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    own: i64,
    token: Fingerprint,
) -> Result<bool, OperationError> {
    // Two selections, each by the index: with OR, the whole table is read.
    let all = sql::<Binary>("SELECT tokens FROM spent WHERE grant_row = ")
        .long(own)
        .sql(
            " UNION ALL SELECT tokens FROM spent WHERE grant_row = \
             ANY (ARRAY(SELECT grant_row FROM purged WHERE key_hash = ",
        )
        .long(hash(key))
        .sql("))");
    let all = all.load::<Vec<u8>>(connection).await?;
    Ok(all.iter().any(|tokens| spent::contains(tokens, token)))
}

/// Returns whether a fingerprint is marked as spent by this row.
pub(super) async fn is_marked_spent(
    connection: &mut AsyncPgConnection,
    Fingerprint(token): Fingerprint,
    id: i64,
) -> Result<bool, OperationError> {
    let spent =
        sql::<Bool>("SELECT spent FROM fingerprints WHERE fingerprint = ").bytes(&token).sql(" AND grant_row = ");
    Ok(spent.long(id).get_result::<bool>(connection).await.optional()? == Some(true))
}

/// Returns whether a token with one of these fingerprints is live or spent.
pub(super) async fn known_as_any(
    connection: &mut AsyncPgConnection,
    fingerprints: &[Fingerprint],
) -> Result<bool, OperationError> {
    for Fingerprint(token) in fingerprints {
        let known = sql::<Bool>("SELECT EXISTS (SELECT FROM grants WHERE fingerprint = ")
            .bytes(token)
            .sql(" AND tombstone IS NULL) OR EXISTS (SELECT FROM fingerprints WHERE fingerprint = ")
            .bytes(token)
            .sql(" AND spent)");
        if known.get_result::<bool>(connection).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks up the tokens of a disconnected row. Another tombstone that holds one of them may be revoking it. A revocation that
/// is queued cannot begin until this transaction ends.
pub(super) async fn restorable(
    connection: &mut AsyncPgConnection,
    row: &Row,
    own: i64,
) -> Result<LookupResult, OperationError> {
    lock_tokens(connection, row.refresh_tokens().map(|token| token.fingerprint)).await?;
    let mut unrevoked = true;
    for token in row.refresh_tokens() {
        let Fingerprint(fingerprint) = &token.fingerprint;
        let elsewhere = sql::<Bool>("SELECT EXISTS (SELECT FROM grants WHERE fingerprint = ")
            .bytes(fingerprint)
            .sql(" AND id <> ")
            .long(own)
            .sql(") OR EXISTS (SELECT FROM fingerprints WHERE fingerprint = ")
            .bytes(fingerprint)
            .sql(" AND grant_row <> ")
            .long(own)
            .sql(" AND spent)");
        if elsewhere.get_result::<bool>(connection).await? {
            return Ok(LookupResult::Elsewhere);
        }
        let queued = sql::<BigInt>("SELECT id FROM revocations WHERE user_id = ")
            .name(row.key.user())
            .sql(" AND idp = ")
            .name(row.key.idp())
            .sql(" AND account = ")
            .name(row.key.account_name())
            .sql(" AND sha256(token) = sha256(")
            .bytes(&token.sealed.0)
            .sql(") AND failures = 0 FOR UPDATE");
        unrevoked &= !queued.load::<i64>(connection).await?.is_empty();
    }
    Ok(if unrevoked { LookupResult::Unrevoked } else { LookupResult::New })
}

pub(super) async fn revoking_any(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
) -> Result<LookupResult, OperationError> {
    let queued = sql::<Bool>("SELECT EXISTS (SELECT FROM revocations WHERE user_id = ")
        .name(key.user())
        .sql(" AND idp = ")
        .name(key.idp())
        .sql(" AND account = ")
        .name(key.account_name())
        .sql(")");
    let any = queued.get_result::<bool>(connection).await?;
    Ok(if any { LookupResult::Revoking } else { LookupResult::New })
}

pub(super) fn hash(key: &TokenKey) -> i64 {
    key.stable_hash().cast_signed()
}
