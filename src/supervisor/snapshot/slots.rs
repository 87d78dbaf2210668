//! The table of published tokens. A read takes no lock and waits for memory twice: for the slot, and for the token, which has
//! its key within.
//!
//! Open addressing with linear probing. Writers of a shard take turns; readers look at slots while they change. A slot has the
//! hash of the key that it was last used for, which tells without another look into memory whether its token may be the right
//! one; the token itself has the key, and decides. What readers rely on:
//!
//! - A token is in one slot, which lies on the way from its hash's place to the next slot that was never used.
//! - A slot on that way becomes one that was never used only if nothing lies behind it.
//! - When a shard grows, its tokens are in the larger level before readers are sent there, and leave the smaller one afterwards:
//!   who finds nothing, and finds that the shard has grown meanwhile, looks again.

use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use arc_swap::ArcSwapAny;

use crate::model::{Issued, IssuedBlock, IssuedRef, TokenKey};

pub(super) struct Slots {
    shards: Box<[Shard]>,
}

/// What a writer does with the token of a key.
pub(super) enum Update {
    Keep,
    Put(Issued),
    Remove,
}

/// While it lives, nobody else changes a token of the key's shard.
pub(super) struct WriterTurn<'a>(MutexGuard<'a, usize>);

/// A part of the table.
struct Shard {
    /// Each twice as large as the one before. A level stays when its successor is in use: readers may still look at it.
    levels: [OnceLock<Box<[TokenSlot]>>; LEVELS],
    /// The number of the level in use.
    current: AtomicUsize,
    /// The number of its slots that were ever used. Held by the writer.
    used: Mutex<usize>,
}

#[derive(Default)]
struct TokenSlot {
    /// The hash of the key that it was last used for; [`NEVER`] if it was never used.
    tag: AtomicU64,
    token: ArcSwapAny<Option<IssuedBlock>>,
}

const NEVER: u64 = 0;

/// So many that writers of different keys rarely meet, and that growing takes a short time.
const SHARD_BITS: u32 = 6;

/// The number of slots of a shard at the start.
const SMALLEST: usize = 16;

/// More than memory has room for.
const LEVELS: usize = 28;

impl Default for Slots {
    fn default() -> Self {
        Self { shards: (0..1_usize << SHARD_BITS).map(|_| Shard::new()).collect() }
    }
}

impl Slots {
    /// Calls `read` with the token of the key, if there is one. What is replaced or removed meanwhile is freed when `read` has
    /// returned; nothing waits for it.
    #[inline]
    pub(super) fn read<R>(&self, key: &TokenKey, read: impl FnOnce(IssuedRef<'_>) -> R) -> Option<R> {
        let shard = self.shard(key);
        loop {
            let level = shard.current.load(Ordering::Acquire);
            let slots = shard.level(level)?;
            for slot in way(slots, tag(key)) {
                match slot.tag.load(Ordering::Acquire) {
                    NEVER => break,
                    found if found == tag(key) => {
                        let token = slot.token.load();
                        if let Some(issued) = token.as_ref().map(IssuedRef::new).filter(|issued| issued.is_of(key)) {
                            return Some(read(issued));
                        }
                    }
                    _ => {}
                }
            }
            if shard.current.load(Ordering::Acquire) == level {
                return None;
            }
        }
    }

    /// Changes the token of the key as `decide` says, which gets the current one. Other writers of the shard wait until the
    /// turn is dropped.
    pub(super) fn update(
        &self,
        key: &TokenKey,
        decide: impl FnOnce(Option<IssuedRef<'_>>) -> Update,
    ) -> WriterTurn<'_> {
        let shard = self.shard(key);
        let WriterTurn(mut used) = self.turn(key);
        if let Some(slots) = shard.level(shard.current.load(Ordering::Relaxed)) {
            for (at, slot) in way(slots, tag(key)).enumerate() {
                match slot.tag.load(Ordering::Relaxed) {
                    NEVER => break,
                    found if found == tag(key) => {
                        let token = slot.token.load();
                        let Some(issued) = token.as_ref().map(IssuedRef::new).filter(|issued| issued.is_of(key)) else {
                            continue;
                        };
                        match decide(Some(issued)) {
                            Update::Keep => {}
                            Update::Put(issued) => slot.token.store(Some(issued.into_block())),
                            Update::Remove => {
                                slot.token.store(None);
                                *used -= clean(slots, tag(key), at);
                            }
                        }
                        return WriterTurn(used);
                    }
                    _ => {}
                }
            }
        }
        if let Update::Put(issued) = decide(None) {
            shard.insert(&mut used, tag(key), issued);
        }
        WriterTurn(used)
    }

    /// Keeps the key's token as it is until the turn is dropped.
    pub(super) fn turn(&self, key: &TokenKey) -> WriterTurn<'_> {
        WriterTurn(self.shard(key).used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `look` with every token; with only some of those of a shard that grows meanwhile. What is published or removed
    /// meanwhile may or may not be among them.
    pub(super) fn each(&self, mut look: impl FnMut(IssuedRef<'_>)) {
        for shard in &self.shards {
            let slots = shard.level(shard.current.load(Ordering::Acquire)).unwrap_or_default();
            for slot in slots.iter().filter(|slot| slot.tag.load(Ordering::Acquire) != NEVER) {
                if let Some(token) = slot.token.load().as_ref() {
                    look(IssuedRef::new(token));
                }
            }
        }
    }

    /// Calls `look` with every token. Nobody changes a token of a shard while it is looked at.
    pub(super) fn each_at_rest(&self, mut look: impl FnMut(IssuedRef<'_>)) {
        for shard in &self.shards {
            let _turn = shard.used.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = shard.level(shard.current.load(Ordering::Relaxed)).unwrap_or_default();
            for token in slots.iter().map(|slot| slot.token.load()) {
                if let Some(token) = token.as_ref() {
                    look(IssuedRef::new(token));
                }
            }
        }
    }

    /// The part that has the key: by the first bits of its hash. The last ones choose the slot.
    #[inline]
    fn shard(&self, key: &TokenKey) -> &Shard {
        &self.shards[(key.keyed_hash() >> (u64::BITS - SHARD_BITS)) as usize & (self.shards.len() - 1)]
    }
}

impl Shard {
    fn new() -> Self {
        Self { levels: [const { OnceLock::new() }; LEVELS], current: AtomicUsize::new(0), used: Mutex::new(0) }
    }

    #[inline]
    fn level(&self, level: usize) -> Option<&[TokenSlot]> {
        self.levels.get(level)?.get().map(|slots| &**slots)
    }

    /// Puts a token of a key that has none into a slot.
    fn insert(&self, used: &mut usize, tag: u64, issued: Issued) {
        let level = self.current.load(Ordering::Relaxed);
        let full = |slots: &[TokenSlot]| *used >= slots.len() - slots.len() / 3;
        let slots = match self.level(level) {
            Some(slots) if !full(slots) => slots,
            Some(_) => match self.grow(level, used) {
                Some(slots) => slots,
                // There is no memory for so many.
                None => return,
            },
            None => self.levels[level].get_or_init(|| empty(SMALLEST)),
        };
        *used += put(slots, tag, issued.into_block());
    }

    /// Moves all tokens to the next level.
    fn grow(&self, level: usize, used: &mut usize) -> Option<&[TokenSlot]> {
        let (before, next) = (self.level(level)?, self.levels.get(level + 1)?);
        let after = next.get_or_init(|| empty(2 * before.len()));
        let tokens = || before.iter().filter_map(|slot| slot.token.load_full().map(|token| (slot, token)));
        *used = tokens().map(|(slot, token)| put(after, slot.tag.load(Ordering::Relaxed), token)).sum();
        self.current.store(level + 1, Ordering::Release);
        tokens().for_each(|(slot, _)| slot.token.store(None));
        Some(after)
    }
}

/// Returns the tag of the key's slot.
#[inline]
fn tag(key: &TokenKey) -> u64 {
    key.keyed_hash().max(NEVER + 1)
}

fn empty(len: usize) -> Box<[TokenSlot]> {
    (0..len).map(|_| TokenSlot::default()).collect()
}

/// The slots in which a token with this tag can be, in order.
#[inline]
fn way(slots: &[TokenSlot], tag: u64) -> impl Iterator<Item = &TokenSlot> {
    let mask = slots.len() - 1;
    (0..slots.len()).map(move |at| &slots[(tag as usize).wrapping_add(at) & mask])
}

/// Stores the token in the first free slot of its way. Returns how many slots that were never used it takes.
fn put(slots: &[TokenSlot], tag: u64, token: IssuedBlock) -> usize {
    let Some(slot) = way(slots, tag).find(|slot| slot.token.load().is_none()) else { return 0 };
    // In this order, a reader that finds the token finds the tag.
    let before = slot.tag.swap(tag, Ordering::AcqRel);
    slot.token.store(Some(token));
    usize::from(before == NEVER)
}

/// Makes the slot at this place of the way, which is free now, and free ones before it, slots that were never used, if nothing lies
/// behind them. Returns how many they are.
fn clean(slots: &[TokenSlot], tag: u64, at: usize) -> usize {
    let mask = slots.len() - 1;
    let place = (tag as usize).wrapping_add(at);
    let behind = &slots[place.wrapping_add(1) & mask];
    if behind.tag.load(Ordering::Relaxed) != NEVER {
        return 0;
    }
    let free = |slot: &&TokenSlot| slot.tag.load(Ordering::Relaxed) != NEVER && slot.token.load().is_none();
    let back = (0..slots.len()).map(|back| &slots[place.wrapping_sub(back) & mask]);
    back.take_while(free).map(|slot| slot.tag.store(NEVER, Ordering::Release)).count()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{Arc, atomic::AtomicBool},
        thread,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::model::Generation;

    fn key(user: usize) -> TokenKey {
        TokenKey::at("idp").user(format!("user-{user}"))
    }

    fn put_at(slots: &Slots, user: usize, generation: u64) {
        let key = key(user);
        slots.update(&key, |_| Update::Put(Issued::ended(&key, Generation(generation))));
    }

    fn remove_at(slots: &Slots, user: usize) {
        slots.update(&key(user), |_| Update::Remove);
    }

    fn generation_at(slots: &Slots, user: usize) -> Option<u64> {
        slots.read(&key(user), |issued| issued.generation.get())
    }

    fn all(slots: &Slots) -> HashMap<TokenKey, u64> {
        let mut all = HashMap::new();
        slots.each(|issued| assert!(all.insert(issued.key(), issued.generation.get()).is_none(), "{:?}", issued.key()));
        all
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0..200_usize, 0..3_u8), 0..3_000)) {
            let (slots, mut map) = (Slots::default(), HashMap::new());
            for (generation, (user, step)) in steps.into_iter().enumerate() {
                let generation = generation as u64;
                if step == 0 {
                    remove_at(&slots, user);
                    map.remove(&key(user));
                } else {
                    let before = map.insert(key(user), generation);
                    slots.update(&key(user), |current| {
                        assert_eq!(current.map(|issued| issued.generation.get()), before);
                        Update::Put(Issued::ended(&key(user), Generation(generation)))
                    });
                }
                prop_assert_eq!(generation_at(&slots, user), map.get(&key(user)).copied());
            }
            prop_assert_eq!(all(&slots), map);
        }
    }

    #[test]
    fn slots_are_used_again() {
        let slots = Slots::default();
        for round in 0..200 {
            (0..500).for_each(|user| put_at(&slots, 500 * round + user, 1));
            (0..500).for_each(|user| remove_at(&slots, 500 * round + user));
        }
        for shard in &slots.shards {
            assert!(shard.current.load(Ordering::Relaxed) <= 2, "500 tokens at a time do not fill larger levels");
            assert_eq!(*shard.used.lock().unwrap(), 0, "what lies at the end of its way leaves nothing behind");
        }
    }

    /// Half of the keys always have a token, whose generation grows. The others come and go, in numbers that make the table grow.
    #[test]
    fn readers_find_what_is_there_while_writers_change_it() {
        const KEYS: usize = 64;
        let (slots, done) = (Arc::new(Slots::default()), Arc::new(AtomicBool::new(false)));
        (0..KEYS).for_each(|user| put_at(&slots, user, 1));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (slots, done) = (slots.clone(), done.clone());
                thread::spawn(move || {
                    let (keys, mut highest) = ((0..KEYS).map(key).collect::<Vec<_>>(), [1; KEYS]);
                    while !done.load(Ordering::Relaxed) {
                        for (key, highest) in keys.iter().zip(&mut highest) {
                            let found = slots.read(key, |issued| (issued.is_of(key), issued.generation.get()));
                            let (own, generation) = found.expect("it is there all the time");
                            assert!(own && generation >= *highest, "{generation} after {highest}");
                            *highest = generation;
                        }
                    }
                })
            })
            .collect();
        for round in 2..60_u64 {
            let crowd = KEYS..KEYS + 100 * round as usize;
            crowd.clone().for_each(|user| put_at(&slots, user, round));
            (0..KEYS).for_each(|user| put_at(&slots, user, round));
            crowd.for_each(|user| remove_at(&slots, user));
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(all(&slots), (0..KEYS).map(|user| (key(user), 59)).collect());
    }
}
