//! The sweeper: wakes the actors of grants that are due, and has expiring refresh tokens announced.

use std::{collections::HashMap, time::Duration};

use super::expiring::Notices;
use crate::{
    store::StoreError,
    supervisor::{command::Ask, refresh::Refresher, router::Router, settings::Limits},
};

/// Keys that are woken at a time.
const PAGE: u32 = 256;

/// The time between a sweep that left due grants and the next one.
const AGAIN: Duration = Duration::from_secs(1);

/// How long fingerprints of spent refresh tokens are kept.
const SPENT_KEPT: Duration = Duration::from_secs(180 * 24 * 3_600);

/// Old fingerprints are removed once in this number of sweeps.
const FORGET_EVERY: u32 = 512;

pub(super) struct Sweeper {
    refresher: Refresher,
    router: Router,
    limits: Limits,
}

impl Sweeper {
    pub(super) fn new(refresher: Refresher, router: Router, limits: Limits) -> Self {
        Self { refresher, router, limits }
    }

    /// Sweeps again and again.
    pub(super) async fn run(&self) {
        let ports = self.refresher.ports();
        let (ledger, clock) = (&ports.ledger, &ports.clock);
        let mut sweeps: u32 = 0;
        let mut notices = Notices::default();
        loop {
            let swept = async {
                ports.providers.read_holds(ledger).await?;
                let complete = self.wake_due().await?;
                notices.emit(ledger, clock.store_time()).await?;
                if sweeps.is_multiple_of(FORGET_EVERY) {
                    ledger.store().forget_spent(clock.store_time().minus(SPENT_KEPT)).await?;
                }
                Ok::<bool, StoreError>(complete)
            };
            let complete = swept.await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "a sweep was cut short: the next one starts over");
                true
            });
            sweeps = sweeps.wrapping_add(1);
            let every = self.limits.sweep_every;
            clock.sleep(if complete { every } else { every.min(AGAIN) }).await;
        }
    }

    /// Wakes the grants that are due, of each provider as many as it can take: a slow provider must not hold up the others.
    /// Returns false if some were left for the next sweep.
    async fn wake_due(&self) -> Result<bool, StoreError> {
        let ports = self.refresher.ports();
        let (now, mut after, mut complete) = (ports.clock.now(), None, true);
        let mut room: HashMap<String, usize> = HashMap::new();
        loop {
            let page = ports.ledger.store().due(now, after, PAGE).await?;
            for key in page.keys {
                // Grants behind a closed gate or a hold stay due.
                if !ports.providers.is_open(key.idp()) {
                    continue;
                }
                let room = match room.get_mut(key.idp()) {
                    Some(room) => room,
                    None => {
                        let running = ports.attempts.running_for(key.idp());
                        let left = self.limits.swept_at_once.saturating_sub(running);
                        room.entry(key.idp().to_owned()).or_insert(left)
                    }
                };
                let Some(left) = room.checked_sub(1) else {
                    complete = false;
                    continue;
                };
                *room = left;
                // A registry that is just being replaced loses nothing: the next sweep comes.
                self.router.route(key, Ask::Wake).await.ok();
            }
            match page.next {
                Some(_) => after = page.next,
                None => return Ok(complete),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{model::TokenKey, supervisor::bench::Bench};

    use super::*;

    #[actix::test]
    async fn due_grants_of_open_providers_are_woken_up_to_the_room_there_is() {
        let bench = Bench::with_idp("idp");
        for user in ["alice", "bob", "carol"] {
            bench.connect(&TokenKey::at("idp").user(user), &format!("ts-test-secret-{user}")).await;
        }
        let (router, mut routed) = bench.recording_router();
        let limits = Limits { swept_at_once: 2, ..Limits::default() };
        let sweeper = Sweeper::new(bench.refresher.clone(), router, limits);
        assert!(sweeper.wake_due().await.unwrap() && routed.try_recv().is_err(), "nothing is due");
        bench.manual.advance(Duration::from_secs(3_600));
        assert!(!sweeper.wake_due().await.unwrap(), "one is left for the next sweep");
        for _ in 0..2 {
            assert_eq!(routed.recv().await.unwrap().idp(), "idp");
        }
        bench.providers.set_hold(&bench.ledger, "idp", Some("maintenance")).await.unwrap();
        assert!(sweeper.wake_due().await.unwrap());
        assert!(routed.try_recv().is_err(), "nothing is woken while the provider is on hold");
    }

    #[actix::test]
    async fn a_sweep_of_a_store_that_does_not_respond_is_cut_short() {
        let bench = Bench::with_idp("idp");
        bench.break_store();
        let (router, _routed) = bench.recording_router();
        assert!(Sweeper::new(bench.refresher.clone(), router, Limits::default()).wake_due().await.is_err());
    }
}
