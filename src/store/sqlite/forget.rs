//! Statements that go through whole tables, part by part.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Binary},
};

use super::threads::{JobError, is_undecodable};
use crate::{
    model::StoreTime,
    store::{
        record::{Columns, GrantRecord},
        schema::{grants, purged, spent as spent_tokens},
        unreadable::RowReader,
    },
};

/// Deletes old fingerprints, of those that begin with this byte.
pub(super) fn forget_spent(connection: &mut SqliteConnection, before: StoreTime, first: u8) -> Result<(), JobError> {
    const OLD: &str =
        "DELETE FROM fingerprints WHERE fingerprint >= ? AND fingerprint < ? AND NOT connected AND at < ?";
    let old = diesel::sql_query(OLD).bind::<Binary, _>(vec![first]);
    // The first byte of the next part; after the last one, what is longer than any fingerprint that begins with it.
    let end = first.checked_add(1).map_or_else(|| vec![u8::MAX; 17], |next| vec![next]);
    old.bind::<Binary, _>(end).bind::<BigInt, _>(before.0).execute(connection)?;
    Ok(())
}

/// Deletes what purged grants have spent, if it is old.
pub(super) fn forget_spent_of_purged(connection: &mut SqliteConnection, before: StoreTime) -> Result<(), JobError> {
    let gone = spent_tokens::grant_row.eq_any(purged::table.select(purged::grant_row));
    diesel::delete(spent_tokens::table.filter(gone).filter(spent_tokens::at.lt(before.0))).execute(connection)?;
    Ok(())
}

/// Computes the codes of the next rows after `after` that have none; returns the id of the last one.
pub(super) fn code_rows(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    after: i64,
) -> Result<Option<i64>, JobError> {
    let without = grants::table.filter(grants::id.gt(after)).filter(grants::code.is_null());
    let found = without.order(grants::id).limit(1_000).select(grants::id).load::<i64>(connection)?;
    for id in &found {
        let row = grants::table.find(id);
        match row.select(GrantRecord::as_select()).get_result(connection) {
            Ok(record) => {
                let code = Columns::from(&record).code(*id, &reader.codes).finish();
                diesel::update(row).set(grants::code.eq(code.as_slice())).execute(connection)?;
            }
            Err(error) if is_undecodable(&error) => drop(reader.undecoded(*id)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found.last().copied())
}
