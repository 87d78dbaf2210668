//! What comes due although nobody asks: cold grants, doubts, revocations, ends of refresh tokens.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{
    command::Ask,
    core::{Core, Provider, random},
    expiring::Notices,
    handle::Shared,
    holds,
    offboard::purge_if_wanted,
    refresh::seal,
};
use crate::{
    idp::{Lane, Said, delay},
    model::Time,
    store::{QueuedRevocation, StoreError},
};

/// Keys that are woken at a time.
const PAGE: u32 = 256;

/// When a sweep that left something is followed by the next.
const AGAIN: Duration = Duration::from_secs(1);

/// How long fingerprints of spent refresh tokens are kept.
const SPENT_KEPT: Duration = Duration::from_secs(180 * 24 * 3_600);

/// How long revocations are put off at a time while their identity provider is held.
const HELD: Duration = Duration::from_secs(60);

/// How often old fingerprints are forgotten, in sweeps.
const FORGET_EVERY: u32 = 512;

/// Wakes what is due, tells what ends soon; again and again.
pub(super) async fn sweep(shared: Shared) {
    let core = &shared.core;
    let mut sweeps: u32 = 0;
    let mut notices = Notices::default();
    loop {
        let swept = async {
            holds::read(core).await?;
            let complete = wake_due(&shared).await?;
            notices.tell(core).await?;
            if sweeps.is_multiple_of(FORGET_EVERY) {
                core.store.forget_spent(core.clock.now().minus(SPENT_KEPT)).await?;
            }
            Ok::<bool, StoreError>(complete)
        };
        let complete = swept.await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "a sweep was cut short; the next one starts over");
            true
        });
        sweeps = sweeps.wrapping_add(1);
        let every = core.limits.sweep_every;
        core.clock.sleep(if complete { every } else { every.min(AGAIN) }).await;
    }
}

/// Revokes what is queued; again and again.
pub(super) async fn revoke_all(shared: Shared) {
    loop {
        if let Err(error) = revoke_queued(&shared).await {
            tracing::warn!(error = %error, "revocations were cut short; they are looked at again");
        }
        shared.core.clock.sleep(shared.core.limits.sweep_every).await;
    }
}

/// Wakes what is due, of each provider as much as it can take: a slow one must not hold up the others. False if some
/// was left for the next sweep.
async fn wake_due(shared: &Shared) -> Result<bool, StoreError> {
    let core = &shared.core;
    let (now, mut after, mut complete) = (core.clock.now(), None, true);
    let mut room: HashMap<String, usize> = HashMap::new();
    loop {
        let page = core.store.due(now, after, PAGE).await?;
        for key in page.keys {
            // What a closed gate or people hold back stays due.
            let open = |provider: Arc<Provider>| provider.gate.closed(core.clock.read()).is_none();
            if !core.provider(key.idp()).is_some_and(open) || core.idp_held(key.idp()).is_some() {
                continue;
            }
            let room = match room.get_mut(key.idp()) {
                Some(room) => room,
                None => {
                    let left = core.limits.swept_at_once.saturating_sub(core.attempts.running_for(key.idp()));
                    room.entry(key.idp().to_owned()).or_insert(left)
                }
            };
            let Some(left) = room.checked_sub(1) else {
                complete = false;
                continue;
            };
            *room = left;
            // A registry that is just being replaced loses nothing: the next sweep comes.
            shared.routes.route(key, Ask::Wake).await.ok();
        }
        match page.next {
            Some(_) => after = page.next,
            None => return Ok(complete),
        }
    }
}

/// Sends the revocations that are due. How many of them are to be tried again.
pub(super) async fn revoke_queued(shared: &Shared) -> Result<usize, StoreError> {
    let core = &shared.core;
    let queued = core.store.revocations(PAGE).await?;
    let revoked = join_all(queued.iter().map(|revocation| async move {
        let again = |retry_after| core.clock.now() + delay(revocation.failures, retry_after, random());
        match revoke(core, revocation, again(None)).await? {
            Revoked::Done => {
                core.store.revoked(revocation.id, None).await?;
                purge_if_wanted(shared, &revocation.key).await.map(|()| 0)
            }
            Revoked::Later(retry_after) => {
                core.store.revoked(revocation.id, Some(again(retry_after))).await.map(|()| 1)
            }
            Revoked::Elsewhere => Ok(0),
        }
    }));
    revoked.await.into_iter().sum()
}

/// What became of a revocation.
enum Revoked {
    Done,
    /// It is to be tried again, and when, if the identity provider said so.
    Later(Option<Duration>),
    /// It was taken back, or somebody else is at it.
    Elsewhere,
}

/// Revokes one refresh token. It is due again at `retry_at` if this process dies meanwhile.
async fn revoke(core: &Arc<Core>, revocation: &QueuedRevocation, retry_at: Time) -> Result<Revoked, StoreError> {
    let idp = revocation.key.idp();
    let Some(provider) = core.provider(idp) else { return Ok(Revoked::Later(None)) };
    if core.idp_held(idp).is_some() {
        return Ok(Revoked::Later(Some(HELD)));
    }
    if provider.idp.revocation_url.is_none() {
        return Ok(Revoked::Done);
    }
    let Ok(token) = seal::open_refresh_token(&core.keyring, &revocation.key, &revocation.token) else {
        tracing::error!(idp, "a refresh token that is to be revoked does not open");
        return Ok(Revoked::Later(None));
    };
    // By the client it was issued to, as far as that is known.
    let row = core.store.read(&revocation.key).await.ok().and_then(|read| read.row);
    let login = provider.gate.login(row.and_then(|row| row.client_id).as_deref()).unwrap_or(0);
    let slot = match provider.gate.slot(&core.clock, login, Lane::Wanted).await {
        Ok(slot) => slot,
        Err(closed) => return Ok(Revoked::Later(Some(closed.wait))),
    };
    // Written before it is sent: what was begun is not taken back by a restore.
    if !core.store.revoking(revocation, retry_at).await? {
        return Ok(Revoked::Elsewhere);
    }
    let (key, at_work) = (revocation.key.clone(), core.clone());
    // In a task of its own: a request that has left is awaited even if the sweeper is stopped.
    let (done, answer) = oneshot::channel();
    core.runtime.spawn(async move {
        let revoked = provider.client.revoke(&provider.idp, slot.client(), &token).await;
        let (notices, _) = slot.told(Said::of_revocation(&revoked), key.stable_hash(), at_work.clock.read(), random());
        at_work.announce(key.idp(), notices, revoked.as_ref().err());
        done.send(revoked).ok();
    });
    Ok(match answer.await {
        Ok(Ok(())) => Revoked::Done,
        Ok(Err(failure)) => {
            tracing::warn!(idp, idp.code = failure.evidence.code, "a refresh token was not revoked yet");
            Revoked::Later(failure.retry_after)
        }
        Err(_) => Revoked::Later(None),
    })
}
