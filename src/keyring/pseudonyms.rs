//! The pseudonyms of users that were asked for before: a keyed digest costs more than everything else in a line of the
//! log.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::model::Fingerprint;

/// A table of at most [`SLOTS`] users. A user takes the place of another one with the same slot.
#[derive(Default)]
pub(super) struct Pseudonyms {
    /// Its key is random, so that nobody can choose users that share a slot.
    hasher: RandomState,
    slots: OnceLock<Box<[Mutex<Option<Pseudonym>>]>>,
}

struct Pseudonym {
    user: Box<str>,
    digest: Fingerprint,
}

/// The table takes up to 512 KiB.
const SLOTS: usize = 4_096;
/// Longer names are not remembered.
const LONGEST: usize = 72;

impl Pseudonyms {
    /// Returns the pseudonym of the user, which `digest` computes unless it is known.
    pub(super) fn of(&self, user: &str, digest: impl FnOnce() -> Fingerprint) -> Fingerprint {
        if user.len() > LONGEST {
            return digest();
        }
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| Mutex::default()).collect());
        let slot = &slots[self.hasher.hash_one(user) as usize % SLOTS];
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(known) if *known.user == *user => known.digest,
            _ => slot.insert(Pseudonym { user: user.into(), digest: digest() }).digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_remembered_and_never_confused_with_another() {
        let pseudonyms = Pseudonyms::default();
        let digest = |number: usize| {
            let mut digest = [0; 16];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            Fingerprint(digest)
        };
        // Many share a slot.
        for number in (0..3 * SLOTS).chain(0..3 * SLOTS) {
            assert_eq!(pseudonyms.of(&number.to_string(), || digest(number)), digest(number));
        }
        let known = |user: &str| pseudonyms.of(user, || digest(7)) != digest(7);
        pseudonyms.of("alice", || digest(1));
        assert!(known("alice"));
        let longest = "x".repeat(LONGEST);
        pseudonyms.of(&longest, || digest(1));
        pseudonyms.of(&(longest.clone() + "x"), || digest(1));
        assert!(known(&longest) && !known(&(longest.clone() + "x")));
    }
}
