//! The owner of refresh attempts: starts them, and answers questions about them.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::{
    attempt::Attempt,
    persist,
    ports::Ports,
    table::{Attempts, Joined, Progress},
};
use crate::{
    model::{Issued, Row, State, StoreTime, TokenKey, TokenStanding},
    protocol::Unchanged,
    supervisor::{provider::Providers, status::Status},
};

/// A cheap handle; clones share one table of attempts.
#[derive(Clone)]
pub(in crate::supervisor) struct Refresher(Arc<Ports>);

impl Refresher {
    pub(in crate::supervisor) fn new(ports: Ports) -> Self {
        Self(Arc::new(ports))
    }

    pub(in crate::supervisor) fn ports(&self) -> &Ports {
        &self.0
    }

    /// Joins the attempt that runs for `key`, or starts one for a caller that knows this row; `None` if nothing may start any
    /// more. A new attempt goes before others at the provider's gate if a caller waits for it (`wanted`).
    pub(in crate::supervisor) fn join_or_start(
        &self,
        key: &TokenKey,
        known: Arc<Row>,
        wanted: bool,
    ) -> Option<watch::Receiver<Progress>> {
        match self.0.attempts.join(key, wanted) {
            Joined::Running(progress) => Some(progress),
            Joined::New(entry) => {
                let progress = entry.progress.subscribe();
                self.0.runtime.spawn(Attempt::new(self.0.clone(), key.clone(), known, entry).run());
                Some(progress)
            }
            Joined::Closed => None,
        }
    }

    /// Stores every journal entry that was found at start. Intents of dead attempts need nothing here: their rows
    /// are due, and the first attempt that reads one closes its dead senders.
    pub(in crate::supervisor) async fn flush_journal(&self) {
        let keys: BTreeSet<_> = self.0.journal.pending_keys().into_iter().collect();
        if !keys.is_empty() {
            tracing::info!(journal.pending = keys.len(), "storing the responses that the journal holds");
        }
        for key in keys {
            persist::flush(&self.0, &key).await;
        }
    }

    /// Returns the status of a key with this row, which may be from before a refresh that runs here.
    pub(in crate::supervisor) fn status(
        &self,
        key: &TokenKey,
        row: Option<&Row>,
        now: StoreTime,
        unchanged: Option<Unchanged>,
    ) -> Status {
        let mut status = Status::of(row, now, unchanged);
        let runs = self.0.attempts.sent(key) == Some(status.generation);
        if runs && matches!(status.state, State::Fresh | State::Due | State::Backoff | State::InDoubt) {
            (status.state, status.next_refresh_at) = (State::Refreshing, None);
        }
        if self.0.providers.stands_still(key.idp()) {
            status.next_refresh_at = None;
        }
        status
    }

    /// Starts no more attempts.
    pub(in crate::supervisor) fn stop(&self) {
        self.0.attempts.close();
        self.0.stopping.send_replace(true);
    }

    #[cfg(any(test, feature = "web"))]
    pub(in crate::supervisor) fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    /// Resolves when the supervisor starts to stop.
    pub(in crate::supervisor) async fn stopped(&self) {
        self.0.stopped().await;
    }
}

/// Withdraws a token that was just published, or whose standing was just set, if a refresh under way may have ended it.
///
/// Call it afterwards: an attempt sets `sent` before it withdraws the published token, so that the later of the two always
/// withdraws.
pub(in crate::supervisor) fn withdraw_sent(
    providers: &Providers,
    attempts: &Attempts,
    key: &TokenKey,
    issued: &Issued,
) {
    let ends = providers.get(key.idp()).is_some_and(|provider| provider.idp.rotation_ends_access_token);
    if ends && attempts.sent(key).is_some_and(|sent| issued.generation <= sent) {
        issued.set_standing(TokenStanding::Withdrawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{protocol::attempt::End, supervisor::bench::Bench};

    async fn end_of(mut progress: watch::Receiver<Progress>) -> End {
        let ended = progress.wait_for(|progress| progress.ended.is_some()).await.unwrap();
        ended.ended.as_ref().unwrap().end
    }

    #[tokio::test]
    async fn callers_join_the_attempt_that_runs_and_none_starts_after_the_stop() {
        // Nothing listens at its address: the connection fails before anything is sent.
        let bench = Bench::with_idp("idp");
        let key = TokenKey::at("idp").user("alice");
        let row = Arc::new(bench.connect(&key, "ts-test-secret-1").await);
        let first = bench.refresher.join_or_start(&key, row.clone(), true).unwrap();
        let second = bench.refresher.join_or_start(&key, row.clone(), true).unwrap();
        assert!(first.same_channel(&second));
        drop(second);
        let end = end_of(first).await;
        assert!(matches!(end, End::Until(..) | End::Settled), "{end:?}");
        let stored = bench.row(&key).await.unwrap();
        assert_eq!(stored.last_error.map(|error| error.evidence.code).as_deref(), Some("connect_failed"));
        assert_eq!(stored.generation, row.generation);
        bench.refresher.stop();
        assert!(bench.refresher.join_or_start(&key, row, true).is_none() && bench.refresher.is_stopping());
    }

    #[tokio::test]
    async fn a_provider_on_hold_has_no_next_refresh() {
        let bench = Bench::with_idp("idp");
        let key = TokenKey::at("idp").user("alice");
        let row = bench.connect(&key, "ts-test-secret-1").await;
        let status = || bench.refresher.status(&key, Some(&row), bench.clock.store_time(), None);
        assert!(status().next_refresh_at.is_some());
        bench.providers.set_hold(&bench.ledger, "idp", Some("maintenance")).await.unwrap();
        assert!(status().next_refresh_at.is_none());
    }
}
