//! A client of the HTTP API.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use reqwest::{
    Client, ClientBuilder, Method, RequestBuilder, StatusCode,
    header::{CONTENT_TYPE, DATE, IF_NONE_MATCH},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;
use zeroize::Zeroizing;

use super::response::{ApiError, body, read, send, succeeded, transport};
use crate::{
    AccessToken, ClientSecret, Error, Generation, Grant, Revoke, TokenKey,
    api::{
        AdoptedBody, GrantQuery, HealthBody, IdpBody, IdpsBody, KeysBody, OffboardedBody, PageBody, ReasonBody,
        RefreshedBody, RejectedBody, ReplicaBody, ReplicasBody, ResealBody, ResealedBody, RetriedBody, StatusBody,
        TokenBody, Whole, grant_body,
    },
    idp::loopback,
};

/// A client of the HTTP API of a token-supervisor that runs elsewhere.
///
/// ```
/// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
/// # doc::with_alice(async |supervisor, alice, _| {
/// # use token_supervisor::web::{ApiKey, ApiKeys, Scope, Server, api};
/// # let api_key = "ts-test-secret-key";
/// # let keys = ApiKeys::new([ApiKey::from_secret("billing", api_key).scope(Scope::Token)]);
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let url = format!("http://{}", listener.local_addr()?);
/// # let server = Server::start(api(supervisor.clone(), keys), [listener])?;
/// use std::time::Duration;
/// use token_supervisor::{Code, TokenKey, client::{ApiClient, ApiError}};
///
/// let client = ApiClient::new(&url)?.api_key(api_key); // such as https://tokens.example.com
/// let token = client.token(&alice, Duration::from_secs(60)).await?;
/// assert_eq!(token.token_type, "Bearer");
///
/// let bob = TokenKey::at("gitlab").user("bob");
/// match client.token(&bob, Duration::ZERO).await {
///     Err(ApiError::Problem(problem)) => assert_eq!(problem.code(), Some(Code::NotConnected)),
///     other => panic!("bob is not connected: {other:?}"),
/// }
/// # server.stop().await?;
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct ApiClient {
    base: String,
    http: Client,
    key: Option<ClientSecret>,
    timeout: Option<Duration>,
}

/// Whether a server is ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerHealth {
    /// What the server reports.
    pub body: HealthBody,
    /// The time by the server's clock, to the second.
    pub time: Option<SystemTime>,
}

/// Limit for a connection to the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the longest timeout that a request can set: the server ends a request before this.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(70);

impl ApiClient {
    /// Creates a client of the server at this URL, which may have a path. The API key reaches that server alone: the client
    /// follows no redirects, ignores the proxies in the environment (`HTTP_PROXY` and the like), and uses plain http on
    /// loopback only.
    ///
    /// # Errors
    /// [`Error::Configuration`] if it is not an https URL (or http on loopback), or if TLS cannot be set up.
    pub fn new(url: &str) -> Result<Self, Error> {
        let http = Self::http().build();
        let http = http.map_err(|error| Error::Configuration(format!("the HTTP client cannot be set up: {error}")))?;
        let client = Self::with_http(url, &http)?;
        if url.parse().is_ok_and(|url: Url| url.scheme() == "http" && !loopback(&url)) {
            let text = "plain http to another machine would expose the API key: use https, or \
                ApiClient::with_http if the network between is trusted";
            return Err(Error::Configuration(text.to_owned()));
        }
        Ok(client)
    }

    /// Returns the settings of the HTTP client that [`new`](Self::new) uses, to adapt them for
    /// [`with_http`](Self::with_http): no redirects, no proxy, and timeouts that suit the server.
    pub fn http() -> ClientBuilder {
        let http = Client::builder().redirect(redirect::Policy::none()).referer(false).no_proxy();
        http.connect_timeout(CONNECT_TIMEOUT).timeout(RESPONSE_TIMEOUT)
    }

    /// Creates a client that sends its requests through `http`, whose redirects, proxies and timeouts apply. Start from
    /// [`http`](Self::http): the default client of `reqwest` would also send the API key to the proxies in the environment,
    /// even for a server on loopback. Plain http is not refused.
    ///
    /// # Errors
    /// [`Error::Configuration`] if `url` is not an http or https URL.
    pub fn with_http(url: &str, http: &Client) -> Result<Self, Error> {
        let plain = |url: &Url| {
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.has_host()
        };
        let parsed = url.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && plain(url));
        let wrong = || "the server's URL must be http or https, such as https://tokens.example.com".to_owned();
        let parsed = parsed.ok_or_else(|| Error::Configuration(wrong()))?;
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self { base, http: http.clone(), key: None, timeout: None })
    }

    /// Sends this API key with every request.
    pub fn api_key(self, key: impl Into<ClientSecret>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Sets the deadline of requests about one grant, at most 60 s; 10 s unless set. What was started continues after it.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Returns a token that is valid for at least `min_ttl`, refreshed if necessary.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn token(&self, key: &TokenKey, min_ttl: Duration) -> Result<TokenBody, ApiError> {
        read(self.grant(Method::GET, key, "/token").query(&[("min_ttl", min_ttl.as_secs())])).await
    }

    /// Waits up to `wait` (at most 60 s) for a token of another generation, and returns it; `None` if there is none yet.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn next_token(
        &self,
        key: &TokenKey,
        known: Generation,
        wait: Duration,
    ) -> Result<Option<TokenBody>, ApiError> {
        let request = self.grant(Method::GET, key, "/token").query(&[("wait", wait.as_secs())]);
        let response = request.header(IF_NONE_MATCH, format!("\"{known}\"")).send().await.map_err(transport)?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            _ => body(succeeded(response).await?).await.map(Some),
        }
    }

    /// Returns the state of a grant.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn status(&self, key: &TokenKey) -> Result<StatusBody, ApiError> {
        read(self.grant(Method::GET, key, "")).await
    }

    /// Stores the tokens from the user's consent. A replay changes nothing and says so in [`StatusBody::unchanged`].
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn connect(&self, key: &TokenKey, grant: &Grant) -> Result<StatusBody, ApiError> {
        let request = self.grant(Method::PUT, key, "").header(CONTENT_TYPE, "application/json");
        // The body itself: a copy would not be wiped.
        read(request.body(Bytes::from_owner(grant_body(grant)))).await
    }

    /// Connects the unchanged response of a token endpoint, a JSON object, which the server reads by the provider's settings.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn connect_response(&self, key: &TokenKey, body: Zeroizing<Vec<u8>>) -> Result<StatusBody, ApiError> {
        let request = self.grant(Method::PUT, key, "").header(CONTENT_TYPE, "application/json");
        read(request.body(Bytes::from_owner(body))).await
    }

    /// Refreshes although the token is not due.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn refresh(&self, key: &TokenKey) -> Result<RefreshedBody, ApiError> {
        read(self.grant(Method::POST, key, "/refresh")).await
    }

    /// Reports that a resource server refused the token of this generation.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn rejected(&self, key: &TokenKey, generation: Generation) -> Result<StatusBody, ApiError> {
        let body = RejectedBody { generation: Some(Whole(generation.get())), access_token: None };
        self.change(key, "/rejected", &body).await
    }

    /// Reports that a resource server refused this token.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn rejected_token(&self, key: &TokenKey, token: &AccessToken) -> Result<StatusBody, ApiError> {
        let body = RejectedBody { generation: None, access_token: Some(token.clone()) };
        self.change(key, "/rejected", &body).await
    }

    /// Requires the user to consent again, until the next connect.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn reconnect(&self, key: &TokenKey, reason: &str) -> Result<StatusBody, ApiError> {
        self.change(key, "/reconnect", &because(reason)).await
    }

    /// Puts the grant on hold: nothing is sent for it until it is released.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn hold(&self, key: &TokenKey, reason: &str) -> Result<StatusBody, ApiError> {
        self.change(key, "/hold", &because(reason)).await
    }

    /// Ends a hold of the grant.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn release(&self, key: &TokenKey) -> Result<StatusBody, ApiError> {
        read(self.grant(Method::POST, key, "/release")).await
    }

    /// Reverses a disconnect, unless a token of the grant is or may be lost.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn restore(&self, key: &TokenKey) -> Result<StatusBody, ApiError> {
        read(self.grant(Method::POST, key, "/restore")).await
    }

    /// Sends the grant's refused refresh token once more. Changes nothing unless the identity provider refused it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn retry(&self, key: &TokenKey) -> Result<StatusBody, ApiError> {
        read(self.grant(Method::POST, key, "/retry")).await
    }

    /// Deletes the stored data of a disconnected grant.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn purge(&self, key: &TokenKey) -> Result<StatusBody, ApiError> {
        read(self.grant(Method::POST, key, "/purge")).await
    }

    /// Disconnects the grant. This takes effect immediately; a revocation is queued and retried.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn disconnect(&self, key: &TokenKey, revoke: Revoke) -> Result<(), ApiError> {
        let revoke = matches!(revoke, Revoke::Yes);
        send(self.grant(Method::DELETE, key, "").query(&[("revoke", revoke)])).await.map(drop)
    }

    /// Disconnects all grants of a user. Each has its own result.
    ///
    /// # Errors
    /// See [`ApiError`]; nothing was disconnected then.
    pub async fn offboard(&self, user: &str, revoke: Revoke) -> Result<OffboardedBody, ApiError> {
        let revoke = if matches!(revoke, Revoke::Yes) { "true" } else { "false" };
        read(self.request(Method::DELETE, "/v1/grants").query(&[("user", user), ("revoke", revoke)])).await
    }

    /// Returns a page of grants.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list(&self, query: &GrantQuery) -> Result<PageBody, ApiError> {
        read(self.request(Method::GET, "/v1/grants").query(&query.parameters())).await
    }

    /// Returns the state of each identity provider that the API key reaches.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn idps(&self) -> Result<Vec<IdpBody>, ApiError> {
        let body: IdpsBody = read(self.request(Method::GET, "/v1/idps")).await?;
        Ok(body.items)
    }

    /// Puts an identity provider on hold: no request to it is started until it is released.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn hold_idp(&self, idp: &str, reason: &str) -> Result<IdpBody, ApiError> {
        read(self.idp(idp, "hold").json(&because(reason))).await
    }

    /// Ends a hold of an identity provider.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn release_idp(&self, idp: &str) -> Result<IdpBody, ApiError> {
        read(self.idp(idp, "release")).await
    }

    /// Lets the next request to a paused identity provider through.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn probe_idp(&self, idp: &str) -> Result<IdpBody, ApiError> {
        read(self.idp(idp, "probe")).await
    }

    /// Sends the refused refresh tokens of an identity provider once more, at most 1 000 in one request.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn retry_idp(&self, idp: &str) -> Result<RetriedBody, ApiError> {
        read(self.idp(idp, "retry")).await
    }

    /// Takes over a store that belongs to another deployment, and ends the hold of all identity providers that comes with it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn adopt(&self) -> Result<AdoptedBody, ApiError> {
        read(self.request(Method::POST, "/v1/adopt")).await
    }

    /// Returns the processes that work with the server's store and live.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn replicas(&self) -> Result<Vec<ReplicaBody>, ApiError> {
        let body: ReplicasBody = read(self.request(Method::GET, "/v1/replicas")).await?;
        Ok(body.items)
    }

    /// Returns the keys that seal stored values, what needs each of them, and the processes that have them.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn keys(&self) -> Result<KeysBody, ApiError> {
        read(self.request(Method::GET, "/v1/keys")).await
    }

    /// Seals stored values with the active key that other keys sealed, for about a second: from the start, or from `next` of the
    /// response before.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn reseal(&self, after: Option<u64>) -> Result<ResealedBody, ApiError> {
        read(self.request(Method::POST, "/v1/keys/reseal").json(&ResealBody { after: after.map(Whole) })).await
    }

    /// Returns whether the server is ready. A server that is stopping is not an error.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn health(&self) -> Result<ServerHealth, ApiError> {
        let response = self.request(Method::GET, "/readyz").send().await.map_err(transport)?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let time = date.and_then(|date| httpdate::parse_http_date(date).ok());
        // A proxy responds with 503 as well.
        let status = response.status();
        match body(response).await {
            Ok(body) if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE => {
                Ok(ServerHealth { body, time })
            }
            Err(error) if status.is_success() => Err(error),
            _ => Err(ApiError::Foreign(status)),
        }
    }

    async fn change<T: DeserializeOwned>(
        &self,
        key: &TokenKey,
        action: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        read(self.grant(Method::POST, key, action).json(body)).await
    }

    fn idp(&self, idp: &str, action: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/idps/{}/{action}", encoded(idp)))
    }

    fn grant(&self, method: Method, key: &TokenKey, action: &str) -> RequestBuilder {
        let path = format!("/v1/grants/{}/{}{action}", encoded(key.idp()), encoded(key.user()));
        let mut request = self.request(method, &path);
        if !key.account_name().is_empty() {
            request = request.query(&[("account", key.account_name())]);
        }
        match self.timeout {
            Some(timeout) => request.query(&[("timeout", timeout.as_secs())]),
            None => request,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }
}

fn because(reason: &str) -> ReasonBody {
    ReasonBody { reason: reason.to_owned() }
}

/// Encodes a name as a segment of a path, also for proxies that decode `%2F`.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    // A segment of dots alone would name another path.
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
    fn users_are_encoded_so_that_no_proxy_changes_them() {
        assert_eq!(encoded("alice@example.com"), "alice@example.com");
        assert_eq!([encoded("acme/alice"), encoded("..")], ["~YWNtZS9hbGljZQ", "~Li4"]);
        assert_eq!(encoded("~x"), "~fng");
    }

    #[test]
    fn a_server_has_an_http_url() {
        let client = ApiClient::new("http://127.0.0.1:8080/ts/").unwrap().api_key("ts-test-secret-key");
        assert_eq!(client.base, "http://127.0.0.1:8080/ts");
        assert!(!format!("{client:?}").contains("ts-test-secret-key"));
        for url in ["", "localhost:8080", "ftp://x", "http://user:pw@x/", "http://x/?a=b"] {
            assert!(matches!(ApiClient::new(url), Err(Error::Configuration(_))), "{url}");
        }
        for url in ["http://localhost", "http://127.9.8.7:1", "http://[::1]:1", "https://x"] {
            ApiClient::new(url).unwrap();
        }
        let http = ApiClient::http().build().unwrap();
        for url in ["http://x", "http://10.0.0.1:1", "http://localhost.x", "http://127.0.0.1.x", "http://0.0.0.0:1"] {
            let refused = ApiClient::new(url).unwrap_err().to_string();
            assert!(refused.contains("plain http"), "{url}: {refused}");
            ApiClient::with_http(url, &http).unwrap();
        }
    }
}
