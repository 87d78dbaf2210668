//! The PostgreSQL store: a pool of connections, for several processes at a time.
//!
//! Every operation is a task of its own on the supervisor's runtime. A caller that goes away drops neither an open
//! transaction nor an acknowledgement; a connection on which anything failed is not used again. Rows are compared and swapped
//! by their revision: `known` is the way of every refresh, one statement; `change` locks what SQLite's one writer would
//! exclude.

mod address;
mod change;
mod connection;
mod failure;
#[cfg(feature = "config")]
mod integrity;
mod known;
mod line;
mod lookup;
mod memory;
mod meta;
mod migrate;
mod pages;
mod replicas;
mod row;
mod sealed;
#[cfg(test)]
#[path = "../../../tests/it/postgres/server.rs"]
#[expect(dead_code, reason = "only the integration tests stop a server")]
pub(super) mod server;
mod server_watch;
mod sides;
#[cfg(test)]
#[path = "../../../tests/it/skip.rs"]
mod skip;
mod statement;
mod tasks;
#[cfg(test)]
mod tests;
mod time;
mod tls;
mod turns;
mod write;

use std::{hash::Hash, ops::Range, sync::Arc, time::Duration};

use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use tokio::runtime::Handle;

use self::{
    address::PostgresAddress,
    connection::{ConnectionPool, SCAN_TIMEOUT, STATEMENT_TIMEOUT, pool},
    failure::OperationError,
    memory::KnownRows,
    migrate::unopened,
    server_watch::ServerWatch,
    tasks::{Tasks, blocking},
    time::DatabaseClock,
    turns::{Turns, WriteTurn},
};
use super::{
    Census, Changed, DueCursor, DuePage, Expiring, KeyUse, Line, Listed, Migrate, Names, Outbox, QueuedRevocation,
    ReadRow, ReplicaReport, RowPosition, SealedPage, Store, StoreFuture, unreadable::RowReader,
};
use crate::{
    clock::Clock,
    error::Error,
    keyring::{KeyId, RowCodes},
    model::{Sealed, StoreTime, TokenKey, WallTime},
    protocol::Change,
};

/// An open PostgreSQL store.
pub(super) struct PostgresStore {
    shared: Arc<Shared>,
    tasks: Tasks,
    changes: Turns<TokenKey>,
    values: Turns<String>,
    connections: ConnectionPool,
    /// For statements that read or delete a large part of a table, so that no other waits behind them.
    scans: ConnectionPool,
}

/// What the operations have in common.
struct Shared {
    clock: DatabaseClock,
    reader: RowReader,
    known: Arc<KnownRows>,
    servers: Arc<ServerWatch>,
}

/// `settle` must be longer than a statement can take.
pub(super) const LEAST_SETTLE: Duration = Duration::from_secs(STATEMENT_TIMEOUT.as_secs() + 1);

/// Refreshes at a time are bounded by the providers; each needs a connection only while a statement runs.
const CONNECTIONS: usize = 16;

const SCANS: usize = 1;

impl PostgresStore {
    /// Connects, and checks the schema or brings it up to date. Blocks; needs a runtime of several threads around it.
    pub(super) fn open(url: &str, migrate: Migrate, clock: Clock, codes: RowCodes) -> Result<Self, Error> {
        let address = Arc::new(PostgresAddress::parse(url)?);
        let runtime = runtime()?;
        let (known, servers) = (Arc::default(), Arc::default());
        let connections = pool(&address, CONNECTIONS, STATEMENT_TIMEOUT, &known, &servers)?;
        let scans = pool(&address, SCANS, SCAN_TIMEOUT, &known, &servers)?;
        let (opened, at) = (connections.clone(), address.clone());
        blocking(&runtime, move |runtime| {
            let connector = opened.manager();
            let pending = runtime.block_on(migrate::pending(connector, &at))?;
            match migrate {
                Migrate::Auto if !pending.is_empty() => migrate::run(connector, &at, runtime)?,
                Migrate::Never if !pending.is_empty() => {
                    let why = format!(
                        "its schema {} lacks the migrations {}: run token-supervisor migrate once, or set store.migrate to auto",
                        at.schema,
                        pending.join(", ")
                    );
                    return Err(unopened(&at, &why));
                }
                Migrate::Auto | Migrate::Never => {}
            }
            runtime.block_on(check_encoding(&opened, &at))
        })??;
        let shared = Shared { clock: DatabaseClock::new(clock), reader: RowReader::new(codes), known, servers };
        let (changes, values) = (Turns::default(), Turns::default());
        Ok(Self { shared: Arc::new(shared), tasks: Tasks::new(runtime), changes, values, connections, scans })
    }

    fn run<T, F>(&self, work: F) -> StoreFuture<T>
    where
        F: for<'c> FnOnce(&'c mut AsyncPgConnection, Arc<Shared>) -> Operation<'c, T> + Send + 'static,
        T: Send + 'static,
    {
        let shared = self.shared.clone();
        let now = std::future::ready(());
        self.tasks.run(&self.connections, STATEMENT_TIMEOUT, now, move |connection| work(connection, shared))
    }

    /// Starts a write, which begins when the one before it has ended.
    fn run_in_turn<K, T, F>(&self, mut turn: WriteTurn<K>, work: F) -> StoreFuture<T>
    where
        F: for<'c> FnOnce(&'c mut AsyncPgConnection, Arc<Shared>) -> Operation<'c, T> + Send + 'static,
        T: Send + 'static,
        K: Eq + Hash + Send + Sync + 'static,
    {
        let shared = self.shared.clone();
        let turn = async move {
            turn.begin().await;
            turn
        };
        self.tasks.run(&self.connections, STATEMENT_TIMEOUT, turn, move |connection| work(connection, shared))
    }

    fn scan<T, F>(&self, work: F) -> StoreFuture<T>
    where
        F: for<'c> FnOnce(&'c mut AsyncPgConnection, Arc<Shared>) -> Operation<'c, T> + Send + 'static,
        T: Send + 'static,
    {
        let shared = self.shared.clone();
        let now = std::future::ready(());
        self.tasks.run(&self.scans, SCAN_TIMEOUT, now, move |connection| work(connection, shared))
    }
}

/// An operation on a connection.
type Operation<'c, T> = futures_util::future::BoxFuture<'c, Result<T, OperationError>>;

fn runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|_| Error::Internal("the PostgreSQL store is opened outside a runtime"))
}

/// Names are any text: a database with another encoding cannot hold them.
async fn check_encoding(connections: &ConnectionPool, address: &PostgresAddress) -> Result<(), Error> {
    let mut connection = connections.get().await.map_err(|error| unopened(address, &error))?;
    let encoding = statement::sql::<Text>("SELECT current_setting('server_encoding')");
    let encoding = encoding.get_result::<String>(&mut connection.session).await;
    match encoding.map_err(|error| unopened(address, &error))?.as_str() {
        "UTF8" => Ok(()),
        other => Err(unopened(
            address,
            &format_args!("the encoding of the database is {other}: create a database with the encoding UTF8"),
        )),
    }
}

/// Returns the names of the pending migrations. Blocks.
#[cfg(feature = "config")]
pub(super) fn pending(url: &str) -> Result<Vec<String>, Error> {
    let address = Arc::new(PostgresAddress::parse(url)?);
    let connections = pool(&address, 1, STATEMENT_TIMEOUT, &Arc::default(), &Arc::default())?;
    tasks::alone(move |runtime| runtime.block_on(migrate::pending(connections.manager(), &address)))
}

/// Brings the schema up to date. Blocks.
#[cfg(feature = "config")]
pub(super) fn migrate(url: &str) -> Result<(), Error> {
    let address = Arc::new(PostgresAddress::parse(url)?);
    let connections = pool(&address, 1, STATEMENT_TIMEOUT, &Arc::default(), &Arc::default())?;
    tasks::alone(move |runtime| {
        runtime.block_on(migrate::pending(connections.manager(), &address))?;
        migrate::run(connections.manager(), &address, runtime)
    })
}

/// Checks every row of the store. Blocks.
///
/// # Errors
/// The server cannot be reached, or a newer version of this program wrote the schema.
#[cfg(feature = "config")]
pub(super) fn integrity(
    url: &str,
    codes: RowCodes,
    fits: impl FnOnce(&[u8]) -> bool + Send,
) -> Result<Vec<String>, Error> {
    let address = Arc::new(PostgresAddress::parse(url)?);
    let connections = pool(&address, 1, SCAN_TIMEOUT, &Arc::default(), &Arc::default())?;
    tasks::alone(move |runtime| {
        let connector = connections.manager();
        if !runtime.block_on(migrate::pending(connector, &address))?.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error: super::StoreError| unopened(&address, &error);
        runtime.block_on(async {
            let mut open = connector.connect().await.map_err(failed)?;
            let found = integrity::integrity(&mut open.session, codes, fits).await;
            found.map_err(|error| failed(error.into()))
        })
    })
}

/// Checks a URL without connecting.
///
/// # Errors
/// The URL names no server that can be used. The message says why.
#[cfg(feature = "config")]
pub(super) fn check_url(url: &str) -> Result<(), Error> {
    PostgresAddress::parse(url).map(drop)
}

impl Store for PostgresStore {
    fn change(&self, key: &TokenKey, change: Change) -> StoreFuture<Changed> {
        let key = key.clone();
        let turn = self.changes.take(&key);
        self.run_in_turn(turn, move |connection, store| {
            Box::pin(async move {
                store.servers.check(&change)?;
                change::change(connection, &store, &key, &change).await
            })
        })
    }

    fn read(&self, key: &TokenKey) -> StoreFuture<ReadRow> {
        let key = key.clone();
        self.run(move |connection, store| {
            Box::pin(async move {
                let found = row::find(connection, &store, &key).await?;
                Ok(ReadRow { row: found.row?.map(|stored| stored.row), now: found.now })
            })
        })
    }

    fn due(&self, idp: &str, by: WallTime, after: Option<DueCursor>, limit: u32) -> StoreFuture<DuePage> {
        let idp = idp.to_owned();
        self.run(move |connection, store| {
            Box::pin(async move { pages::due(connection, &store, &idp, by, after, limit).await })
        })
    }

    fn expiring(&self, noticed: Range<StoreTime>, after: Option<Expiring>, limit: u32) -> StoreFuture<Vec<Expiring>> {
        self.scan(move |connection, _| {
            Box::pin(async move { pages::expiring(connection, &noticed, after.as_ref(), limit).await })
        })
    }

    fn list(&self, names: &Names, after: Option<TokenKey>, limit: u32) -> StoreFuture<Listed> {
        let names = names.clone();
        self.run(move |connection, store| {
            Box::pin(async move { pages::list(connection, &store, &names, after.as_ref(), limit).await })
        })
    }

    fn census(&self) -> StoreFuture<Census> {
        self.scan(move |connection, store| Box::pin(async move { pages::census(connection, &store).await }))
    }

    fn key_use(&self) -> StoreFuture<Vec<KeyUse>> {
        self.scan(move |connection, _| Box::pin(async move { sealed::key_use(connection).await }))
    }

    fn sealed_by_others(&self, active: KeyId, after: RowPosition, limit: u32) -> StoreFuture<SealedPage> {
        self.scan(move |connection, store| {
            Box::pin(async move { sealed::sealed_by_others(connection, &store, active, after, limit).await })
        })
    }

    fn queued(&self, after: i64, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.run(move |connection, _| Box::pin(async move { pages::queued(connection, after, limit).await }))
    }

    fn reseal_revocation(&self, revocation: &QueuedRevocation, resealed: Sealed) -> StoreFuture<()> {
        let revocation = revocation.clone();
        self.run(move |connection, _| {
            Box::pin(async move { sealed::reseal_revocation(connection, &revocation, &resealed).await })
        })
    }

    fn revocations(&self, limit: u32) -> StoreFuture<Vec<QueuedRevocation>> {
        self.run(move |connection, store| Box::pin(async move { pages::revocations(connection, &store, limit).await }))
    }

    fn outbox(&self, key: Option<TokenKey>) -> StoreFuture<Outbox> {
        self.run(move |connection, _| Box::pin(async move { pages::outbox(connection, key.as_ref()).await }))
    }

    fn revoking(&self, revocation: &QueuedRevocation, retry_at: StoreTime) -> StoreFuture<bool> {
        let (id, failures) = (revocation.id, revocation.failures);
        self.run(move |connection, _| {
            Box::pin(async move { pages::revoking(connection, id, failures, retry_at).await })
        })
    }

    fn revoked(&self, id: i64, retry_at: Option<StoreTime>) -> StoreFuture<()> {
        self.run(move |connection, _| Box::pin(async move { pages::revoked(connection, id, retry_at).await }))
    }

    fn forget_spent(&self, before: StoreTime) -> StoreFuture<()> {
        let parts = self.tasks.clone();
        let scans = self.scans.clone();
        Box::pin(async move {
            for first in 0..=u8::MAX {
                parts
                    .run(&scans, SCAN_TIMEOUT, std::future::ready(()), move |connection| {
                        Box::pin(async move { pages::forget_spent(connection, before, first).await })
                    })
                    .await?;
            }
            parts
                .run(&scans, SCAN_TIMEOUT, std::future::ready(()), move |connection| {
                    Box::pin(async move { pages::forget_spent_of_purged(connection, before).await })
                })
                .await
        })
    }

    fn meta(&self, name: &'static str, value: Vec<u8>) -> StoreFuture<Vec<u8>> {
        self.run(move |connection, _| Box::pin(async move { meta::meta(connection, name, &value).await }))
    }

    fn set_meta(&self, name: &str, value: Option<Vec<u8>>) -> StoreFuture<()> {
        let name = name.to_owned();
        let turn = self.values.take(&name);
        self.run_in_turn(turn, move |connection, _| {
            Box::pin(async move { meta::set_meta(connection, &name, value.as_deref()).await })
        })
    }

    fn swap_meta(&self, name: &'static str, expected: Vec<u8>, value: Vec<u8>) -> StoreFuture<bool> {
        let turn = self.values.take(&name.to_owned());
        self.run_in_turn(turn, move |connection, _| {
            Box::pin(async move { meta::swap_meta(connection, name, &expected, &value).await })
        })
    }

    fn metas(&self, prefix: &'static str) -> StoreFuture<Vec<(String, Vec<u8>)>> {
        self.run(move |connection, _| Box::pin(async move { meta::metas(connection, prefix).await }))
    }

    fn keyring_check(&self, value: Vec<u8>) -> StoreFuture<Option<Vec<u8>>> {
        self.run(move |connection, _| Box::pin(async move { meta::keyring_check(connection, &value).await }))
    }

    /// No version of this program has written a row without a code to PostgreSQL.
    fn code_rows(&self, _: i64) -> StoreFuture<Option<i64>> {
        Box::pin(async { Ok(None) })
    }

    fn unreadable(&self) -> usize {
        self.shared.reader.count()
    }

    fn open_line(&self) -> Option<StoreFuture<Line>> {
        let connections = self.connections.clone();
        Some(Box::pin(async move { connections.manager().open_line().await }))
    }

    fn say(&self, texts: Vec<String>) -> StoreFuture<()> {
        let channel = self.connections.manager().address.schema.clone();
        self.run(move |connection, _| Box::pin(async move { replicas::say(connection, &channel, &texts).await }))
    }

    fn report(&self, id: &str, report: Option<Vec<u8>>) -> StoreFuture<()> {
        let id = id.to_owned();
        self.run(move |connection, _| {
            Box::pin(async move { replicas::report(connection, &id, report.as_deref()).await })
        })
    }

    fn reports(&self) -> StoreFuture<Vec<ReplicaReport>> {
        self.run(move |connection, _| Box::pin(async move { replicas::reports(connection).await }))
    }

    fn server(&self) -> StoreFuture<Option<String>> {
        self.run(move |connection, store| Box::pin(async move { Ok(store.servers.look(connection).await) }))
    }

    fn is_elsewhere(&self) -> bool {
        self.shared.servers.is_elsewhere()
    }

    fn rely_on(&self, server: &str) {
        self.shared.servers.rely_on(server);
    }

    fn close(&self) -> StoreFuture<()> {
        let (finished, pools) = (self.tasks.close(), [self.connections.clone(), self.scans.clone()]);
        Box::pin(async move {
            finished.await;
            pools.iter().for_each(ConnectionPool::close);
            Ok(())
        })
    }
}
