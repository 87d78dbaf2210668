//! The rotation of the keys that seal stored values: what needs each key, and new keys for a running process.
//!
//! A key is *staged* (it opens), then *active* (it also seals), then *retired* (it only opens), and removed when nothing needs it.
//! The key file is changed by operators alone; a process takes its keys over. `reseal` moves stored values to the active key.
//!
//! A process gives up a key only if nothing needs it that the process can see: the store, and the journals of its directory. The
//! order of the two checks: a response is in the journal until the store has it.

mod check;
mod need;
mod reseal;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

pub(super) use self::check::{CheckReseal, reseal_check};
pub use self::{need::KeyNeed, reseal::ResealStep};
use super::{TokenSupervisor, ledger::unavailable};
use crate::{
    error::Error,
    keyring::{KeyId, KeyLabel, KeyState, Keyring, key_id},
    model::Sealed,
    protocol::Commit,
    store::StoreError,
};

/// A key, and what needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyStatus {
    /// Eight hexadecimal digits.
    pub id: String,
    /// Its role in this process; `None` if the key ring lacks it although something needs it.
    pub state: Option<KeyState>,
    /// When it got that role, where the key file says it.
    pub since: Option<SystemTime>,
    /// What needs it.
    pub need: KeyNeed,
}

impl TokenSupervisor {
    /// Returns the keys in the order of the key file, and what needs each of them. Reads every row of the store.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not respond; [`Error::Journal`] if a journal cannot be read.
    pub async fn keys(&self) -> Result<Vec<KeyStatus>, Error> {
        let keyring = &self.rooms.refresher.ports().keyring;
        let mut needs = self.key_needs().await?;
        let mut keys = Vec::new();
        for KeyLabel { id, state } in keyring.labels() {
            let need = needs.remove(&id).unwrap_or_default();
            let since = keyring.since(&id);
            keys.push(KeyStatus { id, state: Some(state), since, need });
        }
        keys.extend(needs.into_iter().map(|(id, need)| KeyStatus { id, state: None, since: None, need }));
        Ok(keys)
    }

    /// Replaces the keys of the running process, as after a change of the key file: new values are sealed with the key that is
    /// active now. Returns whether anything changed.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the keys do not belong to the running ones, or lack one that seals or is still needed;
    /// [`Error::Unavailable`] or [`Error::Journal`] if that cannot be checked. The old keys stay in use.
    pub async fn set_keyring(&self, keyring: &Keyring) -> Result<bool, Error> {
        let ours = &self.rooms.refresher.ports().keyring;
        let refused = |why: String| Error::Configuration(format!("the new keys are not used: {why}"));
        let lacking = ours.lacking_in(keyring).map_err(|error| refused(error.to_string()))?;
        if !lacking.is_empty() {
            let needs = self.key_needs().await?;
            for id in lacking.iter().map(KeyId::to_string) {
                if let Some(need) = needs.get(&id).filter(|need| need.is_any()) {
                    return Err(refused(format!(
                        "key {id} is missing, and needed by {}: put the key back, reseal, and then remove it",
                        need.in_words()
                    )));
                }
            }
        }
        let changed = ours.take_over(keyring);
        if let Err(error) = reseal_check(self.rooms.ledger.store(), ours).await {
            tracing::warn!(%error, "the check value is not sealed with the active key yet: a reseal does it");
        }
        Ok(changed)
    }

    /// Returns what needs each key that anything needs.
    async fn key_needs(&self) -> Result<BTreeMap<String, KeyNeed>, Error> {
        let ports = self.rooms.refresher.ports();
        let mut needs = BTreeMap::<String, KeyNeed>::new();
        // The journals first: what is taken out of one is in the store by then.
        let journal = ports.journal.clone();
        let waiting = ports.runtime.spawn_blocking(move || journal.waiting()).await;
        for entry in waiting.map_err(|_| Error::ShutDown)?? {
            let sealed = entry.payload.as_deref().map(sealed_in).unwrap_or_default();
            for key in sealed.into_iter().chain([entry.sealed_by]).collect::<BTreeSet<_>>() {
                needs.entry(key.to_string()).or_default().journal += 1;
            }
        }
        let store = ports.ledger.store();
        let failed = |error: StoreError| unavailable(&error);
        let checked = store.keyring_check(ports.keyring.check_value().0).await.map_err(failed)?;
        if let Some(key) = checked.and_then(|checked| key_id(&Sealed(checked)).ok()) {
            needs.entry(key.to_string()).or_default().check = true;
        }
        for used in store.key_use().await.map_err(failed)? {
            let need = needs.entry(used.key.to_string()).or_default();
            (need.rows, need.revocations) = (used.rows, used.revocations);
        }
        Ok(needs)
    }
}

/// Returns the keys that sealed the values of a journaled response. One of a later version counts by its entry alone.
fn sealed_in(payload: &[u8]) -> Vec<KeyId> {
    let Ok(commit) = serde_json::from_slice::<Commit>(payload) else { return Vec::new() };
    let token = commit.token.as_ref().map(|token| &token.sealed);
    token.into_iter().chain([&commit.document]).filter_map(|sealed| key_id(sealed).ok()).collect()
}
