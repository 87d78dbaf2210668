//! Changes of the keys: which are sound, in a key file and in a process that uses the keys.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use subtle::ConstantTimeEq as _;

use super::{KeyId, KeyState, Keyring, KeyringKey};

/// Why a key cannot be changed as wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// Usually a typing error, or the file of another deployment.
    #[error("no key of the key file has the id {0}")]
    UnknownKey(String),
    /// It seals new values: there is nothing to promote, and it cannot be removed.
    #[error("key {0} is the active one")]
    Active(String),
}

/// Why a process cannot take over new keys, whatever its store contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TakeOverError {
    /// Usually the key file of another deployment.
    #[error(
        "its fingerprint_key differs from the running one, and must never change: restore the file from its backup"
    )]
    FingerprintKeyDiffers,
    /// The file was edited by hand.
    #[error("its key {0} differs from the running key {0}: restore the file from its backup")]
    KeyDiffers(KeyId),
    /// This process has sealed values with it until now, and may be about to store one.
    #[error(
        "it lacks key {0}, with which this process seals: put a file in place in which {0} is retired, reseal, and then remove \
         the key"
    )]
    ActiveMissing(KeyId),
}

impl Keyring {
    /// Returns since when the key has its state, where that is known.
    pub fn since(&self, id: &str) -> Option<SystemTime> {
        let keys = self.keys.load();
        let key = keys.keys.iter().find(|key| key.sealing.id().to_string() == id)?;
        key.since.map(|seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds))
    }

    /// Returns a keyring with one more random key, which is staged, and the id of the new key.
    ///
    /// # Panics
    /// If the operating system cannot provide random bytes.
    #[must_use]
    pub fn staging(&self, now: SystemTime) -> (Self, String) {
        let mut keys = (**self.keys.load()).clone();
        let key = loop {
            let key = KeyringKey::random(KeyState::Staged, Some(seconds(now)));
            if keys.find(key.sealing.id()).is_none() {
                break key;
            }
        };
        let id = key.sealing.id().to_string();
        keys.keys.push(key);
        (self.with(keys), id)
    }

    /// Returns a keyring in which this key is active, and the one that was active is retired. A retired key can become active again.
    ///
    /// # Errors
    /// There is no such key, or it is active already.
    pub fn promoting(&self, id: &str, now: SystemTime) -> Result<Self, RotationError> {
        let mut keys = (**self.keys.load()).clone();
        let at = self.inactive(id)?;
        for (at, state) in [(keys.active, KeyState::Retired), (at, KeyState::Active)] {
            keys.keys[at].state = state;
            keys.keys[at].since = Some(seconds(now));
        }
        keys.active = at;
        Ok(self.with(keys))
    }

    /// Returns a keyring without this key.
    ///
    /// # Errors
    /// There is no such key, or it is active.
    pub fn removing(&self, id: &str) -> Result<Self, RotationError> {
        let mut keys = (**self.keys.load()).clone();
        let at = self.inactive(id)?;
        keys.keys.remove(at);
        if at < keys.active {
            keys.active -= 1;
        }
        Ok(self.with(keys))
    }

    /// Returns the place of a key that is not active.
    fn inactive(&self, id: &str) -> Result<usize, RotationError> {
        let keys = self.keys.load();
        let wanted: Option<KeyId> = id.parse().ok();
        match keys.keys.iter().position(|key| Some(key.sealing.id()) == wanted) {
            None => Err(RotationError::UnknownKey(id.to_owned())),
            Some(at) if at == keys.active => Err(RotationError::Active(id.to_owned())),
            Some(at) => Ok(at),
        }
    }

    /// Returns the id of the key that seals.
    pub(crate) fn active(&self) -> KeyId {
        self.keys.load().active().id()
    }

    /// Returns the keys that `newer` lacks, if this keyring can take over its keys.
    ///
    /// # Errors
    /// It must not, whatever the store contains.
    pub(crate) fn lacking_in(&self, newer: &Self) -> Result<Vec<KeyId>, TakeOverError> {
        let proof = |keyring: &Self| keyring.lasting.fingerprint.proof();
        if !bool::from(proof(self).ct_eq(&proof(newer))) {
            return Err(TakeOverError::FingerprintKeyDiffers);
        }
        let (ours, theirs) = (self.keys.load(), newer.keys.load());
        let mut lacking = Vec::new();
        for key in &ours.keys {
            let id = key.sealing.id();
            match theirs.find(id) {
                Some(other) if !bool::from(other.secret().expose().ct_eq(key.sealing.secret().expose())) => {
                    return Err(TakeOverError::KeyDiffers(id));
                }
                Some(_) => {}
                None if id == ours.active().id() => return Err(TakeOverError::ActiveMissing(id)),
                None => lacking.push(id),
            }
        }
        Ok(lacking)
    }

    /// Replaces the keys by those of `newer`, for every clone. Returns whether anything changed.
    pub(crate) fn take_over(&self, newer: &Self) -> bool {
        let differs = self.labels() != newer.labels();
        self.keys.store(Arc::clone(&newer.keys.load()));
        differs
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keyring::Field, model::TokenKey};

    fn states(keyring: &Keyring) -> Vec<(String, &'static str)> {
        keyring.labels().into_iter().map(|label| (label.id, label.state.as_str())).collect()
    }

    fn state<'a>(id: &str, state: &'a str) -> (String, &'a str) {
        (id.to_owned(), state)
    }

    #[test]
    fn a_key_is_staged_promoted_retired_and_removed() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(9);
        let first = Keyring::fixed(&[("0a0b0c0d", 1)], 9);
        let (staged, id) = first.staging(now);
        assert_eq!(states(&staged), [state("0a0b0c0d", "active"), state(&id, "staged")]);
        assert_eq!((first.labels().len(), staged.since(&id), staged.since("0a0b0c0d")), (1, Some(now), None));
        assert_eq!(staged.removing(&id).unwrap().labels(), first.labels());
        let promoted = staged.promoting(&id, now).unwrap();
        assert_eq!(states(&promoted), [state("0a0b0c0d", "retired"), state(&id, "active")]);
        let back = promoted.promoting("0a0b0c0d", now).unwrap();
        assert_eq!(states(&back), [state("0a0b0c0d", "active"), state(&id, "retired")]);
        let removed = promoted.removing("0a0b0c0d").unwrap();
        assert_eq!(states(&removed), [state(&id, "active")]);

        let (key, plain) = (TokenKey::at("github").user("alice"), b"ts-test-secret-d");
        assert_eq!(
            &removed.open(&key, Field::Document, &promoted.seal(&key, Field::Document, plain)).unwrap()[..],
            plain
        );
        for (refused, error) in [
            (staged.promoting("0a0b0c0d", now), RotationError::Active("0a0b0c0d".to_owned())),
            (staged.removing("0a0b0c0d"), RotationError::Active("0a0b0c0d".to_owned())),
            (staged.promoting("ffffffff", now), RotationError::UnknownKey("ffffffff".to_owned())),
            (staged.removing("key"), RotationError::UnknownKey("key".to_owned())),
        ] {
            assert_eq!(refused.unwrap_err(), error);
        }
    }

    #[test]
    fn every_clone_takes_over_new_keys() {
        let key = TokenKey::at("github").user("alice");
        let running = Keyring::fixed(&[("0a0b0c0d", 1)], 9);
        let clone = running.clone();
        let sealed = clone.seal(&key, Field::Document, b"ts-test-secret-d");
        let newer = Keyring::fixed(&[("01020304", 2), ("0a0b0c0d", 1)], 9);
        assert_eq!(running.lacking_in(&newer), Ok(vec![]));
        assert!(running.take_over(&newer) && !running.take_over(&newer));
        assert_eq!(clone.labels(), newer.labels());
        assert!(clone.open(&key, Field::Document, &sealed).is_ok());
        let last = Keyring::fixed(&[("01020304", 2)], 9);
        assert_eq!(running.lacking_in(&last), Ok(vec!["0a0b0c0d".parse().unwrap()]));
    }

    #[test]
    fn keys_that_do_not_belong_to_the_running_ones_are_refused() {
        let running = Keyring::fixed(&[("0a0b0c0d", 1), ("01020304", 2)], 9);
        let id = |text: &str| text.parse::<KeyId>().unwrap();
        for (newer, fingerprint, expected) in [
            (&[("0a0b0c0d", 1), ("01020304", 2)][..], 8, TakeOverError::FingerprintKeyDiffers),
            (&[("0a0b0c0d", 3), ("01020304", 2)], 9, TakeOverError::KeyDiffers(id("0a0b0c0d"))),
            (&[("0a0b0c0d", 1), ("01020304", 3)], 9, TakeOverError::KeyDiffers(id("01020304"))),
            (&[("01020304", 2)], 9, TakeOverError::ActiveMissing(id("0a0b0c0d"))),
        ] {
            assert_eq!(running.lacking_in(&Keyring::fixed(newer, fingerprint)), Err(expected));
        }
    }
}
