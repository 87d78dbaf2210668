//! The fields of a token response in any form. Pure and total: any other body yields `None`.
//!
//! Providers differ from RFC 6749 in form (form encoding instead of JSON, a content type that names the other), in
//! types (`"3600"`, `3600.0`) and in names. Decoding tolerates this, so that a delivered token is not lost because
//! another field is odd.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    body::{Scalars, members},
    layout::{DESCRIPTIONS, Layout, ResponseField},
    lifetime::{Ends, LONGEST_REFRESH_LIFETIME, Promised},
    tolerant::{self, Flaw, UNREADABLE},
};
use crate::model::{AccessToken, Exposed, RefreshToken, is_token};

/// The fields of a response of a token endpoint. A field that is null, empty or of a meaningless type is absent.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Whether the body was JSON, whose syntax shows that it is complete.
    pub(crate) json: bool,
    /// What had to be tolerated to read the body.
    pub(crate) flaw: Option<Flaw>,
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: Option<RefreshToken>,
    /// There is an access token, but it cannot be read for certain, or is none (RFC 6749, appendix A.12).
    pub(crate) bad_access_token: bool,
    /// The same of the refresh token (appendix A.17).
    pub(crate) bad_refresh_token: bool,
    pub(crate) token_type: Option<String>,
    /// A lifetime of 0 or less is absent: no provider issues an expired token.
    pub(crate) expires: Option<Ends>,
    /// When the refresh token ends, at the earliest of what the response says.
    pub(crate) refresh_expires: Vec<Ends>,
    /// Keycloak sends a lifetime of 0 for a refresh token that does not expire. No provider issues an expired one, so 0
    /// means this everywhere.
    pub(crate) refresh_never_expires: bool,
    /// The names of lifetimes that make no sense as such, and were read as what they plainly are.
    pub(crate) senseless: Vec<&'static str>,
    pub(crate) scope: Option<String>,
    /// Only a single word, as OAuth error codes are: web frameworks send `{"error": "Not Found"}` on their own, before
    /// or after the provider processed the request.
    pub(crate) error: Option<String>,
    /// The user, from `sub` or the payload of `id_token`. The signature is not verified: the token came directly from
    /// the token endpoint over TLS (OpenID Connect Core, 3.1.3.7, point 6).
    pub(crate) subject: Option<String>,
    /// When to retry, as Discord sends it beside its `Retry-After` header.
    pub(crate) retry_after: Option<Duration>,
    /// What the provider says to people. Has no effect on the outcome. It is shown only after secrets are removed.
    description: Option<Zeroizing<String>>,
    /// Every text that stands where a token does.
    secrets: Vec<Zeroizing<String>>,
    /// The members that callers get beside the token.
    pub(crate) exposed: Exposed,
    /// The fields that error rules read. Values are compared, and shown only if they are codes.
    rest: Scalars,
}

/// Returns the fields of a body, or `None` if it is neither a JSON object nor a form.
pub(crate) fn decode(content_type: Option<&str>, body: &[u8], layout: &Layout<'_>) -> Option<Fields> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let wanted = layout.wanted();
    match body.first()? {
        b'{' => Scalars::json(body, &wanted).map(|scalars| Fields::of(scalars, Some(body), layout)),
        b'[' | b'<' => None,
        _ if is_form(content_type, body) => Some(Fields::of(Scalars::form(body, &wanted), None, layout)),
        _ => None,
    }
}

/// Returns the fields of the JSON object in a body that is neither JSON nor a form. Call it only for a body that is
/// certainly complete.
///
/// An object in the page of a proxy may have an `error`: beside other text only tokens count, unless the content type
/// says that the body was meant as JSON.
pub(crate) fn decode_tolerantly(content_type: Option<&str>, body: &[u8], layout: &Layout<'_>) -> Option<Fields> {
    let wanted = layout.wanted();
    let read = |json: &[u8]| Scalars::json(json, &wanted).map(|scalars| Fields::of(scalars, Some(json), layout));
    let found = tolerant::object(body, |json| read(json).is_some_and(|fields| fields.has_token()))?;
    let fields = read(&found.json)?;
    let meant_as_json = found.flaw == Flaw::NotJson
        || essence(content_type).is_some_and(|essence| {
            essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
        });
    (fields.has_token() || meant_as_json).then_some(Fields { flaw: Some(found.flaw), ..fields })
}

fn essence(content_type: Option<&str>) -> Option<&str> {
    content_type.map(|text| text.split(';').next().unwrap_or_default().trim())
}

/// Returns whether the body is a form: the content type says so, or the body cannot be anything else. A page of HTML or
/// a sentence may contain `&error=x` somewhere.
fn is_form(content_type: Option<&str>, body: &[u8]) -> bool {
    let declared =
        essence(content_type).is_some_and(|text| text.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+&=-._~*:/,!'()@$;".contains(byte);
    body.contains(&b'=') && (declared || body.iter().all(plain))
}

impl Fields {
    /// `json` is the text of a JSON object.
    fn of(mut body: Scalars, json: Option<&[u8]>, layout: &Layout<'_>) -> Self {
        let token_paths = [ResponseField::AccessToken, ResponseField::RefreshToken].map(|field| layout.paths(field));
        let token_texts = token_paths.into_iter().flatten().chain(["id_token"]).flat_map(|path| body.all(path));
        let secrets = token_texts.map(|text| Zeroizing::new(text.to_owned())).collect();
        let description = description(&mut body, layout);
        let id_token = body.text("id_token");
        let access_token = layout.paths(ResponseField::AccessToken).find_map(|path| body.word(path));
        let refresh_token = layout.paths(ResponseField::RefreshToken).find_map(|path| body.word(path));
        let good = |token: &Zeroizing<String>| is_token(token);
        let mut senseless = Vec::new();
        let mut ends = |body: &mut Scalars, field: ResponseField, promised, longest| {
            let mut read =
                layout.paths(field).filter_map(|path| body.ends(path, promised, longest)).collect::<Vec<_>>();
            if read.iter().any(|read| read.senseless) {
                senseless.push(field.name());
            }
            read.drain(..).map(|read| read.ends).collect::<Vec<_>>()
        };
        let (lifetime, time) = (Promised::Lifetime, Promised::PointInTime);
        let expires = ends(&mut body, ResponseField::ExpiresIn, lifetime, layout.longest).into_iter().next();
        let expires =
            expires.or_else(|| ends(&mut body, ResponseField::ExpiresAt, time, layout.longest).into_iter().next());
        let refresh_never_expires = layout.paths(ResponseField::RefreshTokenExpiresIn).any(|path| body.is_zero(path));
        let mut refresh_expires =
            ends(&mut body, ResponseField::RefreshTokenExpiresIn, lifetime, LONGEST_REFRESH_LIFETIME);
        refresh_expires.extend(ends(&mut body, ResponseField::RefreshTokenExpiresAt, time, LONGEST_REFRESH_LIFETIME));
        let mut text = |field: ResponseField| layout.paths(field).find_map(|path| body.text_or_number(path));
        let token_type = text(ResponseField::TokenType).filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        let subject = text(ResponseField::Subject);
        Self {
            json: json.is_some(),
            flaw: None,
            bad_access_token: access_token.as_ref().is_some_and(|token| !good(token)),
            bad_refresh_token: refresh_token.as_ref().is_some_and(|token| !good(token)),
            access_token: access_token.filter(good).map(|mut text| std::mem::take(&mut *text).into()),
            refresh_token: refresh_token.filter(good).map(|mut text| std::mem::take(&mut *text).into()),
            token_type,
            expires,
            refresh_expires,
            refresh_never_expires,
            senseless,
            scope: layout.paths(ResponseField::Scope).find_map(|path| body.list(path)).filter(|text| is_plain(text)),
            retry_after: body.seconds("retry_after").filter(|seconds| *seconds >= 0.0).map(duration),
            subject: subject.or_else(|| subject_of(&id_token?)).filter(|text| is_plain(text)),
            error: error(&body, layout).filter(|text| is_code(text)),
            description,
            secrets,
            exposed: Exposed(json.map(|json| members(json, layout.expose)).unwrap_or_default()),
            rest: body,
        }
    }

    /// Whether the fields are those of a token endpoint: a page of a proxy may look like a form.
    pub(super) fn is_response(&self) -> bool {
        self.has_token() || self.error.is_some() || self.rest.any()
    }

    /// Whether there is a token, readable or not.
    fn has_token(&self) -> bool {
        self.access_token.is_some() || self.refresh_token.is_some() || self.bad_refresh_token
    }

    /// Takes the texts that stand where a token does, and the description.
    pub(super) fn take_told(&mut self) -> (Vec<Zeroizing<String>>, Option<Zeroizing<String>>) {
        (std::mem::take(&mut self.secrets), self.description.take())
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
    !text.is_empty() && text.len() <= 16 * 1024 && !text.chars().any(|c| c.is_control() || c == UNREADABLE)
}

fn duration(seconds: f64) -> Duration {
    const CENTURY: f64 = 3_155_760_000.0;
    Duration::from_secs_f64(seconds.clamp(0.0, CENTURY))
}

/// The error of a response: `error`, or what the provider's layout says.
fn error(body: &Scalars, layout: &Layout<'_>) -> Option<String> {
    let own = layout.own_path(ResponseField::Error).and_then(|path| body.all(path).next());
    match own {
        Some(value) if layout.success.iter().any(|success| success == value) => None,
        Some(value) => Some(value.to_owned()),
        None => body.single("error").map(str::to_owned),
    }
}

/// Takes the description of an error, unless a rule reads the field or it is the code.
fn description(body: &mut Scalars, layout: &Layout<'_>) -> Option<Zeroizing<String>> {
    let mut found = None;
    for path in DESCRIPTIONS {
        let text = body.single(path).filter(|text| found.is_none() && !(path == "error" && is_code(text)));
        found = text.map(|text| Zeroizing::new(text.to_owned())).or(found);
        if path != "error" && !layout.more.contains(&path) {
            body.remove(path);
        }
    }
    found
}

fn subject_of(id_token: &str) -> Option<String> {
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
