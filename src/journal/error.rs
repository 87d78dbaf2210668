//! The errors of the journal.

use std::{io, path::PathBuf};

use crate::{error::Error, keyring::OpenError};

/// Why the journal cannot be opened. The message says what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Usually a directory that belongs to another user, or a full disk.
    #[error("cannot {doing} {}: {cause}; check owner, mode and free space of the journal's directory", .path.display())]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
    /// Usually a network file system.
    #[error("cannot lock journal {}: {cause}; put the journal on a local disk", .path.display())]
    Lock { path: PathBuf, cause: io::Error },
    /// The file was renamed or copied, or is not a journal.
    #[error(
        "{} does not match its name: rename the journal back to its owner's id, or move it out of the directory",
        .path.display()
    )]
    NotAJournal { path: PathBuf },
    /// A newer version of this program wrote it.
    #[error(
        "journal {} was written by a newer version (byte {at}): start that version; if there was none, the file is \
         damaged: move it out of the directory, and the grants whose responses are in it are in doubt",
        .path.display()
    )]
    Newer { path: PathBuf, at: u64 },
    /// Usually the wrong key file, or a key that was removed too early.
    #[error(
        "cannot open the entry at byte {at} of journal {}: it {}; start with the key file it was sealed with",
        .path.display(), predicate(*.cause)
    )]
    DoesNotOpen { path: PathBuf, at: u64, cause: OpenError },
}

/// Returns the error as the predicate of a sentence about an entry.
fn predicate(error: OpenError) -> String {
    match error {
        OpenError::DoesNotOpen => error.to_string(),
        _ => format!("is {error}"),
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// Why an entry in a whole frame cannot be read.
pub(super) enum EntryError {
    DoesNotOpen(OpenError),
    /// The key of the entry at this byte is gone, and the store may lack the response.
    KeyIsGone(u64, OpenError),
    Newer,
}
