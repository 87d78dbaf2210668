//! Moves stored values to the active key, while grants are refreshed and served.
//!
//! Values are opened and sealed again; what they say does not change. A row is changed only where it still holds the ciphertext that was
//! read, and a row that is being refreshed is left for a later pass: its response is sealed with the active key. So a run can be
//! interrupted, repeated, and run on several replicas at once.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use crate::{
    error::Error,
    keyring::{Field, Keyring, OpenError},
    model::Row,
    protocol::{Change, ChangeReply, Resealed},
    store::{QueuedRevocation, RowPosition, SealedPage, StoreError},
    supervisor::{
        TokenSupervisor,
        by::By,
        keys::{CheckReseal, reseal_check},
        ledger::{Audited, unavailable},
    },
};

/// What a step of [`TokenSupervisor::reseal`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResealStep {
    /// Grants, queued revocations and other values that the active key seals now.
    pub resealed: u64,
    /// Grants that are being refreshed: their turn comes in another pass.
    pub later: u64,
    /// Grants and queued revocations that cannot be read or opened: an operator must restore them, connect them again, or give up on
    /// them.
    pub failed: u64,
    /// Where the next step goes on; `None` at the end of a pass.
    pub next: Option<u64>,
}

/// Rows that are looked at in one statement.
const PAGE: u32 = 1_000;
/// Changes at a time: enough to share the store's commits, and few beside those of refreshes.
const AT_ONCE: usize = 32;
/// A step ends with the first page after this time.
const STEP: Duration = Duration::from_secs(1);

impl TokenSupervisor {
    /// Seals stored values with the active key that other keys sealed: for about a second, from where the last step ended
    /// (`None` for the first one). A pass is over when there is no [`next`](ResealStep::next); if it left something for
    /// [`later`](ResealStep::later), start another one.
    ///
    /// Dropping the future leaves the rest as it is: begin again, at the start or where it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not respond.
    pub async fn reseal(&self, after: Option<u64>) -> Result<ResealStep, Error> {
        let step = self.reseal_pages(after).await.map_err(|error| unavailable(&error));
        if after.is_none() {
            // One line for a pass.
            let outcome = step.as_ref().map(|_| None).map_err(Error::code);
            self.rooms.ledger.audit(self.by(), "reseal", Audited::store(), outcome);
        }
        step
    }

    async fn reseal_pages(&self, after: Option<u64>) -> Result<ResealStep, StoreError> {
        let ports = self.rooms.refresher.ports();
        let (store, started) = (ports.ledger.store(), ports.clock.fine());
        let mut position = RowPosition(after.unwrap_or(0).try_into().unwrap_or(i64::MAX));
        let mut step = ResealStep::default();
        loop {
            let active = ports.keyring.active();
            let SealedPage { rows, unreadable, next } = store.sealed_by_others(active, position, PAGE).await?;
            step.failed += unreadable;
            let mut changes = stream::iter(rows).map(|row| self.reseal_row(row)).buffer_unordered(AT_ONCE);
            while let Some(outcome) = changes.next().await {
                step.count(outcome?);
            }
            drop(changes);
            let Some(next) = next else { break };
            position = next;
            if ports.clock.fine().since(started) >= STEP {
                step.next = position.0.try_into().ok();
                return Ok(step);
            }
        }
        // A disconnect queues values of its row: by now those of rows are sealed with the active key.
        self.reseal_revocations(&mut step).await?;
        match reseal_check(store, &ports.keyring).await {
            Ok(resealed) => step.resealed += u64::from(resealed),
            Err(CheckReseal::Store(error)) => return Err(error),
            Err(error @ CheckReseal::Open(_)) => {
                tracing::error!(%error, "the check value cannot be sealed with the new key");
                step.failed += 1;
            }
        }
        Ok(step)
    }

    async fn reseal_row(&self, row: Row) -> Result<ResealOutcome, StoreError> {
        let ledger = &self.rooms.ledger;
        let values = match resealed(&self.rooms.refresher.ports().keyring, &row) {
            Ok(values) => values,
            Err(error) => {
                tracing::error!(grant.id = row.grant_id, idp = row.key.idp(), %error, "a grant cannot be sealed with the new key");
                return Ok(ResealOutcome::Failed);
            }
        };
        match ledger.change(&row.key, By::Attempt, Change::Reseal(values)).await {
            Ok(changed) if changed.reply == ChangeReply::Done => Ok(ResealOutcome::Done),
            // An attempt runs, or the grant was purged: in another pass it is not found any more.
            Ok(_) | Err(StoreError::Conflict) => Ok(ResealOutcome::Later),
            Err(StoreError::Corrupt { .. }) => Ok(ResealOutcome::Failed),
            Err(error) => Err(error),
        }
    }

    async fn reseal_revocations(&self, step: &mut ResealStep) -> Result<(), StoreError> {
        let ports = self.rooms.refresher.ports();
        let (mut after, store) = (0, ports.ledger.store());
        loop {
            let queued = store.queued(after, PAGE).await?;
            let Some(last) = queued.last().map(|last| last.id) else { return Ok(()) };
            after = last;
            for revocation in queued {
                let QueuedRevocation { id, key, token, .. } = &revocation;
                match ports.keyring.reseal(key, Field::RefreshToken, token) {
                    Ok(None) => {}
                    Ok(Some(resealed)) => {
                        store.reseal_revocation(&revocation, resealed).await?;
                        step.count(ResealOutcome::Done);
                    }
                    Err(error) => {
                        tracing::error!(revocation = id, idp = key.idp(), %error, "a revocation cannot be sealed with the new key");
                        step.count(ResealOutcome::Failed);
                    }
                }
            }
        }
    }
}

/// What became of one value.
enum ResealOutcome {
    Done,
    Later,
    Failed,
}

impl ResealStep {
    fn count(&mut self, outcome: ResealOutcome) {
        match outcome {
            ResealOutcome::Done => self.resealed += 1,
            ResealOutcome::Later => self.later += 1,
            ResealOutcome::Failed => self.failed += 1,
        }
    }
}

/// Returns the values of a row that another key than the active one sealed, sealed with the active one.
fn resealed(keyring: &Keyring, row: &Row) -> Result<Vec<Resealed>, OpenError> {
    let tokens = row.refresh_tokens().map(|token| (Field::RefreshToken, &token.sealed));
    let mut values = Vec::new();
    for (field, sealed) in tokens.chain([(Field::Document, &row.document)]) {
        if let Some(to) = keyring.reseal(&row.key, field, sealed)? {
            values.push(Resealed { from: sealed.clone(), to });
        }
    }
    Ok(values)
}
