//! `[server]`: addresses and API keys.

use std::{
    ffi::OsString,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use url::Url;

use super::{
    Config, ConfigError,
    field::Word,
    node,
    section::{Section, SectionReading},
    source::{Environment, PLACES, Source},
};
use crate::{
    apikey::{ApiKey, Scope},
    idp::loopback,
    model::ClientSecret,
};

/// The settings of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The addresses to listen on (`127.0.0.1:8080`).
    pub bind: Vec<Bind>,
    /// The URL by which others reach the server.
    pub public_url: Option<String>,
    /// How many connections may be open at once (1 024).
    pub max_connections: usize,
    /// The API keys. Several keys may have the same name, so that one can be replaced without downtime.
    pub api_keys: Vec<ApiKey>,
}

impl ServerSettings {
    /// Returns an address on a network that no caller could use, because there is no API key.
    pub fn unguarded(&self) -> Option<&Bind> {
        self.bind.iter().find(|bind| self.api_keys.is_empty() && matches!(bind, Bind::Tcp(_)))
    }
}

impl Config {
    /// Returns the addresses that [`load`](Self::load) would find in `server.bind`, and looks at no other setting: a server
    /// that runs keeps its settings while its file has a mistake.
    ///
    /// # Errors
    /// There is no file, it is not TOML, or `server.bind` is wrong.
    pub fn addresses(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Vec<Bind>, ConfigError> {
        let source = Source::find(path, Environment::new(environment), &PLACES)?;
        let mut tree = node::parse(&source.text, source.path.as_deref().unwrap_or(Path::new("")))?;
        node::override_by(&source.environment, &mut tree)?;
        let folder = source.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let mut reading = SectionReading::new(&source.environment, folder);
        let bind = reading.read(tree, |all| all.section("server", read_bind));
        ConfigError::unless_empty(reading.problems.into_iter().filter(|wrong| wrong.path == "server.bind").collect())?;
        Ok(bind)
    }
}

/// An address of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind {
    /// `ADDRESS:PORT`.
    Tcp(SocketAddr),
    /// `unix:/PATH`: a socket that only this user of the system can open, and that needs no API key.
    Unix(PathBuf),
}

impl FromStr for Bind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| "must be ADDRESS:PORT such as 127.0.0.1:8080, or unix:/PATH"),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const MAX_CONNECTIONS: usize = 1_024;

/// Reads `[server]`. `known` returns whether an identity provider of this name is configured.
pub(super) fn read(section: &mut Section<'_, '_>, known: impl Fn(&str) -> bool) -> ServerSettings {
    let bind = read_bind(section);
    let mut public_url: Option<String> = None;
    section.read("public_url", &mut public_url);
    if let Some(Err(text)) = public_url.as_deref().map(check_public_url) {
        section.wrong("public_url", text);
    }
    let mut max_connections = MAX_CONNECTIONS;
    section.read("max_connections", &mut max_connections);
    let mut api_keys: Vec<ApiKey> = Vec::new();
    section.listed("api_key", |key| {
        let api_key = read_api_key(key, &known);
        if key.is_sound() && api_keys.iter().any(|other| other.sha256 == api_key.sha256) {
            key.wrong("", "is the same key as one before it: remove one of them");
        }
        api_keys.push(api_key);
    });
    section.not_yet("jwt");
    ServerSettings { bind, public_url, max_connections, api_keys }
}

fn read_bind(section: &mut Section<'_, '_>) -> Vec<Bind> {
    let mut bind = vec![Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))];
    section.read("bind", &mut bind);
    if bind.is_empty() {
        section.wrong("bind", "must have at least one address");
    }
    bind
}

fn check_public_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL such as https://tokens.example.com")?;
    match url.scheme() {
        "https" => {}
        "http" if loopback(&url) => {}
        _ => return Err("must be https (or loopback)"),
    }
    let bare = url.username().is_empty() && url.password().is_none();
    if bare && url.query().is_none() && url.fragment().is_none() {
        Ok(())
    } else {
        Err("must have no user, password, query or fragment")
    }
}

fn read_api_key(section: &mut Section<'_, '_>, known: impl Fn(&str) -> bool) -> ApiKey {
    let mut name = String::new();
    section.read("name", &mut name);
    let (mut sha256, mut secret) = (None, None);
    section.read("sha256", &mut sha256);
    section.read("secret", &mut secret);
    let (mut scopes, mut idps, mut user_prefix) = (Vec::new(), None::<Vec<Word>>, None::<String>);
    let mut expires_at = None::<SystemTime>;
    section.read("scopes", &mut scopes);
    section.read("idps", &mut idps);
    section.read("user_prefix", &mut user_prefix);
    section.read("expires_at", &mut expires_at);
    let mut requests_per_second: Option<usize> = None;
    section.read("requests_per_second", &mut requests_per_second);
    if section.is_sound() {
        if name.is_empty() {
            section.wrong("name", "must be set");
        }
        if scopes.is_empty() {
            section.wrong("scopes", "must have at least one of: token, grant, admin, metrics");
        }
        if idps.iter().flatten().any(|idp| !known(&idp.0)) {
            section.wrong("idps", "names an identity provider that has no section [idp.NAME]");
        }
        if user_prefix.as_deref().is_some_and(|prefix| prefix.len() < 2 || !prefix.ends_with('/')) {
            section.wrong("user_prefix", "must end in \"/\", such as \"acme/\"");
        }
        if scopes.contains(&Scope::Metrics) && (idps.is_some() || user_prefix.is_some()) {
            section.wrong("scopes", METRICS_COVER_ALL);
        }
    }
    let sha256 = digest(section, sha256.as_ref(), secret.as_ref());
    let idps = idps.map(|idps| idps.into_iter().map(|Word(name)| name).collect());
    let requests_per_second = requests_per_second.map(|requests| requests.try_into().unwrap_or(u32::MAX));
    let user_prefix = user_prefix.unwrap_or_default();
    ApiKey { name, sha256, scopes, idps, user_prefix, expires_at, requests_per_second }
}

const METRICS_COVER_ALL: &str = "must not have metrics beside idps or user_prefix: metrics cover all identity providers and \
     users. Give the scope metrics to a key of its own, without these limits";

/// A shorter secret could be guessed: the digests of stolen configurations can be compared with many guesses.
const SHORTEST_SECRET: usize = 32;

fn digest(section: &mut Section<'_, '_>, sha256: Option<&ClientSecret>, secret: Option<&ClientSecret>) -> [u8; 32] {
    match (sha256.map(ClientSecret::expose_secret), secret.map(ClientSecret::expose_secret)) {
        (Some(hex), None) => match decode(hex) {
            Some(digest) => return digest,
            None => section.wrong("sha256", "must be 64 hexadecimal digits: see `token-supervisor apikey new`"),
        },
        (None, Some("")) => section.wrong("secret", "must not be empty"),
        (None, Some(secret)) if secret.len() < SHORTEST_SECRET => section.wrong(
            "secret",
            "must have at least 32 bytes, and random ones: `token-supervisor apikey new` creates such a key",
        ),
        (None, Some(secret)) => return Sha256::digest(secret.as_bytes()).into(),
        (None, None) if !section.is_sound() => {}
        _ => section.wrong("sha256", "set either `sha256` or `secret`"),
    }
    [0; 32]
}

fn decode(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}
