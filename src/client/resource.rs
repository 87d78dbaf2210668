//! Requests to resource servers with a user's token.

use reqwest::{
    Client, Request, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use url::{Origin, Url};

use crate::{Error, Token, TokenKey, TokenSupervisor, idp::loopback};

/// A `reqwest` client that adds the token of one key to its requests, to the hosts that it was given and to no other.
///
/// ```
/// # use token_supervisor::{TokenKey, TokenSupervisor};
/// use token_supervisor::client::{CallError, TokenClient};
///
/// async fn repositories(supervisor: &TokenSupervisor, http: &reqwest::Client) -> Result<String, CallError> {
///     let github = TokenClient::new(supervisor, &TokenKey::at("github").user("alice"), http)
///         .host("https://api.github.com")?;
///     let request = http.get("https://api.github.com/user/repos").build()?;
///     Ok(github.execute(request).await?.text().await?)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TokenClient {
    supervisor: TokenSupervisor,
    key: TokenKey,
    http: Client,
    hosts: Vec<Origin>,
}

/// Why there is no response of the resource server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No token was obtained, so nothing was sent to the resource server.
    #[error(transparent)]
    Token(#[from] Error),
    /// The request is for a host that the client was not given. Nothing was sent.
    #[error("nothing was sent: the request's host is not among the hosts of this client; add it with host()")]
    OtherHost,
    /// The request to the resource server failed.
    #[error("the resource server cannot be reached, or the connection was lost")]
    Http(#[source] reqwest::Error),
}

impl From<reqwest::Error> for CallError {
    /// Removes the URL: its query may hold private data.
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl TokenClient {
    /// Creates a client of this key that has no host yet: see [`host`](Self::host). Redirects, proxies and timeouts of
    /// `http` apply; it never sends a token along to another host.
    ///
    /// Unless it is built with `no_proxy()`, a `reqwest` client takes its proxies from the environment. For an https host
    /// such a proxy sees no token; for an http host on loopback it does.
    pub fn new(supervisor: &TokenSupervisor, key: &TokenKey, http: &Client) -> Self {
        Self { supervisor: supervisor.clone(), key: key.clone(), http: http.clone(), hosts: Vec::new() }
    }

    /// Adds a host: scheme, host and port of a URL such as `https://api.github.com`.
    ///
    /// # Errors
    /// [`Error::Configuration`] if it is not a URL, or not https (except on loopback).
    pub fn host(mut self, url: &str) -> Result<Self, Error> {
        let wrong = || Error::Configuration("the host must be an https URL such as https://api.github.com".to_owned());
        let url = Url::parse(url).map_err(|_| wrong())?;
        match url.scheme() {
            "https" => {}
            "http" if loopback(&url) => {}
            _ => return Err(wrong()),
        }
        self.hosts.push(url.origin());
        Ok(self)
    }

    /// Sends the request with a valid token. If the resource server responds with 401, the token is reported as rejected,
    /// and the request is sent once more with the next token, if there is one and the body can be sent again. If there is
    /// no other token for now, the 401 is returned.
    ///
    /// Dropping the future cancels the request; a refresh that it started continues.
    ///
    /// # Errors
    /// See [`CallError`]. A response of the resource server is not an error, whatever its status, except a 401 when the
    /// user must consent: that is [`Error::ReconnectRequired`] or [`Error::NotConnected`].
    pub async fn execute(&self, request: Request) -> Result<Response, CallError> {
        if !self.knows(request.url()) {
            return Err(CallError::OtherHost);
        }
        let (asked, again) = (request.url().origin(), request.try_clone());
        let token = self.supervisor.token(&self.key).await?;
        let response = self.send(request, &token).await?;
        // After a redirect to another host the 401 does not concern the token, which was not sent there.
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != asked {
            return Ok(response);
        }
        match (self.next(&token, again.is_some()).await, again) {
            (Ok(Some(next)), Some(again)) => self.send(again, &next).await,
            (Err(error @ (Error::ReconnectRequired { .. } | Error::NotConnected)), _) => Err(error.into()),
            // The response says more than the error that there is no other token now.
            _ => Ok(response),
        }
    }

    /// Reports the token, and returns its replacement if one is wanted.
    async fn next(&self, refused: &Token, wanted: bool) -> Result<Option<Token>, Error> {
        self.supervisor.report_rejected(&self.key, refused.generation()).await?;
        if !wanted {
            return Ok(None);
        }
        let next = self.supervisor.token(&self.key).await?;
        Ok((next.generation() != refused.generation()).then_some(next))
    }

    async fn send(&self, mut request: Request, token: &Token) -> Result<Response, CallError> {
        let mut value = HeaderValue::from_str(&token.authorization())
            .map_err(|_| Error::Internal("a stored token cannot be a header"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(self.http.execute(request).await?)
    }

    fn knows(&self, url: &Url) -> bool {
        self.hosts.contains(&url.origin())
    }
}
