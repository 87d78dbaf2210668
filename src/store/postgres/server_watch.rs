//! Which server the database is on: a standby that was promoted may lack what its predecessor has acknowledged.

use std::sync::{Mutex, MutexGuard, PoisonError};

use diesel::sql_types::{Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::statement::sql;
use crate::{protocol::Change, store::StoreError};

/// Every new connection is compared with the server that the process relies on, before it is used.
#[derive(Default)]
pub(super) struct ServerWatch(Mutex<Servers>);

#[derive(Default)]
struct Servers {
    seen: Option<String>,
    relied_on: Option<String>,
}

impl ServerWatch {
    /// Looks which server a connection leads to.
    pub(super) async fn look(&self, connection: &mut AsyncPgConnection) -> Option<String> {
        let server = server(connection).await;
        self.servers().seen.clone_from(&server);
        server
    }

    pub(super) fn rely_on(&self, server: &str) {
        self.servers().relied_on = Some(server.to_owned());
    }

    /// Whether the last connection led to another server than the one that is relied on.
    pub(super) fn is_elsewhere(&self) -> bool {
        let servers = self.servers();
        servers.relied_on.is_some() && servers.seen != servers.relied_on
    }

    /// Refuses to claim a refresh token on a server that is not relied on: it may lack the claim of a request that is under way.
    pub(super) fn check(&self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Claim(_) | Change::Recover(_) if self.is_elsewhere() => Err(StoreError::Unavailable(
                "the database is on another server than before, or was promoted: refreshes go on when the replicas have compared \
                 it with their histories"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of the database cluster and of the line of its history (the timeline: a server that was promoted begins
/// another one). `None` if the server does not say: it is a standby, or does not let everybody ask.
async fn server(connection: &mut AsyncPgConnection) -> Option<String> {
    let server = sql::<Nullable<Text>>(
        "SELECT CASE WHEN NOT pg_is_in_recovery() THEN (SELECT system_identifier FROM pg_control_system()) || '/' || \
         left(pg_walfile_name(pg_current_wal_lsn()), 8) END",
    );
    server.get_result::<Option<String>>(connection).await.ok().flatten()
}
