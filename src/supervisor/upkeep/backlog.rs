//! The due grants of one identity provider that were read from the store and are not handed out yet.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    model::{Row, WallTime},
    store::{DueCursor, DuePage, Store, StoreError},
    supervisor::command::DueRow,
};

pub(super) struct Backlog {
    /// Where the next page begins.
    after: Option<DueCursor>,
    /// Those that are to be handed out first come last.
    rows: Vec<Arc<Row>>,
    /// Shared with every row that is on its way to its actor.
    on_its_way: Arc<()>,
}

/// The number of rows that are read at a time.
const PAGE: u32 = 256;

/// So many rows are read ahead, to hand out first what expires first. Due rows come in the order in which they became due, which
/// is that of their expiration only if all have one lifetime.
const AHEAD: usize = 1_024;

impl Backlog {
    pub(super) fn new() -> Self {
        Self { after: None, rows: Vec::new(), on_its_way: Arc::new(()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns how many rows are on their way to their actors.
    pub(super) fn on_their_way(&self) -> usize {
        Arc::strong_count(&self.on_its_way) - 1
    }

    /// Begins with the rows that have been due for longest again: one may have been passed over.
    pub(super) fn start_over(&mut self) {
        self.after = None;
        self.rows.clear();
    }

    /// Reads rows that are due at `now` until there is enough to choose from. Returns when the next one comes due; `None` if
    /// there are more than were read, or none.
    pub(super) async fn fill(
        &mut self,
        store: &dyn Store,
        idp: &str,
        now: WallTime,
    ) -> Result<Option<WallTime>, StoreError> {
        let mut later = None;
        while self.rows.len() < AHEAD {
            let page: DuePage = store.due(idp, now, self.after, PAGE).await?;
            self.rows.extend(page.rows.into_iter().map(Arc::new));
            self.after = Some(page.next.unwrap_or(DueCursor::past(now)));
            if page.next.is_none() {
                later = page.later;
                break;
            }
        }
        self.rows.sort_by_key(|row| Reverse((row.expires.at().unwrap_or(WallTime::MAX), row.due_at)));
        Ok(later)
    }

    /// Takes the row that is to be handed out next.
    pub(super) fn take(&mut self) -> Option<DueRow> {
        self.rows.pop().map(|row| DueRow { row, _on_its_way: self.on_its_way.clone() })
    }
}
