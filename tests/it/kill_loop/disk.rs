//! What the process writes and leaves behind, and another program that gets in its way.

use std::path::{Path, PathBuf};

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use tempfile::TempDir;
use token_supervisor::{
    Keyring, TokenKey,
    testing::{Kept, kept},
};

pub(super) struct Disk {
    folder: TempDir,
    keyring: Keyring,
    /// Holds SQLite's lock.
    silencer: Option<SqliteConnection>,
}

const STORE: &str = "tokens.db";

impl Disk {
    pub(super) fn new() -> Self {
        let (folder, keyring) = (TempDir::new().unwrap(), Keyring::generate());
        keyring.write_new(folder.path().join("tokens.keys")).unwrap();
        Self { folder, keyring, silencer: None }
    }

    pub(super) fn folder(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
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

    /// What a dead process left of each grant. Looks at a copy, so that the next one finds it as it was left.
    pub(super) fn left(&self, keys: &[TokenKey]) -> Vec<Vec<Kept>> {
        let copy = TempDir::new().unwrap();
        copy_files(self.folder.path(), copy.path());
        self.look(&copy.path().join(STORE), keys)
    }

    /// What a process left that ended well.
    pub(super) fn stored(&self, keys: &[TokenKey]) -> Vec<Vec<Kept>> {
        self.look(&self.store(), keys)
    }

    fn look(&self, store: &Path, keys: &[TokenKey]) -> Vec<Vec<Kept>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(kept(store, &self.keyring, keys)).unwrap()
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join(STORE)
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_files(&file.path(), &to);
        } else {
            std::fs::copy(file.path(), &to).unwrap();
        }
    }
}
