//! The database file, its lock file, and what an operator can do where one of them does not open.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{
    disk::{self, FileId},
    error::Error,
};

/// The lock of the one process that writes the store. The operating system releases it when the process exits.
///
/// The lock file is locked, which names the holder to other processes, and the database itself, which another name of
/// the same file does not get round. This descriptor of the database must be closed last: closing it ends the locks that
/// SQLite has on the file.
pub(super) struct LockFile {
    path: PathBuf,
    lock: File,
    database: File,
    index: OnceLock<File>,
}

impl LockFile {
    /// The index of the log, of an open database. Like that of the database, this descriptor is closed last.
    pub(super) fn index(&self) -> io::Result<&File> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = File::open(beside(&self.path, "-shm"))?;
        Ok(self.index.get_or_init(|| index))
    }

    /// The path of the database without symbolic links.
    pub(super) fn database(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockFile {
    /// Unlocks explicitly: a child process that is just being started may hold the descriptor a moment longer.
    fn drop(&mut self) {
        self.database.unlock().ok();
        self.lock.unlock().ok();
    }
}

/// Locks the database at `path`, and creates it if it does not exist.
pub(super) fn lock(path: &Path) -> Result<LockFile, Error> {
    let failed = |error: io::Error| unopened(path, &error);
    let real = real_path(path).map_err(failed)?;
    let name = beside(&real, ".lock");
    if name.is_symlink() {
        let name = name.display();
        return Err(refused(path, &format_args!("its lock file {name} is a symbolic link: remove the link")));
    }
    let mut lock = private().truncate(false).read(true).write(true).open(&name).map_err(failed)?;
    take(&lock, path, || {
        let mut holder = String::new();
        (&lock).read_to_string(&mut holder).ok();
        holder
    })?;
    let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.and_then(|()| lock.rewind()).map_err(failed)?;
    // Readable only by its owner; SQLite creates its companion files with the same mode.
    let mut options = OpenOptions::new();
    private_mode(&mut options);
    let database = options.create(true).append(true).open(&real).map_err(failed)?;
    if let Err(error) = take(&database, path, String::new) {
        // This process may have the file open by another name: closing a descriptor would end the locks of SQLite.
        std::mem::forget(database);
        return Err(error);
    }
    Ok(LockFile { path: real, lock, database, index: OnceLock::new() })
}

fn take(file: &File, path: &Path, holder: impl FnOnce() -> String) -> Result<(), Error> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let holder = holder();
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                id => format!("process {id}"),
            };
            Err(Error::StoreInUse(format!(
                "store {} is in use by {holder}, the only one that can write to it: stop it, or ask its API",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(unopened(path, &error)),
    }
}

/// Options for files that only their owner can read: a user who can read the lock file could lock it.
pub(super) fn private() -> OpenOptions {
    let mut options = disk::unlinked();
    options.create(true);
    private_mode(&mut options);
    options
}

fn private_mode(_options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(_options, 0o600);
}

/// Returns the path without symbolic links; the file itself need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().ok_or(error)?;
            Ok(folder.canonicalize()?.join(name))
        }
        found => found,
    }
}

pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The files of an open database. What is written to them is found by the next process only while they are at their
/// paths.
pub(super) struct OpenFiles(Vec<(PathBuf, FileId)>);

impl OpenFiles {
    /// Looks at the files after they were opened.
    ///
    /// # Errors
    /// One of them is not there, or the path leads to another file than the locked one.
    pub(super) fn of(lock: &LockFile) -> io::Result<Self> {
        let log = beside(&lock.path, "-wal");
        let files = vec![
            (lock.path.clone(), FileId::of_open(&lock.database)?),
            (beside(&lock.path, ".lock"), FileId::of_open(&lock.lock)?),
            (log.clone(), FileId::at(&log)?),
        ];
        let open = Self(files);
        open.check()?;
        Ok(open)
    }

    /// # Errors
    /// One of the files was moved, removed or replaced.
    pub(super) fn check(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(path, id)| id.check(path))
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
