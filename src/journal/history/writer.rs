//! The thread that writes a history.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    segment::{self, HistoryPlace, HistorySegment, KeptEntry},
    state::HistoryState,
};
use crate::{
    clock::Clock,
    keyring::Keyring,
    model::{Id, TokenKey},
};

pub(super) enum WriterOrder {
    Keep {
        key: TokenKey,
        payload: Box<dyn FnOnce() -> Vec<u8> + Send>,
    },
    /// Report that everything before is done.
    Report(oneshot::Sender<()>),
}

pub(super) struct HistoryWriter {
    directory: PathBuf,
    owner: Id,
    keyring: Keyring,
    clock: Clock,
    keep: Duration,
    shared: Arc<HistoryState>,
    /// The file of this hour, with its hour and its length.
    file: Option<(File, HistoryPlace)>,
}

const HOUR: Duration = Duration::from_secs(3_600);

/// The history leaves this much of the disk to the journal and the store.
const LEFT_FREE: u64 = 256 * 1024 * 1024;

impl HistoryWriter {
    pub(super) fn new(
        directory: &Path,
        owner: Id,
        keyring: Keyring,
        clock: Clock,
        keep: Duration,
        shared: Arc<HistoryState>,
    ) -> Self {
        Self { directory: directory.to_owned(), owner, keyring, clock, keep, shared, file: None }
    }

    /// Writes until the last handle is dropped.
    pub(super) fn start(mut self, inbox: Receiver<WriterOrder>) {
        let run = move || {
            self.remove_old(self.hour());
            for order in inbox {
                match order {
                    WriterOrder::Keep { key, payload } => self.write(KeptEntry { key, payload: payload() }),
                    WriterOrder::Report(done) => drop(done.send(())),
                }
            }
        };
        // Without a thread the queue is gone, and each entry counts as left out.
        thread::Builder::new().name("history-writer".to_owned()).spawn(run).ok();
    }

    fn write(&mut self, entry: KeptEntry) {
        let number = {
            let mut tip = self.shared.tip();
            tip.number += 1 + self.shared.left_out.swap(0, Ordering::Relaxed);
            tip.number
        };
        match self.append(number, &entry) {
            Ok(place) => {
                self.shared.tip().place = place;
                if self.shared.is_lossy.swap(false, Ordering::Relaxed) {
                    tracing::info!("the history is written again");
                }
            }
            Err(error) => {
                // A half-written frame is skipped by readers; where it ends must be read again.
                self.file = None;
                self.shared.lossy(&error);
            }
        }
    }

    /// Returns the place behind the entry.
    fn append(&mut self, number: u64, entry: &KeptEntry) -> io::Result<HistoryPlace> {
        self.check_space()?;
        // A clock that was stepped back must not change the order of the files.
        let hour = self.hour().max(self.shared.tip().place.hour);
        if self.file.as_ref().is_none_or(|(_, place)| place.hour != hour) {
            let (file, at) = HistorySegment::at(&self.directory, self.owner, hour).append()?;
            self.file = Some((file, HistoryPlace { hour, at }));
            self.remove_old(hour);
        }
        let Some((file, place)) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let frame = segment::frame(number, &entry.seal(&self.keyring, self.owner))?;
        file.write_all(&frame)?;
        place.at += frame.len() as u64;
        Ok(*place)
    }

    fn hour(&self) -> u64 {
        self.clock.now().0.max(0).unsigned_abs() / HOUR.as_millis() as u64
    }

    /// Deletes the files of hours that are over for longer than entries are kept.
    fn remove_old(&self, now: u64) {
        let first = now.saturating_sub(self.keep.as_secs().div_ceil(HOUR.as_secs()));
        for old in segment::all(&self.directory, self.owner).into_iter().filter(|segment| segment.hour < first) {
            if let Err(error) = old.remove() {
                tracing::warn!(%error, "an old file of the history cannot be deleted");
            }
        }
    }

    /// Refuses to write where the disk becomes full, and deletes the oldest file: the space is needed for what the store has
    /// not got yet.
    fn check_space(&self) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if self.shared.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if free_space(&self.directory)? >= LEFT_FREE {
            return Ok(());
        }
        let oldest = segment::all(&self.directory, self.owner).into_iter().next();
        match oldest.filter(|oldest| self.file.as_ref().is_none_or(|(_, place)| place.hour != oldest.hour)) {
            Some(oldest) => oldest.remove(),
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

#[cfg(target_os = "linux")]
fn free_space(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn free_space(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}
