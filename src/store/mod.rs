//! The store: sealed rows, written by compare-and-swap.
//!
//! A store operation reads the row, applies a [`Change`] (a pure function of the protocol), and writes the result in
//! the same transaction; it decides nothing itself. The store never sees a plaintext token, and never holds a
//! transaction open while it waits for anything else. Dropping a returned future neither stops nor undoes the
//! operation.
//!
//! To add a backend: implement the steps of `query` for it, and add a line to `conformance`, the suite that every
//! backend must pass.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod columns;
#[cfg(test)]
mod conformance;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod counted;
#[cfg(feature = "testing")]
pub(crate) mod faulty;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod key_use;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod listing;
pub(crate) mod metered;
mod opening;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod record;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod schema;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod spent;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod stored;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod unreadable;

use std::ops::Range;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::{
    keyring::KeyId,
    model::{Expires, Id, Marks, Row, Sealed, StoreTime, TokenKey, WallTime},
    protocol::{Change, ChangeReply, Transition},
};

pub use opening::Migrate;
#[cfg(any(feature = "config", all(feature = "testing", feature = "sqlite")))]
pub(crate) use opening::integrity;
#[cfg(feature = "config")]
pub(crate) use opening::{check_url, is_postgres, migrate, pending_migrations, sqlite_url_within};
pub(crate) use opening::{journal_beside, least_settle, open, sqlite_path};

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
    /// Counts which keys sealed the stored values. Reads every row: call it rarely.
    fn key_use(&self) -> StoreFuture<Vec<KeyUse>>;
    /// Looks at the next rows after this one, and returns those with a value that another key than `active` sealed.
    fn sealed_by_others(&self, active: KeyId, after: RowPosition, limit: u32) -> StoreFuture<SealedPage>;
    /// Returns the next queued revocations after the one with this id, whenever they are due.
    fn queued(&self, after: i64, limit: u32) -> StoreFuture<Vec<QueuedRevocation>>;
    /// Replaces the ciphertext of a queued revocation, if it is as it was listed.
    fn reseal_revocation(&self, revocation: &QueuedRevocation, resealed: Sealed) -> StoreFuture<()>;
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
    /// Replaces a value that belongs to the store as a whole if it is still `expected`. Returns whether it was.
    fn swap_meta(&self, name: &'static str, expected: Vec<u8>, value: Vec<u8>) -> StoreFuture<bool>;
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
    /// Opens a line to the other processes at this store; `None` if there can be no other.
    fn open_line(&self) -> Option<StoreFuture<Line>>;
    /// Sends texts as [`Line::say`] does, where no line is open.
    fn say(&self, texts: Vec<String>) -> StoreFuture<()>;
    /// Writes the report of a process that works with the store, or deletes it.
    fn report(&self, id: &str, report: Option<Vec<u8>>) -> StoreFuture<()>;
    /// Returns the reports of all processes that have written one within a day; none of a store for one process.
    fn reports(&self) -> StoreFuture<Vec<ReplicaReport>>;
    /// Returns where the database is: another text after a fail-over, or a move to another server. `None` if that cannot be told.
    fn server(&self) -> StoreFuture<Option<String>>;
    /// Whether the database is elsewhere than what was relied on last: no refresh token is claimed there.
    fn is_elsewhere(&self) -> bool;
    /// Records that what the database may have lost on its way to this place is looked after: refresh tokens can be claimed.
    fn rely_on(&self, server: &str);
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

/// A line to the other processes at a store. Dropping it closes it.
pub(crate) struct Line {
    /// The texts of all processes, also of this one, from the opening of the line on, each process's in its order; ends with the
    /// connection.
    pub(crate) heard: mpsc::Receiver<String>,
    /// Sends texts of at most [`LONGEST_TEXT`] bytes to every process that has a line open. Others never get them.
    pub(crate) say: Say,
}

/// Sends texts on a line.
pub(crate) type Say = Box<dyn Fn(Vec<String>) -> StoreFuture<()> + Send + Sync>;

/// The longest text of a line, in bytes: PostgreSQL's limit is 7 999.
pub(crate) const LONGEST_TEXT: usize = 7_900;

/// The report of a process that works with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaReport {
    pub(crate) id: String,
    pub(crate) report: Vec<u8>,
    /// How long ago it was written, in milliseconds of the store's clock.
    pub(crate) age_ms: u64,
}

/// The result of a change.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) reply: ChangeReply,
    /// The row as it is now.
    pub(crate) row: Option<Row>,
    /// The time by which the store applied the change.
    pub(crate) now: StoreTime,
    /// The incarnation that the row had before, if the change began another one.
    pub(crate) replaced: Option<Id>,
    /// The events to report to operators and applications.
    pub(crate) transitions: Vec<Transition>,
}

/// Returns the incarnation that a row had before, if it has another one now.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn replaced_by(before: Option<Id>, row: Option<&Row>) -> Option<Id> {
    before.filter(|before| row.is_some_and(|row| row.incarnation != *before))
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

/// What a key has sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyUse {
    pub(crate) key: KeyId,
    /// Rows with a value that it sealed.
    pub(crate) rows: u64,
    /// Queued revocations whose token it sealed.
    pub(crate) revocations: u64,
}

/// A position between rows, in the order in which they were stored first. The default is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowPosition(pub(crate) i64);

/// Rows with a value that another key than the active one sealed.
#[derive(Clone, Debug)]
pub(crate) struct SealedPage {
    /// Rows that cannot be read are left out.
    pub(crate) rows: Vec<Row>,
    /// How many of them were left out.
    pub(crate) unreadable: u64,
    /// `None` on the last page.
    pub(crate) next: Option<RowPosition>,
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
