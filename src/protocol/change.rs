//! The changes of a row, and the one function through which every store applies them.

use super::{
    Applied, ChangeInput, ChangeReply, Claim, Commit, ConnectChange, DisconnectChange, Ending, Lookup, LookupResult,
    Recover, Refuse, Resealed, claim, commit, connect, ending, reseal, transition::transitions,
};
use crate::model::{Evidence, Generation, Id, Intent, VerdictBy};

/// A change of one row. Every change may be repeated: a repetition changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// Takes the lease and records the intent to spend.
    Claim(Claim),
    /// Takes over a doubt: like a claim, for a row with an intent.
    Recover(Recover),
    /// Extends the lease while the response is awaited.
    Renew {
        attempt: Id,
        lease: std::time::Duration,
    },
    /// Stores a response, or finds its place if the row has changed.
    Commit(Box<Commit>),
    /// The identity provider refused the refresh token.
    Refuse(Refuse),
    /// The token was not spent.
    Cancel(Ending),
    /// No process will receive the response.
    Close(Ending),
    /// This process saw a higher generation: the store lost writes.
    Raise {
        incarnation: Id,
        seen: Generation,
        unknown: Id,
    },
    /// Ends a doubt about a token that the row no longer spends.
    Clear {
        incarnation: Id,
        intent: Intent,
    },
    /// The identity provider says that the token of a doubt is spent, and no process will receive the response.
    Spent {
        incarnation: Id,
        intent: Intent,
    },
    /// Ends a doubt that cannot be resolved.
    GiveUp {
        incarnation: Id,
        intent: Intent,
    },
    /// Ends a grant whose access token has expired and cannot be replaced.
    RunOut {
        incarnation: Id,
        generation: Generation,
    },
    Connect(Box<ConnectChange>),
    Disconnect(DisconnectChange),
    RequireReconnect {
        reason: String,
    },
    /// Undoes a disconnect.
    Restore,
    /// Lifts the identity provider's refusal, so that the refresh token is sent once more.
    Retry,
    /// Puts the row on hold: nothing is sent for it until its release.
    Hold {
        reason: String,
    },
    Release,
    /// Replaces ciphertext by the same plaintext under another key.
    Reseal(Vec<Resealed>),
    /// Deletes a tombstone.
    Purge,
}

impl Change {
    /// Applies the change, and finds what to report.
    pub(crate) fn apply(&self, found: ChangeInput<'_>) -> Applied {
        let mut applied = self.decide(found);
        if let Some(written) = &applied.row {
            applied.transitions = transitions(found.row, written);
        }
        applied
    }

    fn decide(&self, found: ChangeInput<'_>) -> Applied {
        let Some(row) = found.row else {
            return match self {
                Self::Connect(connect) => connect::connect(connect, found),
                Self::Commit(commit) => commit::orphan(commit, found.known),
                Self::Purge => Applied::unchanged(ChangeReply::Done),
                _ => Applied::refused(),
            };
        };
        let now = found.now;
        let applied = match self {
            // A recovery knows that the token may be spent, and has decided.
            Self::Claim(claim) if found.known == LookupResult::Spent => ending::put_back(claim, row, now),
            Self::Claim(claim) => claim::claim(claim, row, now),
            Self::Recover(recover) => claim::recover(recover, row, now),
            Self::Renew { attempt, lease } => claim::renew(*attempt, *lease, row, now),
            Self::Commit(commit) => commit::commit(commit, row, now),
            Self::Refuse(refuse) => commit::refuse(refuse, row, now),
            Self::Cancel(end) => ending::cancel(end, row, now),
            Self::Close(end) => ending::close(end, row, now),
            Self::Raise { incarnation, seen, unknown } => ending::raise(*incarnation, *seen, *unknown, row, now),
            Self::Clear { incarnation, intent } => ending::clear(*incarnation, intent, row),
            Self::Spent { incarnation, intent } => commit::spent(*incarnation, intent, row, now),
            Self::GiveUp { incarnation, intent } => ending::give_up(*incarnation, intent, row, now),
            Self::RunOut { incarnation, generation } => ending::run_out(*incarnation, *generation, row, now),
            Self::Connect(connect) => connect::connect(connect, found),
            Self::Disconnect(disconnect) => connect::disconnect(disconnect, row, now),
            Self::RequireReconnect { reason } => {
                connect::verdict(row, Evidence::of(reason), VerdictBy::Application, now)
            }
            Self::Restore => connect::restore(row, found),
            Self::Retry => connect::retry(row, now),
            Self::Hold { reason } => connect::hold(reason, row),
            Self::Release => connect::release(row),
            Self::Reseal(values) => reseal::reseal(values, row, now),
            Self::Purge => connect::purge(row, found),
        };
        applied.revoking_what_waited(row)
    }

    /// Returns whether the change needs nothing of a row that cannot be read, and may take its place.
    pub(crate) fn replaces(&self) -> bool {
        matches!(self, Self::Connect(connect) if connect.token.is_some())
    }

    /// Returns what the store must look up first, depending on whether the key has a row.
    pub(crate) fn looks_up(&self, stored: bool) -> Option<Lookup> {
        match self {
            Self::Commit(commit) if !stored => commit.token.as_ref().map(|token| Lookup::Token(token.fingerprint)),
            Self::Connect(connect) => {
                connect.token.as_ref().map(|token| Lookup::TokenAnywhere(token.fingerprint, connect.elsewhere.clone()))
            }
            Self::Claim(_) => Some(Lookup::Current),
            Self::Restore => Some(Lookup::Restorable),
            Self::Purge => Some(Lookup::Revocations),
            _ => None,
        }
    }
}
