//! Keys bring their hash along: it is not computed again.

use std::hash::{BuildHasherDefault, Hasher};

pub(super) type CachedHash = BuildHasherDefault<PassThrough>;

#[derive(Default)]
pub(super) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only keys are hashed here, and they write one u64; anything else still gets some hash.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
