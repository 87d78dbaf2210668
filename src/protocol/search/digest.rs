//! The digest of a state, which distinguishes it from others.

use std::hash::{Hash, Hasher};

use super::world::{ModelWorld, TICK};

/// No rule distinguishes between times that are more than this many ticks ago or ahead.
const HORIZON: i64 = 9;

impl ModelWorld {
    /// Returns a digest that is the same for states that differ only in the time of day.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = Canonical { now: self.now.0, state: 0 };
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Hashes times by their distance from now. In a state only times hash as an `i64`.
struct Canonical {
    now: i64,
    state: u64,
}

impl Canonical {
    fn fold(&mut self, value: u64) {
        let product = u128::from(self.state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(value ^ 0xa076_1d64_78bd_642f);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Canonical {
    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.fold(0x2545_f491_4f6c_dd1d);
        last.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }

    fn write_i64(&mut self, time: i64) {
        let ticks = (time - self.now).div_euclid(TICK.as_millis() as i64);
        self.fold(ticks.clamp(-HORIZON, HORIZON) as u64);
    }
}
