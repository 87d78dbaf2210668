//! The order of this process's writes to one key: as they were requested.
//!
//! Each write is a task of its own. Without turns, a disconnect could overtake the connect that was requested before it, by a
//! caller that went away.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// The last write of each key to which something is being written. Clones share the state.
pub(super) struct Turns<K>(Arc<Mutex<HashMap<K, watch::Receiver<()>>>>);

/// The turn of one write. The next one begins when it is dropped, also by a panic.
pub(super) struct WriteTurn<K: Eq + Hash> {
    turns: Turns<K>,
    key: K,
    before: Option<watch::Receiver<()>>,
    /// Its receivers notice that it is dropped.
    own: watch::Sender<()>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Takes the place behind all writes that were requested before.
    pub(super) fn take(&self, key: &K) -> WriteTurn<K> {
        let (own, ended) = watch::channel(());
        let before = self.last().insert(key.clone(), ended);
        WriteTurn { turns: self.clone(), key: key.clone(), before, own }
    }
}

impl<K> Turns<K> {
    fn last(&self) -> MutexGuard<'_, HashMap<K, watch::Receiver<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> WriteTurn<K> {
    /// Waits until the write before it has ended.
    pub(super) async fn begin(&mut self) {
        if let Some(mut before) = self.before.take() {
            // Nothing is ever sent: this ends with the sender.
            before.changed().await.ok();
        }
    }
}

impl<K: Eq + Hash> Drop for WriteTurn<K> {
    fn drop(&mut self) {
        let mut last = self.turns.last();
        // Its own receiver in the map is the only one if nobody has come since.
        if last.get(&self.key).is_some_and(|ended| ended.same_channel(&self.own.subscribe())) {
            last.remove(&self.key);
        }
    }
}

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn writes_of_a_key_take_turns_in_their_order_and_leave_nothing_behind() {
        let turns = Turns::<u8>::default();
        let [mut first, mut second, mut third, mut other] = [1, 1, 1, 2].map(|key| turns.take(&key));
        assert!(first.begin().now_or_never().is_some() && other.begin().now_or_never().is_some());
        assert!(second.begin().now_or_never().is_none() && third.before.is_some());
        let waiting = tokio::spawn(async move {
            third.begin().await;
            third
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        // It was polled above, and dropped before its turn: those behind it go on waiting for nobody else.
        drop(second);
        drop(waiting.await.unwrap());
        drop(other);
        assert!(turns.last().is_empty());
    }
}
