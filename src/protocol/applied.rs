//! The input and the result of a change.

use super::{Transition, resolve::Resolution};
use crate::model::{Fingerprint, Generation, Row, Sealed, Spendable, StoreTime};

/// What a change is applied to, read in the transaction that will write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeInput<'a> {
    pub(crate) row: Option<&'a Row>,
    /// The store's time.
    pub(crate) now: StoreTime,
    /// New rows start above this generation.
    pub(crate) floor: Generation,
    /// The result of what the change [looks up](Change::looks_up) in the tables beside the row.
    pub(crate) known: LookupResult,
}

/// What a store must look up before it applies a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// What the history of this key and the others says about a refresh token.
    Token(Fingerprint),
    /// The same, and whether the token is live or spent at another provider, where it has one of these fingerprints.
    TokenAnywhere(Fingerprint, Vec<Fingerprint>),
    /// What became of the row's refresh tokens since the disconnect.
    Restorable,
    /// Whether tokens of the key are queued for revocation.
    Revocations,
    /// Whether the key has spent the refresh token that its row holds.
    Current,
}

/// The result of a [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupResult {
    /// Nothing was found.
    New,
    /// This key was connected with the token or has spent it; if its row's own token was looked up: has spent it.
    Spent,
    /// Another key holds it (also as a tombstone, if the row's own tokens were looked up) or has spent it.
    Elsewhere,
    /// The row's tokens are queued for revocation, and none of the revocations has begun.
    Unrevoked,
    /// Tokens of the key are queued for revocation.
    Revoking,
}

/// What to write, and what to reply.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The row to write; `None` if it stays as it is.
    pub(crate) row: Option<Row>,
    pub(crate) reply: ChangeReply,
    pub(crate) sides: Vec<Side>,
    /// What to report to operators and applications.
    pub(crate) transitions: Vec<Transition>,
}

/// Entries in the tables beside the row, written in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This refresh token is spent or superseded: the newest ones of a key are remembered.
    Spent(Fingerprint),
    /// The key was connected with this refresh token: the newest ones are remembered for ever.
    Connected(Fingerprint),
    /// Queues the revocation of this refresh token.
    Revoke(Spendable),
    /// Drops the queued revocations of the key, which would end the new grant.
    CancelRevocations,
    /// Drops the queued revocation of this refresh token.
    Keep(Spendable),
    /// Replaces the ciphertext of a queued revocation of the key, if it is queued.
    Reseal(Resealed),
    /// Deletes the row. The fingerprints of its refresh tokens stay, and new rows start above this generation.
    Purge(Generation),
}

/// A value and the same plaintext, sealed with another key. The rules never see which key that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resealed {
    pub(crate) from: Sealed,
    pub(crate) to: Sealed,
}

/// The result of a change. The store returns it with the row as it is afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChangeReply {
    /// The change is made, by this call or an earlier one.
    Done,
    /// The row is not as the change expects it; the row shows why.
    Refused,
    /// The place of a commit's response.
    Resolved(Resolution),
    /// The refusal was due to the other response: the alternative token was promoted.
    Promoted,
    /// A connect that changed nothing.
    Unchanged(Unchanged),
    /// A connect with a token that is live under another key.
    Duplicate,
    /// The key does not hold what the application expects.
    Mismatch,
    /// The key no longer holds the grant with which the connect's subject was compared.
    Moved,
    /// A purge that deleted nothing.
    NotPurged(PurgeRefusal),
}

/// Why a purge deleted nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PurgeRefusal {
    /// The grant is not disconnected.
    Connected,
    /// A refresh token was sent, and its response may still arrive.
    InDoubt,
    /// Tokens of the key are queued for revocation, which needs the key.
    Revoking,
}

/// Why a connect changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unchanged {
    /// The key holds this very refresh token.
    AlreadyConnected,
    /// The key has spent this refresh token, or replaced it.
    TokenAlreadySpent,
    /// A refresh is running or in doubt: its outcome takes precedence over an access token without a refresh token.
    RefreshInFlight,
}

impl Unchanged {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyConnected => "already_connected",
            Self::TokenAlreadySpent => "token_already_spent",
            Self::RefreshInFlight => "refresh_in_flight",
        }
    }
}

impl Applied {
    pub(crate) fn unchanged(reply: ChangeReply) -> Self {
        Self { row: None, reply, sides: Vec::new(), transitions: Vec::new() }
    }

    pub(crate) fn refused() -> Self {
        Self::unchanged(ChangeReply::Refused)
    }

    pub(crate) fn write(row: Row, reply: ChangeReply) -> Self {
        Self { row: Some(row), reply, sides: Vec::new(), transitions: Vec::new() }
    }

    pub(crate) fn with(mut self, side: Side) -> Self {
        self.sides.push(side);
        self
    }

    /// Queues the revocation of a tombstone's tokens when the intent that it waited for ends, for whatever reason;
    /// unless that would end a new grant.
    pub(super) fn revoking_what_waited(self, row: &Row) -> Self {
        let waits = |row: &Row| row.intent.is_some() && row.tombstone.is_some_and(|tombstone| tombstone.revoke);
        let over = waits(row) && self.row.as_ref().is_some_and(|written| !waits(written));
        if over && !self.sides.contains(&Side::CancelRevocations) { self.revoking(row) } else { self }
    }

    /// Queues the revocation of every refresh token that `row` holds.
    pub(super) fn revoking(mut self, row: &Row) -> Self {
        self.sides.extend(row.refresh_tokens().cloned().map(Side::Revoke));
        self
    }

    /// Remembers the refresh token that `row` held as spent, if the written row holds another one.
    pub(crate) fn superseding(mut self, row: &Row) -> Self {
        let held = |row: &Row| row.refresh_token.as_ref().map(|token| token.fingerprint);
        if let (Some(old), Some(written)) = (held(row), &self.row)
            && held(written) != Some(old)
        {
            self.sides.push(Side::Spent(old));
        }
        self
    }
}
