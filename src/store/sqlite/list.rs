//! Lists grants in the order of their keys.

use diesel::{prelude::*, sqlite::Sqlite};

use super::threads::{JobError, is_undecodable};
use crate::{
    model::{StoreTime, TokenKey},
    store::{Listed, Names, listing::listing_page, record::GrantRecord, schema::grants, unreadable::RowReader},
};

listing_page!(Sqlite);

/// Reads a page. Rows whose columns cannot be decoded are left out; if there are any, each row is read by itself.
pub(super) fn list(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    names: &Names,
    after: Option<&TokenKey>,
    limit: u32,
    now: StoreTime,
) -> Result<Listed, JobError> {
    let mut size = limit;
    loop {
        let (found, rows) = match page(names, after, size).load::<(i64, GrantRecord)>(connection) {
            Ok(found) => (found.len(), found),
            Err(error) if is_undecodable(&error) => one_by_one(connection, reader, page(names, after, size))?,
            Err(error) => return Err(error.into()),
        };
        let complete = found < size as usize;
        // Without a row that can be read the next page would not know where to begin.
        if rows.is_empty() && !complete {
            size = size.saturating_mul(2);
            continue;
        }
        let listed = |(id, record): (i64, GrantRecord)| {
            let key = record.key();
            let row = reader.row(id, key.clone(), &record).map(|row| row.without_ciphertext());
            (key, row)
        };
        return Ok(Listed { grants: rows.into_iter().map(listed).collect(), complete, now });
    }
}

/// Returns the number of rows of the page, and those that can be decoded.
fn one_by_one(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    page: ListingPage<'_>,
) -> QueryResult<(usize, Vec<(i64, GrantRecord)>)> {
    let ids = page.select(grants::id).load::<i64>(connection)?;
    let mut rows = Vec::with_capacity(ids.len());
    for id in &ids {
        match grants::table.find(id).select((grants::id, GrantRecord::as_select())).get_result(connection).optional() {
            Ok(found) => rows.extend(found),
            Err(error) if is_undecodable(&error) => drop(reader.undecoded(*id)),
            Err(error) => return Err(error),
        }
    }
    Ok((ids.len(), rows))
}
