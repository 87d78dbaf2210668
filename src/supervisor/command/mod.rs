//! The commands: the same as messages to an actor and behind the async methods.
//!
//! This file says what a command is; `verbs` has the commands. To add one that changes the row, add an entry in `verbs` whose
//! `ask` is the [`Change`] to carry out.

mod verbs;

use std::{sync::Arc, time::Duration};

use actix::Message;
use tokio::sync::oneshot;

use super::{by::By, snapshot::Snapshot, status::Status};
use crate::{
    error::Error,
    model::{AccessToken, Generation, Grant, Row, Token, TokenKey},
    protocol::{Change, Expected},
};
pub use verbs::{
    Acquire, Connect, Disconnect, GetStatus, Hold, Purge, RefreshNow, RejectToken, Release, RequireReconnect, Restore,
    Retry,
};

/// A request about one key. Sent with [`TokenSupervisor::call`](super::TokenSupervisor::call), or as an actix
/// message through [`Registry`](super::Registry): both are the same thing.
///
/// Sealed: its methods are no part of the public API.
pub trait Command:
    Message<Result = Result<Self::Answer, Error>> + CommandParts<Reply = Self::Answer> + Clone + Send + 'static
{
    /// The result of a granted request.
    type Answer: Send + 'static;
}

/// How a command becomes a message to the key's actor. Not part of the public API.
#[doc(hidden)]
pub trait CommandParts {
    type Reply;
    fn key(&self) -> &TokenKey;
    fn timeout_after(&self) -> Duration;
    fn check(&self) -> Result<(), Error>;
    /// Returns the answer that needs no actor, if there is one.
    fn fast(&self, _snapshot: &Snapshot) -> Option<Self::Reply> {
        None
    }
    /// Whether a token that was just published may be the answer.
    fn wants_token(&self) -> bool {
        false
    }
    /// Whether the command makes sense only at an identity provider that is configured.
    fn needs_idp(&self) -> bool {
        true
    }
    fn ask(self, by: By, reply: Reply<Self::Reply>) -> Ask;
}

/// Where an answer goes. Dropping it unanswered tells the caller that no actor handles the request any more.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A command on its way to the key's actor.
#[doc(hidden)]
pub enum Ask {
    Acquire {
        min_ttl: Duration,
        timeout: Duration,
        reply: Reply<Token>,
    },
    Watch {
        reply: Reply<()>,
    },
    Status {
        reply: Reply<Status>,
    },
    Rejected {
        generation: Generation,
        reply: Reply<Status>,
    },
    RejectedToken {
        token: AccessToken,
        reply: Reply<Status>,
    },
    RefreshNow {
        reply: Reply<Refreshed>,
    },
    Connect {
        by: By,
        grant: Box<Grant>,
        only: Expected,
        reply: Reply<Status>,
    },
    Change(ChangeRequest),
    /// The key is to be looked at, although no caller asks.
    Wake,
    /// The sweeper found the key due.
    Due(DueRow),
    /// A change was stored that the key's actor has not heard of: the row that is known may be from before.
    Stale,
    /// The same, of no concern to a key without an actor.
    StaleIfAwake,
    /// The same for all actors that run. Answered once each of them has it in its mailbox.
    AllStale {
        reply: Reply<()>,
    },
    /// Another process was told that the token of this generation was rejected.
    RejectedElsewhere {
        generation: Generation,
    },
    /// A defect, for tests of what follows from one.
    #[cfg(feature = "testing")]
    Panic,
    /// The same of the registry.
    #[cfg(feature = "testing")]
    PanicRegistry,
}

impl Ask {
    /// Whether a caller asks, and not the supervisor itself.
    pub(super) fn is_of_a_caller(&self) -> bool {
        let own = matches!(
            self,
            Self::Wake
                | Self::Due(_)
                | Self::Stale
                | Self::StaleIfAwake
                | Self::AllStale { .. }
                | Self::RejectedElsewhere { .. }
        );
        !own
    }

    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Acquire { reply, .. } => drop(reply.send(Err(error))),
            Self::Watch { reply } | Self::AllStale { reply } => drop(reply.send(Err(error))),
            Self::RefreshNow { reply } => drop(reply.send(Err(error))),
            Self::Status { reply }
            | Self::Rejected { reply, .. }
            | Self::RejectedToken { reply, .. }
            | Self::Connect { reply, .. }
            | Self::Change(ChangeRequest { reply, .. }) => drop(reply.send(Err(error))),
            Self::Wake | Self::Due(_) | Self::Stale | Self::StaleIfAwake | Self::RejectedElsewhere { .. } => {}
            #[cfg(feature = "testing")]
            Self::Panic | Self::PanicRegistry => {}
        }
    }
}

/// A row that is due.
#[doc(hidden)]
pub struct DueRow {
    pub(super) row: Arc<Row>,
    /// Counts the row as on its way to its actor.
    pub(super) _on_its_way: Arc<()>,
}

/// A request for one change of the row: its author, and what to change.
#[doc(hidden)]
pub struct ChangeRequest {
    pub(super) by: By,
    pub(super) what: Change,
    pub(super) reply: Reply<Status>,
}

/// Whether a disconnected grant's tokens are revoked at the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revoke {
    /// The tokens are revoked: the revocation is queued, and retried until the provider responds (RFC 7009).
    Yes,
    /// The tokens are left to expire.
    No,
}

/// The result of [`RefreshNow`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshed {
    /// False if the token had just been refreshed.
    pub refreshed: bool,
    /// The grant afterwards.
    pub status: Status,
}

/// How long a caller waits unless the command sets another timeout.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// # Errors
/// What a reason that operators or applications give must look like.
pub(super) fn check_reason(reason: &str) -> Result<(), &'static str> {
    let plain = !reason.is_empty() && reason.len() <= 255 && !reason.chars().any(char::is_control);
    if plain { Ok(()) } else { Err("reason must be 1 to 255 bytes without control characters") }
}

/// Starts watching a key. Not public: [`TokenSupervisor::watch`](super::TokenSupervisor::watch) returns the watch.
#[derive(Clone, Debug)]
pub(super) struct Watch(pub(super) TokenKey);

impl Message for Watch {
    type Result = Result<(), Error>;
}

impl Command for Watch {
    type Answer = ();
}

impl CommandParts for Watch {
    type Reply = ();

    fn key(&self) -> &TokenKey {
        &self.0
    }

    fn timeout_after(&self) -> Duration {
        TIMEOUT
    }

    fn check(&self) -> Result<(), Error> {
        self.0.validate().map_err(Error::InvalidRequest)
    }

    fn ask(self, _: By, reply: Reply<()>) -> Ask {
        Ask::Watch { reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_keys_and_reasons_are_refused_before_anything_is_sent() {
        let key = TokenKey::at("idp").user("alice");
        assert_eq!(Hold::new(&key, "maintenance").check(), Ok(()));
        for reason in ["", "a\nb", &"x".repeat(256)] {
            assert!(matches!(Hold::new(&key, reason).check(), Err(Error::InvalidRequest(_))), "{reason:?}");
        }
        let nobody = TokenKey::at("idp").user("");
        assert!(matches!(GetStatus::new(&nobody).check(), Err(Error::InvalidRequest(_))));
        assert!(matches!(Watch(nobody).check(), Err(Error::InvalidRequest(_))));
    }

    #[test]
    fn a_refused_request_is_answered() {
        let key = TokenKey::at("idp").user("alice");
        let (reply, mut answer) = oneshot::channel();
        Release::new(&key).ask(By::Application, reply).refuse(Error::ShutDown);
        assert_eq!(answer.try_recv().unwrap(), Err(Error::ShutDown));
        let (reply, mut answer) = oneshot::channel();
        Acquire::new(&key).ask(By::Application, reply).refuse(Error::ShutDown);
        assert!(answer.try_recv().unwrap().is_err());
    }

    #[test]
    fn only_what_ends_a_grant_works_at_a_provider_that_is_not_configured() {
        let key = TokenKey::at("gone").user("alice");
        assert!(!Disconnect::new(&key, Revoke::No).needs_idp() && !Purge::new(&key).needs_idp());
        assert!(Acquire::new(&key).needs_idp() && Restore::new(&key).needs_idp() && Retry::new(&key).needs_idp());
    }
}
