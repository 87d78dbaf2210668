//! The body of a response, JSON or a form, as named scalars. Pure and total: any other body yields `None`.
//!
//! Only the requested paths are built in memory, with a limit; everything else is skipped.

use std::{borrow::Cow, fmt, time::Duration};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    lifetime::{self, Promised},
    tolerant::UNREADABLE,
};

/// The scalars of a body by their path: `error`, or `errors.errorType` for that member of the object `errors`, or of
/// each object in the list `errors`. A null or empty value is absent.
#[derive(Default)]
pub(super) struct Scalars(Vec<PathScalar>);

struct PathScalar {
    path: String,
    /// Whether the value is in a list.
    listed: bool,
    value: Scalar,
}

/// A scalar. Text is zeroized when dropped, because any text may be a secret.
enum Scalar {
    Text(Zeroizing<String>),
    Number(String),
    /// A number that JSON may not carry exactly.
    Float(String),
    Flag(bool),
}

/// The number of scalars kept of one field. Lists of scopes have dozens of entries.
const LONGEST_LIST: usize = 1_024;

impl Scalars {
    /// Reads the `wanted` paths of a JSON object.
    pub(super) fn json(text: &[u8], wanted: &[&str]) -> Option<Self> {
        let mut body = Self::default();
        let mut json = serde_json::Deserializer::from_slice(text);
        ScalarVisitor { wanted, path: "", listed: false, found: &mut body }.deserialize(&mut json).ok()?;
        json.end().ok().map(|()| body)
    }

    /// Reads the `wanted` fields of a form.
    pub(super) fn form(text: &[u8], wanted: &[&str]) -> Self {
        let mut body = Self::default();
        for (name, value) in url::form_urlencoded::parse(text) {
            if wanted.contains(&&*name) && !value.is_empty() {
                let value = Scalar::Text(Zeroizing::new(value.into_owned()));
                body.replace(&name, Self(vec![PathScalar { path: name.to_string(), listed: false, value }]));
            }
        }
        body
    }

    /// Replaces the field `name`: of several fields with one name the last present one counts, as in most parsers.
    fn replace(&mut self, name: &str, later: Self) {
        if !later.0.is_empty() {
            self.0.retain(|old| old.path != name && !below(name, &old.path));
            self.0.extend(later.0);
        }
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns all scalars at `path` as text.
    pub(super) fn all(&self, path: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |found| found.path == path).map(|found| match &found.value {
            Scalar::Text(text) => text.as_str(),
            Scalar::Number(text) | Scalar::Float(text) => text,
            Scalar::Flag(true) => "true",
            Scalar::Flag(false) => "false",
        })
    }

    /// Returns the single text at `path` and keeps it.
    pub(super) fn single(&self, path: &str) -> Option<&str> {
        self.0.iter().filter(|found| found.path == path && !found.listed).find_map(|found| match &found.value {
            Scalar::Text(text) => Some(text.as_str()),
            Scalar::Number(_) | Scalar::Float(_) | Scalar::Flag(_) => None,
        })
    }

    /// Takes the single scalar at `path`.
    fn take(&mut self, path: &str) -> Option<Scalar> {
        let at = self.0.iter().position(|found| found.path == path && !found.listed)?;
        Some(self.0.swap_remove(at).value)
    }

    /// Removes all scalars at `path`.
    pub(super) fn remove(&mut self, path: &str) {
        self.0.retain(|found| found.path != path);
    }

    /// Takes the text at `path`.
    pub(super) fn text(&mut self, path: &str) -> Option<Zeroizing<String>> {
        match self.take(path)? {
            Scalar::Text(text) => Some(text),
            Scalar::Number(_) | Scalar::Float(_) | Scalar::Flag(_) => None,
        }
    }

    /// Takes the text at `path`, or the number as text: some subjects are numbers.
    pub(super) fn text_or_number(&mut self, path: &str) -> Option<String> {
        match self.take(path)? {
            Scalar::Text(text) => Some(text.to_string()),
            Scalar::Number(text) | Scalar::Float(text) => Some(text),
            Scalar::Flag(_) => None,
        }
    }

    /// Returns the text at `path`, or the texts of a list joined by spaces.
    pub(super) fn list(&self, path: &str) -> Option<String> {
        let words = self.0.iter().filter(|found| found.path == path).filter_map(|found| match &found.value {
            Scalar::Text(text) => Some(text.as_str()),
            Scalar::Number(_) | Scalar::Float(_) | Scalar::Flag(_) => None,
        });
        let words: Vec<_> = words.collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Takes the token at `path`: a text, or a whole number. Another number cannot be read for certain. 0 and words that
    /// stand for a value that is not shown are absent.
    pub(super) fn word(&mut self, path: &str) -> Option<Zeroizing<String>> {
        const NONE: [&str; 8] = ["0", "null", "undefined", "none", "nil", "[FILTERED]", "[REDACTED]", "***"];
        let word = match self.take(path)? {
            Scalar::Text(text) => text,
            Scalar::Number(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => Zeroizing::new(text),
            Scalar::Number(_) | Scalar::Float(_) => Zeroizing::new(UNREADABLE.to_string()),
            Scalar::Flag(_) => return None,
        };
        (!NONE.iter().any(|none| word.eq_ignore_ascii_case(none))).then_some(word)
    }

    /// Takes the lifetime or the point in time at `path`.
    pub(super) fn ends(&mut self, path: &str, promised: Promised, longest: Duration) -> Option<lifetime::Read> {
        match self.take(path)? {
            Scalar::Text(text) => lifetime::of_text(&text, promised, longest),
            Scalar::Number(text) | Scalar::Float(text) => lifetime::of_text(&text, promised, longest),
            Scalar::Flag(_) => None,
        }
    }

    /// Returns whether `path` has the number 0, which may be written as text.
    pub(super) fn is_zero(&self, path: &str) -> bool {
        self.all(path).any(|text| text.trim().parse() == Ok(0.0))
    }

    /// Takes the number at `path`, which may be written as text.
    pub(super) fn seconds(&mut self, path: &str) -> Option<f64> {
        let number = match self.take(path)? {
            Scalar::Text(text) => text.trim().parse::<f64>(),
            Scalar::Number(text) | Scalar::Float(text) => text.parse(),
            Scalar::Flag(_) => return None,
        };
        number.ok().filter(|seconds| seconds.is_finite())
    }
}

impl fmt::Debug for Scalars {
    /// Omits the scalars.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalars")
    }
}

/// Returns whether `path` leads into `outer`.
fn below(outer: &str, path: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns whether `path` leads into an element of the list `outer`.
fn index_below(outer: &str, path: &str) -> bool {
    let rest = path.strip_prefix(outer).and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| rest.split('.').next().is_some_and(|first| first.parse::<u32>().is_ok()))
}

/// Returns the members of a JSON object that have one of these names. A member that is null is absent.
pub(super) fn members(object: &[u8], names: &[String]) -> Map<String, Value> {
    let mut found = Map::new();
    if !names.is_empty() {
        let mut json = serde_json::Deserializer::from_slice(object);
        let read = MemberVisitor { names, found: &mut found }.deserialize(&mut json);
        if read.is_err() {
            found.clear();
        }
    }
    found
}

/// Adds the members of an object with one of `names` to `found`.
struct MemberVisitor<'a> {
    names: &'a [String],
    found: &'a mut Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for MemberVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MemberVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if !self.names.contains(&name) {
                map.next_value::<IgnoredAny>()?;
            } else if let value @ (Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_)) = map.next_value()?
            {
                self.found.insert(name, value);
            }
        }
        Ok(())
    }
}

/// Visits any JSON value at `path` and adds its wanted scalars to `found`.
struct ScalarVisitor<'a> {
    wanted: &'a [&'a str],
    path: &'a str,
    listed: bool,
    found: &'a mut Scalars,
}

impl ScalarVisitor<'_> {
    fn add(self, value: Scalar) {
        if self.wanted.contains(&self.path) && self.found.0.len() < LONGEST_LIST {
            self.found.0.push(PathScalar { path: self.path.to_owned(), listed: self.listed, value });
        }
    }
}

impl<'de> DeserializeSeed<'de> for ScalarVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if !text.is_empty() {
            self.add(Scalar::Text(Zeroizing::new(text.to_owned())));
        }
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.add(Scalar::Number(number.to_string()));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.add(Scalar::Number(number.to_string()));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.add(Scalar::Float(number.to_string()));
        Ok(())
    }

    fn visit_bool<E>(self, flag: bool) -> Result<(), E> {
        self.add(Scalar::Flag(flag));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { wanted, path, listed, found } = self;
        if listed {
            // A list in a list has no meaning, and its depth must not use the stack.
            while list.next_element::<IgnoredAny>()?.is_some() {}
        } else if wanted.iter().any(|wanted| index_below(path, wanted)) {
            // A pointer names elements of this list by their numbers.
            let mut number = 0;
            loop {
                let element = format!("{path}.{number}");
                let seed = ScalarVisitor { wanted, path: &element, listed: false, found: &mut *found };
                if list.next_element_seed(seed)?.is_none() {
                    break;
                }
                number += 1;
            }
        } else {
            while list.next_element_seed(ScalarVisitor { wanted, path, listed: true, found: &mut *found })?.is_some() {}
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { wanted, path: outer, listed, found } = self;
        while let Some(name) = map.next_key::<String>()? {
            let path = if outer.is_empty() { Cow::Borrowed(&*name) } else { Cow::Owned(format!("{outer}.{name}")) };
            if !wanted.iter().any(|wanted| **wanted == *path || below(&path, wanted)) {
                map.next_value::<IgnoredAny>()?;
            } else if outer.is_empty() {
                let mut fresh = Scalars::default();
                map.next_value_seed(ScalarVisitor { wanted, path: &path, listed, found: &mut fresh })?;
                found.replace(&path, fresh);
            } else {
                map.next_value_seed(ScalarVisitor { wanted, path: &path, listed, found: &mut *found })?;
            }
        }
        Ok(())
    }
}
