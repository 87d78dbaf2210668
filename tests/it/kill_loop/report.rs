//! What is told at the end, and every fifty kills before.

use std::{fmt, time::Duration};

use super::ledger::{Ledger, Reason, Sums};

/// What is counted beside the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) seed: u64,
    pub(super) kills: usize,
    /// Kills while the process started, perhaps with nothing in flight.
    pub(super) early: usize,
    /// The sum over all other kills.
    pub(super) in_flight: usize,
    /// Requests to the program that got no answer because it was killed.
    pub(super) cut_off: usize,
    /// Answers that a dead process had left in its journal.
    pub(super) journaled: usize,
    /// Requests that were processed after the death of the process that had sent them.
    pub(super) late: usize,
}

pub(super) struct Report<'a> {
    pub(super) figures: &'a Figures,
    pub(super) ledger: &'a Ledger,
    pub(super) took: Duration,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { seed, kills, early, in_flight, cut_off, journaled, late } = self.figures;
        let seconds = self.took.as_secs_f64();
        writeln!(f, "kill loop: seed {seed}, {kills} kills (and {early} while it started), {seconds:.1} s")?;
        writeln!(
            f,
            "  when it was killed: {in_flight} refreshes in flight, {cut_off} callers cut off; answers found in \
             journals: {journaled}; requests processed after the death of their sender: {late}"
        )?;
        for (name, sums) in &self.ledger.sums {
            let Sums { requests, stored, unanswered, healed, reconnected, explained_duplicates, .. } = sums;
            let lost = |reason| sums.lost.get(&reason).copied().unwrap_or(0);
            let (undelivered, unpersisted) = (lost(Reason::NeverDelivered), lost(Reason::BeforePersistence));
            writeln!(
                f,
                "  {name}: {requests} requests, of a grant and life at most {unanswered} without answer; {stored} \
                 answers stored; {undelivered} lost because the reader was dead, {unpersisted} because it died before \
                 it had persisted them; {healed} of these healed, {reconnected} ended by a consent; \
                 {explained_duplicates} duplicates by recovery, 0 others"
            )?;
        }
        Ok(())
    }
}
