//! Surges of refusals: canaries are sent while one lasts, and whoever was refused is tried once more when it is over.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};

use crate::{
    clock::Clock,
    idp::SurgeSight,
    model::{StoreTime, TokenKey, WallTime},
    supervisor::{
        by::By, command::Retry, front::Front, jitter::random, ledger::Ledger, provider::Providers,
        retry_idp::refused_keys,
    },
};

/// The time between two looks at the providers.
const EVERY: Duration = Duration::from_secs(5);
/// A canary is chosen among so many grants that were refused.
const CHOICE: usize = 64;
/// More grants than this are left to people (`retry IDP`).
const MOST: usize = 100_000;
/// Grants that are retried at the same time. The provider's gate limits the requests.
const AT_ONCE: usize = 16;

pub(super) struct Surges {
    providers: Arc<Providers>,
    ledger: Ledger,
    front: Front,
    clock: Clock,
}

impl Surges {
    pub(super) fn new(providers: Arc<Providers>, ledger: Ledger, front: Front, clock: Clock) -> Self {
        Self { providers, ledger, front, clock }
    }

    /// Looks at the providers again and again.
    pub(super) async fn run(&self) {
        loop {
            self.look().await;
            self.clock.sleep(EVERY).await;
        }
    }

    async fn look(&self) {
        let providers: Vec<_> = self.providers.all().iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        for (name, provider) in providers {
            if self.providers.held(&name).is_some() {
                continue;
            }
            if let Some(since) = provider.gate.take_refused_since() {
                self.retry(&name, since).await;
            } else if let Some(SurgeSight { began, canary: true }) = provider.gate.surge(self.clock.read()) {
                self.send_canary(&name, began).await;
            }
        }
    }

    /// Has one of the grants that were refused tried once more: the gate lets it through alone.
    async fn send_canary(&self, idp: &str, began: WallTime) {
        let keys = self.refused(idp, began, CHOICE).await;
        if let Some(key) = keys.get(random() as usize % keys.len().max(1)) {
            tracing::info!(idp, "a refused refresh token is sent once more, to see whether the provider still refuses");
            self.front.call(Retry::new(key), By::Sweeper).await.ok();
        }
    }

    /// Has every grant that was refused since then tried once more.
    async fn retry(&self, idp: &str, since: WallTime) {
        let keys = self.refused(idp, since, MOST).await;
        tracing::warn!(idp, grants = keys.len(), "the surge of refusals is over: who was refused is tried once more");
        let retries: Vec<_> = keys.iter().map(Retry::new).collect();
        let retried = retries.into_iter().map(|retry| self.front.call(retry, By::Sweeper));
        stream::iter(retried).buffer_unordered(AT_ONCE).for_each(async |_| {}).await;
    }

    async fn refused(&self, idp: &str, since: WallTime, most: usize) -> Vec<TokenKey> {
        // A verdict is stored a little after its response came.
        let since: StoreTime = since.by_store_clock();
        let refused = refused_keys(self.ledger.store(), idp, Some(since), most).await;
        refused.map(|(keys, _)| keys).unwrap_or_else(|error| {
            tracing::warn!(idp, error = %error, "the grants that were refused in a surge cannot be listed: retry them by hand");
            Vec::new()
        })
    }
}
