//! The store itself, opened by a supervisor for one command.
//!
//! Invariant: the response to a refresh that was sent is stored before the program ends, even after a deadline or Ctrl-C.
//! Only a second Ctrl-C, or [`DRAIN`], gives it up.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use token_supervisor::{
    Acquire, Builder, By, Code, Command, Connect, Cursor, Disconnect, Error, Expiry, Hold, Purge, Reached, RefreshNow,
    Release, RequireReconnect, Restore, Retry, Revocation, Revoke, State, Status, TokenKey, TokenSupervisor,
    api::{
        GrantContext, GrantQuery, IdpBody, KeysBody, OffboardedGrant, ProblemBody, RefreshedBody, ReplicaBody,
        ResealedBody, RetriedBody, StatusBody, TokenBody,
    },
    config::{Bind, Config},
};

use super::{PlaceHealth, Verb, unread};
use crate::cli::{
    CliFailure, Exit,
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
    pub(super) async fn open(config: &Config, builder: Builder, signals: &mut Signals) -> Result<Self, CliFailure> {
        let starting = builder.on_demand().start();
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
            Verb::Reconnect(reason) => self.call(key, RequireReconnect::new(key, reason)).await,
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
        let found = self.find(key).await?.ok_or_else(|| CliFailure::of(Some(key), ProblemBody::from(&missing())))?;
        Ok(found.with_user_hash(self.supervisor.pseudonym(key.user())))
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
        // A list leaves out what cannot be read.
        if found.is_empty() && self.supervisor.unreadable_rows() > 0 {
            self.supervisor.status(key).await?;
        }
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

    pub(super) async fn offboard(&self, user: &str, revoke: Revoke) -> Result<Vec<OffboardedGrant>, CliFailure> {
        let ended = self.supervisor.disconnect_user(user, revoke).await?;
        if matches!(revoke, Revoke::Yes) {
            tokio::select! {
                _ = self.supervisor.revoke_queued() => {}
                () = pause(REVOKED_WITHIN) => {}
            }
        }
        let result = |(key, ended): &(TokenKey, Result<Status, Error>)| {
            OffboardedGrant::of(key, ended.as_ref().map_err(ProblemBody::from))
        };
        Ok(ended.iter().map(result).collect())
    }

    pub(super) async fn reach_one(&self, idp: &str) -> Result<Reached, CliFailure> {
        Ok(self.supervisor.reach_idp(idp).await?)
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

    pub(super) async fn adopt(&self) -> Result<Option<String>, CliFailure> {
        Ok(self.supervisor.adopt().await?)
    }

    pub(super) async fn keys(&self) -> Result<KeysBody, CliFailure> {
        // This process has the keys of the file.
        let others = self.supervisor.replicas().await?.into_iter().filter(|replica| !replica.is_this);
        Ok(KeysBody::new(self.supervisor.keys().await?, others.map(ReplicaBody::from).collect()))
    }

    pub(super) async fn reseal(&self, after: Option<u64>) -> Result<ResealedBody, CliFailure> {
        Ok(self.supervisor.reseal(after).await?.into())
    }

    pub(super) async fn health(&self) -> PlaceHealth {
        PlaceHealth {
            revocations: self.supervisor.revocations_pending().await.ok(),
            name: self.deployment.clone().unwrap_or_else(|| "no deployment".to_owned()),
            store_ok: !self.supervisor.is_store_down() && !self.supervisor.is_disk_full(),
            journal_pending: Some(self.supervisor.journal_pending()),
            replicas: self.others().await,
            degraded: Vec::new(),
            time: None,
        }
    }

    /// Returns the servers that work with the store.
    async fn others(&self) -> Vec<ReplicaBody> {
        let replicas = self.supervisor.replicas().await.unwrap_or_default();
        replicas.into_iter().filter(|replica| !replica.is_this).map(ReplicaBody::from).collect()
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

/// Whether nothing of the store is there yet: neither its file nor its lock nor a journal.
pub(crate) fn is_new(config: &Config) -> bool {
    let lock = config.store_file().map(|file| PathBuf::from(format!("{}.lock", file.display())));
    let store = config.store_file().into_iter().chain(lock.as_deref());
    config.store_file().is_some() && has_folder(config) && !store.chain([config.journal()]).any(is_there)
}

fn has_folder(config: &Config) -> bool {
    let folder = config.store_file().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    folder.is_none_or(is_there)
}

/// # Errors
/// The store or its journal is missing: an empty one in its place would look as if nobody were connected.
pub(super) fn check_presence(config: &Config) -> Result<(), CliFailure> {
    let Some(store) = config.store_file() else { return Ok(()) };
    // An error in the path has better words when the store is opened.
    if !has_folder(config) {
        return Ok(());
    }
    let missing = |text, next: String| Err(CliFailure::new(Exit::Failed, text, next));
    let (path, journal) = (store.display(), config.journal().display());
    if is_new(config) {
        return missing(
            format!("there is no store at {path} yet"),
            "connect the first user, or run token-supervisor serve: both create it; if there should be one, correct \
             store.url"
                .to_owned(),
        );
    }
    match fs::metadata(store) {
        Ok(file) if file.len() > 0 || !file.is_file() => {}
        Err(error) if error.kind() != ErrorKind::NotFound => {}
        _ => {
            return missing(
                format!("the store {path} is missing or empty, although its journal or lock file is there"),
                "restore it from its backup, or correct store.url; token-supervisor migrate creates an empty one"
                    .to_owned(),
            );
        }
    }
    // A file that is no store has better words when it is opened, before the journal is.
    if is_sqlite(store) && !is_there(config.journal()) {
        return missing(
            format!("the journal {journal} is missing"),
            "mount its disk, or correct journal.dir; if it is lost, token-supervisor migrate creates an empty one, and \
             refreshes that were in flight are in doubt"
                .to_owned(),
        );
    }
    Ok(())
}

fn is_sqlite(path: &Path) -> bool {
    let mut head = [0; 16];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *b"SQLite format 3\0"
}

/// What cannot be examined may be there.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// Names the server that probably has the store open.
fn unopened(error: Error, config: &Config) -> CliFailure {
    let failure = CliFailure::from(error);
    match server_of(config) {
        Some(server) if failure.start == Some(StartFailure::StoreInUse) => {
            let next = "if that is the server, use it: add";
            failure.then(format!("{next} {server}; otherwise wait until it has ended"))
        }
        _ => failure,
    }
}

/// The options that select the server of this configuration.
pub(crate) fn server_of(config: &Config) -> Option<String> {
    config.server().bind.iter().find_map(|bind| {
        let elsewhere = |ip: IpAddr| !ip.is_loopback() && !ip.is_unspecified();
        let plain = matches!(bind, Bind::Tcp(address) if elsewhere(address.ip()));
        Some(format!("--server {}{}", own_address(bind)?, if plain { " --allow-http" } else { "" }))
    })
}

/// The address at which this machine reaches a server that listens there; `None` if the operating system chose the port.
pub(crate) fn own_address(bind: &Bind) -> Option<String> {
    match bind {
        Bind::Tcp(address) if address.port() == 0 => None,
        Bind::Tcp(address) if address.ip().is_unspecified() => {
            let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            Some(format!("http://{loopback}:{}", address.port()))
        }
        bind @ Bind::Tcp(_) => Some(format!("http://{bind}")),
        bind => Some(bind.to_string()),
    }
}

const ABANDONED: &str = "a refresh was given up: it is in doubt, and the next process settles it";
