//! What the process writes and leaves behind, and another program that gets in its way.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use tempfile::TempDir;
use token_supervisor::{
    Keyring, TokenKey,
    testing::{Kept, kept},
};

use crate::support::left;

pub(super) struct Disk {
    folder: TempDir,
    keyring: Keyring,
    /// Holds SQLite's lock.
    silencer: Option<SqliteConnection>,
    /// Store and journal are on a disk of their own, which is this large.
    mounted: bool,
}

/// Of store and journal.
const DATA: &str = "data";
const STORE: &str = "tokens.db";
const FILLER: &str = "filler";

impl Disk {
    pub(super) fn new() -> Self {
        let disk =
            Self { folder: TempDir::new().unwrap(), keyring: Keyring::generate(), silencer: None, mounted: false };
        fs::create_dir(disk.folder().join(DATA)).unwrap();
        disk.keyring.write_new(disk.keys()).unwrap();
        disk
    }

    /// A disk that is large enough for what the process does, and small enough to be filled; `None` where none may be
    /// mounted.
    pub(super) fn small() -> Option<Self> {
        let mut disk = Self::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"]).arg(disk.folder().join(DATA));
        disk.mounted = mount.stderr(Stdio::null()).status().is_ok_and(|done| done.success());
        disk.mounted.then_some(disk)
    }

    /// Another program takes all the space that is left.
    pub(super) fn fill(&self) {
        let mut filler = File::create(self.folder().join(DATA).join(FILLER)).unwrap();
        let mut block = vec![1; 64 * 1024];
        while !block.is_empty() {
            if filler.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }

    pub(super) fn free(&self) {
        fs::remove_file(self.folder().join(DATA).join(FILLER)).ok();
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.folder().join("tokens.keys")
    }

    pub(super) fn store(&self) -> PathBuf {
        self.folder().join(DATA).join(STORE)
    }

    /// Another program takes SQLite's lock and keeps it.
    pub(super) fn silence_the_store(&mut self) {
        let mut connection = SqliteConnection::establish(self.store().to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 20000; BEGIN IMMEDIATE").unwrap();
        self.silencer = Some(connection);
    }

    pub(super) fn end_silence(&mut self) {
        self.silencer = None;
    }

    /// What a dead process left of each grant.
    pub(super) fn left(&self, keys: &[TokenKey]) -> Vec<Vec<Kept>> {
        on_a_runtime(left(&self.store(), &self.keyring, keys))
    }

    /// What a process left that ended well.
    pub(super) fn stored(&self, keys: &[TokenKey]) -> Vec<Vec<Kept>> {
        on_a_runtime(kept(&self.store(), &self.keyring, keys)).unwrap()
    }
}

impl Drop for Disk {
    /// When something was lost, everything is kept that may tell why.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("store, journal and logs are kept in {}", self.folder().display());
        } else if self.mounted {
            Command::new("umount").arg(self.folder().join(DATA)).status().ok();
        }
    }
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
