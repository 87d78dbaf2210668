//! The tolerant reading of a body that is not JSON, although it contains a JSON object. Pure.
//!
//! A response with a rotated refresh token may have a notice of PHP before its object, a comment after it, Latin-1 or a
//! raw control character in some text, or `NaN` for a number. This module rewrites such an object as JSON, so that it is
//! read like any other. It never guesses: a text that cannot be read for certain becomes [`UNREADABLE`], which no token
//! contains, and where two objects contain tokens there is no reading at all.
//!
//! Call it only for a body that is certainly complete.

use std::{collections::HashMap, ops::Range};

use enum_map::Enum;
use strum::IntoStaticStr;
use zeroize::Zeroizing;

/// Stands for every byte of a text that cannot be read for certain.
pub(super) const UNREADABLE: char = char::REPLACEMENT_CHARACTER;

/// Objects and lists in one another beyond this depth are not read.
const DEEPEST: usize = 64;

/// How often the bytes of a body may be read, on average, before it is given up.
const AGAIN: usize = 32;

/// What had to be tolerated; the name is that of logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Flaw {
    /// Text before or after the object.
    TextAround,
    /// The object itself is not JSON.
    NotJson,
}

/// An object that was found in a body.
#[derive(Debug)]
pub(super) struct Found {
    /// The object as JSON.
    pub(super) json: Zeroizing<Vec<u8>>,
    pub(super) flaw: Flaw,
}

/// Returns the only object of `body` for which `counts` holds; if there is none, the only object.
pub(super) fn object(body: &[u8], counts: impl Fn(&[u8]) -> bool) -> Option<Found> {
    let objects = objects(body)?;
    let mut counting: Vec<_> = objects.iter().filter(|object| counts(&object.json)).collect();
    if counting.is_empty() {
        counting = objects.iter().collect();
    }
    let first = counting.first()?;
    if counting.iter().any(|other| *other.json != *first.json) {
        return None;
    }
    let around = [&body[..first.start], &body[first.end..]];
    if around.iter().any(|text| is_page(text)) {
        return None;
    }
    let flaw = if around.iter().all(|text| text.iter().all(|byte| is_space(*byte))) {
        Flaw::NotJson
    } else {
        Flaw::TextAround
    };
    Some(Found { json: first.json.clone(), flaw })
}

/// Whether this is the text of a page of HTML, whose objects are scripts and examples.
fn is_page(text: &[u8]) -> bool {
    let has = |tag: &[u8]| text.windows(tag.len()).any(|window| window.eq_ignore_ascii_case(tag));
    has(b"<html") || has(b"<!doctype") || has(b"<script")
}

struct Object {
    start: usize,
    end: usize,
    json: Zeroizing<Vec<u8>>,
}

/// Returns all objects that are not part of another one; `None` if something that may hold a token begins like an object
/// and is none.
fn objects(body: &[u8]) -> Option<Vec<Object>> {
    const TOKEN: &[u8] = b"_token\"";
    let last_token = body.windows(TOKEN.len()).rposition(|window| window == TOKEN);
    // Written once, so that the buffer does not grow: a text becomes at most three times as long.
    let mut scan = Scan {
        body,
        at: 0,
        json: Zeroizing::new(Vec::with_capacity(3 * body.len())),
        budget: AGAIN * (body.len() + 1),
    };
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(open) = body[at..].iter().position(|byte| *byte == b'{').map(|found| at + found) {
        (scan.at, at) = (open, open + 1);
        scan.json.clear();
        if !scan.begins_object() {
            continue;
        }
        let whole = scan.object(0).is_some();
        scan.budget = scan.budget.saturating_sub(scan.at - open);
        if whole {
            at = scan.at;
            found.push(Object { start: open, end: at, json: Zeroizing::new(scan.json.to_vec()) });
        } else if scan.budget == 0 || last_token.is_some_and(|last| last >= open) {
            return None;
        }
    }
    Some(found)
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

/// Reads one object from `at` and writes it as JSON.
struct Scan<'a> {
    body: &'a [u8],
    at: usize,
    json: Zeroizing<Vec<u8>>,
    /// How many more bytes may be read again.
    budget: usize,
}

impl Scan<'_> {
    /// Whether a member's name follows the brace: text of other kinds contains braces, too.
    fn begins_object(&self) -> bool {
        let next = self.body[self.at + 1..].iter().find(|byte| !is_space(**byte));
        next == Some(&b'"')
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Skips white space, NUL and comments.
    fn spaces(&mut self) {
        loop {
            while self.peek().is_some_and(is_space) {
                self.at += 1;
            }
            let rest = &self.body[self.at..];
            let length = if rest.starts_with(b"/*") {
                rest.windows(2).skip(2).position(|pair| pair == b"*/").map(|at| at + 4)
            } else if rest.starts_with(b"//") {
                rest.iter().position(|byte| *byte == b'\n')
            } else {
                None
            };
            let searched = if rest.starts_with(b"/") { length.unwrap_or(rest.len()) } else { 0 };
            self.budget = self.budget.saturating_sub(searched);
            match length.filter(|_| self.budget > 0) {
                Some(length) => self.at += length,
                None => return,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => {
                let text = self.text()?;
                self.write(&text);
                Some(())
            }
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        self.take(b'{')?;
        self.json.push(b'{');
        // The names so far, with where their values stand in `json`.
        let mut members: HashMap<String, Range<usize>> = HashMap::new();
        loop {
            self.spaces();
            if self.take(b'}').is_some() {
                break;
            }
            if !members.is_empty() {
                self.json.push(b',');
            }
            let name = self.text()?;
            self.write(&name);
            self.spaces();
            self.take(b':')?;
            self.json.push(b':');
            self.spaces();
            let start = self.json.len();
            self.value(depth + 1)?;
            let value = start..self.json.len();
            if members.get(name.as_str()).is_some_and(|earlier| self.json[earlier.clone()] != self.json[value]) {
                // Two values for one name: neither is read. The last one counts where this is read as JSON.
                self.json.truncate(start);
                self.write(&UNREADABLE.to_string());
            }
            members.insert(name.to_string(), start..self.json.len());
            self.spaces();
            if self.take(b',').is_none() {
                self.take(b'}')?;
                break;
            }
        }
        self.json.push(b'}');
        Some(())
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        self.take(b'[')?;
        self.json.push(b'[');
        let mut first = true;
        loop {
            self.spaces();
            if self.take(b']').is_some() {
                break;
            }
            if !std::mem::replace(&mut first, false) {
                self.json.push(b',');
            }
            self.value(depth + 1)?;
            self.spaces();
            if self.take(b',').is_none() {
                self.take(b']')?;
                break;
            }
        }
        self.json.push(b']');
        Some(())
    }

    /// A number, a literal, or another bare word such as `NaN`, which has no value in JSON.
    fn word(&mut self) -> Option<()> {
        let length = self.body[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(byte))
            .count();
        let word = &self.body[self.at..self.at + length];
        if word.is_empty() {
            return None;
        }
        self.at += length;
        // Literals of other languages that mean no value.
        const NO_VALUE: [&[u8]; 8] =
            [b"NaN", b"Infinity", b"-Infinity", b"undefined", b"None", b"nil", b"NULL", b"Null"];
        if serde_json::from_slice::<serde_json::Value>(word).is_ok() {
            self.json.extend_from_slice(word);
        } else if NO_VALUE.contains(&word) {
            self.json.extend_from_slice(b"null");
        } else {
            self.write(&UNREADABLE.to_string());
        }
        Some(())
    }

    fn write(&mut self, text: &str) {
        serde_json::to_writer(&mut *self.json, text).expect("a text has a JSON form");
    }

    /// A text, with [`UNREADABLE`] for what cannot be read for certain.
    fn text(&mut self) -> Option<Zeroizing<String>> {
        self.take(b'"')?;
        let length = self.length_of_text()?;
        let raw = &self.body[self.at..self.at + length];
        self.at += length + 1;
        let mut text = Zeroizing::new(String::with_capacity(3 * length));
        let mut rest = raw;
        while let Some((&first, after)) = rest.split_first() {
            if first == b'\\' {
                let (read, length) = escaped(rest);
                text.push(read);
                rest = &rest[length..];
            } else if first < 0x20 {
                text.push(UNREADABLE);
                rest = after;
            } else {
                let plain = rest.iter().position(|byte| *byte == b'\\' || *byte < 0x20).unwrap_or(rest.len());
                text.push_str(&String::from_utf8_lossy(&rest[..plain]));
                rest = &rest[plain..];
            }
        }
        Some(text)
    }

    /// The number of bytes until the closing quotation mark.
    fn length_of_text(&self) -> Option<usize> {
        let (mut length, rest) = (0, &self.body[self.at..]);
        loop {
            match rest.get(length)? {
                b'"' => return Some(length),
                b'\\' => length += 2,
                _ => length += 1,
            }
        }
    }
}

/// Reads an escape at the start of `text`: the character, and how many bytes it takes.
fn escaped(text: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(
            std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?,
            16,
        )
        .ok()
    };
    let plain = match text.get(1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        _ => UNREADABLE,
    };
    match (unit(0), unit(6)) {
        (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) => {
            let pair = char::decode_utf16([high, low]).next().and_then(Result::ok);
            (pair.unwrap_or(UNREADABLE), 12)
        }
        (Some(unit), _) => (char::from_u32(unit.into()).unwrap_or(UNREADABLE), 6),
        (None, _) => (plain, 2.min(text.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Option<(String, Flaw)> {
        let tokens = |json: &[u8]| contains(json, b"\"refresh_token\"");
        let found = object(body, tokens)?;
        serde_json::from_slice::<serde_json::Value>(&found.json).expect("it is JSON");
        Some((String::from_utf8(found.json.to_vec()).unwrap(), found.flaw))
    }

    const TOKEN: &str = r#"{"refresh_token":"r1"}"#;

    fn contains(body: &[u8], text: &[u8]) -> bool {
        body.windows(text.len()).any(|window| window == text)
    }

    #[test]
    fn text_around_the_object_is_left_out() {
        for (before, after) in [
            ("<br />\n<b>Notice</b>: Undefined index {x} in <b>/srv/{a}.php</b>\n", ""),
            ("/* generated */", ""),
            (")]}',\n", ""),
            ("{}", ""),
            ("[", "]"),
            ("", "<!-- served by web-3 -->"),
            ("", "\n// done"),
            ("", "}"),
            ("", "\nfunction f() { return {\"x\": y(); } }"),
            ("{\"level\":\"info\"}\n", "\n{\"level\":\"info\"}"),
            (TOKEN, ""),
            ("callback(", ");"),
        ] {
            let body = format!("{before}{TOKEN}{after}");
            assert_eq!(read(body.as_bytes()), Some((TOKEN.to_owned(), Flaw::TextAround)), "{body}");
        }
        for space in ["\0", "\0\0\n", " \r\n"] {
            assert_eq!(read(format!("{TOKEN}{space}").as_bytes()), Some((TOKEN.to_owned(), Flaw::NotJson)));
        }
    }

    #[test]
    fn flaws_inside_the_object_do_not_reach_other_members() {
        for (flawed, json) in [
            (
                &b"{\"name\":\"Andr\xe9\",\"refresh_token\":\"r1\"}"[..],
                "{\"name\":\"Andr\u{fffd}\",\"refresh_token\":\"r1\"}",
            ),
            (
                b"{\"x\":\"a\tb\nc\",\"refresh_token\":\"r1\"}",
                "{\"x\":\"a\u{fffd}b\u{fffd}c\",\"refresh_token\":\"r1\"}",
            ),
            (b"{\"x\":NaN,\"y\":-Infinity,\"refresh_token\":\"r1\"}", r#"{"x":null,"y":null,"refresh_token":"r1"}"#),
            (
                b"{\"x\":undefined,\"y\":1.,\"refresh_token\":\"r1\",}",
                "{\"x\":null,\"y\":\"\u{fffd}\",\"refresh_token\":\"r1\"}",
            ),
            (b"{\"x\":[1,2,],/* c */\"refresh_token\":\"r1\"}", r#"{"x":[1,2],"refresh_token":"r1"}"#),
            (
                b"{\"x\":\"it\\'s \\x41\",\"refresh_token\":\"r1\"}",
                "{\"x\":\"it\u{fffd}s \u{fffd}41\",\"refresh_token\":\"r1\"}",
            ),
            (
                b"{\"x\":\"\\ud800 \\ud83d\\ude00\",\"refresh_token\":\"r1\"}",
                "{\"x\":\"\u{fffd} \u{1f600}\",\"refresh_token\":\"r1\"}",
            ),
            (b"{\"x\":\0{\"y\":[NaN]},\"refresh_token\":\"r\\u0031\"}", r#"{"x":{"y":[null]},"refresh_token":"r1"}"#),
        ] {
            assert_eq!(read(flawed), Some((json.to_owned(), Flaw::NotJson)), "{}", flawed.escape_ascii());
        }
    }

    #[test]
    fn a_token_that_cannot_be_read_for_certain_is_none() {
        for body in [
            &b"{\"refresh_token\":\"r\xe9\"}"[..],
            b"{\"refresh_token\":\"r\n1\"}",
            b"{\"refresh_token\":\"r\\x1\"}",
            b"{\"access_token\":\"a1\",\"refresh_token\":r1}",
            b"{\"x\":NaN,\"refresh_token\":\"r1\",\"refresh_token\":\"r2\"}",
        ] {
            let (json, _) = read(body).unwrap();
            assert!(json.contains(UNREADABLE), "{json}");
        }
        for body in [
            &b"<!DOCTYPE html><p>Such as {\"refresh_token\":\"r1\"}"[..],
            b"{\"refresh_token\":\"r1\"}<SCRIPT>x</SCRIPT>",
            b"{\"refresh_token\":\"r1\"}{\"refresh_token\":\"r2\"}",
            b"{\"refresh_token\":\"r1\"",
            b"{\"refresh_token\":\"r1",
            b"{\"refresh_token\":\"r1\\\"}",
            b"{\"x\":\"he said \"no\" twice\",\"refresh_token\":\"r1\"}",
            b"{\"x\":{,\"refresh_token\":\"r1\"}",
            b"refresh_token=r1",
            b"Warning: {\"a\": 1 and more\n{\"refresh_token\":\"r1\"}",
            b"{'refresh_token':'r1'}",
            b"",
        ] {
            assert_eq!(read(body), None, "{}", body.escape_ascii());
        }
        for endless in [&b"{\"x "[..], b"{/*", b"{//", b"{\"a\"/*", b"{\"a\"//", b"{\"a\":[", b"{\"a\":{\"a\":1,"] {
            assert!(object(&endless.repeat(200_000), |_| true).is_none(), "in linear time");
        }
        let deep = ["{\"x\":".repeat(100).as_bytes(), b"1", "}".repeat(100).as_bytes()].concat();
        assert!(read(&deep).is_none_or(|(json, _)| json.len() < deep.len()));
    }
}
