//! The id and the secret bits of a key.

use std::{fmt, str::FromStr};

use zeroize::Zeroize;

/// The id of a key: random, written as eight hexadecimal digits, not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(pub(super) [u8; 4]);

impl KeyId {
    /// The id as sealed values contain it: the four bytes that follow the first one.
    pub(crate) fn bytes(self) -> [u8; 4] {
        self.0
    }
}

impl From<[u8; 4]> for KeyId {
    fn from(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 8 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(());
        }
        u32::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(drop)
    }
}

/// 256 secret bits. Boxed, so that a move leaves no copy behind; wiped when dropped.
pub(super) struct Secret(pub(super) Box<[u8; 32]>);

impl Secret {
    pub(super) fn random() -> Self {
        let mut secret = Self(Box::new([0; 32]));
        getrandom::fill(&mut *secret.0).expect("the operating system provides random bytes");
        secret
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
    bytes
}
