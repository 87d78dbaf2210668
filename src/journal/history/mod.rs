//! The history: copies of changes that the store has, for the time after a store that went back to an earlier state.
//!
//! A store that was restored from a backup, or that forgot commits in a fail-over, holds refresh tokens that were spent. What
//! it has lost is in the histories of the processes that stored it: files beside the journal, one for each hour, which are
//! deleted after a time. Each entry has a number; a [`HistoryMark`] says which number the store has for certain.
//!
//! Invariants: an entry is written after the store has acknowledged its change, by a thread of its own, and nobody waits for
//! it; where it cannot be written, its number is missing, which a reader notices. Entries are sealed like those of the
//! journal. Unlike them they are not synced, and damage costs the damaged entries alone. Deliberately absent: the store, and
//! the meaning of a payload.

mod mark;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, SyncSender, TrySendError},
    },
    time::Duration,
};

use tokio::sync::oneshot;

pub(crate) use self::{
    mark::HistoryMark,
    segment::{HistoryPlace, KeptEntry},
    state::HistoryTip,
};
use self::{
    segment::HistorySegment,
    state::HistoryState,
    writer::{HistoryWriter, WriterOrder},
};
use crate::{
    clock::Clock,
    keyring::Keyring,
    model::{Id, TokenKey},
};

/// Entries that wait for the disk; more than these are left out.
const QUEUE: usize = 8_192;

/// The history of this process, and those of the dead processes whose journals it has.
pub(crate) struct History {
    directory: PathBuf,
    keyring: Keyring,
    /// `None` if no entry is kept: then entries are only counted.
    writer: Option<SyncSender<WriterOrder>>,
    shared: Arc<HistoryState>,
}

impl History {
    /// Opens the history of `owner`, whose journal this process has locked, and keeps entries for `keep`; none if that is zero.
    /// Blocks on the disk. What cannot be read counts as missing.
    pub(crate) fn open(directory: &Path, owner: Id, keyring: &Keyring, clock: &Clock, keep: Duration) -> Self {
        let mark = HistoryMark::read(directory, owner);
        let mut tip = mark
            .as_ref()
            .map_or_else(HistoryTip::default, |mark| HistoryTip { number: mark.number, place: mark.place });
        segment::each(directory, owner, tip.place, |_, number, _| tip.number = tip.number.max(number));
        let shared = Arc::new(HistoryState::new(tip));
        let writer = (!keep.is_zero()).then(|| {
            let (orders, inbox) = mpsc::sync_channel(QUEUE);
            HistoryWriter::new(directory, owner, keyring.clone(), clock.clone(), keep, shared.clone()).start(inbox);
            orders
        });
        Self { directory: directory.to_owned(), keyring: keyring.clone(), writer, shared }
    }

    /// Hands over a copy of a change that the store has. `payload` is called on the writer's thread.
    pub(crate) fn keep(&self, key: &TokenKey, payload: impl FnOnce() -> Vec<u8> + Send + 'static) {
        let Some(writer) = &self.writer else {
            self.shared.tip().number += 1;
            return;
        };
        let order = WriterOrder::Keep { key: key.clone(), payload: Box::new(payload) };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = writer.try_send(order) {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
            self.shared.lossy(&"the disk of the journal is too slow");
        }
    }

    /// Resolves when everything that was handed over is written, or given up.
    pub(crate) async fn written(&self) {
        let (done, written) = oneshot::channel();
        let sent = self.writer.as_ref().is_some_and(|writer| writer.try_send(WriterOrder::Report(done)).is_ok());
        if sent {
            written.await.ok();
        }
    }

    /// Returns how far the history goes.
    pub(crate) fn tip(&self) -> HistoryTip {
        *self.shared.tip()
    }

    /// Continues with numbers above this one: the store knows it.
    pub(crate) fn goes_on_above(&self, number: u64) {
        let mut tip = self.shared.tip();
        tip.number = tip.number.max(number);
    }

    /// Returns the mark of an owner whose journal this process has. Blocks.
    pub(crate) fn mark(&self, owner: Id) -> Option<HistoryMark> {
        HistoryMark::read(&self.directory, owner)
    }

    /// Replaces the mark of an owner whose journal this process has. Blocks.
    ///
    /// # Errors
    /// The old one is still there.
    pub(crate) fn set_mark(&self, owner: Id, mark: &HistoryMark) -> std::io::Result<()> {
        mark.write(&self.directory, owner)
    }

    /// Reads the entries of an owner above this number, from a place on and in their order; `None` for one that does not open.
    /// Blocks.
    pub(crate) fn read(
        &self,
        owner: Id,
        above: u64,
        from: HistoryPlace,
        mut take: impl FnMut(u64, HistoryPlace, Option<KeptEntry>),
    ) {
        let mut unopened = 0;
        segment::each(&self.directory, owner, from, |place, number, sealed| {
            if number <= above {
                return;
            }
            let entry = KeptEntry::open(&self.keyring, owner, sealed);
            unopened += u64::from(entry.is_none());
            take(number, place, entry);
        });
        if unopened > 0 {
            tracing::warn!(
                entries = unopened,
                "entries of a history do not open with the key ring's keys, and are left out"
            );
        }
    }

    /// Reads the entry at a place again. Blocks.
    pub(crate) fn entry(&self, owner: Id, place: HistoryPlace) -> Option<KeptEntry> {
        let sealed = HistorySegment::at(&self.directory, owner, place.hour).entry(place.at)?;
        KeptEntry::open(&self.keyring, owner, &sealed)
    }

    /// Makes the disk look full until it is switched off.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fill(&self, full: bool) {
        self.shared.full.store(full, Ordering::Relaxed);
    }
}
