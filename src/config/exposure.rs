//! Files of an installation that other users of the machine can read or change.

use std::{collections::BTreeSet, path::PathBuf};

use super::{Config, error::Origin, field::HIDDEN};

/// A file or folder that other users can read or change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExposedFile {
    /// Its path.
    pub path: PathBuf,
    /// What other users can do with it.
    pub finding: &'static str,
    /// The mode to give it with `chmod`.
    pub mode: &'static str,
    /// Whether an operator must act. A group that can read a key file or a configuration may be the way in which the server
    /// reads it.
    pub is_serious: bool,
}

/// The content of a file, which decides who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileContent {
    /// This program creates the file, for its owner alone.
    Own,
    /// The journal's folder.
    OwnFolder,
    /// Secrets that an operator or an orchestrator provides.
    Provided,
    /// Settings without secrets: others may read them.
    Settings,
    /// A folder with files of the installation: a user with write permission on it can replace its files.
    Around,
}

impl Config {
    /// Returns the files and folders of this installation that other users can read or change: database, journal, key file,
    /// lock file, configuration, and the files of `{ file = ".." }` values. Looks at their modes, now; a file that does not
    /// exist is not exposed. Empty on systems without modes.
    pub fn exposed_files(&self) -> Vec<ExposedFile> {
        let mut all = vec![(self.keyring.clone(), FileContent::Provided)];
        all.extend(self.files.keys().map(|path| (path.clone(), FileContent::Provided)));
        let content = if self.has_inline_secret() { FileContent::Provided } else { FileContent::Settings };
        all.extend(self.file.clone().map(|path| (path, content)));
        // They are beside the file itself, not beside a link to it.
        let store = self.store_file().map(|file| match file.is_symlink() {
            true => file.canonicalize().unwrap_or_else(|_| file.to_owned()),
            false => file.to_owned(),
        });
        for end in ["", "-wal", "-shm", "-last", ".lock"] {
            let named = |file: &PathBuf| {
                let mut name = file.as_os_str().to_owned();
                name.push(end);
                (PathBuf::from(name), FileContent::Own)
            };
            all.extend(store.as_ref().map(named));
        }
        let within = self.journal.read_dir().into_iter().flatten().filter_map(Result::ok);
        let mut within: Vec<_> = within.map(|entry| (entry.path(), FileContent::Own)).collect();
        within.sort_by(|(one, _), (other, _)| one.cmp(other));
        let folders: BTreeSet<_> =
            all.iter().chain([&(self.journal.clone(), FileContent::OwnFolder)]).map(folder_of).collect();
        all.push((self.journal.clone(), FileContent::OwnFolder));
        all.extend(within);
        all.extend(folders.into_iter().map(|folder| (folder, FileContent::Around)));
        all.into_iter().filter_map(|(path, content)| exposed(path, content)).collect()
    }

    /// Whether the file itself has a secret. The digest of an API key is none.
    fn has_inline_secret(&self) -> bool {
        self.shown.iter().any(|shown| {
            let inline = matches!(shown.origin, Origin::File { .. });
            inline && shown.value.contains(HIDDEN) && !shown.path.ends_with(".sha256")
        })
    }
}

fn folder_of((path, _): &(PathBuf, FileContent)) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| ".".into(), Into::into)
}

#[cfg(unix)]
fn exposed(path: PathBuf, content: FileContent) -> Option<ExposedFile> {
    use std::os::unix::fs::MetadataExt as _;
    const STICKY: u32 = 0o1000;
    let found = path.metadata().ok()?;
    let (mode, is_folder) = (found.mode(), found.is_dir());
    if is_folder != matches!(content, FileContent::OwnFolder | FileContent::Around) {
        // The start says what is wrong with it.
        return None;
    }
    let (finding, is_serious) = match content {
        // In a folder with the sticky bit, others cannot replace files.
        FileContent::Around if mode & 0o002 == 0 || mode & STICKY != 0 => return None,
        FileContent::Around => ("every user can replace files in it", true),
        _ if mode & 0o002 != 0 => ("every user can change it", true),
        _ if mode & 0o020 != 0 => ("its group can change it", true),
        FileContent::Settings => return None,
        _ if mode & 0o007 != 0 => ("every user can read it", true),
        _ if mode & 0o070 == 0 => return None,
        FileContent::Own | FileContent::OwnFolder => ("its group can read it", true),
        FileContent::Provided => ("its group can read it, which is right only if the server reads it that way", false),
    };
    let mode = match content {
        FileContent::Around => "o-w",
        FileContent::Settings => "go-w",
        FileContent::OwnFolder => "700",
        FileContent::Own | FileContent::Provided => "600",
    };
    Some(ExposedFile { path, finding, mode, is_serious })
}

#[cfg(not(unix))]
fn exposed(_: PathBuf, _: FileContent) -> Option<ExposedFile> {
    None
}
