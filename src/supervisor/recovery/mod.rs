//! The recovery of a store that went back in time: one that was restored from a backup, or lost commits in a fail-over.
//!
//! Every few seconds a mark is written to the store, and then to the journal's folder: how many of this process's changes the
//! store has. A store whose mark is lower, or missing, has lost changes, and so may have one that is on another server than
//! before. Then a *round* begins, which the store keeps: while it lasts, nothing is sent to any provider, and each process
//! replays its [history](crate::journal::History). When all have, or after a time, the round ends. If the loss is proven and
//! not all histories are complete, grants that came due since may have been refreshed by a process that is not there: they
//! become doubts before anything is sent for them.
//!
//! Invariants: a mark is written to the folder after the store has it, and to neither while a replay is outstanding; everything
//! may be done again from the beginning.

mod doubts;
mod replay;
mod round;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use self::{
    replay::replay,
    round::{RecoveryRound, RecoverySight, StoreMark, blocking},
};
use super::{
    refresh::{Ports, Refresher},
    replicas::{News, Replicas},
    router::Router,
};
use crate::{
    journal::{HistoryMark, HistoryTip},
    model::Id,
    store::StoreError,
};

/// The time between two marks.
const EVERY: Duration = Duration::from_secs(5);

/// A mark is renewed this often although nothing was stored, so that its owner does not count as gone.
const RENEWED_EVERY: Duration = Duration::from_secs(3_600);

/// How long a process that stops tries to write its last mark.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Recovery {
    refresher: Refresher,
    router: Router,
    /// No replay is outstanding, as far as this process knows: marks may be written.
    is_caught_up: AtomicBool,
}

/// Begins a round if the store went back, at the start of a process. Returns whether a round is under way.
pub(super) async fn check(ports: &Ports) -> Result<bool, StoreError> {
    let sight = round::look(ports).await?;
    ports.ledger.history().goes_on_above(sight.own_number());
    let lost = match sight.loss() {
        None if replay::is_tail_missing(ports, &sight).await? => Some(round::PROVEN),
        lost => lost,
    };
    let round = round::join_or_begin(ports, &sight, lost).await?;
    sight.rely_on_server(ports);
    Ok(round.is_some())
}

impl Recovery {
    pub(super) fn new(refresher: Refresher, router: Router) -> Self {
        Self { refresher, router, is_caught_up: AtomicBool::new(false) }
    }

    /// Writes marks, and has what the store lost brought back, again and again.
    pub(super) async fn run(&self) {
        let mut failed = false;
        loop {
            if let Err(error) = self.step().await {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(%error, "whether the store went back in time cannot be looked up: it is tried again");
                }
            } else {
                failed = false;
            }
            self.refresher.ports().clock.sleep(EVERY).await;
        }
    }

    /// Looks at the store once, and does what follows.
    pub(super) async fn step(&self) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        let sight = round::look(ports).await?;
        let Some(round) = round::join_or_begin(ports, &sight, sight.loss()).await? else {
            sight.rely_on_server(ports);
            self.is_caught_up.store(true, Ordering::SeqCst);
            return self.mark(&sight).await;
        };
        ports.providers.read_holds(&ports.ledger).await?;
        // From here on the hold keeps back what the other server may not know of.
        sight.rely_on_server(ports);
        if !sight.has_confirmed(&round) {
            self.is_caught_up.store(false, Ordering::SeqCst);
            // The store may have lost the claim of a request that is under way.
            ports.attempts.ended().await;
            let replayed = replay(ports, &self.router, &sight).await?;
            self.confirm(&sight, &round, &replayed).await?;
            self.is_caught_up.store(true, Ordering::SeqCst);
        }
        self.end_round(&round).await
    }

    /// Ends the round when all processes have replayed their histories, or had the time for it.
    async fn end_round(&self, round: &RecoveryRound) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        let sight = round::look(ports).await?;
        if sight.round.as_ref().is_none_or(|now| now.id != round.id) {
            return Ok(());
        }
        let longest = longest_request(ports);
        let reports = ports.ledger.store().reports().await?;
        let lately: Vec<_> = Replicas::journals(&reports, longest).collect();
        let confirmed = sight.confirmed(round, ports.ledger.replicas().is_shared(), &lately);
        let waited = ports.clock.store_time().since(round.since) >= longest;
        if !confirmed.all && !waited {
            return Ok(());
        }
        let doubts = match round.proven && !(confirmed.all && confirmed.complete) {
            true => doubts::raise(ports, &self.router, round).await?,
            false => 0,
        };
        ports.ledger.store().set_meta(round::ROUND, None).await?;
        ports.ledger.replicas().tell(|| News::Holds);
        ports.providers.read_holds(&ports.ledger).await?;
        ports.ledger.alarm().ring();
        tracing::warn!(
            in_doubt = doubts,
            "what the store had lost is back, as far as the histories have it: refreshes go on"
        );
        Ok(())
    }

    /// Records what the store has for certain.
    async fn mark(&self, sight: &RecoverySight) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        let (owner, history) = (ports.journal.owner(), ports.ledger.history());
        // Read before the store is written: it has what was counted until now.
        let tip = history.tip();
        let (stored, file) = (sight.marks.get(&owner), sight.files.get(&owner));
        let now = ports.clock.store_time();
        let is_new = tip.number > 0
            && (stored.is_none_or(|mark| mark.number != tip.number || now.since(mark.at) >= RENEWED_EVERY)
                || file.is_none_or(|file| {
                    file.number != tip.number || sight.server.is_some() && file.server != sight.server
                }));
        if is_new { self.write_mark(sight, owner, tip, StoreMark::at(tip.number, now)).await } else { Ok(()) }
    }

    /// Records that the histories of this process were replayed in this round.
    async fn confirm(
        &self,
        sight: &RecoverySight,
        round: &RecoveryRound,
        replayed: &replay::Replayed,
    ) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        let history = ports.ledger.history();
        history.written().await;
        for (owner, read) in &replayed.histories {
            let is_own = *owner == ports.journal.owner();
            let tip = if is_own { history.tip() } else { read.tip };
            let now = ports.clock.store_time();
            let mark =
                StoreMark { round: Some(round.id), complete: read.is_complete, ..StoreMark::at(tip.number, now) };
            self.write_mark(sight, *owner, tip, mark).await?;
        }
        Ok(())
    }

    /// Writes a mark to the store, and then to the folder.
    async fn write_mark(
        &self,
        sight: &RecoverySight,
        owner: Id,
        tip: HistoryTip,
        mark: StoreMark,
    ) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        let json = serde_json::to_vec(&mark).expect("plain structs have a JSON form");
        ports.ledger.store().set_meta(&round::name_of(owner), Some(json)).await?;
        let before = sight.files.get(&owner).and_then(|file| file.server.clone());
        let file = HistoryMark {
            number: tip.number,
            place: tip.place,
            server: sight.server.clone().or(before),
            owners: sight.present(mark.at).collect(),
        };
        let written = blocking(ports, move |history| history.set_mark(owner, &file)).await;
        if let Some(Err(error)) = written {
            tracing::warn!(%error, "the mark of the history is not written: a store that goes back in time may not be noticed");
        }
        Ok(())
    }

    /// Writes the last mark of a process that stops.
    pub(super) async fn leave(&self) {
        let ports = self.refresher.ports();
        if !self.is_caught_up.load(Ordering::SeqCst) {
            return;
        }
        let leaving = async {
            ports.ledger.history().written().await;
            let sight = round::look(ports).await?;
            match sight.loss() {
                None => self.mark(&sight).await,
                Some(_) => Ok(()),
            }
        };
        tokio::select! {
            left = leaving => drop::<Result<(), StoreError>>(left),
            () = ports.clock.sleep(FAREWELL) => {}
        }
    }
}

/// After this time no response to a request can come that was under way when the round began, and another process that lives
/// has replayed its history.
fn longest_request(ports: &Ports) -> Duration {
    ports.providers.all().values().map(|provider| provider.rules().longest_request()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests;
