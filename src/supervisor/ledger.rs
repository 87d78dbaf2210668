//! The ledger: the store, and everybody who must hear of a change in it.
//!
//! [`Ledger::change`] is the only way in which a row is changed: it emits the events that follow, counts writes that came
//! too late, and writes the audit line. Reads go to the store as they are.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::{
    alarm::Alarm,
    by::By,
    events::Channel,
    kept::KeptChange,
    replicas::{ChangedNews, EventNews, News, Replicas},
};
use crate::{
    error::{Cause, Error},
    journal::History,
    keyring::Keyring,
    metrics::count,
    model::{Generation, TokenKey},
    protocol::{Change, ChangeReply, PurgeRefusal, resolve::Resolution, schedule::wake_at},
    store::{Changed, Store, StoreError, StoreFuture, past_conflicts},
};

/// A cheap handle; clones share one store.
#[derive(Clone)]
pub(super) struct Ledger(Arc<LedgerInner>);

struct LedgerInner {
    store: Arc<dyn Store>,
    events: Arc<Channel>,
    /// For the names of users in the audit log.
    keyring: Keyring,
    /// Whether the audit log names users as they are, instead of by a digest.
    plain_users: bool,
    fenced_writes: AtomicU64,
    alarm: Alarm,
    replicas: Replicas,
    history: Arc<History>,
}

impl Ledger {
    pub(super) fn new(
        store: Arc<dyn Store>,
        events: Arc<Channel>,
        keyring: Keyring,
        plain_users: bool,
        replicas: Replicas,
        history: Arc<History>,
    ) -> Self {
        let (fenced_writes, alarm) = (AtomicU64::new(0), Alarm::default());
        Self(Arc::new(LedgerInner { store, events, keyring, plain_users, fenced_writes, alarm, replicas, history }))
    }

    /// Carries out one operation on one row for `by`, and reports what follows from it.
    ///
    /// The first try starts at once (that of a purge after a read), and runs to its end also if the future is dropped. Further tries after a
    /// [`StoreError::Conflict`], the events and the audit line need the future to be polled to its end: spawn it where its
    /// caller may go away.
    pub(super) fn change(&self, key: &TokenKey, by: By, change: Change) -> StoreFuture<Changed> {
        let action = action(&change).filter(|_| by.is_audited_by_the_ledger());
        let (ledger, key) = (self.clone(), key.clone());
        let is_purge = matches!(change, Change::Purge);
        // Another change follows these, or only ciphertext changes.
        let is_told =
            !matches!(change, Change::Claim(_) | Change::Recover(_) | Change::Renew { .. } | Change::Reseal(_));
        let to_keep = KeptChange::candidate(&change);
        let start = {
            let (store, key) = (self.0.store.clone(), key.clone());
            move || past_conflicts(move || store.change(&key, change.clone()))
        };
        let changing = self.0.replicas.changing();
        let started = if is_purge { Err(start) } else { Ok(start()) };
        Box::pin(async move {
            let (mut changed, purged) = match started {
                Ok(changed) => (changed.await, None),
                // The audit line names a grant that is gone by then.
                Err(start) => {
                    let row = ledger.store().read(&key).await.ok().and_then(|read| read.row);
                    (start().await, row.map(|row| row.grant_id))
                }
            };
            match &changed {
                Ok(changed) if is_told && has_changed(changed.reply) => ledger.0.replicas.tell(|| news(&key, changed)),
                // It may have been stored all the same.
                Err(StoreError::Unavailable(_)) if is_told => ledger.0.replicas.tell(|| unknown(&key)),
                _ => {}
            }
            drop(changing);
            if let Ok(changed) = &mut changed {
                if let Some(kept) = to_keep.and_then(|change| KeptChange::of(change, changed)) {
                    let form = move || serde_json::to_vec(&kept).expect("plain structs have a JSON form");
                    ledger.0.history.keep(&key, form);
                }
                ledger.0.events.emit_all(&key, changed);
                // An attempt ends the intent that it set, or its actor sees to it.
                if let Some(due) = changed.row.as_ref().filter(|row| row.intent.is_none()).and_then(wake_at) {
                    ledger.0.alarm.set(due);
                }
                if is_fenced(changed.reply) {
                    count(&ledger.0.fenced_writes);
                }
            }
            // A connect that must be compared with the row again is repeated: its last outcome counts.
            let moved = changed.as_ref().is_ok_and(|changed| changed.reply == ChangeReply::Moved);
            if let Some(action) = action.filter(|_| !moved) {
                let row = changed.as_ref().ok().and_then(|changed| changed.row.as_ref());
                let outcome = match &changed {
                    Ok(changed) => refusal(changed).map_or(Ok(row.map(|row| row.generation)), Err),
                    Err(error) => Err(unavailable(error)),
                };
                let grant_id = row.map(|row| row.grant_id.as_str()).or(purged.as_deref());
                ledger.audit(&by, action, Audited::grant(&key, grant_id), outcome.map_err(|error| error.code()));
            }
            changed
        })
    }

    /// The store, to read from. Rows are changed by [`change`](Self::change) alone.
    pub(super) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    pub(super) fn events(&self) -> &Channel {
        &self.0.events
    }

    /// The copies of what was changed.
    pub(super) fn history(&self) -> Arc<History> {
        self.0.history.clone()
    }

    /// The other processes at the store.
    pub(super) fn replicas(&self) -> &Replicas {
        &self.0.replicas
    }

    /// Rings when a row comes due.
    pub(super) fn alarm(&self) -> &Alarm {
        &self.0.alarm
    }

    /// The number of responses whose row had moved on when they were stored.
    pub(super) fn fenced_writes(&self) -> &AtomicU64 {
        &self.0.fenced_writes
    }

    /// Returns the name of a user in log lines: a keyed digest, unless the settings want users as they are.
    pub(super) fn name_of(&self, user: &str) -> String {
        match self.0.plain_users {
            true => user.to_owned(),
            false => self.0.keyring.pseudonym(user).to_string(),
        }
    }

    /// Writes one line of the audit log; `outcome` is the code of the error where the change was refused.
    pub(super) fn audit(
        &self,
        by: &By,
        action: &'static str,
        Audited { idp, user, grant_id }: Audited<'_>,
        outcome: Result<Option<Generation>, &'static str>,
    ) {
        if !by.is_audited_by_the_ledger() || !tracing::enabled!(target: "audit", tracing::Level::INFO) {
            return;
        }
        let user = user.map(|user| self.name_of(user));
        let caller = by.to_string();
        match outcome {
            Ok(generation) => {
                let generation = generation.map(Generation::get);
                tracing::info!(target: "audit", { caller, action, idp, user, generation, outcome = "ok", grant.id = grant_id }, "changed");
            }
            Err(outcome) => {
                tracing::warn!(target: "audit", { caller, action, idp, user, outcome, grant.id = grant_id }, "refused");
            }
        }
    }
}

/// What a line of the audit log is about.
pub(super) struct Audited<'a> {
    idp: Option<&'a str>,
    user: Option<&'a str>,
    grant_id: Option<&'a str>,
}

impl<'a> Audited<'a> {
    /// All grants of the store.
    pub(super) fn store() -> Self {
        Self { idp: None, user: None, grant_id: None }
    }

    /// All grants of a provider.
    pub(super) fn idp(idp: &'a str) -> Self {
        Self { idp: Some(idp), user: None, grant_id: None }
    }

    /// One grant, with its public name if that is known.
    pub(super) fn grant(key: &'a TokenKey, grant_id: Option<&'a str>) -> Self {
        Self { idp: Some(key.idp()), user: Some(key.user()), grant_id }
    }
}

/// The action as the audit log names it; `None` for the steps of an attempt.
fn action(change: &Change) -> Option<&'static str> {
    match change {
        Change::Connect(_) => Some("connect"),
        Change::Disconnect(_) => Some("disconnect"),
        Change::RequireReconnect { .. } => Some("reconnect"),
        Change::Hold { .. } => Some("hold"),
        Change::Release => Some("release"),
        Change::Restore => Some("restore"),
        Change::Retry => Some("retry"),
        Change::Purge => Some("purge"),
        Change::Claim(_)
        | Change::Recover(_)
        | Change::Renew { .. }
        | Change::Commit(_)
        | Change::Refuse(_)
        | Change::Cancel(_)
        | Change::Close(_)
        | Change::Raise { .. }
        | Change::Clear { .. }
        | Change::Spent { .. }
        | Change::GiveUp { .. }
        | Change::RunOut { .. }
        // A line for all of them, not one for each.
        | Change::Reseal(_) => None,
    }
}

/// Whether a row may have been written.
fn has_changed(reply: ChangeReply) -> bool {
    use ChangeReply::{Done, Promoted, Resolved, Unchanged};
    // A connect that is repeated because its first reply was lost changes nothing, and has changed something.
    matches!(reply, Done | Resolved(_) | Promoted | Unchanged(_))
}

/// What other processes are told of a change.
fn news(key: &TokenKey, changed: &Changed) -> News {
    let row = changed.row.as_ref();
    let events = (!changed.transitions.is_empty()).then(|| EventNews {
        grant_id: row.map_or_else(String::new, |row| row.grant_id.clone()),
        at: changed.now,
        transitions: changed.transitions.clone(),
    });
    let wake_at = row.filter(|row| row.intent.is_none()).and_then(wake_at);
    News::Changed(ChangedNews { key: key.into(), generation: row.map(|row| row.generation), wake_at, events })
}

/// What other processes are told of a change of which it is not known whether it was stored.
fn unknown(key: &TokenKey) -> News {
    News::Changed(ChangedNews { key: key.into(), generation: None, wake_at: None, events: None })
}

/// Whether a response came when its row had moved on.
fn is_fenced(reply: ChangeReply) -> bool {
    use Resolution::{Alt, Drop, MovedOn, Revoke};
    matches!(reply, ChangeReply::Resolved(Drop | Revoke | Alt | MovedOn))
}

/// Why the store refused a change, if it did.
pub(super) fn refusal(changed: &Changed) -> Option<Error> {
    Some(match changed.reply {
        ChangeReply::Duplicate => Error::DuplicateGrant,
        ChangeReply::Refused => Error::NotConnected,
        ChangeReply::NotPurged(PurgeRefusal::Connected) => {
            Error::InvalidRequest("the grant is connected: disconnect it, then purge it")
        }
        ChangeReply::NotPurged(PurgeRefusal::InDoubt) => {
            Error::Unavailable { retry_after: LATER, cause: Cause::InDoubt }
        }
        ChangeReply::NotPurged(PurgeRefusal::Revoking) => {
            Error::Unavailable { retry_after: LATER, cause: Cause::Revoking }
        }
        ChangeReply::Mismatch => {
            Error::GenerationMismatch { generation: changed.row.as_ref().map_or(Generation(0), |row| row.generation) }
        }
        ChangeReply::Moved => STORE_DOWN,
        ChangeReply::Done | ChangeReply::Resolved(_) | ChangeReply::Promoted | ChangeReply::Unchanged(_) => {
            return None;
        }
    })
}

/// Retry a purge after this time: it waits for a response of the provider, or for a doubt to settle.
const LATER: Duration = Duration::from_secs(30);

/// What callers are told while the store does not respond.
pub(super) const STORE_DOWN: Error = Error::Unavailable { retry_after: SOON, cause: Cause::StoreDown };

const SOON: Duration = Duration::from_secs(1);

/// What callers are told of a failure of the store.
pub(super) fn unavailable(error: &StoreError) -> Error {
    match error {
        StoreError::Unavailable(_) => STORE_DOWN,
        StoreError::Full => Error::Unavailable { retry_after: SOON, cause: Cause::DiskFull },
        StoreError::Conflict => Error::Busy { retry_after: SOON },
        // Only an operator can help, or a new consent.
        StoreError::Corrupt { .. } => Error::Unavailable { retry_after: LATER, cause: Cause::StoreDown },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        protocol::Unchanged,
        supervisor::bench::{Bench, captured},
    };

    #[test]
    fn only_responses_whose_row_had_moved_on_are_fenced() {
        use Resolution::{Alt, Drop, MovedOn, Own, Replace, Revoke};
        assert!([Drop, Revoke, Alt, MovedOn].map(ChangeReply::Resolved).into_iter().all(is_fenced));
        assert!(
            ![ChangeReply::Done, ChangeReply::Refused, ChangeReply::Resolved(Own), ChangeReply::Resolved(Replace)]
                .into_iter()
                .any(is_fenced)
        );
    }

    #[tokio::test]
    async fn a_change_is_carried_out_emitted_and_audited_with_its_author() {
        let bench = Bench::new();
        let key = TokenKey::at("idp").user("alice");
        bench.connect(&key, "ts-test-secret-1").await;
        let mut events = bench.events.listen();
        let (lines, log) = captured();
        let _log = tracing::subscriber::set_default(log);
        let require = Change::RequireReconnect { reason: "more_scope".into() };
        let by = By::SystemUser("root".into());
        bench.ledger.change(&key, by.clone(), require).await.unwrap();
        assert_eq!(events.recv().await.unwrap().unwrap().kind.as_str(), "reconnect_required");
        let missing = TokenKey::at("idp").user("nobody");
        let refused = bench.ledger.change(&missing, by, Change::Release).await.unwrap();
        assert_eq!(refusal(&refused), Some(Error::NotConnected));
        bench.ledger.change(&key, By::Http("billing".into()), Change::Release).await.unwrap();
        let lines = lines.text();
        assert_eq!(lines.lines().count(), 2, "the HTTP API writes its own lines: {lines}");
        for part in ["user:root", "reconnect", "release", "not_connected", "outcome=\"ok\""] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
        assert!(!lines.contains("alice"), "{lines}");
        assert_eq!(bench.ledger.fenced_writes().load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_store_that_does_not_respond_is_an_outage_for_callers() {
        let bench = Bench::new();
        bench.break_store();
        let error = bench.ledger.change(&TokenKey::at("idp").user("alice"), By::Sweeper, Change::Purge).await;
        assert_eq!(unavailable(&error.unwrap_err()), STORE_DOWN);
    }

    #[test]
    fn what_changed_nothing_is_no_refusal() {
        let reply = ChangeReply::Unchanged(Unchanged::AlreadyConnected);
        assert_eq!(refusal(&crate::supervisor::bench::changed(reply)), None);
    }
}
