//! Room on the disk that is set aside for responses, before they are asked for.
//!
//! An attempt takes room for one entry before it claims a refresh token, and gives it back at its end. So a disk that
//! becomes full meanwhile takes no response: its entry has its place. Where the file system cannot set room aside, its free
//! space is looked at instead, which other programs can still use up.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::disk::FileId;

/// The room of one journal file.
pub(super) struct JournalSpace {
    file: File,
    path: PathBuf,
    id: FileId,
    state: Mutex<SpaceState>,
}

struct SpaceState {
    taken: u64,
    /// The file has frames up to this offset.
    length: u64,
    /// The disk has room for the file up to this offset.
    allocated: u64,
    #[cfg(any(test, feature = "testing"))]
    full: bool,
}

/// The room of one entry with its mark, enough for 32 KiB of tokens. Larger responses are written where the disk has space.
pub(super) const ROOM: u64 = 64 * 1024;

/// Room is allocated for so many entries at a time, where the disk has it.
const AT_A_TIME: u64 = 16;

impl JournalSpace {
    pub(super) fn new(file: File, path: PathBuf, length: u64) -> io::Result<Self> {
        let id = FileId::of_open(&file)?;
        let state = SpaceState {
            taken: 0,
            length,
            allocated: length,
            #[cfg(any(test, feature = "testing"))]
            full: false,
        };
        Ok(Self { file, path, id, state: Mutex::new(state) })
    }

    /// Sets room aside for one more entry.
    ///
    /// # Errors
    /// The disk has no room, or the file is no longer at its path: an entry in it would not be found after a restart.
    pub(super) fn take(&self) -> io::Result<()> {
        self.id.check(&self.path)?;
        let mut state = self.lock();
        self.ensure(&mut state, 1)?;
        state.taken += 1;
        Ok(())
    }

    /// The directory of the file.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.path.parent()
    }

    pub(super) fn give_back(&self) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(1);
    }

    /// The file has frames up to `length` now.
    pub(super) fn written(&self, length: u64) {
        let mut state = self.lock();
        state.length = length;
        self.ensure(&mut state, 0).ok();
    }

    /// The file was truncated to `length`, which gave back what was allocated behind it.
    pub(super) fn truncated(&self, length: u64) {
        self.lock().allocated = length;
        self.written(length);
    }

    fn ensure(&self, state: &mut SpaceState, more: u64) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let end = |rooms| state.length + (state.taken + rooms) * ROOM;
        if end(more) <= state.allocated {
            return Ok(());
        }
        let allocated = match allocate(&self.file, state.length, end(AT_A_TIME)) {
            Ok(()) => end(AT_A_TIME),
            Err(_) => allocate(&self.file, state.length, end(more)).map(|()| end(more))?,
        };
        state.allocated = allocated;
        Ok(())
    }

    /// Makes the disk look full until it is switched off.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    fn lock(&self) -> MutexGuard<'_, SpaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets disk space aside for the file's bytes in this range, without changing its size.
#[cfg(target_os = "linux")]
fn allocate(file: &File, from: u64, to: u64) -> io::Result<()> {
    use rustix::{
        fs::{FallocateFlags, fallocate, fstatvfs},
        io::Errno,
    };
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, to - from) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let disk = fstatvfs(file)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free < to - from { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        allocated => Ok(allocated?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}
