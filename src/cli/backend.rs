//! Where commands do what they are asked: on the store itself, as one more process with the same lease and the same code
//! path.
//!
//! Commands know four things of it: a [`Verb`] on a grant, a token, grants in pages, and how the identity providers are. A
//! second kind (a server, asked by HTTP) needs these and nothing else.
//!
//! Invariant: a refresh that was sent is stored before the program ends, whatever the command has become: its answer came,
//! its deadline passed, Ctrl-C. Only a second Ctrl-C, or [`DRAIN`], ends that.

use std::time::Duration;

use token_supervisor::{
    Acquire, Command, Connect, Cursor, Disconnect, Error, Filter, Grant, Hold, IdpStatus, Purge, RefreshNow, Release,
    Restore, Revoke, TokenKey, TokenSupervisor, config::Config,
};

use super::{
    Failure,
    args::STATES,
    body::{GrantBody, TokenBody},
    show::note,
    signals::{Signals, interrupted},
    time::pause,
};

/// What can be asked for a grant beside its token. Each is answered with what can be said about it then.
pub(crate) enum Verb {
    Status,
    Connect(Box<Grant>),
    Refresh,
    Hold(String),
    Release,
    Disconnect { revoke: bool },
    Restore,
    Purge,
}

/// A supervisor for one command.
pub(crate) struct Backend(TokenSupervisor);

/// How long a refresh in flight is awaited: longer than the patience with any identity provider, unless it is configured.
const DRAIN: Duration = Duration::from_secs(150);

/// After so long people are told what is waited for.
const SILENT: Duration = Duration::from_secs(1);

/// How long the answer to a revocation is awaited.
const REVOKED_WITHIN: Duration = Duration::from_secs(20);

impl Backend {
    /// Does `work` with the store that is configured.
    pub(crate) async fn with<T>(
        config: &Config,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut signals = Signals::listen()?;
        config.check()?;
        let starting = config.builder()?.on_demand().start();
        let supervisor = tokio::select! {
            supervisor = starting => supervisor?,
            signal = signals.next() => return Err(interrupted(signal)),
        };
        let backend = Self(supervisor);
        let ended = tokio::select! {
            ended = work(&backend) => ended,
            signal = signals.next() => Err(interrupted(signal)),
        };
        backend.close(&mut signals).await;
        ended
    }

    /// Carries it out on the grant.
    pub(crate) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<GrantBody, Failure> {
        match verb {
            Verb::Status => self.status(key).await,
            Verb::Connect(grant) => self.call(key, Connect::new(key, *grant)).await,
            Verb::Hold(reason) => self.call(key, Hold::new(key, reason)).await,
            Verb::Release => self.call(key, Release::new(key)).await,
            Verb::Restore => self.call(key, Restore::new(key)).await,
            Verb::Purge => self.call(key, Purge::new(key)).await,
            Verb::Disconnect { revoke: false } => self.call(key, Disconnect::new(key, Revoke::No)).await,
            Verb::Disconnect { revoke: true } => {
                let mut body = self.call(key, Disconnect::new(key, Revoke::Yes)).await?;
                body.revoked = Some(tokio::select! {
                    left = self.0.revoke_queued() => left.is_ok_and(|left| left == 0),
                    () = pause(REVOKED_WITHIN) => false,
                });
                Ok(body)
            }
            Verb::Refresh => {
                let refreshed = self.0.call(RefreshNow::new(key)).await.map_err(|error| Failure::about(key, &error))?;
                let mut body = GrantBody::of(key, refreshed.status);
                body.refreshed = Some(refreshed.refreshed);
                Ok(body)
            }
        }
    }

    async fn call<C>(&self, key: &TokenKey, command: C) -> Result<GrantBody, Failure>
    where
        C: Command<Answer = token_supervisor::Status>,
    {
        let status = self.0.call(command).await.map_err(|error| Failure::about(key, &error))?;
        Ok(GrantBody::of(key, status))
    }

    /// Read from the store: an actor that was asked would refresh what is due.
    async fn status(&self, key: &TokenKey) -> Result<GrantBody, Failure> {
        let filter = Filter::new().idp(key.idp()).user(key.user()).account(key.account_name());
        let (mut found, _) = self.list(STATES.into_iter().fold(filter, Filter::state)).await?;
        let known = || self.idps().iter().any(|idp| idp.name == key.idp());
        found.pop().ok_or_else(|| Failure::about(key, &if known() { Error::NotConnected } else { Error::UnknownIdp }))
    }

    /// A page of grants, and where the next one starts.
    pub(crate) async fn list(&self, filter: Filter) -> Result<(Vec<GrantBody>, Option<Cursor>), Failure> {
        let page = self.0.list(filter).await?;
        let items = page.items.into_iter().map(|(key, status)| GrantBody::of(&key, status));
        Ok((items.collect(), page.next))
    }

    /// A token that lives at least so long.
    pub(crate) async fn token(&self, key: &TokenKey, min_ttl: Duration) -> Result<TokenBody, Failure> {
        let token = self.0.call(Acquire::new(key).min_ttl(min_ttl)).await;
        token.map(|token| TokenBody::of(&token)).map_err(|error: Error| Failure::about(key, &error))
    }

    pub(crate) fn idps(&self) -> Vec<IdpStatus> {
        self.0.idps()
    }

    /// How many answers wait in the journal for the store.
    pub(crate) fn journal_pending(&self) -> usize {
        self.0.journal_pending()
    }

    /// Waits for what is in flight.
    async fn close(self, signals: &mut Signals) {
        let closing = async {
            let ended = self.0.shutdown(DRAIN).await;
            if ended.abandoned > 0 {
                note(ABANDONED);
            }
        };
        let patience = async {
            pause(SILENT).await;
            note("a refresh is in flight: its answer is awaited and stored (Ctrl-C gives it up)");
            signals.next().await;
            note(ABANDONED);
        };
        tokio::select! {
            () = closing => {}
            () = patience => {}
        }
    }
}

const ABANDONED: &str = "a refresh was given up: the next process finds that it is in doubt, and settles it";
