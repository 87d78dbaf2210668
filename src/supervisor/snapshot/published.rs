//! Entries of the snapshot: each is a token with its key in one.

use std::hash::{Hash, Hasher};

use papaya::Equivalent;

use crate::model::{Issued, Token, TokenKey};

/// A published token, equal to others of its key, and found by its key.
pub(super) struct Published(Token);

impl Published {
    pub(super) fn new(issued: &Issued) -> Self {
        Self(Token::fresh(issued.clone()))
    }

    #[inline]
    pub(super) fn token(&self) -> &Token {
        &self.0
    }

    #[inline]
    pub(super) fn issued(&self) -> &Issued {
        self.0.issued()
    }
}

impl Equivalent<Published> for TokenKey {
    #[inline]
    fn equivalent(&self, published: &Published) -> bool {
        published.issued().is_of(self)
    }
}

impl PartialEq for Published {
    fn eq(&self, other: &Self) -> bool {
        self.issued().has_key_of(other.issued())
    }
}

impl Eq for Published {}

impl Hash for Published {
    /// As the key does.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.issued().key_hash());
    }
}
