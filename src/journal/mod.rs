//! What identity providers answered and the store has not got yet.
//!
//! A refresh token that was rotated exists once. While the store is silent it is sealed into a file
//! here, and on disk before anybody sees the access token that came with it. A journal has an owner id,
//! which the store keeps beside every request that was sent: whoever holds the lock of the owner's file
//! knows that no other process can still write an answer into it.
//!
//! Invariants: an entry is pending from the moment it is on disk until it is marked, over restarts; what
//! cannot be read is an error and never skipped, except the end that a killed process left half-written,
//! which nobody was told of; no file of a living process is touched. Deliberately absent: the store, and
//! what a payload means. Files are never deleted: their locks are the proof that their owners are dead.

mod file;
mod frame;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    keyring::{Field, Keyring, OpenError},
    model::{Id, Sealed, TokenKey},
};

use file::JournalFile;
use frame::FrameBody;

/// The journals of one directory that this process has locked: its own, and those of dead processes.
pub(crate) struct Journal {
    owner: Id,
    others: Vec<Id>,
    keyring: Keyring,
    /// Ours first, then the dead owners'. Held while the disk works, so never together with a wait for
    /// anything else; taken before `pending`.
    files: Mutex<Vec<JournalFile>>,
    /// Apart from the files, so that reading it never waits for the disk.
    pending: Mutex<Pending>,
}

/// One answer that the store has to get.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) key: TokenKey,
    /// Which attempt got it. The store takes it once, however often it is offered.
    pub(crate) attempt: Id,
    /// The serialized commit; opaque here.
    pub(crate) payload: Vec<u8>,
}

/// Why the journal cannot be opened. The message says what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Usually a directory that belongs to another user, or a full disk.
    #[error("cannot {doing} {}: {cause}; check the owner, mode and free space of the journal's directory", .path.display())]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
    /// Usually a network file system.
    #[error("cannot lock journal {}: {cause}; put the journal on a local disk", .path.display())]
    Lock { path: PathBuf, cause: io::Error },
    /// Renamed, copied, or something else altogether.
    #[error(
        "{} is not the journal its name says: give it back its name (its owner's id), or move it out of the directory",
        .path.display()
    )]
    NotAJournal { path: PathBuf },
    /// Bytes in the middle changed: usually a bad disk, or an editor.
    #[error(
        "journal {} is damaged at byte {at} and goes on after it: restore the file, or move it out of the directory; \
         the answers in it are then lost and their grants in doubt",
        .path.display()
    )]
    Damaged { path: PathBuf, at: u64 },
    /// A newer version of this program wrote it.
    #[error("journal {} was written by a newer version (byte {at}): start that version", .path.display())]
    Newer { path: PathBuf, at: u64 },
    /// Usually the wrong key file, or a key that was removed too early.
    #[error("the entry at byte {at} of journal {} {cause}: start with the key file it was sealed with", .path.display())]
    DoesNotOpen { path: PathBuf, at: u64, cause: Unopened },
}

/// [`OpenError`] as the end of a sentence about an entry.
#[derive(Debug)]
pub(crate) struct Unopened(OpenError);

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            OpenError::DoesNotOpen => write!(f, "{}", self.0),
            _ => write!(f, "is {}", self.0),
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

impl Journal {
    /// Locks every journal of the directory that no living process has, and reads what is pending in them.
    ///
    /// The first free one becomes ours with its owner id; where all are taken, or none is there yet, a new
    /// one is made. Blocks on the disk.
    ///
    /// # Errors
    /// Any journal that was free and cannot be read to its end: what is in it must not be forgotten.
    pub(crate) fn open(directory: &Path, keyring: &Keyring) -> Result<Self, JournalError> {
        let mut files = file::lock_free(directory)?;
        if files.is_empty() {
            files.push(file::create(directory)?);
        }
        let mut pending = Pending::default();
        for (at, file) in files.iter_mut().enumerate() {
            let owner = file.owner();
            file.read(|body| match body {
                FrameBody::Entry(sealed) => {
                    pending.insert(at, open_entry(keyring, owner, sealed)?);
                    Ok(())
                }
                FrameBody::Mark(attempt) => {
                    pending.remove(attempt);
                    Ok(())
                }
            })?;
            if pending.in_file(at) == 0 {
                file.shrink().map_err(|cause| file.io("shorten", cause))?;
            }
        }
        let owner = files[0].owner();
        let others = files[1..].iter().map(JournalFile::owner).collect();
        Ok(Self { owner, others, keyring: keyring.clone(), files: Mutex::new(files), pending: Mutex::new(pending) })
    }

    /// The id under which this process sends requests.
    pub(crate) fn owner(&self) -> Id {
        self.owner
    }

    /// Whether this process alone can write answers into this owner's journal: it is ours (perhaps from a
    /// previous life), or that of a dead process and locked by us.
    pub(crate) fn owns(&self, owner: &Id) -> bool {
        self.owner == *owner || self.others.contains(owner)
    }

    /// The dead owners whose journals we locked beside ours.
    #[cfg(test)]
    pub(crate) fn locked_others(&self) -> &[Id] {
        &self.others
    }

    /// What the store has to get for this key, in the order in which it was appended. Never waits for the disk.
    pub(crate) fn pending_for(&self, key: &TokenKey) -> Vec<JournalEntry> {
        let pending = lock(&self.pending);
        pending.by_key.get(key).into_iter().flatten().map(|held| held.entry.clone()).collect()
    }

    /// The keys for which something is pending, in no particular order.
    pub(crate) fn pending_keys(&self) -> Vec<TokenKey> {
        lock(&self.pending).by_key.keys().cloned().collect()
    }

    /// How many entries are pending.
    pub(crate) fn pending(&self) -> usize {
        lock(&self.pending).key_of.len()
    }

    /// Writes an entry and waits until the disk has it. Blocks: call it where blocking is allowed.
    ///
    /// An entry with an attempt that is already pending replaces the earlier one.
    ///
    /// # Errors
    /// The entry is not pending, and the file is as it was before; or, where it could not even be cut back,
    /// refuses everything until it is opened again. Should the disk have the entry nevertheless, a later life
    /// offers it to the store, which takes an attempt only once.
    pub(crate) fn append(&self, entry: JournalEntry) -> io::Result<()> {
        let sealed = seal_entry(&self.keyring, self.owner, &entry);
        let mut files = lock(&self.files);
        files[OURS].append(&sealed)?;
        lock(&self.pending).insert(OURS, entry);
        Ok(())
    }

    /// Notes that the store has the answer of this attempt. Blocks, but does not wait for the disk: a mark
    /// that is lost means that the entry is offered once more, and the store takes an attempt only once.
    ///
    /// # Errors
    /// The mark may not be in the file; in this life the entry is not pending any more all the same.
    pub(crate) fn mark(&self, attempt: Id) -> io::Result<()> {
        let mut files = lock(&self.files);
        let (at, idle) = {
            let mut pending = lock(&self.pending);
            let Some(at) = pending.remove(attempt) else { return Ok(()) };
            (at, pending.in_file(at) == 0)
        };
        files[at].mark(attempt)?;
        if idle { files[at].shrink() } else { Ok(()) }
    }

    /// Makes appends fail in the middle, as on a full disk, until switched off again.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fail_appends(&self, fail: bool) {
        lock(&self.files)[OURS].fail = fail;
    }

    /// How many appends failed that way.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn failed_appends(&self) -> usize {
        lock(&self.files)[OURS].failed
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("owner", &self.owner)
            .field("others", &self.others)
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalEntry({:?}, attempt {:?}, {} bytes)", self.key, self.attempt, self.payload.len())
    }
}

/// What is in the files and not marked.
#[derive(Default)]
struct Pending {
    by_key: HashMap<TokenKey, Vec<PendingEntry>>,
    key_of: HashMap<Id, TokenKey>,
    /// How many entries each file holds.
    counts: HashMap<usize, usize>,
}

struct PendingEntry {
    /// In which file, where it is to be marked.
    file: usize,
    entry: JournalEntry,
}

impl Pending {
    fn insert(&mut self, file: usize, entry: JournalEntry) {
        self.remove(entry.attempt);
        self.key_of.insert(entry.attempt, entry.key.clone());
        *self.counts.entry(file).or_default() += 1;
        self.by_key.entry(entry.key.clone()).or_default().push(PendingEntry { file, entry });
    }

    /// In which file it was.
    fn remove(&mut self, attempt: Id) -> Option<usize> {
        let key = self.key_of.remove(&attempt)?;
        let held = self.by_key.get_mut(&key)?;
        let at = held.iter().position(|held| held.entry.attempt == attempt)?;
        let file = held.remove(at).file;
        if held.is_empty() {
            self.by_key.remove(&key);
        }
        if let Some(count) = self.counts.get_mut(&file) {
            *count -= 1;
        }
        Some(file)
    }

    fn in_file(&self, file: usize) -> usize {
        self.counts.get(&file).copied().unwrap_or(0)
    }
}

/// An entry as it is sealed. Frozen; fields may be added.
#[derive(Serialize, Deserialize)]
struct EntryRecord {
    key: TokenKey,
    attempt: Id,
    /// Base64.
    payload: String,
}

fn seal_entry(keyring: &Keyring, owner: Id, entry: &JournalEntry) -> Sealed {
    let payload = STANDARD.encode(&entry.payload);
    let record = EntryRecord { key: entry.key.clone(), attempt: entry.attempt, payload };
    let json = serde_json::to_vec(&record).expect("strings can be written as JSON");
    keyring.seal(&bound_to(owner), Field::Journal, &json)
}

fn open_entry(keyring: &Keyring, owner: Id, sealed: Sealed) -> Result<JournalEntry, EntryError> {
    let json = keyring.open(&bound_to(owner), Field::Journal, &sealed).map_err(|error| match error {
        OpenError::UnknownVersion => EntryError::Newer,
        other => EntryError::DoesNotOpen(other),
    })?;
    // It is as we sealed it; if we cannot read it, then somebody did who knew more.
    let EntryRecord { key, attempt, payload } = serde_json::from_slice(&json).map_err(|_| EntryError::Newer)?;
    let payload = STANDARD.decode(payload).map_err(|_| EntryError::Newer)?;
    Ok(JournalEntry { key, attempt, payload })
}

/// Why a whole frame cannot be taken.
enum EntryError {
    DoesNotOpen(OpenError),
    Newer,
}

/// Entries open in the journal of their owner alone. No grant has such a key: field and owner tell them apart.
fn bound_to(owner: Id) -> TokenKey {
    TokenKey::at("journal").user(owner.to_string())
}

/// A panic elsewhere leaves nothing half-done here that the next caller would not notice.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const OURS: usize = 0;

#[cfg(test)]
mod tests;
