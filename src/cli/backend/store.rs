//! The store itself, opened by a supervisor for one command.
//!
//! Invariant: the response to a refresh that was sent is stored before the program ends, even after a deadline or Ctrl-C.
//! Only a second Ctrl-C, or [`DRAIN`], gives it up.

use std::time::Duration;

use futures_util::future::join_all;
use token_supervisor::{
    Acquire, By, Code, Command, Connect, Cursor, Disconnect, Error, Expiry, Hold, Purge, Reached, RefreshNow, Release,
    Restore, Retry, Revocation, Revoke, State, Status, TokenKey, TokenSupervisor,
    api::{GrantContext, GrantQuery, IdpBody, ProblemBody, RefreshedBody, RetriedBody, StatusBody, TokenBody},
    config::{Bind, Config},
};

use super::{PlaceHealth, Verb, unread};
use crate::cli::{
    CliFailure,
    body::VerbResult,
    exit::StartFailure,
    show::note,
    signals::{Signals, interrupted},
    time::{now, pause},
};

/// A supervisor for one command.
pub(crate) struct StoreBackend {
    supervisor: TokenSupervisor,
    deployment: Option<String>,
}

/// Limit for a refresh in flight: longer than the timeout of any identity provider, unless that is configured.
pub(crate) const DRAIN: Duration = Duration::from_secs(150);

const MINUTE: Duration = Duration::from_secs(60);

/// If a command waits longer than this, it prints what it waits for.
const SILENT: Duration = Duration::from_secs(1);

/// Limit for the response to a revocation.
const REVOKED_WITHIN: Duration = Duration::from_secs(20);

impl StoreBackend {
    pub(super) async fn open(config: &Config, signals: &mut Signals) -> Result<Self, CliFailure> {
        let starting = config.builder()?.on_demand().start();
        let supervisor = tokio::select! {
            supervisor = starting => supervisor.map_err(|error| unopened(error, config))?,
            signal = signals.next() => return Err(interrupted(signal)),
        };
        // The audit names the user whom the operating system knows, whatever the environment says.
        let user = uzers::get_current_username()
            .map_or_else(|| uzers::get_current_uid().to_string(), |name| name.to_string_lossy().into_owned());
        let supervisor = supervisor.acting_as(By::SystemUser(user.into()));
        Ok(Self { supervisor, deployment: config.deployment().map(str::to_owned) })
    }

    pub(super) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<VerbResult, CliFailure> {
        match verb {
            Verb::Status => {
                let status = self.status(key).await?;
                Ok(status.with_revocation(self.revocation(key).await).into())
            }
            Verb::Connect(body) => {
                let grant = self.supervisor.grant_from_response(key.idp(), &body);
                let grant = match grant {
                    Err(error @ Error::InvalidRequest(_)) => return Err(unread(&error)),
                    grant => self.with_context(key, grant).await?,
                };
                self.call(key, Connect::new(key, grant)).await
            }
            Verb::Hold(reason) => self.call(key, Hold::new(key, reason)).await,
            Verb::Release => self.call(key, Release::new(key)).await,
            Verb::Restore => self.restore(key).await,
            Verb::Retry => self.call(key, Retry::new(key)).await,
            Verb::Purge => self.call(key, Purge::new(key)).await,
            Verb::Disconnect { revoke: false } => self.call(key, Disconnect::new(key, Revoke::No)).await,
            Verb::Disconnect { revoke: true } => {
                let body = self.call(key, Disconnect::new(key, Revoke::Yes)).await?;
                self.revoke().await;
                Ok(body.status.with_revocation(self.revocation(key).await).into())
            }
            Verb::Refresh => {
                let refreshed = self.supervisor.call(RefreshNow::new(key)).await;
                let refreshed = self.with_context(key, refreshed).await?;
                Ok(RefreshedBody::of(key, &refreshed).into())
            }
        }
    }

    /// Sends the queued revocations, as far as that takes no longer than [`REVOKED_WITHIN`].
    async fn revoke(&self) {
        tokio::select! {
            _ = self.supervisor.revoke_queued() => {}
            () = pause(REVOKED_WITHIN) => {}
        }
    }

    async fn revocation(&self, key: &TokenKey) -> Option<Revocation> {
        self.supervisor.revocation(key).await.ok().flatten()
    }

    /// Undoes a disconnect, and tells what has become of its revocation.
    async fn restore(&self, key: &TokenKey) -> Result<VerbResult, CliFailure> {
        let before = self.revocation(key).await;
        match self.supervisor.call(Restore::new(key)).await {
            Ok(status) => {
                let body = StatusBody::of(key, &status);
                Ok(body.with_revocation(before.map(Revocation::after_restore)).into())
            }
            Err(Error::NotConnected) => {
                Err(CliFailure::of(Some(key), ProblemBody::new(Code::NotConnected, Revocation::refusal(before))))
            }
            refused => self.with_context(key, refused).await.map(|status| StatusBody::of(key, &status).into()),
        }
    }

    async fn call<C>(&self, key: &TokenKey, command: C) -> Result<VerbResult, CliFailure>
    where
        C: Command<Answer = Status>,
    {
        let status = self.with_context(key, self.supervisor.call(command).await).await?;
        Ok(StatusBody::of(key, &status).into())
    }

    /// Adds to an error what is stored of the grant, as a server does.
    async fn with_context<T>(&self, key: &TokenKey, called: Result<T, Error>) -> Result<T, CliFailure> {
        let mut problem = match called {
            Ok(value) => return Ok(value),
            Err(error) => ProblemBody::from(&error),
        };
        if problem.grant_context() == GrantContext::Stored
            && let Ok(Some(grant)) = self.find(key).await
        {
            let valid_until = grant.expires_at.filter(|end| *end > now());
            problem = problem.about_grant(Some(grant.grant_id), Some(grant.generation), valid_until);
        }
        Err(CliFailure::of(Some(key), problem))
    }

    async fn status(&self, key: &TokenKey) -> Result<StatusBody, CliFailure> {
        let known = || self.supervisor.idps().iter().any(|idp| idp.name == key.idp());
        let missing = || if known() { Error::NotConnected } else { Error::UnknownIdp };
        self.find(key).await?.ok_or_else(|| CliFailure::of(Some(key), ProblemBody::from(&missing())))
    }

    /// Reads the grant from the store: asking its actor would refresh a token that is due.
    async fn find(&self, key: &TokenKey) -> Result<Option<StatusBody>, CliFailure> {
        let query = GrantQuery {
            idp: Some(key.idp().to_owned()),
            user: Some(key.user().to_owned()),
            account: Some(key.account_name().to_owned()),
            states: State::ALL.to_vec(),
            ..GrantQuery::default()
        };
        let (mut found, _) = self.list(&query).await?;
        Ok(found.pop())
    }

    pub(super) async fn list(&self, query: &GrantQuery) -> Result<(Vec<StatusBody>, Option<Cursor>), CliFailure> {
        let page = self.supervisor.list(query.filter()).await?;
        let items = page.items.iter().map(|(key, status)| StatusBody::of(key, status));
        Ok((items.collect(), page.next))
    }

    pub(super) async fn token(
        &self,
        key: &TokenKey,
        min_ttl: Duration,
        timeout: Option<Duration>,
    ) -> Result<TokenBody, CliFailure> {
        let asked = Acquire::new(key).min_ttl(min_ttl);
        let asked = timeout.map_or(asked.clone(), |timeout| asked.timeout(timeout));
        let token = self.with_context(key, self.supervisor.call(asked).await).await?;
        Ok(TokenBody::of(&token, now()))
    }

    pub(super) async fn changed(&self, key: &TokenKey, generation: u64) -> Result<(), CliFailure> {
        // While the grant is watched, its actor refreshes the token before it expires.
        let mut watch = self.with_context(key, self.supervisor.watch(key).await).await?;
        let Some(token) = watch.token().filter(|token| token.generation().get() == generation) else { return Ok(()) };
        let left = match token.expiry() {
            Expiry::At(end) => end.duration_since(now()).unwrap_or_default(),
            _ => MINUTE,
        };
        tokio::select! {
            () = watch.changed() => {}
            () = pause(left.min(MINUTE)) => {}
        }
        Ok(())
    }

    pub(super) fn idps(&self) -> Vec<IdpBody> {
        self.supervisor.idps().into_iter().map(IdpBody::from).collect()
    }

    pub(super) async fn hold_idp(&self, idp: &str, reason: Option<&str>) -> Result<IdpBody, CliFailure> {
        match reason {
            Some(reason) => self.supervisor.hold_idp(idp, reason).await?,
            None => self.supervisor.release_idp(idp).await?,
        }
        let found = self.idps().into_iter().find(|known| known.idp == idp);
        Ok(found.ok_or(Error::UnknownIdp)?)
    }

    pub(super) async fn retry_idp(&self, idp: &str) -> Result<RetriedBody, CliFailure> {
        Ok(self.supervisor.retry_idp(idp).await?.into())
    }

    /// Sends each provider an empty request, in the order of their names.
    pub(super) async fn reach(&self) -> Result<Vec<(String, Reached)>, CliFailure> {
        let reached = self.supervisor.idps().into_iter().map(async |idp| {
            let reached = self.supervisor.reach_idp(&idp.name).await?;
            Ok::<_, CliFailure>((idp.name, reached))
        });
        join_all(reached).await.into_iter().collect()
    }

    pub(super) async fn health(&self) -> PlaceHealth {
        PlaceHealth {
            revocations: self.supervisor.revocations_pending().await.ok(),
            name: self.deployment.clone().unwrap_or_else(|| "no deployment".to_owned()),
            store_ok: !self.supervisor.is_store_down(),
            journal_pending: Some(self.supervisor.journal_pending()),
            degraded: Vec::new(),
            time: None,
        }
    }

    /// Waits for refreshes in flight.
    pub(super) async fn close(self, signals: &mut Signals) {
        let closing = async {
            let ended = self.supervisor.shutdown(DRAIN).await;
            if ended.abandoned > 0 {
                note(ABANDONED);
            }
        };
        let patience = async {
            pause(SILENT).await;
            note("a refresh is in flight: waiting for its response, to store it (Ctrl-C gives it up)");
            signals.next().await;
            note(ABANDONED);
        };
        tokio::select! {
            () = closing => {}
            () = patience => {}
        }
    }
}

/// Names the server that probably has the store open.
fn unopened(error: Error, config: &Config) -> CliFailure {
    let failure = CliFailure::from(error);
    match server_of(config) {
        Some(server) if failure.start == Some(StartFailure::StoreInUse) => {
            let next = "if that is the server, use it: add --server";
            failure.then(format!("{next} {server}; otherwise wait until it has ended"))
        }
        _ => failure,
    }
}

/// The address of the server of this configuration.
pub(crate) fn server_of(config: &Config) -> Option<String> {
    config.server().bind.iter().find_map(|bind| match bind {
        Bind::Tcp(address) if address.port() == 0 => None,
        Bind::Tcp(address) if address.ip().is_unspecified() => Some(format!("http://127.0.0.1:{}", address.port())),
        bind @ Bind::Tcp(_) => Some(format!("http://{bind}")),
        bind => Some(bind.to_string()),
    })
}

const ABANDONED: &str = "a refresh was given up: it is in doubt, and the next process settles it";
