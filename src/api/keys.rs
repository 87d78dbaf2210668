//! The bodies that describe the keys that seal stored values.

use std::{borrow::Cow, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{ReplicaBody, requests::Whole, time};
use crate::{KeyLabel, KeyNeed, KeyState, KeyStatus, Keyring, ResealStep};

/// A key, and what needs it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "KeyUse"))]
#[non_exhaustive]
pub struct KeyUseBody {
    /// Eight hexadecimal digits.
    pub id: String,
    /// Its role: `active` (it seals), `staged` or `retired` (it opens); `missing` if the key file lacks it although something needs
    /// it.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::key_state"))]
    pub state: Cow<'static, str>,
    /// When it got that role, where the key file says it.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub since: Option<SystemTime>,
    /// Stored grants with a value that it sealed.
    pub rows: u64,
    /// Queued revocations that it sealed.
    pub revocations: u64,
    /// Responses that it sealed in the journals of the server's machine, and that the store does not have yet.
    pub journal: u64,
    /// Whether it sealed the value by which the store's keys are checked at start.
    pub check: bool,
}

impl KeyUseBody {
    /// Returns what needs the key.
    pub fn need(&self) -> KeyNeed {
        KeyNeed { rows: self.rows, revocations: self.revocations, journal: self.journal, check: self.check }
    }
}

impl From<KeyStatus> for KeyUseBody {
    fn from(KeyStatus { id, state, since, need }: KeyStatus) -> Self {
        let KeyNeed { rows, revocations, journal, check } = need;
        let state = state.map_or("missing", crate::KeyState::as_str).into();
        Self { id, state, since, rows, revocations, journal, check }
    }
}

impl ReplicaBody {
    /// Returns whether the process has this key.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Returns the key with which the process seals.
    pub fn seals_with(&self) -> Option<&str> {
        self.keys.iter().find(|key| key.state == KeyState::Active).map(|key| key.id.as_str())
    }
}

/// The keys that seal stored values, and who has them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Keys"))]
#[non_exhaustive]
pub struct KeysBody {
    /// The keys in the order of the key file, then those that are missing.
    pub items: Vec<KeyUseBody>,
    /// The processes that work with the store and live.
    pub replicas: Vec<ReplicaBody>,
}

impl KeysBody {
    /// Returns the body for these keys and processes.
    pub fn new(keys: Vec<KeyStatus>, replicas: Vec<ReplicaBody>) -> Self {
        Self { items: keys.into_iter().map(KeyUseBody::from).collect(), replicas }
    }

    /// Returns the keys of a key file that nothing needs and no process has.
    pub fn unused(keyring: &Keyring) -> Self {
        let status = |KeyLabel { id, state }: KeyLabel| {
            let since = keyring.since(&id);
            KeyUseBody { id, state: state.as_str().into(), since, rows: 0, revocations: 0, journal: 0, check: false }
        };
        Self { items: keyring.labels().into_iter().map(status).collect(), replicas: Vec::new() }
    }

    /// Returns the names of the replicas that lack this key: while there are any, it must not become active. One of a later version
    /// that reports its keys otherwise counts as one that lacks it.
    pub fn lacking(&self, id: &str) -> Vec<&str> {
        self.replicas.iter().filter(|replica| !replica.has(id)).map(|replica| replica.id.as_str()).collect()
    }

    /// Returns the names of the replicas that seal with this key: while there are any, it must not be removed.
    pub fn sealing(&self, id: &str) -> Vec<&str> {
        let seal = self.replicas.iter().filter(|replica| replica.seals_with() == Some(id));
        seal.map(|replica| replica.id.as_str()).collect()
    }
}

/// Where to go on with sealing stored values again.
#[derive(Default, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Reseal"))]
#[serde(deny_unknown_fields)]
pub(crate) struct ResealBody {
    /// `next` of the response before; from the start unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Whole>,
}

/// What a request has sealed again with the active key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Resealed"))]
#[non_exhaustive]
pub struct ResealedBody {
    /// Grants, queued revocations and other values that the active key seals now.
    pub resealed: u64,
    /// Grants that are being refreshed: request a pass from the start later.
    pub later: u64,
    /// Grants and queued revocations that cannot be read or opened: the log names them.
    pub failed: u64,
    /// Where to go on; null at the end of a pass.
    pub next: Option<u64>,
}

impl From<ResealStep> for ResealedBody {
    fn from(ResealStep { resealed, later, failed, next }: ResealStep) -> Self {
        Self { resealed, later, failed, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        KeyState::{Active, Retired, Staged},
        api::KeyBody,
    };

    fn replica(id: &str, keys: &[(&str, KeyState)]) -> ReplicaBody {
        let key = |(id, state): &(&str, KeyState)| KeyBody { id: (*id).to_owned(), state: *state };
        let (version, journal) = (String::new(), String::new());
        let keys = keys.iter().map(key).collect();
        ReplicaBody { id: id.to_owned(), version, keys, journal, last_seen: 0, stopping: false, this: false }
    }

    #[test]
    fn a_key_is_promoted_when_every_replica_has_it_and_removed_when_none_seals_with_it() {
        let replicas = vec![
            replica("r_1", &[("old", Active), ("new", Staged)]),
            replica("r_2", &[("old", Active)]),
            replica("r_3", &[("old", Retired), ("new", Active)]),
        ];
        let keys = KeysBody::new(Vec::new(), replicas);
        assert_eq!(keys.lacking("new"), ["r_2"]);
        assert_eq!(keys.lacking("other"), ["r_1", "r_2", "r_3"]);
        assert!(keys.lacking("old").is_empty() && KeysBody::new(Vec::new(), Vec::new()).lacking("new").is_empty());
        assert_eq!(keys.sealing("old"), ["r_1", "r_2"]);
        assert_eq!(keys.sealing("new"), ["r_3"]);
        assert_eq!(KeysBody::new(Vec::new(), vec![replica("r_4", &[])]).lacking("old"), ["r_4"]);
    }
}
