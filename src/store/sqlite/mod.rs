//! The SQLite store: one process, one writer thread with group commit, and a few reader threads.
//!
//! Every operation runs on these threads, so that no future ever holds an open transaction.

mod census;
mod files;
mod forget;
#[cfg(any(feature = "config", feature = "testing"))]
mod integrity;
mod list;
mod log;
mod lookup;
mod memory;
mod meta;
mod migrate;
mod pages;
mod query;
#[cfg(test)]
mod refresh_tests;
mod sealed;
mod statement;
#[cfg(test)]
mod tests;
mod threads;

use std::{ops::Range, path::Path, sync::Arc};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use super::{
    Census, Changed, DueCursor, DuePage, Expiring, KeyUse, Line, Listed, Names, Outbox, QueuedRevocation, ReadRow,
    ReplicaReport, RowPosition, SealedPage, Store, StoreFuture, unreadable::RowReader,
};
use crate::{
    clock::Clock,
    error::Error,
    keyring::{KeyId, RowCodes},
    model::{Sealed, StoreTime, TokenKey, WallTime},
    protocol::Change,
};
use files::{LockFile, OpenFiles, lock, refused, unopened};
#[cfg(any(feature = "config", feature = "testing"))]
pub(super) use integrity::integrity;
use log::LastCommit;
use memory::WriterMemory;
#[cfg(feature = "config")]
pub(super) use migrate::pending;
pub(super) use migrate::refuse_pending;
use threads::Jobs;

/// An open SQLite store. When it is dropped, its threads finish the jobs in their queues and exit.
pub(super) struct SqliteStore {
    writer: Arc<Jobs<WriterMemory>>,
    readers: Jobs<()>,
    /// Runs the census, which reads every row, so that no other read waits behind it.
    counter: Jobs<()>,
    clock: Clock,
    reader: RowReader,
}

impl SqliteStore {
    /// Opens or creates the file, locks it and brings the schema up to date. Blocks.
    pub(super) fn open(path: &Path, clock: Clock, codes: RowCodes) -> Result<Self, Error> {
        let (writer, lock) = up_to_date(path)?;
        let lock = Arc::new(lock);
        let readers = (0..READERS).map(|_| connect(path)).collect::<Result<_, _>>()?;
        let counter = vec![connect(path)?];
        let failed = |error: std::io::Error| unopened(path, &error);
        let files = OpenFiles::of(&lock).map_err(failed)?;
        let last = LastCommit::open(&lock).map_err(failed)?;
        let (readers, counter) = (threads::readers(readers, &lock), threads::readers(counter, &lock));
        let reader = RowReader::new(codes);
        let writer = threads::writer(
            threads::Writer {
                connection: writer,
                memory: WriterMemory::default(),
                files,
                last,
                reader: reader.clone(),
                is_stuck: false,
            },
            &lock,
        );
        Ok(Self { writer: Arc::new(writer), readers, counter, clock, reader })
    }
}

/// Opens or creates the file with its lock, and brings its schema up to date.
fn up_to_date(path: &Path) -> Result<(SqliteConnection, LockFile), Error> {
    let lock = lock(path)?;
    let damaged = log::check(lock.database()).map_err(|error| unopened(path, &error))?;
    damaged.map_err(|error| refused(path, &error))?;
    let mut connection = connect(path)?;
    migrate::run(&mut connection).map_err(|error| unopened(path, &error))?;
    Ok((connection, lock))
}

/// Brings the schema of the file up to date and closes it. Blocks.
#[cfg(feature = "config")]
pub(super) fn migrate(path: &Path) -> Result<(), Error> {
    let (mut connection, lock) = up_to_date(path)?;
    let lock = Arc::new(lock);
    empty_log(&mut connection);
    LastCommit::open(&lock).map_err(|error| unopened(path, &error))?;
    drop(connection);
    Ok(())
}

/// Moves everything from the log to the database and truncates the log, unless somebody reads it just now.
fn empty_log(connection: &mut SqliteConnection) {
    for statement in ["PRAGMA busy_timeout = 0;", "PRAGMA wal_checkpoint(TRUNCATE);", "PRAGMA busy_timeout = 5000;"] {
        connection.batch_execute(statement).ok();
    }
}

/// Reads are short; with two threads, one slow page does not block all others.
const READERS: usize = 2;

impl Store for SqliteStore {
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let (key, clock, reader) = (key.clone(), self.clock.clone(), self.reader.clone());
        self.writer.run(move |connection, memory| {
            query::change(connection, memory, &reader, &key, &change, clock.store_time())
        })
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        let (key, clock, reader) = (key.clone(), self.clock.clone(), self.reader.clone());
        self.readers.run(move |connection, _| {
            Ok(ReadRow { row: query::find(connection, &reader, &key)?, now: clock.store_time() })
        })
    }

    fn due(&self, idp: &str, by: WallTime, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        let (idp, reader) = (idp.to_owned(), self.reader.clone());
        self.readers.run(move |connection, _| pages::due(connection, &reader, &idp, by, after, limit))
    }

    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        let reader = self.reader.clone();
        self.readers.run(move |connection, _| pages::expiring(connection, &reader, &noticed, after.as_ref(), limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        let (names, clock, reader) = (names.clone(), self.clock.clone(), self.reader.clone());
        self.readers.run(move |connection, _| {
            list::list(connection, &reader, &names, after.as_ref(), limit, clock.store_time())
        })
    }

    fn census(&self) -> StoreFuture<Census> {
        let clock = self.clock.clone();
        self.counter.run(move |connection, _| census::census(connection, clock.store_time()))
    }

    fn key_use(&self) -> StoreFuture<Vec<KeyUse>> {
        self.counter.run(move |connection, _| sealed::key_use(connection))
    }

    fn sealed_by_others(&self, active: KeyId, after: RowPosition, limit: u32) -> StoreFuture<SealedPage> {
        let reader = self.reader.clone();
        self.counter.run(move |connection, _| sealed::sealed_by_others(connection, &reader, active, after, limit))
    }

    fn queued(&self, after: i64, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        let reader = self.reader.clone();
        self.readers.run(move |connection, _| pages::queued(connection, &reader, after, limit))
    }

    fn reseal_revocation(&self, revocation: &QueuedRevocation, resealed: Sealed) -> StoreFuture<()> {
        let revocation = revocation.clone();
        self.writer.run(move |connection, _| sealed::reseal_revocation(connection, &revocation, &resealed))
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        let (clock, reader) = (self.clock.clone(), self.reader.clone());
        self.readers.run(move |connection, _| pages::revocations(connection, &reader, clock.store_time(), limit))
    }

    fn outbox(&self, key: Option<TokenKey>) -> StoreFuture<Outbox> {
        self.readers.run(move |connection, _| query::outbox(connection, key.as_ref()))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: StoreTime) -> StoreFuture<bool> {
        let (id, failures) = (revocation.id, revocation.failures);
        self.writer.run(move |connection, _| query::revoking(connection, id, failures, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> StoreFuture<()> {
        self.writer.run(move |connection, _| query::revoked(connection, id, retry_at))
    }

    fn forget_spent(&self, before: StoreTime) -> StoreFuture<()> {
        let writer = self.writer.clone();
        Box::pin(async move {
            // A statement that reads the whole table would hold up the refreshes.
            for first in 0..=u8::MAX {
                writer.run(move |connection, _| forget::forget_spent(connection, before, first)).await?;
            }
            writer.run(move |connection, _| forget::forget_spent_of_purged(connection, before)).await
        })
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.writer.run(move |connection, _| meta::meta(connection, name, &value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        let name = name.to_owned();
        self.writer.run(move |connection, _| meta::set_meta(connection, &name, value.as_deref()))
    }

    fn swap_meta(&self, name: &'static str, expected: Vec<u8>, value: Vec<u8>) -> StoreFuture<bool> {
        self.writer.run(move |connection, _| meta::swap_meta(connection, name, &expected, &value))
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.readers.run(move |connection, _| meta::metas(connection, prefix))
    }

    fn keyring_check(&self, value: Vec<u8>) -> StoreFuture<Option<Vec<u8>>> {
        self.writer.run(move |connection, _| meta::keyring_check(connection, &value))
    }

    fn code_rows(&self, after: i64) -> StoreFuture<Option<i64>> {
        let reader = self.reader.clone();
        self.writer.run(move |connection, _| forget::code_rows(connection, &reader, after))
    }

    fn unreadable(&self) -> usize {
        self.reader.count()
    }

    fn open_line(&self) -> Option<StoreFuture<Line>> {
        None
    }

    fn say(&self, _: Vec<String>) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    fn report(&self, _: &str, _: Option<Vec<u8>>) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    fn reports(&self) -> StoreFuture<Vec<ReplicaReport>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn server(&self) -> StoreFuture<Option<String>> {
        Box::pin(async { Ok(None) })
    }

    fn is_elsewhere(&self) -> bool {
        false
    }

    fn rely_on(&self, _: &str) {}

    fn close(&self) -> StoreFuture<()> {
        let (writer, readers, counter) = (self.writer.close(), self.readers.close(), self.counter.close());
        Box::pin(async move {
            writer.await;
            readers.await;
            counter.await;
            Ok(())
        })
    }
}

fn connect(path: &Path) -> Result<SqliteConnection, Error> {
    let name = path.to_str().ok_or_else(|| refused(path, &NOT_UTF_8))?;
    let mut connection = SqliteConnection::establish(name).map_err(|error| unopened(path, &error))?;
    // FULL: an acknowledged write survives a power failure. Any other setting can lose rotated refresh tokens.
    // secure_delete: what was deleted or replaced is overwritten.
    // page_size (of a database that is being created): a refresh changes a few short rows far from each other, and each costs a
    // page. wal_autocheckpoint: a page that several refreshes change comes to the database once.
    connection
        .batch_execute(
            "PRAGMA busy_timeout = 5000; PRAGMA page_size = 2048; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(|error| unopened(path, &error))?;
    Ok(connection)
}

/// Opens the file only to read it, beside a process that may have it open. Where none has, this connection leaves the log of
/// a killed process as it is: one that could write would empty and delete it at its end.
fn connect_to_read(path: &Path) -> Result<SqliteConnection, Error> {
    let failed = |error: &dyn std::fmt::Display| unopened(path, error);
    let real = path.canonicalize().map_err(|error| failed(&error))?;
    log::check(&real).map_err(|error| failed(&error))?.map_err(|error| refused(path, &error))?;
    let mut address = url::Url::from_file_path(&real).map_err(|()| refused(path, &NOT_UTF_8))?;
    // Without a log nobody has the file open, and SQLite need not create one to read it.
    let is_closed = !files::beside(&real, "-wal").exists();
    address.set_query(Some(if is_closed { "mode=ro&immutable=1" } else { "mode=ro" }));
    let mut connection = SqliteConnection::establish(address.as_str()).map_err(|error| failed(&error))?;
    connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;").map_err(|error| failed(&error))?;
    Ok(connection)
}

const NOT_UTF_8: &str = "its path is not UTF-8: set store.url to another path";
