//! Announces refresh tokens that expire soon, each once.

use std::time::Duration;

use crate::{
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

/// The time up to which everything was announced.
#[derive(Default)]
pub(super) struct Notices {
    /// As the store has it; `None` before it was read.
    told_before: Option<StoreTime>,
}

impl Notices {
    /// Emits an event for each token that has come up since the last time, if that is long enough ago and an application
    /// listens: tokens that came up before it subscribed are announced then. The mark is moved afterwards: the next
    /// process repeats what a killed one may have emitted.
    pub(super) async fn emit(&mut self, ledger: &Ledger, now: StoreTime) -> Result<(), StoreError> {
        let told_before = match self.told_before {
            Some(time) => time,
            None => stored(ledger).await?,
        };
        // A clock that was stepped back must not silence the events until that time comes again.
        let told_before = told_before.min(now);
        self.told_before = Some(told_before);
        if now < told_before + EVERY || !ledger.events().has_subscribers() {
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
        ledger.store().set_meta(TOLD_BEFORE, Some(now.0.to_le_bytes().to_vec())).await?;
        self.told_before = Some(now);
        Ok(())
    }
}

async fn stored(ledger: &Ledger) -> Result<StoreTime, StoreError> {
    let never = 0_i64.to_le_bytes();
    let stored = ledger.store().meta(TOLD_BEFORE, never.to_vec()).await?;
    Ok(StoreTime(i64::from_le_bytes(stored.try_into().unwrap_or(never))))
}
