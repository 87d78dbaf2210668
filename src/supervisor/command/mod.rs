//! What can be asked: the same commands as messages to an actor and behind the async methods.
//!
//! Here: what a command is. In `verbs`: the commands.

mod verbs;

use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

use super::status::Status;
use crate::{
    error::Error,
    model::{AccessToken, Generation, Grant, Token, TokenKey},
    protocol::Expected,
};
pub use verbs::{
    Acquire, Connect, Disconnect, GetStatus, Hold, Purge, RefreshNow, RejectToken, Release, RequireReconnect, Restore,
};

/// A request about one key. Sent with [`TokenSupervisor::call`](super::TokenSupervisor::call), or as an actix
/// message through [`Registry`](super::Registry): both are the same thing.
///
/// Sealed: its methods are no part of the public API.
pub trait Command:
    Message<Result = Result<Self::Answer, Error>> + Parts<Reply = Self::Answer> + Clone + Send + 'static
{
    /// What a granted request is answered with.
    type Answer: Send + 'static;
}

/// How a command becomes a message to the key's actor. Not part of the public API.
#[doc(hidden)]
pub trait Parts {
    type Reply;
    fn key(&self) -> &TokenKey;
    fn timeout_after(&self) -> Duration;
    fn check(&self) -> Result<(), Error>;
    fn fast(&self, _shared: &super::handle::Shared) -> Option<Self::Reply> {
        None
    }
    /// Whether it makes sense only at an identity provider that is configured.
    fn needs_idp(&self) -> bool {
        true
    }
    fn ask(self, reply: Reply<Self::Reply>) -> Ask;
}

/// Where an answer goes. Dropping it unanswered tells the asker that nobody handles the request any more.
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
        grant: Box<Grant>,
        only: Expected,
        reply: Reply<Status>,
    },
    Disconnect {
        revoke: Revoke,
        purge: bool,
        reply: Reply<Status>,
    },
    RequireReconnect {
        reason: String,
        reply: Reply<Status>,
    },
    Hold {
        reason: String,
        reply: Reply<Status>,
    },
    Release {
        reply: Reply<Status>,
    },
    Restore {
        reply: Reply<Status>,
    },
    Purge {
        reply: Reply<Status>,
    },
    /// Something came due although nobody asked.
    Wake,
    /// A change is stored whose actor died before it heard of it: what is known of the row may be from before.
    Stale,
    /// A defect, for tests of what follows from one.
    #[cfg(feature = "testing")]
    Panic,
}

impl Ask {
    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Acquire { reply, .. } => drop(reply.send(Err(error))),
            Self::Watch { reply } => drop(reply.send(Err(error))),
            Self::RefreshNow { reply } => drop(reply.send(Err(error))),
            Self::Status { reply }
            | Self::Rejected { reply, .. }
            | Self::RejectedToken { reply, .. }
            | Self::Connect { reply, .. }
            | Self::Disconnect { reply, .. }
            | Self::RequireReconnect { reply, .. }
            | Self::Hold { reply, .. }
            | Self::Release { reply }
            | Self::Restore { reply }
            | Self::Purge { reply } => drop(reply.send(Err(error))),
            Self::Wake | Self::Stale => {}
            #[cfg(feature = "testing")]
            Self::Panic => {}
        }
    }
}

/// Whether a disconnected grant's tokens are revoked at the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revoke {
    /// They are: queued, and tried again until the identity provider answers (RFC 7009).
    Yes,
    /// They are left to expire.
    No,
}

/// What `refresh_now` did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshed {
    /// False if the token had just been refreshed.
    pub refreshed: bool,
    /// The grant afterwards.
    pub status: Status,
}

/// How long a caller waits unless it says otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// What people give as a reason.
pub(super) fn check_reason(reason: &str) -> Result<(), &'static str> {
    let plain = !reason.is_empty() && reason.len() <= 255 && !reason.chars().any(char::is_control);
    if plain { Ok(()) } else { Err("reason must be 1 to 255 bytes without control characters") }
}

/// Starts watching a key. Not public: [`TokenSupervisor::watch`](super::TokenSupervisor::watch) hands out the watch.
#[derive(Clone, Debug)]
pub(super) struct Watch(pub(super) TokenKey);

impl Message for Watch {
    type Result = Result<(), Error>;
}

impl Command for Watch {
    type Answer = ();
}

impl Parts for Watch {
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

    fn ask(self, reply: Reply<()>) -> Ask {
        Ask::Watch { reply }
    }
}
