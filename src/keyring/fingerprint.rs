//! Keyed fingerprints of refresh tokens: HMAC-SHA256, cut to 16 bytes.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::key::Secret;
use crate::model::{Fingerprint, RefreshToken};

/// The fingerprint key. It is never rotated: with another one, spent tokens would not be recognized.
pub(super) struct FingerprintKey(pub(super) Secret);

impl FingerprintKey {
    pub(super) fn of(&self, idp: &str, token: &RefreshToken) -> Fingerprint {
        let length = (idp.len() as u64).to_le_bytes();
        Fingerprint(self.mac(&[&length, idp.as_bytes(), token.expose_secret().as_bytes()]))
    }

    /// Returns a value that identifies this key, of a store whose rows have codes. It never equals a fingerprint: none starts
    /// with the length 2^64 - 1.
    pub(super) fn proof(&self) -> [u8; 16] {
        self.mac(&[&[0xff; 8], b"token-supervisor/1 check of rows with codes"])
    }

    /// Returns the value of a store whose rows have no codes yet.
    pub(super) fn proof_without_codes(&self) -> [u8; 16] {
        self.mac(&[&[0xff; 8], b"token-supervisor/1 check"])
    }

    /// Starts the code of a row, which never equals a fingerprint.
    pub(super) fn row(&self) -> Hmac<Sha256> {
        let mut mac = self.keyed();
        mac.update(&[0xff; 8]);
        mac.update(b"token-supervisor/1 row");
        mac
    }

    /// Returns a fingerprint of a user, which never equals that of a token.
    pub(super) fn of_user(&self, user: &str) -> Fingerprint {
        Fingerprint(self.mac(&[&[0xff; 8], b"token-supervisor/1 user", user.as_bytes()]))
    }

    fn keyed(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(self.0.expose()).expect("HMAC takes keys of any length")
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.keyed();
        parts.iter().for_each(|part| mac.update(part));
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        *digest.first_chunk().expect("a digest has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_frozen() {
        // Fingerprints of spent tokens are stored, and compared with new ones.
        let key = FingerprintKey(Secret(Box::new([0x22; 32])));
        let of = |idp, token: &str| key.of(idp, &token.into()).to_string();
        assert_eq!(of("github", "ts-test-secret-r"), "1228668c79eb8ca1f13df6172ab5b581");
        assert_ne!(of("github", "ts-test-secret-r"), of("gitlab", "ts-test-secret-r"));
        assert_ne!(of("a", "bts-test-secret-r"), of("ab", "ts-test-secret-r"));
        assert_eq!(Fingerprint(key.proof_without_codes()).to_string(), "56db9ce7334113e0473dea64d6570e21");
        assert_eq!(Fingerprint(key.proof()).to_string(), "683261481f5ba6d84acfb92fa910b580");
    }
}
