//! Connections to the server, their settings, and the pool that keeps them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult, Timeouts},
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _, TransactionManager as _};
use tokio_postgres::{Connection, NoTls, Socket, tls::TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{address::PostgresAddress, memory::KnownRows, server_watch::ServerWatch, tls};
use crate::{error::Error, store::StoreError};

pub(super) type ConnectionPool = Pool<Connector>;
pub(super) type Pooled = Object<Connector>;

/// Opens connections for a pool.
pub(super) struct Connector {
    pub(super) address: Arc<PostgresAddress>,
    pub(super) tls: Option<MakeRustlsConnect>,
    statement_timeout: Duration,
    known: Arc<KnownRows>,
    servers: Arc<ServerWatch>,
}

/// A connection, and whether the server or the network has ended it.
pub(super) struct OpenConnection {
    pub(super) session: AsyncPgConnection,
    is_closed: Arc<AtomicBool>,
}

/// The limit for a statement that a caller waits for, lock waits included: shorter than any `settle`, so that a claim that was
/// given up is not carried out after it.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);

/// The limit for a statement that reads or deletes a large part of a table.
pub(super) const SCAN_TIMEOUT: Duration = Duration::from_secs(120);

/// The limit for a new connection to be opened, at whichever of the addresses.
pub(super) const OPENED_WITHIN: Duration = Duration::from_secs(10);

/// The limit for a connection to become free: longer than any caller waits, because a crowd is not an outage.
const FREE_WITHIN: Duration = Duration::from_secs(20);

/// Creates a pool. Opens no connection yet.
///
/// # Errors
/// The certificates that verify the server cannot be read.
pub(super) fn pool(
    address: &Arc<PostgresAddress>,
    size: usize,
    statement_timeout: Duration,
    known: &Arc<KnownRows>,
    servers: &Arc<ServerWatch>,
) -> Result<ConnectionPool, Error> {
    let tls = address.uses_tls().then(|| tls::connector(address)).transpose()?;
    let (known, servers) = (known.clone(), servers.clone());
    let connector = Connector { address: address.clone(), tls, statement_timeout, known, servers };
    let timeouts = Timeouts { wait: Some(FREE_WITHIN), create: Some(OPENED_WITHIN), recycle: Some(OPENED_WITHIN) };
    let pool = Pool::builder(connector).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1).build();
    pool.map_err(|_| Error::Internal("a pool of connections without a runtime"))
}

impl Connector {
    /// Opens a connection.
    ///
    /// # Errors
    /// Says why, with the server's address and without its password.
    pub(super) async fn connect(&self) -> Result<OpenConnection, StoreError> {
        let opened = tokio::time::timeout(OPENED_WITHIN, self.open()).await;
        opened.unwrap_or_else(|_| Err(self.silent()))
    }

    async fn open(&self) -> Result<OpenConnection, StoreError> {
        let is_closed = Arc::new(AtomicBool::new(false));
        let failed = |error: tokio_postgres::Error| self.unreachable(&error);
        let config = &self.address.config;
        let client = match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                drive(connection, is_closed.clone());
                client
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                drive(connection, is_closed.clone());
                client
            }
        };
        let refused = |error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("{} refuses the settings of a session: {error}", self.address))
        };
        let mut session = AsyncPgConnection::try_from(client).await.map_err(|error| refused(&error))?;
        session.batch_execute(&self.settings()).await.map_err(|error| refused(&error))?;
        Ok(OpenConnection { session, is_closed })
    }

    /// A commit is acknowledged once it is on disk, whatever the server's default is: a response that is forgotten is lost.
    /// A process that stands still in a transaction loses it, and with it the lock on its row.
    pub(super) fn settings(&self) -> String {
        let (schema, timeout) = (&self.address.schema, self.statement_timeout.as_millis());
        format!(
            "SET search_path TO {schema}; SET statement_timeout TO {timeout}; \
             SET idle_in_transaction_session_timeout TO {timeout}; \
             SET default_transaction_isolation TO 'read committed'; \
             SELECT set_config('synchronous_commit', 'on', FALSE) WHERE current_setting('synchronous_commit') = 'off';"
        )
    }

    pub(super) fn unreachable(&self, error: &tokio_postgres::Error) -> StoreError {
        StoreError::Unavailable(format!("cannot connect to {}: {}", self.address, with_causes(error)))
    }

    pub(super) fn silent(&self) -> StoreError {
        StoreError::Unavailable(format!("cannot connect to {} within {OPENED_WITHIN:?}", self.address))
    }
}

/// An error with what caused it. The texts have names of hosts, users and databases, and no password.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Runs the connection in a task until it ends.
fn drive<S>(connection: Connection<Socket, S>, is_closed: Arc<AtomicBool>)
where
    S: TlsStream + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let ended = connection.await;
        is_closed.store(true, Ordering::Relaxed);
        if let Err(error) = ended {
            tracing::debug!(error = with_causes(&error), "a connection to the store ended");
        }
    });
}

impl Manager for Connector {
    type Type = OpenConnection;
    type Error = StoreError;

    async fn create(&self) -> Result<OpenConnection, StoreError> {
        // It may be another server by now, which has not all that the last one had.
        self.known.forget();
        let mut opened = self.connect().await?;
        self.servers.look(&mut opened.session).await;
        Ok(opened)
    }

    /// Sends nothing: a connection that ended is noticed without, and its successor is opened at once.
    async fn recycle(&self, open: &mut OpenConnection, _: &Metrics) -> RecycleResult<StoreError> {
        type Transactions = <AsyncPgConnection as diesel_async::AsyncConnection>::TransactionManager;
        let is_broken = Transactions::is_broken_transaction_manager(&mut open.session);
        match is_broken || open.is_closed.load(Ordering::Relaxed) {
            true => Err(RecycleError::message("the connection has ended")),
            false => Ok(()),
        }
    }
}
