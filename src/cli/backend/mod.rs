//! Where commands do what they are asked: on the store itself, as one more process with the same lease and the same code
//! path, or on a running server.
//!
//! Commands know five things of it: a [`Verb`] on a grant, a token and the next one, grants in pages, how the identity
//! providers are, and holding one of them.

mod server;
mod store;

use std::time::{Duration, SystemTime};

use token_supervisor::{Cursor, Grant, Reached, TokenKey, config::Config};

pub(crate) use self::{
    server::Address,
    store::{DRAIN, server_of},
};
use self::{server::Server, store::Store};
use super::{
    Failure,
    args::Wanted,
    body::{GrantBody, IdpBody, TokenBody},
    signals::{Signals, interrupted},
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

/// Where to work.
pub(crate) enum Place {
    /// On the store of this configuration.
    Store(Box<Config>),
    /// On this server.
    Server(Address),
}

/// Ready to work there.
pub(crate) enum Backend {
    Store(Store),
    Server(Server),
}

/// How the place is as a whole.
pub(crate) struct Health {
    /// Who is meant: the deployment, or the server.
    pub(crate) name: String,
    pub(crate) store_ok: bool,
    /// How many answers wait in the journal for the store; a server with some does not say how many.
    pub(crate) journal_pending: Option<usize>,
    /// What is not as it should be.
    pub(crate) degraded: Vec<String>,
    /// What its clock says, where it has one of its own.
    pub(crate) time: Option<SystemTime>,
}

impl Backend {
    /// Does `work` there, and ends cleanly whatever becomes of it.
    pub(crate) async fn with<T>(
        place: &Place,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut signals = Signals::listen()?;
        let backend = match place {
            Place::Store(config) => Self::Store(Store::open(config, &mut signals).await?),
            Place::Server(address) => Self::Server(Server::new(address)?),
        };
        let ended = tokio::select! {
            ended = work(&backend) => ended,
            signal = signals.next() => Err(interrupted(signal)),
        };
        if let Self::Store(store) = backend {
            store.close(&mut signals).await;
        }
        ended
    }

    /// Carries it out on the grant.
    pub(crate) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<GrantBody, Failure> {
        match self {
            Self::Store(store) => store.on(key, verb).await,
            Self::Server(server) => server.on(key, verb).await,
        }
    }

    /// A page of grants, and where the next one starts.
    pub(crate) async fn list(&self, wanted: &Wanted) -> Result<(Vec<GrantBody>, Option<Cursor>), Failure> {
        match self {
            Self::Store(store) => store.list(wanted.filter()).await,
            Self::Server(server) => server.list(wanted).await,
        }
    }

    /// A token that lives at least so long, within that time.
    pub(crate) async fn token(
        &self,
        key: &TokenKey,
        min_ttl: Duration,
        timeout: Option<Duration>,
    ) -> Result<TokenBody, Failure> {
        match self {
            Self::Store(store) => store.token(key, min_ttl, timeout).await,
            Self::Server(server) => server.token(key, min_ttl, timeout).await,
        }
    }

    /// Waits until there may be another token than that of this generation: a minute at most.
    pub(crate) async fn changed(&self, key: &TokenKey, generation: u64) -> Result<(), Failure> {
        match self {
            Self::Store(store) => store.changed(key, generation).await,
            Self::Server(server) => server.changed(key, generation).await,
        }
    }

    pub(crate) async fn idps(&self) -> Result<Vec<IdpBody>, Failure> {
        match self {
            Self::Store(store) => Ok(store.idps()),
            Self::Server(server) => server.idps().await,
        }
    }

    /// Holds an identity provider for this reason, or releases it.
    pub(crate) async fn hold_idp(&self, idp: &str, reason: Option<&str>) -> Result<IdpBody, Failure> {
        match self {
            Self::Store(store) => store.hold_idp(idp, reason).await,
            Self::Server(server) => server.hold_idp(idp, reason).await,
        }
    }

    /// What each identity provider says, asked from here for nothing; of a server that cannot be known.
    pub(crate) async fn reach(&self) -> Result<Vec<(String, Reached)>, Failure> {
        match self {
            Self::Store(store) => store.reach().await,
            Self::Server(_) => Err(Failure::usage(
                "--probe looks from this machine, not from the server's",
                "run it where the server runs, with --config and without --server",
            )),
        }
    }

    pub(crate) async fn health(&self) -> Result<Health, Failure> {
        match self {
            Self::Store(store) => Ok(store.health()),
            Self::Server(server) => server.health().await,
        }
    }
}
