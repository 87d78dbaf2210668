//! The purger: deletes old tombstones, and old fingerprints of spent refresh tokens.

use std::time::Duration;

use crate::{
    clock::Clock,
    store::{Names, StoreError},
    supervisor::{by::By, command::Purge, front::Front, ledger::Ledger},
};

/// Rows at a time.
const PAGE: u32 = 256;

/// The time between two searches for what is to go.
const EVERY: Duration = Duration::from_secs(3_600);

/// How long fingerprints of spent refresh tokens are kept that are not bounded in number.
const SPENT_FOR: Duration = Duration::from_secs(180 * 24 * 3_600);

pub(super) struct Purger {
    ledger: Ledger,
    front: Front,
    clock: Clock,
    kept: Duration,
}

impl Purger {
    /// Tombstones are kept for as long as `kept`, unless their disconnect asked for a purge.
    pub(super) fn new(ledger: Ledger, front: Front, clock: Clock, kept: Duration) -> Self {
        Self { ledger, front, clock, kept }
    }

    /// Purges again and again.
    pub(super) async fn run(&self) {
        loop {
            if let Err(error) = self.purge_old().await {
                tracing::warn!(error = %error, "not all old tombstones were purged: the rest is purged later");
            }
            let forgotten = self.ledger.store().forget_spent(self.clock.store_time().minus(SPENT_FOR)).await;
            if let Err(error) = forgotten {
                tracing::warn!(error = %error, "not all old fingerprints were deleted: the rest is deleted later");
            }
            self.clock.sleep(EVERY).await;
        }
    }

    async fn purge_old(&self) -> Result<(), StoreError> {
        let gone = Names { gone: true, ..Names::default() };
        let before = self.clock.store_time().minus(self.kept);
        let mut after = None;
        loop {
            let page = self.ledger.store().list(&gone, after, PAGE).await?.grants;
            let complete = page.len() < PAGE as usize;
            after = page.last().map(|(key, _)| key.clone());
            for (key, row) in page {
                let tombstone = row.ok().and_then(|row| row.tombstone);
                if tombstone.is_some_and(|tombstone| tombstone.purge || tombstone.at <= before) {
                    // A grant with a doubt or a revocation is purged another time.
                    self.front.call(Purge::new(&key), By::Sweeper).await.ok();
                }
            }
            if complete {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::TokenKey,
        protocol::{Change, DisconnectChange},
        supervisor::bench::Bench,
    };

    #[actix::test]
    async fn tombstones_go_when_they_are_old_or_at_once_if_their_disconnect_said_so() {
        let bench = Bench::with_idp("idp");
        let keys = ["alice", "bob", "carol"].map(|user| TokenKey::at("idp").user(user));
        for (key, purge) in keys.iter().zip([false, true, false]) {
            bench.connect(key, &format!("ts-test-secret-{}", key.user())).await;
            if key.user() != "carol" {
                let end = Change::Disconnect(DisconnectChange {
                    revoke: false,
                    unrevocable: false,
                    purge,
                    access_token: None,
                });
                bench.ledger.change(key, By::Application, end).await.unwrap();
            }
        }
        let running = bench.running();
        let month = Duration::from_secs(30 * 24 * 3_600);
        let purger = Purger::new(bench.ledger.clone(), running.front.clone(), bench.clock.clone(), month);
        purger.purge_old().await.unwrap();
        let stored = async || {
            let mut stored = Vec::new();
            for key in &keys {
                stored.push(bench.row(key).await.is_some());
            }
            stored
        };
        assert_eq!(stored().await, [true, false, true]);
        bench.manual.advance(month);
        purger.purge_old().await.unwrap();
        assert_eq!(stored().await, [false, false, true]);
    }
}
