//! Reports that a resource server rejected the key's token.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{TokenActor, Unread, machine::Event};
use crate::{
    model::{AccessToken, Generation},
    supervisor::{command::Reply, ledger::unavailable, refresh::seal, replicas::News, status::Status},
};

impl TokenActor {
    /// Takes the report about the token of this generation, if it is about any.
    pub(super) fn reject(&mut self, generation: Option<Generation>, reply: Reply<Status>, context: &mut Context<Self>) {
        if let Some(generation) = generation {
            let was_rejected = self.machine.rejected() == Some(generation);
            self.feed(Event::Rejected(generation), context);
            if !was_rejected && self.machine.rejected() == Some(generation) {
                let news = || News::Rejected { key: (&self.key).into(), generation };
                self.ports().ledger.replicas().tell(news);
            }
        }
        self.unread.push(Unread::Status(reply));
        self.feed(Event::Tick, context);
    }

    /// Takes the report about this token: it may be the published one, one that was stored since, an old one, or another
    /// user's.
    pub(super) fn reject_token(&mut self, token: AccessToken, reply: Reply<Status>, context: &mut Context<Self>) {
        let published = self.ports().snapshot.current(&self.key);
        if let Some(issued) = published.filter(|issued| issued.access_token == token) {
            return self.reject(Some(issued.generation), reply, context);
        }
        self.changing += 1;
        let read = self.ports().ledger.store().read(&self.key);
        context.spawn(read.into_actor(self).map(move |read, actor, context| {
            actor.changing -= 1;
            let stored = match read {
                Ok(read) => read.row.filter(|row| row.tombstone.is_none()),
                Err(error) => {
                    drop(reply.send(Err(unavailable(&error))));
                    return actor.feed(Event::Tick, context);
                }
            };
            let ports = actor.ports();
            let stored = stored.and_then(|row| seal::issued(&ports.keyring, &row, ports.clock.read()).ok());
            let meant = stored.filter(|issued| issued.access_token == token);
            actor.reject(meant.map(|issued| issued.generation), reply, context);
        }));
    }
}
