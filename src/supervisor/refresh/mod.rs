//! Refresh attempts: tasks on our own runtime, in a table that outlives actors and registry.
//!
//! Nobody owns an attempt but the table: callers, actors and the registry may all die while it runs. There is
//! one attempt per key; whoever wants a refresh joins it. `attempt` carries out what
//! `protocol::attempt` decides; `seal` turns answers into commits and rows into tokens, `subject` says
//! whose an answer is, `repeat` what the store is asked for until it answers, `tally` what an attempt came to.

mod attempt;
mod learn;
mod repeat;
pub(super) mod seal;
mod subject;
mod tally;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

pub(super) use repeat::flush;

use super::core::Core;
use crate::{
    model::{Generation, Id, Row, TokenKey},
    protocol::attempt::End,
};

/// The running attempts, one per key.
pub(super) struct Attempts {
    running: Mutex<Running>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Running {
    attempts: HashMap<TokenKey, Entry>,
    /// How many of them at each identity provider.
    at_idps: HashMap<String, usize>,
    finished: usize,
    closed: bool,
}

struct Entry {
    id: Id,
    progress: watch::Receiver<Progress>,
    /// Turns true when a caller waits for it.
    wanted: watch::Sender<bool>,
}

/// What those who wait beside an attempt can see of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The refresh token of this generation may have left.
    pub(super) sent: Option<Generation>,
    /// How often a token was published.
    pub(super) published: u32,
    pub(super) ended: Option<Ended>,
}

#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    /// The row as the attempt read it last; `None` if it must be read again.
    pub(super) row: Option<Arc<Row>>,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { running: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// The attempt that runs for `key`, or a new one for whoever saw the row at `basis`; `None` if nothing
    /// may start any more. A new one goes before others if
    /// it is `wanted` by a caller.
    pub(super) fn join_or_start(
        core: &Arc<Core>,
        key: &TokenKey,
        basis: (Id, Generation),
        wanted: bool,
    ) -> Option<watch::Receiver<Progress>> {
        let mut running = core.attempts.lock();
        if let Some(entry) = running.attempts.get(key) {
            return Some(entry.progress.clone());
        }
        if running.closed {
            return None;
        }
        let id = Id::random();
        let (sender, progress) = watch::channel(Progress::default());
        let (wanted, is_wanted) = watch::channel(wanted);
        running.attempts.insert(key.clone(), Entry { id, progress: progress.clone(), wanted });
        match running.at_idps.get_mut(key.idp()) {
            Some(count) => *count += 1,
            None => drop(running.at_idps.insert(key.idp().to_owned(), 1)),
        }
        core.attempts.count.send_modify(|count| *count += 1);
        let task = attempt::Attempt::new(core.clone(), key.clone(), id, basis, sender, is_wanted);
        core.runtime.spawn(task.run());
        Some(progress)
    }

    /// The attempt that runs for `key`, if one does.
    pub(super) fn joined(&self, key: &TokenKey) -> Option<watch::Receiver<Progress>> {
        self.lock().attempts.get(key).map(|entry| entry.progress.clone())
    }

    /// A caller waits for the attempt that runs for `key`.
    pub(super) fn hurry(&self, key: &TokenKey) {
        if let Some(entry) = self.lock().attempts.get(key) {
            entry.wanted.send_replace(true);
        }
    }

    /// How many attempts run for keys of this identity provider.
    pub(super) fn running_for(&self, idp: &str) -> usize {
        self.lock().at_idps.get(idp).copied().unwrap_or(0)
    }

    /// Whether this attempt for `key` runs in this process.
    pub(super) fn runs(&self, key: &TokenKey, attempt: Id) -> bool {
        self.lock().attempts.get(key).is_some_and(|entry| entry.id == attempt)
    }

    /// The generation of `key` whose refresh token may have left, while nobody has heard what came of it.
    pub(super) fn sent(&self, key: &TokenKey) -> Option<Generation> {
        self.lock().attempts.get(key).and_then(|entry| entry.progress.borrow().sent)
    }

    pub(super) fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Starts no more attempts from here on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Resolves when fewer than `bound` attempts run.
    pub(super) async fn below(&self, bound: usize) {
        self.count.subscribe().wait_for(|count| *count < bound).await.ok();
    }

    /// How many attempts have ended so far.
    pub(super) fn finished(&self) -> usize {
        self.lock().finished
    }

    fn remove(&self, key: &TokenKey, attempt: Id) {
        let mut running = self.lock();
        if running.attempts.get(key).is_some_and(|entry| entry.id == attempt) {
            running.attempts.remove(key);
            if let Some(count) = running.at_idps.get_mut(key.idp()) {
                *count -= 1;
            }
        }
    }

    fn finish(&self) {
        self.lock().finished += 1;
        self.count.send_modify(|count| *count -= 1);
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
