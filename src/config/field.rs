//! The types of settings: how each is read, from the file or from the text of a variable, and how it is shown.

use std::{
    borrow::Cow,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use url::Url;

use super::{
    Bind, LogFormat, LogUser, Scope,
    idp::StrategyName,
    node::{Node, Value},
    schema::text as text_schema,
};
use crate::{
    idp::{ClientAuth, InDoubt, Meaning, Rotation},
    model::ClientSecret,
    store::Migrate,
};

/// The type of a setting.
pub(super) trait SettingType: Sized {
    /// # Errors
    /// What the value must be. The message never repeats the value.
    fn read(value: &Value) -> Result<Self, Cow<'static, str>>;

    /// Returns the value as it is shown to operators; `None` if it is not set.
    fn shown(&self) -> Option<String>;

    /// Returns the JSON Schema of valid values.
    fn schema() -> Json;
}

impl<T: SettingType> SettingType for Option<T> {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        T::read(value).map(Some)
    }

    fn shown(&self) -> Option<String> {
        self.as_ref().and_then(T::shown)
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl SettingType for String {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        text(value).map(str::to_owned)
    }

    fn shown(&self) -> Option<String> {
        (!self.is_empty()).then(|| without_credentials(self))
    }

    fn schema() -> Json {
        text_schema(json!({ "type": "string" }))
    }
}

impl SettingType for PathBuf {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        match text(value)? {
            "" => Err("must be a path".into()),
            path => Ok(path.into()),
        }
    }

    fn shown(&self) -> Option<String> {
        Some(self.display().to_string())
    }

    fn schema() -> Json {
        text_schema(json!({ "type": "string" }))
    }
}

impl SettingType for ClientSecret {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        let secret = text(value)?;
        if secret.chars().any(char::is_control) {
            return Err("must not contain control characters: write the secret into one line".into());
        }
        Ok(Self::from(secret))
    }

    fn shown(&self) -> Option<String> {
        Some(HIDDEN.to_owned())
    }

    fn schema() -> Json {
        text_schema(json!({ "type": "string" }))
    }
}

impl SettingType for bool {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        let wrong = "must be true or false";
        match value {
            Value::Boolean(value) => Ok(*value),
            Value::Variable(text) => text.parse().map_err(|_| wrong.into()),
            _ => Err(wrong.into()),
        }
    }

    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// Counts: 0 is refused, because it would stop everything.
impl SettingType for usize {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        let count = match value {
            Value::Integer(number) => Self::try_from(*number).ok(),
            Value::Variable(text) => text.parse().ok(),
            _ => None,
        };
        count.filter(|count| *count > 0).ok_or("must be a whole number, at least 1".into())
    }

    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": 1 })
    }
}

impl SettingType for f64 {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        number(value).ok_or("must be a number".into())
    }

    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn schema() -> Json {
        json!({ "type": "number" })
    }
}

impl SettingType for Duration {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        let time = number(value).and_then(|seconds| Self::try_from_secs_f64(seconds).ok());
        time.filter(|time| *time <= LONGEST)
            .ok_or_else(|| format!("must be a number of seconds, at least 0 and at most {}", LONGEST.as_secs()).into())
    }

    fn shown(&self) -> Option<String> {
        Some(self.as_secs_f64().to_string())
    }

    fn schema() -> Json {
        json!({ "type": "number", "minimum": 0, "maximum": LONGEST.as_secs() })
    }
}

/// A point in time, with or without quotes.
impl SettingType for SystemTime {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        let written = match value {
            Value::Time(text) => text,
            value => text(value)?,
        };
        written
            .parse::<Timestamp>()
            .map(Self::from)
            .map_err(|_| "must be a time with its offset from UTC, such as \"2027-01-15T08:00:00Z\"".into())
    }

    fn shown(&self) -> Option<String> {
        Timestamp::try_from(*self).ok().map(|time| time.to_string())
    }

    fn schema() -> Json {
        text_schema(json!({ "type": "string", "format": "date-time" }))
    }
}

/// A list of one value may omit the brackets; in a variable, commas separate the values.
impl<T: SettingType + FromStr<Err = &'static str>> SettingType for Vec<T> {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        match value {
            Value::List(items) => items.iter().map(|Node { value, .. }| T::read(value)).collect(),
            Value::Variable(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| item.parse().map_err(Cow::Borrowed)).collect()
            }
            one => T::read(one).map(|one| vec![one]),
        }
    }

    fn shown(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.iter().filter_map(T::shown).collect::<Vec<_>>().join(", "))
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// A text in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) String);

impl FromStr for Word {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text, a whole number or a flag, as text: a value that a provider's response is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ComparedValue(pub(super) String);

impl FromStr for ComparedValue {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl SettingType for ComparedValue {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        match value {
            Value::Text(text) | Value::Variable(text) => Ok(Self(text.to_string())),
            Value::Integer(number) => Ok(Self(number.to_string())),
            Value::Boolean(flag) => Ok(Self(flag.to_string())),
            _ => Err("must be a string, a whole number, true or false".into()),
        }
    }

    fn shown(&self) -> Option<String> {
        Some(self.0.clone())
    }

    fn schema() -> Json {
        text_schema(json!({ "type": ["string", "integer", "boolean"] }))
    }
}

/// Texts with a syntax.
macro_rules! parsed {
    ($($type:ty),*) => {$(
        impl SettingType for $type {
            fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
                text(value)?.parse().map_err(Cow::Borrowed)
            }

            fn shown(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn schema() -> Json {
                text_schema(json!({ "type": "string" }))
            }
        }
    )*};
}

parsed!(Bind, Word, Scope);

/// One of several words.
trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
    /// Words that only a later version supports.
    const LATER: &'static [&'static str] = &[];
}

impl<T: Choice> SettingType for T {
    fn read(value: &Value) -> Result<Self, Cow<'static, str>> {
        let text = text(value)?;
        T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words = T::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            if T::LATER.contains(&text) {
                format!("this version does not support that yet; use one of: {words}").into()
            } else {
                format!("must be one of: {words}").into()
            }
        })
    }

    fn shown(&self) -> Option<String> {
        T::WORDS.iter().find(|(_, value)| value == self).map(|(word, _)| (*word).to_owned())
    }

    fn schema() -> Json {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        text_schema(json!({ "enum": words }))
    }
}

impl Choice for InDoubt {
    const WORDS: &'static [(&'static str, Self)] = &[("ask", Self::Ask), ("try", Self::Try)];
}

impl Choice for Meaning {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("reconnect", Self::UserMustReconnect),
        ("operator", Self::OperatorFault),
        ("throttled", Self::Throttled),
        ("race", Self::Race),
        ("transient", Self::Transient),
    ];
}

impl Choice for Rotation {
    const WORDS: &'static [(&'static str, Self)] =
        &[("always", Self::Always), ("sometimes", Self::Sometimes), ("never", Self::Never)];
}

impl Choice for ClientAuth {
    const WORDS: &'static [(&'static str, Self)] =
        &[("basic", Self::Basic), ("basic_and_id", Self::BasicAndId), ("body", Self::Body), ("none", Self::None)];
    const LATER: &'static [&'static str] = &["private_key_jwt"];
}

impl Choice for StrategyName {
    const WORDS: &'static [(&'static str, Self)] = &[("refresh_token", Self::RefreshToken)];
    const LATER: &'static [&'static str] =
        &["client_credentials", "self_signed_jwt", "jwt_bearer", "token_exchange", "github_app", "broker", "custom"];
}

impl Choice for Migrate {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("never", Self::Never)];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Choice for LogUser {
    const WORDS: &'static [(&'static str, Self)] = &[("hash", Self::Hash), ("plain", Self::Plain)];
}

/// Shown instead of a secret.
pub(super) const HIDDEN: &str = "***";
/// A century: sums of times stay far below what a duration can hold.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

fn text(value: &Value) -> Result<&str, Cow<'static, str>> {
    match value {
        Value::Text(text) | Value::Variable(text) => Ok(text),
        _ => Err("must be a string, { env = \"NAME\" } or { file = \"PATH\" }".into()),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Variable(text) => text.parse().ok(),
        _ => None,
    }
}

/// Hides the credentials that a URL may contain.
fn without_credentials(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else { return HIDDEN.to_owned() };
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if bare {
        return text.to_owned();
    }
    let had_password = url.password().is_some();
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
    if had_password && url.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    url.to_string()
}
