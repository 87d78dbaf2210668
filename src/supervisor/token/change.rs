//! Changes of the row: each is one transaction.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::sync::oneshot;

use super::{TokenActor, machine::Event};
use crate::{
    error::{Cause, Error},
    model::{Grant, Row, TokenKey},
    protocol::{Change, ChangeReply, Expected},
    store::{Changed, StoreError},
    supervisor::{
        by::By,
        command::{Ask, Reply},
        ledger::{Audited, STORE_DOWN, refusal, unavailable},
        refresh::{Ports, Refresher, seal},
        status::Status,
    },
};

/// A connect is repeated this often on a row that changes meanwhile.
const TRIES: u32 = 5;

impl TokenActor {
    pub(super) fn connect(
        &mut self,
        by: By,
        grant: Grant,
        only: Expected,
        reply: Reply<Status>,
        context: &mut Context<Self>,
    ) {
        let Some(provider) = self.provider() else { return drop(reply.send(Err(Error::UnknownIdp))) };
        if provider.gate.client_index(grant.client_id.as_deref()).is_none() {
            let retry_after = Duration::from_secs(60);
            return drop(reply.send(Err(Error::Unavailable { retry_after, cause: Cause::ClientUnknown })));
        }
        let (refresher, key) = (self.around.refresher.clone(), self.key.clone());
        self.carry_out_change(async move { connect(&refresher, &key, by, grant, only).await }, reply, context);
    }

    /// Carries out one change of the row.
    pub(super) fn change(&mut self, by: By, mut what: Change, reply: Reply<Status>, context: &mut Context<Self>) {
        match &mut what {
            Change::Purge if self.must_wait_for_attempt(context) => return self.purges.push((by, reply)),
            // A token that cannot be revoked is not queued: the grant can be restored for as long as the token lives.
            Change::Disconnect(disconnect) => {
                let revocable = self.provider().is_some_and(|provider| provider.idp.revocation_url.is_some());
                disconnect.unrevocable = disconnect.revoke && !revocable;
                disconnect.revoke &= revocable;
            }
            _ => {}
        }
        let (refresher, key) = (self.around.refresher.clone(), self.key.clone());
        let changed = async move {
            let ports = refresher.ports();
            if let Change::Disconnect(disconnect) = &mut what
                && disconnect.revoke
            {
                // A grant without a refresh token ends with its access token.
                let read = ports.ledger.store().read(&key).await.map_err(|error| unstored(ports, &key, &error))?;
                let row = read.row.filter(|row| row.refresh_token.is_none());
                disconnect.access_token = row.and_then(|row| seal::lone_access_token(&ports.keyring, &row));
            }
            ports.ledger.change(&key, by, what).await.map_err(|error| unstored(ports, &key, &error))
        };
        self.carry_out_change(changed, reply, context);
    }

    /// Whether a purge waits for the end of the attempt that runs: a tombstone that does not wait for it in turn would be
    /// gone before what the attempt still publishes and emits.
    fn must_wait_for_attempt(&mut self, context: &mut Context<Self>) -> bool {
        self.follow_running(context);
        let over = |row: &Arc<Row>| row.tombstone.is_some() && row.intent.is_none();
        self.machine.follows_attempt() && self.machine.row().is_none_or(over)
    }

    /// Makes the key's actor of that moment read the row again.
    fn read_again(&self) -> impl Future<Output = ()> + Send + use<> {
        let (router, key) = (self.around.router.clone(), self.key.clone());
        async move { drop(router.route(key, Ask::Stale).await) }
    }

    /// Waits for a change, which is done whether this actor lives to see it or not.
    fn carry_out_change(
        &mut self,
        changed: impl Future<Output = Result<Changed, Error>> + Send + 'static,
        reply: Reply<Status>,
        context: &mut Context<Self>,
    ) {
        // The actor does not stop until then: the caller would have to ask its successor.
        self.changing += 1;
        let (tell, told) = oneshot::channel();
        let read_again = self.read_again();
        self.ports().runtime.spawn(async move {
            // If this actor is gone, its successor may have read the row before the change.
            if tell.send(changed.await).is_err() {
                read_again.await;
            }
        });
        let changed = async { told.await.unwrap_or(Err(STORE_DOWN)) };
        context.spawn(changed.into_actor(self).map(|changed, actor, context| {
            actor.changing -= 1;
            let changed = match changed {
                Ok(changed) => changed,
                Err(error) => {
                    let is_unknown = matches!(error, Error::Unavailable { cause: Cause::StoreDown, .. });
                    drop(reply.send(Err(error)));
                    // A server may have stored it all the same.
                    let is_shared = actor.ports().ledger.replicas().is_shared();
                    return actor.feed(if is_unknown && is_shared { Event::Stale } else { Event::Tick }, context);
                }
            };
            let refused = refusal(&changed);
            let unchanged = match changed.reply {
                ChangeReply::Unchanged(why) => Some(why),
                _ => None,
            };
            let row = changed.row.map(Arc::new);
            let status = || actor.around.refresher.status(&actor.key, row.as_deref(), changed.now, unchanged);
            let answer = refused.map_or_else(|| Ok(status()), Err);
            actor.feed(Event::Row(row), context);
            drop(reply.send(answer));
            if !actor.guard.registry.connected() {
                // The registry's successor may have started another actor beside this one.
                actor.ports().runtime.spawn(actor.read_again());
            }
        }));
    }
}

/// Stores a grant, unless the key holds one of another subject.
///
/// Subjects are sealed: the row is read and compared here, and the connect is carried out on that very row.
async fn connect(
    refresher: &Refresher,
    key: &TokenKey,
    by: By,
    grant: Grant,
    only: Expected,
) -> Result<Changed, Error> {
    let ports = refresher.ports();
    let provider = ports.providers.get(key.idp()).ok_or(Error::UnknownIdp)?;
    provider.idp.check_grant_params(&grant.params).map_err(Error::InvalidRequest)?;
    let keeps = grant.refresh_token.is_none();
    let given = grant.subject.clone();
    // One refresh token under two sections for the same client would be spent twice, like one under two keys.
    let elsewhere: Vec<_> = match &grant.refresh_token {
        Some(token) => {
            let all = ports.providers.all();
            let alike = all
                .iter()
                .filter(|(name, other)| name.as_str() != key.idp() && provider.idp.shares_tokens_with(&other.idp));
            alike.map(|(name, _)| ports.keyring.fingerprint(name, token)).collect()
        }
        None => Vec::new(),
    };
    for _ in 0..TRIES {
        let mut kept = None;
        let compared = if given.is_some() || keeps {
            let read = ports.ledger.store().read(key).await.map_err(|error| unstored(ports, key, &error))?;
            let row = read.row.filter(|row| row.tombstone.is_none());
            kept = row.clone().filter(|row| keeps && row.refresh_token.is_some());
            let known = row.as_ref().and_then(|row| seal::subject(&ports.keyring, row));
            if known.as_ref().zip(given.as_ref()).is_some_and(|(known, given)| !provider.idp.same_subject(known, given))
            {
                let mismatch = Error::AccountMismatch;
                let grant_id = row.as_ref().map(|row| row.grant_id.as_str());
                ports.ledger.audit(&by, "connect", Audited::grant(key, grant_id), Err(mismatch.code()));
                return Err(mismatch);
            }
            let moves = |row: &Row| grant.params != seal::params(&ports.keyring, row);
            if !grant.params.is_empty() && kept.as_ref().is_some_and(moves) {
                return Err(Error::InvalidRequest(OTHER_PARAMS));
            }
            row.map_or(Expected::Nothing, |row| Expected::At(row.generation))
        } else {
            Expected::Anything
        };
        let now = ports.clock.now();
        let expected = (only, compared);
        let mut connect = seal::connecting(&ports.keyring, &provider, key, grant.clone(), kept.as_ref(), expected, now);
        connect.elsewhere.clone_from(&elsewhere);
        let changed = ports.ledger.change(key, by.clone(), Change::Connect(Box::new(connect))).await;
        match changed.map_err(|error| unstored(ports, key, &error))? {
            Changed { reply: ChangeReply::Moved, .. } => {}
            changed => return Ok(changed),
        }
    }
    Err(STORE_DOWN)
}

const OTHER_PARAMS: &str = "params: the refresh token that is kept was issued with other parameters: omit params, or \
                            connect with the refresh token that belongs to them";

fn unstored(ports: &Ports, key: &TokenKey, error: &StoreError) -> Error {
    let name = ports.name(key);
    tracing::warn!(
        grant.id = name.grant_id,
        idp = key.idp(),
        user = name.user,
        error = %error,
        "a change of a grant was not stored"
    );
    unavailable(error)
}
