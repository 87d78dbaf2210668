//! Chance that repeats with its seed.

use std::time::Duration;

/// Vigna's splitmix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`.
    pub(crate) fn up_to(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Not longer than `limit`.
    pub(crate) fn duration(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.up_to(limit.as_micros() as u64 + 1))
    }
}
