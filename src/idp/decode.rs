//! The body of an answer, whatever its form, as fields. Pure; no bytes make it fail in any other way
//! than `None`.
//!
//! Providers differ from RFC 6749 in form (form encoding instead of JSON, a content type that says the
//! other), in types (`"3600"`, `3600.0`) and in names. That is forgiven here, so that a token that was
//! delivered is not thrown away for a quirk of its neighbours.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::body::Body;
use crate::model::{AccessToken, RefreshToken, Time};

/// What an answer of a token endpoint says. A field that is null, empty or of a senseless type is absent.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Whether the body was JSON, which shows by itself that it is complete.
    pub(crate) json: bool,
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: Option<String>,
    /// 0 or less is absent: who sends that sets no end (nobody issues a token that is over as it comes), and a
    /// resource server that refuses the token brings a refresh. Taken at its word it would be refreshed for ever.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_expires: Option<RefreshLifetime>,
    pub(crate) created_at: Option<Time>,
    pub(crate) scope: Option<String>,
    /// Only a plain word, as OAuth error codes are: `{"error": "Not Found"}` is what web frameworks say
    /// for themselves, before or after anything was processed.
    pub(crate) error: Option<String>,
    /// The user, from `sub` or the payload of `id_token`. Its signature is not checked: it came straight
    /// from the token endpoint over TLS (OpenID Connect Core, 3.1.3.7, point 6).
    pub(crate) subject: Option<String>,
    /// When to ask again, as Discord says it beside its `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    /// What may tell errors apart. Compared, and shown only where it is a code.
    rest: Body,
}

/// How long a refresh token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshLifetime {
    In(Duration),
    /// Keycloak says 0 for this. Nobody hands out a refresh token that is over, so 0 means it everywhere.
    Never,
}

/// The fields of a body, or `None` if it is neither a JSON object nor a form. `more` are the paths that this provider's
/// [rules](super::ErrorRule) look at.
pub(crate) fn decode(content_type: Option<&str>, body: &[u8], more: &[&str]) -> Option<Fields> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let wanted = [&NAMES, more].concat();
    match body.first()? {
        b'{' => Body::json(body, &wanted).map(|body| Fields::of(body, true)),
        b'[' | b'<' => None,
        _ if form(content_type, body) => Some(Fields::of(Body::form(body, &wanted), false)),
        _ => None,
    }
}

/// Whether the body is a form: it says so, or it cannot be anything else. A page of HTML or a sentence
/// may well contain `&error=x` somewhere.
fn form(content_type: Option<&str>, body: &[u8]) -> bool {
    let declared = content_type.is_some_and(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+&=-._~*:/,!'()@$;".contains(byte);
    body.contains(&b'=') && (declared || body.iter().all(plain))
}

const REFRESH_LIFETIMES: [&str; 3] = ["refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in"];
const NAMES: [&str; 15] = [
    "access_token",
    "refresh_token",
    "token_type",
    "expires_in",
    REFRESH_LIFETIMES[0],
    REFRESH_LIFETIMES[1],
    REFRESH_LIFETIMES[2],
    "created_at",
    "scope",
    "scopes",
    "error",
    "ok",
    "retry_after",
    "sub",
    "id_token",
];

impl Fields {
    fn of(mut body: Body, json: bool) -> Self {
        let id_token = body.text("id_token");
        let expires_in = body.seconds("expires_in").filter(|seconds| *seconds > 0.0).map(duration);
        let refresh_expires = REFRESH_LIFETIMES.map(|name| body.seconds(name).and_then(refresh_life));
        Self {
            json,
            access_token: body.text("access_token").map(|mut text| std::mem::take(&mut *text).into()),
            refresh_token: body.text("refresh_token").map(|mut text| std::mem::take(&mut *text).into()),
            token_type: body.word("token_type").filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())),
            expires_in,
            refresh_expires: refresh_expires.into_iter().flatten().next(),
            created_at: body.seconds("created_at").and_then(epoch),
            scope: body.list("scope").or_else(|| body.list("scopes")).filter(|text| plain(text)),
            retry_after: body.seconds("retry_after").filter(|seconds| *seconds >= 0.0).map(duration),
            subject: body.word("sub").or_else(|| subject(&id_token?)).filter(|text| plain(text)),
            error: body.one("error").filter(|text| is_code(text)).map(str::to_owned),
            rest: body,
        }
    }

    /// Whether exactly this value stands at `path`, perhaps among others of a list.
    pub(super) fn says(&self, path: &str, value: &str) -> bool {
        self.rest.all(path).any(|said| said == value)
    }

    /// The first value at `path` that can be shown.
    pub(super) fn code(&self, path: &str) -> Option<&str> {
        self.rest.all(path).find(|text| is_code(text))
    }

    /// The user, from the field that this provider has for it.
    pub(super) fn subject_in(&mut self, path: &str) -> Option<String> {
        self.rest.word(path).filter(|text| plain(text))
    }
}

/// Whether the text is a code that can be shown: OAuth error codes are, and no sentence or token of the
/// usual length is.
pub(super) fn is_code(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 16 * 1024 && !text.chars().any(char::is_control)
}

fn duration(seconds: f64) -> Duration {
    const CENTURY: f64 = 3_155_760_000.0;
    Duration::from_secs_f64(seconds.clamp(0.0, CENTURY))
}

fn refresh_life(seconds: f64) -> Option<RefreshLifetime> {
    match seconds {
        seconds if seconds > 0.0 => Some(RefreshLifetime::In(duration(seconds))),
        0.0 => Some(RefreshLifetime::Never),
        _ => None,
    }
}

/// Seconds or, where seconds would be in the far future, milliseconds since 1970.
fn epoch(number: f64) -> Option<Time> {
    const YEAR_5000: f64 = 1e11;
    let millis = if number < YEAR_5000 { number * 1_000.0 } else { number };
    (1_000.0..YEAR_5000 * 1_000.0).contains(&millis).then_some(Time(millis as i64))
}

fn subject(id_token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = id_token.split('.').nth(1)?.trim_end_matches('=');
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.sub)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
