//! A running server, asked by HTTP.

use std::{error::Error as _, fmt, io, path::PathBuf, str::FromStr, time::Duration};

use hyper::body::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::IF_NONE_MATCH, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use token_supervisor::{ClientSecret, Cursor, TokenKey, web::grant_body};
use url::Url;

use super::{Health, Verb};
use crate::cli::{
    Exit, Failure,
    args::Wanted,
    body::{GrantBody, IdpBody, Revocation, TokenBody},
    exit::Trouble,
};

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Url(Url),
    /// Its socket.
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

/// A client of one server.
pub(crate) struct Server {
    address: Address,
    http: Client,
    key: Option<ClientSecret>,
}

/// A server that says nothing at all for so long is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than it may take to answer: it ends what takes longer itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(70);
/// How long the commands that change something may take there.
const PATIENCE: &str = "60";

#[derive(Deserialize)]
struct Page {
    items: Vec<GrantBody>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Idps {
    items: Vec<IdpBody>,
}

#[derive(Deserialize)]
struct Ready {
    status: String,
    degraded: Vec<String>,
}

impl Server {
    pub(super) fn new(address: &Address) -> Result<Self, Failure> {
        // A key goes to nobody but who was named.
        let http = Client::builder().redirect(redirect::Policy::none());
        let http = http.connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN);
        let http = match address {
            Address::Url(_) => http,
            #[cfg(unix)]
            Address::Unix(path) => http.unix_socket(path.as_path()),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(Failure::usage("there are no Unix sockets here", "name the server's URL")),
        };
        let http = http.build().map_err(|error| {
            Failure::usage(format!("{address} cannot be asked: {error}"), "name the server otherwise by --server")
        })?;
        Ok(Self { address: address.clone(), http, key: key()? })
    }

    pub(super) async fn on(&self, key: &TokenKey, verb: Verb) -> Result<GrantBody, Failure> {
        let post = |action: &str| self.grant(Method::POST, key, action).query(&[("timeout", PATIENCE)]);
        let because = |action: &str, reason: &str| post(action).json(&serde_json::json!({ "reason": reason }));
        let request = match verb {
            Verb::Status => self.grant(Method::GET, key, ""),
            Verb::Connect(grant) => self
                .grant(Method::PUT, key, "")
                .query(&[("timeout", PATIENCE)])
                .header("content-type", "application/json")
                // As it is: a copy would not be wiped.
                .body(Bytes::from_owner(grant_body(&grant))),
            Verb::Refresh => post("/refresh"),
            Verb::Hold(reason) => because("/hold", &reason),
            Verb::Release => post("/release"),
            Verb::Restore => post("/restore"),
            Verb::Disconnect { revoke } => return self.disconnect(key, revoke).await,
            Verb::Purge => post("/purge"),
        };
        self.answer(request, Some(key)).await
    }

    /// The server answers before anything is revoked, and without a word: the grant is looked at next.
    async fn disconnect(&self, key: &TokenKey, revoke: bool) -> Result<GrantBody, Failure> {
        let request = self.grant(Method::DELETE, key, "").query(&[("timeout", PATIENCE)]).query(&[("revoke", revoke)]);
        self.send(request, Some(key)).await?;
        let mut body: GrantBody = self.answer(self.grant(Method::GET, key, ""), Some(key)).await?;
        if revoke {
            body.revocation = Some(self.revocation(key.idp()).await);
        }
        Ok(body)
    }

    /// What becomes of one that was asked for; an API key that may not look is told what it is in most cases.
    async fn revocation(&self, idp: &str) -> Revocation {
        let idps = self.idps().await.unwrap_or_default();
        match idps.into_iter().find(|known| known.idp == idp) {
            Some(IdpBody { revokes: false, .. }) => Revocation::NoEndpoint,
            _ => Revocation::Queued,
        }
    }

    pub(super) async fn list(&self, wanted: &Wanted) -> Result<(Vec<GrantBody>, Option<Cursor>), Failure> {
        let request = self.request(Method::GET, "/v1/grants").query(&wanted.query());
        let page: Page = self.answer(request, None).await?;
        let next = page.next.map(|next| next.parse()).transpose()?;
        Ok((page.items, next))
    }

    pub(super) async fn token(
        &self,
        key: &TokenKey,
        min_ttl: Duration,
        timeout: Option<Duration>,
    ) -> Result<TokenBody, Failure> {
        let mut request = self.grant(Method::GET, key, "/token").query(&[("min_ttl", min_ttl.as_secs())]);
        if let Some(timeout) = timeout {
            request = request.query(&[("timeout", timeout.as_secs())]);
        }
        self.answer(request, Some(key)).await
    }

    pub(super) async fn changed(&self, key: &TokenKey, generation: u64) -> Result<(), Failure> {
        let request = self.grant(Method::GET, key, "/token").query(&[("wait", PATIENCE)]);
        let response = request.header(IF_NONE_MATCH, format!("\"g{generation}\"")).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(()),
            _ => self.succeeded(response, Some(key)).await.map(drop),
        }
    }

    pub(super) async fn idps(&self) -> Result<Vec<IdpBody>, Failure> {
        let idps: Idps = self.answer(self.request(Method::GET, "/v1/idps"), None).await?;
        Ok(idps.items)
    }

    pub(super) async fn hold_idp(&self, idp: &str, reason: Option<&str>) -> Result<IdpBody, Failure> {
        let action = if reason.is_some() { "hold" } else { "release" };
        let request = self.request(Method::POST, &format!("/v1/idps/{}/{action}", encoded(idp)));
        let request = match reason {
            Some(reason) => request.json(&serde_json::json!({ "reason": reason })),
            None => request,
        };
        self.answer(request, None).await
    }

    pub(super) async fn health(&self) -> Result<Health, Failure> {
        let answer = self.request(Method::GET, "/readyz").send().await.map_err(|error| self.unreachable(&error))?;
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let time = date.and_then(|date| httpdate::parse_http_date(date).ok());
        // 503 is ours while it stops, and of any proxy before it.
        let status = answer.status();
        if !status.is_success() && status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.no_supervisor(status));
        }
        let ready: Ready = answer.json().await.map_err(|error| match status.is_success() {
            true => self.strange(&error),
            false => self.no_supervisor(status),
        })?;
        let lacks = |what: &str| ready.degraded.iter().any(|degraded| degraded == what);
        let (store_ok, journal_pending) = (!lacks("store_down"), (!lacks("journal")).then_some(0));
        let draining = (ready.status == "draining").then(|| "draining".to_owned());
        let degraded = draining.into_iter().chain(ready.degraded).collect();
        Ok(Health { name: self.address.to_string(), store_ok, journal_pending, degraded, time })
    }

    fn grant(&self, method: Method, key: &TokenKey, action: &str) -> RequestBuilder {
        let path = format!("/v1/grants/{}/{}{action}", encoded(key.idp()), encoded(key.user()));
        let request = self.request(method, &path);
        match key.account_name() {
            "" => request,
            account => request.query(&[("account", account)]),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match &self.address {
            Address::Url(url) => format!("{}{path}", url.as_str().trim_end_matches('/')),
            Address::Unix(_) => format!("http://localhost{path}"),
        };
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    /// The body of an answer that is a success.
    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder, key: Option<&TokenKey>) -> Result<T, Failure> {
        let response = self.send(request, key).await?;
        response.json().await.map_err(|error| self.strange(&error))
    }

    async fn send(&self, request: RequestBuilder, key: Option<&TokenKey>) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.succeeded(response, key).await
    }

    async fn succeeded(&self, response: Response, key: Option<&TokenKey>) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let trouble: Trouble = response.json().await.map_err(|_| self.no_supervisor(status))?;
        Err(Failure::of(key, trouble))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if breaks_tls(error) {
            return Failure::usage(
                format!("cannot reach {}: no TLS there, or none that is trusted here", self.address),
                "name it with http:// if it is to be plain, or see to its certificate",
            );
        }
        let why = if error.is_timeout() { "it does not answer" } else { "nothing answers there" };
        Failure::new(
            Exit::Later,
            format!("cannot reach {}: {why}", self.address),
            "start it (token-supervisor serve), or name the right one by --server",
        )
    }

    fn strange(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_decode() { "what it says cannot be read" } else { "its answer broke off" };
        Failure::new(Exit::Failed, format!("{}: {why}", self.address), UNKNOWN)
    }

    fn no_supervisor(&self, status: StatusCode) -> Failure {
        let text = format!("{} answers {status}, and not as a token-supervisor does", self.address);
        Failure::new(if status.is_server_error() { Exit::Later } else { Exit::Failed }, text, UNKNOWN)
    }
}

/// Where the API key of a server is looked for.
const API_KEY: &str = "TOKEN_SUPERVISOR_API_KEY";

/// The key of the server, if one is set. Checked here: else it would seem that nobody answers.
fn key() -> Result<Option<ClientSecret>, Failure> {
    let Some(key) = std::env::var_os(API_KEY).filter(|key| !key.is_empty()) else { return Ok(None) };
    match key.into_string() {
        Ok(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(key.into())),
        _ => Err(Failure::usage(
            format!("{API_KEY} is no API key: it has a newline, a space or the like"),
            "set it to what token-supervisor apikey new printed, to that alone",
        )),
    }
}

/// Whether somebody answered, and not as TLS does.
fn breaks_tls(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        source = match error.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::InvalidData => return true,
            // What it wraps is not its source.
            Some(error) => error.get_ref().map(|error| error as _),
            None => error.source(),
        };
    }
    false
}

const UNKNOWN: &str = "see that --server names a token-supervisor of this version, and what proxy stands before it";

/// As it stands in a path, for proxies that decode `%2F`, too.
fn encoded(name: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    // A dot alone would be another path.
    if name.bytes().all(plain) && !name.bytes().all(|byte| byte == b'.') {
        name.to_owned()
    } else {
        format!("~{}", URL_SAFE_NO_PAD.encode(name))
    }
}

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
    fn users_stand_in_paths_so_that_no_proxy_changes_them() {
        assert_eq!(encoded("alice@example.com"), "alice@example.com");
        assert_eq!([encoded("acme/alice"), encoded("..")], ["~YWNtZS9hbGljZQ", "~Li4"]);
        assert_eq!(encoded("~x"), "~fng");
    }
}
