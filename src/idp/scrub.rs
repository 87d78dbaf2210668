//! Keeps secrets out of what a response tells people: those that went into its request, and its own tokens. Pure.
//!
//! A provider may repeat a secret in an error, in a header or beside the tokens: as it is, in part, in another case,
//! percent-encoded, escaped as in JSON, in hexadecimal digits or in base64 with other bytes before it. So texts are decoded in all
//! these ways before they are searched.

use std::collections::HashSet;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use memchr::memmem;
use url::{Url, form_urlencoded::byte_serialize};
use zeroize::Zeroizing;

use super::provider::Idp;

/// Secrets that must not be shown, in lower case.
pub(super) struct Secrets {
    secrets: Vec<Zeroizing<String>>,
    /// Values of the settings that may be secrets. They count only as a whole: many share parts, such as `https://`.
    settings: Vec<Zeroizing<String>>,
}

/// The length from which a part of a secret counts as the secret. A shorter secret counts only as a whole.
const PART: usize = 8;

/// More of a description is not read.
const LONGEST_READ: usize = 1_024;

/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 256;

/// What stands in a description for a word with a secret.
const REDACTED: &str = "[redacted]";

/// Every way in which a text can be read.
struct Views(Vec<Vec<u8>>);

type Part = [u8; PART];

impl Secrets {
    /// Returns the secrets of a request with the token `sent`, and `own`, those of its response.
    pub(super) fn new(idp: &Idp, sent: &str, own: Vec<Zeroizing<String>>) -> Self {
        let mut secrets = Self { secrets: own, settings: Vec::new() };
        secrets.secrets.iter_mut().for_each(|secret| secret.make_ascii_lowercase());
        secrets.add(sent);
        for client in &idp.clients {
            let secret = client.client_secret.expose_secret();
            secrets.add(secret);
            if !secret.is_empty() {
                secrets.add(&Zeroizing::new(byte_serialize(secret.as_bytes()).collect::<String>()));
                secrets.add(&client.basic());
            }
        }
        secrets.secrets.retain(|secret| !secret.is_empty());
        secrets
    }

    /// Adds what the settings have in URLs and in fields of the form, which may be a key or a password. To be used for
    /// texts: data may repeat such a value for good reasons.
    pub(super) fn and_settings(mut self, idp: &Idp) -> Self {
        let more = [&idp.revocation_url, &idp.introspection_url, &idp.userinfo_url].into_iter().flatten();
        let urls = std::iter::once(&idp.token_url).chain(more);
        for url in urls.filter_map(|url| Url::parse(url).ok()) {
            url.password().into_iter().for_each(|password| self.add_setting(password));
            url.query_pairs().for_each(|(_, value)| self.add_setting(&value));
        }
        idp.params.values().for_each(|value| self.add_setting(value));
        self
    }

    fn add(&mut self, secret: &str) {
        self.secrets.push(Zeroizing::new(secret.to_ascii_lowercase()));
    }

    /// Adds a value that is rarely a secret, unless it is too short to be one.
    fn add_setting(&mut self, value: &str) {
        if value.len() >= PART {
            self.settings.push(Zeroizing::new(value.to_ascii_lowercase()));
        }
    }

    /// Returns whether the text repeats a secret, or a part of one.
    pub(super) fn are_in(&self, text: &str) -> bool {
        let views = Views::of(text);
        !self.parts_in(&views).is_empty() || self.wholes_in(&views)
    }

    /// Returns whether the text repeats a whole secret. Tokens of one provider may begin alike, so this is the question
    /// to ask about data. A secret that is shorter than [`PART`] is not looked for.
    pub(super) fn whole_in(&self, text: &str) -> bool {
        let views = Views::of(text);
        self.secrets.iter().any(|secret| secret.len() >= PART && views.contain(secret.as_bytes()))
    }

    /// Returns what a description says in one line of bounded length, without the words that repeat a secret.
    pub(super) fn description(&self, text: &str) -> Option<String> {
        let read: String =
            text.chars().take(LONGEST_READ).map(|char| if is_shown(char) { char } else { ' ' }).collect();
        let views = Views::of(&read);
        let parts = self.parts_in(&views);
        let secret = |word: &str| {
            let views = Views::of(word);
            views.parts().any(|part| parts.contains(part)) || self.wholes_in(&views)
        };
        let words: Vec<_> = read.split_whitespace().map(|word| if secret(word) { REDACTED } else { word }).collect();
        let line = words.join(" ");
        // A secret may have spaces.
        if line.is_empty() || self.are_in(&line) {
            return None;
        }
        let mut shown: String = line.chars().take(LONGEST_DESCRIPTION).collect();
        if shown.len() < line.len() {
            shown.pop();
            shown.push('…');
        }
        Some(shown)
    }

    /// Returns the parts of secrets that are in the text.
    fn parts_in<'a>(&self, text: &'a Views) -> HashSet<&'a Part> {
        let known: HashSet<&Part> = text.parts().collect();
        let parts = self.secrets.iter().flat_map(|secret| parts(secret.as_bytes()));
        parts.filter_map(|part| known.get(part).copied()).collect()
    }

    /// Returns whether the text repeats something that counts only as a whole.
    fn wholes_in(&self, views: &Views) -> bool {
        let short = self.secrets.iter().filter(|secret| secret.len() < PART);
        short.chain(&self.settings).any(|secret| views.contain(secret.as_bytes()))
    }
}

impl Views {
    fn of(text: &str) -> Self {
        let plain = text.to_ascii_lowercase().into_bytes();
        let mut texts = vec![text.as_bytes().to_vec()];
        // Of a long text only the text itself is searched: data is not encoded again.
        if text.len() <= 4 * LONGEST_READ {
            texts.extend([percent_decoded(text.as_bytes()), unescaped(text).into_bytes()]);
            texts.dedup();
        } else {
            return Self(vec![plain]);
        }
        let mut views = Vec::new();
        for text in texts {
            for start in 0..4 {
                views.extend(base64_runs(&text, start));
                views.extend((start < 2).then(|| hex_digits(&text, start)));
            }
            views.push(text);
        }
        views.iter_mut().for_each(|view| view.make_ascii_lowercase());
        Self(views)
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter().flat_map(|view| parts(view))
    }

    fn contain(&self, secret: &[u8]) -> bool {
        self.0.iter().any(|view| memmem::find(view, secret).is_some())
    }
}

fn parts(bytes: &[u8]) -> impl Iterator<Item = &Part> {
    bytes.windows(PART).filter_map(|window| window.try_into().ok())
}

/// Decodes `%2F` and `+`, repeatedly encoded ones too.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let once = |text: &[u8]| {
        let mut decoded = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let code = text.get(at + 1..at + 3).filter(|_| text[at] == b'%').and_then(hex_byte);
            decoded.push(code.unwrap_or(text[at]));
            at += if code.is_some() { 3 } else { 1 };
        }
        decoded
    };
    (0..3).fold(text.to_vec(), |text, _| once(&text))
}

/// Removes the escapes of JSON, repeated ones too.
fn unescaped(text: &str) -> String {
    let once = |text: &str| {
        let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
        while let Some((before, after)) = rest.split_once('\\') {
            plain.push_str(before);
            let code = after.strip_prefix('u').and_then(|code| u32::from_str_radix(code.get(..4)?, 16).ok());
            rest = match code.and_then(char::from_u32) {
                Some(char) => {
                    plain.push(char);
                    &after[5..]
                }
                None => after,
            };
        }
        plain + rest
    };
    (0..3).fold(text.to_owned(), |text, _| once(&text))
}

/// Decodes each run of base64, in either alphabet, from its character number `start` on.
fn base64_runs(text: &[u8], start: usize) -> impl Iterator<Item = Vec<u8>> {
    const ANY_END: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let runs = text.split(move |byte| !digit(byte)).filter_map(move |run| run.get(start..));
    runs.filter_map(move |run| {
        let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
        ANY_END.decode(whole.iter().map(standard).collect::<Vec<_>>()).ok()
    })
}

/// Decodes the hexadecimal digits of the text from its digit number `start` on.
fn hex_digits(text: &[u8], start: usize) -> Vec<u8> {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_hexdigit).skip(start).collect();
    digits.chunks_exact(2).filter_map(hex_byte).collect()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Returns whether a character of a description is shown as it is: it neither controls a terminal nor turns the
/// direction of text.
fn is_shown(char: char) -> bool {
    let turns = matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !turns && !char.is_control()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    const CLIENT: &str = "ts-test-secret-k&/ü";
    const SENT: &str = "1//0refresh_Token-Of.ts-test-secret";
    const OWN: &str = "ya29.ACCESS-ts-test-secret";

    fn secrets() -> Secrets {
        let idp =
            Idp::oauth2("https://idp.example/token?key=url-key-1234", "client", CLIENT).param("api", "form-key-1234");
        Secrets::new(&idp, SENT, vec![OWN.to_owned().into()]).and_settings(&idp)
    }

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secrets = secrets();
        let form = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let all = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let escaped = |text: &str| text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
        let pair = format!("client:{}", form(CLIENT));
        for secret in [CLIENT, SENT, OWN, "url-key-1234", "form-key-1234", &pair] {
            let base64 = STANDARD.encode(secret);
            let shifted = URL_SAFE_NO_PAD.encode(format!("x{secret}"));
            let further = STANDARD.encode(format!("xy{secret}y"));
            for text in [
                secret.to_owned(),
                secret.to_ascii_uppercase(),
                form(secret),
                all(secret),
                form(&form(secret)),
                serde_json::to_string(secret).unwrap().replace('/', "\\/"),
                escaped(secret),
                form(&base64),
                hex(secret),
                format!("0x0{}", hex(secret).to_uppercase()),
                base64,
                shifted,
                further,
            ] {
                let text = format!("bad_token:{text}");
                assert!(secrets.are_in(&text), "{text}");
                let shown = secrets.description(&format!("the value {text} is wrong"));
                assert_eq!(shown.as_deref(), Some("the value [redacted] is wrong"), "{text}");
            }
        }
        assert!(secrets.are_in(&SENT[4..12]) && !secrets.are_in(&SENT[4..11]), "a part of eight characters counts");
        assert!(secrets.whole_in(&format!("a {SENT} b")) && !secrets.whole_in(&SENT[1..]));
    }

    #[test]
    fn a_description_is_one_line_of_bounded_length() {
        let secrets = secrets();
        for (text, expected) in [
            ("Token has been\r\n expired\tor\u{202e} revoked.", Some("Token has been expired or revoked.")),
            ("\u{7f}\n", None),
            ("", None),
        ] {
            assert_eq!(secrets.description(text).as_deref(), expected);
        }
        let long = secrets.description(&"ä".repeat(5_000)).unwrap();
        assert_eq!((long.chars().count(), long.chars().last()), (LONGEST_DESCRIPTION, Some('…')));
        let spaced = Secrets::new(&Idp::oauth2("https://idp.example/", "c", "my own words"), "", Vec::new());
        assert_eq!(spaced.description("these are my own words too"), None, "a secret with spaces");
    }

    #[test]
    fn a_short_secret_counts_as_a_whole_and_not_in_data() {
        let secrets = Secrets::new(&Idp::oauth2("https://idp.example/", "c", "hunter2"), "", Vec::new());
        assert!(secrets.are_in("bad_hunter2") && !secrets.are_in("bad_hunter") && !secrets.whole_in("hunter2"));
        let public = Secrets::new(&Idp::oauth2("https://idp.example/", "c", ""), "", Vec::new());
        assert!(!public.are_in("") && !public.are_in("anything"));
    }

    proptest! {
        #[test]
        fn any_text_is_searched(text in ".{0,300}", at in 0_usize..300) {
            let secrets = secrets();
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let hidden = format!("{}{SENT}{}", &text[..at], &text[at..]);
            prop_assert!(secrets.are_in(&hidden));
            let shown = secrets.description(&hidden).unwrap_or_default();
            prop_assert!(!shown.contains(SENT) && !secrets.are_in(&shown));
        }
    }
}
