//! The log of presented refresh tokens, by which tests judge a client.

use std::{sync::Arc, time::SystemTime};

use super::Fault;
use crate::model::WallTime;

/// One refresh token in one complete request to the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presentation {
    /// The token; `None` if it was never issued here.
    pub token: Option<TokenId>,
    /// When the request was complete.
    pub at: SystemTime,
    /// When the request was processed, if it was.
    pub processed_at: Option<SystemTime>,
    /// When the last part of the response was handed to the connection; `None` e.g. if the client had
    /// disconnected. A connected client may still lose the response.
    pub answered_at: Option<SystemTime>,
    /// The outcome. It changes once more if the request still waits (in a delay, for example).
    pub outcome: Outcome,
    /// Whether the token was already spent, still accepted or not.
    pub duplicate: bool,
    /// The refresh token that was issued for it, even if the client did not receive it.
    pub given: Option<TokenId>,
    /// The fault that was injected into the request.
    pub fault: Option<Fault>,
    /// The query of the request's URL. Clients that share a provider are told apart by it, if each has its own in `token_url`.
    pub query: Option<Arc<str>>,
}

/// Identifies a refresh token without revealing it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct TokenId {
    /// The user whose consent started the family.
    pub user: Arc<str>,
    /// The family, numbered from 1 in the order of consent.
    pub family: u64,
    /// The token's number within the family, from 1.
    pub serial: u64,
}

/// The outcome of presenting a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The token was spent; a new pair was issued.
    Rotated,
    /// The token was valid and stays valid; an access token was issued.
    Renewed,
    /// The token was spent before, but was accepted again.
    Replayed,
    /// The token was refused; nothing changed.
    Refused,
    /// The token was spent before; presenting it again ended its family.
    KilledFamily,
    /// The token was not processed, because of a fault or wrong client credentials, or not yet.
    NotProcessed,
}

/// The index of a presentation in the log.
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
            query: None,
        });
        LogIndex(self.entries.len() - 1)
    }

    pub(super) fn came_with(&mut self, LogIndex(index): LogIndex, query: &str) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.query = Some(query.into());
        }
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
