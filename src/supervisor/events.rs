//! What happened, told to whoever wants to know.
//!
//! One channel for all: whoever tells never waits, and whoever listens too slowly loses the oldest events and is told
//! how many.

use std::{
    sync::{PoisonError, RwLock},
    time::SystemTime,
};

use actix::{Message, Recipient};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::AbortHandle,
};

use crate::{
    clock::Clock,
    error::Cause,
    model::{Evidence, Generation, TokenKey, VerdictBy, WallTime},
    protocol::Transition,
    store::Changed,
};

/// Something that happened to a grant or an identity provider. Never holds a token.
///
/// Each is told once, by the process that stored what happened: one that is killed in between tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
#[non_exhaustive]
pub struct TokenEvent {
    /// When it happened.
    pub at: SystemTime,
    /// The identity provider; empty where it is about none.
    pub idp: String,
    /// The grant's key, if it is about one grant.
    pub key: Option<TokenKey>,
    /// The grant's short public name, as in [`Status`](crate::Status); empty if it is not about one grant.
    pub grant_id: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A refresh brought a new token, and it is stored. Connects are not told.
    Renewed {
        /// Of the new token.
        generation: Generation,
    },
    /// Only the user can help, through consent.
    ReconnectRequired {
        /// What the identity provider said, or our own finding (`in_doubt`), or the application's reason.
        evidence: Evidence,
        /// Who said it.
        by: VerdictBy,
    },
    /// A refresh token was sent, and whether it was spent is not known: told once, however often it is sent again
    /// to find out.
    InDoubt {
        /// What came instead of an answer; `unanswered` if nobody knows.
        evidence: Evidence,
    },
    /// Refreshes have failed for a quarter of an hour: told once, and they are tried on.
    Failing {
        /// What was said last.
        evidence: Evidence,
        /// Since when.
        since: SystemTime,
    },
    /// What was told of the grant is over: [`ReconnectRequired`](Self::ReconnectRequired),
    /// [`InDoubt`](Self::InDoubt), [`Failing`](Self::Failing), all of it.
    Recovered,
    /// The refresh token ends within a quarter of its life and a week, unless a refresh or a connect brings another.
    /// Looked for once an hour.
    ExpiringSoon {
        /// When it ends.
        ends_at: SystemTime,
    },
    /// The identity provider is in trouble, or refuses our client ([`Cause::ClientRefused`]: an operator must act).
    /// Requests are held back, and one after the other looks whether it is over.
    IdpPaused {
        /// Why.
        cause: Cause,
        /// What it said last.
        evidence: Evidence,
        /// When the first of them looks.
        until: SystemTime,
    },
    /// What was told of the identity provider is over.
    IdpRecovered {
        /// What it was.
        cause: Cause,
    },
    /// This subscriber was too slow.
    Missed {
        /// How many events it was not told.
        count: u64,
    },
}

impl EventKind {
    /// The name on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Renewed { .. } => "renewed",
            Self::ReconnectRequired { .. } => "reconnect_required",
            Self::InDoubt { .. } => "in_doubt",
            Self::Failing { .. } => "failing",
            Self::Recovered => "recovered",
            Self::ExpiringSoon { .. } => "expiring_soon",
            Self::IdpPaused { .. } => "idp_paused",
            Self::IdpRecovered { .. } => "idp_recovered",
            Self::Missed { .. } => "missed",
        }
    }
}

impl From<Transition> for EventKind {
    fn from(transition: Transition) -> Self {
        match transition {
            Transition::Renewed { generation } => Self::Renewed { generation },
            Transition::ReconnectRequired { evidence, by } => Self::ReconnectRequired { evidence, by },
            Transition::InDoubt { evidence } => Self::InDoubt { evidence },
            Transition::Failing { evidence, since } => Self::Failing { evidence, since: since.into() },
            Transition::Recovered => Self::Recovered,
        }
    }
}

impl TokenEvent {
    /// About one grant.
    pub(super) fn of(key: &TokenKey, grant_id: &str, at: impl Into<SystemTime>, kind: EventKind) -> Self {
        let (idp, grant_id) = (key.idp().to_owned(), grant_id.to_owned());
        Self { at: at.into(), idp, key: Some(key.clone()), grant_id, kind }
    }

    /// About an identity provider as a whole.
    pub(super) fn of_idp(idp: &str, at: WallTime, kind: EventKind) -> Self {
        Self { at: at.into(), idp: idp.to_owned(), key: None, grant_id: String::new(), kind }
    }

    fn missed(count: u64, at: WallTime) -> Self {
        Self {
            at: at.into(),
            idp: String::new(),
            key: None,
            grant_id: String::new(),
            kind: EventKind::Missed { count },
        }
    }
}

/// Events from the moment at which it was asked for; see [`TokenSupervisor::events`](crate::TokenSupervisor::events).
#[derive(Debug)]
pub struct Events(broadcast::Receiver<TokenEvent>);

/// Too slow: the oldest events are gone. Those after them are told next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too slow: {missed} events were missed")]
#[non_exhaustive]
pub struct Lagged {
    /// How many.
    pub missed: u64,
}

impl Events {
    /// The next event, or how many were missed; `None` once the supervisor was shut down and all was told.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Lagged`], inside `Some`: the next call goes on with the oldest event that is left.
    pub async fn recv(&mut self) -> Option<Result<TokenEvent, Lagged>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(Lagged { missed })),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Keeps events coming to a recipient. Dropping it ends that: nothing more is handed over.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Subscription(pub(super) AbortHandle);

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands over one event after the other. Whoever takes long over one lags, and is told so instead of those it missed.
/// Ends with the recipient's actor.
pub(super) async fn hand_over(mut events: Events, recipient: Recipient<TokenEvent>, clock: Clock) {
    while let Some(event) = events.recv().await {
        let event = event.unwrap_or_else(|lagged| TokenEvent::missed(lagged.missed, clock.now()));
        // A clone each time: a sender that once met a full mailbox may wait for ever with its next message.
        if recipient.clone().send(event).await.is_err() {
            return;
        }
    }
}

/// This many events are kept for those who listen.
const KEPT: usize = 1_024;

/// Where events are told.
pub(super) struct Channel {
    /// `None` once closed.
    sender: RwLock<Option<broadcast::Sender<TokenEvent>>>,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self { sender: RwLock::new(Some(broadcast::Sender::new(KEPT))) }
    }

    /// Tells an event. Never waits for anybody.
    pub(super) fn emit(&self, event: TokenEvent) {
        if let Some(sender) = &*self.sender.read().unwrap_or_else(PoisonError::into_inner) {
            // Nobody may be listening.
            sender.send(event).ok();
        }
    }

    /// Tells what a change made happen; it is told once.
    pub(super) fn tell(&self, key: &TokenKey, changed: &mut Changed) {
        let grant_id = changed.row.as_ref().map_or("", |row| &row.grant_id);
        for transition in std::mem::take(&mut changed.transitions) {
            self.emit(TokenEvent::of(key, grant_id, changed.now, transition.into()));
        }
    }

    /// Whether anybody would hear it.
    pub(super) fn is_heard(&self) -> bool {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(|sender| sender.receiver_count() > 0)
    }

    pub(super) fn listen(&self) -> Events {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        // Of a closed channel: one whose sender is gone already.
        Events(sender.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe))
    }

    /// Nothing more will happen: listeners hear the rest, then the end.
    pub(super) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, ActorContext as _, Context, Handler};

    use super::*;
    use crate::clock::ManualClock;

    /// Ends with the first event it hears.
    struct Mayfly;

    impl Actor for Mayfly {
        type Context = Context<Self>;
    }

    impl Handler<TokenEvent> for Mayfly {
        type Result = ();

        fn handle(&mut self, _: TokenEvent, context: &mut Self::Context) {
            context.stop();
        }
    }

    #[actix::test]
    async fn an_actor_that_is_gone_ends_its_subscription() {
        let (channel, clock) = (Channel::new(), ManualClock::new(SystemTime::UNIX_EPOCH));
        let handing_over = hand_over(channel.listen(), Mayfly.start().recipient(), Clock::manual(&clock));
        for _ in 0..2 {
            channel.emit(TokenEvent::of_idp(
                "github",
                WallTime(1_000),
                EventKind::IdpRecovered { cause: Cause::IdpDown },
            ));
        }
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), handing_over).await;
        assert!(ended.is_ok(), "it waits for more, and the channel is open");
    }

    #[tokio::test]
    async fn listeners_hear_the_rest_and_then_the_end() {
        let channel = Channel::new();
        let mut events = channel.listen();
        let recovered =
            TokenEvent::of_idp("github", WallTime(1_000), EventKind::IdpRecovered { cause: Cause::IdpDown });
        channel.emit(recovered.clone());
        channel.close();
        channel.emit(recovered.clone());
        assert_eq!(events.recv().await, Some(Ok(recovered)));
        assert_eq!(events.recv().await, None);
        assert_eq!(channel.listen().recv().await, None, "of whoever comes too late");
    }
}
