//! Results of commands: bodies of the HTTP API, what a command adds to them, and how they are shown to people.

use serde::Serialize;
use token_supervisor::{
    State, Warning,
    api::{RefreshedBody, StatusBody},
};

use super::{
    show::{folded, visible},
    time::{for_people, to_the_second},
};

/// The state of a grant after a verb.
#[derive(Debug, Serialize)]
pub(crate) struct VerbResult {
    /// Whether a requested refresh took place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refreshed: Option<bool>,
    #[serde(flatten)]
    pub(crate) status: StatusBody,
}

impl From<StatusBody> for VerbResult {
    fn from(status: StatusBody) -> Self {
        Self { refreshed: None, status }
    }
}

impl From<RefreshedBody> for VerbResult {
    fn from(RefreshedBody { refreshed, status, .. }: RefreshedBody) -> Self {
        Self { refreshed: Some(refreshed), ..status.into() }
    }
}

/// A grant as people read it.
pub(crate) trait StatusWords {
    /// Whether its token may expire without a replacement; as the metric `first_impact_seconds` counts.
    fn is_hindered(&self) -> bool;
    /// Such as `alice / work`.
    fn owner(&self) -> String;
    fn expires_in_words(&self) -> String;
    /// Several lines.
    fn in_words(&self) -> String;
}

impl StatusWords for StatusBody {
    fn is_hindered(&self) -> bool {
        let stuck = matches!(self.state, State::Backoff | State::InDoubt | State::ReconnectRequired);
        stuck || self.held || self.failing_since.is_some()
    }

    fn owner(&self) -> String {
        let account = if self.account.is_empty() { String::new() } else { format!(" / {}", self.account) };
        visible(&format!("{}{account}", self.user))
    }

    fn expires_in_words(&self) -> String {
        self.expires_at.map_or_else(|| self.expiry.to_string(), to_the_second)
    }

    fn in_words(&self) -> String {
        if self.state == State::Absent {
            return format!("{} / {}\n", self.idp, self.owner());
        }
        let mut lines =
            vec![format!("{} / {}   {}   generation {}", self.idp, self.owner(), self.grant_id, self.generation)];
        let mut line = |head: &str, text: String| lines.push(format!("{head:10}{text}"));
        let since = self.since.map(|since| format!(" since {}", for_people(since))).unwrap_or_default();
        line("state", format!("{}{since}", state_in_words(self.state)));
        if let Some(reason) = &self.held_reason {
            line(&super::coloured("HELD      ", 33), visible(reason));
        }
        if self.state != State::Revoked {
            let expires = self.expires_at.map_or_else(|| self.expiry.to_string(), for_people);
            line("expires", expires);
            if let Some(next) = self.next_refresh_at {
                line("refresh", for_people(next));
            }
            if self.warning.as_deref() == Some(Warning::NoRefreshToken.as_str()) {
                let text = "no refresh token: the user must consent again when the access token expires";
                line(&super::coloured("warning   ", 33), text.to_owned());
            }
            if let Some(end) = self.refresh_token_expires_at {
                line("consent", format!("expires {}", for_people(end)));
            }
        }
        if let Some(revocation) = &self.revocation {
            line("revoked", revocation_in_words(revocation).to_owned());
        }
        if let Some(evidence) = &self.evidence {
            let head = if self.reason.is_some() { "reason" } else { "error" };
            let since = self.failing_since.map(|since| format!(", since {}", for_people(since))).unwrap_or_default();
            line(head, visible(&format!("{evidence}{since}")));
            if let Some(description) = &evidence.description {
                line("", folded(&format!("provider: {}", visible(description)), 10).trim_start().to_owned());
            }
        }
        lines.join("\n") + "\n"
    }
}

fn revocation_in_words(revocation: &str) -> &str {
    match revocation {
        "waiting" => "not yet: waits for the response to a refresh in flight",
        "queued" => "not yet: queued, nothing was sent",
        "unconfirmed" => "not confirmed: sent, and retried until the provider confirms it",
        "done" => "yes, the provider has confirmed it",
        "no_endpoint" => "no: the provider has no revocation endpoint, the tokens stay valid until they expire",
        "canceled" => "no: canceled before anything was sent",
        other => other,
    }
}

fn state_in_words(state: State) -> String {
    let words = state.as_str().replace('_', " ").to_uppercase();
    let colour = match state {
        State::Fresh | State::Due | State::Refreshing => 32,
        State::Backoff | State::InDoubt => 33,
        _ => 31,
    };
    super::coloured(&words, colour)
}
