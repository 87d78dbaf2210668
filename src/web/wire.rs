//! The bodies of the API, apart from the types that they speak of.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    problem::Problem,
    time::{Moment, Seconds, rfc3339},
};
use crate::{
    Expiry, Freshness, Grant, IdpStatus, Status, Token, TokenKey, Unchanged, Warning,
    model::{Evidence, WallTime},
};

/// A token that is handed out.
#[derive(Serialize)]
pub(super) struct TokenBody<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expiry: &'static str,
    expires_at: Option<String>,
    expires_in: Option<u64>,
    scope: &'a str,
    generation: u64,
    freshness: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

impl<'a> TokenBody<'a> {
    pub(super) fn of(token: &'a Token, now: WallTime) -> Self {
        let (expiry, expires_at) = end(token.expiry());
        let left = |end: SystemTime| end.duration_since(now.into()).unwrap_or_default().as_secs();
        Self {
            access_token: token.access_token().expose_secret(),
            token_type: token.token_type(),
            expiry,
            expires_at: expires_at.map(rfc3339),
            expires_in: expires_at.map(left),
            scope: token.scope(),
            generation: token.generation().get(),
            freshness: match token.freshness() {
                Freshness::Fresh => "fresh",
                Freshness::Ageing => "ageing",
                Freshness::LastGood => "last_good",
            },
            warning: token.warning().map(|warning| match warning {
                Warning::RefreshFailing => "refresh_failing",
                Warning::InDoubt => "in_doubt",
                Warning::ReconnectRequired => "reconnect_required",
                Warning::Rejected => "rejected",
            }),
        }
    }
}

/// What can be said about a grant.
#[derive(Serialize)]
pub(super) struct StatusBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshed: Option<bool>,
    idp: &'a str,
    user: &'a str,
    account: &'a str,
    grant_id: &'a str,
    state: &'static str,
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_reason: Option<&'a str>,
    generation: u64,
    expiry: &'static str,
    expires_at: Option<String>,
    refresh_token_expires_at: Option<String>,
    next_refresh_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<String>,
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unchanged: Option<&'static str>,
}

impl<'a> StatusBody<'a> {
    pub(super) fn of(key: &'a TokenKey, status: &'a Status) -> Self {
        let (expiry, expires_at) = end(status.expiry);
        Self {
            refreshed: None,
            idp: key.idp(),
            user: key.user(),
            account: key.account_name(),
            grant_id: &status.grant_id,
            state: status.state.as_str(),
            held: status.held.is_some(),
            held_reason: status.held.as_deref(),
            generation: status.generation.get(),
            expiry,
            expires_at: expires_at.map(rfc3339),
            refresh_token_expires_at: end(status.refresh_expiry).1.map(rfc3339),
            next_refresh_at: status.next_refresh_at.map(rfc3339),
            last_error: status.last_error.as_deref(),
            reason: status.reason.as_deref(),
            evidence: status.evidence.as_ref(),
            failing_since: status.failing_since.map(rfc3339),
            since: status.since.map(rfc3339),
            unchanged: status.unchanged.map(|unchanged| match unchanged {
                Unchanged::AlreadyConnected => "already_connected",
                Unchanged::TokenAlreadySpent => "token_already_spent",
                Unchanged::RefreshInFlight => "refresh_in_flight",
            }),
        }
    }

    /// After a refresh was asked for: why there was none stands where the reason does.
    pub(super) fn refreshed(self, refreshed: bool) -> Self {
        let reason = if refreshed { self.reason } else { Some("just_refreshed") };
        Self { refreshed: Some(refreshed), reason, ..self }
    }
}

/// Its name on the wire, and when it is.
fn end(expiry: Expiry) -> (&'static str, Option<SystemTime>) {
    match expiry {
        Expiry::At(time) => ("at", Some(time)),
        Expiry::Never => ("never", None),
        Expiry::Unknown => ("unknown", None),
    }
}

/// A grant as applications hand it in. Nothing in it is ever shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    access_token: Option<String>,
    refresh_token: Option<String>,
    token_type: Option<String>,
    scope: Option<String>,
    expires_in: Option<Seconds>,
    expires_at: Option<Moment>,
    refresh_token_expires_in: Option<Seconds>,
    refresh_token_expires_at: Option<Moment>,
    client_id: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    extra: serde_json::Map<String, serde_json::Value>,
}

impl GrantBody {
    /// # Errors
    /// Which field is wrong, and what it should be.
    pub(super) fn grant(self, now: WallTime) -> Result<Grant, &'static str> {
        let mut grant = match (self.access_token, &self.refresh_token) {
            (Some(token), _) => Grant::new(token),
            (None, Some(token)) => Grant::from_refresh_token(token.clone()),
            (None, None) => return Err("give access_token, refresh_token or both"),
        };
        grant = match (self.expires_in, self.expires_at) {
            (Some(_), Some(_)) => return Err("give expires_in or expires_at, not both"),
            (Some(lifetime), None) => {
                let lifetime = lifetime.read()?;
                if lifetime < Duration::from_millis(1) {
                    return Err("expires_in must be more than 0: leave it out where it is not known");
                }
                grant.expires_in(lifetime)
            }
            (None, Some(time)) => grant.expiry(Expiry::At(time.read()?)),
            (None, None) => grant,
        };
        grant = match (self.refresh_token_expires_in, self.refresh_token_expires_at) {
            (Some(_), Some(_)) => return Err("give refresh_token_expires_in or refresh_token_expires_at, not both"),
            (Some(lifetime), None) => match lifetime.read()? {
                // Keycloak says 0 for refresh tokens without end.
                zero if zero.is_zero() => grant.refresh_expiry(Expiry::Never),
                lifetime => grant.refresh_expiry(Expiry::At((now + lifetime).into())),
            },
            (None, Some(time)) => grant.refresh_expiry(Expiry::At(time.read()?)),
            (None, None) => grant,
        };
        let set = |grant, value: Option<String>, setter: fn(Grant, String) -> Grant| match value {
            Some(value) => setter(grant, value),
            None => grant,
        };
        grant = set(grant, self.refresh_token, Grant::refresh_token);
        grant = set(grant, self.token_type, Grant::token_type);
        grant = set(grant, self.scope, Grant::scope);
        grant = set(grant, self.client_id, Grant::client_id);
        grant = set(grant, self.subject, Grant::subject);
        grant = self.params.into_iter().fold(grant, |grant, (name, value)| grant.param(name, value));
        Ok(self.extra.into_iter().fold(grant, |grant, (name, value)| grant.extra(name, value)))
    }
}

/// A whole number, as JSON has them: `41.0` is one, too.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) u64);

/// More than anything counts to, and numbers with a point still tell which one they are.
pub(super) const LARGEST: u64 = 1 << 40;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if number.fract() != 0.0 || !(0.0..=LARGEST as f64).contains(&number) {
            return Err(D::Error::custom("no whole number"));
        }
        Ok(Self(number as u64))
    }
}

/// A body that is empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Why somebody does what they do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonBody {
    pub(super) reason: String,
}

/// Which token a resource server refused: by its generation, or the token itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectedBody {
    pub(super) generation: Option<Whole>,
    pub(super) access_token: Option<String>,
}

/// Tokens of many grants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody {
    pub(super) min_ttl: Option<Whole>,
    pub(super) timeout: Option<Whole>,
    pub(super) items: Vec<BatchItem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchItem {
    idp: String,
    user: String,
    account: Option<String>,
}

impl BatchItem {
    pub(super) fn key(&self) -> TokenKey {
        TokenKey::at(&self.idp).user(&self.user).account(self.account.as_deref().unwrap_or_default())
    }
}

/// A token or why there is none.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BatchAnswer<'a> {
    Token(TokenBody<'a>),
    Problem(Problem),
}

/// Several of something.
#[derive(Serialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

/// A page of grants, and where the next one starts.
#[derive(Serialize)]
pub(super) struct PageBody<'a> {
    pub(super) items: Vec<StatusBody<'a>>,
    pub(super) next: Option<String>,
}

/// A grant of a user who leaves: how it ended, or why it did not.
#[derive(Serialize)]
pub(super) struct Ended<'a> {
    idp: &'a str,
    user: &'a str,
    account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

impl<'a> Ended<'a> {
    pub(super) fn of(key: &'a TokenKey, ended: Result<&'a Status, Problem>) -> Self {
        let (status, problem) = match ended {
            Ok(status) => (Some(StatusBody::of(key, status)), None),
            Err(problem) => (None, Some(problem)),
        };
        Self { idp: key.idp(), user: key.user(), account: key.account_name(), status, problem }
    }
}

/// How an identity provider is doing.
#[derive(Serialize)]
pub(super) struct IdpBody {
    idp: String,
    paused: Option<&'static str>,
    #[serde(serialize_with = "time")]
    paused_until: Option<SystemTime>,
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_reason: Option<String>,
    revokes: bool,
    refreshing: usize,
    last_error: Option<Evidence>,
    #[serde(serialize_with = "time")]
    last_error_at: Option<SystemTime>,
}

impl IdpBody {
    pub(super) fn of(status: IdpStatus) -> Self {
        Self {
            idp: status.name,
            paused: status.paused.map(crate::Cause::as_str),
            paused_until: status.paused_until,
            held: status.held.is_some(),
            held_reason: status.held,
            revokes: status.revokes,
            refreshing: status.refreshing,
            last_error: status.last_error,
            last_error_at: status.last_error_at,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde hands it over like this")]
fn time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}
