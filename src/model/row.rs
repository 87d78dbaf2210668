//! A stored grant, with everything that the refresh protocol keeps about it.
//!
//! Tokens are here only as ciphertext. Decisions are functions of (row, now).

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Evidence, Expires, Fingerprint, Generation, Id, StoreTime, TokenKey, TokenStanding, WallTime};
use crate::{code::EvidenceCode, error::Cause};

/// Ciphertext, as the store keeps it. In JSON it is base64; an earlier version wrote a list of numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sealed(pub(crate) Vec<u8>);

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Base64(String),
            Numbers(Vec<u8>),
        }
        match Form::deserialize(deserializer)? {
            Form::Base64(text) => STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("this is not base64")),
            Form::Numbers(bytes) => Ok(Self(bytes)),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed({} bytes)", self.0.len())
    }
}

/// A refresh token that can be spent for the row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Spendable {
    pub(crate) sealed: Sealed,
    pub(crate) fingerprint: Fingerprint,
}

/// The attempt that stored a token, and the epoch in which it held the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Attempted {
    pub(crate) attempt: Id,
    pub(crate) epoch: u64,
}

/// The token of a second response to the same parent: kept until it is known which of the two is valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Alt {
    pub(crate) token: Spendable,
    pub(crate) by: Attempted,
}

/// The right to start spending. Its expiry proves nothing about its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    pub(crate) attempt: Id,
    pub(crate) owner: Id,
    pub(crate) until: StoreTime,
}

/// The record, written before a refresh token is sent, that the token may be spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// The token that is being spent is the row's at this generation.
    pub(crate) generation: Generation,
    /// When the token was first sent: a reuse grace counts from here.
    pub(crate) since: StoreTime,
    /// The time of the latest claim, recovery or close: settling counts from here.
    pub(crate) settle_from: StoreTime,
    pub(crate) recovered: bool,
    pub(crate) senders: Vec<Sender>,
}

/// An attempt that may have sent the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Sender {
    pub(crate) attempt: Id,
    /// The journal to which its response would be written.
    pub(crate) owner: Id,
    /// The attempt has reported that it will receive no response.
    pub(crate) closed: bool,
}

impl Sender {
    /// Returns a sender that stands for all who may have sent what the store has lost.
    pub(crate) fn unknown(id: Id) -> Self {
        Self { attempt: id, owner: id, closed: false }
    }

    /// Returns whether this is no attempt, but stands for unknown ones.
    pub(crate) fn is_unknown(&self) -> bool {
        self.attempt == self.owner
    }
}

/// Why the user must go through consent again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Verdict {
    #[serde(flatten)]
    pub(crate) evidence: Evidence,
    pub(crate) since: StoreTime,
    pub(crate) by: VerdictBy,
}

/// The source of the verdict that the user must go through consent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerdictBy {
    /// The identity provider refused the refresh token.
    Idp,
    /// The identity provider responded with the tokens of another subject: the refresh token is spent.
    Subject,
    /// A doubt that could not be resolved.
    Doubt,
    /// The access token expired, and there is no refresh token to replace it.
    Expiry,
    /// The application required it; it stays until the next connect.
    Application,
}

/// The last failure, and how many there were in a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LastError {
    #[serde(flatten)]
    pub(crate) evidence: Evidence,
    pub(crate) cause: Cause,
    pub(crate) at: StoreTime,
    pub(crate) failures: u32,
    /// The first failure in the row of failures; absent in rows of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<StoreTime>,
    /// Refreshes have failed for long, and that was reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) alerted: bool,
}

impl LastError {
    /// Returns when the row of failures began.
    pub(crate) fn since(&self) -> StoreTime {
        self.since.unwrap_or(self.at)
    }
}

/// Marks a disconnected grant. The ciphertext stays until the row is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) at: StoreTime,
    /// Whether the tokens are queued for revocation (immediately, or when the intent is cleared).
    pub(crate) revoke: bool,
    /// There was no verdict and no intent at the disconnect, and no late response since.
    pub(crate) restorable: bool,
    /// The row is purged as soon as nothing of the grant is pending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) purge: bool,
    /// A revocation was requested, and the provider had no endpoint for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unrevocable: bool,
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
    /// The refresh token with which this one was obtained.
    pub(crate) parent: Option<Fingerprint>,
    /// The attempt that stored the refresh token; `None` after a connect.
    pub(crate) commit: Option<Attempted>,
    pub(crate) alt: Option<Alt>,
    /// Grows by one with each claim and recovery.
    pub(crate) epoch: u64,
    pub(crate) lease: Option<Lease>,
    pub(crate) intent: Option<Intent>,
    pub(crate) verdict: Option<Box<Verdict>>,
    /// Why the grant is on hold, if it is; set and cleared by operators.
    pub(crate) held: Option<String>,
    pub(crate) issued_at: WallTime,
    pub(crate) expires: Expires,
    pub(crate) refresh_expires: Expires,
    /// When to report that the refresh token will expire.
    pub(crate) notice_at: Option<StoreTime>,
    pub(crate) due_at: Option<WallTime>,
    pub(crate) retry_at: Option<WallTime>,
    /// Boxed like the verdict: most rows have neither, and a row is kept in memory for every key in use.
    pub(crate) last_error: Option<Box<LastError>>,
    /// Access token, type, scope, subject, params, extra.
    pub(crate) document: Sealed,
    pub(crate) tombstone: Option<Tombstone>,
    pub(crate) changed_at: StoreTime,
}

/// The state of a grant, in the order of its lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nothing is stored.
    Absent,
    /// Its access token is not yet due for a refresh.
    Fresh,
    /// Its access token is due for a refresh.
    Due,
    /// A refresh is running.
    Refreshing,
    /// The last refresh failed without spending the refresh token; the next one waits.
    Backoff,
    /// A refresh token was sent and no response is known.
    InDoubt,
    /// The user must go through consent again.
    ReconnectRequired,
    /// Disconnected.
    Revoked,
}

impl State {
    /// The states that a stored grant can be in.
    pub const ALL: [Self; 7] = [
        Self::Fresh,
        Self::Due,
        Self::Refreshing,
        Self::Backoff,
        Self::InDoubt,
        Self::ReconnectRequired,
        Self::Revoked,
    ];

    /// Returns the name in the API.
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

    /// Parses the state of a stored grant from its name in the API.
    ///
    /// # Errors
    /// Lists the valid names.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| format!("must be one of: {}", names()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that determines a row's state.
#[expect(clippy::struct_excessive_bools, reason = "each is a column that is set or not")]
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
    /// Returns the state of the first mark that is set.
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
    /// Returns how good the row's token is, judged by the row alone.
    pub(crate) fn standing(&self) -> TokenStanding {
        if self.verdict.is_some() {
            TokenStanding::ReconnectRequired
        } else if self.intent.is_some() {
            TokenStanding::InDoubt
        } else if self.last_error.is_some() {
            TokenStanding::Failing
        } else {
            TokenStanding::Good
        }
    }

    /// Whether nothing is to be done about the row's doubt, if it has one: the token is not to be sent. A doubt about another token
    /// than the row's is cleared in any case, and so is one of a disconnected grant: nothing is sent for it.
    pub(crate) fn doubt_is_moot(&self) -> bool {
        let current = self.intent.as_ref().is_some_and(|intent| intent.generation == self.generation);
        current && self.tombstone.is_none() && !self.sendable()
    }

    /// Returns the state at `now`.
    pub(crate) fn state(&self, now: StoreTime) -> State {
        let wall = now.by_wall_clock();
        let marks = Marks {
            ended: self.tombstone.is_some(),
            required: self.verdict.is_some() || self.has_run_out(wall),
            leased: self.lease_live(now),
            doubted: self.intent.is_some(),
            waits: self.retry_at.is_some_and(|retry| retry > wall),
            due: self.refresh_token.is_some() && self.due_at.is_some_and(|due| due <= wall),
        };
        marks.state()
    }

    /// Returns a copy without what only the store and an attempt need: about half of the memory.
    pub(crate) fn without_ciphertext(&self) -> Self {
        let spendable = |token: &Spendable| Spendable { sealed: Sealed(Vec::new()), fingerprint: token.fingerprint };
        Self {
            key: self.key.clone(),
            grant_id: self.grant_id.clone(),
            client_id: self.client_id.clone(),
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

    pub(crate) fn is_without_ciphertext(&self) -> bool {
        self.document.0.is_empty()
    }

    /// Returns whether the grant has ended by itself: its access token has expired, and nothing can replace it. The verdict
    /// follows when the row is written next.
    pub(crate) fn has_run_out(&self, now: WallTime) -> bool {
        let live = self.tombstone.is_none() && self.refresh_token.is_none();
        live && self.expires.at().is_some_and(|end| end <= now)
    }

    /// Returns why and since when the user must go through consent again, if so.
    pub(crate) fn required(&self, now: WallTime) -> Option<(Cow<'_, Evidence>, StoreTime)> {
        match &self.verdict {
            Some(verdict) => Some((Cow::Borrowed(&verdict.evidence), verdict.since)),
            None if self.has_run_out(now) => {
                let since = self.expires.at().map_or(self.changed_at, WallTime::by_store_clock);
                Some((Cow::Owned(Evidence::ours(EvidenceCode::NoRefreshToken)), since))
            }
            None => None,
        }
    }

    /// Returns when the user's consent ends, if that is known: with the refresh token, or with an access token that nothing
    /// can replace.
    pub(crate) fn consent_expires(&self) -> Expires {
        if self.refresh_token.is_some() { self.refresh_expires } else { self.expires }
    }

    /// Returns every refresh token that the row holds.
    pub(crate) fn refresh_tokens(&self) -> impl Iterator<Item = &Spendable> {
        self.refresh_token.iter().chain(self.alt.as_ref().map(|alt| &alt.token))
    }

    /// Returns whether the last refresh brought a refresh token other than the one that it spent.
    pub(crate) fn has_rotated(&self) -> bool {
        let held = self.refresh_token.as_ref().map(|token| token.fingerprint);
        self.parent.is_some() && self.parent != held
    }

    /// Returns whether an attempt holds the lease at `now`.
    pub(crate) fn lease_live(&self, now: StoreTime) -> bool {
        self.lease.is_some_and(|lease| lease.until > now)
    }

    /// Returns the access token's lifetime, if it is known. A token may have been expired or missing: a lifetime of zero
    /// says nothing about later tokens.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        let lifetime = self.expires.at()?.since(self.issued_at);
        (!lifetime.is_zero()).then_some(lifetime)
    }

    /// Returns whether a refresh token may be sent for this row, lease and intent aside.
    pub(crate) fn sendable(&self) -> bool {
        self.tombstone.is_none() && self.verdict.is_none() && self.held.is_none() && self.refresh_token.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_error_of_an_older_version_is_read_and_written_unchanged() {
        let text = r#"{"code":"http_502","status":502,"cause":"idp_down","at":7,"failures":2}"#;
        let error: LastError = serde_json::from_str(text).unwrap();
        assert_eq!((error.since(), error.alerted), (StoreTime(7), false));
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
    }
}
