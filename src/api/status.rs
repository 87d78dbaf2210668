//! The bodies that describe grants, without their tokens.

use std::{borrow::Cow, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{ProblemBody, time};
use crate::{Evidence, Expiry, Refreshed, Revocation, State, Status, TokenKey, code::texts::JUST_REFRESHED};

/// The state of a grant.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Status"))]
#[non_exhaustive]
pub struct StatusBody {
    /// The identity provider, as the configuration names it.
    pub idp: String,
    /// The user.
    pub user: String,
    /// The user's account at the identity provider; empty unless the user has several.
    pub account: String,
    /// A short public name of the grant, for logs and support.
    pub grant_id: String,
    /// What the grant is doing.
    #[serde(with = "state_name")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::state"))]
    pub state: State,
    /// Whether the grant is on hold.
    pub held: bool,
    /// Why the grant is on hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_reason: Option<String>,
    /// The name that stands for the user in the audit log, unless that names users as they are. Only in the response to a
    /// request for the state of one grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_hash: Option<String>,
    /// Grows by one with every stored grant of the key.
    pub generation: u64,
    /// Whether the expiry of the access token is known.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::expiry"))]
    pub expiry: Cow<'static, str>,
    /// When the access token expires; null unless `expiry` is `at`.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub expires_at: Option<SystemTime>,
    /// When the refresh token expires, if that is known.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub refresh_token_expires_at: Option<SystemTime>,
    /// When the next refresh is due.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub next_refresh_at: Option<SystemTime>,
    /// The code of the last failure, if the last refresh failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Why the user must consent again: a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What the identity provider said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What will need the user although nothing is wrong now: `no_refresh_token` if the grant ends with its access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<Cow<'static, str>>,
    /// Since when refreshes have failed.
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub failing_since: Option<SystemTime>,
    /// Since when the grant has been in this state.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub since: Option<SystemTime>,
    /// How far the revocation of tokens of the grant is, in the state of one grant: `waiting` for a response, `queued`,
    /// `unconfirmed` (sent, and retried until it is confirmed), `done`, `no_endpoint`, or `canceled` by a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Cow<'static, str>>,
    /// Why a connect changed nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::unchanged"))]
    pub unchanged: Option<Cow<'static, str>>,
}

impl StatusBody {
    /// Returns the body of this status.
    pub fn of(key: &TokenKey, status: &Status) -> Self {
        let (expiry, expires_at) = expiry_parts(status.expiry);
        Self {
            idp: key.idp().to_owned(),
            user: key.user().to_owned(),
            account: key.account_name().to_owned(),
            grant_id: status.grant_id.clone(),
            state: status.state,
            held: status.held.is_some(),
            held_reason: status.held.clone(),
            user_hash: None,
            generation: status.generation.get(),
            expiry: expiry.into(),
            expires_at,
            refresh_token_expires_at: expiry_parts(status.refresh_expiry).1,
            next_refresh_at: status.next_refresh_at,
            last_error: status.last_error.clone(),
            reason: status.reason.clone().map(Cow::Owned),
            evidence: status.evidence.clone(),
            warning: status.warning.map(|warning| warning.as_str().into()),
            failing_since: status.failing_since,
            since: status.since,
            revocation: None,
            unchanged: status.unchanged.map(|unchanged| unchanged.as_str().into()),
        }
    }

    /// Adds what stands for the user in the audit log: see [`TokenSupervisor::pseudonym`](crate::TokenSupervisor::pseudonym).
    pub fn with_user_hash(self, hash: String) -> Self {
        Self { user_hash: Some(hash), ..self }
    }
}

impl StatusBody {
    /// Adds how far a revocation is.
    pub fn with_revocation(self, revocation: Option<Revocation>) -> Self {
        Self { revocation: revocation.map(|revocation| revocation.as_str().into()), ..self }
    }
}

/// The state of a grant after a requested refresh.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Refreshed", transform = super::schema::refreshed))]
#[non_exhaustive]
pub struct RefreshedBody {
    /// Whether the grant was refreshed. If not, `reason` is `just_refreshed`.
    pub refreshed: bool,
    /// The state of the grant.
    #[serde(flatten)]
    pub status: StatusBody,
}

impl RefreshedBody {
    /// Returns the body of this outcome.
    pub fn of(key: &TokenKey, outcome: &Refreshed) -> Self {
        let mut status = StatusBody::of(key, &outcome.status);
        if !outcome.refreshed {
            status.reason = Some(JUST_REFRESHED.code.into());
        }
        Self { refreshed: outcome.refreshed, status }
    }
}

/// A page of grants.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Page"))]
#[non_exhaustive]
pub struct PageBody {
    /// The grants, in the order of identity provider, user and account.
    pub items: Vec<StatusBody>,
    /// Where the next page starts: the value for `after`. Null on the last page.
    pub next: Option<String>,
}

impl From<crate::Page> for PageBody {
    fn from(page: crate::Page) -> Self {
        let items = page.items.iter().map(|(key, status)| StatusBody::of(key, status)).collect();
        Self { items, next: page.next.map(|next| next.to_string()) }
    }
}

/// What became of each grant of a user who leaves.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Offboarded"))]
#[non_exhaustive]
pub struct OffboardedBody {
    /// One result for each grant.
    pub items: Vec<OffboardedGrant>,
}

/// A grant of a user who leaves: its state, or why it was not disconnected.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct OffboardedGrant {
    /// The identity provider.
    pub idp: String,
    /// The user.
    pub user: String,
    /// The user's account there.
    pub account: String,
    /// The state of the disconnected grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusBody>,
    /// Why the grant was not disconnected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemBody>,
}

impl OffboardedGrant {
    /// Returns the result of one grant.
    pub fn of(key: &TokenKey, result: Result<&Status, ProblemBody>) -> Self {
        let (status, problem) = match result {
            Ok(status) => (Some(StatusBody::of(key, status)), None),
            Err(problem) => (None, Some(problem)),
        };
        let (idp, user, account) = (key.idp().to_owned(), key.user().to_owned(), key.account_name().to_owned());
        Self { idp, user, account, status, problem }
    }
}

/// The name of an expiry on the wire, and its time.
pub(super) fn expiry_parts(expiry: Expiry) -> (&'static str, Option<SystemTime>) {
    match expiry {
        Expiry::At(time) => ("at", Some(time)),
        Expiry::Never => ("never", None),
        Expiry::Unknown => ("unknown", None),
    }
}

/// A state as its name.
mod state_name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::State;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        let name = String::deserialize(deserializer)?;
        // A purged grant is absent; no list contains one.
        if name == State::Absent.as_str() { Ok(State::Absent) } else { name.parse().map_err(D::Error::custom) }
    }
}
