//! Lists grants in the order of their keys.

use diesel::{
    dsl::{AsSelect, IntoBoxed, Select, sql},
    prelude::*,
    sql_types::{Bool, Text},
    sqlite::Sqlite,
};

use super::{
    threads::JobError,
    unreadable::{RowReader, is_undecodable},
};
use crate::{
    model::{StoreTime, TokenKey},
    store::{Listed, Names, record::GrantRecord, schema::grants},
};

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
    page: Query<'_>,
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

pub(super) type Query<'a> = IntoBoxed<'a, Select<grants::table, (grants::id, AsSelect<GrantRecord, Sqlite>)>, Sqlite>;

/// Builds the query of a page. It compares rows as a whole, and never has two lower bounds where an index can use only
/// one, so that every page costs the same.
pub(super) fn page<'a>(names: &'a Names, after: Option<&'a TokenKey>, limit: u32) -> Query<'a> {
    let mut query = grants::table
        .select((grants::id, GrantRecord::as_select()))
        .order((grants::idp, grants::user_id, grants::account))
        .limit(limit.into())
        .into_boxed();
    if let Some(idp) = &names.idp {
        query = query.filter(grants::idp.eq(idp));
    }
    if let Some(user) = &names.user {
        query = query.filter(grants::user_id.eq(user));
    }
    if let Some(account) = &names.account {
        query = query.filter(grants::account.eq(account));
    }
    if names.gone {
        query = query.filter(grants::tombstone.is_not_null());
    }
    // The page continues at the same identity provider, because the filter names only this one.
    let within = after.filter(|after| names.idp.as_deref() == Some(after.idp()));
    if let Some(prefix) = &names.user_prefix {
        if within.is_none_or(|after| after.user() < prefix.as_str()) {
            query = query.filter(grants::user_id.ge(prefix));
        }
        if let Some(end) = beyond(prefix) {
            query = query.filter(grants::user_id.lt(end));
        }
    }
    match (within, after) {
        (Some(after), _) => query.filter(
            sql::<Bool>("(user_id, account) > (")
                .bind::<Text, _>(after.user())
                .sql(", ")
                .bind::<Text, _>(after.account_name())
                .sql(")"),
        ),
        (None, Some(after)) => query.filter(
            sql::<Bool>("(idp, user_id, account) > (")
                .bind::<Text, _>(after.idp())
                .sql(", ")
                .bind::<Text, _>(after.user())
                .sql(", ")
                .bind::<Text, _>(after.account_name())
                .sql(")"),
        ),
        (None, None) => query,
    }
}

/// Returns the first text after all texts that begin with `prefix`, if there is one.
fn beyond(prefix: &str) -> Option<String> {
    let end = prefix.trim_end_matches(char::MAX);
    let last = end.chars().next_back()?;
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", &end[..end.len() - last.len_utf8()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_returns_the_first_text_after_all_with_the_prefix() {
        for (prefix, next) in [
            ("acme/", Some("acme0")),
            ("a\u{7f}", Some("a\u{80}")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(beyond(prefix).as_deref(), next);
            if let Some(next) = next {
                assert!(next > prefix && *next > *format!("{prefix}\u{10ffff}x"));
            }
        }
    }
}
