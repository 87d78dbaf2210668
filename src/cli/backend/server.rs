//! A running server, through its HTTP API.

use std::{error::Error as _, fmt, io, path::PathBuf, str::FromStr, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use token_supervisor::{
    Cause, ClientSecret, Cursor, Generation, Grant, Revoke, TokenKey,
    api::{GrantQuery, IdpBody, RetriedBody, StatusBody, TokenBody},
    client::{ApiClient, ApiError},
    web::grant_body,
};
use url::Url;

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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A server and the client of its API.
pub(crate) struct ServerBackend {
    address: Address,
    client: ApiClient,
}

/// Limit for a connection to the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the longest timeout of a request: the server ends a request before this.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(70);
/// The timeout of commands that make a change, and the longest wait for another token.
const PATIENCE: Duration = Duration::from_secs(60);

impl ServerBackend {
    pub(super) fn new(address: &Address) -> Result<Self, CliFailure> {
        // The API key is for the named server alone.
        let http = Client::builder().redirect(redirect::Policy::none());
        let http = http.connect_timeout(CONNECT_TIMEOUT).timeout(RESPONSE_TIMEOUT);
        let (http, url) = match address {
            Address::Url(url) => (http, url.as_str()),
            #[cfg(unix)]
            Address::Unix(path) => (http.unix_socket(path.as_path()), "http://localhost"),
            #[cfg(not(unix))]
            Address::Unix(_) => {
                return Err(CliFailure::usage("this system has no Unix sockets", "name the server's URL"));
            }
        };
        let http = http.build().map_err(|error| {
            CliFailure::usage(
                format!("cannot connect to {address}: {error}"),
                "name the server by another URL with --server",
            )
        })?;
        let client = ApiClient::with_http(url, &http)?;
        let client = match api_key()? {
            Some(key) => client.api_key(key),
            None => client,
        };
        Ok(Self { address: address.clone(), client })
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
            Verb::Purge => client.purge(key).await?,
            Verb::Disconnect { revoke } => {
                // The server responds before anything is revoked, and without a body: the status is read next.
                client.disconnect(key, if revoke { Revoke::Yes } else { Revoke::No }).await?;
                self.client.status(key).await?
            }
        };
        Ok(status.into())
    }

    pub(super) async fn list(&self, query: &GrantQuery) -> Result<(Vec<StatusBody>, Option<Cursor>), CliFailure> {
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

    pub(super) async fn retry_idp(&self, idp: &str) -> Result<RetriedBody, CliFailure> {
        self.client.retry_idp(idp).await.map_err(|error| self.failure(None, error))
    }

    pub(super) async fn health(&self) -> Result<PlaceHealth, CliFailure> {
        let ready = self.client.health().await.map_err(|error| self.failure(None, error))?;
        let (body, time) = (ready.body, ready.time);
        let lacks = |what: &str| body.degraded.iter().any(|degraded| degraded == what);
        let (store_ok, journal_pending) = (!lacks(Cause::StoreDown.as_str()), (!lacks("journal")).then_some(0));
        let draining = (body.status == "draining").then(|| "draining".to_owned());
        let degraded = draining.into_iter().chain(body.degraded).collect();
        Ok(PlaceHealth { name: self.address.to_string(), store_ok, journal_pending, revocations: None, degraded, time })
    }

    fn failure(&self, key: Option<&TokenKey>, error: ApiError) -> CliFailure {
        match error {
            ApiError::Problem(problem) => CliFailure::of(key, *problem),
            ApiError::Transport(error) => self.unreachable(&error),
            ApiError::Foreign(status) => self.no_supervisor(status),
            ApiError::Unreadable(error) => {
                let why = if error.is_decode() { "its response cannot be read" } else { "its response broke off" };
                CliFailure::new(Exit::Failed, format!("{}: {why}", self.address), UNKNOWN)
            }
            error => CliFailure::new(Exit::Failed, format!("{}: {error}", self.address), UNKNOWN),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliFailure {
        if breaks_tls(error) {
            return CliFailure::usage(
                format!("cannot reach {}: no TLS, or a certificate that is not trusted", self.address),
                "use http:// if the server has no TLS, or check its certificate",
            );
        }
        let why = if error.is_timeout() { "it does not respond" } else { "nothing listens there" };
        CliFailure::new(
            Exit::Later,
            format!("cannot reach {}: {why}", self.address),
            "start it (token-supervisor serve), or give its address with --server",
        )
    }

    fn no_supervisor(&self, status: StatusCode) -> CliFailure {
        let text = format!("{} responded with {status}, and not as a token-supervisor does", self.address);
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
}
