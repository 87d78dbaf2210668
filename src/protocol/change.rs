//! The operations on a row, and the one function through which every store performs them.

use super::{
    Claim, Commit, Connect, Disconnect, Ending, Happening, Recover, Refuse, claim, commit, connect, ending,
    happening::happened, resolve::Resolution,
};
use crate::model::{Evidence, Fingerprint, Generation, Id, Intent, Row, Spendable, Time, VerdictBy};

/// One operation on one row. All of them may be repeated: a repetition changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// Take the lease and record the intent to spend.
    Claim(Claim),
    /// Take over a doubt: like a claim, of a row whose intent stands.
    Recover(Recover),
    /// Keep the lease while the answer is awaited.
    Renew {
        attempt: Id,
        lease: std::time::Duration,
    },
    /// Store an answer, or find its place if the row has moved.
    Commit(Box<Commit>),
    /// The identity provider refused the refresh token.
    Refuse(Refuse),
    /// Nothing was spent.
    Cancel(Ending),
    /// Nobody will hear the answer any more.
    Close(Ending),
    /// This process saw a higher generation: the store went back in time.
    Raise {
        incarnation: Id,
        seen: Generation,
        unknown: Id,
    },
    /// A doubt about a token that the row no longer spends is over.
    Clear {
        incarnation: Id,
        intent: Intent,
    },
    /// A doubt that nobody can resolve.
    GiveUp {
        incarnation: Id,
        intent: Intent,
    },
    Connect(Box<Connect>),
    Disconnect(Disconnect),
    RequireReconnect {
        reason: String,
    },
    /// A disconnect is taken back.
    Restore,
    /// Nothing is sent for the row until people release it.
    Hold {
        reason: String,
    },
    Release,
    /// A tombstone goes.
    Purge,
}

/// What the store found, read in the transaction that will write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) row: Option<&'a Row>,
    /// Database time.
    pub(crate) now: Time,
    /// New rows start above it.
    pub(crate) floor: Generation,
    /// What the tables beside the row say of what the change [looks up](Change::looks_up).
    pub(crate) known: Known,
}

/// What a store must look up before it applies a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// What the history of this and the other keys says of a refresh token.
    Token(Fingerprint),
    /// What became of the refresh tokens that the row holds since it was disconnected.
    Restorable,
    /// Whether tokens of the key are still to be revoked.
    Revocations,
}

/// What a store found beside the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing.
    New,
    /// This key was connected with the token or has spent it.
    Spent,
    /// Another key holds it (also as a tombstone, if the row's own tokens were looked up), or has spent it.
    Elsewhere,
    /// The row's tokens wait for their revocation, and none of these was begun.
    Unrevoked,
    /// Tokens of the key wait for their revocation.
    Revoking,
}

/// What is to be written, and what to answer.
#[derive(Debug)]
pub(crate) struct Applied {
    /// `None`: nothing changes.
    pub(crate) row: Option<Row>,
    pub(crate) reply: Reply,
    pub(crate) sides: Vec<Side>,
    /// What people and applications are to be told.
    pub(crate) happened: Vec<Happening>,
}

/// Entries in the tables beside the row, written in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This fingerprint is spent or superseded.
    Spent(Fingerprint),
    /// The key was connected with this fingerprint: remembered for ever.
    Connected(Fingerprint),
    /// This refresh token is to be revoked at the identity provider.
    Revoke(Spendable),
    /// Queued revocations of this key would hit the new grant: drop them.
    CancelRevocations,
    /// This refresh token is not to be revoked after all.
    Keep(Spendable),
    /// The row goes. What is remembered of its refresh tokens stays, and new rows start above this generation.
    Purge(Generation),
}

/// What an operation came to. The row as it is afterwards comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// It did what it says, now or before.
    Done,
    /// The comparison failed: the row tells why.
    Refused,
    /// A commit's answer found its place.
    Resolved(Resolution),
    /// A refusal was the other answer's doing: the alternative token was promoted.
    Promoted,
    /// A connect that changed nothing.
    Unchanged(Unchanged),
    /// A connect with a token that is live under another key.
    Duplicate,
    /// The key does not hold what the application expects.
    Mismatch,
    /// The key does not hold any more what the connect's subject was compared with.
    Moved,
    /// A purge that deleted nothing.
    Kept(Kept),
}

/// Why a purge deleted nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kept {
    /// The grant is not disconnected.
    Connected,
    /// A refresh token was sent, and its answer may still come.
    InDoubt,
    /// Tokens of the key wait for their revocation, which needs to know whose they are.
    Revoking,
}

/// Why a connect changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unchanged {
    /// The key holds this very refresh token.
    AlreadyConnected,
    /// The key has spent this refresh token, or replaced it.
    TokenAlreadySpent,
    /// A refresh is under way or in doubt; its outcome counts, not an access token without a refresh token.
    RefreshInFlight,
}

impl Unchanged {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyConnected => "already_connected",
            Self::TokenAlreadySpent => "token_already_spent",
            Self::RefreshInFlight => "refresh_in_flight",
        }
    }
}

impl Change {
    /// What this operation does to what was found, and what follows for people.
    pub(crate) fn apply(&self, found: Found<'_>) -> Applied {
        let mut applied = self.decide(found);
        if let Some(written) = &applied.row {
            applied.happened = happened(found.row, written);
        }
        applied
    }

    fn decide(&self, found: Found<'_>) -> Applied {
        let Some(row) = found.row else {
            return match self {
                Self::Connect(connect) => connect::connect(connect, found),
                Self::Commit(commit) => commit::orphan(commit, found.known),
                Self::Purge => Applied::unchanged(Reply::Done),
                _ => Applied::refused(),
            };
        };
        let now = found.now;
        let applied = match self {
            Self::Claim(claim) => claim::claim(claim, row, now),
            Self::Recover(recover) => claim::recover(recover, row, now),
            Self::Renew { attempt, lease } => claim::renew(*attempt, *lease, row, now),
            Self::Commit(commit) => commit::commit(commit, row, now),
            Self::Refuse(refuse) => commit::refuse(refuse, row, now),
            Self::Cancel(end) => ending::cancel(end, row, now),
            Self::Close(end) => ending::close(end, row, now),
            Self::Raise { incarnation, seen, unknown } => ending::raise(*incarnation, *seen, *unknown, row, now),
            Self::Clear { incarnation, intent } => ending::clear(*incarnation, intent, row),
            Self::GiveUp { incarnation, intent } => ending::give_up(*incarnation, intent, row, now),
            Self::Connect(connect) => connect::connect(connect, found),
            Self::Disconnect(disconnect) => connect::disconnect(*disconnect, row, now),
            Self::RequireReconnect { reason } => {
                connect::verdict(row, Evidence::of(reason), VerdictBy::Application, now)
            }
            Self::Restore => connect::restore(row, found),
            Self::Hold { reason } => connect::hold(reason, row),
            Self::Release => connect::release(row),
            Self::Purge => connect::purge(row, found),
        };
        applied.revoking_what_waited(row)
    }

    /// What the store must look up first, if the key has a row or not.
    pub(crate) fn looks_up(&self, stored: bool) -> Option<LookUp> {
        match self {
            Self::Commit(commit) if !stored => commit.token.as_ref().map(|token| LookUp::Token(token.fingerprint)),
            Self::Connect(connect) => connect.token.as_ref().map(|token| LookUp::Token(token.fingerprint)),
            Self::Restore => Some(LookUp::Restorable),
            Self::Purge => Some(LookUp::Revocations),
            _ => None,
        }
    }
}

impl Applied {
    pub(crate) fn unchanged(reply: Reply) -> Self {
        Self { row: None, reply, sides: Vec::new(), happened: Vec::new() }
    }

    pub(crate) fn refused() -> Self {
        Self::unchanged(Reply::Refused)
    }

    pub(crate) fn write(row: Row, reply: Reply) -> Self {
        Self { row: Some(row), reply, sides: Vec::new(), happened: Vec::new() }
    }

    pub(crate) fn with(mut self, side: Side) -> Self {
        self.sides.push(side);
        self
    }

    /// Queues the revocation of a tombstone's tokens at the end of the intent that it waited for, whatever
    /// ended it; unless it would hit a new grant.
    fn revoking_what_waited(self, row: &Row) -> Self {
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
