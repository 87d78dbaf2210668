//! The key ring: keys that seal stored values and compute the fingerprints of tokens.
//!
//! All keys open, and exactly one, the *active* key, seals. To replace a key, stage the next one on every replica, make
//! it active, reseal the values that the old one sealed, and remove the old one. Key ids are random, so that two key
//! files never use one id for different keys. The fingerprint key is never rotated: the fingerprints of spent tokens
//! must be recognized for as long as they are kept.
//!
//! Invariants: only `seal` uses the cipher; no error, log line or `Debug` contains key material or a line of the key
//! file; keys are wiped from memory when the last clone is dropped. Deliberately absent: the store and the journal,
//! which see only [`Sealed`].

mod check;
mod file;
mod fingerprint;
mod key;
mod pseudonyms;
mod row_code;
mod seal;

use std::{fmt, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Error,
    model::{Fingerprint, RefreshToken, Sealed, TokenKey},
};

pub(crate) use check::CheckedRows;
use fingerprint::FingerprintKey;
use key::{KeyId, Secret, random};
use pseudonyms::Pseudonyms;
pub(crate) use row_code::{RowCode, RowCodes};
pub(crate) use seal::{Field, OpenError};
use seal::{NONCE, SealingKey};

/// The keys that seal stored tokens. Cloning increments a reference count.
///
/// Keep the key file and the database in different backups: either of them alone is useless to a thief, and the
/// database without its keys is useless to you.
///
/// ```
/// use token_supervisor::Keyring;
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("tokens.keys");
/// Keyring::generate().write_new(&path)?;
/// let keyring = Keyring::from_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<Keys>,
}

impl Keyring {
    /// Returns a keyring with one new random key and a new fingerprint key.
    ///
    /// # Panics
    /// If the operating system cannot provide random bytes.
    pub fn generate() -> Self {
        let key = KeyringKey { state: KeyState::Active, sealing: SealingKey::new(KeyId(random()), Secret::random()) };
        Self { keys: Arc::new(Keys::new(vec![key], 0, FingerprintKey(Secret::random()))) }
    }

    /// Reads the keyring from a file that [`write_new`](Self::write_new) or `token-supervisor init` wrote.
    ///
    /// # Errors
    /// [`Error::Start`] with the problem and what to do; it never quotes the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let keys = Arc::new(file::read(path.as_ref())?);
        Ok(Self { keys })
    }

    /// Writes the keys to a new file that only its owner can read (mode 0600), and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Start`] if the file already exists (it is left unchanged) or cannot be written.
    pub fn write_new(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(file::write_new(path.as_ref(), &self.keys)?)
    }

    /// Seals with the active key. The result is bound to the row and the field, and opens nowhere else.
    pub(crate) fn seal(&self, key: &TokenKey, field: Field, plaintext: &[u8]) -> Sealed {
        self.seal_with_nonce(random(), key, field, plaintext)
    }

    /// Seals with the given nonce; apart from [`seal`](Self::seal), only golden tests may call it.
    fn seal_with_nonce(&self, nonce: [u8; NONCE], key: &TokenKey, field: Field, plaintext: &[u8]) -> Sealed {
        self.keys.keys[self.keys.active].sealing.seal(nonce, key, field, plaintext)
    }

    /// Opens a value that any of the keys sealed for this row and this field.
    ///
    /// # Errors
    /// The value does not open.
    pub(crate) fn open(&self, key: &TokenKey, field: Field, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let id = seal::key_id(sealed)?;
        let sealing = self.keys.find(id).ok_or(OpenError::UnknownKey(id))?;
        sealing.open(key, field, sealed)
    }

    /// Returns a keyed hash of a refresh token, which identifies the token without revealing it.
    pub(crate) fn fingerprint(&self, idp: &str, token: &RefreshToken) -> Fingerprint {
        self.keys.fingerprint.of(idp, token)
    }

    /// Returns the keys, without their secrets.
    pub(crate) fn labels(&self) -> Vec<KeyLabel> {
        let keys = self.keys.keys.iter();
        keys.map(|key| KeyLabel { id: key.sealing.id().to_string(), state: key.state }).collect()
    }

    /// Returns what computes the codes of stored rows.
    pub(crate) fn row_codes(&self) -> RowCodes {
        RowCodes(self.keys.clone())
    }

    /// Returns a stable pseudonym of a user for logs. Only a holder of the keys can link it to the user.
    pub(crate) fn pseudonym(&self, user: &str) -> Fingerprint {
        self.keys.pseudonyms.of(user, || self.keys.fingerprint.of_user(user))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let active = self.keys.keys[self.keys.active].sealing.id();
        f.debug_struct("Keyring").field("active", &active).field("keys", &self.keys.keys.len()).finish_non_exhaustive()
    }
}

/// The content of a key file. Exactly one key is active, and no two have the same id.
struct Keys {
    keys: Vec<KeyringKey>,
    active: usize,
    fingerprint: FingerprintKey,
    /// Those of the fingerprint key.
    pseudonyms: Pseudonyms,
}

impl Keys {
    fn new(keys: Vec<KeyringKey>, active: usize, fingerprint: FingerprintKey) -> Self {
        Self { keys, active, fingerprint, pseudonyms: Pseudonyms::default() }
    }

    fn find(&self, id: KeyId) -> Option<&SealingKey> {
        self.keys.iter().map(|key| &key.sealing).find(|sealing| sealing.id() == id)
    }
}

/// A key of the key ring, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyLabel {
    /// The id of the key: 8 hexadecimal digits.
    pub id: String,
    /// What the key is used for.
    pub state: KeyState,
}

struct KeyringKey {
    state: KeyState,
    sealing: SealingKey,
}

/// The role of a key. Keys of every role open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum KeyState {
    /// Seals new values.
    Active,
    /// Becomes active when every replica has it.
    Staged,
    /// Was active; can be removed when no stored value needs it.
    Retired,
}

#[cfg(any(test, fuzzing))]
impl Keyring {
    /// Returns a keyring of known keys: for each id, a key whose bytes all equal the given number. The first is active.
    pub(crate) fn fixed(keys: &[(&str, u8)], fingerprint: u8) -> Self {
        let secret = |byte| Secret(Box::new([byte; 32]));
        let key = |(at, (id, byte)): (usize, &(&str, u8))| KeyringKey {
            state: if at == 0 { KeyState::Active } else { KeyState::Retired },
            sealing: SealingKey::new(id.parse().expect("eight hexadecimal digits"), secret(*byte)),
        };
        let keys = keys.iter().enumerate().map(key).collect();
        Self { keys: Arc::new(Keys::new(keys, 0, FingerprintKey(secret(fingerprint)))) }
    }

    /// Parses the text of a key file; the error is everything that could be shown of it, with its `Debug`.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        let shown = |error| [format!("{error:?}"), Error::from(error).to_string()].concat();
        file::parse(Path::new("tokens.keys"), json).map(|keys| Self { keys: Arc::new(keys) }).map_err(shown)
    }

    /// Returns the text that [`write_new`](Self::write_new) writes.
    pub(crate) fn to_json(&self) -> Zeroizing<Vec<u8>> {
        file::to_json(&self.keys)
    }

    /// Seals with the key and the nonce of another sealed value.
    pub(crate) fn seal_like(&self, like: &Sealed, key: &TokenKey, field: Field, plaintext: &[u8]) -> Option<Sealed> {
        let sealing = self.keys.find(seal::key_id(like).ok()?)?;
        Some(sealing.seal(*like.0.get(5..)?.first_chunk()?, key, field, plaintext))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_open_and_the_active_one_seals() {
        let key = TokenKey::at("github").user("alice");
        let old = Keyring::fixed(&[("0a0b0c0d", 1)], 9);
        let both = Keyring::fixed(&[("01020304", 2), ("0a0b0c0d", 1)], 9);
        let sealed = old.seal(&key, Field::Document, b"ts-test-secret-d");
        assert_eq!(&both.open(&key, Field::Document, &sealed).unwrap()[..], b"ts-test-secret-d");
        let sealed = both.seal(&key, Field::Document, b"ts-test-secret-d");
        let error = old.open(&key, Field::Document, &sealed).unwrap_err();
        assert_eq!(error.to_string(), "sealed with key 01020304, which is not in the key file");
    }

    #[test]
    fn debug_shows_no_key() {
        let keyring = Keyring::fixed(&[("0a0b0c0d", 0x5a)], 0x5b);
        assert_eq!(format!("{keyring:?}"), "Keyring { active: 0a0b0c0d, keys: 1, .. }");
    }

    #[test]
    fn a_key_id_is_eight_hexadecimal_digits() {
        assert_eq!("0a0b0c0d".parse::<KeyId>().unwrap().to_string(), "0a0b0c0d");
        for text in ["", "0a0b0c0", "0a0b0c0d0", "+a0b0c0d", "0a0b0c0g", "äää"] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }
}
