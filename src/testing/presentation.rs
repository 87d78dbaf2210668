//! The log of refresh tokens that were presented: what tests judge a client by.

use std::{sync::Arc, time::SystemTime};

use super::Fault;
use crate::model::WallTime;

/// One refresh token in one complete request to the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presentation {
    /// Which token; `None` if it was never issued here.
    pub token: Option<TokenId>,
    /// When the request was complete.
    pub at: SystemTime,
    /// When it was processed, if it was.
    pub processed_at: Option<SystemTime>,
    /// When the last of its answer was handed to the connection, if it was: a client that is gone by then
    /// was not answered. One that lives may still lose it.
    pub answered_at: Option<SystemTime>,
    /// What became of it. It changes once more while a request waits (in a delay, for example).
    pub outcome: Outcome,
    /// Whether the token was spent already, within a grace or not.
    pub duplicate: bool,
    /// The refresh token that was given for it, whoever got it.
    pub given: Option<TokenId>,
    /// What went wrong with the request.
    pub fault: Option<Fault>,
}

/// Names a refresh token without giving it away.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct TokenId {
    /// Whose consent it stems from.
    pub user: Arc<str>,
    /// The family, numbered from 1 in the order of consent.
    pub family: u64,
    /// Its number within the family, from 1.
    pub serial: u64,
}

/// What became of a presented refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was spent; a new pair was made.
    Rotated,
    /// It was good and stays so; an access token was made.
    Renewed,
    /// It was spent before, but within its grace: answered again.
    Replayed,
    /// Refused; nothing changed.
    Refused,
    /// It was spent before, and ended its family.
    KilledFamily,
    /// Not looked at, because of a fault or wrong client credentials, or not yet.
    NotProcessed,
}

/// Where an outcome belongs in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogIndex(pub(super) usize);

#[derive(Default)]
pub(super) struct PresentationLog {
    entries: Vec<Presentation>,
    duplicate_spends: u64,
}

impl PresentationLog {
    pub(super) fn arrived(
        &mut self,
        token: Option<TokenId>,
        duplicate: bool,
        fault: Option<&Fault>,
        now: WallTime,
    ) -> LogIndex {
        self.entries.push(Presentation {
            token,
            at: now.into(),
            processed_at: None,
            answered_at: None,
            outcome: Outcome::NotProcessed,
            duplicate,
            given: None,
            fault: fault.cloned(),
        });
        LogIndex(self.entries.len() - 1)
    }

    pub(super) fn processed(
        &mut self,
        LogIndex(index): LogIndex,
        outcome: Outcome,
        duplicate: bool,
        given: Option<TokenId>,
        now: WallTime,
    ) {
        if duplicate && outcome != Outcome::Replayed {
            self.duplicate_spends += 1;
        }
        if let Some(entry) = self.entries.get_mut(index) {
            (entry.outcome, entry.duplicate, entry.given) = (outcome, duplicate, given);
            entry.processed_at = Some(now.into());
        }
    }

    pub(super) fn answered(&mut self, LogIndex(index): LogIndex, now: WallTime) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.answered_at = Some(now.into());
        }
    }

    pub(super) fn entries(&self) -> &[Presentation] {
        &self.entries
    }

    pub(super) fn duplicate_spends(&self) -> u64 {
        self.duplicate_spends
    }
}
