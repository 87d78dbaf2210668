//! SQLite: one process, one writer thread with group commit, a few reader threads.
//!
//! Everything runs on threads of its own, so that no future of ours ever holds an open transaction.

mod census;
mod list;
mod migrate;
mod query;
mod statement;
#[cfg(test)]
mod tests;
mod threads;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use super::{
    Census, Changed, DueCursor, DuePage, Expiring, Listed, Names, QueuedRevocation, ReadRow, Store, StoreFuture,
};
use crate::{
    clock::Clock,
    error::Error,
    model::{Time, TokenKey},
    protocol::Change,
};
#[cfg(feature = "config")]
pub(super) use migrate::pending;
use threads::Jobs;

/// An open SQLite store. Dropping it ends its threads after their last job.
pub(super) struct SqliteStore {
    writer: Jobs,
    readers: Jobs,
    /// For what reads every row, so that nobody waits behind it.
    counter: Jobs,
    clock: Clock,
}

/// Says that this process writes the store; the operating system lets go of it when the process ends.
struct LockFile(File);

impl Drop for LockFile {
    /// Lets go at once: a child process that is just being started may hold the descriptor a moment longer.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

impl SqliteStore {
    /// Opens or creates the file, takes its lock and brings the schema up to date. Blocks.
    pub(super) fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        let (writer, lock) = up_to_date(path)?;
        let lock = Arc::new(lock);
        let readers = (0..READERS).map(|_| connect(path)).collect::<Result<_, _>>()?;
        let counter = vec![connect(path)?];
        let (readers, counter) = (threads::readers(readers, &lock), threads::readers(counter, &lock));
        Ok(Self { writer: threads::writer(writer, &lock), readers, counter, clock })
    }
}

/// Opens or creates the file with its lock, and brings its schema up to date.
fn up_to_date(path: &Path) -> Result<(SqliteConnection, LockFile), Error> {
    let lock = lock(path)?;
    create(path).map_err(|error| unopened(path, &error))?;
    let mut connection = connect(path)?;
    migrate::run(&mut connection).map_err(|error| unopened(path, &error))?;
    Ok((connection, lock))
}

/// Brings the schema of the file up to date, and lets go of it. Blocks.
#[cfg(feature = "config")]
pub(super) fn migrate(path: &Path) -> Result<(), Error> {
    up_to_date(path).map(drop)
}

/// Cold reads are short; two threads keep one slow page from blocking them all.
const READERS: usize = 2;

impl Store for SqliteStore {
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let (key, clock) = (key.clone(), self.clock.clone());
        self.writer.run(move |connection| query::change(connection, &key, &change, clock.now()))
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        let (key, clock) = (key.clone(), self.clock.clone());
        self.readers.run(move |connection| {
            Ok(ReadRow { row: query::find(connection, &key)?.map(|found| found.row), now: clock.now() })
        })
    }

    fn due(&self, by: Time, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        self.readers.run(move |connection| query::due(connection, by, after, limit))
    }

    fn expiring(&self, noticed: Range<Time>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        self.readers.run(move |connection| query::expiring(connection, &noticed, after.as_ref(), limit))
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        let (names, clock) = (names.clone(), self.clock.clone());
        self.readers.run(move |connection| list::list(connection, &names, after.as_ref(), limit, clock.now()))
    }

    fn census(&self) -> StoreFuture<Census> {
        let clock = self.clock.clone();
        self.counter.run(move |connection| census::census(connection, clock.now()))
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        let clock = self.clock.clone();
        self.readers.run(move |connection| query::revocations(connection, clock.now(), limit))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: Time) -> StoreFuture<bool> {
        let (id, failures) = (revocation.id, revocation.failures);
        self.writer.run(move |connection| query::revoking(connection, id, failures, retry_at))
    }

    fn revoked(&self, id: i64, retry_at: Option<Time>) -> StoreFuture<()> {
        self.writer.run(move |connection| query::revoked(connection, id, retry_at))
    }

    fn forget_spent(&self, before: Time) -> StoreFuture<()> {
        self.writer.run(move |connection| query::forget_spent(connection, before))
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.writer.run(move |connection| query::meta(connection, name, &value))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        let name = name.to_owned();
        self.writer.run(move |connection| query::set_meta(connection, &name, value.as_deref()))
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.readers.run(move |connection| query::metas(connection, prefix))
    }

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
    // FULL: what was acknowledged survives a loss of power; anything less forgets rotations.
    connection
        .batch_execute("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .map_err(|error| unopened(path, &error))?;
    Ok(connection)
}

const NOT_UTF_8: &str = "its path is not UTF-8: name another by store.url";

/// Creates the file for its owner alone; SQLite gives its companions the same mode.
fn create(path: &Path) -> std::io::Result<()> {
    own().append(true).open(path).map(drop)
}

/// Files that are made are their owner's alone: whoever may read the lock could hold it.
fn own() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn lock(path: &Path) -> Result<LockFile, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file = own().truncate(false).read(true).write(true).open(&name).map_err(|error| unopened(path, &error))?;
    match file.try_lock() {
        Ok(()) => {
            let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            written.and_then(|()| file.rewind()).map_err(|error| unopened(path, &error))?;
            Ok(LockFile(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).ok();
            let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
            Err(Error::StoreInUse(format!(
                "store {} is in use by process {holder}: SQLite has one writing process; stop that one, or ask it",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(unopened(path, &error)),
    }
}

fn unopened(path: &Path, error: &dyn std::fmt::Display) -> Error {
    refused(path, &format_args!("{error}; {}", advice(path)))
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Start(format!("cannot open the store {}: {why}", path.display()))
}

/// What to do, by what is there.
fn advice(path: &Path) -> &'static str {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() {
        "that is a folder: name a file in it by store.url"
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        "its folder is missing: make it, or name another by store.url"
    } else if is_something_else(path) {
        "that is no store: restore it from its backup, or name another file by store.url"
    } else {
        "check the owner, mode and free space of it and its folder"
    }
}

/// A file that is neither new nor one of SQLite's.
fn is_something_else(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.is_ok() && !head.is_empty() && head != *b"SQLite format 3\0"
}
