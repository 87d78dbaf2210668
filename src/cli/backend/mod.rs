//! Where commands work: on the store itself, as one more process with the same lease and the same code path, or on a
//! running server.
//!
//! A backend runs a [`Verb`] on a grant, returns tokens, lists grants, offboards a user, and reports, holds, probes and retries
//! providers.

mod server;
mod store;

use std::time::{Duration, SystemTime};

use token_supervisor::{
    Cursor, Error, Reached, Revoke, TokenKey,
    api::{
        GrantQuery, IdpBody, KeysBody, OffboardedGrant, ReplicaBody, ResealedBody, RetriedBody, StatusBody, TokenBody,
    },
    config::Config,
};
use zeroize::Zeroizing;

use self::store::StoreBackend;
pub(crate) use self::{
    server::{Address, ProxyUrl, START, ServerBackend, ServerTarget},
    store::{DRAIN, is_new, own_address, server_of},
};
use super::{
    CliFailure,
    body::VerbResult,
    signals::{Signals, interrupted},
};

/// What a command does with a grant, beside printing its token. The result is the state of the grant afterwards.
pub(crate) enum Verb {
    Status,
    /// Connects the response of a token endpoint.
    Connect(Zeroizing<Vec<u8>>),
    Refresh,
    Hold(String),
    Release,
    Disconnect {
        revoke: bool,
    },
    Restore,
    Retry,
    Reconnect(String),
    Purge,
}

/// What a probe of an identity provider did.
pub(crate) enum Probed {
    /// Its token endpoint responded to an empty request, or not.
    Reached(Reached),
    /// The next request is let through; the state of the provider before it.
    Passes(Box<IdpBody>),
}

/// Where to work.
pub(crate) enum Workplace {
    /// On the store of this configuration.
    Store(Box<Config>),
    /// On this server.
    Server(ServerTarget),
}

/// An opened place.
pub(crate) enum Backend {
    Store(StoreBackend),
    Server(ServerBackend),
}

/// The state of a place as a whole.
pub(crate) struct PlaceHealth {
    /// The name of the deployment, or of the server.
    pub(crate) name: String,
    pub(crate) store_ok: bool,
    /// How many responses wait in the journal for the store; `None` if a server has some, since it does not say how many.
    pub(crate) journal_pending: Option<usize>,
    /// How many revocations are queued, and how many of them were sent and are not confirmed; a server does not say.
    pub(crate) revocations: Option<(u64, u64)>,
    /// The processes that work with the store.
    pub(crate) replicas: Vec<ReplicaBody>,
    /// What is degraded.
    pub(crate) degraded: Vec<String>,
    /// The time by the server's clock; `None` of the store, which has this machine's.
    pub(crate) time: Option<SystemTime>,
}

impl Backend {
    /// Opens the place, does `work` there, and closes it, also after a failure. A store that does not exist is not created:
    /// most commands are about grants that are there.
    pub(crate) async fn with<T>(
        place: &Workplace,
        work: impl AsyncFnOnce(&Self) -> Result<T, CliFailure>,
    ) -> Result<T, CliFailure> {
        if let Workplace::Store(config) = place {
            store::check_presence(config)?;
        }
        Self::creating(place, work).await
    }

    /// The same, and creates a store that does not exist.
    pub(crate) async fn creating<T>(
        place: &Workplace,
        work: impl AsyncFnOnce(&Self) -> Result<T, CliFailure>,
    ) -> Result<T, CliFailure> {
        let open = async |signals: &mut Signals| match place {
            Workplace::Store(config) => Ok(Self::Store(StoreBackend::open(config, config.builder()?, signals).await?)),
            Workplace::Server(server) => Ok(Self::Server(ServerBackend::new(server)?)),
        };
        Self::run(open, work).await
    }

    /// The same on an empty store that is deleted afterwards.
    pub(crate) async fn on_trial<T>(
        config: &Config,
        work: impl AsyncFnOnce(&Self) -> Result<T, CliFailure>,
    ) -> Result<T, CliFailure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trial.db");
        let builder =
            config.builder()?.store(format!("sqlite://{}", path.display())).journal(folder.path().join("journal"));
        let open = async |signals: &mut Signals| Ok(Self::Store(StoreBackend::open(config, builder, signals).await?));
        Self::run(open, work).await
    }

    async fn run<T>(
        open: impl AsyncFnOnce(&mut Signals) -> Result<Self, CliFailure>,
        work: impl AsyncFnOnce(&Self) -> Result<T, CliFailure>,
    ) -> Result<T, CliFailure> {
        let mut signals = Signals::listen()?;
        let backend = open(&mut signals).await?;
        let ended = tokio::select! {
            ended = work(&backend) => ended,
            signal = signals.next() => Err(interrupted(signal)),
        };
        if let Self::Store(store) = backend {
            store.close(&mut signals).await;
        }
        ended
    }

    /// Carries out the verb on the grant.
    pub(crate) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<VerbResult, CliFailure> {
        match self {
            Self::Store(store) => store.on(key, verb).await,
            Self::Server(server) => server.on(key, verb).await,
        }
    }

    /// Returns a page of grants, and where the next page starts.
    pub(crate) async fn list(&self, query: &GrantQuery) -> Result<(Vec<StatusBody>, Option<Cursor>), CliFailure> {
        match self {
            Self::Store(store) => store.list(query).await,
            Self::Server(server) => server.list(query).await,
        }
    }

    /// Returns a token that is valid for at least `min_ttl`, within the timeout.
    pub(crate) async fn token(
        &self,
        key: &TokenKey,
        min_ttl: Duration,
        timeout: Option<Duration>,
    ) -> Result<TokenBody, CliFailure> {
        match self {
            Self::Store(store) => store.token(key, min_ttl, timeout).await,
            Self::Server(server) => server.token(key, min_ttl, timeout).await,
        }
    }

    /// Waits until there may be a token of another generation: a minute at most.
    pub(crate) async fn changed(&self, key: &TokenKey, generation: u64) -> Result<(), CliFailure> {
        match self {
            Self::Store(store) => store.changed(key, generation).await,
            Self::Server(server) => server.changed(key, generation).await,
        }
    }

    pub(crate) async fn idps(&self) -> Result<Vec<IdpBody>, CliFailure> {
        match self {
            Self::Store(store) => Ok(store.idps()),
            Self::Server(server) => server.idps().await,
        }
    }

    /// Puts an identity provider on hold for this reason, or releases it.
    pub(crate) async fn hold_idp(&self, idp: &str, reason: Option<&str>) -> Result<IdpBody, CliFailure> {
        match self {
            Self::Store(store) => store.hold_idp(idp, reason).await,
            Self::Server(server) => server.hold_idp(idp, reason).await,
        }
    }

    /// Disconnects all grants of a user. Returns one result for each.
    pub(crate) async fn offboard(&self, user: &str, revoke: bool) -> Result<Vec<OffboardedGrant>, CliFailure> {
        let ends = if revoke { Revoke::Yes } else { Revoke::No };
        match self {
            Self::Store(store) => store.offboard(user, ends).await,
            Self::Server(server) => server.offboard(user, ends).await,
        }
    }

    /// Lets a server's next request to a paused provider through. On the store, where no pause outlives its process, sends
    /// the provider an empty request instead.
    pub(crate) async fn probe_idp(&self, idp: &str) -> Result<Probed, CliFailure> {
        match self {
            Self::Store(store) => store.reach_one(idp).await.map(Probed::Reached),
            Self::Server(server) => server.probe_idp(idp).await.map(|idp| Probed::Passes(Box::new(idp))),
        }
    }

    /// Retries the refused grants of an identity provider.
    pub(crate) async fn retry_idp(&self, idp: &str) -> Result<RetriedBody, CliFailure> {
        match self {
            Self::Store(store) => store.retry_idp(idp).await,
            Self::Server(server) => server.retry_idp(idp).await,
        }
    }

    /// Takes over a store that belongs to another deployment. Returns its name; `None` if the store was ours.
    pub(crate) async fn adopt(&self) -> Result<Option<String>, CliFailure> {
        match self {
            Self::Store(store) => store.adopt().await,
            Self::Server(server) => server.adopt().await,
        }
    }

    /// Returns the keys that encrypt stored values, what needs each of them, and the replicas that have them.
    pub(crate) async fn keys(&self) -> Result<KeysBody, CliFailure> {
        match self {
            Self::Store(store) => store.keys().await,
            Self::Server(server) => server.keys().await,
        }
    }

    /// Encrypts stored values again with the active key, for about a second. Returns where to go on.
    pub(crate) async fn reseal(&self, after: Option<u64>) -> Result<ResealedBody, CliFailure> {
        match self {
            Self::Store(store) => store.reseal(after).await,
            Self::Server(server) => server.reseal(after).await,
        }
    }

    /// Sends each provider an empty request from this machine, which a server cannot do.
    pub(crate) async fn reach(&self) -> Result<Vec<(String, Reached)>, CliFailure> {
        match self {
            Self::Store(store) => store.reach().await,
            Self::Server(_) => Err(CliFailure::usage(
                "--probe sends requests from this machine, not from the server's",
                "run it on the server's machine, with --config and without --server",
            )),
        }
    }

    pub(crate) async fn health(&self) -> Result<PlaceHealth, CliFailure> {
        match self {
            Self::Store(store) => Ok(store.health().await),
            Self::Server(server) => server.health().await,
        }
    }
}

/// Reports a response that contains no grant.
fn unread(error: &Error) -> CliFailure {
    CliFailure::usage(error.to_string(), "nothing was stored: fix the input, then run connect again")
}
