//! The mark of a history: which of its entries the store had for certain. The store keeps the same number; one that is lower
//! than the folder's proves that the store went back.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::segment::HistoryPlace;
use crate::{disk, model::Id};

/// Written to a small file beside the history, after the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryMark {
    /// The store had the entries up to this one.
    pub(crate) number: u64,
    /// The place behind that entry.
    pub(crate) place: HistoryPlace,
    /// Where the store was, if it says so: another server, or another line of its history, may have lost commits.
    #[serde(default)]
    pub(crate) server: Option<String>,
    /// The owners that had marks in the store: one whose own mark the store has lost is known from here.
    #[serde(default)]
    pub(crate) owners: Vec<Id>,
}

impl HistoryMark {
    pub(super) fn read(directory: &Path, owner: Id) -> Option<Self> {
        let path = path(directory, owner);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the mark of a history cannot be read: it counts as missing");
                return None;
            }
        };
        let mark = serde_json::from_slice(&bytes).ok();
        if mark.is_none() {
            tracing::warn!(file = %path.display(), "the mark of a history is damaged: it counts as missing");
        }
        mark
    }

    /// Replaces the file as a whole.
    pub(super) fn write(&self, directory: &Path, owner: Id) -> io::Result<()> {
        let (path, new) = (path(directory, owner), directory.join(format!("{owner}.mark.new")));
        let json = serde_json::to_vec(self).expect("plain structs have a JSON form");
        let mut options = disk::unlinked();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&new)?.write_all(&json)?;
        fs::rename(&new, &path)
    }
}

fn path(directory: &Path, owner: Id) -> PathBuf {
    directory.join(format!("{owner}.mark"))
}
