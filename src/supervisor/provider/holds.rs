//! The identity providers that operators have put on hold.
//!
//! The store has the reasons, so that they survive restarts. Each process has a copy, for attempts and actors to look at,
//! and reads it again with each sweep.

use std::collections::HashMap;

use tokio::sync::{Mutex, watch};

use crate::{store::StoreError, supervisor::ledger::Ledger};

/// The reasons of the holds, by the names of identity providers; also of names that are not configured now.
#[derive(Default)]
pub(super) struct Holds {
    reasons: watch::Sender<HashMap<String, String>>,
    /// Held while the store is read or written, so that a read that began before a write never overwrites its result.
    alone: Mutex<()>,
}

/// The prefix of the names of these values in the store; the identity provider's name follows.
const PREFIX: &str = "held:";

impl Holds {
    /// Returns why the provider is on hold, if it is.
    pub(super) fn reason(&self, name: &str) -> Option<String> {
        self.reasons.borrow().get(name).cloned()
    }

    /// Resolves when the provider is on hold.
    pub(super) async fn until_held(&self, name: &str) {
        self.reasons.subscribe().wait_for(|reasons| reasons.contains_key(name)).await.ok();
    }

    /// Reads from the store which providers are on hold.
    pub(super) async fn read(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let _alone = self.alone.lock().await;
        let stored = ledger.store().metas(PREFIX).await?.into_iter();
        let held: HashMap<_, _> =
            stored.map(|(name, reason)| (name, String::from_utf8_lossy(&reason).into_owned())).collect();
        self.reasons.send_if_modified(|reasons| {
            let changed = *reasons != held;
            *reasons = held;
            changed
        });
        Ok(())
    }

    /// Stores a hold with this reason, or the end of one.
    pub(super) async fn set(&self, ledger: &Ledger, name: &str, reason: Option<&str>) -> Result<(), StoreError> {
        let _alone = self.alone.lock().await;
        ledger.store().set_meta(&format!("{PREFIX}{name}"), reason.map(|reason| reason.as_bytes().to_vec())).await?;
        self.reasons.send_modify(|reasons| match reason {
            Some(reason) => drop(reasons.insert(name.to_owned(), reason.to_owned())),
            None => drop(reasons.remove(name)),
        });
        ledger.alarm().ring();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::bench::Bench;

    #[tokio::test]
    async fn a_hold_is_stored_and_read_by_the_next_process() {
        let bench = Bench::new();
        let (first, next) = (Holds::default(), Holds::default());
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
        let (bench, holds) = (Bench::new(), Holds::default());
        bench.break_store();
        assert!(holds.set(&bench.ledger, "github", Some("maintenance")).await.is_err());
        assert_eq!(holds.reason("github"), None);
    }
}
