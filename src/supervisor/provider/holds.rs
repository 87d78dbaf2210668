//! The identity providers that operators have put on hold, and the hold of all of them while the store belongs to another
//! deployment, or gets back what it has lost.
//!
//! The store has the reasons and the name of its deployment, so that they survive restarts. Each process has a copy, for
//! attempts and actors to look at, and reads it again with each sweep.

use std::collections::HashMap;

use tokio::sync::{Mutex, watch};

use crate::{
    store::StoreError,
    supervisor::{ledger::Ledger, replicas::News},
};

pub(super) struct Holds {
    held: watch::Sender<Held>,
    /// Held while the store is read or written, so that a read that began before a write never overwrites its result.
    alone: Mutex<()>,
    /// The name of this deployment, if it has one.
    deployment: Option<String>,
}

#[derive(Default, PartialEq)]
struct Held {
    /// The reasons of the holds, by the names of identity providers; also of names that are not configured now.
    reasons: HashMap<String, String>,
    /// Why nothing is sent to any of them: the store belongs to another deployment.
    foreign: Option<String>,
    /// What the store has lost is being brought back: nothing is sent to any of them until then.
    recovering: bool,
}

impl Held {
    fn reason(&self, name: &str) -> Option<&str> {
        let recovering = self.recovering.then_some(RECOVERING);
        self.foreign.as_deref().or(recovering).or_else(|| self.reasons.get(name).map(String::as_str))
    }
}

/// The prefix of the names of these values in the store; the identity provider's name follows.
const PREFIX: &str = "held:";

/// The name of the value in the store that is there while what it has lost is being brought back.
pub(in crate::supervisor) const RECOVERY: &str = "recovery";

const RECOVERING: &str = "the store went back in time, and what it has lost is being brought back";

/// The name of the value in the store that has the name of its deployment.
const DEPLOYMENT: &str = "deployment";

impl Holds {
    pub(super) fn new(deployment: Option<String>) -> Self {
        Self { held: watch::Sender::default(), alone: Mutex::default(), deployment }
    }

    pub(super) fn has_deployment(&self) -> bool {
        self.deployment.is_some()
    }

    /// Returns why the provider is on hold, if it is.
    pub(super) fn reason(&self, name: &str) -> Option<String> {
        self.held.borrow().reason(name).map(str::to_owned)
    }

    /// Returns why all providers are on hold, if the store belongs to another deployment.
    pub(super) fn foreign(&self) -> Option<String> {
        self.held.borrow().foreign.clone()
    }

    /// Whether all providers are on hold because the store went back in time.
    pub(super) fn is_recovering(&self) -> bool {
        self.held.borrow().recovering
    }

    /// Resolves when the provider is on hold.
    pub(super) async fn until_held(&self, name: &str) {
        self.held.subscribe().wait_for(|held| held.reason(name).is_some()).await.ok();
    }

    /// Reads from the store which providers are on hold, and which deployment it belongs to. A store that belongs to none is
    /// ours from then on.
    pub(super) async fn read(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let _alone = self.alone.lock().await;
        let stored = ledger.store().metas(PREFIX).await?.into_iter();
        let reasons = stored.map(|(name, reason)| (name, String::from_utf8_lossy(&reason).into_owned())).collect();
        let foreign = match &self.deployment {
            None => None,
            Some(ours) => {
                let owner = match self.owner(ledger).await? {
                    Some(owner) => owner,
                    None => ledger.store().meta(DEPLOYMENT, ours.as_bytes().to_vec()).await?,
                };
                (owner != ours.as_bytes()).then(|| foreign(&owner))
            }
        };
        let recovering = ledger.store().metas(RECOVERY).await?.iter().any(|(rest, _)| rest.is_empty());
        let held = Held { reasons, foreign, recovering };
        self.held.send_if_modified(|before| {
            let changed = *before != held;
            if let Some(reason) = held.foreign.as_ref().filter(|reason| before.foreign.as_ref() != Some(*reason)) {
                tracing::warn!(
                    deployment = self.deployment,
                    "{reason}: nothing is sent to identity providers, valid tokens are served; if that deployment does not \
                     use these grants any more, run `token-supervisor adopt`"
                );
            }
            *before = held;
            changed
        });
        Ok(())
    }

    async fn owner(&self, ledger: &Ledger) -> Result<Option<Vec<u8>>, StoreError> {
        let found = ledger.store().metas(DEPLOYMENT).await?.into_iter().find(|(rest, _)| rest.is_empty());
        Ok(found.map(|(_, owner)| owner))
    }

    /// Makes the store ours. Returns the name of the deployment that it belonged to, if that was another one.
    pub(super) async fn adopt(&self, ledger: &Ledger) -> Result<Option<String>, StoreError> {
        let Some(ours) = &self.deployment else { return Ok(None) };
        let before = {
            let _alone = self.alone.lock().await;
            let before = self.owner(ledger).await?.filter(|owner| owner != ours.as_bytes());
            ledger.store().set_meta(DEPLOYMENT, Some(ours.as_bytes().to_vec())).await?;
            ledger.replicas().tell(|| News::Holds);
            before
        };
        self.read(ledger).await?;
        ledger.alarm().ring();
        Ok(before.map(|owner| String::from_utf8_lossy(&owner).into_owned()))
    }

    /// Stores a hold with this reason, or the end of one.
    pub(super) async fn set(&self, ledger: &Ledger, name: &str, reason: Option<&str>) -> Result<(), StoreError> {
        let _alone = self.alone.lock().await;
        ledger.store().set_meta(&format!("{PREFIX}{name}"), reason.map(|reason| reason.as_bytes().to_vec())).await?;
        ledger.replicas().tell(|| News::Holds);
        self.held.send_modify(|held| match reason {
            Some(reason) => drop(held.reasons.insert(name.to_owned(), reason.to_owned())),
            None => drop(held.reasons.remove(name)),
        });
        ledger.alarm().ring();
        Ok(())
    }
}

fn foreign(owner: &[u8]) -> String {
    format!("the store belongs to the deployment {}", String::from_utf8_lossy(owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::bench::Bench;

    #[tokio::test]
    async fn a_hold_is_stored_and_read_by_the_next_process() {
        let bench = Bench::new();
        let (first, next) = (Holds::new(None), Holds::new(None));
        first.set(&bench.ledger, "github", Some("maintenance")).await.unwrap();
        first.until_held("github").await;
        next.read(&bench.ledger).await.unwrap();
        assert_eq!((next.reason("github").as_deref(), next.reason("gitlab")), (Some("maintenance"), None));
        first.set(&bench.ledger, "github", None).await.unwrap();
        next.read(&bench.ledger).await.unwrap();
        assert_eq!([first.reason("github"), next.reason("github")], [None, None]);
    }

    #[tokio::test]
    async fn a_hold_that_is_not_stored_does_not_hold() {
        let (bench, holds) = (Bench::new(), Holds::new(None));
        bench.break_store();
        assert!(holds.set(&bench.ledger, "github", Some("maintenance")).await.is_err());
        assert_eq!(holds.reason("github"), None);
    }

    #[tokio::test]
    async fn the_store_of_another_deployment_is_on_hold_until_it_is_adopted() {
        let bench = Bench::new();
        let [production, staging, nameless] =
            [Some("production"), Some("staging"), None].map(|name| Holds::new(name.map(str::to_owned)));
        let read = async |holds: &Holds| {
            holds.read(&bench.ledger).await.unwrap();
            holds.reason("github")
        };
        assert_eq!([read(&nameless).await, read(&production).await], [None, None]);
        assert_eq!(read(&staging).await.as_deref(), Some("the store belongs to the deployment production"));
        staging.until_held("any").await;
        assert_eq!([read(&nameless).await, read(&production).await], [None, None]);
        assert_eq!(nameless.adopt(&bench.ledger).await.unwrap(), None);

        assert_eq!(staging.adopt(&bench.ledger).await.unwrap().as_deref(), Some("production"));
        assert_eq!((staging.reason("github"), staging.foreign()), (None, None));
        assert_eq!(staging.adopt(&bench.ledger).await.unwrap(), None);
        assert!(read(&production).await.is_some(), "it lost the store");
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_read_is_not_adopted() {
        let bench = Bench::new();
        let [production, staging] = ["production", "staging"].map(|name| Holds::new(Some(name.to_owned())));
        production.read(&bench.ledger).await.unwrap();
        staging.read(&bench.ledger).await.unwrap();
        bench.break_store();
        assert!(staging.adopt(&bench.ledger).await.is_err());
        assert!(staging.foreign().is_some());
    }
}
