//! The refresh tokens that a grant has spent: the newest ones, in a row of their own beside the grant's.
//!
//! A token that a refresh brought never leaves the store, so that a connect can hardly bring it back: a few are enough. The row
//! also has the generation at which it was written, which tells, whatever the number of tokens, that the grant's row was put
//! back to an earlier one.

use super::SPENT_KEPT;
use crate::model::{Fingerprint, Generation, Row};

#[derive(Clone, Debug, Default)]
pub(super) struct SpentTokens {
    /// The generation of the row when its refresh token was last replaced.
    generation: i64,
    /// The beginnings of their fingerprints, newest last.
    tokens: Vec<u8>,
    is_stored: bool,
}

/// The bytes that are kept of a fingerprint: no two of a grant's tokens share them.
const SIZE: usize = 8;

impl SpentTokens {
    /// Returns the tokens as they are stored: with the generation at which they were written.
    pub(super) fn stored(found: Option<(i64, Vec<u8>)>) -> Self {
        found.map_or_else(Self::default, |(generation, tokens)| Self { generation, tokens, is_stored: true })
    }

    /// Returns what to store with the row of this generation.
    pub(super) fn written(&mut self, generation: Generation) -> (i64, &[u8]) {
        self.generation = generation.0.cast_signed();
        self.is_stored = true;
        (self.generation, &self.tokens)
    }

    /// Whether nothing is known of the grant: it has not replaced a refresh token since the tokens are kept here.
    #[cfg(feature = "sqlite")]
    pub(super) fn is_unknown(&self) -> bool {
        !self.is_stored
    }

    /// Whether the row is from before its refresh token was replaced the last time.
    pub(super) fn is_after(&self, row: &Row) -> bool {
        self.generation > row.generation.0.cast_signed()
    }

    pub(super) fn contains(&self, token: Fingerprint) -> bool {
        contains(&self.tokens, token)
    }

    pub(super) fn add(&mut self, token: Fingerprint) {
        self.remove(token);
        self.tokens.extend_from_slice(beginning(&token));
        let surplus = self.tokens.len().saturating_sub(SPENT_KEPT * SIZE);
        self.tokens.drain(..surplus);
    }

    pub(super) fn remove(&mut self, token: Fingerprint) {
        if let Some(at) = self.tokens.chunks(SIZE).position(|kept| kept == beginning(&token)) {
            self.tokens.drain(at * SIZE..(at + 1) * SIZE);
        }
    }
}

/// Whether the token is one of the tokens as they are stored.
pub(super) fn contains(tokens: &[u8], token: Fingerprint) -> bool {
    tokens.chunks(SIZE).any(|kept| kept == beginning(&token))
}

fn beginning(Fingerprint(token): &Fingerprint) -> &[u8] {
    &token[..SIZE]
}
