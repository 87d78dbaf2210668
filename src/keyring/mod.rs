//! The key ring: keys that seal stored values and compute the fingerprints of tokens.
//!
//! All keys open, and exactly one, the *active* key, seals. To replace a key, stage the next one on every replica, make
//! it active, reseal the values that the old one sealed, and remove the old one. Key ids are random, so that two key
//! files never use one id for different keys. The fingerprint key is never rotated: the fingerprints of spent tokens
//! must be recognized for as long as they are kept.
//!
//! The keys can be replaced while they are in use ([`Keyring::take_over`]): every clone sees the new ones. `rotation` says which
//! changes of a key file are sound, `edit` writes a changed file.
//!
//! Invariants: only `seal` uses the cipher; no error, log line or `Debug` contains key material or a line of the key
//! file; keys are wiped from memory when the last clone is dropped. Deliberately absent: the store and the journal,
//! which see only [`Sealed`].

mod check;
mod edit;
mod file;
mod fingerprint;
mod key;
mod pseudonyms;
mod rotation;
mod row_code;
mod seal;

use std::{fmt, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Error,
    model::{Fingerprint, RefreshToken, Sealed, TokenKey},
};

pub(crate) use check::CheckedRows;
pub use edit::KeyFileEdit;
use fingerprint::FingerprintKey;
pub(crate) use key::KeyId;
use key::{Secret, random};
use pseudonyms::Pseudonyms;
pub use rotation::RotationError;
pub(crate) use row_code::{RowCode, RowCodes};
pub(crate) use seal::{Field, OpenError, key_id};
use seal::{NONCE, SealingKey};

/// The keys that seal stored tokens. Cloning increments reference counts.
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
    keys: Arc<ArcSwap<Keys>>,
    lasting: Arc<LastingKeys>,
}

impl Keyring {
    /// Returns a keyring with one new random key and a new fingerprint key.
    ///
    /// # Panics
    /// If the operating system cannot provide random bytes.
    pub fn generate() -> Self {
        let key = KeyringKey::random(KeyState::Active, None);
        Self::new(Keys { keys: vec![key], active: 0 }, FingerprintKey(Secret::random()))
    }

    /// Reads the keyring from a file that [`write_new`](Self::write_new) or `token-supervisor init` wrote.
    ///
    /// # Errors
    /// [`Error::Start`] with the problem and what to do; it never quotes the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (keys, fingerprint) = file::read(path.as_ref())?;
        Ok(Self::new(keys, fingerprint))
    }

    /// Writes the keys to a new file that only its owner can read (mode 0600), and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Start`] if the file already exists (it is left unchanged) or cannot be written.
    pub fn write_new(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(file::write_new(path.as_ref(), &self.keys.load(), &self.lasting.fingerprint)?)
    }

    fn new(keys: Keys, fingerprint: FingerprintKey) -> Self {
        let lasting = LastingKeys { fingerprint, pseudonyms: Pseudonyms::default() };
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), lasting: Arc::new(lasting) }
    }

    /// Returns a keyring with other keys, and this one's fingerprint key.
    fn with(&self, keys: Keys) -> Self {
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), lasting: self.lasting.clone() }
    }

    /// Seals with the active key. The result is bound to the row and the field, and opens nowhere else.
    pub(crate) fn seal(&self, key: &TokenKey, field: Field, plaintext: &[u8]) -> Sealed {
        self.seal_with_nonce(random(), key, field, plaintext)
    }

    /// Seals with the given nonce; apart from [`seal`](Self::seal), only golden tests may call it.
    fn seal_with_nonce(&self, nonce: [u8; NONCE], key: &TokenKey, field: Field, plaintext: &[u8]) -> Sealed {
        self.keys.load().active().seal(nonce, key, field, plaintext)
    }

    /// Opens a value that any of the keys sealed for this row and this field.
    ///
    /// # Errors
    /// The value does not open.
    pub(crate) fn open(&self, key: &TokenKey, field: Field, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let id = seal::key_id(sealed)?;
        let keys = self.keys.load();
        let sealing = keys.find(id).ok_or(OpenError::UnknownKey(id))?;
        sealing.open(key, field, sealed)
    }

    /// Seals a value with the active key that another key sealed; `None` if the active key did.
    ///
    /// The nonce is kept, so that copies of one value (in a row and in the queue of revocations) stay equal. It is random, for the
    /// new key as for the old one.
    ///
    /// # Errors
    /// The value does not open.
    pub(crate) fn reseal(&self, key: &TokenKey, field: Field, sealed: &Sealed) -> Result<Option<Sealed>, OpenError> {
        let id = seal::key_id(sealed)?;
        let keys = self.keys.load();
        if keys.active().id() == id {
            return Ok(None);
        }
        let plaintext = keys.find(id).ok_or(OpenError::UnknownKey(id))?.open(key, field, sealed)?;
        let nonce = seal::nonce(sealed)?;
        Ok(Some(keys.active().seal(nonce, key, field, &plaintext)))
    }

    /// Returns a keyed hash of a refresh token, which identifies the token without revealing it.
    pub(crate) fn fingerprint(&self, idp: &str, token: &RefreshToken) -> Fingerprint {
        self.lasting.fingerprint.of(idp, token)
    }

    /// Returns the keys without their secrets, in the order of the key file.
    pub fn labels(&self) -> Vec<KeyLabel> {
        let keys = self.keys.load();
        keys.keys.iter().map(|key| KeyLabel { id: key.sealing.id().to_string(), state: key.state }).collect()
    }

    /// Returns what computes the codes of stored rows.
    pub(crate) fn row_codes(&self) -> RowCodes {
        RowCodes(self.lasting.clone())
    }

    /// Returns a stable pseudonym of a user for logs. Only a holder of the keys can link it to the user.
    pub(crate) fn pseudonym(&self, user: &str) -> Fingerprint {
        self.lasting.pseudonyms.of(user, || self.lasting.fingerprint.of_user(user))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.load();
        f.debug_struct("Keyring")
            .field("active", &keys.active().id())
            .field("keys", &keys.keys.len())
            .finish_non_exhaustive()
    }
}

/// The keys of a key file that can be replaced. Exactly one is active, and no two have the same id.
#[derive(Clone)]
struct Keys {
    keys: Vec<KeyringKey>,
    active: usize,
}

impl Keys {
    fn active(&self) -> &SealingKey {
        &self.keys[self.active].sealing
    }

    fn find(&self, id: KeyId) -> Option<&SealingKey> {
        self.keys.iter().map(|key| &*key.sealing).find(|sealing| sealing.id() == id)
    }
}

/// What never changes in a key file.
struct LastingKeys {
    fingerprint: FingerprintKey,
    /// Those of the fingerprint key.
    pseudonyms: Pseudonyms,
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

#[derive(Clone)]
struct KeyringKey {
    state: KeyState,
    /// When the key got its state, in seconds since the Unix epoch, where that is known.
    since: Option<u64>,
    sealing: Arc<SealingKey>,
}

impl KeyringKey {
    fn random(state: KeyState, since: Option<u64>) -> Self {
        Self { state, since, sealing: Arc::new(SealingKey::new(KeyId(random()), Secret::random())) }
    }
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

impl KeyState {
    /// Returns the name in the key file and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Staged => "staged",
            Self::Retired => "retired",
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Keyring {
    /// Returns a keyring of known keys: for each id, a key whose bytes all equal the given number. The first is active.
    pub(crate) fn fixed(keys: &[(&str, u8)], fingerprint: u8) -> Self {
        let secret = |byte| Secret(Box::new([byte; 32]));
        let key = |(at, (id, byte)): (usize, &(&str, u8))| KeyringKey {
            state: if at == 0 { KeyState::Active } else { KeyState::Retired },
            since: None,
            sealing: Arc::new(SealingKey::new(id.parse().expect("eight hexadecimal digits"), secret(*byte))),
        };
        let keys = keys.iter().enumerate().map(key).collect();
        Self::new(Keys { keys, active: 0 }, FingerprintKey(secret(fingerprint)))
    }

    /// Parses the text of a key file; the error is everything that could be shown of it, with its `Debug`.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        let shown = |error| [format!("{error:?}"), Error::from(error).to_string()].concat();
        let parsed = file::parse(Path::new("tokens.keys"), json);
        parsed.map(|(keys, fingerprint)| Self::new(keys, fingerprint)).map_err(shown)
    }

    /// Returns the text that [`write_new`](Self::write_new) writes.
    pub(crate) fn to_json(&self) -> Zeroizing<Vec<u8>> {
        file::to_json(&self.keys.load(), &self.lasting.fingerprint)
    }

    /// Seals with the key and the nonce of another sealed value.
    pub(crate) fn seal_like(&self, like: &Sealed, key: &TokenKey, field: Field, plaintext: &[u8]) -> Option<Sealed> {
        let keys = self.keys.load();
        let sealing = keys.find(seal::key_id(like).ok()?)?;
        Some(sealing.seal(seal::nonce(like).ok()?, key, field, plaintext))
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
    fn a_resealed_value_opens_with_the_new_key_alone_and_copies_stay_equal() {
        let (key, plain) = (TokenKey::at("github").user("alice"), b"ts-test-secret-d");
        let old = Keyring::fixed(&[("0a0b0c0d", 1)], 9);
        let both = Keyring::fixed(&[("01020304", 2), ("0a0b0c0d", 1)], 9);
        let sealed = old.seal(&key, Field::RefreshToken, plain);
        let resealed = both.reseal(&key, Field::RefreshToken, &sealed).unwrap().unwrap();
        assert_eq!(both.reseal(&key, Field::RefreshToken, &sealed.clone()).unwrap().as_ref(), Some(&resealed));
        assert_eq!(both.reseal(&key, Field::RefreshToken, &resealed), Ok(None));
        let new = Keyring::fixed(&[("01020304", 2)], 9);
        assert_eq!(&new.open(&key, Field::RefreshToken, &resealed).unwrap()[..], plain);
        assert!(new.open(&key, Field::Document, &resealed).is_err(), "it is bound to its field");
        assert_eq!(new.reseal(&key, Field::RefreshToken, &sealed).unwrap_err().to_string().len(), 54);
        assert_eq!(both.reseal(&key, Field::Document, &sealed), Err(OpenError::DoesNotOpen));
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
