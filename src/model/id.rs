//! Random identifiers and keyed fingerprints.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 128 random bits that identify an attempt, an incarnation, a journal (owner) or a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) [u8; 16]);

/// Keyed, truncated HMAC of a refresh token: distinguishes tokens without revealing them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

impl Id {
    /// Returns a new random identifier.
    ///
    /// # Panics
    /// If the operating system provides no randomness: nothing could be sealed then either.
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        Self(bytes)
    }

    /// Returns the short public form, such as `g_7hq2zk3p`.
    pub(crate) fn public(self, prefix: &str) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let digits = self.0[..10].iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        std::iter::once(prefix).map(str::to_owned).collect::<String>() + "_" + &digits.collect::<String>()
    }
}

macro_rules! sixteen_bytes {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; 32];
                for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "#{:02x}{:02x}", self.0[0], self.0[1])
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let digits = <[u8; 32]>::try_from(text.as_bytes()).map_err(|_| NotHex)?;
                let mut bytes = [0; 16];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = NotHex;

            fn try_from(bytes: &[u8]) -> Result<Self, NotHex> {
                bytes.try_into().map(Self).map_err(|_| NotHex)
            }
        }
    };
}

sixteen_bytes!(Id);
sixteen_bytes!(Fingerprint);

const HEX: &[u8; 16] = b"0123456789abcdef";

fn nibble(digit: u8) -> Result<u8, NotHex> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NotHex),
    }
}

/// Not sixteen bytes, or not their hexadecimal form.
#[derive(Debug, thiserror::Error)]
#[error("expected 16 bytes, written as 32 hexadecimal digits")]
pub(crate) struct NotHex;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_parsed_back_and_anything_else_is_rejected() {
        let id = Id::random();
        assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        assert!("+f".repeat(16).parse::<Id>().is_err());
        assert!("zz".parse::<Id>().is_err());
        assert!(Id::try_from(&[1u8; 15][..]).is_err());
        assert_eq!(Id([7; 16]).public("g"), "g_hhhhhhhhhh");
    }
}
