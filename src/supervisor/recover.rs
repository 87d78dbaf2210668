//! The start of a process: what the last one left in the journal goes to the store.

use std::{collections::BTreeSet, sync::Arc};

use super::{core::Core, refresh};

/// Flushes every journal entry that was found at start. Intents of dead attempts need nothing here: their rows
/// are due, and the first attempt that looks at one closes its dead senders.
pub(super) async fn flush_journal(core: Arc<Core>) {
    let keys: BTreeSet<_> = core.journal.pending_keys().into_iter().collect();
    if !keys.is_empty() {
        tracing::info!(journal.pending = keys.len(), "answers in the journal are being stored");
    }
    for key in keys {
        refresh::flush(&core, &key).await;
    }
}
