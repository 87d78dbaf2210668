//! The fast path: the published token of each key, readable without a message, a lock or an allocation.

mod slots;
#[cfg(test)]
mod tests;
mod watch;

use std::{sync::atomic::Ordering, time::Duration};

pub use self::watch::TokenWatch;
use self::{
    slots::{Slots, Update},
    watch::{Watches, supersedes},
};
use crate::{
    clock::Clock,
    model::{BootTime, Generation, Issued, IssuedRef, Token, TokenKey, TokenRef, TokenStanding},
};

/// The published tokens of the keys that are in use.
#[doc(hidden)]
pub struct Snapshot {
    tokens: Slots,
    watches: Watches,
    clock: Clock,
}

impl Snapshot {
    pub(super) fn new(clock: Clock) -> Self {
        Self { tokens: Slots::default(), watches: Watches::default(), clock }
    }

    /// Returns the key's token, if it is valid for at least `min_ttl` from now.
    ///
    /// Not inlined into callers, so that they keep the token in registers; what it calls is inlined here.
    pub(super) fn get(&self, key: &TokenKey, min_ttl: Duration) -> Option<Token> {
        self.tokens
            .read(key, |issued| {
                // Read after the lookup, so that the memory of a token that is in no cache is on its way meanwhile.
                let now = self.clock.coarse();
                let needed = if min_ttl.is_zero() { now } else { now.plus(min_ttl) };
                if !issued.valid_at(needed.wall, needed.boot) {
                    return None;
                }
                let token = issued.lend(now.wall)?.to_token();
                issued.mark_used(ticks(now.boot));
                Some(token)
            })
            .flatten()
    }

    /// Lends the key's token to `read`, if it is valid now. A token that is replaced or removed meanwhile is not freed; nothing
    /// waits for it.
    #[inline]
    pub(super) fn with<R>(&self, key: &TokenKey, read: impl FnOnce(TokenRef<'_>) -> R) -> Option<R> {
        self.tokens
            .read(key, |issued| {
                let now = self.clock.coarse();
                if !issued.valid_at(now.wall, now.boot) {
                    return None;
                }
                let token = issued.lend(now.wall)?;
                issued.mark_used(ticks(now.boot));
                Some(read(token))
            })
            .flatten()
    }

    /// Returns the published token of the key, valid or not.
    pub(super) fn current(&self, key: &TokenKey) -> Option<Issued> {
        self.tokens.read(key, |issued| issued.to_owned()).filter(|issued| issued.generation != NOTHING)
    }

    /// Reserves the place of a token that is about to be read from the store; `None` if something is published for the key.
    ///
    /// Whatever is published or ended for the key from here on takes the place: what was read may be from before that.
    pub(super) fn reserve<'a>(&'a self, key: &'a TokenKey) -> Option<Reservation<'a>> {
        let mut place = None;
        self.tokens.update(key, |current| match current {
            // Callers that read the same row at the same time share the place.
            Some(held) => {
                place = (held.generation == NOTHING).then(|| held.to_owned());
                Update::Keep
            }
            None => Update::Put(place.insert(Issued::ended(key, NOTHING)).clone()),
        });
        place.map(|place| Reservation { snapshot: self, key, place })
    }

    /// Replaces the key's token `held` by `issued`, or removes it, if it is still there.
    fn settle(&self, key: &TokenKey, held: IssuedRef<'_>, issued: Option<&Issued>) -> bool {
        let mut settled = false;
        let _turn = self.tokens.update(key, |current| {
            settled = current.is_some_and(|current| current.is_same(held));
            match issued {
                _ if !settled => Update::Keep,
                Some(issued) => Update::Put(issued.clone()),
                None => Update::Remove,
            }
        });
        if settled
            && let Some(issued) = issued
            && let Some(cell) = self.watches.get(key)
        {
            cell.publish(issued);
        }
        settled
    }

    /// Removes the key's token, if it is still `held` and nobody watches it.
    fn forget(&self, key: &TokenKey, held: IssuedRef<'_>) {
        self.tokens.update(key, |current| match current {
            Some(current) if current.is_same(held) && !self.is_watched(key) => Update::Remove,
            _ => Update::Keep,
        });
    }

    /// Records that somebody asks for the token just now.
    pub(super) fn mark_asked(&self, issued: &Issued) {
        issued.mark_used(ticks(self.clock.read().boot));
    }

    /// Publishes upwards only: a higher generation replaces, and at an equal one what the store holds
    /// replaces what only the journal had.
    pub(super) fn publish(&self, key: &TokenKey, issued: &Issued) {
        debug_assert!(issued.is_of(key), "a token is published for its own key");
        let mut published = false;
        // The watch's cell changes in the same turn, so that neither has what the other has lost.
        let _turn = self.tokens.update(key, |current| {
            published = current.is_none_or(|held| supersedes(issued.by_ref(), held));
            if !published {
                return Update::Keep;
            }
            if let Some(held) = current {
                issued.used.fetch_max(held.used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            Update::Put(issued.clone())
        });
        if published && let Some(cell) = self.watches.get(key) {
            cell.publish(issued);
        }
    }

    /// Ends the key's grant as of this generation: a token that an attempt still publishes for it comes too late.
    pub(super) fn end(&self, key: &TokenKey, generation: Generation) {
        let _turn = self.tokens.update(key, |current| match current {
            Some(held) if held.generation > generation => Update::Keep,
            _ => Update::Put(Issued::ended(key, generation)),
        });
        if let Some(cell) = self.watches.get(key) {
            cell.withdraw();
        }
    }

    /// Removes the key: nobody uses its token, or nothing is stored for it.
    pub(super) fn remove(&self, key: &TokenKey) {
        let _turn = self.tokens.update(key, |_| Update::Remove);
        if let Some(cell) = self.watches.get(key) {
            cell.withdraw();
        }
    }

    /// Takes notice that another process has written this generation of the key's row. A read that is under way may be from
    /// before that: its place is taken.
    pub(super) fn outdate(&self, key: &TokenKey, generation: Generation) -> Published {
        let mut published = Published::Nothing;
        self.tokens.update(key, |current| match current {
            Some(place) if place.generation == NOTHING => Update::Remove,
            Some(held) => {
                published = if held.generation > generation { Published::Later } else { Published::Earlier };
                Update::Keep
            }
            None => Update::Keep,
        });
        if published == Published::Nothing && self.is_watched(key) { Published::Earlier } else { published }
    }

    /// Returns every key of which something is published or that is watched. Reads that are under way may be from before that:
    /// their places are taken.
    pub(super) fn keys(&self) -> Vec<TokenKey> {
        let (mut keys, mut places) = (Vec::new(), Vec::new());
        self.tokens.each_at_rest(|issued| match issued.generation {
            NOTHING => places.push(issued.key()),
            _ => keys.push(issued.key()),
        });
        for key in places {
            let mut is_published = false;
            self.tokens.update(&key, |current| match current {
                Some(place) if place.generation == NOTHING => Update::Remove,
                held => {
                    is_published = held.is_some();
                    Update::Keep
                }
            });
            if is_published {
                // By the read, which may be from before.
                keys.push(key);
            }
        }
        keys.extend(self.watches.keys().into_iter().filter(|key| self.current(key).is_none()));
        keys
    }

    /// Hands out nothing that is published any more. What is published of a key for which an attempt runs (`is_refreshing`)
    /// stays, so that the attempt publishes nothing older.
    pub(super) fn withdraw_all(&self, is_refreshing: impl Fn(&TokenKey) -> bool) {
        let mut keys = Vec::new();
        self.tokens.each_at_rest(|issued| {
            if issued.generation != NOTHING && !issued.grant_id().is_empty() {
                keys.push(issued.key());
            }
        });
        for key in keys {
            if !is_refreshing(&key) {
                self.remove(&key);
            } else if let Some(issued) = self.current(&key) {
                issued.set_standing(TokenStanding::Withdrawn);
            }
        }
    }

    /// Returns a watch of the key, which shares its cell with other watches.
    pub(super) fn watch(&self, key: &TokenKey) -> TokenWatch {
        let _turn = self.tokens.turn(key);
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
        let is_idle = self.clock.read().boot.since(last_use(held.by_ref())) >= unused;
        let is_ended = held.grant_id().is_empty();
        if is_refreshing(key) {
            return;
        }
        if is_ended {
            self.settle(key, held.by_ref(), None);
        } else if is_idle && !held.journaled {
            self.forget(key, held.by_ref());
        }
    }

    /// Removes the tokens that nobody has used for this long. What the store does not say about a token (that it was
    /// withdrawn or rejected, or that the journal alone has it) stays with it for as long as its actor or attempt runs, and so
    /// does every token of a key for which an attempt runs (`is_refreshing`), as in [`leave`](Self::leave).
    pub(super) fn forget_unused(&self, unused: Duration, is_refreshing: impl Fn(&TokenKey) -> bool) {
        let now = self.clock.read().boot;
        self.tokens.each(|issued| {
            let is_stored = !issued.journaled && issued.generation != NOTHING;
            let is_plain = !matches!(issued.standing(), TokenStanding::Withdrawn | TokenStanding::Rejected);
            if is_stored && is_plain && now.since(last_use(issued)) >= unused {
                let key = issued.key();
                if !is_refreshing(&key) {
                    self.forget(&key, issued);
                }
            }
        });
    }
}

/// What is published of a key of which another process has written a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// A later generation.
    Later,
    /// This generation or an earlier one, or the key is watched.
    Earlier,
    Nothing,
}

/// The generation of a place where nothing is published yet. Stored grants have higher ones.
const NOTHING: Generation = Generation(0);

/// The place of a token that is being read from the store. Dropping it gives the place back.
pub(super) struct Reservation<'a> {
    snapshot: &'a Snapshot,
    key: &'a TokenKey,
    place: Issued,
}

impl Reservation<'_> {
    /// Publishes the token that was read, unless something was published or ended for the key meanwhile.
    pub(super) fn publish(self, issued: &Issued) -> bool {
        self.snapshot.settle(self.key, self.place.by_ref(), Some(issued))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.snapshot.settle(self.key, self.place.by_ref(), None);
    }
}

/// Uses are recorded to four seconds: fine enough to notice that a token is not used any more.
const TICK_SHIFT: u32 = 12;

fn ticks(time: BootTime) -> u32 {
    ((time.0 >> TICK_SHIFT) & i64::from(u32::MAX)) as u32
}

/// Returns the last use of a token, by the boot-time clock; zero if it was never used.
fn last_use(issued: IssuedRef<'_>) -> BootTime {
    BootTime(i64::from(issued.used.load(Ordering::Relaxed)) << TICK_SHIFT)
}
