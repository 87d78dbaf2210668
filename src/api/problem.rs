//! Problem documents (RFC 9457).

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::time;
use crate::{Cause, Code, Error};

/// A problem document (RFC 9457): the body of every response that is not a success.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Problem"))]
#[non_exhaustive]
pub struct ProblemBody {
    /// Identifies the kind of problem: `urn:token-supervisor:problem:CODE`.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "web", schemars(extend("format" = "uri")))]
    pub kind: String,
    /// The problem in a few words, the same for every problem with this code.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What failed, why, and what to do next.
    pub detail: Cow<'static, str>,
    /// The error code.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::code"))]
    pub code: Cow<'static, str>,
    /// Why a token is unavailable, or why the user must consent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when the user must consent again.
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub since: Option<SystemTime>,
    /// How many seconds to wait before a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The generation of the stored grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Until then the grant has a valid token nonetheless.
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::some_time"))]
    pub valid_until: Option<SystemTime>,
    /// The longest `min_ttl` that can be requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<u64>,
    /// The short public name of the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<String>,
    /// Names the request, for logs and support.
    pub request_id: String,
}

/// How much a problem reports of the grant that the request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantContext {
    /// Nothing: the problem is not about the state of a grant.
    Nothing,
    /// What is in memory: there is no time left, or the store or the actor is in trouble.
    InMemory,
    /// What is stored.
    Stored,
}

impl ProblemBody {
    /// Returns a problem with this code, without a request.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: format!("urn:token-supervisor:problem:{code}"),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code: code.as_str().into(),
            reason: None,
            since: None,
            retry_after: None,
            generation: None,
            valid_until: None,
            max_ttl: None,
            grant_id: None,
            request_id: String::new(),
        }
    }

    /// Returns the error code; `None` if a newer server knows codes that this version does not.
    pub fn code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == self.code)
    }

    /// Returns why there is no valid token now; `None` for other problems, and for a cause that only a newer version knows.
    pub fn cause(&self) -> Option<Cause> {
        let reason = self.reason.as_deref().filter(|_| self.code() == Some(Code::Unavailable))?;
        Cause::ALL.iter().copied().find(|cause| cause.as_str() == reason)
    }

    /// Returns the exit code of a command that fails with this problem: 4 only for what passes without an operator. `None`
    /// for the code of a newer server.
    pub fn exit_code(&self) -> Option<u8> {
        match self.cause() {
            Some(cause) if !cause.is_transient() => Some(1),
            _ => self.code().map(Code::exit_code),
        }
    }

    /// Returns how much this problem reports of the grant that the request was about: see
    /// [`about_grant`](Self::about_grant).
    pub fn grant_context(&self) -> GrantContext {
        let in_trouble = [Cause::StoreDown, Cause::DiskFull, Cause::Stopping, Cause::Failing];
        match self.code() {
            Some(Code::Busy | Code::Timeout) => GrantContext::InMemory,
            Some(Code::Unavailable)
                if in_trouble.iter().any(|cause| self.reason.as_deref() == Some(cause.as_str())) =>
            {
                GrantContext::InMemory
            }
            Some(
                Code::ReconnectRequired
                | Code::AccountMismatch
                | Code::GenerationMismatch
                | Code::MinTtlUnsatisfiable
                | Code::Unavailable,
            ) => GrantContext::Stored,
            _ => GrantContext::Nothing,
        }
    }

    /// Adds what is known of the grant: its public name, its generation, and until when it has a valid token
    /// nonetheless.
    pub fn about_grant(
        self,
        grant_id: Option<String>,
        generation: Option<u64>,
        valid_until: Option<SystemTime>,
    ) -> Self {
        Self { grant_id, generation: self.generation.or(generation), valid_until, ..self }
    }
}

impl From<&Error> for ProblemBody {
    fn from(error: &Error) -> Self {
        // Rounded up to at least a second, so that a retry is never early.
        let whole = |duration: Duration| duration.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX).max(1);
        let mut body = Self::new(error.kind(), error.to_string());
        match error {
            Error::ReconnectRequired { reason, since } => {
                body.reason = Some(reason.clone());
                body.since = Some(*since);
            }
            Error::GenerationMismatch { generation } => body.generation = Some(generation.get()),
            Error::MinTtlUnsatisfiable { max_ttl } => body.max_ttl = Some(max_ttl.as_secs()),
            Error::Busy { retry_after } => body.retry_after = Some(whole(*retry_after)),
            Error::Unavailable { retry_after, cause } => {
                body.retry_after = Some(whole(*retry_after));
                body.reason = Some(cause.to_string());
            }
            Error::ShutDown => {
                body.retry_after = Some(1);
                body.reason = Some(Cause::Stopping.to_string());
            }
            _ => {}
        }
        body
    }
}
