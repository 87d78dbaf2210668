//! Keyed codes over stored rows: HMAC-SHA256, cut to 16 bytes.
//!
//! Ciphertext is authentic by itself. The code covers what the store keeps beside it: who may be served until when, what is
//! on hold, what was disconnected.

use std::{fmt, sync::Arc};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::LastingKeys;

/// Computes the codes of rows, and nothing else: the store has this instead of the keyring.
#[derive(Clone)]
pub(crate) struct RowCodes(pub(super) Arc<LastingKeys>);

impl RowCodes {
    /// Starts the code of a row.
    pub(crate) fn begin(&self) -> RowCode {
        RowCode(self.0.fingerprint.row())
    }
}

impl fmt::Debug for RowCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowCodes")
    }
}

/// The code of a row, to which its parts are added in a fixed order.
pub(crate) struct RowCode(Hmac<Sha256>);

impl RowCode {
    /// Adds a part, or that it is absent. No two lists of parts are alike: each part is preceded by its length.
    pub(crate) fn add(&mut self, part: Option<&[u8]>) {
        self.0.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        self.0.update(part.unwrap_or_default());
    }

    pub(crate) fn finish(self) -> [u8; 16] {
        let digest: [u8; 32] = self.0.finalize().into_bytes().into();
        *digest.first_chunk().expect("a digest has 32 bytes")
    }

    /// Whether this is the stored code.
    pub(crate) fn is(self, stored: &[u8]) -> bool {
        self.finish().ct_eq(stored).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::keyring::Keyring;

    fn code(fingerprint: u8, parts: &[Option<&[u8]>]) -> [u8; 16] {
        let mut code = Keyring::fixed(&[("0a0b0c0d", 1)], fingerprint).row_codes().begin();
        parts.iter().for_each(|part| code.add(*part));
        code.finish()
    }

    #[test]
    fn codes_are_frozen_and_differ_with_every_part() {
        let parts = [Some(&b"a"[..]), None, Some(b"")];
        let hex: String = code(9, &parts).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "193957f1d67c7e09b732d9f42ef9901c");
        for other in [&[Some(&b"a"[..]), None][..], &[Some(b"a"), Some(b""), None], &[Some(b""), None, Some(b"a")]] {
            assert_ne!(code(9, &parts), code(9, other));
        }
        assert_ne!(code(9, &parts), code(8, &parts));
    }
}
