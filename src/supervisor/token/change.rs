//! What people and applications do to a grant: each is one transaction on its row.

use std::{sync::Arc, time::Duration};

use actix::{ActorContext as _, ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::sync::oneshot;

use super::{TokenActor, machine::Event};
use crate::{
    error::{Cause, Error},
    model::{Generation, Grant, Row, TokenKey},
    protocol::{Change, ChangeReply, Expected, PurgeRefusal},
    store::{Changed, StoreError},
    supervisor::{
        command::{Ask, Reply},
        core::Core,
        refresh::seal,
        status::Status,
    },
};

/// How often a connect is tried on a row that moves meanwhile.
const TRIES: u32 = 5;

/// When a purge is to be tried again: what it waits for takes an answer of the identity provider, or settling.
const LATER: Duration = Duration::from_secs(30);

/// When the store is to be asked again.
const SOON: Duration = Duration::from_secs(1);

impl TokenActor {
    pub(super) fn connect(&mut self, grant: Grant, only: Expected, reply: Reply<Status>, context: &mut Context<Self>) {
        let Some(provider) = self.provider() else { return drop(reply.send(Err(Error::UnknownIdp))) };
        if provider.gate.login(grant.client_id.as_deref()).is_none() {
            let retry_after = Duration::from_secs(60);
            return drop(reply.send(Err(Error::Unavailable { retry_after, cause: Cause::ClientUnknown })));
        }
        let (core, key) = (self.core.clone(), self.key.clone());
        self.carry_out_change(async move { connect(&core, &key, grant, only).await }, reply, context);
    }

    /// Carries out one change of the row.
    pub(super) fn change(&mut self, change: Change, reply: Reply<Status>, context: &mut Context<Self>) {
        let changed = self.core.change(&self.key, change);
        self.carry_out_change(async { changed.await.map_err(|error| unstored(&error)) }, reply, context);
    }

    /// Deletes a tombstone. Once the attempt has ended that runs, if one does and the row does not wait for it: what it
    /// still publishes and tells would be of a row that is gone.
    pub(super) fn purge(&mut self, reply: Reply<Status>, context: &mut Context<Self>) {
        self.follow_running(context);
        let over = |row: &Arc<Row>| row.tombstone.is_some() && row.intent.is_none();
        if self.machine.follows_attempt() && self.machine.row().is_none_or(over) {
            return self.purges.push(reply);
        }
        self.change(Change::Purge, reply, context);
    }

    /// Has whoever is the key's actor by then read the row again.
    fn read_again(&self) -> impl Future<Output = ()> + Send + use<> {
        let (routes, key) = (self.routes.clone(), self.key.clone());
        async move { drop(routes.route(key, Ask::Stale).await) }
    }

    /// Waits for a change. It is done whether this actor lives to see it or not.
    fn carry_out_change(
        &mut self,
        changed: impl Future<Output = Result<Changed, Error>> + Send + 'static,
        reply: Reply<Status>,
        context: &mut Context<Self>,
    ) {
        // Until then the actor does not go to sleep: the asker would have to ask its successor.
        self.changing += 1;
        let (tell, told) = oneshot::channel();
        let read_again = self.read_again();
        self.core.runtime.spawn(async move {
            // If this actor is gone, its successor may have read the row before it was changed.
            if tell.send(changed.await).is_err() {
                read_again.await;
            }
        });
        let changed = async { told.await.unwrap_or(Err(STORE_DOWN)) };
        context.spawn(changed.into_actor(self).map(|changed, actor, context| {
            actor.changing -= 1;
            if actor.retired && actor.changing == 0 {
                context.stop();
            }
            let Changed { reply: replied, row, now, .. } = match changed {
                Ok(changed) => changed,
                Err(error) => return drop(reply.send(Err(error))),
            };
            let row = row.map(Arc::new);
            let answer = match replied {
                ChangeReply::Duplicate => Err(Error::DuplicateGrant),
                ChangeReply::Refused => Err(Error::NotConnected),
                ChangeReply::NotPurged(why) => Err(kept(why)),
                ChangeReply::Mismatch => {
                    let generation = row.as_ref().map_or(Generation(0), |row| row.generation);
                    Err(Error::GenerationMismatch { generation })
                }
                ChangeReply::Unchanged(why) => Ok(actor.core.status(&actor.key, row.as_deref(), now, Some(why))),
                _ => Ok(actor.core.status(&actor.key, row.as_deref(), now, None)),
            };
            actor.feed(Event::Row(row), context);
            drop(reply.send(answer));
            if actor.retired || !actor.guard.registry.connected() {
                // The same if the registry has, or its successor, started another actor beside this one.
                actor.core.runtime.spawn(actor.read_again());
            }
        }));
    }
}

/// Stores a grant, unless the key holds one of another subject.
///
/// Subjects are sealed: the row is read and compared here, and the connect is carried out on that very row.
async fn connect(core: &Arc<Core>, key: &TokenKey, mut grant: Grant, only: Expected) -> Result<Changed, Error> {
    let provider = core.provider(key.idp()).ok_or(Error::UnknownIdp)?;
    let keeps = grant.refresh_token.is_none();
    let given = grant.subject.clone();
    for _ in 0..TRIES {
        let compared = if given.is_some() || keeps {
            let read = core.store.read(key).await.map_err(|error| unstored(&error))?;
            let row = read.row.filter(|row| row.tombstone.is_none());
            let known = row.as_ref().and_then(|row| seal::subject(&core.keyring, row));
            if known.as_ref().zip(given.as_ref()).is_some_and(|(known, given)| known != given) {
                return Err(Error::AccountMismatch);
            }
            if keeps && row.as_ref().is_some_and(|row| row.refresh_token.is_some()) {
                grant.subject = given.clone().or(known);
            }
            row.map_or(Expected::Nothing, |row| Expected::At(row.generation))
        } else {
            Expected::Anything
        };
        let now = core.clock.now();
        let connect = seal::connecting(&core.keyring, &provider, key, grant.clone(), (only, compared), now);
        let changed = core.change(key, Change::Connect(Box::new(connect))).await;
        match changed.map_err(|error| unstored(&error))? {
            Changed { reply: ChangeReply::Moved, .. } => {}
            changed => return Ok(changed),
        }
    }
    Err(STORE_DOWN)
}

const STORE_DOWN: Error = Error::Unavailable { retry_after: SOON, cause: Cause::StoreDown };

/// Why a grant was not purged.
fn kept(why: PurgeRefusal) -> Error {
    let later = |cause| Error::Unavailable { retry_after: LATER, cause };
    match why {
        PurgeRefusal::Connected => Error::InvalidRequest("the grant is connected: disconnect it, then purge it"),
        PurgeRefusal::InDoubt => later(Cause::InDoubt),
        PurgeRefusal::Revoking => later(Cause::Revoking),
    }
}

fn unstored(error: &StoreError) -> Error {
    tracing::warn!(error = %error, "a change of a grant was not stored");
    refusal(error)
}

pub(in crate::supervisor) fn refusal(error: &StoreError) -> Error {
    match error {
        StoreError::Unavailable(_) => STORE_DOWN,
        StoreError::Conflict => Error::Busy { retry_after: SOON },
        StoreError::Corrupt { .. } => Error::Internal("a stored grant cannot be read"),
    }
}
