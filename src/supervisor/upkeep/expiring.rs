//! Announces refresh tokens that expire soon, and access tokens of grants without one, each once.

use std::time::Duration;

use crate::{
    clock::Clock,
    model::StoreTime,
    store::StoreError,
    supervisor::{
        events::{EventKind, TokenEvent},
        ledger::Ledger,
    },
};

/// The time between two searches: every row is read for one.
const EVERY: Duration = Duration::from_secs(3_600);

/// Rows at a time.
const PAGE: u32 = 256;

/// The name of the value in the store that says up to which time everything was announced.
const TOLD_BEFORE: &str = "expiring_told_before";

/// How long one process may take to announce. If it is killed meanwhile, another one repeats it afterwards.
const TELLING: Duration = Duration::from_secs(600);

pub(super) struct Announcer {
    ledger: Ledger,
    clock: Clock,
    every: Duration,
    notices: Notices,
}

impl Announcer {
    pub(super) fn new(ledger: Ledger, clock: Clock, every: Duration) -> Self {
        Self { ledger, clock, every, notices: Notices::default() }
    }

    /// Announces what has come up, again and again. Not a part of the sweep: what is due does not wait for a search of all grants.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.notices.emit(&self.ledger, self.clock.store_time()).await {
                tracing::warn!(%error, "tokens that expire soon were not announced: they are announced later");
            }
            self.clock.sleep(self.every).await;
        }
    }
}

/// The time up to which everything was announced.
#[derive(Default)]
struct Notices {
    /// As this process knows it; `None` before it was read.
    told_before: Option<StoreTime>,
}

/// What the store has: up to which time everything was announced, and until when one process announces what came after.
#[derive(Clone, Copy, PartialEq)]
struct Mark {
    told_before: StoreTime,
    telling_until: Option<StoreTime>,
}

impl Notices {
    /// Emits an event for each token that has come up since the last time, if that is long enough ago and an application
    /// listens: tokens that came up before it subscribed are announced then. Of several processes at one store, one
    /// announces. The mark is moved afterwards: another process repeats what a killed one may have emitted.
    async fn emit(&mut self, ledger: &Ledger, now: StoreTime) -> Result<(), StoreError> {
        // A clock that was stepped back must not silence the events until that time comes again.
        self.told_before = self.told_before.map(|time| time.min(now));
        if self.told_before.is_some_and(|time| now < time + EVERY) {
            return Ok(());
        }
        let stored = Mark::stored(ledger).await?;
        let told_before = match stored.told_before {
            time if time <= now => time,
            _ => self.told_before.unwrap_or(now),
        };
        self.told_before = Some(told_before);
        if now < told_before + EVERY || !ledger.events().has_subscribers() {
            return Ok(());
        }
        if stored.telling_until.is_some_and(|until| now < until && until < now + 2 * TELLING) {
            return Ok(());
        }
        let telling = Mark { told_before, telling_until: Some(now + TELLING) };
        if !stored.swap(ledger, telling).await? {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = ledger.store().expiring(told_before..now, after, PAGE).await?;
            for grant in &page {
                if let Some(end) = grant.consent_expires.at() {
                    let kind = EventKind::ExpiringSoon { ends_at: end.into() };
                    ledger.events().emit(TokenEvent::of(&grant.key, &grant.grant_id, now, kind));
                }
            }
            let full = page.len() == PAGE as usize;
            after = page.into_iter().last();
            if !full {
                break;
            }
        }
        // If that took too long, another process has begun, and its mark counts.
        telling.swap(ledger, Mark { told_before: now, telling_until: None }).await?;
        self.told_before = Some(now);
        Ok(())
    }
}

impl Mark {
    async fn stored(ledger: &Ledger) -> Result<Self, StoreError> {
        let never = Self { told_before: StoreTime(0), telling_until: None };
        let stored = ledger.store().meta(TOLD_BEFORE, never.to_bytes()).await?;
        let time = |bytes: &[u8]| bytes.try_into().ok().map(|bytes| StoreTime(i64::from_le_bytes(bytes)));
        let (first, second) = stored.split_at(stored.len().min(8));
        Ok(time(first).map_or(never, |told_before| Self { told_before, telling_until: time(second) }))
    }

    /// Returns whether the store still had this mark.
    async fn swap(self, ledger: &Ledger, new: Self) -> Result<bool, StoreError> {
        ledger.store().swap_meta(TOLD_BEFORE, self.to_bytes(), new.to_bytes()).await
    }

    fn to_bytes(self) -> Vec<u8> {
        let times = [Some(self.told_before), self.telling_until];
        times.into_iter().flatten().flat_map(|time| time.0.to_le_bytes()).collect()
    }
}
