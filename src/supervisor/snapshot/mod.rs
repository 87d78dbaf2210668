//! The fast path: the published token of each key, readable without a message, a lock or an allocation.

mod hash;
mod watch;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use papaya::{Compute, HashMap, Operation, ResizeMode};
use seize::Collector;

pub use self::watch::TokenWatch;
use self::{
    hash::CachedHash,
    watch::{Watches, supersedes},
};
use crate::{
    clock::Clock,
    model::{AccessToken, BootTime, Expires, Generation, Issued, Token, TokenKey, TokenStanding, WallTime},
};

/// The published tokens of the keys that are in use.
#[doc(hidden)]
pub struct Snapshot {
    tokens: HashMap<TokenKey, Arc<Issued>, CachedHash>,
    watches: Watches,
    clock: Clock,
}

impl Snapshot {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            tokens: HashMap::builder()
                .resize_mode(ResizeMode::Blocking)
                // A replaced token is dropped when its last reader is gone, not when there are many.
                .collector(Collector::new().batch_size(1))
                .hasher(CachedHash::default())
                .build(),
            watches: Watches::default(),
            clock,
        }
    }

    /// Returns the key's token, if it is valid for at least `min_ttl` from now.
    ///
    /// Not inlined into callers, so that they keep the token in registers; what it calls is inlined here.
    pub(super) fn get(&self, key: &TokenKey, min_ttl: Duration) -> Option<Token> {
        let tokens = self.tokens.pin();
        let issued = tokens.get(key)?;
        // Read after the lookup, so that the memory of a token that is in no cache is on its way meanwhile.
        let now = self.clock.coarse();
        let needed = if min_ttl.is_zero() { now } else { now.plus(min_ttl) };
        if !issued.valid_at(needed.wall, needed.boot) {
            return None;
        }
        let token = issued.hand_out(now.wall)?;
        issued.mark_used(ticks(now.boot));
        Some(token)
    }

    /// Returns the published token of the key, valid or not.
    pub(super) fn current(&self, key: &TokenKey) -> Option<Arc<Issued>> {
        self.tokens.pin().get(key).filter(|issued| issued.generation != NOTHING).cloned()
    }

    /// Reserves the place of a token that is about to be read from the store; `None` if something is published for the key.
    ///
    /// Whatever is published or ended for the key from here on takes the place: what was read may be from before that.
    pub(super) fn reserve(self: &Arc<Self>, key: &TokenKey) -> Option<Reservation> {
        let place = Arc::new(over(NOTHING));
        let tokens = self.tokens.pin();
        let reserved = tokens.compute(key.clone(), |current| match current {
            // Callers that read the same row at the same time share the place.
            Some((_, held)) => Operation::Abort((held.generation == NOTHING).then(|| Arc::clone(held))),
            None => Operation::Insert(Arc::clone(&place)),
        });
        let reserved = match reserved {
            Compute::Aborted(held) => held?,
            _ => place,
        };
        Some(Reservation { snapshot: self.clone(), key: key.clone(), place: reserved })
    }

    /// Replaces what the key has by `issued`, or removes it, if it is still `place`.
    fn settle(&self, key: &TokenKey, place: &Arc<Issued>, issued: Option<&Arc<Issued>>) -> bool {
        let tokens = self.tokens.pin();
        let settled = tokens.compute(key.clone(), |current| match (current, issued) {
            (Some((_, held)), Some(issued)) if Arc::ptr_eq(held, place) => Operation::Insert(Arc::clone(issued)),
            (Some((_, held)), None) if Arc::ptr_eq(held, place) => Operation::Remove,
            _ => Operation::Abort(()),
        });
        !matches!(settled, Compute::Aborted(()))
    }

    /// Records that somebody asks for the token just now.
    pub(super) fn mark_asked(&self, issued: &Issued) {
        issued.mark_used(ticks(self.clock.read().boot));
    }

    /// Publishes upwards only: a higher generation replaces, and at an equal one what the store holds
    /// replaces what only the journal had.
    pub(super) fn publish(&self, key: &TokenKey, issued: &Arc<Issued>) {
        let tokens = self.tokens.pin();
        let published = tokens.compute(key.clone(), |current| match current {
            Some((_, held)) if !supersedes(issued, held) => Operation::Abort(()),
            Some((_, held)) => {
                issued.used.fetch_max(held.used.load(Ordering::Relaxed), Ordering::Relaxed);
                Operation::Insert(Arc::clone(issued))
            }
            None => Operation::Insert(Arc::clone(issued)),
        });
        if !matches!(published, Compute::Aborted(()))
            && let Some(cell) = self.watches.get(key)
        {
            cell.publish(issued);
        }
    }

    /// Ends the key's grant as of this generation: a token that an attempt still publishes for it comes too late.
    pub(super) fn end(&self, key: &TokenKey, generation: Generation) {
        let (tokens, ended) = (self.tokens.pin(), Arc::new(over(generation)));
        tokens.compute(key.clone(), |current| match current {
            Some((_, held)) if held.generation > generation => Operation::Abort(()),
            _ => Operation::Insert(Arc::clone(&ended)),
        });
        if let Some(cell) = self.watches.get(key) {
            cell.withdraw();
        }
    }

    /// Removes the key: nobody uses its token, or nothing is stored for it.
    pub(super) fn remove(&self, key: &TokenKey) {
        self.tokens.pin().remove(key);
        if let Some(cell) = self.watches.get(key) {
            cell.withdraw();
        }
    }

    /// Returns a watch of the key, which shares its cell with other watches.
    pub(super) fn watch(&self, key: &TokenKey) -> TokenWatch {
        let cell = self.watches.join(key);
        if let Some(issued) = self.current(key) {
            cell.publish(&issued);
        }
        TokenWatch::new(cell, self.clock.clone())
    }

    /// Whether the key is watched: its token stays published.
    pub(super) fn is_watched(&self, key: &TokenKey) -> bool {
        self.watches.get(key).is_some()
    }

    /// Records that the key's actor stops, which was asked last at `asked`, and removes the token if nobody has used it for
    /// `unused`. What ended goes as well: nothing runs any more that could publish a token of the key.
    pub(super) fn leave(&self, key: &TokenKey, asked: BootTime, unused: Duration) {
        let Some(held) = self.current(key) else { return };
        held.used.fetch_max(ticks(asked), Ordering::Relaxed);
        let is_idle = self.clock.read().boot.since(last_use(&held)) >= unused && !self.is_watched(key);
        if is_idle || held.grant_id.is_empty() {
            self.settle(key, &held, None);
        }
    }

    /// Removes the tokens that nobody has used for this long. What the store does not say about a token (that it was
    /// withdrawn or rejected, or that the journal alone has it) stays with it for as long as its actor or attempt runs.
    pub(super) fn forget_unused(&self, after: Duration) {
        let now = self.clock.read().boot;
        self.tokens.pin().retain(|key, issued| {
            let is_stored = !issued.journaled && issued.generation != NOTHING;
            let is_plain = !matches!(issued.standing(), TokenStanding::Withdrawn | TokenStanding::Rejected);
            !(is_stored && is_plain) || now.since(last_use(issued)) < after || self.is_watched(key)
        });
    }
}

/// The generation of a place where nothing is published yet. Stored grants have higher ones.
const NOTHING: Generation = Generation(0);

/// What stands in the map for a grant that has no token any more, or none yet.
fn over(generation: Generation) -> Issued {
    let ended = Expires::At(WallTime(0));
    let over = Issued::new("", AccessToken::from(""), "", "", ended, generation, None, Some(BootTime(0)), false);
    over.set_standing(TokenStanding::Withdrawn);
    over
}

/// The place of a token that is being read from the store. Dropping it gives the place back.
pub(super) struct Reservation {
    snapshot: Arc<Snapshot>,
    key: TokenKey,
    place: Arc<Issued>,
}

impl Reservation {
    /// Publishes the token that was read, unless something was published or ended for the key meanwhile.
    pub(super) fn publish(self, issued: &Arc<Issued>) -> bool {
        let published = self.snapshot.settle(&self.key, &self.place, Some(issued));
        if published && let Some(cell) = self.snapshot.watches.get(&self.key) {
            cell.publish(issued);
        }
        published
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.snapshot.settle(&self.key, &self.place, None);
    }
}

/// Uses are recorded to four seconds: fine enough to notice that a token is not used any more.
const TICK_SHIFT: u32 = 12;

fn ticks(time: BootTime) -> u32 {
    ((time.0 >> TICK_SHIFT) & i64::from(u32::MAX)) as u32
}

/// Returns the last use of a token, by the boot-time clock; zero if it was never used.
fn last_use(issued: &Issued) -> BootTime {
    BootTime(i64::from(issued.used.load(Ordering::Relaxed)) << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        model::{AccessToken, Expires, Generation},
    };

    fn issued(generation: u64, journaled: bool) -> Arc<Issued> {
        let token = AccessToken::from(format!("ts-test-secret-{generation}"));
        let generation = Generation(generation);
        Arc::new(Issued::new("g_1", token, "Bearer", "", Expires::Unknown, generation, None, None, journaled))
    }

    #[test]
    fn publication_only_goes_upwards_and_the_store_replaces_what_only_the_journal_had() {
        let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
        let (journaled, stored) = (true, false);
        let table = [
            ((2, stored), (3, stored), true),
            ((2, stored), (3, journaled), true),
            ((2, journaled), (3, journaled), true),
            ((2, journaled), (2, stored), true),
            ((2, stored), (2, journaled), false),
            ((2, stored), (2, stored), false),
            ((2, journaled), (2, journaled), false),
            ((3, journaled), (2, stored), false),
            ((3, stored), (2, stored), false),
        ];
        for (before, after, replaced) in table {
            let (snapshot, key) = (Snapshot::new(Clock::manual(&clock)), TokenKey::at("idp").user("alice"));
            let watching = snapshot.watch(&key);
            let (first, second) = (issued(before.0, before.1), issued(after.0, after.1));
            snapshot.publish(&key, &first);
            snapshot.publish(&key, &second);
            let expected = if replaced { &second } else { &first };
            assert!(Arc::ptr_eq(&snapshot.current(&key).unwrap(), expected), "{before:?}, then {after:?}");
            let watched = watching.token().unwrap().generation();
            assert_eq!(watched, expected.generation, "{before:?}, then {after:?}, watched");
        }
    }
}
