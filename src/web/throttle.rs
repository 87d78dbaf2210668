//! Limits of requests: without a valid API key for each peer, and for each API key that has a limit.
//!
//! A valid key always passes, however many wrong ones come from the same address: callers behind one proxy share it.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{apikey::ApiKey, model::BootTime};

/// The buckets of all peers and keys.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    peers: Mutex<Buckets<Option<IpAddr>>>,
    keys: Mutex<Buckets<[u8; 32]>>,
}

/// Token buckets: each remembers the time, in milliseconds, at which it is full again.
#[derive(Debug)]
struct Buckets<K> {
    full_at: HashMap<K, f64>,
}

/// A peer may send this many requests without a valid key at once,
const PEER_BURST: f64 = 20.0;
/// and this many per second from then on.
const PEER_RATE: f64 = 1.0;
/// More buckets than this are not kept: the fullest goes.
const BUCKETS: usize = 4_096;

impl Throttle {
    /// Counts a request without a valid key.
    ///
    /// # Errors
    /// The peer has sent too many; after this time it may send another.
    pub(super) fn refused(&self, peer: Option<IpAddr>, now: BootTime) -> Result<(), Duration> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.take(peer.map(network), PEER_RATE, PEER_BURST, now)
    }

    /// Counts a request with this key.
    ///
    /// # Errors
    /// The key was used too often; after this time it may be used again.
    pub(super) fn used(&self, key: &ApiKey, now: BootTime) -> Result<(), Duration> {
        let Some(rate) = key.requests_per_second.map(f64::from) else { return Ok(()) };
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).take(key.sha256, rate, rate.max(1.0), now)
    }
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { full_at: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    fn take(&mut self, key: K, rate: f64, burst: f64, now: BootTime) -> Result<(), Duration> {
        let now = now.0 as f64;
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now) + 1_000.0 / rate;
        let missing = full_at - now - 1_000.0 * burst / rate;
        if missing > 1e-6 {
            return Err(Duration::from_secs_f64(missing / 1_000.0));
        }
        if self.full_at.len() >= BUCKETS && !self.full_at.contains_key(&key) {
            self.make_room(now);
        }
        self.full_at.insert(key, full_at);
        Ok(())
    }

    fn make_room(&mut self, now: f64) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= BUCKETS
            && let Some(fullest) = self.full_at.iter().min_by(|(_, one), (_, other)| one.total_cmp(other))
        {
            let fullest = *fullest.0;
            self.full_at.remove(&fullest);
        }
    }
}

/// The network that one customer of a provider usually has: with IPv6, its addresses begin with the same 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_peer_may_be_wrong_now_and_then() {
        let (throttle, start) = (Throttle::default(), BootTime(1_000));
        for _ in 0..20 {
            assert_eq!(throttle.refused(peer("192.0.2.1"), start), Ok(()));
        }
        assert_eq!(throttle.refused(peer("192.0.2.1"), start), Err(Duration::from_secs(1)));
        assert_eq!(throttle.refused(peer("::ffff:192.0.2.1"), start), Err(Duration::from_secs(1)), "the same peer");
        assert_eq!(throttle.refused(peer("192.0.2.2"), start), Ok(()));
        let later = start + Duration::from_millis(1_500);
        assert_eq!(throttle.refused(peer("192.0.2.1"), later), Ok(()));
        assert_eq!(throttle.refused(peer("192.0.2.1"), later), Err(Duration::from_millis(500)));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let (throttle, start) = (Throttle::default(), BootTime(0));
        for host in 0..20 {
            assert_eq!(throttle.refused(peer(&format!("2001:db8:0:1::{host}")), start), Ok(()));
        }
        assert!(throttle.refused(peer("2001:db8:0:1:ffff::1"), start).is_err());
        assert_eq!(throttle.refused(peer("2001:db8:0:2::1"), start), Ok(()));
    }

    #[test]
    fn the_number_of_peers_is_bounded_and_those_that_send_most_are_kept() {
        let (mut buckets, start) = (Buckets::default(), BootTime(0));
        for _ in 0..2 {
            buckets.take(u32::MAX, 1.0, 2.0, start).unwrap();
        }
        for peer in 0..10_000 {
            buckets.take(peer, 1.0, 2.0, start).unwrap();
        }
        assert_eq!(buckets.full_at.len(), BUCKETS);
        assert!(buckets.take(u32::MAX, 1.0, 2.0, start).is_err());
    }

    #[test]
    fn a_key_has_the_rate_that_it_is_given() {
        let (throttle, mut now) = (Throttle::default(), BootTime(0));
        let (limited, free) = (ApiKey::new("a", [1; 32]).requests_per_second(100), ApiKey::new("b", [2; 32]));
        let mut passed = 0;
        for _ in 0..10_000 {
            passed += usize::from(throttle.used(&limited, now).is_ok());
            throttle.used(&free, now).unwrap();
            now = now + Duration::from_millis(1);
        }
        assert!((1_095..=1_105).contains(&passed), "{passed}");
    }
}
