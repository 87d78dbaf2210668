//! What needs a key, and when a key may change its role.

use super::ReplicaKeys;
use crate::keyring::KeyState;

/// What needs a key: it cannot be removed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyNeed {
    /// Stored grants with a value that it sealed.
    pub rows: u64,
    /// Queued revocations that it sealed.
    pub revocations: u64,
    /// Responses that it sealed in the journals of this machine, and that the store does not have yet.
    pub journal: u64,
    /// Whether it sealed the value by which the store's keys are checked at start.
    pub check: bool,
}

impl KeyNeed {
    /// Returns whether anything needs the key.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// Returns what needs the key as a list, such as "12 grants and the check value".
    pub fn in_words(&self) -> String {
        let many = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let all = [
            many(self.rows, "grant", "grants"),
            many(self.revocations, "queued revocation", "queued revocations"),
            many(self.journal, "response in the journal", "responses in the journal"),
            self.check.then(|| "the check value".to_owned()),
        ];
        let all: Vec<_> = all.into_iter().flatten().collect();
        match all.as_slice() {
            [] => "nothing".to_owned(),
            [only] => only.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

impl ReplicaKeys {
    /// Returns the names of the replicas that lack this key: while there are any, it must not become active.
    pub fn lacking<'a>(replicas: &'a [Self], id: &str) -> Vec<&'a str> {
        let lacks = |replica: &&Self| replica.keys.iter().all(|key| key.id != id);
        replicas.iter().filter(lacks).map(|replica| replica.name.as_str()).collect()
    }

    /// Returns the names of the replicas that seal with this key: while there are any, it must not be removed.
    pub fn sealing<'a>(replicas: &'a [Self], id: &str) -> Vec<&'a str> {
        let seals = |replica: &&Self| replica.keys.iter().any(|key| key.id == id && key.state == KeyState::Active);
        replicas.iter().filter(seals).map(|replica| replica.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::KeyLabel;

    fn replica(name: &str, keys: &[(&str, KeyState)]) -> ReplicaKeys {
        let keys = keys.iter().map(|(id, state)| KeyLabel { id: (*id).to_owned(), state: *state }).collect();
        ReplicaKeys { name: name.to_owned(), keys }
    }

    #[test]
    fn a_key_is_promoted_when_every_replica_has_it_and_removed_when_none_seals_with_it() {
        use KeyState::{Active, Retired, Staged};
        let replicas = [
            replica("web-1", &[("old", Active), ("new", Staged)]),
            replica("web-2", &[("old", Active)]),
            replica("web-3", &[("old", Retired), ("new", Active)]),
        ];
        assert_eq!(ReplicaKeys::lacking(&replicas, "new"), ["web-2"]);
        assert_eq!(ReplicaKeys::lacking(&replicas, "other"), ["web-1", "web-2", "web-3"]);
        assert!(ReplicaKeys::lacking(&replicas, "old").is_empty() && ReplicaKeys::lacking(&[], "new").is_empty());
        assert_eq!(ReplicaKeys::sealing(&replicas, "old"), ["web-1", "web-2"]);
        assert_eq!(ReplicaKeys::sealing(&replicas, "new"), ["web-3"]);
    }

    #[test]
    fn a_need_is_named() {
        let need = KeyNeed { rows: 12, revocations: 1, journal: 2, check: true };
        assert_eq!(need.in_words(), "12 grants, 1 queued revocation, 2 responses in the journal and the check value");
        assert_eq!(KeyNeed { rows: 1, ..KeyNeed::default() }.in_words(), "1 grant");
        assert!(need.is_any() && !KeyNeed::default().is_any());
    }
}
