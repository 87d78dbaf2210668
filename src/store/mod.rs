//! The store: sealed rows, compared and swapped.
//!
//! A store reads the row, applies a [`Change`] (a pure function of the protocol), and writes the result in the
//! same transaction; it decides nothing itself. It never sees a plaintext token and never holds a
//! transaction while somebody else is being waited for. Futures returned here only wait: dropping one
//! neither stops nor undoes the work.
//!
//! The next backend is a second executor of `query`'s steps, and one more line at the top of `conformance`:
//! that suite is what it must pass.

#[cfg(test)]
mod conformance;
#[cfg(feature = "testing")]
pub(crate) mod faulty;
pub(crate) mod metered;
#[cfg(feature = "sqlite")]
mod record;
#[cfg(feature = "sqlite")]
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::{ops::Range, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    clock::Clock,
    error::Error,
    model::{Expires, Marks, Row, Sealed, StoreTime, TokenKey, WallTime},
    protocol::{Change, ChangeReply, Transition},
};

/// The port to a database.
pub(crate) trait Store: Send + Sync {
    /// Carries out one operation on one row.
    fn change(&self, key: &TokenKey, change: Change) -> Answer<Changed>;
    /// Reads one row.
    fn read(&self, key: &TokenKey) -> Answer<Read>;
    /// The next page of keys that somebody has to look at by `by`, oldest first.
    fn due(&self, by: WallTime, after: Option<Cursor>, limit: u32) -> Answer<Page>;
    /// The next page of grants of whose refresh token's end people are to be told, from one time on and before the
    /// other. Neither tombstones nor those whose user must reconnect anyway. It reads every row: once in a while.
    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> Answer<Vec<Expiring>>;
    /// The next grants with such names after this key, tombstones too, in the order of their keys (by the bytes of
    /// their parts, whatever the database's language is).
    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> Answer<Listed>;
    /// How many grants there are of each kind. It reads every row: once in a while.
    fn census(&self) -> Answer<Census>;
    /// Refresh tokens whose revocation is due.
    fn revocations(&self, limit: u32) -> Answer<Vec<Revocation>>;
    /// A revocation is about to be sent. It counts as failed and is due again then, unless it is said to be done;
    /// false if it is not to be sent: it was taken back, or somebody else has begun it since it was listed.
    fn revoking(&self, revocation: &Revocation, retry_at: StoreTime) -> Answer<bool>;
    /// A revocation is done (`None`), or is due again then.
    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> Answer<()>;
    /// Forgets fingerprints of refresh tokens spent before then.
    fn forget_spent(&self, before: StoreTime) -> Answer<()>;
    /// Reads a value that belongs to the store as a whole, after storing `value` if there is none.
    fn meta(&self, name: &'static str, value: Vec<u8>) -> Answer<Vec<u8>>;
    /// Writes or deletes a value that belongs to the store as a whole.
    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> Answer<()>;
    /// The values whose names begin like this, with what follows in their names.
    fn metas(&self, prefix: &'static str) -> Answer<Vec<(String, Vec<u8>)>>;
    /// Finishes what was asked for, answers nothing more, and lets go of the database.
    fn close(&self) -> Answer<()>;
}

/// A future that waits for the store. Dropping it changes nothing.
pub(crate) type Answer<T> = BoxFuture<'static, Result<T, StoreError>>;

/// What became of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) reply: ChangeReply,
    /// The row as it is now.
    pub(crate) row: Option<Row>,
    /// Database time.
    pub(crate) now: StoreTime,
    /// What people and applications are to be told.
    pub(crate) transitions: Vec<Transition>,
}

/// A row as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) row: Option<Row>,
    pub(crate) now: StoreTime,
}

/// Where the next page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    wake_at: i64,
    id: i64,
}

/// Keys in the order of their wake-up time.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) keys: Vec<TokenKey>,
    /// `None` on the last page.
    pub(crate) next: Option<Cursor>,
}

/// A grant whose refresh token ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiring {
    id: i64,
    pub(crate) key: TokenKey,
    pub(crate) grant_id: String,
    pub(crate) refresh_expires: Expires,
}

/// What grants are found by, all of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) idp: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) user_prefix: Option<String>,
    pub(crate) account: Option<String>,
    /// Tombstones alone.
    pub(crate) gone: bool,
}

/// Grants in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Without ciphertext. A row that cannot be read hides no other.
    pub(crate) grants: Vec<(TokenKey, Result<Row, StoreError>)>,
    pub(crate) now: StoreTime,
}

/// All grants at a time, counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Census {
    pub(crate) counted: Vec<Counted>,
    pub(crate) now: StoreTime,
}

/// Grants at one identity provider that are alike, tombstones too.
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
    /// Of those access tokens that have not ended yet.
    pub(crate) first_end: Option<WallTime>,
}

/// A refresh token that waits for its revocation.
#[derive(Clone, Debug)]
pub(crate) struct Revocation {
    pub(crate) id: i64,
    pub(crate) key: TokenKey,
    pub(crate) token: Sealed,
    /// How often it was begun before.
    pub(crate) failures: u32,
}

/// Why the store gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// It did not do it, or nobody knows whether it did: try again.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// Another change wrote the row between this change's read and write, and nothing was stored: retry immediately.
    #[error("the row was written by another change at the same time")]
    Conflict,
    /// A column holds what we never write: restore the row from a backup, or disconnect it.
    #[error("grant {grant_id}: column {column} holds what this version cannot read")]
    Corrupt { grant_id: String, column: &'static str },
}

/// Makes a change, and makes it again immediately while it loses its comparison of revisions. Each loss means that
/// another change was stored; after eight in a row it returns the conflict.
pub(crate) fn past_conflicts<T: 'static>(change: impl Fn() -> Answer<T> + Send + 'static) -> Answer<T> {
    let mut answer = change();
    Box::pin(async move {
        for _ in 0..8 {
            match answer.await {
                Err(StoreError::Conflict) => answer = change(),
                other => return other,
            }
        }
        answer.await
    })
}

/// Opens the store that `url` names and brings its schema up to date.
///
/// # Errors
/// The scheme is not known, or the database cannot be opened; the message says what to do.
pub(crate) fn open(url: &str, clock: &Clock) -> Result<Arc<dyn Store>, Error> {
    match sqlite_path(url) {
        Some("" | ":memory:") => {
            Err(Error::Configuration("the store needs a file: write sqlite://PATH, such as sqlite://tokens.db".into()))
        }
        #[cfg(feature = "sqlite")]
        Some(path) => Ok(Arc::new(sqlite::SqliteStore::open(path.as_ref(), clock.clone())?)),
        _ => Err(Error::Configuration("unknown kind of store: write sqlite://PATH, such as sqlite://tokens.db".into())),
    }
}

/// The names of the migrations that the store lacks. Changes nothing, and needs no lock.
///
/// # Errors
/// It cannot be read, or a newer version of this program wrote it.
#[cfg(all(feature = "config", feature = "sqlite"))]
pub(crate) fn pending_migrations(url: &str) -> Result<Vec<String>, Error> {
    let path = sqlite_path(url).ok_or(Error::Internal("a store of a kind that was refused"))?;
    sqlite::pending(path.as_ref())
}

/// Brings the schema of the store up to date.
///
/// # Errors
/// The database cannot be opened, or another process has it.
#[cfg(all(feature = "config", feature = "sqlite"))]
pub(crate) fn migrate(url: &str) -> Result<(), Error> {
    let path = sqlite_path(url).ok_or(Error::Internal("a store of a kind that was refused"))?;
    sqlite::migrate(path.as_ref())
}

/// The file that a `sqlite:` URL names.
pub(crate) fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}
