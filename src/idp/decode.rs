//! The fields of a token response in any form. Pure and total: any other body yields `None`.
//!
//! Providers differ from RFC 6749 in form (form encoding instead of JSON, a content type that names the other), in
//! types (`"3600"`, `3600.0`) and in names. Decoding tolerates this, so that a delivered token is not lost because
//! another field is odd.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::body::Scalars;
use crate::model::{AccessToken, RefreshToken, WallTime};

/// The fields of a response of a token endpoint. A field that is null, empty or of a meaningless type is absent.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Whether the body was JSON, whose syntax shows that it is complete.
    pub(crate) json: bool,
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: Option<String>,
    /// 0 or less is absent: it means that the token does not expire, because no provider issues an expired token. Taken
    /// literally it would cause endless refreshes. If a resource server rejects the token, that causes a refresh.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_expires: Option<RefreshLifetime>,
    pub(crate) created_at: Option<WallTime>,
    pub(crate) scope: Option<String>,
    /// Only a single word, as OAuth error codes are: web frameworks send `{"error": "Not Found"}` on their own, before
    /// or after the provider processed the request.
    pub(crate) error: Option<String>,
    /// The user, from `sub` or the payload of `id_token`. The signature is not verified: the token came directly from
    /// the token endpoint over TLS (OpenID Connect Core, 3.1.3.7, point 6).
    pub(crate) subject: Option<String>,
    /// When to retry, as Discord sends it beside its `Retry-After` header.
    pub(crate) retry_after: Option<Duration>,
    /// The fields that error rules read. Values are compared, and shown only if they are codes.
    rest: Scalars,
}

/// The lifetime of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshLifetime {
    In(Duration),
    /// Keycloak sends 0 for this. No provider issues an expired refresh token, so 0 means this everywhere.
    Never,
}

/// Returns the fields of a body, or `None` if it is neither a JSON object nor a form. `more` are the paths that the
/// provider's [rules](super::ErrorRule) read.
pub(crate) fn decode(content_type: Option<&str>, body: &[u8], more: &[&str]) -> Option<Fields> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let wanted = [&NAMES, more].concat();
    match body.first()? {
        b'{' => Scalars::json(body, &wanted).map(|body| Fields::of(body, true)),
        b'[' | b'<' => None,
        _ if is_form(content_type, body) => Some(Fields::of(Scalars::form(body, &wanted), false)),
        _ => None,
    }
}

/// Returns whether the body is a form: the content type says so, or the body cannot be anything else. A page of HTML or
/// a sentence may contain `&error=x` somewhere.
fn is_form(content_type: Option<&str>, body: &[u8]) -> bool {
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
    fn of(mut body: Scalars, json: bool) -> Self {
        let id_token = body.text("id_token");
        let expires_in = body.seconds("expires_in").filter(|seconds| *seconds > 0.0).map(duration);
        let refresh_expires = REFRESH_LIFETIMES.map(|name| body.seconds(name).and_then(refresh_life));
        Self {
            json,
            access_token: body.text("access_token").map(|mut text| std::mem::take(&mut *text).into()),
            refresh_token: body.text("refresh_token").map(|mut text| std::mem::take(&mut *text).into()),
            token_type: body
                .text_or_number("token_type")
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())),
            expires_in,
            refresh_expires: refresh_expires.into_iter().flatten().next(),
            created_at: body.seconds("created_at").and_then(epoch),
            scope: body.list("scope").or_else(|| body.list("scopes")).filter(|text| is_plain(text)),
            retry_after: body.seconds("retry_after").filter(|seconds| *seconds >= 0.0).map(duration),
            subject: body.text_or_number("sub").or_else(|| subject(&id_token?)).filter(|text| is_plain(text)),
            error: body.single("error").filter(|text| is_code(text)).map(str::to_owned),
            rest: body,
        }
    }

    /// Returns whether `path` has exactly this value, possibly among others in a list.
    pub(super) fn has(&self, path: &str, value: &str) -> bool {
        self.rest.all(path).any(|found| found == value)
    }

    /// Returns the first value at `path` that can be shown.
    pub(super) fn code(&self, path: &str) -> Option<&str> {
        self.rest.all(path).find(|text| is_code(text))
    }

    /// Takes the user from the field that this provider uses.
    pub(super) fn subject_in(&mut self, path: &str) -> Option<String> {
        self.rest.text_or_number(path).filter(|text| is_plain(text))
    }
}

/// Returns whether the text is a code that can be shown. OAuth error codes are; sentences and tokens of the usual
/// length are not.
pub(super) fn is_code(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn is_plain(text: &str) -> bool {
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

/// Reads seconds since 1970, or milliseconds where seconds would lie in the far future.
fn epoch(number: f64) -> Option<WallTime> {
    const YEAR_5000: f64 = 1e11;
    let millis = if number < YEAR_5000 { number * 1_000.0 } else { number };
    (1_000.0..YEAR_5000 * 1_000.0).contains(&millis).then_some(WallTime(millis as i64))
}

fn subject(id_token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct IdTokenClaims {
        sub: String,
    }
    let payload = id_token.split('.').nth(1)?.trim_end_matches('=');
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice::<IdTokenClaims>(&payload).ok().map(|claims| claims.sub)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
