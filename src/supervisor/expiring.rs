//! Tells ahead of time that refresh tokens end, each once.

use std::time::Duration;

use super::{
    core::Core,
    events::{EventKind, TokenEvent},
};
use crate::{model::StoreTime, store::StoreError};

/// How often it is looked for: every row is read for it.
const EVERY: Duration = Duration::from_secs(3_600);

/// Rows at a time.
const PAGE: u32 = 256;

/// Where the store keeps the time before which everything has been told.
const TOLD_BEFORE: &str = "expiring_told_before";

/// What has been told already.
#[derive(Default)]
pub(super) struct Notices {
    /// As the store has it; `None` until it was read.
    told_before: Option<StoreTime>,
}

impl Notices {
    /// Tells what has come up since the last time, if that is long enough ago and anybody listens: what came up
    /// before an application subscribed is told then. The mark is moved afterwards: what a killed process may have
    /// told is told again by the next one.
    pub(super) async fn tell(&mut self, core: &Core) -> Result<(), StoreError> {
        let told_before = match self.told_before {
            Some(time) => time,
            None => stored(core).await?,
        };
        let now = core.clock.store_time();
        // A clock that was stepped back must not silence it until that time comes again.
        let told_before = told_before.min(now);
        self.told_before = Some(told_before);
        if now < told_before + EVERY || !core.events.is_heard() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = core.store.expiring(told_before..now, after, PAGE).await?;
            for grant in &page {
                if let Some(end) = grant.refresh_expires.at() {
                    let kind = EventKind::ExpiringSoon { ends_at: end.into() };
                    core.events.emit(TokenEvent::of(&grant.key, &grant.grant_id, now, kind));
                }
            }
            let full = page.len() == PAGE as usize;
            after = page.into_iter().last();
            if !full {
                break;
            }
        }
        core.store.set_meta(TOLD_BEFORE, Some(now.0.to_le_bytes().to_vec())).await?;
        self.told_before = Some(now);
        Ok(())
    }
}

async fn stored(core: &Core) -> Result<StoreTime, StoreError> {
    let never = 0_i64.to_le_bytes();
    let stored = core.store.meta(TOLD_BEFORE, never.to_vec()).await?;
    Ok(StoreTime(i64::from_le_bytes(stored.try_into().unwrap_or(never))))
}
