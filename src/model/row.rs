//! One stored grant, with everything the refresh protocol keeps about it.
//!
//! The tokens are in here as ciphertext only. Decisions are functions of (row, now).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Evidence, Expires, Fingerprint, Generation, Id, StoreTime, TokenKey, WallTime};
use crate::error::Cause;

/// Ciphertext as the store keeps it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sealed(pub(crate) Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed({} bytes)", self.0.len())
    }
}

/// A refresh token that the row can spend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Spendable {
    pub(crate) sealed: Sealed,
    pub(crate) fingerprint: Fingerprint,
}

/// Which attempt stored something, and in which epoch it held the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Attempted {
    pub(crate) attempt: Id,
    pub(crate) epoch: u64,
}

/// A second answer to the same parent: kept until it is known which of the two counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Alt {
    pub(crate) token: Spendable,
    pub(crate) by: Attempted,
}

/// The right to start spending. Its end proves nothing about its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    pub(crate) attempt: Id,
    pub(crate) owner: Id,
    pub(crate) until: StoreTime,
}

/// The mark, written before a refresh token is sent, that it may be spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// What was spent is the row's token at this generation.
    pub(crate) generation: Generation,
    /// When it was first sent: a reuse grace counts from here.
    pub(crate) since: StoreTime,
    /// The latest claim, recovery or close: settling counts from here.
    pub(crate) settle_from: StoreTime,
    pub(crate) recovered: bool,
    pub(crate) senders: Vec<Sender>,
}

/// One attempt that may have sent the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Sender {
    pub(crate) attempt: Id,
    /// The journal into which its answer would go.
    pub(crate) owner: Id,
    /// It said itself that no answer will come.
    pub(crate) closed: bool,
}

/// Why the user must go through consent again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Verdict {
    #[serde(flatten)]
    pub(crate) evidence: Evidence,
    pub(crate) since: StoreTime,
    pub(crate) by: VerdictBy,
}

/// Who said that the user must go through consent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerdictBy {
    /// The identity provider refused the refresh token.
    Idp,
    /// The identity provider answered with the tokens of another subject: the refresh token is spent.
    Subject,
    /// A doubt that nobody could resolve.
    Doubt,
    /// The application asked for it; sticky until connect.
    Application,
}

/// The last thing that went wrong, and how often in a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LastError {
    #[serde(flatten)]
    pub(crate) evidence: Evidence,
    pub(crate) cause: Cause,
    pub(crate) at: StoreTime,
    pub(crate) failures: u32,
    /// The first failure in a row; rows of older versions do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<StoreTime>,
    /// It has gone on for long, and people were told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) alerted: bool,
}

impl LastError {
    /// Since when refreshes fail.
    pub(crate) fn since(&self) -> StoreTime {
        self.since.unwrap_or(self.at)
    }
}

/// A disconnected grant. Its ciphertext stays until purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) at: StoreTime,
    /// Whether its tokens go to the revocation queue (at once, or when its intent is cleared).
    pub(crate) revoke: bool,
    /// No verdict and no intent stood when it was disconnected, and no answer came late.
    pub(crate) restorable: bool,
    /// It goes as soon as nothing of the grant is to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) purge: bool,
}

/// A stored grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) key: TokenKey,
    pub(crate) grant_id: String,
    pub(crate) incarnation: Id,
    pub(crate) generation: Generation,
    pub(crate) client_id: Option<String>,
    pub(crate) refresh_token: Option<Spendable>,
    /// What the refresh token was obtained with.
    pub(crate) parent: Option<Fingerprint>,
    /// Who stored the refresh token; `None` after a connect.
    pub(crate) commit: Option<Attempted>,
    pub(crate) alt: Option<Alt>,
    /// Grows with each claim and recovery.
    pub(crate) epoch: u64,
    pub(crate) lease: Option<Lease>,
    pub(crate) intent: Option<Intent>,
    pub(crate) verdict: Option<Box<Verdict>>,
    /// Why nothing is sent for now; set and cleared by people.
    pub(crate) held: Option<String>,
    pub(crate) issued_at: WallTime,
    pub(crate) expires: Expires,
    pub(crate) refresh_expires: Expires,
    /// When people are to be told that the refresh token ends.
    pub(crate) notice_at: Option<StoreTime>,
    pub(crate) due_at: Option<WallTime>,
    pub(crate) retry_at: Option<WallTime>,
    /// Boxed, as the verdict is: most rows have neither, and a row is kept for every key in use.
    pub(crate) last_error: Option<Box<LastError>>,
    /// Access token, type, scope, subject, params, extra.
    pub(crate) document: Sealed,
    pub(crate) tombstone: Option<Tombstone>,
    pub(crate) changed_at: StoreTime,
}

/// What a grant is doing, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nothing is stored.
    Absent,
    /// Its access token is not yet due.
    Fresh,
    /// Its access token is due for a refresh.
    Due,
    /// A refresh runs.
    Refreshing,
    /// The last refresh failed without spending anything; the next one waits.
    Backoff,
    /// A refresh token was sent and no answer is known.
    InDoubt,
    /// Only the user can help, through consent.
    ReconnectRequired,
    /// Disconnected.
    Revoked,
}

impl State {
    /// Those that a stored grant can be in.
    pub const ALL: [Self; 7] = [
        Self::Fresh,
        Self::Due,
        Self::Refreshing,
        Self::Backoff,
        Self::InDoubt,
        Self::ReconnectRequired,
        Self::Revoked,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Refreshing => "refreshing",
            Self::Backoff => "backoff",
            Self::InDoubt => "in_doubt",
            Self::ReconnectRequired => "reconnect_required",
            Self::Revoked => "revoked",
        }
    }
}

impl FromStr for State {
    type Err = String;

    /// The state of a stored grant by its name on the wire.
    ///
    /// # Errors
    /// What it must be.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| format!("must be of: {}", names()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that a row's state follows from.
#[expect(clippy::struct_excessive_bools, reason = "each is a column that is there or not")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) ended: bool,
    pub(crate) required: bool,
    pub(crate) leased: bool,
    pub(crate) doubted: bool,
    pub(crate) waits: bool,
    pub(crate) due: bool,
}

impl Marks {
    /// The first that fits.
    pub(crate) fn state(self) -> State {
        let states = [
            (self.ended, State::Revoked),
            (self.required, State::ReconnectRequired),
            (self.leased, State::Refreshing),
            (self.doubted, State::InDoubt),
            (self.waits, State::Backoff),
            (self.due, State::Due),
        ];
        states.into_iter().find(|(holds, _)| *holds).map_or(State::Fresh, |(_, state)| state)
    }
}

impl Row {
    /// The state at `now`: the first that fits.
    pub(crate) fn state(&self, now: StoreTime) -> State {
        let wall = now.by_wall_clock();
        let marks = Marks {
            ended: self.tombstone.is_some(),
            required: self.verdict.is_some(),
            leased: self.lease_live(now),
            doubted: self.intent.is_some(),
            waits: self.retry_at.is_some_and(|retry| retry > wall),
            due: self.due_at.is_some_and(|due| due <= wall),
        };
        marks.state()
    }

    /// Everything but what only the store and an attempt need: about half of its memory.
    pub(crate) fn without_ciphertext(&self) -> Self {
        let spendable = |token: &Spendable| Spendable { sealed: Sealed(Vec::new()), fingerprint: token.fingerprint };
        Self {
            key: self.key.clone(),
            grant_id: self.grant_id.clone(),
            client_id: None,
            refresh_token: self.refresh_token.as_ref().map(spendable),
            alt: None,
            intent: self.intent.clone(),
            verdict: self.verdict.clone(),
            held: self.held.clone(),
            last_error: self.last_error.clone(),
            document: Sealed(Vec::new()),
            ..*self
        }
    }

    /// Every refresh token that it holds.
    pub(crate) fn refresh_tokens(&self) -> impl Iterator<Item = &Spendable> {
        self.refresh_token.iter().chain(self.alt.as_ref().map(|alt| &alt.token))
    }

    /// Whether the last refresh brought another refresh token than the one it spent.
    pub(crate) fn has_rotated(&self) -> bool {
        let held = self.refresh_token.as_ref().map(|token| token.fingerprint);
        self.parent.is_some() && self.parent != held
    }

    /// Whether somebody holds the right to spend.
    pub(crate) fn lease_live(&self, now: StoreTime) -> bool {
        self.lease.is_some_and(|lease| lease.until > now)
    }

    /// The access token's whole life, where known. One that came with a connect may have been over, or not have been there
    /// at all: that says nothing of those to come.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        let life = self.expires.at()?.since(self.issued_at);
        (self.commit.is_some() || !life.is_zero()).then_some(life)
    }

    /// Whether a refresh token may be sent for this row at all (lease and intent aside).
    pub(crate) fn sendable(&self) -> bool {
        self.tombstone.is_none() && self.verdict.is_none() && self.held.is_none() && self.refresh_token.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_errors_of_older_versions_are_read_and_written_as_they_were() {
        let text = r#"{"code":"http_502","status":502,"cause":"idp_down","at":7,"failures":2}"#;
        let error: LastError = serde_json::from_str(text).unwrap();
        assert_eq!((error.since(), error.alerted), (StoreTime(7), false));
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
    }
}
