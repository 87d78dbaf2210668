//! The database file, its lock file, and what an operator can do where one of them does not open.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use crate::error::Error;

/// The lock of the one process that writes the store. The operating system releases it when the process exits.
pub(super) struct LockFile(File);

impl Drop for LockFile {
    /// Unlocks explicitly: a child process that is just being started may hold the descriptor a moment longer.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

/// Options that create files readable only by their owner: a user who can read the lock file could lock it.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(super) fn lock(path: &Path) -> Result<LockFile, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file =
        private().truncate(false).read(true).write(true).open(&name).map_err(|error| unopened(path, &error))?;
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
                "store {} is in use by process {holder}, the only one that can write to it: stop it, or ask its API",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(unopened(path, &error)),
    }
}

pub(super) fn unopened(path: &Path, error: &dyn std::fmt::Display) -> Error {
    refused(path, &format_args!("{error}; {}", advice(path)))
}

pub(super) fn refused(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Start(format!("cannot open the store {}: {why}", path.display()))
}

/// Returns what the operator can do, depending on what is at the path.
pub(super) fn advice(path: &Path) -> &'static str {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() {
        "it is a folder: set store.url to a file in it"
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        "its folder is missing: create it, or set store.url to another path"
    } else if is_foreign(path) {
        "it is not a SQLite file: restore it from its backup, or set store.url to another path"
    } else {
        "check the owner and mode of the file and its folder, and the free space"
    }
}

/// Returns whether the file has content and is not a SQLite file.
pub(super) fn is_foreign(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.is_ok() && !head.is_empty() && head != *b"SQLite format 3\0"
}
