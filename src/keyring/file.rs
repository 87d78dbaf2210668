//! The key file: JSON, readable only by its owner.
//!
//! `{"version":1,"fingerprint_key":"base64","keys":[{"id":"8 hex","state":"active","since":1796064000,"key":"base64"}]}`.
//! `since` is when the key got its state, where that is known.
//! Errors never quote the file, so serde's messages, which quote values, are not passed on.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{FingerprintKey, KeyId, KeyState, KeyringKey, Keys, SealingKey, Secret};
use crate::Error;

/// Why a key file cannot be used. The message says what to do next.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyringError {
    /// Usually a wrong path, or a file of another user.
    #[error("cannot read key file {}: {cause}; {}", .path.display(), advice(.cause))]
    Read { path: PathBuf, cause: io::Error },
    /// Not JSON, or not a key file: usually the wrong path, or an editor changed the file.
    #[error(
        "{} is not a key file (line {line}, column {column}): check the path, or restore it from its backup",
        .path.display()
    )]
    NotAKeyFile { path: PathBuf, line: usize, column: usize },
    /// A newer version of this program wrote it.
    #[error("key file {} has version {version}, not the supported 1: update token-supervisor", .path.display())]
    UnknownVersion { path: PathBuf, version: u64 },
    /// The file was edited by hand or truncated.
    #[error("{which} in key file {} {problem}: restore the file from its backup", .path.display())]
    BadKey { path: PathBuf, which: String, problem: &'static str },
    /// Two files were merged by hand.
    #[error("key file {} has two keys with the id {id}: restore it from its backup", .path.display())]
    DuplicateId { path: PathBuf, id: KeyId },
    /// The states were edited by hand.
    #[error(
        "key file {} has {found} active keys: set `state` of one to `active`, of the others to `staged` or `retired`",
        .path.display()
    )]
    NotOneActive { path: PathBuf, found: usize },
    /// Overwriting it would make everything that it sealed unreadable.
    #[error("key file {} already exists and is left unchanged: use it, or choose another path", .path.display())]
    Exists { path: PathBuf },
    /// Usually a directory that is missing or belongs to another user.
    #[error("cannot write key file {}: {cause}; check the directory's owner, mode and free space", .path.display())]
    Write { path: PathBuf, cause: io::Error },
}

impl From<KeyringError> for Error {
    fn from(error: KeyringError) -> Self {
        Self::Start(error.to_string())
    }
}

pub(super) fn read(path: &Path) -> Result<(Keys, FingerprintKey), KeyringError> {
    let unreadable = |cause| KeyringError::Read { path: path.to_owned(), cause };
    let file = File::open(path).map_err(unreadable)?;
    warn_if_exposed(path, &file);
    // Allocated once: a buffer that grows leaves copies of keys behind.
    let mut json = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut json).map_err(unreadable)?;
    if json.len() > MAX_FILE {
        return Err(KeyringError::NotAKeyFile { path: path.to_owned(), line: 1, column: 1 });
    }
    parse(path, &json)
}

pub(super) fn write_new(path: &Path, keys: &Keys, fingerprint: &FingerprintKey) -> Result<(), KeyringError> {
    let unwritable = |cause| KeyringError::Write { path: path.to_owned(), cause };
    let json = to_json(keys, fingerprint);
    let mut file = create_private(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => KeyringError::Exists { path: path.to_owned() },
        _ => unwritable(cause),
    })?;
    let written = file.write_all(&json).and_then(|()| file.sync_all()).and_then(|()| sync_directory(path));
    written.map_err(|cause| {
        // The file is incomplete, and would make the next try fail.
        let _ = std::fs::remove_file(path);
        unwritable(cause)
    })
}

/// Creates a file that only its owner can read.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub(super) fn parse(path: &Path, json: &[u8]) -> Result<(Keys, FingerprintKey), KeyringError> {
    let path = || path.to_owned();
    let no_key_file = |error: serde_json::Error| KeyringError::NotAKeyFile {
        path: path(),
        line: error.line(),
        column: error.column(),
    };
    // The version is parsed first: the fields of a later version are not known.
    let Version { version } = serde_json::from_slice(json).map_err(no_key_file)?;
    if version != 1 {
        return Err(KeyringError::UnknownVersion { path: path(), version });
    }
    let file: KeyFile = serde_json::from_slice(json).map_err(no_key_file)?;
    let bad = |which: String, problem| KeyringError::BadKey { path: path(), which, problem };
    let secret = |which: &str, text: &SecretText| decode(&text.0).map_err(|problem| bad(which.to_owned(), problem));

    let fingerprint = FingerprintKey(secret("fingerprint_key", &file.fingerprint_key)?);
    let mut keys: Vec<KeyringKey> = Vec::with_capacity(file.keys.len());
    for (at, line) in file.keys.iter().enumerate() {
        // The text is not quoted until it is known to be an id: it may be a key in the wrong place.
        let id: KeyId =
            line.id.0.parse().map_err(|()| bad(format!("id of key {}", at + 1), "is not 8 hexadecimal digits"))?;
        if keys.iter().any(|key| key.sealing.id() == id) {
            return Err(KeyringError::DuplicateId { path: path(), id });
        }
        let sealing = Arc::new(SealingKey::new(id, secret(&format!("key {id}"), &line.key)?));
        keys.push(KeyringKey { state: line.state, since: line.since, sealing });
    }
    let mut active = keys.iter().enumerate().filter(|(_, key)| key.state == KeyState::Active).map(|(at, _)| at);
    match (active.next(), active.count()) {
        (Some(active), 0) => Ok((Keys { keys, active }, fingerprint)),
        (first, more) => Err(KeyringError::NotOneActive { path: path(), found: usize::from(first.is_some()) + more }),
    }
}

pub(super) fn to_json(keys: &Keys, fingerprint: &FingerprintKey) -> Zeroizing<Vec<u8>> {
    let text = |secret: &Secret| SecretText(STANDARD.encode(secret.expose()));
    let line = |key: &KeyringKey| KeyLine {
        id: SecretText(key.sealing.id().to_string()),
        state: key.state,
        since: key.since,
        key: text(key.sealing.secret()),
    };
    let file =
        KeyFile { version: 1, fingerprint_key: text(&fingerprint.0), keys: keys.keys.iter().map(line).collect() };
    let mut json = Zeroizing::new(Vec::with_capacity(256 * (keys.keys.len() + 1)));
    serde_json::to_writer_pretty(&mut *json, &file).expect("strings and numbers serialize as JSON");
    json.push(b'\n');
    json
}

fn decode(text: &str) -> Result<Secret, &'static str> {
    // Room for 44 characters of base64; a longer text cannot be a key.
    let mut bytes = Zeroizing::new([0; 33]);
    match STANDARD.decode_slice(text, &mut *bytes) {
        Ok(32) => {
            let mut secret = Secret(Box::new([0; 32]));
            secret.0.copy_from_slice(&bytes[..32]);
            Ok(secret)
        }
        Ok(_) | Err(base64::DecodeSliceError::OutputSliceTooSmall) => Err("is not 32 bytes long"),
        Err(base64::DecodeSliceError::DecodeError(_)) => Err("is not base64"),
    }
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => {
            "check the path, restore the file from its backup, or create the first one with `init`"
        }
        io::ErrorKind::PermissionDenied => "make it readable by the user that runs this program",
        _ => "check the path and the disk",
    }
}

/// Syncs the directory of the file: until then its name can be lost. Only Unix can open directories.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn warn_if_exposed(path: &Path, file: &File) {
    let mode = file.metadata().map_or(0, |metadata| mode(&metadata));
    if exposed(mode) {
        tracing::warn!(
            keyring.file = %path.display(),
            keyring.mode = format!("{mode:04o}"),
            "other users of this machine can read or change the key file: run `chmod 600` on it"
        );
    }
}

/// Returns whether others can read or change the file. Its group may read it: orchestrators provide secrets this way.
fn exposed(mode: u32) -> bool {
    mode & 0o027 != 0
}

#[cfg(unix)]
fn mode(file: &Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    file.permissions().mode() & 0o777
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u64,
    fingerprint_key: SecretText,
    keys: Vec<KeyLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    id: SecretText,
    state: KeyState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    key: SecretText,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct SecretText(String);

/// Enough for thousands of keys; limits how much of a wrong path (a database, a device) is read.
const MAX_FILE: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Keyring, keyring::Field, model::TokenKey};

    /// 32 bytes, the marker first.
    const KEY: &[u8; 32] = b"ts-test-secret-keyring-32-bytes!";

    fn key() -> String {
        STANDARD.encode(KEY)
    }

    fn file(fingerprint: &str, keys: &[(&str, &str, &str)]) -> String {
        let keys: Vec<_> =
            keys.iter().map(|(id, state, key)| serde_json::json!({ "id": id, "state": state, "key": key })).collect();
        serde_json::json!({ "version": 1, "fingerprint_key": fingerprint, "keys": keys }).to_string()
    }

    fn from_text(text: &str) -> Result<Keyring, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.keys");
        std::fs::write(&path, text).unwrap();
        Keyring::from_file(path)
    }

    #[test]
    fn a_written_keyring_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.keys");
        let keyring = Keyring::generate();
        keyring.write_new(&path).unwrap();
        let again = Keyring::from_file(&path).unwrap();
        let alice = TokenKey::at("github").user("alice");
        let sealed = keyring.seal(&alice, Field::Document, b"ts-test-secret-d");
        assert_eq!(&again.open(&alice, Field::Document, &sealed).unwrap()[..], b"ts-test-secret-d");
        again.verify_check(&keyring.check_value()).unwrap();

        let before = std::fs::read(&path).unwrap();
        let error = Keyring::generate().write_new(&path).unwrap_err().to_string();
        assert!(error.contains("already exists and is left unchanged"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_file_is_frozen() {
        let keyring = Keyring::fixed(&[("0a0b0c0d", 1), ("01020304", 2)], 3);
        let expected = r#"{
  "version": 1,
  "fingerprint_key": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
  "keys": [
    {
      "id": "0a0b0c0d",
      "state": "active",
      "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
    },
    {
      "id": "01020304",
      "state": "retired",
      "key": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
    }
  ]
}
"#;
        let json = keyring.to_json();
        assert_eq!(std::str::from_utf8(&json).unwrap(), expected);
        assert!(json.capacity() <= 256 * 3, "the buffer grew, and left copies of keys behind");
        from_text(expected).unwrap().verify_check(&keyring.check_value()).unwrap();
    }

    #[test]
    fn a_file_of_changed_keys_is_frozen() {
        let text = |keys: &str| {
            let fingerprint = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
            format!(
                "{{\n  \"version\": 1,\n  \"fingerprint_key\": \"{fingerprint}\",\n  \"keys\": [\n{keys}\n  ]\n}}\n"
            )
        };
        let line = |id, state, since, byte: u8| {
            let key = STANDARD.encode([byte; 32]);
            format!(
                "    {{\n      \"id\": \"{id}\",\n      \"state\": \"{state}\",\n      \"since\": {since},\n      \"key\": \"{key}\"\n    }}"
            )
        };
        let before = text(&[line("0a0b0c0d", "active", 7, 1), line("01020304", "staged", 8, 2)].join(",\n"));
        let after = text(&[line("0a0b0c0d", "retired", 9, 1), line("01020304", "active", 9, 2)].join(",\n"));
        let nine = std::time::UNIX_EPOCH + std::time::Duration::from_millis(9_900);
        let promoted = from_text(&before).unwrap().promoting("01020304", nine).unwrap();
        assert_eq!(std::str::from_utf8(&promoted.to_json()).unwrap(), after);
    }

    #[test]
    fn several_keys_with_one_active() {
        let key = key();
        let keys = [("00000001", "retired", &*key), ("00000002", "active", &key), ("00000003", "staged", &key)];
        let keyring = from_text(&file(&key, &keys)).unwrap();
        assert_eq!(format!("{keyring:?}"), "Keyring { active: 00000002, keys: 3, .. }");
    }

    #[test]
    fn errors_never_quote_the_file() {
        let key = &*key();
        let good = ("0a0b0c0d", "active", key);
        let short = &STANDARD.encode(&KEY[..31]);
        let long = &STANDARD.encode([&KEY[..], b"!"].concat());
        for (text, words) in [
            (String::new(), "is not a key file (line 1, column 0)"),
            (key.to_owned(), "is not a key file"),
            (format!(r#"{{"version":"{key}"}}"#), "is not a key file"),
            (file(key, &[good]).replace("keys", key), "is not a key file"),
            (file(key, &[("0a0b0c0d", key, key)]), "is not a key file"),
            (file(key, &[good]).replace(":1", r#":2,"ciphers":[]"#), "has version 2"),
            (file("", &[good]), "fingerprint_key in key file"),
            (file(short, &[good]), "is not 32 bytes long"),
            (file(key, &[("0a0b0c0d", "active", short)]), "key 0a0b0c0d in key file"),
            (file(key, &[("0a0b0c0d", "active", long)]), "is not 32 bytes long"),
            (file(key, &[("0a0b0c0d", "active", &key.repeat(9))]), "is not 32 bytes long"),
            (file(key, &[("0a0b0c0d", "active", &key.replace('=', "*"))]), "is not base64"),
            (file(key, &[(key, "active", key)]), "id of key 1 in key file"),
            (file(key, &[good, ("0a0b0c0d", "retired", key)]), "two keys with the id 0a0b0c0d"),
            (file(key, &[good, ("0A0B0C0D", "retired", key)]), "two keys with the id 0a0b0c0d"),
            (file(key, &[]), "has 0 active keys"),
            (file(key, &[("0a0b0c0d", "staged", key)]), "has 0 active keys"),
            (file(key, &[good, ("01020304", "active", key), ("01020305", "active", key)]), "has 3 active keys"),
            (" ".repeat(MAX_FILE + 1), "is not a key file"),
        ] {
            let error = from_text(&text).unwrap_err();
            let (shown, debugged) = (error.to_string(), format!("{error:?}"));
            assert!(shown.contains(words), "{shown}");
            for secret in [&key[..12], "ts-test-secret"] {
                assert!(!shown.contains(secret) && !debugged.contains(secret), "{words}");
            }
        }
    }

    #[test]
    fn a_missing_file_and_an_unwritable_one_have_different_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/tokens.keys");
        let error = Keyring::from_file(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot read key file") && error.contains("`init`"), "{error}");
        let error = Keyring::generate().write_new(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot write key file"), "{error}");
    }

    #[test]
    fn files_that_others_can_read_or_change_are_exposed() {
        assert!(exposed(0o644) && exposed(0o604) && exposed(0o620));
        assert!(!exposed(0o600) && !exposed(0o400) && !exposed(0o640));
    }
}
