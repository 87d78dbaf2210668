//! A running server, through its HTTP API.

use std::{error::Error as _, fmt, io, path::PathBuf, str::FromStr, time::Duration};

use reqwest::{Proxy, StatusCode};
use token_supervisor::{
    Cause, ClientSecret, Cursor, Generation, Grant, Revoke, TokenKey,
    api::{GrantQuery, IdpBody, KeysBody, OffboardedGrant, ResealedBody, RetriedBody, StatusBody, TokenBody},
    client::{ApiClient, ApiError},
    web::grant_body,
};
use url::{Host, Url};

use super::{PlaceHealth, Verb, unread};
use crate::cli::{CliFailure, Exit, body::VerbResult};

/// The address of a server.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Url(Url),
    /// The path of its socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be a URL such as http://127.0.0.1:8080, or unix:/PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(FORM) };
        }
        let url: Url = text.parse().map_err(|_| FORM)?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        match url.scheme() {
            "http" | "https" if plain && url.host().is_some() => Ok(Self::Url(url)),
            _ => Err(FORM),
        }
    }
}

impl Address {
    /// Returns whether the server is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Url(url) => match url.host() {
                Some(Host::Domain(name)) => name == "localhost",
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.is_loopback(),
                None => false,
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A server, and the way there.
#[derive(Clone, Debug)]
pub(crate) struct ServerTarget {
    pub(crate) address: Address,
    pub(crate) proxy: Option<ProxyUrl>,
}

impl ServerTarget {
    /// Returns the target, unless others on the network could read the API key and that is not allowed.
    ///
    /// # Errors
    /// The API key would be readable on the network.
    pub(crate) fn unexposed(self, allow_http: bool) -> Result<Self, CliFailure> {
        match self.exposure().filter(|_| !allow_http) {
            None => Ok(self),
            Some(text) => {
                let next = "use an https:// URL, or add --allow-http if you trust the network between";
                Err(CliFailure::usage(text, next))
            }
        }
    }

    /// Returns why others on the network could read the API key, if they could.
    fn exposure(&self) -> Option<String> {
        let Address::Url(url) = &self.address else { return None };
        let loopback = self.address.is_local();
        match (url.scheme(), &self.proxy) {
            ("http", Some(proxy)) => Some(format!("plain http through {proxy} would expose the API key to the proxy")),
            ("http", None) if !loopback => {
                Some(format!("plain http to {}, another machine, would expose the API key", self.address))
            }
            _ => None,
        }
    }
}

/// The URL of a proxy. It may have a user and a password, which are not shown.
#[derive(Clone)]
pub(crate) struct ProxyUrl(Url);

impl FromStr for ProxyUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Option<Url> = text.parse().ok();
        let proxy = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        proxy.map(Self).ok_or("must be a URL such as http://proxy.example.com:3128")
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        f.write_str(&url[..url::Position::BeforeUsername])?;
        f.write_str(&url[url::Position::BeforeHost..url::Position::AfterPort])
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A server and the client of its API.
pub(crate) struct ServerBackend {
    target: ServerTarget,
    client: ApiClient,
}

/// The timeout of commands that make a change, and the longest wait for another token.
const PATIENCE: Duration = Duration::from_secs(60);

impl ServerBackend {
    pub(crate) fn new(target: &ServerTarget) -> Result<Self, CliFailure> {
        let Self { target, client } = Self::without_key(target)?;
        let client = match api_key()? {
            Some(key) => client.api_key(key),
            None => client,
        };
        Ok(Self { target, client })
    }

    /// The same for requests that need no API key.
    pub(crate) fn without_key(target: &ServerTarget) -> Result<Self, CliFailure> {
        let ServerTarget { address, proxy } = target;
        let unusable = |error: reqwest::Error| {
            CliFailure::usage(
                format!("cannot connect to {address}: {error}"),
                "name the server by another URL with --server",
            )
        };
        let mut http = ApiClient::http();
        if let Some(ProxyUrl(proxy)) = proxy {
            if matches!(address, Address::Unix(_)) {
                return Err(CliFailure::usage("a Unix socket cannot be reached through a proxy", "omit --proxy"));
            }
            http = http.proxy(Proxy::all(proxy.clone()).map_err(unusable)?);
        }
        let (http, url) = match address {
            Address::Url(url) => (http, url.as_str()),
            #[cfg(unix)]
            Address::Unix(path) => (http.unix_socket(path.as_path()), "http://localhost"),
            #[cfg(not(unix))]
            Address::Unix(_) => {
                return Err(CliFailure::usage("this system has no Unix sockets", "name the server's URL"));
            }
        };
        let client = ApiClient::with_http(url, &http.build().map_err(unusable)?)?;
        Ok(Self { target: target.clone(), client })
    }

    pub(super) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<VerbResult, CliFailure> {
        // The API takes JSON alone.
        let verb = match verb {
            Verb::Connect(body) if !body.trim_ascii_start().starts_with(b"{") => {
                let grant = Grant::from_token_response(&body).map_err(|error| unread(&error))?;
                Verb::Connect(grant_body(&grant))
            }
            verb => verb,
        };
        self.carry_out(key, verb).await.map_err(|error| self.failure(Some(key), error))
    }

    async fn carry_out(&self, key: &TokenKey, verb: Verb) -> Result<VerbResult, ApiError> {
        let client = self.client.clone().timeout(PATIENCE);
        let status = match verb {
            Verb::Status => self.client.status(key).await?,
            Verb::Connect(body) => client.connect_response(key, body).await?,
            Verb::Refresh => return client.refresh(key).await.map(VerbResult::from),
            Verb::Hold(reason) => client.hold(key, &reason).await?,
            Verb::Release => client.release(key).await?,
            Verb::Restore => client.restore(key).await?,
            Verb::Retry => client.retry(key).await?,
            Verb::Reconnect(reason) => client.reconnect(key, &reason).await?,
            Verb::Purge => client.purge(key).await?,
            Verb::Disconnect { revoke } => {
                // The server responds before anything is revoked, and without a body: the status is read next.
                client.disconnect(key, if revoke { Revoke::Yes } else { Revoke::No }).await?;
                self.client.status(key).await?
            }
        };
        Ok(status.into())
    }

    pub(crate) fn client(&self) -> &ApiClient {
        &self.client
    }

    pub(crate) async fn list(&self, query: &GrantQuery) -> Result<(Vec<StatusBody>, Option<Cursor>), CliFailure> {
        let page = self.client.list(query).await.map_err(|error| self.failure(None, error))?;
        let next = page.next.map(|next| next.parse()).transpose()?;
        Ok((page.items, next))
    }

    pub(super) async fn token(
        &self,
        key: &TokenKey,
        min_ttl: Duration,
        timeout: Option<Duration>,
    ) -> Result<TokenBody, CliFailure> {
        let client = timeout.map_or(self.client.clone(), |timeout| self.client.clone().timeout(timeout));
        client.token(key, min_ttl).await.map_err(|error| self.failure(Some(key), error))
    }

    pub(super) async fn changed(&self, key: &TokenKey, generation: u64) -> Result<(), CliFailure> {
        let changed = self.client.next_token(key, Generation::new(generation), PATIENCE).await;
        changed.map(drop).map_err(|error| self.failure(Some(key), error))
    }

    pub(super) async fn idps(&self) -> Result<Vec<IdpBody>, CliFailure> {
        self.client.idps().await.map_err(|error| self.failure(None, error))
    }

    pub(super) async fn hold_idp(&self, idp: &str, reason: Option<&str>) -> Result<IdpBody, CliFailure> {
        let body = match reason {
            Some(reason) => self.client.hold_idp(idp, reason).await,
            None => self.client.release_idp(idp).await,
        };
        body.map_err(|error| self.failure(None, error))
    }

    pub(super) async fn offboard(&self, user: &str, revoke: Revoke) -> Result<Vec<OffboardedGrant>, CliFailure> {
        let body = self.client.offboard(user, revoke).await;
        body.map(|body| body.items).map_err(|error| self.failure(None, error))
    }

    /// Returns the state before the probe: afterwards a pause does not show.
    pub(super) async fn probe_idp(&self, idp: &str) -> Result<IdpBody, CliFailure> {
        let before = self.client.idps().await.unwrap_or_default().into_iter().find(|known| known.idp == idp);
        let after = self.client.probe_idp(idp).await.map_err(|error| self.failure(None, error))?;
        Ok(before.unwrap_or(after))
    }

    pub(super) async fn retry_idp(&self, idp: &str) -> Result<RetriedBody, CliFailure> {
        self.client.retry_idp(idp).await.map_err(|error| self.failure(None, error))
    }

    pub(super) async fn adopt(&self) -> Result<Option<String>, CliFailure> {
        self.client.adopt().await.map(|body| body.adopted_from).map_err(|error| self.failure(None, error))
    }

    pub(super) async fn keys(&self) -> Result<KeysBody, CliFailure> {
        self.client.keys().await.map_err(|error| self.failure(None, error))
    }

    pub(super) async fn reseal(&self, after: Option<u64>) -> Result<ResealedBody, CliFailure> {
        self.client.reseal(after).await.map_err(|error| self.failure(None, error))
    }

    pub(crate) async fn health(&self) -> Result<PlaceHealth, CliFailure> {
        let ready = self.client.health().await.map_err(|error| self.failure(None, error))?;
        let (body, time) = (ready.body, ready.time);
        let lacks = |what: &str| body.degraded.iter().any(|degraded| degraded == what);
        let store_ok = ![Cause::StoreDown, Cause::DiskFull].iter().any(|cause| lacks(cause.as_str()));
        let journal_pending = (!lacks("journal")).then_some(0);
        let draining = (body.status == "draining").then(|| "draining".to_owned());
        let degraded = draining.into_iter().chain(body.degraded).collect();
        let name = self.target.address.to_string();
        // A server of an earlier version does not know.
        let replicas = self.client.replicas().await.unwrap_or_default();
        Ok(PlaceHealth { name, store_ok, journal_pending, revocations: None, replicas, degraded, time })
    }

    fn failure(&self, key: Option<&TokenKey>, error: ApiError) -> CliFailure {
        match error {
            ApiError::Problem(problem) => CliFailure::of(key, *problem),
            ApiError::Transport(error) => self.unreachable(&error),
            ApiError::Foreign(status) => self.no_supervisor(status),
            ApiError::Unreadable(error) => {
                let why = if error.is_decode() { "its response cannot be read" } else { "its response broke off" };
                CliFailure::new(Exit::Failed, format!("{}: {why}", self.target.address), UNKNOWN)
            }
            error => CliFailure::new(Exit::Failed, format!("{}: {error}", self.target.address), UNKNOWN),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliFailure {
        let ServerTarget { address, proxy } = &self.target;
        let through = proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        if breaks_tls(error) {
            return CliFailure::usage(
                format!("cannot reach {address}{through}: no TLS, or a certificate that is not trusted"),
                "use http:// if the server has no TLS, or check its certificate",
            );
        }
        let (why, next) = match (error.is_timeout(), proxy) {
            (true, _) => ("it does not respond", START),
            (false, None) => ("nothing listens there", START),
            (false, Some(_)) => ("there is no connection", "check the URL of the proxy, and the one of the server"),
        };
        CliFailure::new(Exit::Later, format!("cannot reach {address}{through}: {why}"), next)
    }

    fn no_supervisor(&self, status: StatusCode) -> CliFailure {
        let text = format!("{} responded with {status}, and not as a token-supervisor does", self.target.address);
        CliFailure::new(if status.is_server_error() { Exit::Later } else { Exit::Failed }, text, UNKNOWN)
    }
}

/// The environment variable with the API key of the server.
const API_KEY: &str = "TOKEN_SUPERVISOR_API_KEY";

/// The API key, if one is set. Checked here: a key that cannot be a header would look like an unreachable server.
fn api_key() -> Result<Option<ClientSecret>, CliFailure> {
    let Some(key) = std::env::var_os(API_KEY).filter(|key| !key.is_empty()) else { return Ok(None) };
    match key.into_string() {
        Ok(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(key.into())),
        _ => Err(CliFailure::usage(
            format!("{API_KEY} is not an API key: it has a newline, a space or the like"),
            "set it to the key that token-supervisor apikey new printed, and nothing else",
        )),
    }
}

/// Whether a peer responded, and not with TLS.
fn breaks_tls(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        source = match error.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::InvalidData => return true,
            // The error that it wraps is not its source.
            Some(error) => error.get_ref().map(|error| error as _),
            None => error.source(),
        };
    }
    false
}

pub(crate) const START: &str = "start it (token-supervisor serve), or give its address with --server";
const UNKNOWN: &str = "check that --server names a token-supervisor of this version, and any proxy in front of it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_or_sockets() {
        for (text, shown) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://tokens.example.com/ts", "https://tokens.example.com/ts"),
            ("unix:/run/ts.sock", "unix:/run/ts.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in ["", "localhost:8080", "unix:ts.sock", "ftp://x", "http://user:pw@x/", "http://x/?a=b"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_api_key_goes_in_plain_text_to_this_machine_alone() {
        let exposed = |address: &str, proxy: Option<&str>| {
            let (address, proxy) = (address.parse().unwrap(), proxy.map(|proxy| proxy.parse().unwrap()));
            ServerTarget { address, proxy }.exposure()
        };
        for address in ["http://127.1.2.3:1", "http://[::1]:1", "http://LOCALHOST", "https://x", "unix:/x"] {
            assert_eq!(exposed(address, None), None, "{address}");
        }
        for address in ["http://x", "http://10.0.0.1", "http://localhost.x", "http://0.0.0.0:1", "http://[::2]:1"] {
            assert!(exposed(address, None).is_some(), "{address}");
        }
        let proxy = Some("http://alice:ts-test-secret-proxy@proxy.example:3128/x");
        assert_eq!(exposed("https://x", proxy), None);
        let through = exposed("http://127.0.0.1:8080", proxy).unwrap();
        assert_eq!(through, "plain http through http://proxy.example:3128 would expose the API key to the proxy");
    }
}
