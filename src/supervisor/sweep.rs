//! What comes due although nobody asks: cold grants, doubts, revocations.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    command::Ask,
    core::{Core, random},
    handle::Shared,
    holds,
    refresh::seal,
};
use crate::{
    idp::delay,
    model::TokenKey,
    store::{Revocation, StoreError},
};

/// Keys that are woken at a time.
const PAGE: u32 = 256;

/// How long fingerprints of spent refresh tokens are kept.
const SPENT_KEPT: Duration = Duration::from_secs(180 * 24 * 3_600);

/// How long revocations are put off at a time while their identity provider is held.
const HELD: Duration = Duration::from_secs(60);

/// How often old fingerprints are forgotten, in sweeps.
const FORGET_EVERY: u32 = 512;

/// Wakes what is due, revokes what is queued; again and again.
pub(super) async fn sweep(shared: Shared) {
    let core = shared.core.clone();
    let mut sweeps: u32 = 0;
    loop {
        let swept = async {
            holds::read(&core).await?;
            wake_due(&shared).await?;
            revoke_queued(&core).await?;
            if sweeps.is_multiple_of(FORGET_EVERY) {
                core.store.forget_spent(core.clock.now().minus(SPENT_KEPT)).await?;
            }
            Ok::<(), StoreError>(())
        };
        if let Err(error) = swept.await {
            tracing::warn!(error = %error, "a sweep was cut short; the next one starts over");
        }
        sweeps = sweeps.wrapping_add(1);
        core.clock.sleep(core.limits.sweep_every).await;
    }
}

async fn wake_due(shared: &Shared) -> Result<(), StoreError> {
    let core = &shared.core;
    let (now, mut after) = (core.clock.now(), None);
    loop {
        let page = core.store.due(now, after, PAGE).await?;
        let started = |key: &TokenKey| core.idps.get(key.idp()).is_some_and(|provider| provider.held().is_none());
        for key in page.keys.into_iter().filter(started) {
            core.attempts.below(core.limits.swept_at_once).await;
            // A registry that is just being replaced loses nothing: the next sweep comes.
            shared.routes.route(key, Ask::Wake).await.ok();
        }
        match page.next {
            Some(_) => after = page.next,
            None => return Ok(()),
        }
    }
}

async fn revoke_queued(core: &Arc<Core>) -> Result<(), StoreError> {
    for revocation in core.store.revocations(PAGE).await? {
        if core.idps.get(revocation.key.idp()).is_some_and(|provider| provider.held().is_some()) {
            core.store.revoked(revocation.id, Some(core.clock.now() + HELD)).await?;
            continue;
        }
        let again = |retry_after| core.clock.now() + delay(revocation.failures, retry_after, random());
        // Written before it is sent: what was begun is not taken back by a restore.
        if !core.store.revoking(&revocation, again(None)).await? {
            continue;
        }
        match revoke(core, &revocation).await {
            Ok(()) => core.store.revoked(revocation.id, None).await?,
            Err(Some(retry_after)) => core.store.revoked(revocation.id, Some(again(Some(retry_after)))).await?,
            Err(None) => {}
        }
    }
    Ok(())
}

/// Revokes one refresh token; `Err` says that it is to be tried again, and when if the identity provider said so.
async fn revoke(core: &Arc<Core>, revocation: &Revocation) -> Result<(), Option<Duration>> {
    let Some(provider) = core.idps.get(revocation.key.idp()) else { return Err(None) };
    if provider.idp.revocation_url.is_none() {
        return Ok(());
    }
    let Ok(token) = seal::open_refresh_token(&core.keyring, &revocation.key, &revocation.token) else {
        tracing::error!(idp = revocation.key.idp(), "a refresh token that is to be revoked does not open");
        return Err(None);
    };
    // In a task of its own: a request that has left is awaited even if the sweeper is stopped.
    let (client, idp) = (provider.client.clone(), provider.idp.clone());
    let (done, answer) = oneshot::channel();
    core.runtime.spawn(async move { done.send(client.revoke(&idp, &token).await).ok() });
    match answer.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => {
            tracing::warn!(
                idp = revocation.key.idp(),
                idp.code = failure.evidence.code,
                "a refresh token was not revoked yet"
            );
            Err(failure.retry_after)
        }
        Err(_) => Err(None),
    }
}
