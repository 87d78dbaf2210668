//! What the writer knows of the store without reading it.
//!
//! The one connection that writes learns each row that it changes, so the commit of a refresh needs no read: its claim wrote
//! the row before. The comparison of revisions decides all the same. Everything is forgotten when a transaction is rolled
//! back, and when another connection has written.

use std::collections::HashMap;

use diesel::prelude::*;

use super::statement::DataVersion;
use crate::{
    model::{Generation, TokenKey},
    store::stored::Stored,
};

#[derive(Default)]
pub(super) struct WriterMemory {
    /// The rows with a lease: a change follows soon.
    leased: HashMap<TokenKey, Stored>,
    floor: Option<Generation>,
    data_version: i64,
}

/// How many rows are kept: more than there are refreshes at a time, at about a kilobyte each.
const KEPT: usize = 4_096;

impl WriterMemory {
    /// Forgets everything if another connection has written since the last call. Must run in a transaction that holds the
    /// write lock.
    pub(super) fn check(&mut self, connection: &mut SqliteConnection) -> QueryResult<()> {
        let version: i64 = DataVersion {}.get_result(connection)?;
        if version != self.data_version {
            *self = Self { data_version: version, ..Self::default() };
        }
        Ok(())
    }

    /// Forgets everything: the transaction in which it was written is rolled back.
    pub(super) fn forget(&mut self) {
        *self = Self { data_version: self.data_version, ..Self::default() };
    }

    /// Returns the row and forgets it. After the change, [`put`](Self::put) records the row as it is then.
    pub(super) fn take(&mut self, key: &TokenKey) -> Option<Stored> {
        self.leased.remove(key)
    }

    pub(super) fn put(&mut self, stored: Stored) {
        if stored.row.lease.is_none() {
            return;
        }
        if self.leased.len() >= KEPT {
            self.leased.clear();
        }
        self.leased.insert(stored.row.key.clone(), stored);
    }

    pub(super) fn floor(&mut self, read: impl FnOnce() -> QueryResult<Generation>) -> QueryResult<Generation> {
        match self.floor {
            Some(floor) => Ok(floor),
            None => Ok(*self.floor.insert(read()?)),
        }
    }

    /// The floor is being raised.
    pub(super) fn forget_floor(&mut self) {
        self.floor = None;
    }
}
