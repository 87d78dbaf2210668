//! The work that comes due although no caller asks: cold grants, doubts, revocations, expiring refresh tokens, old
//! tombstones, refusals by mistake.

mod backlog;
mod expiring;
mod purge;
mod revoke;
mod surge;
mod sweep;

use std::sync::Arc;

pub(super) use self::revoke::Revoker;
use self::{expiring::Announcer, purge::Purger, surge::Surges, sweep::Sweeper};
use super::{
    front::Front,
    recovery::Recovery,
    refresh::{Ports, Refresher},
    token::Surroundings,
};

/// The workers, before they run.
pub(super) struct Upkeep {
    refresher: Refresher,
    sweeper: Sweeper,
    announcer: Announcer,
    purger: Purger,
    surges: Surges,
    revoker: Arc<Revoker>,
    recovery: Arc<Recovery>,
}

impl Upkeep {
    pub(super) fn new(around: &Surroundings, front: &Front, revoker: Arc<Revoker>, recovery: Arc<Recovery>) -> Self {
        let Surroundings { refresher, router, limits, .. } = around;
        let Ports { ledger, clock, providers, .. } = refresher.ports();
        let purger = Purger::new(ledger.clone(), front.clone(), clock.clone(), limits.tombstones_kept);
        let surges = Surges::new(providers.clone(), ledger.clone(), front.clone(), clock.clone());
        let sweeper = Sweeper::new(refresher.clone(), router.clone(), *limits);
        let announcer = Announcer::new(ledger.clone(), clock.clone(), limits.sweep_every);
        Self { refresher: refresher.clone(), sweeper, announcer, purger, surges, revoker, recovery }
    }

    /// Runs until it is dropped. Nothing is swept before the store has what the last process left in the journal, and
    /// `on_demand` nothing else is done.
    pub(super) async fn run(self, on_demand: bool) {
        self.refresher.flush_journal().await;
        if on_demand {
            // What it stores is to be marked at its end.
            self.recovery.step().await.ok();
        } else {
            let Self { sweeper, announcer, purger, surges, revoker, recovery, .. } = self;
            tokio::join!(sweeper.run(), announcer.run(), revoker.run(), purger.run(), surges.run(), recovery.run());
        }
    }
}
