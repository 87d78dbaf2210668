//! Events of grants and identity providers, for applications.
//!
//! There is one channel for all subscribers: emitting never waits, and a subscriber that is too slow loses the oldest events
//! and learns how many.

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

/// An event of a grant or an identity provider. Never holds a token.
///
/// Each event of a change is emitted by the process that stored it, and then by the other processes at the same store, marked
/// as [`elsewhere`](Self::elsewhere). A process that is killed in between emits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
#[non_exhaustive]
pub struct TokenEvent {
    /// When the event happened.
    pub at: SystemTime,
    /// The identity provider; empty where the event is about none.
    pub idp: String,
    /// The grant's key, if the event is about one grant.
    pub key: Option<TokenKey>,
    /// The grant's short public name, as in [`Status`](crate::Status); empty if the event is not about one grant.
    pub grant_id: String,
    /// The kind of event.
    pub kind: EventKind,
    /// Whether another process stored the change, and emitted the event as well: to act once for each event, pass over these.
    pub elsewhere: bool,
}

/// The kind of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A refresh brought a new token, which is stored. Connects emit no event.
    Renewed {
        /// The generation of the new token.
        generation: Generation,
    },
    /// The user must go through consent again.
    ReconnectRequired {
        /// What the identity provider said, our own finding (`in_doubt`), or the application's reason.
        evidence: Evidence,
        /// Whose verdict it is.
        by: VerdictBy,
    },
    /// A refresh token was sent, and whether it was spent is not known. Emitted once, however often the token is sent again
    /// to find out.
    InDoubt {
        /// What came instead of a response; `unanswered` if that is not known.
        evidence: Evidence,
    },
    /// Refreshes have failed for a quarter of an hour. Emitted once; they are still retried.
    Failing {
        /// The evidence of the last failure.
        evidence: Evidence,
        /// Since when.
        since: SystemTime,
    },
    /// All trouble of the grant is over: [`ReconnectRequired`](Self::ReconnectRequired),
    /// [`InDoubt`](Self::InDoubt), [`Failing`](Self::Failing).
    Recovered,
    /// The refresh token expires within a quarter of its lifetime and a week, unless a refresh or a connect brings another.
    /// Such tokens are searched for once an hour.
    ExpiringSoon {
        /// When the refresh token expires, or the access token of a grant without one.
        ends_at: SystemTime,
    },
    /// The identity provider fails, or refuses our client ([`Cause::ClientRefused`]: an operator must act). Refreshes are
    /// paused, and one request at a time probes whether the provider has recovered.
    IdpPaused {
        /// Why refreshes are paused.
        cause: Cause,
        /// What the provider said last.
        evidence: Evidence,
        /// When the first probe is sent.
        until: SystemTime,
    },
    /// The identity provider has recovered.
    IdpRecovered {
        /// Why its refreshes were paused.
        cause: Cause,
    },
    /// Responses of the identity provider differ from what they should be: a lifetime makes no sense, for example. Emitted
    /// once for each field while the process runs; the metric `preset_drift_total` counts all.
    ResponseDrift {
        /// The name of the field.
        field: &'static str,
    },
    /// This subscriber was too slow.
    Missed {
        /// The number of events that it missed.
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
            Self::ResponseDrift { .. } => "response_drift",
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
    /// Returns an event of one grant.
    pub(super) fn of(key: &TokenKey, grant_id: &str, at: impl Into<SystemTime>, kind: EventKind) -> Self {
        let (idp, grant_id) = (key.idp().to_owned(), grant_id.to_owned());
        Self { at: at.into(), idp, key: Some(key.clone()), grant_id, kind, elsewhere: false }
    }

    /// Returns the event as one that another process has emitted.
    pub(super) fn emitted_elsewhere(self) -> Self {
        Self { elsewhere: true, ..self }
    }

    /// Returns an event of an identity provider as a whole.
    pub(super) fn of_idp(idp: &str, at: WallTime, kind: EventKind) -> Self {
        Self { at: at.into(), idp: idp.to_owned(), key: None, grant_id: String::new(), kind, elsewhere: false }
    }

    fn missed(count: u64, at: WallTime) -> Self {
        Self {
            at: at.into(),
            idp: String::new(),
            key: None,
            grant_id: String::new(),
            kind: EventKind::Missed { count },
            elsewhere: false,
        }
    }
}

/// Events from the moment of the subscription; see [`TokenSupervisor::events`](crate::TokenSupervisor::events).
#[derive(Debug)]
pub struct Events(broadcast::Receiver<TokenEvent>);

/// The subscriber was too slow: the oldest events are lost. The events after them come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too slow: {missed} events were missed")]
#[non_exhaustive]
pub struct Lagged {
    /// The number of events that were missed.
    pub missed: u64,
}

impl Events {
    /// Returns the next event, or how many were missed; `None` once the supervisor was shut down and no event is left.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Lagged`], inside `Some`: the next call returns the oldest event that is left.
    pub async fn recv(&mut self) -> Option<Result<TokenEvent, Lagged>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(Lagged { missed })),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Sends events to a recipient until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Subscription(pub(super) AbortHandle);

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands over one event after the other. A recipient that is too slow gets the number of events that it missed instead of
/// the events. Ends with the recipient's actor.
pub(super) async fn hand_over(mut events: Events, recipient: Recipient<TokenEvent>, clock: Clock) {
    while let Some(event) = events.recv().await {
        let event = event.unwrap_or_else(|lagged| TokenEvent::missed(lagged.missed, clock.now()));
        // A clone each time: a sender that once met a full mailbox may wait for ever with its next message.
        if recipient.clone().send(event).await.is_err() {
            return;
        }
    }
}

/// This many events are kept for slow subscribers.
const KEPT: usize = 1_024;

/// The channel of events.
#[derive(Debug)]
pub(super) struct Channel {
    /// `None` once closed.
    sender: RwLock<Option<broadcast::Sender<TokenEvent>>>,
}

impl Default for Channel {
    fn default() -> Self {
        Self { sender: RwLock::new(Some(broadcast::Sender::new(KEPT))) }
    }
}

impl Channel {
    /// Emits an event. Never waits.
    pub(super) fn emit(&self, event: TokenEvent) {
        if let Some(sender) = &*self.sender.read().unwrap_or_else(PoisonError::into_inner) {
            // There may be no subscriber.
            sender.send(event).ok();
        }
    }

    /// Emits the events that a change brought, and takes them out of it.
    pub(super) fn emit_all(&self, key: &TokenKey, changed: &mut Changed) {
        let grant_id = changed.row.as_ref().map_or("", |row| &row.grant_id);
        for transition in std::mem::take(&mut changed.transitions) {
            self.emit(TokenEvent::of(key, grant_id, changed.now, transition.into()));
        }
    }

    /// Whether there is a subscriber.
    pub(super) fn has_subscribers(&self) -> bool {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(|sender| sender.receiver_count() > 0)
    }

    pub(super) fn listen(&self) -> Events {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        // A subscriber of a closed channel gets one whose sender is gone.
        Events(sender.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe))
    }

    /// Closes the channel: subscribers get the events that are left, then the end.
    pub(super) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, ActorContext as _, Context, Handler};

    use super::*;
    use crate::clock::ManualClock;

    /// Stops with the first event that it gets.
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
        let (channel, clock) = (Channel::default(), ManualClock::new(SystemTime::UNIX_EPOCH));
        let handing_over = hand_over(channel.listen(), Mayfly.start().recipient(), Clock::manual(&clock));
        for _ in 0..2 {
            channel.emit(TokenEvent::of_idp(
                "github",
                WallTime(1_000),
                EventKind::IdpRecovered { cause: Cause::IdpDown },
            ));
        }
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), handing_over).await;
        assert!(ended.is_ok(), "the task waits for more events of an open channel");
    }

    #[tokio::test]
    async fn subscribers_get_the_events_that_are_left_and_then_the_end() {
        let channel = Channel::default();
        let mut events = channel.listen();
        let recovered =
            TokenEvent::of_idp("github", WallTime(1_000), EventKind::IdpRecovered { cause: Cause::IdpDown });
        channel.emit(recovered.clone());
        channel.close();
        channel.emit(recovered.clone());
        assert_eq!(events.recv().await, Some(Ok(recovered)));
        assert_eq!(events.recv().await, None);
        assert_eq!(channel.listen().recv().await, None, "a subscriber that comes too late");
    }
}
