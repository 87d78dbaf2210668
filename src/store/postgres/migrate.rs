//! The schema: its migrations, and whether this program knows it.
//!
//! Migrations run on a thread of their own, because diesel runs them by blocking calls.

use diesel::{
    connection::SimpleConnection as _,
    migration::{Migration, MigrationSource as _},
    pg::Pg,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, async_connection_wrapper::AsyncConnectionWrapper};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use tokio::runtime::Handle;

use super::{
    address::PostgresAddress,
    connection::{Connector, with_causes},
    failure::OperationError,
    statement::sql,
};
use crate::error::Error;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Returns the names of the pending migrations: all of them where there is no schema. Changes nothing.
///
/// # Errors
/// The server cannot be reached, or a newer version of this program wrote the schema.
pub(super) async fn pending(connector: &Connector, address: &PostgresAddress) -> Result<Vec<String>, Error> {
    let mut open = connector.connect().await.map_err(|error| unopened(address, &error))?;
    let applied = applied(&mut open.session, &address.schema).await.map_err(|error| failed(address, error))?;
    let known: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations().map_err(|error| unopened(address, &error))?;
    let version = |migration: &dyn Migration<Pg>| migration.name().version().to_string();
    let newest = known.iter().map(|known| version(&**known)).max().unwrap_or_default();
    if let Some(newer) = applied.iter().filter(|applied| known.iter().all(|known| version(&**known) != **applied)).max()
    {
        return Err(unopened(
            address,
            &format_args!(
                "its schema {} has the migration {newer}, and this program ({}) knows them up to {newest}: use the version of \
                 token-supervisor that wrote it, or a later one",
                address.schema,
                env!("CARGO_PKG_VERSION"),
            ),
        ));
    }
    let pending = known.iter().filter(|known| !applied.contains(&version(&***known)));
    let mut pending: Vec<_> = pending.map(|migration| migration.name().to_string()).collect();
    pending.sort();
    Ok(pending)
}

/// Returns the versions of the migrations that were run; none where there is no schema.
async fn applied(session: &mut AsyncPgConnection, schema: &str) -> Result<Vec<String>, OperationError> {
    let exists = sql::<diesel::sql_types::Bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE tablename = '__diesel_schema_migrations' AND schemaname = ",
    )
    .name(schema)
    .sql(")");
    if !exists.get_result::<bool>(session).await? {
        return Ok(Vec::new());
    }
    let versions = sql::<diesel::sql_types::Text>("SELECT version FROM __diesel_schema_migrations");
    Ok(versions.load::<String>(session).await?)
}

/// Brings the schema up to date, and creates it if it does not exist. Several processes may do so at a time. Blocks; must
/// not be called by a task of the runtime.
///
/// # Errors
/// The server cannot be reached, or the user may not create the schema.
pub(super) fn run(connector: &Connector, address: &PostgresAddress, runtime: &Handle) -> Result<(), Error> {
    let _entered = runtime.enter();
    let schema = &address.schema;
    let open = runtime.block_on(connector.connect()).map_err(|error| unopened(address, &error))?;
    let mut session: AsyncConnectionWrapper<AsyncPgConnection> = open.session.into();
    // The lock ends with the connection. A migration may take longer than a caller's statement.
    let prepared = session
        .batch_execute("SET statement_timeout TO 0; SET idle_in_transaction_session_timeout TO 0; SET client_min_messages TO warning;")
        .and_then(|()| session.batch_execute(&format!("SELECT pg_advisory_lock({LOCK});")))
        .and_then(|()| create_schema(&mut session, schema));
    prepared.map_err(|error| failed(address, error.into()))?;
    session.run_pending_migrations(MIGRATIONS).map_err(|error| unopened(address, &error))?;
    Ok(())
}

/// Also where the user may not create schemas, but somebody has created this one.
fn create_schema(
    session: &mut AsyncConnectionWrapper<AsyncPgConnection>,
    schema: &str,
) -> Result<(), diesel::result::Error> {
    session.batch_execute(&format!(
        "DO $$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF; END $$;"
    ))
}

/// An arbitrary number: one process at a time migrates.
const LOCK: i64 = 0x746f_6b65_6e5f_6d69;

fn failed(address: &PostgresAddress, error: OperationError) -> Error {
    match error {
        OperationError::Database(error) => unopened(address, &with_causes(&error)),
        OperationError::Store(error) => unopened(address, &error),
    }
}

pub(super) fn unopened(address: &PostgresAddress, why: &dyn std::fmt::Display) -> Error {
    Error::Start(format!("cannot open the store at {address}: {why}"))
}
