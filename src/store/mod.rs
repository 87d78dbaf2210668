//! The store: sealed rows, written by compare-and-swap.
//!
//! A store operation reads the row, applies a [`Change`] (a pure function of the protocol), and writes the result in
//! the same transaction; it decides nothing itself. The store never sees a plaintext token, and never holds a
//! transaction open while it waits for anything else. Dropping a returned future neither stops nor undoes the
//! operation.
//!
//! To add a backend: implement the steps of `query` for it, and add a line to `conformance`, the suite that every
//! backend must pass.

mod columns;
#[cfg(test)]
mod conformance;
mod counted;
#[cfg(feature = "testing")]
pub(crate) mod faulty;
mod listing;
pub(crate) mod metered;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod schema;
mod spent;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stored;
mod unreadable;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;

use crate::{
    clock::Clock,
    error::Error,
    keyring::RowCodes,
    model::{Expires, Marks, Row, Sealed, StoreTime, TokenKey, WallTime},
    protocol::{Change, ChangeReply, Transition},
};

/// The port to a database.
pub(crate) trait Store: Send + Sync {
    /// Applies one change to one row.
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed>;
    /// Reads one row.
    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow>;
    /// Returns the next page of an identity provider's rows whose wake-up time is at most `by`, oldest first. Rows that cannot
    /// be read are left out.
    fn due(&self, idp: &str, by: WallTime, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage>;
    /// Returns the next page of grants whose expiry notice (for the refresh token) falls into the range `noticed`,
    /// without tombstones and without grants whose user must reconnect anyway. Reads every row: call it rarely.
    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>>;
    /// Returns the next grants after this key that match `names`, including tombstones, in the order of their keys
    /// (compared byte by byte, whatever the database's collation is).
    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed>;
    /// Counts the grants of each kind. Reads every row: call it rarely.
    fn census(&self) -> StoreFuture<Census>;
    /// Returns refresh tokens whose revocation is due.
    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>>;
    /// Counts the queued revocations, of this key or all.
    fn outbox(&self, key: Option<TokenKey>) -> StoreFuture<Outbox>;
    /// Records that a revocation is about to be sent: until [`revoked`](Self::revoked) removes it, it counts as failed
    /// and is due again at `retry_at`. Returns false if it was canceled or begun by another sender since it was listed.
    fn revoking(&self, revocation: &QueuedRevocation, retry_at: StoreTime) -> StoreFuture<bool>;
    /// Removes a completed revocation (`None`), or makes it due again at `retry_at`.
    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> StoreFuture<()>;
    /// Deletes the fingerprints of refresh tokens that purged grants spent before that time, and those of tokens that ended
    /// before it otherwise than by a refresh; part by part, of which a dropped future leaves the rest for the next call.
    fn forget_spent(&self, before: StoreTime) -> StoreFuture<()>;
    /// Returns a value that belongs to the store as a whole, after storing `value` if there is none.
    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>>;
    /// Writes or deletes a value that belongs to the store as a whole.
    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()>;
    /// Returns the values whose names begin with `prefix`; each name without the prefix.
    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>>;
    /// Returns the check value of the keyring. A store without grants is given `value` if it has none; `None` is a store that
    /// has lost it.
    fn keyring_check(&self, value: Vec<u8>) -> StoreFuture<Option<Vec<u8>>>;
    /// Computes the codes of rows after this id that an earlier version wrote without; returns where to go on. Only before
    /// rows are read.
    fn code_rows(&self, after: i64) -> StoreFuture<Option<i64>>;
    /// Returns how many of the rows that were read cannot be read.
    fn unreadable(&self) -> usize;
    /// Finishes the operations already requested, refuses later ones, and closes the database.
    fn close(&self) -> StoreFuture<()>;
}

/// How many of the refresh tokens that a grant was connected with are remembered, the newest ones.
///
/// A connect that is replayed later than that is taken for a new one: its dead token replaces the grant. Requests are not repeated
/// after so many others, and without a bound an application that connects again and again fills the store.
pub(crate) const CONNECTED_KEPT: i64 = 64;

/// How many of the refresh tokens that a grant has spent are remembered, the newest ones.
///
/// A connect with an older one is taken for a new one, too. Only a copy of the store and its keys can bring one: a token that a
/// refresh brought is given to nobody. The store notices a row that was put back by more than that without it.
pub(crate) const SPENT_KEPT: usize = 32;

/// A future that waits for the store. Dropping it does not cancel the operation.
pub(crate) type StoreFuture<T> = BoxFuture<'static, Result<T, StoreError>>;

/// The result of a change.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) reply: ChangeReply,
    /// The row as it is now.
    pub(crate) row: Option<Row>,
    /// The time by which the store applied the change.
    pub(crate) now: StoreTime,
    /// The events to report to operators and applications.
    pub(crate) transitions: Vec<Transition>,
}

#[derive(Clone, Debug)]
pub(crate) struct ReadRow {
    pub(crate) row: Option<Row>,
    pub(crate) now: StoreTime,
}

/// The position after which the next page of due rows starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DueCursor {
    wake_at: i64,
    id: i64,
}

impl DueCursor {
    /// Returns the position after every row that is due at this time.
    pub(crate) fn past(time: WallTime) -> Self {
        Self { wake_at: time.0, id: i64::MAX }
    }
}

/// Rows in the order of their wake-up time.
#[derive(Clone, Debug)]
pub(crate) struct DuePage {
    pub(crate) rows: Vec<Row>,
    /// `None` on the last page.
    pub(crate) next: Option<DueCursor>,
    /// When the first of the rows that are not due yet comes due.
    pub(crate) later: Option<WallTime>,
}

/// A grant whose refresh token expires, or the access token of a grant without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiring {
    id: i64,
    pub(crate) key: TokenKey,
    pub(crate) grant_id: String,
    pub(crate) consent_expires: Expires,
}

/// Selects grants by their names; a grant must match every field that is set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) idp: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) user_prefix: Option<String>,
    pub(crate) account: Option<String>,
    /// Only tombstones.
    pub(crate) gone: bool,
}

/// Grants in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Rows without ciphertext. A row that cannot be read does not fail the page.
    pub(crate) grants: Vec<(TokenKey, Result<Row, StoreError>)>,
    /// Whether these are the last ones.
    pub(crate) complete: bool,
    pub(crate) now: StoreTime,
}

/// The number of grants of each kind at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Census {
    pub(crate) counted: Vec<Counted>,
    pub(crate) outbox: Outbox,
    pub(crate) now: StoreTime,
}

/// The number of grants at one identity provider that share the same marks, including tombstones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted {
    pub(crate) idp: String,
    pub(crate) marks: Marks,
    /// The last refresh failed.
    pub(crate) failing: bool,
    pub(crate) held: bool,
    /// There is a refresh token.
    pub(crate) refreshable: bool,
    pub(crate) grants: u64,
    pub(crate) first_due: Option<WallTime>,
    /// The earliest expiry among access tokens that are still valid.
    pub(crate) first_end: Option<WallTime>,
}

/// How many revocations are queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outbox {
    pub(crate) pending: u64,
    /// Those that were sent at least once, and are not confirmed.
    pub(crate) unconfirmed: u64,
}

/// A refresh token that waits for its revocation.
#[derive(Clone, Debug)]
pub(crate) struct QueuedRevocation {
    pub(crate) id: i64,
    pub(crate) key: TokenKey,
    pub(crate) token: Sealed,
    /// How many times sending it was begun before.
    pub(crate) failures: u32,
}

/// Why a store operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The operation was not carried out, or its outcome is unknown: retry.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The disk is full: the operation was not carried out. Free some space, and retry.
    #[error("the disk of the store is full: free some space")]
    Full,
    /// Another change was written between this change's read and write, so that nothing of this one was stored: retry at
    /// once.
    #[error("the row was changed by another writer at the same time")]
    Conflict,
    /// A column holds a value that this program never writes: restore the row from a backup, or connect the grant again. The
    /// column `code` says that another one was changed.
    #[error(
        "cannot read grant {grant_id}: column {column} is invalid; the row is damaged, or was changed by another program: \
         restore it, or connect the grant again, which replaces it"
    )]
    Corrupt { grant_id: String, column: &'static str },
}

impl StoreError {
    /// Returns the grant that the error is about, if it is about one.
    pub(crate) fn grant_id(&self) -> Option<&str> {
        match self {
            Self::Corrupt { grant_id, .. } => Some(grant_id),
            Self::Unavailable(_) | Self::Full | Self::Conflict => None,
        }
    }
}

/// Starts a change, and starts it again at once for as long as it loses its comparison of revisions. Each loss means that
/// another change was stored; after eight in a row the caller has to wait.
pub(crate) fn past_conflicts<T: 'static>(change: impl Fn() -> StoreFuture<T> + Send + 'static) -> StoreFuture<T> {
    let mut changed = change();
    Box::pin(async move {
        for _ in 0..8 {
            match changed.await {
                Err(StoreError::Conflict) => changed = change(),
                other => return other,
            }
        }
        changed.await
    })
}

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
                sqlite::refuse_pending(path.as_ref())?;
            }
            Ok(Arc::new(sqlite::SqliteStore::open(path.as_ref(), clock.clone(), codes)?))
        }
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres => Ok(Arc::new(postgres::PostgresStore::open(url, migrate, clock.clone(), codes)?)),
    }
}

/// A URL of a store that this build has.
enum StoreUrl<'a> {
    #[cfg(feature = "sqlite")]
    Sqlite(&'a str),
    #[cfg(feature = "postgres")]
    Postgres,
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
            None if is_postgres(url) => Ok(Self::Postgres),
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
/// Says what is wrong with it, without the URL.
#[cfg(feature = "config")]
pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    match StoreUrl::of(url)? {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(_) => Ok(()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres => postgres::check_url(url),
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
        StoreUrl::Sqlite(path) => sqlite::pending(path.as_ref()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres => postgres::pending(url),
    }
}

/// Checks every page and every row of the store, and returns what is wrong. Changes nothing; the store may be in use.
///
/// # Errors
/// The store cannot be opened.
#[cfg(all(any(feature = "config", feature = "testing"), feature = "sqlite"))]
pub(crate) fn integrity(url: &str, keyring: &crate::keyring::Keyring) -> Result<Vec<String>, Error> {
    use crate::keyring::CheckedRows;
    let path = sqlite_path(url).ok_or(Error::Internal("a store URL that was not validated"))?;
    let fits = |checked: &[u8]| keyring.verify_check(&Sealed(checked.to_owned())) == Ok(CheckedRows::WithCodes);
    sqlite::integrity(path.as_ref(), keyring.row_codes(), fits)
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
        StoreUrl::Sqlite(path) => sqlite::migrate(path.as_ref()),
        #[cfg(feature = "postgres")]
        StoreUrl::Postgres => postgres::migrate(url),
    }
}

/// Returns the URL with its path put into this folder, unless the path is absolute or no path of a file.
#[cfg(feature = "config")]
pub(crate) fn sqlite_url_within(folder: &std::path::Path, url: &str) -> String {
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
