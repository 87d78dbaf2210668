//! Files with secrets, readable only by their owner, written whole or not at all.

use std::{
    io::{self, Write as _},
    path::Path,
};

use tempfile::NamedTempFile;

use super::{CliFailure, Exit};

/// Creates the file. A reader never sees a part of it.
///
/// # Errors
/// The file exists already, or cannot be written.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), CliFailure> {
    let created = written(path, content).and_then(|file| Ok(file.persist_noclobber(path)?));
    created.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CliFailure::new(
            Exit::Failed,
            format!("{} already exists; nothing was written", path.display()),
            "name another file, or move this one away",
        ),
        _ => unwritable(path, &error),
    })
}

/// Replaces the file by a rename, so that a reader sees either the whole old file or the whole new one.
///
/// # Errors
/// It cannot be written.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), CliFailure> {
    let replaced = written(path, content).and_then(|file| Ok(file.persist(path)?));
    replaced.map(drop).map_err(|error| unwritable(path, &error))
}

/// `tempfile` creates files that only their owner can read.
fn written(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn unwritable(path: &Path, error: &io::Error) -> CliFailure {
    CliFailure::new(
        Exit::Failed,
        format!("cannot write {}: {error}", path.display()),
        "check that its folder exists and that you can write to it",
    )
}
