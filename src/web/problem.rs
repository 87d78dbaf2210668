//! Problem documents (RFC 9457): every error of the API, and every [`Error`] that an actix-web handler returns.

use std::{borrow::Cow, fmt, time::Duration};

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;

use super::{answer::line, time::rfc3339};
use crate::{
    Status,
    error::{Cause, Error},
    model::{Expiry, Generation, Id, State, Token},
};

/// A refused request, as its answer says it. An application's handler answers with one by `?`.
///
/// ```
/// use actix_web::{HttpResponse, ResponseError as _};
/// use token_supervisor::{TokenKey, TokenSupervisor, web::Problem};
///
/// async fn scope(supervisor: TokenSupervisor) -> Result<HttpResponse, Problem> {
///     let token = supervisor.token(&TokenKey::at("github").user("alice")).await?;
///     Ok(HttpResponse::Ok().body(token.scope().to_owned()))
/// }
///
/// assert_eq!(Problem::from(token_supervisor::Error::NotConnected).status_code(), 404);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Document>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<String>,
    request_id: String,
    #[serde(skip)]
    allow: Option<String>,
    /// What RFC 6750 calls what is wrong with the key.
    #[serde(skip)]
    key_error: Option<&'static str>,
}

/// Whether a problem says something of the grant that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    NotOfIt,
    /// What is known without asking anybody: time is up, or whoever would have to be asked is in trouble.
    InHaste,
    AtLength,
}

/// Every code, with its status and the title that people read.
pub(super) const CODES: [(&str, u16, &str); 14] = [
    ("unknown_idp", 404, "the identity provider is not configured"),
    ("not_connected", 404, "the user is not connected"),
    ("reconnect_required", 409, "the user must go through consent again"),
    ("duplicate_grant", 409, "the refresh token lives under another key"),
    ("account_mismatch", 409, "the grant belongs to another user of the identity provider"),
    ("generation_mismatch", 412, "the grant has changed"),
    ("invalid_request", 400, "the request is not as it should be"),
    ("min_ttl_unsatisfiable", 400, "no token lives that long"),
    ("unauthorized", 401, "the caller is not known"),
    ("forbidden", 403, "the caller may not do this"),
    ("busy", 429, "too many callers wait"),
    ("unavailable", 503, "there is no valid token now"),
    ("timeout", 504, "the deadline passed"),
    ("internal", 500, "a defect of the token supervisor"),
];

impl Problem {
    /// A problem of this code. Of a code that is not in [`CODES`] it is a defect of ours.
    fn new(code: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        let (code, status, title) =
            CODES.into_iter().find(|(known, ..)| *known == code).unwrap_or(CODES[CODES.len() - 1]);
        Self(Box::new(Document {
            kind: format!("urn:token-supervisor:problem:{code}"),
            title,
            status,
            detail: detail.into(),
            code,
            reason: None,
            since: None,
            retry_after: None,
            generation: None,
            valid_until: None,
            max_ttl: None,
            grant_id: None,
            request_id: request_id(),
            allow: None,
            key_error: None,
        }))
    }

    fn with(mut self, more: impl FnOnce(&mut Document)) -> Self {
        more(&mut self.0);
        self
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid_request", detail)
    }

    pub(super) fn unauthorized(detail: &'static str) -> Self {
        Self::new("unauthorized", detail)
    }

    /// What was shown is no key.
    pub(super) fn bad_token(detail: &'static str) -> Self {
        Self::unauthorized(detail).with(|it| it.key_error = Some("invalid_token"))
    }

    /// The key does not reach that far.
    pub(super) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("forbidden", detail).with(|it| it.key_error = Some("insufficient_scope"))
    }

    /// Nobody may ask like this, whatever the key.
    pub(super) fn foreign(detail: &'static str) -> Self {
        Self::new("forbidden", detail)
    }

    pub(super) fn too_large() -> Self {
        Self::invalid("the body is too large").with(|it| it.status = 413)
    }

    pub(super) fn too_slow() -> Self {
        Self::invalid("the body came too slowly").with(|it| it.status = 408)
    }

    pub(super) fn no_route() -> Self {
        Self::invalid("there is nothing at this path: see openapi.json").with(|it| it.status = 404)
    }

    pub(super) fn wrong_method(allow: String) -> Self {
        Self::invalid(format!("this path takes {allow}")).with(|it| {
            it.status = 405;
            it.allow = Some(allow);
        })
    }

    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    /// What it says of the grant that was asked for, if it is one of those that do.
    pub(super) fn speaks(&self) -> Speaks {
        match (self.0.code, self.0.reason.as_deref()) {
            ("unavailable", Some("store_down" | "stopping" | "failing")) | ("busy" | "timeout", _) => Speaks::InHaste,
            (
                "reconnect_required"
                | "account_mismatch"
                | "generation_mismatch"
                | "min_ttl_unsatisfiable"
                | "unavailable",
                _,
            ) => Speaks::AtLength,
            _ => Speaks::NotOfIt,
        }
    }

    /// With what is known of the grant: its public name, the generation, and until when it has a valid token nonetheless.
    pub(super) fn about(self, status: Option<&Status>, token: Option<&Token>) -> Self {
        self.with(|it| {
            let stored = status.filter(|status| status.state != State::Absent);
            let generation = stored.map(|status| status.generation).or(token.map(Token::generation));
            it.grant_id = stored.map(|status| status.grant_id.clone());
            it.generation = it.generation.or(generation.map(Generation::get));
            it.valid_until = token.and_then(|token| match token.expiry() {
                Expiry::At(end) => Some(rfc3339(end)),
                Expiry::Never | Expiry::Unknown => None,
            });
        })
    }

    /// The same, of this request.
    pub(super) fn of(self, request_id: &str) -> Self {
        self.with(|it| it.request_id = request_id.to_owned())
    }
}

/// A new name for a request, for logs and support.
pub(super) fn request_id() -> String {
    Id::random().public("r")
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // At least a second: what is rounded down makes callers come too early.
        let whole = |duration: Duration| duration.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX).max(1);
        Self::new(error.code(), error.to_string()).with(|it| match error {
            Error::ReconnectRequired { reason, since } => {
                it.reason = Some(reason);
                it.since = Some(rfc3339(since));
            }
            Error::GenerationMismatch { generation } => it.generation = Some(generation.get()),
            Error::MinTtlUnsatisfiable { max_ttl } => it.max_ttl = Some(max_ttl.as_secs()),
            Error::Busy { retry_after } => it.retry_after = Some(whole(retry_after)),
            Error::Unavailable { retry_after, cause } => {
                it.retry_after = Some(whole(retry_after));
                it.reason = Some(cause.to_string());
            }
            Error::ShutDown => {
                it.retry_after = Some(1);
                it.reason = Some(Cause::Stopping.to_string());
            }
            _ => {}
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        response
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((REQUEST_ID, self.0.request_id.as_str()))
            .content_type("application/problem+json");
        if let Some(seconds) = self.0.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(allow) = &self.0.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.0.status == 401 || self.0.key_error.is_some() {
            let error = self.0.key_error.map(|error| format!(", error=\"{error}\"")).unwrap_or_default();
            response.insert_header((header::WWW_AUTHENTICATE, format!("Bearer realm=\"token-supervisor\"{error}")));
        }
        response.body(line(self))
    }
}

/// Handlers may return it: the answer is the problem document that the HTTP API gives.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        Problem::from(self.clone()).status_code()
    }

    fn error_response(&self) -> HttpResponse {
        Problem::from(self.clone()).error_response()
    }
}

/// The header that names a request.
pub(super) const REQUEST_ID: &str = "x-request-id";

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn every_error_is_the_problem_of_its_code() {
        let second = Duration::from_millis(1_001);
        let reconnect = Error::ReconnectRequired { reason: "invalid_grant".into(), since: SystemTime::UNIX_EPOCH };
        for (error, status, member) in [
            (Error::UnknownIdp, 404, ""),
            (Error::NotConnected, 404, ""),
            (reconnect, 409, r#""reason":"invalid_grant","since":"1970-01-01T00:00:00Z""#),
            (Error::DuplicateGrant, 409, ""),
            (Error::AccountMismatch, 409, ""),
            (Error::GenerationMismatch { generation: Generation(41) }, 412, r#""generation":41"#),
            (Error::InvalidRequest("x"), 400, r#""detail":"invalid request: x""#),
            (Error::MinTtlUnsatisfiable { max_ttl: second }, 400, r#""max_ttl":1"#),
            (Error::Busy { retry_after: second }, 429, r#""retry_after":2"#),
            (Error::Unavailable { retry_after: Duration::ZERO, cause: Cause::IdpDown }, 503, r#""retry_after":1"#),
            (Error::Timeout, 504, ""),
            (Error::ShutDown, 503, r#""reason":"stopping","retry_after":1"#),
            (Error::Internal("x"), 500, ""),
        ] {
            let problem = Problem::from(error.clone());
            assert_eq!((problem.0.code, problem.0.status), (error.code(), status));
            let json = serde_json::to_string(&problem).unwrap();
            assert!(json.contains(member), "{json}");
            let response = error.error_response();
            assert_eq!(response.headers().contains_key("retry-after"), error.code() == "unavailable" || status == 429);
            assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        }
    }
}
