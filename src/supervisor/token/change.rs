//! What people and applications do to a grant: each is one transaction on its row.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::sync::oneshot;

use super::{TokenActor, machine::Event};
use crate::{
    error::{Cause, Error},
    model::Grant,
    protocol::{Change, Reply as Replied},
    store::{Changed, StoreError},
    supervisor::{
        command::{Ask, Reply},
        refresh::seal,
        status::Status,
    },
};

impl TokenActor {
    pub(super) fn connect(&self, grant: Grant, reply: Reply<Status>, context: &mut Context<Self>) {
        let Some(provider) = self.provider() else {
            return drop(reply.send(Err(Error::UnknownIdp)));
        };
        if grant.client_id.as_deref().is_some_and(|client| client != provider.idp.client_id) {
            let retry_after = Duration::from_secs(60);
            return drop(reply.send(Err(Error::Unavailable { retry_after, cause: Cause::ClientUnknown })));
        }
        let now = self.core.clock.now();
        let connect = seal::connecting(&self.core.keyring, provider, &self.key, grant, now);
        self.change(Change::Connect(Box::new(connect)), reply, context);
    }

    /// Has whoever is the key's actor by then read the row again.
    fn read_again(&self) -> impl Future<Output = ()> + Send + use<> {
        let (routes, key) = (self.routes.clone(), self.key.clone());
        async move { drop(routes.route(key, Ask::Stale).await) }
    }

    /// Carries out one transaction on the row. It is done whether this actor lives to see it or not.
    pub(super) fn change(&self, change: Change, reply: Reply<Status>, context: &mut Context<Self>) {
        let changed = self.core.store.change(&self.key, change);
        let (tell, told) = oneshot::channel();
        let read_again = self.read_again();
        self.core.runtime.spawn(async move {
            // If this actor is gone, its successor may have read the row before it was changed.
            if tell.send(changed.await).is_err() {
                read_again.await;
            }
        });
        let changed = async {
            let lost = |_| Err(StoreError::Unavailable("the supervisor is going down".to_owned()));
            told.await.unwrap_or_else(lost)
        };
        context.spawn(changed.into_actor(self).map(|changed, actor, context| match changed {
            Ok(Changed { reply: replied, row, now }) => {
                let row = row.map(Arc::new);
                let answer = match replied {
                    Replied::Duplicate => Err(Error::DuplicateGrant),
                    Replied::Refused => Err(Error::NotConnected),
                    Replied::Unchanged(why) => Ok(Status::of(row.as_deref(), now, Some(why))),
                    _ => Ok(Status::of(row.as_deref(), now, None)),
                };
                actor.feed(Event::Row(row), context);
                drop(reply.send(answer));
                if !actor.guard.registry.connected() {
                    // The same if the registry died, and the next one has started a successor beside this one.
                    actor.core.runtime.spawn(actor.read_again());
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "a change of a grant was not stored");
                drop(reply.send(Err(refusal(&error))));
            }
        }));
    }
}

pub(in crate::supervisor) fn refusal(error: &StoreError) -> Error {
    match error {
        StoreError::Unavailable(_) => {
            Error::Unavailable { retry_after: Duration::from_secs(1), cause: Cause::StoreDown }
        }
        StoreError::Corrupt { .. } => Error::Internal("a stored grant cannot be read"),
    }
}
