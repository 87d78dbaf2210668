//! What applications report of the key's token.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{TokenActor, Unread, machine::Event, refusal};
use crate::{
    model::{AccessToken, Generation},
    supervisor::{command::Reply, refresh::seal, status::Status},
};

impl TokenActor {
    /// A resource server refused the token of this generation, if any is meant.
    pub(super) fn reject(&mut self, generation: Option<Generation>, reply: Reply<Status>, context: &mut Context<Self>) {
        if let Some(generation) = generation {
            self.feed(Event::Rejected(generation), context);
        }
        self.unread.push(Unread::Status(reply));
        self.feed(Event::Tick, context);
    }

    /// A resource server refused this token: it may be the one that is published, one that was stored since, an old
    /// one, or anybody's.
    pub(super) fn reject_token(&mut self, token: AccessToken, reply: Reply<Status>, context: &mut Context<Self>) {
        let published = self.core.snapshot.current(&self.key);
        if let Some(issued) = published.filter(|issued| issued.access_token == token) {
            return self.reject(Some(issued.generation), reply, context);
        }
        self.changing += 1;
        let read = self.core.store.read(&self.key);
        context.spawn(read.into_actor(self).map(move |read, actor, context| {
            actor.changing -= 1;
            let stored = match read {
                Ok(read) => read.row.filter(|row| row.tombstone.is_none()),
                Err(error) => return drop(reply.send(Err(refusal(&error)))),
            };
            let stored = stored.and_then(|row| seal::issued(&actor.core.keyring, &row, actor.core.clock.read()).ok());
            let meant = stored.filter(|issued| issued.access_token == token);
            actor.reject(meant.map(|issued| issued.generation), reply, context);
        }));
    }
}
