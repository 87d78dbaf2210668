//! The gate before an identity provider: how many requests at once, and not before when.
//!
//! One per provider and process, so that a slow provider holds up its own grants alone and one answer
//! of "slow down" is heard by all of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::Time;

/// No provider is left alone for longer than this, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Hands out the right to send one request.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Arc<Semaphore>,
    /// In milliseconds, as [`Time`].
    not_before: AtomicI64,
}

/// The right to send one request; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// The provider asked to be left alone until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBefore(pub(crate) Time);

impl Gate {
    pub(crate) fn new(max_concurrency: usize) -> Self {
        let slots = Semaphore::new(max_concurrency.clamp(1, Semaphore::MAX_PERMITS));
        Self { slots: Arc::new(slots), not_before: AtomicI64::new(i64::MIN) }
    }

    /// Waits for a slot, first come first served. Dropping the future gives up the place.
    ///
    /// # Errors
    /// [`NotBefore`] at once, or after the wait if somebody heard it in the meantime.
    pub(crate) async fn slot(&self, now: Time) -> Result<Slot, NotBefore> {
        self.open(now)?;
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        // Against the time before the wait: earlier than it is now, so this refuses rather too much.
        self.open(now)?;
        Ok(Slot { _permit: permit })
    }

    /// Closes the gate until `until`, or longer if it was closed for longer.
    pub(crate) fn not_before(&self, until: Time) {
        self.not_before.fetch_max(until.0, Ordering::Relaxed);
    }

    fn open(&self, now: Time) -> Result<(), NotBefore> {
        // Lowering it here bounds what was asked for, and heals a clock that was stepped back.
        let longest = (now + LONGEST).0;
        let until = self.not_before.fetch_min(longest, Ordering::Relaxed).min(longest);
        if until > now.0 { Err(NotBefore(Time(until))) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn slots_are_limited_and_come_back() {
        let gate = Gate::new(2);
        let first = gate.slot(Time(0)).await.unwrap();
        let _second = gate.slot(Time(0)).await.unwrap();
        let mut third = Box::pin(gate.slot(Time(0)));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        third.await.unwrap();
        assert!(Gate::new(0).slot(Time(0)).now_or_never().is_some(), "a gate without slots would never open");
    }

    #[tokio::test]
    async fn not_before_is_heard_by_those_who_wait_too() {
        let gate = Gate::new(1);
        let slot = gate.slot(Time(1_000)).await.unwrap();
        let mut waiting = Box::pin(gate.slot(Time(1_000)));
        assert!((&mut waiting).now_or_never().is_none());
        gate.not_before(Time(5_000));
        gate.not_before(Time(4_000));
        drop(slot);
        assert_eq!(waiting.await.unwrap_err(), NotBefore(Time(5_000)));
        assert_eq!(gate.slot(Time(4_999)).await.unwrap_err(), NotBefore(Time(5_000)));
        gate.slot(Time(5_000)).await.unwrap();
    }

    #[tokio::test]
    async fn an_hour_is_the_longest_and_a_clock_stepped_back_heals() {
        let gate = Gate::new(1);
        gate.not_before(Time(86_400_000));
        assert_eq!(gate.slot(Time(0)).await.unwrap_err(), NotBefore(Time(3_600_000)));
        gate.slot(Time(3_600_000)).await.unwrap();
    }
}
