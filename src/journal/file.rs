//! One journal on disk: a locked file that is appended to and truncated.
//!
//! `TSJ1 | owner 16`, then frames. An entry is on disk before the next frame is written; a mark need not be.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    error::{EntryError, JournalError},
    frame::{self, FrameBody, FrameRead},
    room::JournalSpace,
};
use crate::{
    disk,
    model::{Id, Sealed},
};

/// A journal that this process has locked. Dropping it unlocks it.
pub(super) struct JournalFile {
    owner: Id,
    path: PathBuf,
    /// Open for as long as the lock is held.
    file: File,
    /// The file has whole frames up to this offset.
    length: u64,
    /// The frames up to this offset are on disk.
    synced: u64,
    /// The file could not be truncated after a failure, so a frame written after it could not be read.
    broken: bool,
    rooms: Arc<JournalSpace>,
    #[cfg(any(test, feature = "testing"))]
    pub(super) fail: bool,
    /// How many appends failed because of `fail`.
    #[cfg(any(test, feature = "testing"))]
    pub(super) failed: usize,
}

impl Drop for JournalFile {
    /// Unlocks explicitly: a child process that is just being started may hold the descriptor a moment longer.
    fn drop(&mut self) {
        self.file.unlock().ok();
    }
}

/// What is read of a journal.
pub(super) enum JournalPart {
    /// A frame that begins at this byte.
    Frame(FrameBody, u64),
    /// The end. Nothing was changed yet.
    End { is_damaged: bool },
}

/// Locks the directory's unlocked journals, in the order of their names. Creates a missing directory.
pub(super) fn lock_unlocked(directory: &Path) -> Result<Vec<JournalFile>, JournalError> {
    let failed = |cause| JournalError::Io { doing: "create", path: directory.to_owned(), cause };
    create_directory(directory).map_err(failed)?;
    paths(directory)?.into_iter().filter_map(|path| JournalFile::lock(path).transpose()).collect()
}

/// Returns the journals of the directory, in the order of their names.
fn paths(directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let failed = |cause| JournalError::Io { doing: "list", path: directory.to_owned(), cause };
    let mut paths = Vec::new();
    for item in fs::read_dir(directory).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Returns the damaged journals that were set aside in the directory and are still there.
pub(crate) fn set_aside(directory: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|item| item.path());
    let mut damaged: Vec<_> = items.filter(|path| path.extension().is_some_and(|end| end == DAMAGED)).collect();
    damaged.sort();
    damaged
}

/// Creates a new journal, which is locked before other processes can find it.
pub(super) fn create(directory: &Path) -> Result<JournalFile, JournalError> {
    let owner = Id::random();
    let path = directory.join(format!("{owner}.{EXTENSION}"));
    let failed = |doing| {
        let path = path.clone();
        move |cause| JournalError::Io { doing, path, cause }
    };
    // The file has another name until it is locked and complete: another process that listed the directory in between
    // would lock it as a dead process's journal. A kill before the rename leaves a file of 20 bytes, which is ignored.
    let unnamed = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&unnamed).map_err(failed("create"))?;
    let complete = || -> Result<(), JournalError> {
        file.lock().map_err(|cause| JournalError::Lock { path: path.clone(), cause })?;
        (&file).write_all(&header(owner)).and_then(|()| file.sync_all()).map_err(failed("write"))?;
        fs::rename(&unnamed, &path).and_then(|()| sync_directory(directory)).map_err(failed("create"))
    };
    complete().inspect_err(|_| drop(fs::remove_file(&unnamed)))?;
    JournalFile::new(owner, path, file)
}

impl JournalFile {
    fn new(owner: Id, path: PathBuf, file: File) -> Result<Self, JournalError> {
        let rooms = file.try_clone().and_then(|file| JournalSpace::new(file, path.clone(), HEADER));
        let rooms = rooms.map_err(|cause| JournalError::Io { doing: "open", path: path.clone(), cause })?;
        Ok(Self {
            owner,
            path,
            file,
            rooms: Arc::new(rooms),
            length: HEADER,
            synced: HEADER,
            broken: false,
            #[cfg(any(test, feature = "testing"))]
            fail: false,
            #[cfg(any(test, feature = "testing"))]
            failed: 0,
        })
    }

    /// Locks the journal at `path`; `None` if a living process holds its lock.
    fn lock(path: PathBuf) -> Result<Option<Self>, JournalError> {
        let failed = |doing| {
            let path = path.clone();
            move |cause| JournalError::Io { doing, path, cause }
        };
        let mut file = disk::unlinked().read(true).write(true).open(&path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(JournalError::Lock { path, cause }),
        }
        let owner = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let Some(owner) = owner else { return Err(JournalError::NotAJournal { path }) };
        let mut found = Vec::new();
        (&file).take(HEADER).read_to_end(&mut found).map_err(failed("read"))?;
        let expected = header(owner);
        if found == expected {
            return Self::new(owner, path, file).map(Some);
        }
        if found.len() == expected.len() && found.starts_with(b"TSJ") && found[4..] == expected[4..] {
            return Err(JournalError::Newer { path, at: 0 });
        }
        // The header never reached the disk, so no entry did either.
        if found.len() < expected.len() && (expected.starts_with(&found) || found.iter().all(|byte| *byte == 0)) {
            tracing::warn!(journal.file = %path.display(), "the empty journal has no header; it is rewritten");
            let rewritten = file.rewind().and_then(|()| file.write_all(&expected)).and_then(|()| file.sync_all());
            rewritten.map_err(failed("write"))?;
            return Self::new(owner, path, file).map(Some);
        }
        Err(JournalError::NotAJournal { path })
    }

    pub(super) fn owner(&self) -> Id {
        self.owner
    }

    pub(super) fn rooms(&self) -> &Arc<JournalSpace> {
        &self.rooms
    }

    /// Reads all frames in order, asks at the end whether that was well, and truncates a half-written end. If the file is damaged, reads what is whole behind the
    /// damage as well, changes nothing, and returns where the damage begins.
    pub(super) fn read(
        &mut self,
        mut take: impl FnMut(JournalPart) -> Result<(), EntryError>,
    ) -> Result<Option<u64>, JournalError> {
        let failed = |cause| self.io("read", cause);
        let mut pass = |part, at| {
            let path = || self.path.clone();
            take(part).map_err(|refused| match refused {
                EntryError::DoesNotOpen(cause) => JournalError::DoesNotOpen { path: path(), at, cause },
                EntryError::KeyIsGone(at, cause) => JournalError::DoesNotOpen { path: path(), at, cause },
                EntryError::Newer => JournalError::Newer { path: path(), at },
            })
        };
        let part = |frame, at| match frame {
            FrameRead::Frame { body, .. } => Ok(JournalPart::Frame(body, at)),
            FrameRead::Newer | FrameRead::Bad => Err(JournalError::Newer { path: self.path.clone(), at }),
        };
        let end = self.file.metadata().map_err(failed)?.len();
        let (mut at, mut is_torn) = (HEADER, false);
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(at)).map_err(failed)?;
        while at < end {
            match frame::read(&mut reader, end - at).map_err(failed)? {
                FrameRead::Bad => {
                    let mut rest = Vec::new();
                    reader.seek(SeekFrom::Start(at)).and_then(|_| reader.read_to_end(&mut rest)).map_err(failed)?;
                    if rest.len() as u64 <= frame::MAX_TORN && frame::is_torn_end(&rest) {
                        is_torn = true;
                        break;
                    }
                    let mut behind = &rest[1..];
                    while let Some((frame, length)) = frame::next_whole(behind) {
                        let found = end - behind.len() as u64;
                        pass(part(frame, found)?, found)?;
                        behind = &behind[length..];
                    }
                    pass(JournalPart::End { is_damaged: true }, at)?;
                    return Ok(Some(at));
                }
                frame => {
                    let size = if let FrameRead::Frame { size, .. } = &frame { *size } else { 0 };
                    pass(part(frame, at)?, at)?;
                    at += size;
                }
            }
        }
        pass(JournalPart::End { is_damaged: false }, at)?;
        if is_torn {
            self.cut_torn_end(at, end)?;
        }
        // Frames that were read are on disk, including marks for which the previous process did not wait.
        self.file.sync_data().map_err(|cause| self.io("write", cause))?;
        (self.length, self.synced) = (at, at);
        self.rooms.written(at);
        Ok(None)
    }

    fn cut_torn_end(&self, at: u64, end: u64) -> Result<(), JournalError> {
        tracing::warn!(
            journal.file = %self.path.display(),
            journal.at = at,
            journal.bytes = end - at,
            "the journal has a half-written end, which was never acknowledged; it is truncated"
        );
        self.file.set_len(at).map_err(|cause| self.io("truncate", cause))
    }

    /// Renames a damaged file, so that no process takes it for a journal, and keeps its bytes.
    pub(super) fn set_aside(self, at: u64) -> Result<(), JournalError> {
        let names = (1..).map(|number| self.path.with_extension(format!("{number}.{DAMAGED}")));
        let mut names = std::iter::once(self.path.with_extension(DAMAGED)).chain(names);
        let aside = names.find(|name| !name.exists()).unwrap_or_else(|| self.path.with_extension(DAMAGED));
        let renamed = fs::rename(&self.path, &aside).and_then(|()| match self.path.parent() {
            Some(directory) => sync_directory(directory),
            None => Ok(()),
        });
        renamed.map_err(|cause| self.io("rename", cause))?;
        tracing::error!(
            journal.file = %aside.display(),
            journal.at = at,
            "the journal is damaged: its readable entries are kept, and the file is set aside; grants whose response was in \
             the damaged part are in doubt; next: if you have a good copy of the file, stop the server, put the copy back \
             under its name with the ending .journal, and start; then remove the damaged file"
        );
        Ok(())
    }

    /// Writes an entry and waits until it is on disk.
    pub(super) fn append(&mut self, sealed: &Sealed) -> io::Result<()> {
        let frame = frame::entry(sealed)?;
        self.write(|file| {
            // Marks are synced first: an entry on disk after marks that are not would look like damage.
            if file.synced < file.length {
                file.file.sync_data()?;
                file.synced = file.length;
            }
            file.write_at_end(&frame)?;
            file.file.sync_data()?;
            file.length += frame.len() as u64;
            file.synced = file.length;
            file.rooms.written(file.length);
            Ok(())
        })
    }

    /// Writes a mark without waiting for the disk.
    pub(super) fn mark(&mut self, attempt: Id) -> io::Result<()> {
        let frame = frame::mark(attempt);
        self.write(|file| {
            file.write_at_end(&frame)?;
            file.length += frame.len() as u64;
            file.rooms.written(file.length);
            Ok(())
        })
    }

    /// Truncates a large file to its header. Must only be called when no entry in it is pending.
    pub(super) fn shrink(&mut self) -> io::Result<()> {
        if self.length > LARGE {
            self.file.set_len(HEADER)?;
            (self.length, self.synced) = (HEADER, HEADER);
            self.rooms.truncated(HEADER);
        }
        Ok(())
    }

    /// Runs `action`. If it fails, truncates the file to the part that is certainly on disk: this may remove marks
    /// (their entries are then committed again), but never entries.
    fn write(&mut self, action: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the journal is not writable after a failure: restart to open it again"));
        }
        let done = action(self);
        if done.is_err() {
            match self.file.set_len(self.synced) {
                Ok(()) => {
                    self.length = self.synced;
                    self.rooms.truncated(self.length);
                }
                Err(_) => self.broken = true,
            }
        }
        done
    }

    fn write_at_end(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        #[cfg(any(test, feature = "testing"))]
        if self.fail {
            self.failed += 1;
            self.file.write_all(&frame[..frame.len() / 2])?;
            return Err(io::Error::new(io::ErrorKind::StorageFull, "fault injected"));
        }
        self.file.write_all(frame)
    }

    pub(super) fn io(&self, doing: &'static str, cause: io::Error) -> JournalError {
        JournalError::Io { doing, path: self.path.clone(), cause }
    }
}

/// Reads the frames of every journal of the directory, also of those that a living process has locked; each with the journal's
/// owner. Changes nothing. Stops in a file where it is damaged, or half-written just now.
pub(super) fn look(directory: &Path, mut take: impl FnMut(Id, FrameBody)) -> Result<(), JournalError> {
    for path in paths(directory)? {
        let owner = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let Some(owner) = owner else { continue };
        let content = fs::read(&path).map_err(|cause| JournalError::Io { doing: "read", path: path.clone(), cause })?;
        let Some(mut rest) = content.strip_prefix(header(owner).as_slice()) else { continue };
        loop {
            let left = rest.len() as u64;
            let Ok(FrameRead::Frame { body, .. }) = frame::read(&mut rest, left) else { break };
            take(owner, body);
        }
    }
    Ok(())
}

fn header(owner: Id) -> Vec<u8> {
    [&MAGIC[..], &owner.0].concat()
}

pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Syncs the directory: until then a new name in it can be lost. Only Unix can open directories.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

const EXTENSION: &str = "journal";
/// The ending of a damaged journal that was set aside.
const DAMAGED: &str = "damaged";
const MAGIC: &[u8; 4] = b"TSJ1";
const HEADER: u64 = 20;
/// An idle journal larger than this is truncated.
const LARGE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_cannot_be_truncated_refuses_writes_until_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = create(directory.path()).unwrap();
        let sealed = Sealed(b"ts-test-secret-not-really-sealed".to_vec());
        journal.append(&sealed).unwrap();
        // Through a read-only handle, neither writing nor truncating works.
        let writable = std::mem::replace(&mut journal.file, File::open(&journal.path).unwrap());
        journal.append(&sealed).unwrap_err();
        journal.file = writable;
        assert!(journal.append(&sealed).unwrap_err().to_string().contains("restart"));
        assert!(journal.mark(Id::random()).is_err());
        drop(journal);
        let mut again = lock_unlocked(directory.path()).unwrap();
        let mut entries = 0;
        again[0]
            .read(|part| {
                entries += usize::from(matches!(part, JournalPart::Frame(..)));
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(entries, 1);
        again[0].append(&sealed).unwrap();
    }
}
