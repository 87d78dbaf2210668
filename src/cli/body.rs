//! What is said of tokens and grants, wherever it comes from: with the names that the HTTP API has for it.

use std::{borrow::Cow, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize};
use token_supervisor::{AccessToken, Cause, Evidence, Expiry, IdpStatus, State, Status, Token, TokenKey};

use super::{
    show::visible,
    time::{self, for_people, to_the_second},
};

/// What can be said about a grant. Never a token.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GrantBody {
    /// Of a refresh that was asked for: whether there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refreshed: Option<bool>,
    pub(super) idp: String,
    user: String,
    account: String,
    pub(super) grant_id: String,
    #[serde(serialize_with = "state", deserialize_with = "read_state")]
    pub(crate) state: State,
    pub(super) held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_reason: Option<String>,
    pub(crate) generation: u64,
    expiry: Cow<'static, str>,
    #[serde(with = "time::optional")]
    pub(super) expires_at: Option<SystemTime>,
    #[serde(with = "time::optional")]
    refresh_token_expires_at: Option<SystemTime>,
    #[serde(with = "time::optional")]
    next_refresh_at: Option<SystemTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    failing_since: Option<SystemTime>,
    #[serde(with = "time::optional")]
    since: Option<SystemTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unchanged: Option<Cow<'static, str>>,
    /// Of a disconnect that revokes: how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revocation: Option<Revocation>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Revocation {
    /// The identity provider has confirmed it.
    Done,
    Queued,
    /// The identity provider has no endpoint for it that we know.
    NoEndpoint,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn state<S: serde::Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

fn read_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        // Of what was purged. Nobody lists it.
        "absent" => Ok(State::Absent),
        name => name.parse().map_err(serde::de::Error::custom),
    }
}

impl GrantBody {
    pub(super) fn of(key: &TokenKey, status: Status) -> Self {
        let (expiry, expires_at) = end(status.expiry);
        Self {
            refreshed: None,
            idp: key.idp().to_owned(),
            user: key.user().to_owned(),
            account: key.account_name().to_owned(),
            grant_id: status.grant_id,
            state: status.state,
            held: status.held.is_some(),
            held_reason: status.held,
            generation: status.generation.get(),
            expiry: expiry.into(),
            expires_at,
            refresh_token_expires_at: end(status.refresh_expiry).1,
            next_refresh_at: status.next_refresh_at,
            last_error: status.last_error,
            reason: status.reason.map(Cow::Owned),
            evidence: status.evidence,
            failing_since: status.failing_since,
            since: status.since,
            unchanged: status.unchanged.map(|unchanged| unchanged.as_str().into()),
            revocation: None,
        }
    }

    /// After a refresh was asked for: why there was none stands where the reason does.
    pub(super) fn refreshed(self, refreshed: bool) -> Self {
        let reason = if refreshed { self.reason } else { Some("just_refreshed".into()) };
        Self { refreshed: Some(refreshed), reason, ..self }
    }

    /// Whether its token may run out with no other in its place; as the metric `first_impact_seconds` counts.
    pub(super) fn is_hindered(&self) -> bool {
        let stuck = matches!(self.state, State::Backoff | State::InDoubt | State::ReconnectRequired);
        stuck || self.held || self.failing_since.is_some()
    }

    /// `alice / work`.
    pub(super) fn owner(&self) -> String {
        let account = if self.account.is_empty() { String::new() } else { format!(" / {}", self.account) };
        visible(&format!("{}{account}", self.user))
    }

    pub(super) fn expires_in_words(&self) -> String {
        self.expires_at.map_or_else(|| self.expiry.to_string(), to_the_second)
    }

    /// A few lines for people.
    pub(super) fn in_words(&self) -> String {
        if self.state == State::Absent {
            return format!("{} / {}\n", self.idp, self.owner());
        }
        let mut lines =
            vec![format!("{} / {}   {}   generation {}", self.idp, self.owner(), self.grant_id, self.generation)];
        let mut line = |head: &str, text: String| lines.push(format!("{head:10}{text}"));
        let since = self.since.map(|since| format!(" since {}", for_people(since))).unwrap_or_default();
        line("state", format!("{}{since}", self.state_in_words()));
        if let Some(reason) = &self.held_reason {
            line(&super::coloured("HELD      ", 33), visible(reason));
        }
        if self.state != State::Revoked {
            let expires = self.expires_at.map_or_else(|| self.expiry.to_string(), for_people);
            line("expires", expires);
            if let Some(next) = self.next_refresh_at {
                line("refresh", for_people(next));
            }
            if let Some(end) = self.refresh_token_expires_at {
                line("consent", format!("ends {}", for_people(end)));
            }
        }
        if let Some(evidence) = &self.evidence {
            let head = if self.reason.is_some() { "reason" } else { "error" };
            let since = self.failing_since.map(|since| format!(", since {}", for_people(since))).unwrap_or_default();
            line(head, visible(&format!("{evidence}{since}")));
        }
        lines.join("\n") + "\n"
    }

    fn state_in_words(&self) -> String {
        let words = self.state.as_str().replace('_', " ").to_uppercase();
        let colour = match self.state {
            State::Fresh | State::Due | State::Refreshing => 32,
            State::Backoff | State::InDoubt => 33,
            _ => 31,
        };
        super::coloured(&words, colour)
    }
}

/// A token that is handed out.
#[derive(Serialize, Deserialize)]
pub(crate) struct TokenBody {
    #[serde(serialize_with = "exposed", deserialize_with = "secret")]
    pub(super) access_token: AccessToken,
    pub(super) token_type: String,
    expiry: Cow<'static, str>,
    #[serde(with = "time::optional")]
    pub(super) expires_at: Option<SystemTime>,
    expires_in: Option<u64>,
    scope: String,
    pub(super) generation: u64,
    freshness: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<Cow<'static, str>>,
}

/// Where it was asked for.
fn exposed<S: serde::Serializer>(token: &AccessToken, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessToken, D::Error> {
    String::deserialize(deserializer).map(AccessToken::from)
}

impl TokenBody {
    pub(super) fn of(token: &Token) -> Self {
        let (expiry, expires_at) = end(token.expiry());
        let left = |end: SystemTime| end.duration_since(time::now()).unwrap_or_default().as_secs();
        Self {
            access_token: token.access_token().clone(),
            token_type: token.token_type().to_owned(),
            expiry: expiry.into(),
            expires_at,
            expires_in: expires_at.map(left),
            scope: token.scope().to_owned(),
            generation: token.generation().get(),
            freshness: token.freshness().as_str().into(),
            warning: token.warning().map(|warning| warning.as_str().into()),
        }
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

/// How an identity provider is doing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdpBody {
    pub(super) idp: String,
    /// Why nothing is sent to it for now, if so.
    pub(super) paused: Option<Cow<'static, str>>,
    #[serde(with = "time::optional")]
    pub(super) paused_until: Option<SystemTime>,
    pub(super) held: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held_reason: Option<String>,
    /// Whether tokens can be revoked there.
    pub(super) revokes: bool,
    refreshing: usize,
    pub(super) last_error: Option<Evidence>,
    #[serde(with = "time::optional")]
    pub(super) last_error_at: Option<SystemTime>,
}

impl From<IdpStatus> for IdpBody {
    fn from(status: IdpStatus) -> Self {
        Self {
            idp: status.name,
            paused: status.paused.map(|cause: Cause| cause.as_str().into()),
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
