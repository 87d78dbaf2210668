//! Lists grants in the order of their keys.

use diesel::{
    dsl::{AsSelect, IntoBoxed, Select, sql},
    prelude::*,
    sql_types::{Bool, Text},
    sqlite::Sqlite,
};

use super::threads::JobError;
use crate::{
    model::{StoreTime, TokenKey},
    store::{Listed, Names, record::GrantRecord, schema::grants},
};

pub(super) fn list(
    connection: &mut SqliteConnection,
    names: &Names,
    after: Option<&TokenKey>,
    limit: u32,
    now: StoreTime,
) -> Result<Listed, JobError> {
    let found = page(names, after, limit).load::<GrantRecord>(connection)?;
    let listed = |record: GrantRecord| {
        let key = record.key();
        let row = record.into_row(key.clone()).map(|row| row.without_ciphertext());
        (key, row)
    };
    Ok(Listed { grants: found.into_iter().map(listed).collect(), now })
}

pub(super) type Query<'a> = IntoBoxed<'a, Select<grants::table, AsSelect<GrantRecord, Sqlite>>, Sqlite>;

/// Builds the query of a page. It compares rows as a whole, and never has two lower bounds where an index can use only
/// one, so that every page costs the same.
pub(super) fn page<'a>(names: &'a Names, after: Option<&'a TokenKey>, limit: u32) -> Query<'a> {
    let mut query = grants::table
        .select(GrantRecord::as_select())
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
