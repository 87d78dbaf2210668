//! The commands, one entry each.

use std::time::Duration;

use actix::Message;

use super::{Ask, ChangeRequest, Command, CommandParts, Refreshed, Reply, Revoke, TIMEOUT, check_reason};
use crate::{
    error::Error,
    model::{AccessToken, Generation, Grant, Token, TokenKey},
    protocol::{Change, DisconnectChange, Expected},
    supervisor::{by::By, snapshot::Snapshot, status::Status},
};

macro_rules! command {
    ($(#[$doc:meta])* $name:ident -> $answer:ty { $($field:ident: $type:ty),* }
     $(check $check:expr;)? $(ask |$this:ident, $by:ident, $reply:ident| { $($ask:tt)* })? $(change |$it:ident| { $($change:tt)* })?) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            key: TokenKey,
            timeout: Duration,
            $($field: $type),*
        }

        impl $name {
            /// Sets how long to wait for the answer (10 s). Work that was started goes on afterwards.
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

        impl CommandParts for $name {
            type Reply = $answer;

            fn key(&self) -> &TokenKey {
                &self.key
            }

            fn timeout_after(&self) -> Duration {
                self.timeout
            }

            fn check(&self) -> Result<(), Error> {
                self.key.validate().map_err(Error::InvalidRequest)?;
                $(let check: fn(&Self) -> Result<(), &'static str> = $check;
                check(self).map_err(Error::InvalidRequest)?;)?
                Ok(())
            }

            command!(@fast $name);
            command!(@idp $name);

            $(fn ask(self, $by: By, $reply: Reply<$answer>) -> Ask {
                let $this = self;
                $($ask)*
            })?

            $(fn ask(self, by: By, reply: Reply<$answer>) -> Ask {
                let $it = self;
                Ask::Change(ChangeRequest { by, what: $($change)*, reply })
            })?
        }
    };
    (@fast Acquire) => {
        fn fast(&self, snapshot: &Snapshot) -> Option<Token> {
            snapshot.get(&self.key, self.min_ttl)
        }

        fn wants_token(&self) -> bool {
            true
        }
    };
    (@fast $name:ident) => {};
    (@idp Disconnect) => { command!(@anywhere); };
    (@idp Purge) => { command!(@anywhere); };
    (@idp $name:ident) => {};
    // These also work at an identity provider that is not configured any more.
    (@anywhere) => {
        fn needs_idp(&self) -> bool {
            false
        }
    };
}

command! {
    /// Returns a valid token.
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
    ask |this, _by, reply| { Ask::Acquire { min_ttl: this.min_ttl, timeout: this.timeout, reply } }
}

command! {
    /// Returns the status of a grant, without its tokens.
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
    ask |_this, _by, reply| { Ask::Status { reply } }
}

command! {
    /// Reports that a resource server refused the token of this generation, or this very token. Starts one refresh for any
    /// number of reports, and none if that token is already replaced. Returns at once: ask for the token to wait.
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
    RejectToken -> Status { refused: RefusedToken }
    ask |this, _by, reply| { match this.refused {
        RefusedToken::Generation(generation) => Ask::Rejected { generation, reply },
        RefusedToken::Token(token) => Ask::RejectedToken { token, reply },
    } }
}

command! {
    /// Refreshes now, although the token is not due. Joins a refresh under way, never goes around a doubt, and
    /// returns `refreshed: false` if the token has just been refreshed.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, _| {
    /// let done = supervisor.refresh_now(&alice).await?; // or `call(RefreshNow::new(&alice))`
    /// assert!(done.refreshed && done.status.generation.get() == 2);
    /// # Ok(()) });
    /// ```
    RefreshNow -> Refreshed {}
    ask |_this, _by, reply| { Ask::RefreshNow { reply } }
}

command! {
    /// Stores the grant that the user's consent gave. A replay of a refresh token that the key holds or has spent
    /// changes nothing and says so ([`Status::unchanged`]), whatever it expects of the key.
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
    ask |this, by, reply| { Ask::Connect { by, grant: Box::new(this.grant), only: this.only, reply } }
}

command! {
    /// Ends the grant. The row stays (as a tombstone) but is never used again. Works also at an identity provider that is
    /// not configured any more, where nothing can be revoked.
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
    change |this| { Change::Disconnect(DisconnectChange { revoke: this.revoke == Revoke::Yes, unrevocable: false, purge: this.purge, access_token: None }) }
}

command! {
    /// Requires that the user goes through consent again; only the next connect ends that.
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
    change |this| { Change::RequireReconnect { reason: this.reason } }
}

command! {
    /// Puts the grant on hold: nothing is sent for it until it is released. A refresh that runs goes on and is stored;
    /// valid tokens are served. A second hold replaces the reason of the first.
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
    change |this| { Change::Hold { reason: this.reason } }
}

command! {
    /// Releases a grant that is on hold; a refresh that is due starts at once. Not an error if the grant is not on hold.
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
    change |_this| { Change::Release }
}

command! {
    /// Takes a disconnect back. RefusedToken ([`Error::NotConnected`]: connect instead) if a reconnect was required or a
    /// refresh was under way when the grant was disconnected, if its tokens are or may be revoked, or if another key
    /// holds them by now. Not an error if the grant is connected.
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
    change |_this| { Change::Restore }
}

command! {
    /// Sends a refused refresh token once more: providers have refused every token while they restarted. The refresh starts
    /// at once, and if the provider refuses the token again, the user must reconnect as before. Lifts only the provider's
    /// own refusal: a grant whose reconnect has another reason, or that was not refused, stays as it is, which is no error.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, simulated| {
    /// use token_supervisor::State;
    ///
    /// # simulated.next(token_supervisor::testing::Fault::error(400, "invalid_grant"));
    /// # supervisor.refresh_now(&alice).await.unwrap_err();
    /// assert_eq!(supervisor.status(&alice).await?.state, State::ReconnectRequired);
    /// let status = supervisor.retry(&alice).await?; // or `call(Retry::new(&alice))`
    /// assert_eq!(status.state, State::Due);
    /// # Ok(()) });
    /// ```
    Retry -> Status {}
    change |_this| { Change::Retry }
}

command! {
    /// Deletes the row of a disconnected grant; its fingerprints stay, so that a replayed connect brings nothing back.
    /// RefusedToken if the grant is connected ([`Error::InvalidRequest`]: disconnect it first), and while a refresh is in doubt
    /// or a revocation is queued ([`Error::Unavailable`]: retry later). Not an error if nothing is stored.
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
    change |_this| { Change::Purge }
}

/// The token that a resource server refused.
#[derive(Clone, Debug)]
enum RefusedToken {
    Generation(Generation),
    Token(AccessToken),
}

impl Acquire {
    /// Asks for a token of this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, min_ttl: Duration::ZERO }
    }

    /// Sets how long the token must still be valid when it is handed out. More than three quarters of the lifetime that
    /// the identity provider grants is refused.
    pub fn min_ttl(mut self, min_ttl: Duration) -> Self {
        self.min_ttl = min_ttl;
        self
    }
}

impl GetStatus {
    /// Asks for the status of this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl RejectToken {
    /// Reports the token of this generation.
    pub fn new(key: &TokenKey, generation: Generation) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, refused: RefusedToken::Generation(generation) }
    }

    /// Reports this token. Does nothing, with the same answer, unless it is the key's current one.
    pub fn token(key: &TokenKey, token: &AccessToken) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, refused: RefusedToken::Token(token.clone()) }
    }
}

impl RefreshNow {
    /// Refreshes this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl Connect {
    /// Connects this key with this grant.
    pub fn new(key: &TokenKey, grant: Grant) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, grant, only: Expected::Anything }
    }

    /// Connects only if nothing is connected; otherwise [`Error::GenerationMismatch`].
    pub fn only_if_absent(mut self) -> Self {
        self.only = Expected::Nothing;
        self
    }

    /// Replaces only the grant of this generation; otherwise [`Error::GenerationMismatch`].
    pub fn only_if(mut self, generation: Generation) -> Self {
        self.only = Expected::At(generation);
        self
    }
}

impl Disconnect {
    /// Disconnects this key.
    pub fn new(key: &TokenKey, revoke: Revoke) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, revoke, purge: false }
    }

    /// Purges the tombstone as soon as nothing of the grant is outstanding (see [`Purge`]): once its tokens are revoked, or
    /// within an hour. A [`Purge`] afterwards does it at once where it can.
    pub fn purge(mut self) -> Self {
        self.purge = true;
        self
    }
}

impl RequireReconnect {
    /// Requires a reconnect of this key; callers who ask for its token see `reason`.
    pub fn new(key: &TokenKey, reason: impl Into<String>) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, reason: reason.into() }
    }
}

impl Hold {
    /// Puts this key on hold; its [`Status`] shows `reason`.
    pub fn new(key: &TokenKey, reason: impl Into<String>) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT, reason: reason.into() }
    }
}

impl Release {
    /// Releases this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl Restore {
    /// Restores this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl Retry {
    /// Retries this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}

impl Purge {
    /// Purges this key.
    pub fn new(key: &TokenKey) -> Self {
        Self { key: key.clone(), timeout: TIMEOUT }
    }
}
