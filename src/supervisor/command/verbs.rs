//! The commands.

use std::time::Duration;

use actix::Message;

use super::{Ask, Command, Parts, Refreshed, Reply, Revoke, TIMEOUT, check_reason};
use crate::{
    error::Error,
    model::{AccessToken, Generation, Grant, Token, TokenKey},
    protocol::Expected,
    supervisor::{handle::Shared, status::Status},
};

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
            command!(@idp $name);

            fn ask(self, $reply: Reply<$answer>) -> Ask {
                let $this = self;
                $ask
            }
        }
    };
    (@fast Acquire) => {
        fn fast(&self, shared: &Shared) -> Option<Token> {
            shared.cached_for(&self.key, self.min_ttl)
        }
    };
    (@fast $name:ident) => {};
    (@idp Disconnect) => { command!(@anywhere); };
    (@idp Purge) => { command!(@anywhere); };
    (@idp $name:ident) => {};
    // Also of an identity provider that is not configured any more.
    (@anywhere) => {
        fn needs_idp(&self) -> bool {
            false
        }
    };
}

command! {
    /// A valid token.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// use std::time::Duration;
    /// use token_supervisor::Acquire;
    ///
    /// let asked = Acquire::new(&alice).min_ttl(Duration::from_secs(60)).timeout(Duration::from_secs(2));
    /// let token = supervisor.call(asked).await?; // or as a message: `Registry::recipient`
    /// # assert_eq!(token.generation().get(), 1);
    /// # Ok(()) });
    /// ```
    Acquire -> Token { min_ttl: Duration }
    check |_| Ok(());
    ask |this, reply| Ask::Acquire { min_ttl: this.min_ttl, timeout: this.timeout, reply }
}

command! {
    /// What can be said about a grant without its tokens.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// use token_supervisor::State;
    ///
    /// let status = supervisor.status(&alice).await?; // or `call(GetStatus::new(&alice))`
    /// assert_eq!((status.state, status.generation.get()), (State::Fresh, 1));
    /// # Ok(()) });
    /// ```
    GetStatus -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Status { reply }
}

command! {
    /// A resource server refused the token of this generation, or this very token. Starts one refresh for any number of
    /// reporters, and none if that token is already replaced. Answered at once: ask for the token to wait.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// let token = supervisor.token(&alice).await?;
    /// // ... the resource server answers 401, so:
    /// supervisor.report_rejected(&alice, token.generation()).await?; // or `call(RejectToken::new(..))`
    /// let next = supervisor.token(&alice).await?;
    /// assert!(next.generation() > token.generation());
    /// # Ok(()) });
    /// ```
    RejectToken -> Status { refused: Refused }
    check |_| Ok(());
    ask |this, reply| match this.refused {
        Refused::Generation(generation) => Ask::Rejected { generation, reply },
        Refused::Token(token) => Ask::RejectedToken { token, reply },
    }
}

command! {
    /// Refresh now, although the token is not due. Joins a refresh under way, never goes around a doubt, and
    /// answers `refreshed: false` if there has just been one.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// let done = supervisor.refresh_now(&alice).await?; // or `call(RefreshNow::new(&alice))`
    /// assert!(done.refreshed && done.status.generation.get() == 2);
    /// # Ok(()) });
    /// ```
    RefreshNow -> Refreshed {}
    check |_| Ok(());
    ask |_this, reply| Ask::RefreshNow { reply }
}

command! {
    /// Store what the user's consent gave. A replay of a refresh token that the key holds or has spent
    /// changes nothing and says so, whatever it expects of the key.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, _, simulated| {
    /// use token_supervisor::{Connect, Error, Grant, TokenKey};
    ///
    /// let bob = TokenKey::at("gitlab").user("bob");
    /// # let answer = simulated.consent_answer("bob");
    /// let grant = Grant::from_token_response(&answer)?; // of the token endpoint, as it came
    /// supervisor.connect(&bob, grant.clone()).await?; // or `call(Connect::new(&bob, grant))`
    /// # let grant = simulated.consent("bob");
    /// let refused = supervisor.call(Connect::new(&bob, grant).only_if_absent()).await;
    /// assert!(matches!(refused, Err(Error::GenerationMismatch { .. })));
    /// # Ok(()) });
    /// ```
    Connect -> Status { grant: Grant, only: Expected }
    check |this| this.grant.validate();
    ask |this, reply| Ask::Connect { grant: Box::new(this.grant), only: this.only, reply }
}

command! {
    /// End the grant. What is stored stays (as a tombstone) but is never used again. Also of an identity provider that
    /// is not configured any more, where nothing can be revoked.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// use token_supervisor::{Revoke, State};
    ///
    /// let status = supervisor.disconnect(&alice, Revoke::Yes).await?; // or `call(Disconnect::new(..))`
    /// assert_eq!(status.state, State::Revoked);
    /// # Ok(()) });
    /// ```
    Disconnect -> Status { revoke: Revoke, purge: bool }
    check |_| Ok(());
    ask |this, reply| Ask::Disconnect { revoke: this.revoke, purge: this.purge, reply }
}

command! {
    /// Send the user through consent again; holds until the next connect.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// let status = supervisor.require_reconnect(&alice, "more_scope").await?; // or `call(RequireReconnect::new(..))`
    /// assert_eq!(status.reason.as_deref(), Some("more_scope"));
    /// supervisor.token(&alice).await?; // with a warning, while it lives
    /// # Ok(()) });
    /// ```
    RequireReconnect -> Status { reason: String }
    check |this| check_reason(&this.reason);
    ask |this, reply| Ask::RequireReconnect { reason: this.reason, reply }
}

command! {
    /// Send nothing for the grant until it is released. A refresh that runs goes on and is stored; valid tokens
    /// are served. A second hold replaces the reason of the first.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// supervisor.hold(&alice, "moves to another account").await?; // or `call(Hold::new(..))`
    /// supervisor.token(&alice).await?; // while it lives
    /// supervisor.release(&alice).await?;
    /// # Ok(()) });
    /// ```
    Hold -> Status { reason: String }
    check |this| check_reason(&this.reason);
    ask |this, reply| Ask::Hold { reason: this.reason, reply }
}

command! {
    /// End a hold: what is due starts at once. No error if there is none.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// # supervisor.hold(&alice, "a test").await?;
    /// let status = supervisor.release(&alice).await?; // or `call(Release::new(&alice))`
    /// assert_eq!(status.held, None);
    /// # Ok(()) });
    /// ```
    Release -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Release { reply }
}

command! {
    /// Take a disconnect back. Refused ([`Error::NotConnected`]: connect instead) if a reconnect was required or a
    /// refresh was under way when it was disconnected, or if its tokens are or may be revoked, or another key has
    /// them by now. No error if the grant is connected.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// use token_supervisor::{Revoke, State};
    ///
    /// supervisor.disconnect(&alice, Revoke::No).await?;
    /// let status = supervisor.restore(&alice).await?; // or `call(Restore::new(&alice))`
    /// assert_ne!(status.state, State::Revoked);
    /// # Ok(()) });
    /// ```
    Restore -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Restore { reply }
}

command! {
    /// Delete what is stored of a disconnected grant; its fingerprints stay, so that a replayed connect brings nothing
    /// back. Refused if it is connected ([`Error::InvalidRequest`]: disconnect it first), and while a refresh is in doubt
    /// or a revocation is queued ([`Error::Unavailable`]: later). No error if nothing is stored.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// use token_supervisor::{Revoke, State};
    ///
    /// supervisor.disconnect(&alice, Revoke::No).await?;
    /// let status = supervisor.purge(&alice).await?; // or `call(Purge::new(&alice))`
    /// assert_eq!(status.state, State::Absent);
    /// # Ok(()) });
    /// ```
    Purge -> Status {}
    check |_| Ok(());
    ask |_this, reply| Ask::Purge { reply }
}

/// What a resource server refused.
#[derive(Clone, Debug)]
enum Refused {
    Generation(Generation),
    Token(AccessToken),
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
        Self { key: key.clone(), timeout: TIMEOUT, refused: Refused::Generation(generation) }
    }

    /// This token was refused. Does nothing, and is answered the same, unless it is the key's current one.
    pub fn token(key: &TokenKey, token: &AccessToken) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, refused: Refused::Token(token.clone()) }
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
        Self { key: key.clone(), timeout: TIMEOUT, revoke, purge: false }
    }

    /// Has the tombstone purged as soon as nothing of the grant is to come (see [`Purge`]): once its tokens are revoked, or
    /// within an hour. [`Purge`] afterwards does it at once where it can.
    pub fn purge(mut self) -> Self {
        self.purge = true;
        self
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

impl Purge {
    /// Purge this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}
