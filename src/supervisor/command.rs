//! What can be asked: the same commands as messages to an actor and behind the async methods.

use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

use super::status::Status;
use crate::{
    error::Error,
    model::{Generation, Grant, Token, TokenKey},
    protocol::Expected,
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
            | Self::Connect { reply, .. }
            | Self::Disconnect { reply, .. }
            | Self::RequireReconnect { reply, .. }
            | Self::Hold { reply, .. }
            | Self::Release { reply }
            | Self::Restore { reply } => drop(reply.send(Err(error))),
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

macro_rules! command {
    ($(#[$doc:meta])* $name:ident -> $answer:ty { $($field:ident: $type:ty),* }
     check $check:expr; ask |$this:ident, $reply:ident| $ask:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            key: TokenKey,
            timeout: Duration,
            $($field: $type),*
        }

        impl $name {
            /// How long to wait for the answer (10 s). What was started goes on afterwards.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.timeout = timeout;
                self
            }
        }

        impl Message for $name {
            type Result = Result<$answer, Error>;
        }

        impl Command for $name {
            type Answer = $answer;
        }

        impl Parts for $name {
            type Reply = $answer;

            fn key(&self) -> &TokenKey {
                &self.key
            }

            fn timeout_after(&self) -> Duration {
                self.timeout
            }

            fn check(&self) -> Result<(), Error> {
                self.key.validate().map_err(Error::InvalidRequest)?;
                let check: fn(&Self) -> Result<(), &'static str> = $check;
                check(self).map_err(Error::InvalidRequest)
            }

            command!(@fast $name);

                    fn ask(self, $reply: Reply<$answer>) -> Ask {
                let $this = self;
                $ask
            }
        }
    };
    (@fast Acquire) => {
        fn fast(&self, shared: &super::handle::Shared) -> Option<Token> {
            shared.cached_for(&self.key, self.min_ttl)
        }
    };
    (@fast $name:ident) => {};
}

command! {
    /// A valid token.
    Acquire -> Token { min_ttl: Duration }
    check |_| Ok(());
    ask |this, reply| Ask::Acquire { min_ttl: this.min_ttl, timeout: this.timeout, reply }
}

command! {
    /// What can be said about a grant without its tokens.
    GetStatus -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Status { reply }
}

command! {
    /// A resource server refused the token of this generation. Starts one refresh for any number of
    /// reporters, and none if that token is already replaced. Answered at once: ask for the token to wait.
    RejectToken -> Status { generation: Generation }
    check |_| Ok(());
    ask |this, reply| Ask::Rejected { generation: this.generation, reply }
}

command! {
    /// Refresh now, although the token is not due. Joins a refresh under way, never goes around a doubt, and
    /// answers `refreshed: false` if there has just been one.
    RefreshNow -> Refreshed {}
    check |_| Ok(());
    ask |_this, reply| Ask::RefreshNow { reply }
}

command! {
    /// Store what the user's consent gave. A replay of a refresh token that the key holds or has spent
    /// changes nothing and says so, whatever it expects of the key.
    Connect -> Status { grant: Grant, only: Expected }
    check |this| this.grant.validate();
    ask |this, reply| Ask::Connect { grant: Box::new(this.grant), only: this.only, reply }
}

command! {
    /// End the grant. What is stored stays (as a tombstone) but is never used again.
    Disconnect -> Status { revoke: Revoke }
    check |_| Ok(());
    ask |this, reply| Ask::Disconnect { revoke: this.revoke, reply }
}

command! {
    /// Send the user through consent again; holds until the next connect.
    RequireReconnect -> Status { reason: String }
    check |this| check_reason(&this.reason);
    ask |this, reply| Ask::RequireReconnect { reason: this.reason, reply }
}

command! {
    /// Send nothing for the grant until it is released. A refresh that runs goes on and is stored; valid tokens
    /// are served. A second hold replaces the reason of the first.
    Hold -> Status { reason: String }
    check |this| check_reason(&this.reason);
    ask |this, reply| Ask::Hold { reason: this.reason, reply }
}

command! {
    /// End a hold: what is due starts at once. No error if there is none.
    Release -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Release { reply }
}

command! {
    /// Take a disconnect back. Refused ([`Error::NotConnected`]: connect instead) if a reconnect was required or a
    /// refresh was under way when it was disconnected, or if its tokens are or may be revoked, or another key has
    /// them by now. No error if the grant is connected.
    Restore -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Restore { reply }
}

/// What people give as a reason.
pub(super) fn check_reason(reason: &str) -> Result<(), &'static str> {
    let plain = !reason.is_empty() && reason.len() <= 255 && !reason.chars().any(char::is_control);
    if plain { Ok(()) } else { Err("reason must be 1 to 255 bytes without control characters") }
}

impl Acquire {
    /// A token of this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, min_ttl: Duration::ZERO }
    }

    /// How long the token must still live when it is handed out. More than three quarters of what the
    /// identity provider grants is refused.
    pub fn min_ttl(mut self, min_ttl: Duration) -> Self {
        self.min_ttl = min_ttl;
        self
    }
}

impl GetStatus {
    /// The status of this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl RejectToken {
    /// The token of this generation was refused.
    pub fn new(key: &TokenKey, generation: Generation) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, generation }
    }
}

impl RefreshNow {
    /// Refresh this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl Connect {
    /// Connect this key with this grant.
    pub fn new(key: &TokenKey, grant: Grant) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, grant, only: Expected::Anything }
    }

    /// Only if nothing is connected; otherwise [`Error::GenerationMismatch`].
    pub fn only_if_absent(mut self) -> Self {
        self.only = Expected::Nothing;
        self
    }

    /// Only in place of the grant of this generation; otherwise [`Error::GenerationMismatch`].
    pub fn only_if(mut self, generation: Generation) -> Self {
        self.only = Expected::At(generation);
        self
    }
}

impl Disconnect {
    /// Disconnect this key.
    pub fn new(key: &TokenKey, revoke: Revoke) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, revoke }
    }
}

impl RequireReconnect {
    /// Require a reconnect of this key; `reason` is shown to those who ask for its token.
    pub fn new(key: &TokenKey, reason: impl Into<String>) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, reason: reason.into() }
    }
}

impl Hold {
    /// Hold this key; `reason` is shown in its [`Status`].
    pub fn new(key: &TokenKey, reason: impl Into<String>) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, reason: reason.into() }
    }
}

impl Release {
    /// Release this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl Restore {
    /// Restore this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
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
