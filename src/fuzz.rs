//! Fuzz targets: one function for each place that reads bytes from outside.
//!
//! A function panics if an invariant does not hold. `cargo test` calls it with the stored corpus, with mutations of the
//! corpus and with arbitrary bytes; `cargo fuzz` with generated inputs (`.ci/run fuzz`). Not in normal builds.

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    AccessToken, ErrorRule, Idp, Meaning, RefreshToken, Rotation, TokenKey,
    idp::{ResponseOutcome, TokenResponse, outcome_of},
    journal::{Journal, JournalEntry},
    keyring::{Field, Keyring},
    model::{Id, Sealed},
    presets,
};

#[cfg(test)]
mod tests;

/// A text in every planted secret: plain, and base64 as in a key file.
const MARKERS: [&str; 2] = ["ts-test-secret", "dHMtdGVzdC1zZWNyZXQt"];
/// The refresh token of the request to which the fuzzed bytes are the response.
const SENT: &str = "ts-test-secret-sent-1f0c2a9b";

/// Reads a response of a token endpoint: the status, optionally `h2` and `cut`, then headers, an empty line, the body.
pub fn decode(data: &[u8]) {
    let (head, body) = split_head(data);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let words: Vec<&str> = first.split_whitespace().collect();
    let status = words.first().and_then(|word| word.parse().ok()).unwrap_or(200);
    let (http2, cut) = (words.contains(&"h2"), words.contains(&"cut"));
    let headers: Vec<(&[u8], &[u8])> = lines.filter_map(header).collect();
    let told = |idp: &Idp, body: &[u8], cut| outcome_of(idp, (status, http2), &headers, body, cut, SENT);

    let idp = Idp::oauth2("https://idp.example/token", "client", "ts-test-secret-client");
    let always = idp.clone().rotation(Rotation::Always);
    let nested =
        idp.clone().error(ErrorRule::new("invalid_grant", Meaning::UserMustReconnect).field("errors.errorType"));
    let secret = "ts-test-secret-client";
    let providers = [
        presets::github("client", secret),
        presets::entra("common", "client", secret),
        presets::slack("client", secret),
        presets::salesforce("client", secret),
        presets::hubspot("client", secret),
        presets::okta("https://acme.okta.com/oauth2", "client", secret),
        presets::zoom("client", secret),
    ];
    for idp in [idp, always, nested].iter().chain(&providers) {
        let outcome = told(idp, body, cut);
        let complete = !cut && ((200..300).contains(&status) || ((400..500).contains(&status) && status != 408));
        let shown = format!("{outcome:?}");
        match &outcome {
            ResponseOutcome::Refreshed(answer) => {
                assert!(!cut, "a part of a response was accepted");
                let success = complete && status < 300;
                assert!(success || answer.access_token.is_err(), "status {status} was accepted as a success");
                assert!(success || answer.refresh_token.is_some(), "status {status} brought nothing");
                assert!(answer.refresh_token.is_some() || idp.rotation != Rotation::Always);
                sensible(answer, &shown);
                // A truncated body must not pass for a response without refresh token.
                let body = body.trim_ascii();
                if body.starts_with(b"{") && answer.oddities.flaw.is_none() {
                    let half = told(idp, &body[..body.len() / 2], false);
                    assert!(
                        !matches!(half, ResponseOutcome::Refreshed(_)),
                        "half a response was accepted as a whole one"
                    );
                }
            }
            ResponseOutcome::NotSpent(failure)
            | ResponseOutcome::InvalidGrant(failure)
            | ResponseOutcome::Unknown(failure) => {
                let known = complete || (status == 429 && matches!(outcome, ResponseOutcome::NotSpent(_)));
                assert!(known || matches!(outcome, ResponseOutcome::Unknown(_)), "{status} decided about the grant");
                assert!(!shown.contains(SENT), "the refresh token that was sent is shown");
                let dead = failure.meaning == Meaning::UserMustReconnect;
                assert!(
                    dead == matches!(outcome, ResponseOutcome::InvalidGrant(_)),
                    "{:?} of {status}",
                    failure.meaning
                );
                for code in failure.evidence.detail.iter().chain([&failure.evidence.code]) {
                    assert!(code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_graphic()));
                }
                assert!(failure.evidence.request_id.as_ref().is_none_or(|text| text.len() <= 128));
                assert!(failure.retry_after.is_none_or(|wait| wait <= Duration::from_secs(3_600)));
            }
        }
    }
}

/// Opens the bytes as a sealed value, and reads them as a key file.
pub fn envelope(data: &[u8]) {
    let (keyring, alice, sealed) = (keyring(), alice(), Sealed(data.to_vec()));
    let mut opened = 0;
    for field in [Field::RefreshToken, Field::Document, Field::Journal, Field::Check] {
        match keyring.open(&alice, field, &sealed) {
            // Only a value sealed with this keyring opens, and its encoding is unique.
            Ok(plaintext) => {
                opened += 1;
                assert!(keyring.seal_like(&sealed, &alice, field, &plaintext) == Some(sealed.clone()));
                assert!(keyring.open(&alice.account("other"), field, &sealed).is_err());
            }
            Err(error) => assert_no_secret(&error, &error.to_string()),
        }
    }
    assert!(opened <= 1, "the value opens in more than one field");
    if let Err(error) = keyring.verify_check(&sealed) {
        assert_no_secret(&error, &error.to_string());
    }
    match Keyring::from_json(data) {
        Ok(keyring) => {
            assert_no_secret(&keyring, "");
            let again = Keyring::from_json(&keyring.to_json()).unwrap_or_else(|error| panic!("{error}"));
            let sealed = keyring.seal(&alice, Field::Document, data);
            assert!(again.open(&alice, Field::Document, &sealed).is_ok_and(|plaintext| plaintext[..] == *data));
            again.verify_check(&keyring.check_value()).unwrap_or_else(|error| panic!("{error}"));
        }
        Err(shown) => assert_no_secret(&"", &shown),
    }
}

/// Reads the bytes as a journal file: unchanged, with a correct header and checksums, and as the plaintext of an entry.
/// `directory` must be empty.
pub fn journal(directory: &Path, data: &[u8]) {
    let path = directory.join(format!("{OWNER}.journal"));
    for bytes in [data.to_vec(), repaired(data), entry_of(data)] {
        fs::write(&path, &bytes).unwrap_or_else(|error| panic!("{error}"));
        read_journal(directory, &path, &bytes);
    }
    fs::remove_file(&path).ok();
}

fn read_journal(directory: &Path, path: &PathBuf, bytes: &[u8]) {
    let file = || fs::read(path).unwrap_or_else(|error| panic!("{error}"));
    let journal = match Journal::open(directory, &keyring()) {
        Ok(journal) => journal,
        Err(error) => {
            assert_no_secret(&error, &error.to_string());
            assert!(file() == bytes, "a refused journal was changed");
            return;
        }
    };
    assert_no_secret(&journal, "");
    if !path.exists() {
        drop(journal);
        let aside = path.with_extension("damaged");
        assert!(fs::read(&aside).is_ok_and(|kept| kept == bytes), "a damaged journal was changed");
        for file in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            fs::remove_file(file.path()).unwrap_or_else(|error| panic!("{error}"));
        }
        return;
    }
    let whole = bytes.get(HEADER..).map_or(0, |frames| HEADER + whole_frames(frames));
    let kept = if whole == 0 { header_bytes() } else { bytes[..whole].to_vec() };
    assert!(file() == kept, "more than a torn end was truncated");
    assert!(!(whole..bytes.len()).any(|at| is_entry(&bytes[at..])), "an entry was truncated");
    // The journal can be appended to.
    let more = JournalEntry { key: alice(), attempt: Id([0x77; 16]), payload: b"ts-test-secret-more".to_vec() };
    let mut attempts = attempts(&journal);
    journal.append(more.clone()).unwrap_or_else(|error| panic!("{error}"));
    attempts.retain(|attempt| *attempt != more.attempt);
    attempts.push(more.attempt);
    drop(journal);
    let again = Journal::open(directory, &keyring()).unwrap_or_else(|error| panic!("{error}"));
    attempts.sort();
    assert!(self::attempts(&again) == attempts && again.pending_for(&more.key).contains(&more));
}

fn attempts(journal: &Journal) -> Vec<Id> {
    let keys = journal.pending_keys();
    let mut attempts: Vec<Id> =
        keys.iter().flat_map(|key| journal.pending_for(key)).map(|entry| entry.attempt).collect();
    assert_eq!(attempts.len(), journal.pending());
    attempts.sort();
    attempts
}

/// Checks that the text of an error or value contains no secret and is no copy of the input.
fn assert_no_secret(value: &impl Debug, text: &str) {
    let shown = format!("{text} {value:?}");
    assert!(!MARKERS.iter().any(|marker| shown.contains(marker)), "a secret is shown");
    assert!(shown.len() < 4_096, "the text is too long");
}

fn sensible(answer: &TokenResponse, shown: &str) {
    let access = answer.access_token.as_ref().map(AccessToken::expose_secret).ok();
    let refresh = answer.refresh_token.as_ref().map(RefreshToken::expose_secret);
    let open = [&answer.token_type, &answer.scope, &answer.subject].map(|text| text.as_deref().unwrap_or_default());
    for secret in refresh.into_iter().chain(access) {
        assert!(!secret.is_empty());
        // A provider may repeat a token in a field that is not secret; that is not checked.
        let repeated = open.iter().any(|text| format!("{text:?}").contains(secret));
        assert!(secret.len() < 24 || repeated || !shown.contains(secret), "a token is shown");
    }
    assert!(answer.expires_in.is_none_or(|life| life <= Duration::from_secs(400 * 24 * 3_600)));
    assert!(!open.iter().any(|text| text.chars().any(char::is_control)));
}

/// Splits at the first empty line; without one, all bytes are the body of a plain 200.
fn split_head(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (b"200\ncontent-length: 0", data),
    }
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// Returns the bytes with a correct header and correct checksums, so that the code behind these checks is reached.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut bytes = header_bytes();
    let mut rest = data.get(HEADER..).unwrap_or_default();
    while let Some((length, _, body)) = frame(rest) {
        bytes.extend_from_slice(&framed(body));
        rest = &rest[8 + length..];
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// Returns a journal with one entry that opens, with `data` as its plaintext.
fn entry_of(data: &[u8]) -> Vec<u8> {
    let bound_to = TokenKey::at("journal").user(OWNER.to_string());
    let sealed = keyring().seal(&bound_to, Field::Journal, data);
    [header_bytes(), framed(&[&[ENTRY], &sealed.0[..]].concat())].concat()
}

fn whole_frames(frames: &[u8]) -> usize {
    let mut whole = 0;
    while let Some((length, crc, body)) = frame(&frames[whole..]) {
        if crc32fast::hash(body) != crc {
            break;
        }
        whole += 8 + length;
    }
    whole
}

/// Returns whether `bytes` begin with an entry that may have been acknowledged: none is shorter than an empty envelope.
fn is_entry(bytes: &[u8]) -> bool {
    let whole =
        |(length, crc, body): (usize, u32, &[u8])| length > 33 && body[0] == ENTRY && crc32fast::hash(body) == crc;
    frame(bytes).is_some_and(whole)
}

fn frame(bytes: &[u8]) -> Option<(usize, u32, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..length).filter(|body| !body.is_empty())?;
    Some((length, u32::from_le_bytes(*crc), body))
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], &crc32fast::hash(body).to_le_bytes(), body].concat()
}

fn header_bytes() -> Vec<u8> {
    [&b"TSJ1"[..], &OWNER.0].concat()
}

fn keyring() -> Keyring {
    Keyring::fixed(&[("0a0b0c0d", 0x11), ("01020304", 0x12)], 0x22)
}

fn alice() -> TokenKey {
    TokenKey::at("github").user("alice").account("work")
}

const OWNER: Id = Id([0x33; 16]);
const HEADER: usize = 20;
const ENTRY: u8 = 1;
