//! Problem documents (RFC 9457): every error of the API, and every [`Error`] that an actix-web handler returns.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderName},
    },
};
use serde::{Serialize, Serializer};

use crate::{
    Status,
    api::{GrantContext, ProblemBody},
    code::Code,
    error::Error,
    model::{Expiry, Generation, State, Token, public_name},
};

/// The problem document of a refused request. A handler of an application returns one by `?`.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<ProblemParts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProblemParts {
    body: ProblemBody,
    code: Code,
    /// Whether the caller sends too many requests, so that each of them is only counted.
    is_throttled: bool,
    /// The methods that the path takes.
    allow: Option<String>,
    /// The error code of RFC 6750 for the API key.
    key_error: Option<&'static str>,
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.body.serialize(serializer)
    }
}

impl Problem {
    fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of_body(code, ProblemBody::new(code, detail))
    }

    fn of_body(code: Code, body: ProblemBody) -> Self {
        let body = ProblemBody { request_id: request_id(), ..body };
        Self(Box::new(ProblemParts { body, code, is_throttled: false, allow: None, key_error: None }))
    }

    fn with(mut self, more: impl FnOnce(&mut ProblemParts)) -> Self {
        more(&mut self.0);
        self
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    pub(super) fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unauthorized, detail)
    }

    /// The request shows an API key that is not valid.
    pub(super) fn bad_token(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::unauthorized(detail).with(|it| it.key_error = Some("invalid_token"))
    }

    /// The API key does not permit the request.
    pub(super) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Forbidden, detail).with(|it| it.key_error = Some("insufficient_scope"))
    }

    /// No key permits the request.
    pub(super) fn foreign(detail: &'static str) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    /// The caller sends too many requests.
    pub(super) fn throttled(detail: &'static str, retry_after: Duration) -> Self {
        let body = ProblemBody::from(&Error::Busy { retry_after });
        Self::of_body(Code::Busy, ProblemBody { detail: detail.into(), ..body }).with(|it| it.is_throttled = true)
    }

    /// Whether the request was refused before it was looked at.
    pub(super) fn is_throttled(&self) -> bool {
        self.0.is_throttled
    }

    pub(super) fn not_connected(detail: &'static str) -> Self {
        Self::new(Code::NotConnected, detail)
    }

    pub(super) fn too_large() -> Self {
        Self::invalid("the body is too large").with(|it| it.body.status = 413)
    }

    pub(super) fn too_slow() -> Self {
        Self::invalid("the body arrived too slowly").with(|it| it.body.status = 408)
    }

    pub(super) fn no_route() -> Self {
        Self::invalid("there is nothing at this path: see openapi.json").with(|it| it.body.status = 404)
    }

    pub(super) fn wrong_method(allow: String) -> Self {
        Self::invalid(format!("this path takes {allow}")).with(|it| {
            it.body.status = 405;
            it.allow = Some(allow);
        })
    }

    pub(super) fn code(&self) -> &'static str {
        self.0.code.as_str()
    }

    pub(super) fn grant_id(&self) -> Option<&str> {
        self.0.body.grant_id.as_deref()
    }

    /// How much it reports of the grant that the request was about.
    pub(super) fn grant_context(&self) -> GrantContext {
        self.0.body.grant_context()
    }

    /// Adds what is known of the grant: its status, and its published token.
    pub(super) fn about(mut self, status: Option<&Status>, token: Option<&Token>) -> Self {
        let stored = status.filter(|status| status.state != State::Absent);
        let generation = stored.map(|status| status.generation).or(token.map(Token::generation));
        let valid_until: Option<SystemTime> = token.and_then(|token| match token.expiry() {
            Expiry::At(end) => Some(end),
            Expiry::Never | Expiry::Unknown => None,
        });
        let grant_id = stored.map(|status| status.grant_id.clone());
        self.0.body = self.0.body.about_grant(grant_id, generation.map(Generation::get), valid_until);
        self
    }

    /// Returns the problem of the request with this name.
    pub(super) fn of(self, request_id: &str) -> Self {
        self.with(|it| it.body.request_id = request_id.to_owned())
    }

    pub(super) fn into_body(self) -> ProblemBody {
        self.0.body
    }
}

/// Returns a new name for a request, for logs and support. A name must differ from others and not show how many requests
/// there are; nothing is granted to who knows one. So it is a hash of the request's number with a random key, which differs
/// in each process: as good as random bits here, without a system call.
pub(super) fn request_id() -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let hash = KEY.hash_one(REQUESTS.fetch_add(1, Ordering::Relaxed));
    public_name("r", (0..).map(|digit| (hash >> (5 * digit)) as u8))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::of_body(error.kind(), ProblemBody::from(&error))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.body.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        response
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((&REQUEST_ID, self.0.body.request_id.as_str()))
            .content_type("application/problem+json");
        if let Some(seconds) = self.0.body.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(allow) = &self.0.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.0.body.status == 401 || self.0.key_error.is_some() {
            let error = self.0.key_error.map(|error| format!(", error=\"{error}\"")).unwrap_or_default();
            response.insert_header((header::WWW_AUTHENTICATE, format!("Bearer realm=\"token-supervisor\"{error}")));
        }
        response.body(line(self))
    }
}

/// Handlers may return it: the response is the problem document of the HTTP API.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        Problem::from(self.clone()).status_code()
    }

    fn error_response(&self) -> HttpResponse {
        Problem::from(self.clone()).error_response()
    }
}

/// Returns JSON with a newline at its end, so that a shell prompt after `curl` starts a line.
pub(super) fn line(body: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(TYPICAL_LINE);
    serde_json::to_writer(&mut json, body).expect("bodies of the API have a JSON form");
    json.push(b'\n');
    json
}

/// As long as a token with what belongs to it.
const TYPICAL_LINE: usize = 1024;

/// The header that names a request.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Cause;

    #[test]
    fn requests_have_names_of_their_own() {
        let names: std::collections::HashSet<_> = (0..10_000).map(|_| request_id()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.starts_with("r_") && name.len() == 12));
    }

    #[test]
    fn every_error_becomes_the_problem_with_its_code() {
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
            assert_eq!((problem.code(), problem.0.body.status), (error.code(), status));
            let json = serde_json::to_string(&problem).unwrap();
            assert!(json.contains(member), "{json}");
            let response = error.error_response();
            assert_eq!(response.headers().contains_key("retry-after"), error.code() == "unavailable" || status == 429);
            assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        }
    }
}
