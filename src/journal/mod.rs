//! The journal: responses of identity providers that the store does not have yet.
//!
//! A rotated refresh token exists only once. While the store does not respond, the token is sealed into a journal file,
//! and is on disk before a caller sees the access token that came with it. A journal has an owner id, which the store
//! records with every request that is sent: the process that holds the lock of the owner's file knows that no other
//! process can still write a response into it.
//!
//! Invariants: an entry is pending from the moment it is on disk until it is marked, across restarts; nothing is cut from
//! a file but the half-written end that a killed process left behind, which was never acknowledged. A damaged file is set
//! aside with all its bytes, and its owner does not count as dead: a response in the damaged part may come back with the
//! file, so the requests of that owner stay in doubt. No file of a living process is touched. Deliberately absent: the
//! store, and the meaning of a payload. Files are never deleted: their locks are the proof that their owners are dead.

mod error;
mod file;
mod frame;
mod history;
mod room;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    error::Cause,
    keyring::{Field, KeyId, Keyring, OpenError, key_id},
    model::{Id, Sealed, TokenKey},
};

use error::EntryError;
pub(crate) use error::JournalError;
#[cfg(feature = "config")]
pub(crate) use file::set_aside;
use file::{JournalFile, JournalPart};
use frame::FrameBody;
pub(crate) use history::{History, HistoryMark, HistoryPlace, HistoryTip, KeptEntry};
use room::JournalSpace;

/// The journals of one directory that this process has locked: its own, and those of dead processes.
pub(crate) struct Journal {
    owner: Id,
    others: Vec<Id>,
    keyring: Keyring,
    /// Our own file first, then those of dead owners. Held during disk writes, so never while waiting for anything
    /// else. Locked before `pending`.
    files: Mutex<Vec<JournalFile>>,
    /// Those of our own file.
    rooms: Arc<JournalSpace>,
    /// The last attempt to set room aside failed, and that was logged.
    without_room: AtomicBool,
    /// Locked separately from the files, so that reading it never waits for the disk.
    pending: Mutex<Pending>,
}

/// One response that the store must receive.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) key: TokenKey,
    /// The attempt that received the response. The store accepts an attempt once, however often it is committed.
    pub(crate) attempt: Id,
    /// The serialized commit; opaque to the journal.
    pub(crate) payload: Vec<u8>,
}

/// A response in a journal that the store does not have yet.
pub(crate) struct WaitingEntry {
    /// The key that sealed the entry.
    pub(crate) sealed_by: KeyId,
    /// The serialized commit; `None` if the entry does not open.
    pub(crate) payload: Option<Vec<u8>>,
}

/// Creates the folder of journals, if it does not exist.
///
/// # Errors
/// It cannot be created.
#[cfg(feature = "config")]
pub(crate) fn create_folder(directory: &Path) -> Result<(), JournalError> {
    let failed = |cause| JournalError::Io { doing: "create", path: directory.to_owned(), cause };
    file::create_directory(directory).map_err(failed)
}

impl Journal {
    /// Locks every journal of the directory that no living process holds, and reads their pending entries. Sets a damaged
    /// one aside, after its readable entries are in this process's own.
    ///
    /// The first unlocked journal becomes this process's own, with its owner id; if there is none, a new one is
    /// created. Blocks on the disk.
    ///
    /// # Errors
    /// An unlocked journal cannot be read: its entries must not be lost.
    pub(crate) fn open(directory: &Path, keyring: &Keyring) -> Result<Self, JournalError> {
        let (mut files, mut damaged) = (Vec::new(), Vec::new());
        let (mut pending, mut salvaged) = (Pending::default(), Pending::default());
        for mut file in file::lock_unlocked(directory)? {
            let mut found = Pending::default();
            let owner = file.owner();
            let (mut unopened, mut stored) = (Vec::new(), 0);
            let at = file.read(|part| match part {
                JournalPart::Frame(FrameBody::Entry(sealed), at) => {
                    match open_entry(keyring, owner, &sealed) {
                        Err(EntryError::DoesNotOpen(cause @ OpenError::UnknownKey(_))) => unopened.push((at, cause)),
                        opened => found.insert(files.len(), opened?),
                    }
                    Ok(())
                }
                JournalPart::Frame(FrameBody::Mark(attempt), _) => {
                    stored += usize::from(found.remove(attempt).is_none());
                    Ok(())
                }
                // A key may be removed before the entries that it sealed are, if the store has them. Each entry has one mark at
                // most. In a damaged file a mark may be that of an entry that is not read.
                JournalPart::End { is_damaged } => match unopened.first() {
                    Some((at, cause)) if is_damaged || unopened.len() > stored => {
                        Err(EntryError::KeyIsGone(*at, *cause))
                    }
                    _ => Ok(()),
                },
            })?;
            match at {
                Some(at) => {
                    damaged.push((file, at));
                    salvaged.take_over(found);
                }
                None => {
                    if found.in_file(files.len()) == 0 {
                        file.shrink().map_err(|cause| file.io("truncate", cause))?;
                    }
                    files.push(file);
                    pending.take_over(found);
                }
            }
        }
        if files.is_empty() {
            files.push(file::create(directory)?);
        }
        let owner = files[OURS].owner();
        let others = files[OURS + 1..].iter().map(JournalFile::owner).collect();
        let rooms = files[OURS].rooms().clone();
        let (keyring, files, pending) = (keyring.clone(), Mutex::new(files), Mutex::new(pending));
        let journal = Self { owner, others, keyring, files, rooms, without_room: AtomicBool::new(false), pending };
        for entry in salvaged.into_entries() {
            journal.append(entry).map_err(|cause| lock(&journal.files)[OURS].io("write", cause))?;
        }
        for (file, at) in damaged {
            file.set_aside(at)?;
        }
        Ok(journal)
    }

    /// Returns the damaged journals that were set aside in the directory and are still there.
    pub(crate) fn damaged(&self) -> Vec<PathBuf> {
        self.rooms.directory().map(file::set_aside).unwrap_or_default()
    }

    /// Returns what the store does not have yet of any journal of the directory, also of those of other living processes. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// A journal cannot be read.
    pub(crate) fn waiting(&self) -> Result<Vec<WaitingEntry>, JournalError> {
        let mut waiting = HashMap::new();
        // Of each owner: entries that do not open, and marks of entries that were not read.
        let mut unopened = HashMap::<Id, (Vec<WaitingEntry>, usize)>::new();
        let take = |owner, body| match body {
            FrameBody::Entry(sealed) => {
                let Ok(sealed_by) = key_id(&sealed) else { return };
                match open_entry(&self.keyring, owner, &sealed) {
                    Ok(JournalEntry { attempt, payload, .. }) => {
                        waiting.insert(attempt, WaitingEntry { sealed_by, payload: Some(payload) });
                    }
                    Err(_) => unopened.entry(owner).or_default().0.push(WaitingEntry { sealed_by, payload: None }),
                }
            }
            FrameBody::Mark(attempt) => {
                if waiting.remove(&attempt).is_none() {
                    unopened.entry(owner).or_default().1 += 1;
                }
            }
        };
        self.rooms.directory().map_or(Ok(()), |directory| file::look(directory, take))?;
        let unopened = unopened.into_values().filter(|(entries, stored)| entries.len() > *stored);
        Ok(waiting.into_values().chain(unopened.flat_map(|(entries, _)| entries)).collect())
    }

    /// Returns the id under which this process sends requests.
    pub(crate) fn owner(&self) -> Id {
        self.owner
    }

    /// Returns whether only this process can write responses into this owner's journal: it is its own journal (perhaps
    /// taken over from an earlier process), or that of a dead process that it has locked.
    pub(crate) fn owns(&self, owner: &Id) -> bool {
        self.owner == *owner || self.others.contains(owner)
    }

    /// Returns the dead owners whose journals this process has locked.
    pub(crate) fn locked_others(&self) -> &[Id] {
        &self.others
    }

    /// Returns the pending entries of this key in the order in which they were appended. Never waits for the disk.
    pub(crate) fn pending_for(&self, key: &TokenKey) -> Vec<JournalEntry> {
        let pending = lock(&self.pending);
        pending.by_key.get(key).into_iter().flatten().map(|held| held.entry.clone()).collect()
    }

    /// Returns the keys with pending entries, in no particular order.
    pub(crate) fn pending_keys(&self) -> Vec<TokenKey> {
        lock(&self.pending).by_key.keys().cloned().collect()
    }

    pub(crate) fn pending(&self) -> usize {
        lock(&self.pending).key_of.len()
    }

    /// Sets room on the disk aside for one entry.
    ///
    /// # Errors
    /// The disk is full, or the file is no longer where the next process would look for it.
    pub(crate) fn reserve(&self) -> io::Result<Reserved> {
        match self.rooms.take() {
            Ok(()) => {
                if self.without_room.swap(false, Ordering::Relaxed) {
                    tracing::info!("the journal has room again: refreshes go on");
                }
                Ok(Reserved(self.rooms.clone()))
            }
            Err(error) => {
                if !self.without_room.swap(true, Ordering::Relaxed) {
                    let cause = cause(&error).as_str();
                    tracing::error!(%error, cause, "no refresh token is sent: its response could not be written to the journal");
                }
                Err(error)
            }
        }
    }

    /// Writes an entry and waits until it is on disk. Blocks: call it where blocking is allowed.
    ///
    /// Replaces a pending entry of the same attempt.
    ///
    /// # Errors
    /// The entry is not pending, and the file is as it was before; or, if it could not be truncated, refuses all writes
    /// until it is opened again. Should the entry be on disk nevertheless, a later process commits it to the store,
    /// which accepts an attempt only once.
    pub(crate) fn append(&self, entry: JournalEntry) -> io::Result<()> {
        let sealed = seal_entry(&self.keyring, self.owner, &entry);
        let mut files = lock(&self.files);
        files[OURS].append(&sealed)?;
        lock(&self.pending).insert(OURS, entry);
        Ok(())
    }

    /// Records that the store has the response of this attempt. Blocks, but does not wait for the disk: if a mark is
    /// lost, the entry is committed once more, and the store accepts an attempt only once.
    ///
    /// # Errors
    /// The mark may be missing in the file; in this process the entry is no longer pending all the same.
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

    /// Makes the disk look full to those who set room aside, until it is switched off.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fill(&self, full: bool) {
        self.rooms.fill(full);
    }

    /// Makes appends fail half-way, as on a full disk, until it is switched off.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fail_appends(&self, fail: bool) {
        lock(&self.files)[OURS].fail = fail;
    }

    /// Returns how many appends failed that way.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn failed_appends(&self) -> usize {
        lock(&self.files)[OURS].failed
    }
}

/// What callers are told where no room can be set aside.
pub(crate) fn cause(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::DiskFull,
        _ => Cause::StoreDown,
    }
}

/// Room for one entry; given back when this is dropped.
pub(crate) struct Reserved(Arc<JournalSpace>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.give_back();
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

/// The entries that are not marked.
#[derive(Default)]
struct Pending {
    by_key: HashMap<TokenKey, Vec<PendingEntry>>,
    key_of: HashMap<Id, TokenKey>,
    /// The number of pending entries of each file.
    counts: HashMap<usize, usize>,
}

struct PendingEntry {
    /// The index of the file that has the entry, and that gets its mark.
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

    /// Removes the entry of an attempt and returns the index of its file.
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

    fn take_over(&mut self, other: Self) {
        for held in other.by_key.into_values().flatten() {
            self.insert(held.file, held.entry);
        }
    }

    fn into_entries(self) -> impl Iterator<Item = JournalEntry> {
        self.by_key.into_values().flatten().map(|held| held.entry)
    }
}

/// The plaintext of a sealed entry. Frozen; fields may be added.
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
    let json = serde_json::to_vec(&record).expect("strings serialize as JSON");
    keyring.seal(&bound_to(owner), Field::Journal, &json)
}

fn open_entry(keyring: &Keyring, owner: Id, sealed: &Sealed) -> Result<JournalEntry, EntryError> {
    let json = keyring.open(&bound_to(owner), Field::Journal, sealed).map_err(|error| match error {
        OpenError::UnknownVersion => EntryError::Newer,
        other => EntryError::DoesNotOpen(other),
    })?;
    // The plaintext is authentic: if this version cannot read it, a newer version wrote it.
    let EntryRecord { key, attempt, payload } = serde_json::from_slice(&json).map_err(|_| EntryError::Newer)?;
    let payload = STANDARD.decode(payload).map_err(|_| EntryError::Newer)?;
    Ok(JournalEntry { key, attempt, payload })
}

/// Returns the key that binds an entry to the journal of its owner. The field keeps it apart from a grant's key.
fn bound_to(owner: Id) -> TokenKey {
    TokenKey::at("journal").user(owner.to_string())
}

/// Locks the mutex even if a thread panicked while it held it: no update leaves an inconsistent state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const OURS: usize = 0;

#[cfg(test)]
mod tests;
