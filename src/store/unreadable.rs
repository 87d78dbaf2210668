//! Rows that cannot be read: damaged on the disk, or changed by another program. Each is left out, reported once, and
//! counted until it can be read again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{StoreError, record::GrantRecord};
use crate::{
    keyring::RowCodes,
    model::{Fingerprint, Generation, Row, TokenKey},
};

/// What can be said of a row that cannot be read.
pub(super) struct UnreadableRow {
    pub(super) id: i64,
    pub(super) generation: Generation,
    pub(super) fingerprint: Option<Fingerprint>,
    /// Neither disconnected nor in doubt.
    pub(super) is_at_rest: bool,
}

impl UnreadableRow {
    pub(super) fn of(id: i64, generation: i64, fingerprint: Option<&[u8]>, is_at_rest: bool) -> Self {
        // A generation that no grant reaches is damaged itself, and would leave none for the next ones.
        let generation = u64::try_from(generation).ok().filter(|generation| *generation < 1 << 48);
        let fingerprint = fingerprint.and_then(|bytes| Fingerprint::try_from(bytes).ok());
        Self { id, generation: Generation(generation.unwrap_or(0)), fingerprint, is_at_rest }
    }
}

/// Turns records into rows.
#[derive(Clone)]
pub(super) struct RowReader {
    pub(super) codes: RowCodes,
    unreadable: Arc<UnreadableRows>,
    /// A row was purged, and SQLite's log may still have what was in it.
    #[cfg(feature = "sqlite")]
    pub(super) purged: Arc<std::sync::atomic::AtomicBool>,
}

#[derive(Default)]
struct UnreadableRows {
    ids: Mutex<BTreeSet<i64>>,
    count: AtomicUsize,
}

impl RowReader {
    pub(super) fn new(codes: RowCodes) -> Self {
        Self {
            codes,
            unreadable: Arc::default(),
            #[cfg(feature = "sqlite")]
            purged: Arc::default(),
        }
    }

    /// # Errors
    /// The record is not as this program wrote it.
    pub(super) fn row(&self, id: i64, key: TokenKey, record: &GrantRecord) -> Result<Row, StoreError> {
        // A column that cannot be read says more than a code that does not fit.
        let row = record.to_row(key).and_then(|row| record.verify(id, &self.codes).map(|()| row));
        match &row {
            Ok(_) => self.is_readable(id),
            Err(error) => self.report(id, error),
        }
        row
    }

    /// The error of a record that the database returned and that is not what its columns hold.
    #[cfg(feature = "sqlite")]
    pub(super) fn undecoded(&self, id: i64) -> StoreError {
        let error = StoreError::Corrupt { grant_id: format!("in row {id}"), column: "text" };
        self.report(id, &error);
        error
    }

    pub(super) fn report(&self, id: i64, error: &StoreError) {
        let mut ids = self.unreadable.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.insert(id) {
            tracing::error!(row = id, %error, "a row of the store cannot be read and is left out");
        }
        self.unreadable.count.store(ids.len(), Ordering::Relaxed);
    }

    fn is_readable(&self, id: i64) {
        if self.count() > 0 {
            let mut ids = self.unreadable.ids.lock().unwrap_or_else(PoisonError::into_inner);
            if ids.remove(&id) {
                tracing::info!(row = id, "a row of the store can be read again");
            }
            self.unreadable.count.store(ids.len(), Ordering::Relaxed);
        }
    }

    /// The row was replaced or deleted.
    pub(super) fn gone(&self, id: i64) {
        self.is_readable(id);
    }

    pub(super) fn count(&self) -> usize {
        self.unreadable.count.load(Ordering::Relaxed)
    }
}
