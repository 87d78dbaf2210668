//! Which keys sealed the stored values, and the rows and queued revocations to seal again.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, SelectableHelper as _,
    sql_types::{BigInt, Binary, Bool, Nullable},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{Shared, failure::OperationError, statement::sql};
use crate::{
    keyring::KeyId,
    model::{Sealed, TokenKey},
    protocol::Resealed,
    store::{
        KeyUse, QueuedRevocation, RowPosition, SealedPage,
        key_use::{AlikeSealed, alt_begins, alt_of, key_use as added_up},
        record::GrantRecord,
        schema::grants,
    },
};

pub(super) async fn key_use(connection: &mut AsyncPgConnection) -> Result<Vec<KeyUse>, OperationError> {
    const ROWS: &str = concat!(
        "SELECT substr(document, 2, 4), substr(refresh_token, 2, 4), convert_to(substring(alt FROM '",
        alt_begins!(),
        "([0-9a-f]{8})'), 'UTF8'), count(*) FROM grants GROUP BY 1, 2, 3"
    );
    const QUEUED: &str = "SELECT substr(token, 2, 4), count(*) FROM revocations GROUP BY 1";
    let rows = sql::<(Nullable<Binary>, Nullable<Binary>, Nullable<Binary>, BigInt)>(ROWS);
    let rows = rows.load::<AlikeSealed>(connection).await?;
    let queued = sql::<(Nullable<Binary>, BigInt)>(QUEUED);
    let queued = queued.load::<(Option<Vec<u8>>, i64)>(connection).await?;
    Ok(added_up(rows, queued))
}

pub(super) async fn sealed_by_others(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    active: KeyId,
    RowPosition(after): RowPosition,
    limit: u32,
) -> Result<SealedPage, OperationError> {
    let id = active.bytes();
    let looked = sql::<(BigInt, Bool)>("SELECT id, substr(document, 2, 4) <> ")
        .bytes(&id)
        .sql(" OR coalesce(substr(refresh_token, 2, 4) <> ")
        .bytes(&id)
        .sql(", FALSE) OR coalesce(position(")
        .name(&alt_of(active))
        .sql(" IN alt) = 0, FALSE) FROM grants WHERE id > ")
        .long(after)
        .sql(" ORDER BY id LIMIT ")
        .long(limit.into());
    let looked = looked.load::<(i64, bool)>(connection).await?;
    let next = looked.last().filter(|_| looked.len() == limit as usize).map(|(id, _)| RowPosition(*id));
    let ids: Vec<_> = looked.into_iter().filter(|(_, others)| *others).map(|(id, _)| id).collect();
    let mut page = SealedPage { rows: Vec::new(), unreadable: 0, next };
    if ids.is_empty() {
        return Ok(page);
    }
    let found = grants::table.filter(grants::id.eq_any(ids)).order(grants::id);
    let found = found.select((grants::id, GrantRecord::as_select())).load::<(i64, GrantRecord)>(connection).await?;
    for (id, record) in found {
        match store.reader.row(id, record.key(), &record) {
            Ok(row) => page.rows.push(row),
            Err(_) => page.unreadable += 1,
        }
    }
    Ok(page)
}

/// Replaces the ciphertext of a queued revocation, if it is as it was listed. One that is queued twice by then is dropped.
pub(super) async fn reseal_revocation(
    connection: &mut AsyncPgConnection,
    revocation: &QueuedRevocation,
    resealed: &Sealed,
) -> Result<(), OperationError> {
    let QueuedRevocation { id, key, token, .. } = revocation;
    let twice = sql::<()>("DELETE FROM revocations WHERE id = ")
        .long(*id)
        .sql(" AND token = ")
        .bytes(&token.0)
        .sql(" AND EXISTS (SELECT FROM revocations WHERE user_id = ")
        .name(key.user())
        .sql(" AND idp = ")
        .name(key.idp())
        .sql(" AND account = ")
        .name(key.account_name())
        .sql(" AND sha256(token) = sha256(")
        .bytes(&resealed.0)
        .sql("))");
    twice.execute(connection).await?;
    let replaced = sql::<()>("UPDATE revocations SET token = ")
        .bytes(&resealed.0)
        .sql(" WHERE id = ")
        .long(*id)
        .sql(" AND token = ")
        .bytes(&token.0);
    replaced.execute(connection).await?;
    Ok(())
}

/// Replaces the ciphertext of the key's queued revocation of a token.
pub(super) async fn reseal_queued(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    Resealed { from, to }: &Resealed,
) -> Result<(), OperationError> {
    let queued = sql::<()>("UPDATE revocations SET token = ")
        .bytes(&to.0)
        .sql(" WHERE user_id = ")
        .name(key.user())
        .sql(" AND idp = ")
        .name(key.idp())
        .sql(" AND account = ")
        .name(key.account_name())
        .sql(" AND sha256(token) = sha256(")
        .bytes(&from.0)
        .sql(")");
    queued.execute(connection).await?;
    Ok(())
}
