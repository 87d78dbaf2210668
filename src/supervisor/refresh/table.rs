//! The table of the attempts that run, one per key. It knows nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    model::{Generation, Id, Row, TokenKey},
    protocol::attempt::End,
};

#[derive(Default)]
pub(in crate::supervisor) struct Attempts {
    running: Mutex<Running>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Running {
    attempts: HashMap<TokenKey, RunningAttempt>,
    /// The number of attempts at each identity provider.
    at_idps: HashMap<String, usize>,
    finished: usize,
    closed: bool,
}

struct RunningAttempt {
    id: Id,
    progress: watch::Receiver<Progress>,
    /// Turns true when a caller waits for the attempt.
    wanted: watch::Sender<bool>,
}

/// The progress of an attempt, for those who wait beside it.
#[derive(Clone, Debug, Default)]
pub(in crate::supervisor) struct Progress {
    /// The refresh token of this generation may have left the process.
    pub(in crate::supervisor) sent: Option<Generation>,
    /// The number of tokens that were published.
    pub(in crate::supervisor) published: u32,
    pub(in crate::supervisor) ended: Option<EndedAttempt>,
}

#[derive(Clone, Debug)]
pub(in crate::supervisor) struct EndedAttempt {
    pub(in crate::supervisor) end: End,
    /// The row as the attempt read it last; `None` if it must be read again.
    pub(in crate::supervisor) row: Option<Arc<Row>>,
}

/// The answer to a caller that wants an attempt.
pub(super) enum Joined {
    /// An attempt runs already.
    Running(watch::Receiver<Progress>),
    /// The caller must run this one.
    New(NewAttempt),
    /// Nothing may start any more.
    Closed,
}

/// The place in the table of an attempt that is to be run.
pub(super) struct NewAttempt {
    pub(super) id: Id,
    pub(super) progress: watch::Sender<Progress>,
    /// Whether a caller waits for the attempt.
    pub(super) wanted: watch::Receiver<bool>,
}

impl Attempts {
    pub(super) fn join(&self, key: &TokenKey, wanted: bool) -> Joined {
        let mut running = self.lock();
        if let Some(attempt) = running.attempts.get(key) {
            return Joined::Running(attempt.progress.clone());
        }
        if running.closed {
            return Joined::Closed;
        }
        let id = Id::random();
        let (sender, progress) = watch::channel(Progress::default());
        let (wanted, is_wanted) = watch::channel(wanted);
        running.attempts.insert(key.clone(), RunningAttempt { id, progress, wanted });
        match running.at_idps.get_mut(key.idp()) {
            Some(count) => *count += 1,
            None => drop(running.at_idps.insert(key.idp().to_owned(), 1)),
        }
        self.count.send_modify(|count| *count += 1);
        Joined::New(NewAttempt { id, progress: sender, wanted: is_wanted })
    }

    /// Returns the progress of the attempt that runs for `key`, if one does.
    pub(in crate::supervisor) fn progress(&self, key: &TokenKey) -> Option<watch::Receiver<Progress>> {
        self.lock().attempts.get(key).map(|attempt| attempt.progress.clone())
    }

    /// The keys for which an attempt runs.
    pub(in crate::supervisor) fn keys(&self) -> Vec<TokenKey> {
        self.lock().attempts.keys().cloned().collect()
    }

    /// Whether an attempt runs for `key`.
    pub(in crate::supervisor) fn runs_for(&self, key: &TokenKey) -> bool {
        self.lock().attempts.contains_key(key)
    }

    /// Records that a caller waits for the attempt that runs for `key`.
    pub(in crate::supervisor) fn hurry(&self, key: &TokenKey) {
        if let Some(attempt) = self.lock().attempts.get(key) {
            attempt.wanted.send_replace(true);
        }
    }

    /// The number of attempts that run for keys of this identity provider.
    pub(in crate::supervisor) fn running_for(&self, idp: &str) -> usize {
        self.lock().at_idps.get(idp).copied().unwrap_or(0)
    }

    /// Whether this attempt for `key` runs in this process.
    pub(super) fn runs(&self, key: &TokenKey, attempt: Id) -> bool {
        self.lock().attempts.get(key).is_some_and(|running| running.id == attempt)
    }

    /// The generation of `key` whose refresh token may have left, while its response is outstanding.
    pub(in crate::supervisor) fn sent(&self, key: &TokenKey) -> Option<Generation> {
        self.lock().attempts.get(key).and_then(|attempt| attempt.progress.borrow().sent)
    }

    pub(in crate::supervisor) fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Starts no more attempts from here on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Resolves when every attempt that runs now has ended.
    pub(in crate::supervisor) async fn ended(&self) {
        let running: Vec<_> = self.lock().attempts.values().map(|attempt| attempt.progress.clone()).collect();
        for mut progress in running {
            progress.wait_for(|progress| progress.ended.is_some()).await.ok();
        }
    }

    /// Resolves when no attempt runs.
    pub(in crate::supervisor) async fn none_left(&self) {
        self.count.subscribe().wait_for(|count| *count == 0).await.ok();
    }

    /// The number of attempts that have ended so far.
    pub(in crate::supervisor) fn finished(&self) -> usize {
        self.lock().finished
    }

    pub(super) fn remove(&self, key: &TokenKey, attempt: Id) {
        let mut running = self.lock();
        if running.attempts.get(key).is_some_and(|running| running.id == attempt) {
            running.attempts.remove(key);
            if let Some(count) = running.at_idps.get_mut(key.idp()) {
                *count -= 1;
            }
        }
    }

    pub(super) fn finish(&self) {
        self.lock().finished += 1;
        self.count.send_modify(|count| *count -= 1);
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str) -> TokenKey {
        TokenKey::at("idp").user(user)
    }

    #[test]
    fn there_is_one_attempt_per_key_until_it_is_removed() {
        let attempts = Attempts::default();
        let Joined::New(first) = attempts.join(&key("alice"), false) else { panic!("none runs") };
        assert!(matches!(attempts.join(&key("alice"), true), Joined::Running(_)));
        assert!(matches!(attempts.join(&key("bob"), true), Joined::New(_)));
        assert_eq!((attempts.len(), attempts.running_for("idp"), attempts.running_for("other")), (2, 2, 0));
        assert!(attempts.runs(&key("alice"), first.id) && !attempts.runs(&key("bob"), first.id));
        attempts.remove(&key("alice"), Id::random());
        assert!(attempts.runs(&key("alice"), first.id), "another attempt's end does not remove it");
        attempts.remove(&key("alice"), first.id);
        attempts.finish();
        assert_eq!((attempts.len(), attempts.running_for("idp"), attempts.finished()), (1, 1, 1));
        assert!(matches!(attempts.join(&key("alice"), false), Joined::New(_)));
    }

    #[test]
    fn callers_see_what_was_sent_and_can_hurry() {
        let attempts = Attempts::default();
        let Joined::New(attempt) = attempts.join(&key("alice"), false) else { panic!("none runs") };
        assert!(!*attempt.wanted.borrow() && attempts.sent(&key("alice")).is_none());
        attempts.hurry(&key("alice"));
        attempts.hurry(&key("nobody"));
        attempt.progress.send_modify(|progress| progress.sent = Some(Generation(3)));
        assert!(*attempt.wanted.borrow());
        assert_eq!(attempts.sent(&key("alice")), Some(Generation(3)));
        assert!(attempts.progress(&key("alice")).is_some() && attempts.progress(&key("nobody")).is_none());
    }

    #[tokio::test]
    async fn a_closed_table_starts_nothing_and_empties() {
        let attempts = Attempts::default();
        let Joined::New(attempt) = attempts.join(&key("alice"), false) else { panic!("none runs") };
        attempts.close();
        assert!(matches!(attempts.join(&key("alice"), false), Joined::Running(_)), "one that runs can be joined");
        assert!(matches!(attempts.join(&key("bob"), false), Joined::Closed));
        attempts.remove(&key("alice"), attempt.id);
        attempts.finish();
        attempts.none_left().await;
    }
}
