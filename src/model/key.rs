//! `TokenKey`: identity provider, user and account.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

use foldhash::{SharedSeed, quality::SeedableRandomState};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies one grant: an identity provider, a user and, where the user has several accounts there, an account.
///
/// One shared buffer with its hash computed once, so that a lookup costs one comparison of bytes and
/// a clone costs one counter. Building a key never fails; every command calls [`validate`](Self::validate)
/// and fails with [`InvalidRequest`](crate::Error::InvalidRequest) if the key is invalid.
///
/// ```
/// use token_supervisor::TokenKey;
/// let key = TokenKey::at("github").user("alice").account("work");
/// assert_eq!((key.user(), key.idp(), key.account_name()), ("alice", "github", "work"));
/// ```
#[derive(Clone)]
pub struct TokenKey {
    hash: u64,
    idp_len: u32,
    user_len: u32,
    text: Arc<str>,
}

/// A [`TokenKey`] that still lacks its user; see [`TokenKey::at`]. One value makes the keys of many users.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct KeyAt<I>(I);

impl<I: AsRef<str>> KeyAt<I> {
    /// Returns the key of `user`, with the empty (default) account.
    pub fn user(&self, user: impl AsRef<str>) -> TokenKey {
        TokenKey::of(self.0.as_ref(), user.as_ref(), "")
    }
}

impl TokenKey {
    /// Starts a key with its identity provider, as the configuration names it. The user comes next, by name, so that
    /// the two cannot be swapped.
    pub fn at<I: AsRef<str>>(idp: I) -> KeyAt<I> {
        KeyAt(idp)
    }

    /// Returns the key of the same user and identity provider with another account.
    pub fn account(&self, account: impl AsRef<str>) -> Self {
        Self::of(self.idp(), self.user(), account.as_ref())
    }

    fn of(idp: &str, user: &str, account: &str) -> Self {
        let text = joined([idp, user, account]);
        let (idp_len, user_len) = (short(idp), short(user));
        let mut hasher = HASHER.build_hasher();
        hasher.write(text.as_bytes());
        hasher.write_u64(u64::from(idp_len) << 32 | u64::from(user_len));
        Self { hash: hasher.finish(), idp_len, user_len, text }
    }

    pub(super) fn parts(&self) -> [&str; 3] {
        [self.idp(), self.user(), self.account_name()]
    }

    /// Returns the hash of the key in this process: see [`HASHER`].
    #[inline]
    pub(crate) fn keyed_hash(&self) -> u64 {
        self.hash
    }

    /// Returns whether the parts of the key have these lengths and together this text.
    #[inline]
    pub(super) fn is(&self, [idp, user, account]: [usize; 3], text: &[u8]) -> bool {
        (self.idp_len as usize, self.user_len as usize) == (idp, user)
            && self.text.len() == idp + user + account
            && self.text.as_bytes() == text
    }

    /// Returns the identity provider, as the configuration names it.
    pub fn idp(&self) -> &str {
        &self.text[..self.idp_len as usize]
    }

    /// Returns the user, as the application names it.
    pub fn user(&self) -> &str {
        &self.text[self.idp_len as usize..][..self.user_len as usize]
    }

    /// Returns the account; empty unless set.
    pub fn account_name(&self) -> &str {
        &self.text[(self.idp_len + self.user_len) as usize..]
    }

    /// Checks that the key can be stored: a user of 1 to 255 bytes and an account of at most
    /// 255 bytes without control characters, an identity provider matching
    /// `[a-z0-9][a-z0-9_-]{0,63}`.
    ///
    /// # Errors
    /// Says which part is invalid, and what it must be.
    pub fn validate(&self) -> Result<(), &'static str> {
        if !valid_user_name(self.user()) {
            return Err("user must be 1 to 255 bytes without control characters");
        }
        if !is_plain(self.account_name()) {
            return Err("account must be at most 255 bytes without control characters");
        }
        if !valid_idp_name(self.idp()) {
            return Err("identity provider must match [a-z0-9][a-z0-9_-]{0,63}");
        }
        Ok(())
    }

    /// Returns a hash of the key that is the same in every process and on every machine (for jitter).
    pub(crate) fn stable_hash(&self) -> u64 {
        let mut hasher = Sha256::new();
        for part in [self.user(), self.idp(), self.account_name()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        u64::from_le_bytes(hasher.finalize()[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
    }
}

/// Returns whether `name` can name a user in keys.
pub(crate) fn valid_user_name(name: &str) -> bool {
    !name.is_empty() && is_plain(name)
}

fn is_plain(text: &str) -> bool {
    text.len() <= 255 && !text.chars().any(char::is_control)
}

/// Hashes keys with a seed that is random in each process and in no output: users choose names, and keys that collide would
/// fill a table. A fast hash, because a key is often built for a single lookup.
static HASHER: LazyLock<SeedableRandomState> = LazyLock::new(|| {
    static SEED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));
    // From the operating system, by way of the standard library.
    fn random() -> u64 {
        RandomState::new().hash_one(())
    }
    SeedableRandomState::with_seed(random(), &SEED)
});

/// Puts texts together, on the stack where they are as short as usual, so that memory is allocated once.
fn joined(parts: [&str; 3]) -> Arc<str> {
    let (mut buffer, mut len) = ([0; 128], 0);
    for part in parts {
        let Some(space) = buffer.get_mut(len..len + part.len()) else { return parts.concat().into() };
        space.copy_from_slice(part.as_bytes());
        len += part.len();
    }
    str::from_utf8(&buffer[..len]).expect("joined texts are a text").into()
}

/// Returns whether `name` can name an identity provider in keys, URLs and configuration.
pub(crate) fn valid_idp_name(name: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    name.len() <= 64
        && name.as_bytes().first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && name.as_bytes().iter().all(inner)
}

/// Returns whether `name` can name a deployment: it is shown in log lines and tables.
pub(crate) fn valid_deployment_name(name: &str) -> bool {
    (1..=64).contains(&name.chars().count()) && name.trim() == name && !name.chars().any(char::is_control)
}

/// Returns the length; 0 beyond `u32`, far above what validation accepts.
fn short(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(0)
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.user_len == other.user_len
            && self.idp_len == other.idp_len
            && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for TokenKey {}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for TokenKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TokenKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.idp(), self.user())?;
        if !self.account_name().is_empty() {
            write!(f, "~{}", self.account_name())?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct KeyParts {
    idp: String,
    user: String,
    account: String,
}

impl Serialize for TokenKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (idp, user, account) = (self.idp().into(), self.user().into(), self.account_name().into());
        KeyParts { idp, user, account }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TokenKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let KeyParts { idp, user, account } = KeyParts::deserialize(deserializer)?;
        Ok(Self::of(&idp, &user, &account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_between_two_parts_counts() {
        assert_ne!(TokenKey::at("c").user("ab"), TokenKey::at("bc").user("a"));
        assert_ne!(TokenKey::at("b").user("a").account("c"), TokenKey::at("bc").user("a"));
        assert_eq!(TokenKey::at("b").user("a").account(""), TokenKey::at("b").user("a"));
    }

    #[test]
    fn the_stable_hash_is_frozen() {
        // The hash decides when a fleet refreshes: every version must compute the same.
        assert_eq!(TokenKey::at("b").user("a").stable_hash(), 6_460_280_111_635_993_102);
    }

    #[test]
    fn validation_names_the_invalid_part() {
        let long = "x".repeat(256);
        for (user, idp, account, word) in [
            ("", "github", "", "user"),
            ("a\nb", "github", "", "user"),
            (&long, "github", "", "user"),
            ("a", "", "", "identity"),
            ("a", "GitHub", "", "identity"),
            ("a", "-x", "", "identity"),
            ("a", &long, "", "identity"),
            ("a", "github", "\u{7f}", "account"),
            ("a", "github", &long, "account"),
        ] {
            let error = TokenKey::at(idp).user(user).account(account).validate().unwrap_err();
            assert!(error.starts_with(word), "{error}");
        }
        TokenKey::at("my-idp_2").user("acme/ä~b").account("work").validate().unwrap();
    }
}
