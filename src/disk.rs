//! Files as they are on the disk: whether a path still leads to the file that is open.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

/// Options that open no symbolic link, so that nobody can make the program write to a file elsewhere.
pub(crate) fn unlinked() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// The identity of a file: its device and inode. On systems that have none every file counts as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId((u64, u64));

impl FileId {
    pub(crate) fn of_open(file: &File) -> io::Result<Self> {
        file.metadata().map(|file| Self::of(&file))
    }

    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        path.metadata().map(|file| Self::of(&file))
    }

    /// Checks that the path still leads to the file.
    ///
    /// # Errors
    /// Another file or none is there: what is written to the open one is not found after a restart.
    pub(crate) fn check(self, path: &Path) -> io::Result<()> {
        let what = match Self::at(path) {
            Ok(found) if found == self => return Ok(()),
            Ok(_) => "was replaced by another file",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "was moved or removed",
            Err(error) => return Err(error),
        };
        let path = path.display();
        Err(io::Error::other(format!(
            "{path} {what} while it was open: nothing more is written, because it would be lost; put the file back, or \
             stop this process and start it again"
        )))
    }

    #[cfg(unix)]
    fn of(file: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self((file.dev(), file.ino()))
    }

    #[cfg(not(unix))]
    fn of(_: &std::fs::Metadata) -> Self {
        Self((0, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_moved_removed_or_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.db"), folder.path().join("b.db"));
        fs::write(&path, "").unwrap();
        let id = FileId::at(&path).unwrap();
        id.check(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        assert!(id.check(&path).unwrap_err().to_string().contains("was moved or removed while it was open"));
        fs::write(&path, "").unwrap();
        assert!(id.check(&path).unwrap_err().to_string().contains("was replaced by another file"));
        fs::rename(&moved, &path).unwrap();
        id.check(&path).unwrap();
    }
}
