//! What an answer means for the refresh token that was sent: the protocol's table of
//! outcomes. Pure.
//!
//! The question is never "was it an error?" but "may the refresh token have been spent?". Only a
//! complete answer in which the provider itself speaks (an access token, or an OAuth error code) says
//! so; a status alone, a page of a proxy or half an answer leaves it in doubt.

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use super::{
    Idp, Rotation,
    decode::{Fields, RefreshLife, decode},
};
use crate::{
    Cause,
    model::{AccessToken, Evidence, RefreshToken, Time},
};

/// What was learnt from one request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// New tokens. They exist nowhere else: store them.
    Answered(Box<Answer>),
    /// The refresh token is as good as before.
    NotSpent(Failure),
    /// The provider does not accept the refresh token (any more).
    InvalidGrant(Failure),
    /// Nobody knows. The refresh token is in doubt.
    Unknown(Failure),
}

/// What the provider gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) access_token: AccessToken,
    /// None: the old one goes on.
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: Option<String>,
    pub(crate) scope: Option<String>,
    /// From the answer, else as assumed for this provider. Zero means over at once, not unknown.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_expires: Option<RefreshLife>,
    /// When the provider made the access token: earlier than now in a replayed answer.
    pub(crate) created_at: Option<Time>,
    pub(crate) subject: Option<String>,
}

impl Outcome {
    /// Why there are no new tokens.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Answered(_) => None,
            Self::NotSpent(failure) | Self::InvalidGrant(failure) | Self::Unknown(failure) => Some(failure),
        }
    }
}

/// Why there are no new tokens, in words that can be shown to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) meaning: Meaning,
    pub(crate) evidence: Evidence,
    pub(crate) retry_after: Option<Duration>,
}

/// What an error of a token endpoint means: who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// The refresh token is not accepted (any more): only consent helps.
    UserMustReconnect,
    /// Our client or what it asks for is refused: an operator must act, and no grant is touched.
    OperatorFault,
    /// The provider asks to slow down.
    Throttled,
    /// Another request with this refresh token is being processed: what came of it will be seen.
    Race,
    /// It passes by itself.
    Transient,
}

impl Failure {
    /// What callers are told.
    pub(crate) fn cause(&self) -> Cause {
        match self.meaning {
            Meaning::OperatorFault => Cause::ClientRefused,
            Meaning::Throttled => Cause::IdpThrottled,
            Meaning::UserMustReconnect | Meaning::Race | Meaning::Transient => Cause::IdpDown,
        }
    }
}

/// An answer as it came from the wire.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Whether the body was read to its end.
    pub(crate) complete: bool,
    /// Whether something but the end of the connection says where the body ends: a length, chunks, or
    /// HTTP/2.
    pub(crate) framed: bool,
    pub(crate) content_type: Option<String>,
    /// At most an hour.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) correlation: Option<String>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

pub(super) const INCOMPLETE: &str = "incomplete_answer";
const UNREADABLE: &str = "unreadable_answer";

/// Decides what `reply` means. Whatever is not listed is in doubt.
pub(crate) fn classify(idp: &Idp, reply: &Reply) -> Outcome {
    match reply.status {
        // Whatever is in its body: an error code inside is no verdict.
        429 => Outcome::NotSpent(reply.failure(Meaning::Throttled, "http_429")),
        408 => Outcome::Unknown(reply.by_status()),
        200..=299 | 400..=499 => match reply.fields() {
            Ok(fields) => judge(idp, reply, fields),
            Err(UNREADABLE) if reply.status >= 400 => Outcome::Unknown(reply.by_status()),
            Err(code) => Outcome::Unknown(reply.failure(Meaning::Transient, code)),
        },
        _ => Outcome::Unknown(reply.by_status()),
    }
}

/// A complete 2xx or 4xx with fields.
fn judge(idp: &Idp, reply: &Reply, fields: Fields) -> Outcome {
    let success = reply.status < 300;
    let unknown = |code| Outcome::Unknown(reply.failure(Meaning::Transient, code));
    let no_token = fields.access_token.is_none() && fields.refresh_token.is_none();
    match (fields.access_token, fields.error) {
        (Some(_), _) if success && fields.refresh_token.is_none() && idp.rotation == Rotation::Always => {
            unknown("no_refresh_token")
        }
        (Some(access_token), _) if success => Outcome::Answered(Box::new(Answer {
            access_token,
            refresh_token: fields.refresh_token,
            token_type: fields.token_type,
            scope: fields.scope,
            expires_in: fields.expires_in.or(idp.access_lifetime),
            refresh_expires: fields.refresh_expires,
            created_at: fields.created_at,
            subject: fields.subject,
        })),
        (None, Some(code)) if no_token => {
            let listed = |codes: &[String]| codes.contains(&code);
            if code == "invalid_grant" || listed(&idp.invalid_grant_codes) {
                Outcome::InvalidGrant(reply.failure(Meaning::UserMustReconnect, &code))
            } else if listed(&idp.client_refused_codes) {
                Outcome::NotSpent(reply.failure(Meaning::OperatorFault, &code))
            } else {
                Outcome::NotSpent(reply.failure(Meaning::Transient, &code))
            }
        }
        // A refusal that brings a token contradicts itself.
        (_, Some(_)) => unknown("contradictory_answer"),
        (_, None) if success => unknown("no_access_token"),
        (_, None) => Outcome::Unknown(reply.by_status()),
    }
}

impl Reply {
    /// The fields of a body that is surely complete, or our code for why there are none.
    pub(super) fn fields(&self) -> Result<Fields, &'static str> {
        if !self.complete {
            return Err(INCOMPLETE);
        }
        match decode(self.content_type.as_deref(), &self.body) {
            Some(fields) if self.framed || fields.json => Ok(fields),
            None if self.framed => Err(UNREADABLE),
            // A form that ends with the connection may have lost its end.
            _ => Err(INCOMPLETE),
        }
    }

    pub(super) fn failure(&self, meaning: Meaning, code: &str) -> Failure {
        let evidence = Evidence {
            code: code.to_owned(),
            detail: None,
            status: Some(self.status),
            request_id: self.correlation.clone(),
        };
        Failure { meaning, evidence, retry_after: self.retry_after }
    }

    pub(super) fn by_status(&self) -> Failure {
        self.failure(Meaning::Transient, &format!("http_{}", self.status))
    }
}

impl fmt::Debug for Reply {
    /// Without the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("complete", &self.complete)
            .field("framed", &self.framed)
            .field("correlation", &self.correlation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
