//! Changes of a key file on the disk.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    Keyring,
    file::{self, KeyringError},
};
use crate::{Error, disk::FileId};

/// A key file that is being changed. While this exists, no other `KeyFileEdit` of the file does.
///
/// The file is replaced by a rename: a reader sees either the old keys or the new ones, also after a power failure.
#[derive(Debug)]
pub struct KeyFileEdit {
    /// Of the file itself, where the given path is a symbolic link.
    path: PathBuf,
    /// Locked.
    file: File,
    keyring: Keyring,
}

impl KeyFileEdit {
    /// Locks the file, waiting for another program that changes it, and reads its keys. Blocks.
    ///
    /// # Errors
    /// [`Error::Start`] if the file cannot be read or locked, or has no keys.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let unreadable = |cause| KeyringError::Read { path: path.to_owned(), cause };
        let path = path.canonicalize().map_err(unreadable)?;
        let file = loop {
            let file = File::open(&path).map_err(unreadable)?;
            file.lock().map_err(unreadable)?;
            // Whoever had the lock before may have replaced the file.
            let locked = FileId::of_open(&file).map_err(unreadable)?;
            if FileId::at(&path).map_err(unreadable)? == locked {
                break file;
            }
        };
        let keyring = Keyring::from_file(&path)?;
        Ok(Self { path, file, keyring })
    }

    /// Returns the keys of the file.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Writes these keys in the place of the file's, and waits until they are on disk. The owner stays the same; only the owner can
    /// read the new file, and its group if it could before. Blocks.
    ///
    /// # Errors
    /// [`Error::Start`]; the file is unchanged.
    pub fn replace(self, keyring: &Keyring) -> Result<(), Error> {
        let json = file::to_json(&keyring.keys.load(), &keyring.lasting.fingerprint);
        let unwritable = |cause| KeyringError::Write { path: self.path.clone(), cause };
        let beside = self.path.with_extension("keys-new");
        match fs::remove_file(&beside) {
            // A killed process left it.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(error).into()),
        }
        let written = self.write_beside(&beside, &json).and_then(|()| fs::rename(&beside, &self.path));
        if let Err(cause) = written {
            let _ = fs::remove_file(&beside);
            return Err(unwritable(cause).into());
        }
        Ok(file::sync_directory(&self.path).map_err(unwritable)?)
    }

    fn write_beside(&self, beside: &Path, json: &[u8]) -> io::Result<()> {
        let mut file = file::create_private(beside)?;
        self.keep_owner(&file)?;
        file.write_all(json)?;
        file.sync_all()
    }

    /// Gives the new file the owner of the old one, and lets its group read it if it could before.
    #[cfg(unix)]
    fn keep_owner(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
        let (old, new) = (self.file.metadata()?, file.metadata()?);
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
        }
        let mode = if old.mode() & 0o040 == 0 { 0o600 } else { 0o640 };
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    #[cfg(not(unix))]
    fn keep_owner(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_file_is_replaced_by_one_that_only_its_owner_can_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.keys");
        Keyring::generate().write_new(&path).unwrap();
        let edit = KeyFileEdit::open(&path).unwrap();
        let (staged, id) = edit.keyring().staging(UNIX_EPOCH);
        // What a killed process left.
        fs::write(path.with_extension("keys-new"), "half").unwrap();
        edit.replace(&staged).unwrap();
        assert_eq!(Keyring::from_file(&path).unwrap().labels(), staged.labels());
        let names: Vec<_> = directory.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["tokens.keys"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            for (before, after) in [(0o644, 0o640), (0o640, 0o640), (0o400, 0o600), (0o604, 0o600)] {
                fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
                let link = directory.path().join("link.keys");
                let _ = std::os::unix::fs::symlink(&path, &link);
                let edit = KeyFileEdit::open(&link).unwrap();
                let keys = edit.keyring().clone();
                edit.replace(&keys).unwrap();
                assert_eq!((mode(&path), link.is_symlink()), (after, true));
            }
        }
        let removed = staged.removing(&id).unwrap();
        KeyFileEdit::open(&path).unwrap().replace(&removed).unwrap();
        assert_eq!(Keyring::from_file(&path).unwrap().labels(), removed.labels());
    }

    #[test]
    fn two_changes_at_once_follow_one_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.keys");
        Keyring::generate().write_new(&path).unwrap();
        let add = || {
            let edit = KeyFileEdit::open(&path).unwrap();
            let (staged, _) = edit.keyring().staging(UNIX_EPOCH);
            edit.replace(&staged).unwrap();
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(add))));
        assert_eq!(Keyring::from_file(&path).unwrap().labels().len(), 9);
    }
}
