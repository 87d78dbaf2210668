//! Which store a URL names, and how it is opened.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::Store;
use crate::{clock::Clock, error::Error, keyring::RowCodes};

/// When the schema is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Migrate {
    /// When a supervisor starts: the default for SQLite.
    Auto,
    /// Only by `token-supervisor migrate`; a start with an older schema is refused. The default for PostgreSQL, where other
    /// processes may still work with that schema.
    Never,
}

impl Migrate {
    /// Returns what holds for a store at `url` where nothing is set.
    pub(crate) fn default_of(url: &str) -> Self {
        if is_postgres(url) { Self::Never } else { Self::Auto }
    }
}

/// Opens the store at `url`, and checks its schema or brings it up to date. Blocks; a PostgreSQL store must be opened inside
/// the runtime that will carry out its operations.
///
/// # Errors
/// The scheme is unknown, or the database cannot be opened; the message says what to do.
pub(crate) fn open(url: &str, migrate: Migrate, clock: &Clock, codes: RowCodes) -> Result<Arc<dyn Store>, Error> {
    match StoreUrl::of(url)? {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => {
            if migrate == Migrate::Never {
                super::sqlite::refuse_pending(path.as_ref())?;
            }
            Ok(Arc::new(super::sqlite::SqliteStore::open(path.as_ref(), clock.clone(), codes)?))
        }
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => {
            Ok(Arc::new(super::postgres::PostgresStore::open(url, migrate, clock.clone(), codes)?))
        }
    }
}

/// A URL of a store that this build has.
enum StoreUrl<'a> {
    #[cfg(feature = "sqlite")]
    Sqlite(&'a str),
    #[cfg(feature = "postgres")]
    Postgres(&'a str),
}

impl<'a> StoreUrl<'a> {
    fn of(url: &'a str) -> Result<Self, Error> {
        let refused = |why: &str| Err(Error::Configuration(why.into()));
        match sqlite_path(url) {
            Some("" | ":memory:") => {
                refused("the store URL names no file: write sqlite://PATH, such as sqlite://tokens.db")
            }
            #[cfg(feature = "sqlite")]
            Some(path) => Ok(Self::Sqlite(path)),
            #[cfg(not(feature = "sqlite"))]
            Some(_) => refused("this build has no SQLite store: build it with the feature `sqlite`"),
            #[cfg(feature = "postgres")]
            None if is_postgres(url) => Ok(Self::Postgres(url)),
            #[cfg(not(feature = "postgres"))]
            None if is_postgres(url) => {
                refused("this build has no PostgreSQL store: build it with the feature `postgres`")
            }
            None => refused(
                "unknown store URL: write sqlite://PATH, such as sqlite://tokens.db, or postgres://USER@HOST/DATABASE",
            ),
        }
    }
}

/// Checks the URL of a store without opening it.
///
/// # Errors
/// The URL names no store that can be opened. The message says why, without the URL.
#[cfg(feature = "config")]
pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    match StoreUrl::of(url)? {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(_) => Ok(()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => super::postgres::check_url(url),
    }
}

/// Returns how long `settle` must be at least with this store.
pub(crate) fn least_settle(url: &str) -> Duration {
    match StoreUrl::of(url) {
        #[cfg(feature = "postgres")]
        Ok(StoreUrl::Postgres(_)) => super::postgres::LEAST_SETTLE,
        _ => Duration::ZERO,
    }
}

/// Returns whether the URL is one of a PostgreSQL store.
pub(crate) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// Returns the names of the pending migrations. Changes nothing, and needs no lock.
///
/// # Errors
/// The store cannot be read, or a newer version of this program wrote it.
#[cfg(feature = "config")]
pub(crate) fn pending_migrations(url: &str) -> Result<Vec<String>, Error> {
    match StoreUrl::of(url)? {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => super::sqlite::pending(path.as_ref()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => super::postgres::pending(url),
    }
}

/// Checks every page and every row of the store, and returns what is wrong. Changes nothing; the store may be in use.
///
/// # Errors
/// The store cannot be opened.
#[cfg(any(feature = "config", all(feature = "testing", feature = "sqlite")))]
pub(crate) fn integrity(url: &str, keyring: &crate::keyring::Keyring) -> Result<Vec<String>, Error> {
    use crate::keyring::CheckedRows;
    let fits =
        |checked: &[u8]| keyring.verify_check(&crate::model::Sealed(checked.to_owned())) == Ok(CheckedRows::WithCodes);
    match StoreUrl::of(url)? {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => super::sqlite::integrity(path.as_ref(), keyring.row_codes(), fits),
        #[cfg(all(feature = "postgres", feature = "config"))]
        StoreUrl::Postgres(url) => super::postgres::integrity(url, keyring.row_codes(), fits),
        #[cfg(all(feature = "postgres", not(feature = "config")))]
        StoreUrl::Postgres(_) => Err(Error::Internal("a check of every row needs the feature `config`")),
    }
}

/// Returns the folder for the journal of a store at `path`, unless another is set: beside the file, and for all names of the
/// file the same.
pub(crate) fn journal_beside(path: &str) -> PathBuf {
    let path = Path::new(path);
    let real = path.is_symlink().then(|| path.canonicalize().ok()).flatten();
    real.as_deref().unwrap_or(path).with_extension("journal")
}

/// Brings the schema of the store up to date.
///
/// # Errors
/// The database cannot be opened, or another process uses the SQLite file.
#[cfg(feature = "config")]
pub(crate) fn migrate(url: &str) -> Result<(), Error> {
    match StoreUrl::of(url)? {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => super::sqlite::migrate(path.as_ref()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres(url) => super::postgres::migrate(url),
    }
}

/// Returns the URL with its path put into this folder, unless the path is absolute or no path of a file.
#[cfg(feature = "config")]
pub(crate) fn sqlite_url_within(folder: &Path, url: &str) -> String {
    match sqlite_path(url) {
        Some(path) if !matches!(path, "" | ":memory:") && !folder.as_os_str().is_empty() => {
            format!("sqlite://{}", folder.join(path).display())
        }
        _ => url.to_owned(),
    }
}

/// Returns the path in a `sqlite:` URL.
pub(crate) fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}
