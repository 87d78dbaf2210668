//! Schema migrations.

use diesel::SqliteConnection;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Brings the schema up to date.
pub(super) fn run(connection: &mut SqliteConnection) -> diesel::migration::Result<()> {
    connection.run_pending_migrations(MIGRATIONS).map(drop)
}

mod check {
    use std::path::Path;

    use diesel::{
        migration::{Migration, MigrationSource as _},
        sqlite::Sqlite,
    };
    use diesel_migrations::MigrationHarness as _;

    use super::MIGRATIONS;
    use crate::{
        error::Error,
        store::sqlite::{connect_to_read, refused, unopened},
    };

    /// Returns the names of the pending migrations; all of them if the file does not exist. Changes nothing, and needs
    /// no lock.
    ///
    /// # Errors
    /// The file cannot be read, or a newer version of this program wrote it.
    pub(in crate::store) fn pending(path: &Path) -> Result<Vec<String>, Error> {
        let applied = if path.exists() { applied(path)? } else { Vec::new() };
        let known: Vec<Box<dyn Migration<Sqlite>>> = MIGRATIONS.migrations().map_err(|error| unopened(path, &error))?;
        let version = |migration: &dyn Migration<Sqlite>| migration.name().version().to_string();
        if applied.iter().any(|applied| known.iter().all(|known| version(&**known) != *applied)) {
            return Err(refused(path, &"a newer version of token-supervisor wrote it: use that version"));
        }
        let pending = known.iter().filter(|known| !applied.contains(&version(&***known)));
        let mut pending: Vec<_> = pending.map(|migration| migration.name().to_string()).collect();
        pending.sort();
        Ok(pending)
    }

    /// # Errors
    /// A migration is pending, or see [`pending`].
    pub(in crate::store) fn refuse_pending(path: &Path) -> Result<(), Error> {
        match pending(path)?.as_slice() {
            [] => Ok(()),
            pending => {
                let pending = pending.join(", ");
                let next = "run token-supervisor migrate once, or set store.migrate to auto";
                Err(unopened(path, &format_args!("its schema lacks the migrations {pending}: {next}")))
            }
        }
    }

    fn applied(path: &Path) -> Result<Vec<String>, Error> {
        let mut connection = connect_to_read(path)?;
        let applied = connection.applied_migrations().map_err(|error| unopened(path, &error))?;
        Ok(applied.iter().map(ToString::to_string).collect())
    }
}

#[cfg(feature = "config")]
pub(in crate::store) use check::pending;
pub(in crate::store) use check::refuse_pending;
