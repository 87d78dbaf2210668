//! The take-over of a store that belongs to another deployment.

use super::{
    TokenSupervisor,
    command::TIMEOUT,
    ledger::{Audited, unavailable},
};
use crate::error::Error;

impl TokenSupervisor {
    /// Makes the store this deployment's, and ends the hold of all providers that comes with a store of another
    /// [`deployment`](crate::Builder::deployment). Returns the name of the deployment that it belonged to; `None` if it was
    /// ours. Only do this if that deployment does not use these grants any more: two systems that refresh one grant lose it.
    ///
    /// Dropping the future does not undo it: the store may have been adopted or not.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if this supervisor has no name of a deployment, or why it is not stored within 10 s.
    pub async fn adopt(&self) -> Result<Option<String>, Error> {
        if !self.rooms.providers.has_deployment() {
            return Err(Error::InvalidRequest("no deployment is set: without a name, no store belongs to another one"));
        }
        // In a task of its own: a caller that is gone must not leave this process behind what was stored.
        let supervisor = self.clone();
        let adopted = self.spawn(async move {
            let rooms = &supervisor.rooms;
            let adopted = rooms.providers.adopt(&rooms.ledger).await.map_err(|error| unavailable(&error));
            let outcome = adopted.as_ref().map(|_| None).map_err(Error::code);
            rooms.ledger.audit(supervisor.by(), "adopt", Audited::store(), outcome);
            adopted
        });
        tokio::select! {
            adopted = adopted => adopted.map_err(|_| Error::ShutDown)?,
            () = self.clock().sleep(TIMEOUT) => Err(Error::Timeout),
        }
    }
}
