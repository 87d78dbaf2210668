//! The revoker: sends queued revocations (RFC 7009), and purges a tombstone that waited for its own.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::{
    idp::{Observation, Priority, delay},
    model::{StoreTime, TokenKey},
    store::{QueuedRevocation, StoreError},
    supervisor::{
        by::By,
        command::Purge,
        front::Front,
        jitter::random,
        refresh::{Refresher, seal},
    },
};

/// Revocations at a time.
const PAGE: u32 = 256;

/// How long revocations are put off at a time while their provider is on hold.
const HELD: Duration = Duration::from_secs(60);

pub(in crate::supervisor) struct Revoker {
    refresher: Refresher,
    front: Front,
    every: Duration,
}

/// The result of a revocation.
enum Revoked {
    Done,
    /// It is to be retried, after this time if the provider named one.
    Later(Option<Duration>),
    /// It was taken back, or another process sends it.
    Elsewhere,
}

impl Revoker {
    pub(in crate::supervisor) fn new(refresher: Refresher, front: Front, every: Duration) -> Self {
        Self { refresher, front, every }
    }

    /// Revokes what is queued, again and again.
    pub(super) async fn run(&self) {
        loop {
            if let Err(error) = self.revoke_queued().await {
                tracing::warn!(error = %error, "revocations were cut short: they are retried");
            }
            self.refresher.ports().clock.sleep(self.every).await;
        }
    }

    /// Sends the revocations that are due. Returns how many of them are to be retried.
    pub(in crate::supervisor) async fn revoke_queued(&self) -> Result<usize, StoreError> {
        let ports = self.refresher.ports();
        let store = ports.ledger.store();
        let queued = store.revocations(PAGE).await?;
        let revoked = join_all(queued.iter().map(|revocation| async move {
            let again = |retry_after| ports.clock.store_time() + delay(revocation.failures, retry_after, random());
            match self.revoke(revocation, again(None)).await? {
                Revoked::Done => {
                    store.revoked(revocation.id, None).await?;
                    self.purge_if_wanted(&revocation.key).await.map(|()| 0)
                }
                Revoked::Later(retry_after) => store.revoked(revocation.id, Some(again(retry_after))).await.map(|()| 1),
                Revoked::Elsewhere => Ok(0),
            }
        }));
        revoked.await.into_iter().sum()
    }

    /// Revokes one refresh token. It is due again at `retry_at` if this process dies meanwhile.
    async fn revoke(&self, revocation: &QueuedRevocation, retry_at: StoreTime) -> Result<Revoked, StoreError> {
        let ports = self.refresher.ports();
        let idp = revocation.key.idp();
        let Some(provider) = ports.providers.get(idp) else { return Ok(Revoked::Later(None)) };
        if ports.providers.held(idp).is_some() {
            return Ok(Revoked::Later(Some(HELD)));
        }
        let row = ports.ledger.store().read(&revocation.key).await.ok().and_then(|read| read.row);
        let grant_id = row.as_ref().map(|row| row.grant_id.clone());
        if provider.idp.revocation_url.is_none() {
            tracing::warn!(grant.id = grant_id, idp, "a token is not revoked: the provider has no revocation endpoint");
            return Ok(Revoked::Done);
        }
        let Ok(token) = seal::open_refresh_token(&ports.keyring, &revocation.key, &revocation.token) else {
            tracing::error!(
                grant.id = grant_id,
                idp,
                "a refresh token that is to be revoked does not open with the key ring's keys"
            );
            return Ok(Revoked::Later(None));
        };
        // By the client that the token was issued to, as far as that is known.
        let params = row.as_ref().map(|row| seal::params(&ports.keyring, row)).unwrap_or_default();
        let login = provider.gate.client_index(row.and_then(|row| row.client_id).as_deref()).unwrap_or(0);
        let slot =
            match provider.gate.slot(&ports.clock, login, revocation.key.stable_hash(), Priority::Foreground).await {
                Ok(slot) => slot,
                Err(closed) => return Ok(Revoked::Later(Some(closed.wait))),
            };
        // Written before it is sent: a restore does not take back a revocation that was begun.
        if !ports.ledger.store().revoking(revocation, retry_at).await? {
            return Ok(Revoked::Elsewhere);
        }
        let (key, refresher) = (revocation.key.clone(), self.refresher.clone());
        // In a task of its own: the response to a request that has left is awaited even if the revoker is stopped.
        let (done, response) = oneshot::channel();
        ports.runtime.spawn(async move {
            let ports = refresher.ports();
            let revoked = provider.client.revoke(&provider.idp, slot.credentials_index(), &token, &params).await;
            let said = Observation::of_revocation(&revoked);
            let (notices, _) = slot.report(said, key.stable_hash(), ports.clock.read(), random());
            ports.providers.announce(key.idp(), notices, revoked.as_ref().err());
            done.send(revoked).ok();
        });
        Ok(match response.await {
            Ok(Ok(())) => {
                tracing::info!(grant.id = grant_id, idp, "a token was revoked");
                Revoked::Done
            }
            Ok(Err(failure)) => {
                tracing::warn!(
                    grant.id = grant_id,
                    idp,
                    idp.status = failure.evidence.status,
                    idp.code = failure.evidence.code,
                    idp.detail = failure.evidence.detail,
                    failures = revocation.failures + 1,
                    "a token was not revoked yet: it is retried"
                );
                Revoked::Later(failure.retry_after)
            }
            Err(_) => Revoked::Later(None),
        })
    }

    /// Purges the grant if its disconnect asked for that; called when a token of it is revoked.
    async fn purge_if_wanted(&self, key: &TokenKey) -> Result<(), StoreError> {
        let row = self.refresher.ports().ledger.store().read(key).await?.row;
        if row.and_then(|row| row.tombstone).is_some_and(|tombstone| tombstone.purge) {
            // While more of it is to be revoked, that comes first.
            self.front.call(Purge::new(key), By::Sweeper).await.ok();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Change, DisconnectChange},
        supervisor::bench::Bench,
    };

    #[actix::test]
    async fn a_revocation_waits_while_its_provider_is_on_hold_and_is_done_where_there_is_no_endpoint() {
        let bench = Bench::with_idp("idp");
        let key = TokenKey::at("idp").user("alice");
        bench.connect(&key, "ts-test-secret-1").await;
        let end =
            Change::Disconnect(DisconnectChange { revoke: true, unrevocable: false, purge: false, access_token: None });
        bench.ledger.change(&key, By::Application, end).await.unwrap();
        let (_, front, ..) = bench.assembled();
        let revoker = Revoker::new(bench.refresher.clone(), front, Duration::from_secs(5));
        bench.providers.set_hold(&bench.ledger, "idp", Some("maintenance")).await.unwrap();
        assert_eq!(revoker.revoke_queued().await, Ok(1));
        bench.providers.set_hold(&bench.ledger, "idp", None).await.unwrap();
        assert_eq!(revoker.revoke_queued().await, Ok(0), "it is not due again yet");
        bench.manual.advance(HELD * 2);
        assert_eq!(bench.ledger.store().revocations(9).await.unwrap().len(), 1);
        assert_eq!(revoker.revoke_queued().await, Ok(0), "the provider of this test has no revocation endpoint");
        assert!(bench.ledger.store().revocations(9).await.unwrap().is_empty());
    }
}
