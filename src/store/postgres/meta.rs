//! Values that belong to the store as a whole.

use diesel::{
    OptionalExtension as _,
    sql_types::{Binary, Bool, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{failure::OperationError, statement::sql};
use crate::model::Generation;

pub(super) async fn meta(
    connection: &mut AsyncPgConnection,
    name: &str,
    value: &[u8],
) -> Result<Vec<u8>, OperationError> {
    let added = sql::<()>("INSERT INTO meta (name, value) VALUES (")
        .name(name)
        .sql(", ")
        .bytes(value)
        .sql(") ON CONFLICT DO NOTHING");
    added.execute(connection).await?;
    // A statement of its own: it sees what another connection has inserted instead.
    get(connection, name).await?.ok_or_else(|| diesel::result::Error::NotFound.into())
}

pub(super) async fn set_meta(
    connection: &mut AsyncPgConnection,
    name: &str,
    value: Option<&[u8]>,
) -> Result<(), OperationError> {
    let written = match value {
        None => sql::<()>("DELETE FROM meta WHERE name = ").name(name),
        Some(value) => sql("INSERT INTO meta (name, value) VALUES (")
            .name(name)
            .sql(", ")
            .bytes(value)
            .sql(") ON CONFLICT (name) DO UPDATE SET value = excluded.value"),
    };
    written.execute(connection).await?;
    Ok(())
}

pub(super) async fn swap_meta(
    connection: &mut AsyncPgConnection,
    name: &str,
    expected: &[u8],
    value: &[u8],
) -> Result<bool, OperationError> {
    let swapped = sql::<()>("UPDATE meta SET value = ")
        .bytes(value)
        .sql(" WHERE name = ")
        .name(name)
        .sql(" AND value = ")
        .bytes(expected);
    Ok(swapped.execute(connection).await? == 1)
}

pub(super) async fn metas(
    connection: &mut AsyncPgConnection,
    prefix: &str,
) -> Result<Vec<(String, Vec<u8>)>, OperationError> {
    let from = sql::<(Text, Binary)>("SELECT name, value FROM meta WHERE name >= ").name(prefix).sql(" ORDER BY name");
    let found = from.load::<(String, Vec<u8>)>(connection).await?.into_iter();
    Ok(found.map_while(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value))).collect())
}

/// Returns the check value of the keyring. A store without grants is given `value` if it has none.
pub(super) async fn keyring_check(
    connection: &mut AsyncPgConnection,
    value: &[u8],
) -> Result<Option<Vec<u8>>, OperationError> {
    if let Some(stored) = get(connection, KEY_CHECK).await? {
        return Ok(Some(stored));
    }
    let has_grants = sql::<Bool>("SELECT EXISTS (SELECT FROM grants)").get_result::<bool>(connection).await?;
    if has_grants {
        // Another process may have stored it, and grants, since it was looked for.
        return get(connection, KEY_CHECK).await;
    }
    meta(connection, KEY_CHECK, value).await.map(Some)
}

/// Returns the check value of the keyring, if the store has one.
#[cfg(feature = "config")]
pub(super) async fn key_check(connection: &mut AsyncPgConnection) -> Result<Option<Vec<u8>>, OperationError> {
    get(connection, KEY_CHECK).await
}

/// The name of the keyring's check value.
const KEY_CHECK: &str = "key_check";

/// Returns the generation above which new rows start.
pub(super) async fn floor(connection: &mut AsyncPgConnection) -> Result<Generation, OperationError> {
    let bytes = get(connection, FLOOR).await?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Ok(Generation(bytes.map_or(0, u64::from_le_bytes)))
}

pub(super) async fn set_floor(connection: &mut AsyncPgConnection, floor: Generation) -> Result<(), OperationError> {
    set_meta(connection, FLOOR, Some(&floor.0.to_le_bytes())).await
}

const FLOOR: &str = "generation_floor";

async fn get(connection: &mut AsyncPgConnection, name: &str) -> Result<Option<Vec<u8>>, OperationError> {
    let value = sql::<Binary>("SELECT value FROM meta WHERE name = ").name(name);
    Ok(value.get_result::<Vec<u8>>(connection).await.optional()?)
}
