//! Which keys sealed what: the statements of both databases, and how their rows are added up.
//!
//! The id of the key is in bytes 2 to 5 of a sealed value. The second response of a row (`alt`) is JSON with the sealed value in
//! hexadecimal digits.

use std::collections::{BTreeMap, BTreeSet};

use super::KeyUse;
use crate::keyring::KeyId;

/// Begins the sealed value in the JSON of `alt`: the member, and the version of the envelope.
macro_rules! alt_begins {
    () => {
        "\"token\":\"01"
    };
}

/// Rows that are alike in the keys that sealed their document, refresh token and second response, as they were counted.
pub(super) type AlikeSealed = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// Adds up what was counted of rows, and of queued revocations by the key of their token.
pub(super) fn key_use(rows: Vec<AlikeSealed>, revocations: Vec<(Option<Vec<u8>>, i64)>) -> Vec<KeyUse> {
    let mut used = BTreeMap::<KeyId, KeyUse>::new();
    let entry = |key: KeyId| KeyUse { key, rows: 0, revocations: 0 };
    for (document, token, alt, count) in rows {
        let alt = alt.as_deref().and_then(from_hex);
        let keys = [document.as_deref().and_then(of_bytes), token.as_deref().and_then(of_bytes), alt];
        // A row that one key sealed twice counts once.
        for key in keys.into_iter().flatten().collect::<BTreeSet<_>>() {
            used.entry(key).or_insert_with(|| entry(key)).rows += count.unsigned_abs();
        }
    }
    for (token, count) in revocations {
        if let Some(key) = token.as_deref().and_then(of_bytes) {
            used.entry(key).or_insert_with(|| entry(key)).revocations += count.unsigned_abs();
        }
    }
    used.into_values().collect()
}

/// Returns how the second response of a row begins that this key sealed.
pub(super) fn alt_of(key: KeyId) -> String {
    format!(concat!(alt_begins!(), "{}"), key)
}

/// A value that is too short was damaged.
fn of_bytes(bytes: &[u8]) -> Option<KeyId> {
    <[u8; 4]>::try_from(bytes).ok().map(KeyId::from)
}

fn from_hex(digits: &[u8]) -> Option<KeyId> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) use alt_begins;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_once_for_each_of_its_keys() {
        let id = |byte: u8| KeyId::from([byte; 4]);
        let sealed = |byte: u8| Some(vec![byte; 4]);
        let rows = vec![
            (sealed(1), sealed(1), None, 5),
            (sealed(2), sealed(1), Some(b"03030303".to_vec()), 2),
            (sealed(1), None, Some(b"not hex!".to_vec()), 1),
            (Some(vec![1, 2]), None, None, 9),
        ];
        let used = |byte, rows, revocations| KeyUse { key: id(byte), rows, revocations };
        let counted = key_use(rows, vec![(sealed(3), 4), (sealed(9), 1), (None, 1)]);
        assert_eq!(counted, [used(1, 8, 0), used(2, 2, 0), used(3, 2, 4), used(9, 0, 1)]);
        assert_eq!(alt_of(id(0xab)), r#""token":"01abababab"#);
    }
}
