//! The processes that work with the store, for operators.

use super::{
    TokenSupervisor,
    ledger::unavailable,
    replicas::{Replica, Replicas},
};
use crate::error::Error;

impl TokenSupervisor {
    /// Returns the processes that work with the store and live. A process that lives writes its report every 5 s; one that was
    /// killed is listed for 20 s. With SQLite it is this process alone.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not respond.
    pub async fn replicas(&self) -> Result<Vec<Replica>, Error> {
        let ports = self.rooms.refresher.ports();
        let replicas = ports.ledger.replicas();
        if !replicas.is_shared() {
            let stopping = ports.is_stopping();
            let report = Replicas::report(ports.keyring.labels(), ports.journal.owner().public("j"), false, stopping);
            return Ok(replicas.read(vec![replicas.own(report)]));
        }
        let reports = ports.ledger.store().reports().await.map_err(|error| unavailable(&error))?;
        Ok(replicas.read(reports).into_iter().filter(|replica| !replica.is_dead()).collect())
    }
}
