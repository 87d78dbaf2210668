//! The store itself, opened by a supervisor for one command.
//!
//! Invariant: a refresh that was sent is stored before the program ends, whatever the command has become: its answer came,
//! its deadline passed, Ctrl-C. Only a second Ctrl-C, or [`DRAIN`], ends that.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use token_supervisor::{
    Acquire, Command, Connect, Cursor, Disconnect, Error, Expiry, Filter, Hold, Purge, Reached, RefreshNow, Release,
    Restore, Revoke, State, Status, TokenKey, TokenSupervisor,
    config::{Bind, Config},
};

use super::{Health, Verb};
use crate::cli::{
    Failure,
    body::{GrantBody, IdpBody, Revocation, TokenBody},
    exit::{Trouble, Unopened},
    show::note,
    signals::{Signals, interrupted},
    time::{now, pause},
};

/// A supervisor for one command.
pub(crate) struct Store {
    supervisor: TokenSupervisor,
    deployment: Option<String>,
    /// The identity providers that revoke tokens.
    revoking: BTreeSet<String>,
}

/// How long a refresh in flight is awaited: longer than the patience with any identity provider, unless it is configured.
pub(crate) const DRAIN: Duration = Duration::from_secs(150);

const MINUTE: Duration = Duration::from_secs(60);

/// After so long people are told what is waited for.
const SILENT: Duration = Duration::from_secs(1);

/// How long the answer to a revocation is awaited.
const REVOKED_WITHIN: Duration = Duration::from_secs(20);

impl Store {
    pub(super) async fn open(config: &Config, signals: &mut Signals) -> Result<Self, Failure> {
        let starting = config.builder()?.on_demand().start();
        let supervisor = tokio::select! {
            supervisor = starting => supervisor.map_err(|error| unopened(error, config))?,
            signal = signals.next() => return Err(interrupted(signal)),
        };
        let revoking = config.idps().filter(|(_, idp)| idp.revokes()).map(|(name, _)| name.to_owned()).collect();
        Ok(Self { supervisor, deployment: config.deployment().map(str::to_owned), revoking })
    }

    pub(super) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<GrantBody, Failure> {
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
                body.revocation = Some(self.revocation(key.idp()).await);
                Ok(body)
            }
            Verb::Refresh => {
                let refreshed = self.supervisor.call(RefreshNow::new(key)).await;
                let refreshed = self.told(key, refreshed).await?;
                Ok(GrantBody::of(key, refreshed.status).refreshed(refreshed.refreshed))
            }
        }
    }

    /// Has what is queued revoked. How far that of this identity provider is then.
    async fn revocation(&self, idp: &str) -> Revocation {
        if !self.revoking.contains(idp) {
            return Revocation::NoEndpoint;
        }
        let all = tokio::select! {
            left = self.supervisor.revoke_queued() => left.is_ok_and(|left| left == 0),
            () = pause(REVOKED_WITHIN) => false,
        };
        if all { Revocation::Done } else { Revocation::Queued }
    }

    async fn call<C>(&self, key: &TokenKey, command: C) -> Result<GrantBody, Failure>
    where
        C: Command<Answer = Status>,
    {
        let status = self.told(key, self.supervisor.call(command).await).await?;
        Ok(GrantBody::of(key, status))
    }

    /// An error with what is known of the grant nonetheless, as a server says it.
    async fn told<T>(&self, key: &TokenKey, called: Result<T, Error>) -> Result<T, Failure> {
        let error = match called {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let trouble = Trouble::from(&error);
        let known = match error {
            Error::ReconnectRequired { .. }
            | Error::AccountMismatch
            | Error::GenerationMismatch { .. }
            | Error::MinTtlUnsatisfiable { .. }
            | Error::Unavailable { .. } => self.find(key).await.ok().flatten(),
            _ => None,
        };
        let trouble = match known {
            Some(grant) => trouble.about(&grant),
            None => trouble,
        };
        Err(Failure::of(Some(key), trouble))
    }

    async fn status(&self, key: &TokenKey) -> Result<GrantBody, Failure> {
        let known = || self.supervisor.idps().iter().any(|idp| idp.name == key.idp());
        let missing = || if known() { Error::NotConnected } else { Error::UnknownIdp };
        self.find(key).await?.ok_or_else(|| Failure::of(Some(key), Trouble::from(&missing())))
    }

    /// Read from the store: an actor that was asked would refresh what is due.
    async fn find(&self, key: &TokenKey) -> Result<Option<GrantBody>, Failure> {
        let filter = Filter::new().idp(key.idp()).user(key.user()).account(key.account_name());
        let (mut found, _) = self.list(State::ALL.into_iter().fold(filter, Filter::state)).await?;
        Ok(found.pop())
    }

    pub(super) async fn list(&self, filter: Filter) -> Result<(Vec<GrantBody>, Option<Cursor>), Failure> {
        let page = self.supervisor.list(filter).await?;
        let items = page.items.into_iter().map(|(key, status)| GrantBody::of(&key, status));
        Ok((items.collect(), page.next))
    }

    pub(super) async fn token(
        &self,
        key: &TokenKey,
        min_ttl: Duration,
        timeout: Option<Duration>,
    ) -> Result<TokenBody, Failure> {
        let asked = Acquire::new(key).min_ttl(min_ttl);
        let asked = timeout.map_or(asked.clone(), |timeout| asked.timeout(timeout));
        let token = self.told(key, self.supervisor.call(asked).await).await?;
        Ok(TokenBody::of(&token))
    }

    pub(super) async fn changed(&self, key: &TokenKey, generation: u64) -> Result<(), Failure> {
        // For as long as it is watched, its actor refreshes it ahead of need.
        let mut watch = self.told(key, self.supervisor.watch(key).await).await?;
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

    pub(super) async fn hold_idp(&self, idp: &str, reason: Option<&str>) -> Result<IdpBody, Failure> {
        match reason {
            Some(reason) => self.supervisor.hold_idp(idp, reason).await?,
            None => self.supervisor.release_idp(idp).await?,
        }
        let found = self.idps().into_iter().find(|known| known.idp == idp);
        Ok(found.ok_or(Error::UnknownIdp)?)
    }

    /// What each identity provider says to who asks for nothing, in the order of their names.
    pub(super) async fn reach(&self) -> Result<Vec<(String, Reached)>, Failure> {
        let reached = self.supervisor.idps().into_iter().map(async |idp| {
            let reached = self.supervisor.reach_idp(&idp.name).await?;
            Ok::<_, Failure>((idp.name, reached))
        });
        join_all(reached).await.into_iter().collect()
    }

    pub(super) fn health(&self) -> Health {
        Health {
            name: self.deployment.clone().unwrap_or_else(|| "no deployment".to_owned()),
            store_ok: !self.supervisor.is_store_down(),
            journal_pending: Some(self.supervisor.journal_pending()),
            degraded: Vec::new(),
            time: None,
        }
    }

    /// Waits for what is in flight.
    pub(super) async fn close(self, signals: &mut Signals) {
        let closing = async {
            let ended = self.supervisor.shutdown(DRAIN).await;
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

/// With the server that probably has the store.
fn unopened(error: Error, config: &Config) -> Failure {
    let failure = Failure::from(error);
    match server_of(config) {
        Some(server) if failure.unopened == Some(Unopened::InUse) => {
            let next = "if that is the server, ask it: the same with --server";
            failure.then(format!("{next} {server}; else wait until it has ended"))
        }
        _ => failure,
    }
}

/// Where the server of this configuration is asked.
pub(crate) fn server_of(config: &Config) -> Option<String> {
    config.server().bind.iter().find_map(|bind| match bind {
        Bind::Tcp(address) if address.port() == 0 => None,
        Bind::Tcp(address) if address.ip().is_unspecified() => Some(format!("http://127.0.0.1:{}", address.port())),
        bind @ Bind::Tcp(_) => Some(format!("http://{bind}")),
        bind => Some(bind.to_string()),
    })
}

const ABANDONED: &str = "a refresh was given up: the next process finds that it is in doubt, and settles it";
