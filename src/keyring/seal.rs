//! The envelope of a sealed value: AES-256-GCM-SIV, bound to the row and the field. The only file that uses the cipher.
//!
//! `version 1 | key id 4 | nonce 12 | ciphertext | tag 16`. With GCM-SIV, a nonce that is used
//! twice (by a virtual machine resumed from a snapshot) reveals at most that two plaintexts are equal.
//!
//! To change the envelope: add a version, keep opening the old one, and freeze the new one in a golden test.

use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit, Nonce, Tag};
use zeroize::Zeroizing;

use super::key::{KeyId, Secret};
use crate::model::{Sealed, TokenKey};

/// The kind of a sealed value. The ciphertext is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The refresh token, and `alt`, the second response to the same parent, which must open after its promotion.
    RefreshToken,
    /// The document: access token, type, scope, subject, params, extra.
    Document,
    /// An entry of the local journal.
    Journal,
    /// The store's check value.
    Check,
    /// What processes tell each other.
    Line,
}

impl Field {
    /// Returns the name in the AAD. Frozen, because every stored value is bound to it.
    fn name(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::Document => "document",
            Self::Journal => "journal",
            Self::Check => "check",
            Self::Line => "line",
        }
    }
}

/// Why a sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// A newer version of this program sealed it, or it is not an envelope.
    #[error("sealed in a format that this version does not know")]
    UnknownVersion,
    /// Usually an old key file, or a key that was removed too early.
    #[error("sealed with key {0}, which is not in the key file")]
    UnknownKey(KeyId),
    /// It was changed or moved, or the key file has other bytes under the same id.
    #[error("does not open with its key: it was changed or moved, or the key is not the one it was sealed with")]
    DoesNotOpen,
    /// The envelope was truncated.
    #[error("too short to be sealed")]
    TooShort,
}

/// One key, ready to seal and open.
pub(super) struct SealingKey {
    id: KeyId,
    /// The key of the cipher, kept for writing the key file.
    secret: Secret,
    /// Kept, because expanding the key costs as much as sealing a token.
    cipher: Box<Aes256GcmSiv>,
}

impl SealingKey {
    pub(super) fn new(id: KeyId, secret: Secret) -> Self {
        let cipher = Box::new(Aes256GcmSiv::new(secret.expose().into()));
        Self { id, secret, cipher }
    }

    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(super) fn seal(&self, nonce: [u8; NONCE], key: &TokenKey, field: Field, plaintext: &[u8]) -> Sealed {
        // Allocated once: a buffer that grows leaves copies of plaintext behind.
        let mut envelope = Vec::with_capacity(HEADER + plaintext.len() + TAG);
        envelope.push(VERSION);
        envelope.extend_from_slice(&self.id.0);
        envelope.extend_from_slice(&nonce);
        envelope.extend_from_slice(plaintext);
        let tag = self
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &aad(self.id, key, field), (&mut envelope[HEADER..]).into())
            .expect("a sealed value is far below the cipher's limit of 64 GiB");
        envelope.extend_from_slice(&tag);
        Sealed(envelope)
    }

    /// Opens an envelope that [`key_id`] has accepted, so it is long enough.
    pub(super) fn open(&self, key: &TokenKey, field: Field, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (header, rest) = sealed.0.split_at_checked(HEADER).ok_or(OpenError::TooShort)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or(OpenError::TooShort)?;
        let nonce = header.last_chunk::<NONCE>().ok_or(OpenError::TooShort)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        self.cipher
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                &aad(self.id, key, field),
                plaintext.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| OpenError::DoesNotOpen)?;
        Ok(plaintext)
    }
}

/// Returns the id of the key that sealed the value, if it has the form of an envelope.
pub(crate) fn key_id(sealed: &Sealed) -> Result<KeyId, OpenError> {
    match sealed.0.first() {
        None => return Err(OpenError::TooShort),
        Some(&version) if version != VERSION => return Err(OpenError::UnknownVersion),
        Some(_) => {}
    }
    if sealed.0.len() < HEADER + TAG {
        return Err(OpenError::TooShort);
    }
    sealed.0[1..].first_chunk().map(|id| KeyId(*id)).ok_or(OpenError::TooShort)
}

/// Returns the nonce of a sealed value.
pub(super) fn nonce(sealed: &Sealed) -> Result<[u8; NONCE], OpenError> {
    sealed.0.get(HEADER - NONCE..).and_then(<[u8]>::first_chunk).copied().ok_or(OpenError::TooShort)
}

/// Returns the data to which the ciphertext is bound. Each part follows its length, so that the parts are unambiguous.
fn aad(id: KeyId, key: &TokenKey, field: Field) -> Vec<u8> {
    let [idp, user, account, field] = [key.idp(), key.user(), key.account_name(), field.name()].map(str::as_bytes);
    let parts = [DOMAIN, &id.0, idp, user, account, field];
    let mut aad = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        aad.extend_from_slice(&(part.len() as u64).to_le_bytes());
        aad.extend_from_slice(part);
    }
    aad
}

const DOMAIN: &[u8] = b"token-supervisor/1";
const VERSION: u8 = 1;
pub(super) const NONCE: usize = 12;
const TAG: usize = 16;
const HEADER: usize = 1 + 4 + NONCE;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Keyring;

    const SECRET: &[u8] = b"ts-test-secret-refresh";

    fn keyring() -> Keyring {
        Keyring::fixed(&[("0a0b0c0d", 0x11), ("01020304", 0x11)], 0x22)
    }

    fn alice() -> TokenKey {
        TokenKey::at("github").user("alice").account("work")
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_envelope_is_frozen() {
        // Every version must open what every earlier one sealed.
        for (field, tail) in [
            (Field::RefreshToken, "c09b1e8eb5e409c0007f978967731e225d1863dd80aa781cf78572d0f9209846fa646e15399a"),
            (Field::Document, "a7640cad9ace33ba61a42daaa5cb94ba58b486f99addfca1875e7075f07d16c03e10d50380b2"),
            (Field::Journal, "f0586b03ae752fda0326c624cbd30f067ae45fc7c2f59bead6d42e7e1d4c42f907bf1e83bb65"),
            (Field::Check, "54063666ef8a2d1060d031548346b23839dd6889fed82c60c1de75abd9450cbd76b8261242b6"),
        ] {
            let sealed = keyring().seal_with_nonce([7; 12], &alice(), field, SECRET);
            assert_eq!(hex(&sealed.0), format!("010a0b0c0d070707070707070707070707{tail}"), "{field:?}");
            assert_eq!(&keyring().open(&alice(), field, &sealed).unwrap()[..], SECRET);
        }
    }

    #[test]
    fn the_aad_is_frozen_and_unambiguous() {
        let id = KeyId([10, 11, 12, 13]);
        let part = |text: &str| hex(&(text.len() as u64).to_le_bytes()) + &hex(text.as_bytes());
        let expected = part("token-supervisor/1")
            + &part("\n\u{b}\u{c}\r")
            + &["github", "alice", "work", "refresh_token"].map(part).concat();
        assert_eq!(hex(&aad(id, &alice(), Field::RefreshToken)), expected);
        let of = |user: &str, idp: &str, account: &str| {
            aad(id, &TokenKey::at(idp).user(user).account(account), Field::Document)
        };
        assert_ne!(of("ab", "c", ""), of("a", "c", "b"));
        assert_ne!(of("ab", "c", ""), of("b", "ca", ""));
    }

    #[test]
    fn a_moved_envelope_does_not_open() {
        let keyring = keyring();
        let sealed = keyring.seal(&alice(), Field::RefreshToken, SECRET);
        let refused = |key: TokenKey, field, sealed: &Sealed| {
            assert_eq!(keyring.open(&key, field, sealed).unwrap_err(), OpenError::DoesNotOpen, "{key:?} {field:?}");
        };
        for key in [
            TokenKey::at("github").user("bob").account("work"),
            TokenKey::at("gitlab").user("alice").account("work"),
            TokenKey::at("github").user("alice"),
        ] {
            refused(key, Field::RefreshToken, &sealed);
        }
        for field in [Field::Document, Field::Journal, Field::Check] {
            refused(alice(), field, &sealed);
        }
        // The other key has the same bytes: only the id in the AAD keeps them apart.
        let mut other = sealed.clone();
        other.0[1..5].copy_from_slice(&[1, 2, 3, 4]);
        refused(alice(), Field::RefreshToken, &other);
    }

    #[test]
    fn a_truncated_or_changed_envelope_does_not_open() {
        let keyring = keyring();
        let sealed = keyring.seal(&alice(), Field::RefreshToken, SECRET);
        for length in 0..sealed.0.len() {
            let error = keyring.open(&alice(), Field::RefreshToken, &Sealed(sealed.0[..length].to_vec())).unwrap_err();
            let expected = if length < HEADER + TAG { OpenError::TooShort } else { OpenError::DoesNotOpen };
            assert_eq!(error, expected, "{length}");
        }
        for bit in 0..sealed.0.len() * 8 {
            let mut flipped = sealed.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            let error = keyring.open(&alice(), Field::RefreshToken, &flipped).unwrap_err();
            match (bit / 8, error) {
                (0, OpenError::UnknownVersion) | (1..5, OpenError::UnknownKey(_)) | (5.., OpenError::DoesNotOpen) => {}
                other => panic!("bit {bit}: {other:?}"),
            }
        }
        let empty = keyring.seal(&alice(), Field::Document, b"");
        assert!(keyring.open(&alice(), Field::Document, &empty).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn a_sealed_value_opens(plaintext in proptest::collection::vec(any::<u8>(), 0..200), user in ".{0,20}") {
            let key = TokenKey::at("github").user(user);
            let sealed = keyring().seal(&key, Field::Document, &plaintext);
            prop_assert_eq!(&keyring().open(&key, Field::Document, &sealed).unwrap()[..], &plaintext[..]);
        }
    }
}
