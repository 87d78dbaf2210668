//! Randomness for jitter.

/// Returns 64 random bits. Without a source of randomness there is no jitter, and nothing else is lost.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
