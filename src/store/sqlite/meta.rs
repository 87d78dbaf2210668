//! Values that belong to the store as a whole.

use diesel::{
    dsl::exists,
    prelude::*,
    sql_types::{Binary, Text},
};

use super::threads::JobError;
use crate::store::schema::{grants, meta};

pub(super) fn meta(connection: &mut SqliteConnection, name: &str, value: &[u8]) -> Result<Vec<u8>, JobError> {
    diesel::insert_into(meta::table)
        .values((meta::name.eq(name), meta::value.eq(value)))
        .on_conflict_do_nothing()
        .execute(connection)?;
    Ok(meta::table.find(name).select(meta::value).get_result(connection)?)
}

pub(super) fn set_meta(connection: &mut SqliteConnection, name: &str, value: Option<&[u8]>) -> Result<(), JobError> {
    match value {
        None => diesel::delete(meta::table.find(name)).execute(connection)?,
        Some(value) => diesel::replace_into(meta::table)
            .values((meta::name.eq(name), meta::value.eq(value)))
            .execute(connection)?,
    };
    Ok(())
}

pub(super) fn swap_meta(
    connection: &mut SqliteConnection,
    name: &str,
    expected: &[u8],
    value: &[u8],
) -> Result<bool, JobError> {
    let as_expected = meta::table.find(name).filter(meta::value.eq(expected));
    Ok(diesel::update(as_expected).set(meta::value.eq(value)).execute(connection)? == 1)
}

pub(super) fn metas(connection: &mut SqliteConnection, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JobError> {
    #[derive(QueryableByName)]
    struct Value {
        #[diesel(sql_type = Binary)]
        name: Vec<u8>,
        #[diesel(sql_type = Binary)]
        value: Vec<u8>,
    }
    // A name that is no text must not fail the others.
    let from = diesel::sql_query("SELECT name, value FROM meta WHERE name >= ? ORDER BY name").bind::<Text, _>(prefix);
    let found = from.load::<Value>(connection)?.into_iter();
    let named = found.filter_map(|Value { name, value }| Some((String::from_utf8(name).ok()?, value)));
    Ok(named.map_while(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value))).collect())
}

/// Returns the check value of the keyring. A store without grants is given `value` if it has none.
pub(super) fn keyring_check(connection: &mut SqliteConnection, value: &[u8]) -> Result<Option<Vec<u8>>, JobError> {
    let stored = meta::table.find(KEY_CHECK).select(meta::value).get_result::<Vec<u8>>(connection).optional()?;
    if stored.is_some() || diesel::select(exists(grants::table.select(grants::id))).get_result(connection)? {
        return Ok(stored);
    }
    set_meta(connection, KEY_CHECK, Some(value))?;
    Ok(Some(value.to_owned()))
}

/// The name of the keyring's check value.
pub(super) const KEY_CHECK: &str = "key_check";
