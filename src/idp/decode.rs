//! The body of an answer, whatever its form, as fields. Pure; no bytes make it fail in any other way
//! than `None`.
//!
//! Providers differ from RFC 6749 in form (form encoding instead of JSON, a content type that says the
//! other), in types (`"3600"`, `3600.0`) and in names. That is forgiven here, so that a token that was
//! delivered is not thrown away for a quirk of its neighbours. What is not known is skipped without
//! being built in memory.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use zeroize::Zeroizing;

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
    pub(crate) refresh_expires: Option<RefreshLife>,
    pub(crate) created_at: Option<Time>,
    pub(crate) scope: Option<String>,
    /// Only a plain word, as OAuth error codes are: `{"error": "Not Found"}` is what web frameworks say
    /// for themselves, before or after anything was processed.
    pub(crate) error: Option<String>,
    /// The user, from `sub` or the payload of `id_token`. Its signature is not checked: it came straight
    /// from the token endpoint over TLS (OpenID Connect Core, 3.1.3.7, point 6).
    pub(crate) subject: Option<String>,
}

/// How long a refresh token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshLife {
    In(Duration),
    /// Keycloak says 0 for this. Nobody hands out a refresh token that is over, so 0 means it everywhere.
    Never,
}

/// The fields of a body, or `None` if it is neither a JSON object nor a form.
pub(crate) fn decode(content_type: Option<&str>, body: &[u8]) -> Option<Fields> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match body.first()? {
        b'{' => serde_json::from_slice::<Raw>(body).ok().map(|raw| raw.into_fields(true)),
        b'[' | b'<' => None,
        _ if form(content_type, body) => Some(Raw::from_form(body).into_fields(false)),
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
const NAMES: [&str; 13] = [
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
    "sub",
    "id_token",
];

/// The known fields as they came; the last of several with one name counts, as in most parsers.
#[derive(Default)]
struct Raw(BTreeMap<&'static str, Value>);

/// A value that a known field can have. Wiped when dropped, because any may be a secret.
enum Value {
    Absent,
    Text(Zeroizing<String>),
    Number(String),
    List(Vec<Zeroizing<String>>),
}

impl Raw {
    fn from_form(body: &[u8]) -> Self {
        let mut raw = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            if let Some(name) = known(&name) {
                raw.put(name, Value::text(value));
            }
        }
        raw
    }

    fn put(&mut self, name: &'static str, value: Value) {
        if !matches!(value, Value::Absent) {
            self.0.insert(name, value);
        }
    }

    fn into_fields(mut self, json: bool) -> Fields {
        let scope = self.list("scope").or_else(|| self.list("scopes"));
        let subject = self.word("sub").or_else(|| self.text("id_token").and_then(|token| subject(&token)));
        Fields {
            json,
            access_token: self.text("access_token").map(|mut text| std::mem::take(&mut *text).into()),
            refresh_token: self.text("refresh_token").map(|mut text| std::mem::take(&mut *text).into()),
            token_type: self.word("token_type").filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())),
            expires_in: self.seconds("expires_in").filter(|seconds| *seconds > 0.0).map(duration),
            refresh_expires: REFRESH_LIFETIMES.iter().find_map(|name| refresh_life(self.seconds(name)?)),
            created_at: self.seconds("created_at").and_then(epoch),
            scope: scope.filter(|text| plain(text)),
            error: self.text("error").filter(|text| is_code(text)).map(|text| text.to_string()),
            subject: subject.filter(|text| plain(text)),
        }
    }

    fn text(&mut self, name: &str) -> Option<Zeroizing<String>> {
        match self.0.remove(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text, or a number as text: some subjects are numbers.
    fn word(&mut self, name: &str) -> Option<String> {
        match self.0.remove(name)? {
            Value::Text(text) => Some(text.to_string()),
            Value::Number(text) => Some(text),
            _ => None,
        }
    }

    fn list(&mut self, name: &str) -> Option<String> {
        match self.0.remove(name)? {
            Value::Text(text) => Some(text.to_string()),
            Value::List(words) => Some(words.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")),
            _ => None,
        }
    }

    fn seconds(&mut self, name: &str) -> Option<f64> {
        let number = match self.0.remove(name)? {
            Value::Text(text) => text.trim().parse::<f64>(),
            Value::Number(text) => text.parse(),
            _ => return None,
        };
        number.ok().filter(|seconds| seconds.is_finite())
    }
}

fn known(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
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

fn refresh_life(seconds: f64) -> Option<RefreshLife> {
    match seconds {
        seconds if seconds > 0.0 => Some(RefreshLife::In(duration(seconds))),
        0.0 => Some(RefreshLife::Never),
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

impl Value {
    fn text(text: Cow<'_, str>) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Text(Zeroizing::new(text.into_owned())) }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut raw = Raw::default();
                while let Some(name) = map.next_key::<String>()? {
                    match known(&name) {
                        Some(name) => raw.put(name, map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue { lists: true })
    }
}

/// Anything at all: what has no sense for a known field is skipped.
struct AnyValue {
    /// Whether a list is looked into; those inside a list are not.
    lists: bool,
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(Cow::Borrowed(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::text(Cow::Owned(text)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Absent)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut words = Vec::new();
        if self.lists {
            while let Some(item) = list.next_element::<Item>()? {
                if let Value::Text(text) = item.0 {
                    words.push(text);
                }
            }
        } else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(if words.is_empty() { Value::Absent } else { Value::List(words) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Absent)
    }
}

struct Item(Value);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue { lists: false }).map(Item)
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
