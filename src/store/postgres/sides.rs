//! What a change writes beside its row.

use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{
    failure::OperationError,
    lookup::{hash, lock_floor_to_raise},
    meta,
    sealed::reseal_queued,
    statement::sql,
};
use crate::{
    model::{Fingerprint, Generation, Sealed, StoreTime, TokenKey},
    protocol::Side,
    store::{CONNECTED_KEPT, StoreError, stored::Stored},
};

pub(super) async fn write_side(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    stored: Option<&Stored>,
    id: Option<i64>,
    side: &Side,
    now: StoreTime,
) -> Result<(), OperationError> {
    let id = id.unwrap_or(0);
    match side {
        Side::Spent(fingerprint) => remember(connection, *fingerprint, id, false, now).await,
        Side::Connected(fingerprint) => remember(connection, *fingerprint, id, true, now).await,
        Side::Revoke(token) => queue_revocation(connection, key, &token.sealed, now).await,
        Side::CancelRevocations => cancel(connection, key, None).await,
        Side::Keep(token) => cancel(connection, key, Some(&token.sealed)).await,
        Side::Reseal(value) => reseal_queued(connection, key, value).await,
        Side::Purge(floor) => purge(connection, key, id, stored.map(|stored| stored.revision), *floor).await,
    }
}

/// Deletes a row, and raises the generation above which new rows start. With a revision, only if that is the row's.
pub(super) async fn purge(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    id: i64,
    revision: Option<i64>,
    floor: Generation,
) -> Result<(), OperationError> {
    lock_floor_to_raise(connection).await?;
    let row = sql::<()>("DELETE FROM grants WHERE id = ").long(id);
    let row = match revision {
        Some(revision) => row.sql(" AND revision = ").long(revision),
        None => row,
    };
    if row.execute(connection).await? != 1 {
        return Err(StoreError::Conflict.into());
    }
    let owner =
        sql::<()>("INSERT INTO purged (grant_row, key_hash) VALUES (").long(id).sql(", ").long(hash(key)).sql(")");
    owner.execute(connection).await?;
    // Another purge may have raised it further since it was read.
    let floor = floor.max(meta::floor(connection).await?);
    meta::set_floor(connection, floor).await
}

/// Queues a revocation, unless it is queued already: a late response may be committed several times.
async fn queue_revocation(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    token: &Sealed,
    now: StoreTime,
) -> Result<(), OperationError> {
    let queued = sql::<()>("INSERT INTO revocations (idp, user_id, account, token, due_at, failures) VALUES (")
        .name(key.idp())
        .sql(", ")
        .name(key.user())
        .sql(", ")
        .name(key.account_name())
        .sql(", ")
        .bytes(&token.0)
        .sql(", ")
        .long(now.0)
        .sql(", 0) ON CONFLICT (user_id, idp, account, sha256(token)) DO NOTHING");
    queued.execute(connection).await?;
    Ok(())
}

/// Drops the queued revocations of the key: that of this token, or all.
async fn cancel(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    token: Option<&Sealed>,
) -> Result<(), OperationError> {
    let queued = sql::<()>("DELETE FROM revocations WHERE user_id = ")
        .name(key.user())
        .sql(" AND idp = ")
        .name(key.idp())
        .sql(" AND account = ")
        .name(key.account_name());
    let queued = match token {
        Some(token) => queued.sql(" AND sha256(token) = sha256(").bytes(&token.0).sql(")"),
        None => queued,
    };
    queued.execute(connection).await?;
    Ok(())
}

/// Records that the grant was connected with a refresh token or has spent it.
pub(super) async fn remember(
    connection: &mut AsyncPgConnection,
    Fingerprint(token): Fingerprint,
    grant: i64,
    connected: bool,
    now: StoreTime,
) -> Result<(), OperationError> {
    let kept = sql::<()>("INSERT INTO fingerprints (fingerprint, grant_row, connected, spent, at) VALUES (")
        .bytes(&token)
        .sql(", ")
        .long(grant)
        .sql(", ")
        .flag(connected)
        .sql(", ")
        .flag(!connected)
        .sql(", ")
        .long(now.0)
        .sql(
            ") ON CONFLICT (fingerprint, grant_row) DO UPDATE SET connected = fingerprints.connected OR excluded.connected, \
             spent = fingerprints.spent OR excluded.spent, at = excluded.at",
        );
    kept.execute(connection).await?;
    if !connected {
        return Ok(());
    }
    // Only the newest tokens that the grant was connected with are kept, and this one.
    let old = sql::<()>("DELETE FROM fingerprints WHERE grant_row = ")
        .long(grant)
        .sql(" AND fingerprint IN (SELECT fingerprint FROM fingerprints WHERE grant_row = ")
        .long(grant)
        .sql(" AND connected AND fingerprint <> ")
        .bytes(&token)
        .sql(" ORDER BY at DESC OFFSET ")
        .long(CONNECTED_KEPT - 1)
        .sql(")");
    old.execute(connection).await?;
    Ok(())
}
