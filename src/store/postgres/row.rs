//! Reads of one row.

use diesel::{
    ExpressionMethods as _, JoinOnDsl as _, NullableExpressionMethods as _, OptionalExtension as _, QueryDsl as _,
    SelectableHelper as _, declare_sql_function, dsl::AsSelect, pg::Pg,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{Shared, failure::OperationError};
use crate::{
    model::{StoreTime, TokenKey},
    store::{
        record::{Columns, GrantRecord},
        schema::{grants, spent},
        spent::SpentTokens,
        stored::Stored,
    },
};

#[declare_sql_function]
extern "SQL" {
    /// The store's time, in milliseconds.
    fn store_now() -> diesel::sql_types::BigInt;
}

/// What was found of a key.
pub(super) struct FoundRow {
    /// The row; an error if it cannot be read.
    pub(super) row: Result<Option<Stored>, OperationError>,
    /// The time of the statement that read it.
    pub(super) now: StoreTime,
}

/// Reads the row of a key with what it has spent and the time, in one statement.
pub(super) async fn find(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    key: &TokenKey,
) -> Result<FoundRow, OperationError> {
    let record: AsSelect<GrantRecord, Pg> = GrantRecord::as_select();
    let found = grants::table
        .left_join(spent::table.on(spent::grant_row.eq(grants::id)))
        .filter(grants::idp.eq(key.idp()))
        .filter(grants::user_id.eq(key.user()))
        .filter(grants::account.eq(key.account_name()))
        .select((grants::id, grants::revision, record, (spent::generation, spent::tokens).nullable(), store_now()))
        .get_result::<(i64, i64, GrantRecord, Option<(i64, Vec<u8>)>, i64)>(connection)
        .await
        .optional()?;
    let Some((id, revision, record, spent, now)) = found else {
        return Ok(FoundRow { row: Ok(None), now: time(connection, store).await? });
    };
    let row = store.reader.row(id, key.clone(), &record).map_err(OperationError::from).map(|row| {
        let is_canonical = Columns::from(&row) == Columns::from(&record);
        Some(Stored { row, id, revision, is_canonical, spent: Some(SpentTokens::stored(spent)) })
    });
    Ok(FoundRow { row, now: store.clock.read(now) })
}

/// Reads the store's time.
pub(super) async fn time(connection: &mut AsyncPgConnection, store: &Shared) -> Result<StoreTime, OperationError> {
    let now = diesel::select(store_now()).get_result::<i64>(connection).await?;
    Ok(store.clock.read(now))
}
