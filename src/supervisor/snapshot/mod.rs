//! The fast path: the published token of each key, readable without a message, a lock or an allocation.

mod hash;
mod published;
#[cfg(test)]
mod tests;
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
    published::Published,
    watch::{Watches, supersedes},
};
use crate::{
    clock::Clock,
    model::{BootTime, Generation, Issued, Token, TokenKey, TokenStanding},
};

/// The published tokens of the keys that are in use.
#[doc(hidden)]
pub struct Snapshot {
    /// A map without values, which finds an entry by its key and replaces it whole.
    tokens: HashMap<Published, (), CachedHash>,
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
        let issued = tokens.get_key_value(key)?.0.issued();
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

    /// Lends the key's token to `read`, if it is valid now. While `read` runs, what is replaced or removed is not freed, for
    /// any key; nothing waits for it.
    #[inline]
    pub(super) fn with<R>(&self, key: &TokenKey, read: impl FnOnce(&Token) -> R) -> Option<R> {
        let tokens = self.tokens.pin();
        let published = tokens.get_key_value(key)?.0;
        let (issued, now) = (published.issued(), self.clock.coarse());
        if !issued.valid_at(now.wall, now.boot) {
            return None;
        }
        published.token().lend(now.wall, |token| {
            issued.mark_used(ticks(now.boot));
            read(token)
        })
    }

    /// Returns the published token of the key, valid or not.
    pub(super) fn current(&self, key: &TokenKey) -> Option<Issued> {
        let tokens = self.tokens.pin();
        let current = tokens.get_key_value(key).map(|(published, ())| published.issued());
        current.filter(|issued| issued.generation != NOTHING).cloned()
    }

    /// Reserves the place of a token that is about to be read from the store; `None` if something is published for the key.
    ///
    /// Whatever is published or ended for the key from here on takes the place: what was read may be from before that.
    pub(super) fn reserve(self: &Arc<Self>, key: &TokenKey) -> Option<Reservation> {
        let place = Issued::ended(key, NOTHING);
        let tokens = self.tokens.pin();
        let reserved = tokens.compute(Published::new(&place), |current| match current {
            // Callers that read the same row at the same time share the place.
            Some((held, ())) => {
                Operation::Abort(Some(held.issued()).filter(|held| held.generation == NOTHING).cloned())
            }
            None => Operation::Insert(()),
        });
        let place = match reserved {
            Compute::Aborted(held) => held?,
            _ => place,
        };
        Some(Reservation { snapshot: self.clone(), place })
    }

    /// Replaces `held` by `issued`, or removes it, if it is still there.
    fn settle(&self, held: &Issued, issued: Option<&Issued>) -> bool {
        let tokens = self.tokens.pin();
        let settled = tokens.compute(Published::new(issued.unwrap_or(held)), |current| match current {
            Some((current, ())) if !current.issued().is_same(held) => Operation::Abort(()),
            None => Operation::Abort(()),
            Some(_) if issued.is_some() => Operation::Insert(()),
            Some(_) => Operation::Remove,
        });
        !matches!(settled, Compute::Aborted(()))
    }

    /// Records that somebody asks for the token just now.
    pub(super) fn mark_asked(&self, issued: &Issued) {
        issued.mark_used(ticks(self.clock.read().boot));
    }

    /// Publishes upwards only: a higher generation replaces, and at an equal one what the store holds
    /// replaces what only the journal had.
    pub(super) fn publish(&self, key: &TokenKey, issued: &Issued) {
        debug_assert!(issued.is_of(key), "a token is published for its own key");
        let tokens = self.tokens.pin();
        let published =
            tokens.compute(Published::new(issued), |current| match current.map(|(held, ())| held.issued()) {
                Some(held) if !supersedes(issued, held) => Operation::Abort(()),
                Some(held) => {
                    issued.used.fetch_max(held.used.load(Ordering::Relaxed), Ordering::Relaxed);
                    Operation::Insert(())
                }
                None => Operation::Insert(()),
            });
        if !matches!(published, Compute::Aborted(()))
            && let Some(cell) = self.watches.get(key)
        {
            cell.publish(issued);
        }
    }

    /// Ends the key's grant as of this generation: a token that an attempt still publishes for it comes too late.
    pub(super) fn end(&self, key: &TokenKey, generation: Generation) {
        let ended = Published::new(&Issued::ended(key, generation));
        self.tokens.pin().compute(ended, |current| match current {
            Some((held, ())) if held.issued().generation > generation => Operation::Abort(()),
            _ => Operation::Insert(()),
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
    fn is_watched(&self, key: &TokenKey) -> bool {
        self.watches.get(key).is_some()
    }

    /// Records that the key's actor stops, which was asked last at `asked`, and removes the token if nobody has used it for
    /// `unused`. What ended goes as well. Nothing goes while an attempt runs for the key (`is_refreshing`): the attempt may
    /// publish a token that is older than what is published.
    pub(super) fn leave(
        &self,
        key: &TokenKey,
        asked: BootTime,
        unused: Duration,
        is_refreshing: impl Fn(&TokenKey) -> bool,
    ) {
        let Some(held) = self.current(key) else { return };
        held.used.fetch_max(ticks(asked), Ordering::Relaxed);
        let is_idle = self.clock.read().boot.since(last_use(&held)) >= unused && !self.is_watched(key);
        let is_ended = held.grant_id().is_empty();
        if (is_ended || (is_idle && !held.journaled)) && !is_refreshing(key) {
            self.settle(&held, None);
        }
    }

    /// Removes the tokens that nobody has used for this long. What the store does not say about a token (that it was
    /// withdrawn or rejected, or that the journal alone has it) stays with it for as long as its actor or attempt runs, and so
    /// does every token of a key for which an attempt runs (`is_refreshing`), as in [`leave`](Self::leave).
    pub(super) fn forget_unused(&self, unused: Duration, is_refreshing: impl Fn(&TokenKey) -> bool) {
        let now = self.clock.read().boot;
        let tokens = self.tokens.pin();
        for (published, ()) in &tokens {
            let issued = published.issued();
            let is_stored = !issued.journaled && issued.generation != NOTHING;
            let is_plain = !matches!(issued.standing(), TokenStanding::Withdrawn | TokenStanding::Rejected);
            if is_stored && is_plain && now.since(last_use(issued)) >= unused {
                let key = issued.key();
                if !self.is_watched(&key) && !is_refreshing(&key) {
                    self.settle(issued, None);
                }
            }
        }
    }
}

/// The generation of a place where nothing is published yet. Stored grants have higher ones.
const NOTHING: Generation = Generation(0);

/// The place of a token that is being read from the store. Dropping it gives the place back.
pub(super) struct Reservation {
    snapshot: Arc<Snapshot>,
    place: Issued,
}

impl Reservation {
    /// Publishes the token of the key that was read, unless something was published or ended for the key meanwhile.
    pub(super) fn publish(self, key: &TokenKey, issued: &Issued) -> bool {
        let published = self.snapshot.settle(&self.place, Some(issued));
        if published && let Some(cell) = self.snapshot.watches.get(key) {
            cell.publish(issued);
        }
        published
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.snapshot.settle(&self.place, None);
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
