//! The rows that this process knows without reading them.
//!
//! A refresh writes its row twice: the claim, and a response soon after. The claim of a row that came due is based on the page of
//! due rows, the second write on what the first one wrote: each costs one statement. The comparison of revisions decides all the same: where another process has written
//! meanwhile, the row is read and the change is applied anew. Everything is forgotten when a connection is opened: after a fail-over, another
//! row may have the revision of one that the new server has not got.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{model::TokenKey, store::stored::Stored};

#[derive(Default)]
pub(super) struct KnownRows(Mutex<HashMap<TokenKey, Stored>>);

/// How many rows are kept: more than there are refreshes at a time, at about a kilobyte each.
const KEPT: usize = 4_096;

impl KnownRows {
    /// Returns the row and forgets it. After the change, [`put`](Self::put) records the row as it is then.
    pub(super) fn take(&self, key: &TokenKey) -> Option<Stored> {
        self.rows().remove(key)
    }

    /// Remembers a row with a lease: a change follows soon.
    pub(super) fn put(&self, stored: Stored) {
        if stored.row.lease.is_none() {
            return;
        }
        let mut rows = self.rows();
        if rows.len() >= KEPT {
            rows.clear();
        }
        rows.insert(stored.row.key.clone(), stored);
    }

    /// Remembers a row that is due: its claim follows soon. What was written meanwhile is newer, and stays.
    pub(super) fn put_due(&self, stored: Stored) {
        let mut rows = self.rows();
        if rows.len() >= KEPT {
            rows.clear();
        }
        let known = rows.get(&stored.row.key);
        if known.is_none_or(|known| known.id != stored.id || known.revision < stored.revision) {
            rows.insert(stored.row.key.clone(), stored);
        }
    }

    /// Forgets all rows.
    pub(super) fn forget(&self) {
        self.rows().clear();
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<TokenKey, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
