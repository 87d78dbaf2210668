//! The store's check value, by which a wrong or missing key is detected at start instead of at its first use.

use subtle::ConstantTimeEq;

use super::{Field, KeyId, Keyring, OpenError};
use crate::{
    Error,
    model::{Sealed, TokenKey},
};

/// What the rows of a store are that fits the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckedRows {
    /// A row without code, or with another one, was changed outside the program.
    WithCodes,
    /// The store is from a version that wrote no codes.
    WithoutCodes,
}

/// Why the keyring does not fit the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    /// Usually an old or another deployment's key file, or a key that was removed too early.
    #[error(
        "the store is sealed with key {0}, which is not in the key file: \
         start with the key file that has this key (see its backup), or with the store that belongs to this key file"
    )]
    KeyMissing(KeyId),
    /// The key file was edited, or another key was written under the old id.
    #[error(
        "key {0} in the key file differs from the key {0} that sealed the store: \
         restore the key file from its backup"
    )]
    KeyDoesNotOpen(KeyId),
    /// Spent tokens would not be recognized, so that a replay could be taken for a new grant.
    #[error(
        "fingerprint_key in the key file is not the one that this store was created with, and it must never change: \
         restore the key file from its backup"
    )]
    FingerprintKeyDiffers,
    /// The store was damaged, or a newer version of this program wrote to it.
    #[error("the store's check value cannot be read: update token-supervisor, or restore the store from its backup")]
    Unreadable,
}

impl From<CheckError> for Error {
    fn from(error: CheckError) -> Self {
        Self::Start(error.to_string())
    }
}

impl Keyring {
    /// Returns the check value for the store to keep, sealed with the active key.
    pub(crate) fn check_value(&self) -> Sealed {
        self.seal(&check_key(), Field::Check, &self.lasting.fingerprint.proof())
    }

    /// Returns the check value sealed with the active key, if another key sealed the stored one.
    ///
    /// # Errors
    /// The stored value does not open.
    pub(crate) fn reseal_check(&self, stored: &Sealed) -> Result<Option<Sealed>, OpenError> {
        self.reseal(&check_key(), Field::Check, stored)
    }

    /// Checks that this keyring opens the values of the store with this check value, and has its fingerprint key.
    ///
    /// # Errors
    /// The keyring does not fit the store; the message says what to do.
    pub(crate) fn verify_check(&self, stored: &Sealed) -> Result<CheckedRows, CheckError> {
        let id = super::seal::key_id(stored).map_err(|_| CheckError::Unreadable)?;
        let proof = self.open(&check_key(), Field::Check, stored).map_err(|error| match error {
            OpenError::UnknownKey(id) => CheckError::KeyMissing(id),
            OpenError::DoesNotOpen => CheckError::KeyDoesNotOpen(id),
            OpenError::UnknownVersion | OpenError::TooShort => CheckError::Unreadable,
        })?;
        if bool::from(proof.ct_eq(&self.lasting.fingerprint.proof())) {
            Ok(CheckedRows::WithCodes)
        } else if bool::from(proof.ct_eq(&self.lasting.fingerprint.proof_without_codes())) {
            Ok(CheckedRows::WithoutCodes)
        } else {
            Err(CheckError::FingerprintKeyDiffers)
        }
    }
}

/// Returns a key that no grant has, because its identity provider has no name.
fn check_key() -> TokenKey {
    TokenKey::at("").user("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_that_does_not_fit_is_refused_with_the_reason() {
        let id = |text: &str| text.parse::<KeyId>().unwrap();
        let stored = Keyring::fixed(&[("0a0b0c0d", 1)], 9).check_value();
        for (keys, fingerprint, expected) in [
            (&[("0a0b0c0d", 1)][..], 9, Ok(CheckedRows::WithCodes)),
            (&[("01020304", 2), ("0a0b0c0d", 1)], 9, Ok(CheckedRows::WithCodes)),
            (&[("01020304", 2)], 9, Err(CheckError::KeyMissing(id("0a0b0c0d")))),
            (&[("0a0b0c0d", 2)], 9, Err(CheckError::KeyDoesNotOpen(id("0a0b0c0d")))),
            (&[("0a0b0c0d", 1)], 8, Err(CheckError::FingerprintKeyDiffers)),
        ] {
            assert_eq!(Keyring::fixed(keys, fingerprint).verify_check(&stored), expected);
        }
        let before = Keyring::fixed(&[("0a0b0c0d", 1)], 9);
        let before = before.seal(&check_key(), Field::Check, &before.lasting.fingerprint.proof_without_codes());
        assert_eq!(Keyring::fixed(&[("0a0b0c0d", 1)], 9).verify_check(&before), Ok(CheckedRows::WithoutCodes));
        for unreadable in [&b""[..], b"\x01", b"\x02 and then a good deal more than an envelope needs"] {
            let verdict = Keyring::generate().verify_check(&Sealed(unreadable.to_vec()));
            assert_eq!(verdict, Err(CheckError::Unreadable));
        }
    }

    #[test]
    fn the_check_value_is_no_refresh_token() {
        let keyring = Keyring::generate();
        assert!(keyring.open(&check_key(), Field::RefreshToken, &keyring.check_value()).is_err());
        let other = keyring.seal(&check_key(), Field::Check, b"ts-test-secret-something");
        assert_eq!(keyring.verify_check(&other), Err(CheckError::FingerprintKeyDiffers));
    }
}
