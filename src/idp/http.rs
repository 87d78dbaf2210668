//! The HTTP client for providers: each request is written at most once, and its response is read up to a limit.
//!
//! Conveniences of client libraries are switched off, because each of them may send a refresh token twice or to another
//! host: redirects, retries (reqwest replays HTTP/2 `REFUSED_STREAM` and `GOAWAY` by default), proxies from the
//! environment, idle connections older than a second (on a stale connection "never seen" and "processed" look alike),
//! early data. hyper still retries if a reused connection turns out closed before a byte of the request was written. A
//! request that is handed over just as its connection ends may get no result (hyper's issue 4122): it was not sent, but
//! ends with the timeout, in doubt.
//!
//! Timeouts here are real time, not the `Clock` port: they belong to sockets.

use std::{
    collections::BTreeMap,
    pin::{Pin, pin},
    time::Duration,
};

use reqwest::{
    RequestBuilder, Response, Version,
    header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE},
    header::{HeaderMap, HeaderName, HeaderValue},
    header::{RETRY_AFTER, TRANSFER_ENCODING},
};
use tokio::select;
use url::form_urlencoded::Serializer;
use zeroize::{Zeroize, Zeroizing};

use super::{
    connecting::fault_of,
    encoding::{self, TooLarge},
    lane::Lane,
    outcome::{IdpFailure, LONGEST_RETRY_AFTER, RawResponse, ResponseOutcome, classify, classify_revocation},
    patience, probe,
    provider::{ClientAuth, Credentials, Idp, RESERVED_PARAMS},
    rule::Meaning,
};
use crate::{
    clock::Clock,
    code::EvidenceCode,
    model::{AccessToken, Evidence, RefreshToken, WallTime},
};

/// A larger body is not read: token responses have a few kilobytes.
const LARGEST_BODY: usize = 1024 * 1024;
/// More header lines are not read. Their bytes are limited by hyper.
const MOST_HEADERS: usize = 1_000;
/// The timeout of a revocation. No caller waits for it.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of [`Client::reach`] and of probes.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections to one identity provider. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    clock: Clock,
    lane: Lane,
}

impl Client {
    /// Creates a client for `idp`, with the provider's own `connect_timeout` if it has one. `clock` serves
    /// `Retry-After`.
    ///
    /// # Errors
    /// TLS cannot be set up because this machine has no CA certificates; providers without https do not need it. Or there is no
    /// thread for the provider.
    pub(crate) fn new(idp: &Idp, connect_timeout: Duration, clock: Clock) -> Result<Self, String> {
        let http = builder(idp, connect_timeout)
            .build()
            .map_err(|_| "cannot set up TLS: install CA certificates (package ca-certificates)".to_owned())?;
        let lane = Lane::start().map_err(|error| format!("the operating system gave no thread: {error}"))?;
        Ok(Self { http, clock, lane })
    }

    /// Spends `refresh_token`: sends one request with the credentials at the index `credentials` and returns its
    /// outcome. `params` are the grant's own parameters of the endpoint.
    ///
    /// Once polled, the future must run to its end: dropping it closes the connection, and a rotated token on its way
    /// is lost. `patience` is the time from now until the last byte of the response.
    pub(crate) async fn refresh(
        &self,
        idp: &Idp,
        credentials: usize,
        refresh_token: &RefreshToken,
        params: &BTreeMap<String, String>,
        patience: Duration,
    ) -> ResponseOutcome {
        let mut fields = BTreeMap::new();
        fields.extend(idp.scope.as_ref().map(|scope| ("scope", scope.as_str())));
        // Grants of older versions may have form fields of their own.
        let own = params.iter().filter(|(name, _)| !idp.endpoint_params.contains_key(*name));
        fields.extend(idp.params.iter().chain(own).map(|(name, value)| (name.as_str(), value.as_str())));
        fields.retain(|name, _| !RESERVED_PARAMS.contains(name));
        let secret = refresh_token.expose_secret();
        let own = [("grant_type", "refresh_token"), ("refresh_token", secret)];
        let Ok(url) = idp.token_endpoint(params) else {
            return ResponseOutcome::NotSpent(IdpFailure::ours(EvidenceCode::BadRequest));
        };
        let request = self.form(idp, credentials, &url, own.into_iter().chain(fields));
        match self.send(idp, request, patience).await {
            Ok((response, cut)) => with_reason(classify(idp, &response, secret), cut),
            Err(NoResponse::Unsent(failure)) => ResponseOutcome::NotSpent(failure),
            Err(NoResponse::InDoubt(failure)) => ResponseOutcome::Unknown(failure),
        }
    }

    /// Revokes `token` (RFC 7009) of a grant with these parameters.
    ///
    /// # Errors
    /// Why the token may not have been revoked. Repeating is harmless.
    pub(crate) async fn revoke(
        &self,
        idp: &Idp,
        credentials: usize,
        token: &RefreshToken,
        params: &BTreeMap<String, String>,
    ) -> Result<(), IdpFailure> {
        let url = idp.revocation_endpoint(params).map_err(|_| IdpFailure::ours(EvidenceCode::BadRequest))?;
        let Some(url) = &url else { return Err(IdpFailure::ours(EvidenceCode::NoRevocationUrl)) };
        let own = [("token", token.expose_secret()), ("token_type_hint", "refresh_token")];
        let request = self.form(idp, credentials, url, own);
        let (response, _) = self
            .send(idp, request, REVOCATION_TIMEOUT)
            .await
            .map_err(|(NoResponse::Unsent(failure) | NoResponse::InDoubt(failure))| failure)?;
        classify_revocation(idp, &response, token.expose_secret())
    }

    /// Asks the provider whether the refresh token is active (RFC 7662), without spending it. `None` if it cannot be asked.
    ///
    /// # Errors
    /// Why it does not say. Repeating is harmless.
    pub(crate) async fn introspect(
        &self,
        idp: &Idp,
        credentials: usize,
        token: &RefreshToken,
        params: &BTreeMap<String, String>,
    ) -> Option<Result<bool, IdpFailure>> {
        let [url, _] = idp.probe_endpoints(params).ok()?;
        let own = [("token", token.expose_secret()), ("token_type_hint", "refresh_token")];
        let request = self.form(idp, credentials, &url?, own);
        Some(self.probe(idp, request).await.and_then(|response| probe::introspected(&response)))
    }

    /// Asks the provider whether it accepts the access token. `None` if it cannot be asked.
    ///
    /// # Errors
    /// Why it does not say. Repeating is harmless.
    pub(crate) async fn accepts(
        &self,
        idp: &Idp,
        token: &AccessToken,
        params: &BTreeMap<String, String>,
    ) -> Option<Result<bool, IdpFailure>> {
        let [_, url] = idp.probe_endpoints(params).ok()?;
        let scheme = idp.authorization_scheme.as_deref().unwrap_or("Bearer");
        let text = Zeroizing::new(format!("{scheme} {}", token.expose_secret()));
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        let request = self.http.get(&url?).header(ACCEPT, "application/json").header(AUTHORIZATION, header);
        Some(self.probe(idp, request).await.and_then(|response| probe::accepted(&response)))
    }

    async fn probe(&self, idp: &Idp, request: RequestBuilder) -> Result<RawResponse, IdpFailure> {
        match self.send(idp, request, REACH_TIMEOUT).await {
            Ok((response, _)) => Ok(response),
            Err(NoResponse::Unsent(failure) | NoResponse::InDoubt(failure)) => Err(failure),
        }
    }

    /// Sends an empty, unauthenticated request to the token endpoint. Returns the status and the time of the response.
    ///
    /// # Errors
    /// The code of the reason why there is no response.
    pub(crate) async fn reach(&self, idp: &Idp) -> Result<(u16, Option<WallTime>), Evidence> {
        let Ok(url) = idp.token_endpoint(&BTreeMap::new()) else {
            return Err(Evidence::ours(EvidenceCode::BadRequest));
        };
        let (http, request) = self.http.get(&url).build_split();
        let request = request.map_err(|_| Evidence::ours(EvidenceCode::BadRequest))?;
        match self.head(http, request, pin!(patience::run_out(REACH_TIMEOUT))).await {
            Ok(response) => {
                let date = response.headers().get(DATE).and_then(|value| date(value.to_str().ok()?));
                Ok((response.status().as_u16(), date))
            }
            Err(NoHead::Failed(error)) if error.is_connect() => Err(connect_failed(&error)),
            Err(NoHead::Timeout) => Err(Evidence::ours(EvidenceCode::Timeout)),
            Err(NoHead::Failed(_) | NoHead::Gone) => Err(Evidence::ours(EvidenceCode::ConnectionLost)),
        }
    }

    /// Sends the request on the provider's lane, and awaits the head of the response. Data that has arrived is read before
    /// the patience is checked.
    async fn head(
        &self,
        http: reqwest::Client,
        request: reqwest::Request,
        patience: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response, NoHead> {
        let mut sent = self.lane.spawn(http.execute(request)).ok_or(NoHead::Gone)?;
        select! {
            biased;
            response = &mut sent => response.map_err(|_| NoHead::Gone)?.map_err(NoHead::Failed),
            () = patience => {
                sent.abort();
                Err(NoHead::Timeout)
            }
        }
    }

    /// Builds a POST of `fields` with the client's authentication.
    ///
    /// The form is not zeroized: the HTTP stack copies it on its way to the socket and zeroizes nothing, so zeroizing
    /// this copy alone would not help.
    fn form<'a>(
        &self,
        idp: &'a Idp,
        credentials: usize,
        url: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> RequestBuilder {
        let credentials = &idp.clients[credentials];
        let (client_id, secret) = (&credentials.client_id, credentials.client_secret.expose_secret());
        let mut form = Serializer::new(String::with_capacity(4 * 1024));
        form.extend_pairs(fields);
        let mut request = self.http.post(url).header(ACCEPT, "application/json");
        match idp.client_auth {
            ClientAuth::Basic => request = request.header(AUTHORIZATION, basic(credentials)),
            ClientAuth::BasicAndId => {
                request = request.header(AUTHORIZATION, basic(credentials));
                form.append_pair("client_id", client_id);
            }
            ClientAuth::Body => {
                form.append_pair("client_id", client_id).append_pair("client_secret", secret);
            }
            ClientAuth::None => {
                form.append_pair("client_id", client_id);
            }
        }
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
    }

    /// Sends the request and reads the response. If the response was cut off, returns the code of the reason beside it.
    /// Data that has arrived is read before the timeout is checked.
    async fn send(
        &self,
        idp: &Idp,
        request: RequestBuilder,
        patience: Duration,
    ) -> Result<(RawResponse, Option<EvidenceCode>), NoResponse> {
        let (http, request) = request.build_split();
        let unsent = |code| NoResponse::Unsent(IdpFailure::ours(code));
        let request = request.map_err(|_| unsent(EvidenceCode::BadRequest))?;
        let mut patience = pin!(patience::run_out(patience));
        let in_doubt = |code| NoResponse::InDoubt(IdpFailure::ours(code));
        let mut response = self.head(http, request, patience.as_mut()).await.map_err(|none| match none {
            // Name resolution, connection or TLS failed: no byte of the request was written.
            NoHead::Failed(error) if error.is_connect() => NoResponse::Unsent(IdpFailure::of(connect_failed(&error))),
            NoHead::Failed(_) | NoHead::Gone => in_doubt(EvidenceCode::ConnectionLost),
            NoHead::Timeout => in_doubt(EvidenceCode::Timeout),
        })?;
        let (body, cut) = read(&mut response, patience).await;
        let head = Head {
            status: response.status().as_u16(),
            http2: response.version() >= Version::HTTP_2,
            headers: response.headers(),
        };
        Ok(head.with_body(idp, body, cut, self.clock.now()))
    }
}

/// A response without its body.
struct Head<'a> {
    status: u16,
    http2: bool,
    headers: &'a HeaderMap,
}

impl Head<'_> {
    /// Adds the body, as far as it was read, without its codings. Returns the code of the reason if it is incomplete. Pure.
    fn with_body(
        &self,
        idp: &Idp,
        body: Zeroizing<Vec<u8>>,
        cut: Option<EvidenceCode>,
        now: WallTime,
    ) -> (RawResponse, Option<EvidenceCode>) {
        let text = |name: &HeaderName| self.headers.get(name).and_then(|value| value.to_str().ok());
        // Uses the date of the response if it has one, so that the difference of the clocks does not matter.
        let now = text(&DATE).and_then(date).unwrap_or(now);
        let (body, cut) = match cut {
            None => match encoding::decoded(body, self.codings(), LARGEST_BODY) {
                Ok(body) => (body, None),
                Err(TooLarge) => (Zeroizing::default(), Some(EvidenceCode::AnswerTooLarge)),
            },
            cut => (body, cut),
        };
        let response = RawResponse {
            status: self.status,
            complete: cut.is_none(),
            framed: self.framed(),
            content_type: text(&CONTENT_TYPE).map(str::to_owned),
            retry_after: text(&RETRY_AFTER).and_then(|value| retry_after(value, now)),
            rate_limit_reset: idp.rate_limit_reset_header.as_ref().and_then(|name| reset(self.headers, name, now)),
            correlation: correlation(self.headers, &idp.correlation_header),
            now,
            body,
        };
        (response, cut)
    }

    /// The codings of the body in the order in which they were applied; those of the transfer came last.
    fn codings(&self) -> impl Iterator<Item = &str> {
        let headers = [CONTENT_ENCODING, TRANSFER_ENCODING];
        headers.into_iter().flat_map(|name| self.headers.get_all(name)).filter_map(|value| value.to_str().ok())
    }

    fn framed(&self) -> bool {
        if self.http2 {
            return true;
        }
        let codings = self.headers.get_all(TRANSFER_ENCODING).iter().next_back();
        match codings.map(|value| value.to_str().unwrap_or_default()) {
            // RFC 9112, section 6.3: with another last coding the body ends with the connection, whatever the length
            // says.
            Some(codings) => codings.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked")),
            None => self.headers.contains_key(CONTENT_LENGTH),
        }
    }
}

/// Returns the outcome that [`Client::refresh`] returns for such a response.
#[cfg(any(test, fuzzing))]
pub(crate) fn outcome_of(
    idp: &Idp,
    (status, http2): (u16, bool),
    headers: &[(&[u8], &[u8])],
    body: &[u8],
    cut: bool,
    secret: &str,
) -> ResponseOutcome {
    let header = |(name, value): &(&[u8], &[u8])| {
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter().filter_map(header) {
        map.append(name, value);
    }
    let head = Head { status, http2, headers: &map };
    let (body, cut) = (Zeroizing::new(body.to_vec()), cut.then_some(EvidenceCode::Timeout));
    let (response, cut) = head.with_body(idp, body, cut, WallTime(1_800_000_000_000));
    with_reason(classify(idp, &response, secret), cut)
}

fn builder(idp: &Idp, connect_timeout: Duration) -> reqwest::ClientBuilder {
    let https = |url: &String| url.starts_with("https:");
    let builder = reqwest::Client::builder()
        .user_agent(concat!("token-supervisor/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        // A flaw in one header must not cost the tokens in the body.
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_max_headers(MOST_HEADERS)
        .connect_timeout(idp.timing.connect_timeout.unwrap_or(connect_timeout))
        .pool_idle_timeout(Duration::from_secs(1));
    let more = [&idp.revocation_url, &idp.introspection_url, &idp.userinfo_url];
    if https(&idp.token_url) || more.into_iter().flatten().any(https) {
        builder
    } else {
        // Without CA certificates, building fails even if no request needs them.
        builder.tls_certs_only([])
    }
}

/// A request without the head of a response.
enum NoHead {
    Failed(reqwest::Error),
    Timeout,
    /// The provider's lane has ended.
    Gone,
}

/// A request without a response.
enum NoResponse {
    /// No byte of the request was written.
    Unsent(IdpFailure),
    /// The request may have been received and processed.
    InDoubt(IdpFailure),
}

impl IdpFailure {
    pub(crate) fn ours(code: EvidenceCode) -> Self {
        Self::of(Evidence::ours(code))
    }

    fn of(evidence: Evidence) -> Self {
        Self { meaning: Meaning::Transient, evidence, retry_after: None, unknown: false }
    }
}

/// Returns the evidence that no connection could be made, with the reason if that is known.
fn connect_failed(error: &reqwest::Error) -> Evidence {
    let tls = error.url().is_some_and(|url| url.scheme() == "https");
    let fault = fault_of(error, error.is_timeout(), tls);
    Evidence { detail: fault.map(|fault| fault.to_string()), ..Evidence::ours(EvidenceCode::ConnectFailed) }
}

/// Replaces the code of an incomplete response by the known reason.
fn with_reason(mut outcome: ResponseOutcome, cut: Option<EvidenceCode>) -> ResponseOutcome {
    if let (ResponseOutcome::Unknown(failure), Some(reason)) = (&mut outcome, cut)
        && failure.evidence.code == EvidenceCode::IncompleteAnswer.as_str()
    {
        failure.evidence.code = reason.to_string();
    }
    outcome
}

/// Returns the `Basic` header. `Debug` does not show it.
fn basic(credentials: &Credentials) -> HeaderValue {
    let text = Zeroizing::new(format!("Basic {}", *credentials.basic()));
    let mut value = HeaderValue::from_str(&text).expect("base64 is plain ASCII");
    value.set_sensitive(true);
    value
}

/// Reads the body up to the limit. If it is incomplete, returns the code of the reason beside it.
async fn read(
    response: &mut Response,
    mut patience: Pin<&mut impl Future<Output = ()>>,
) -> (Zeroizing<Vec<u8>>, Option<EvidenceCode>) {
    let announced = response.content_length();
    let size = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(16 * 1024);
    let mut body = Zeroizing::new(Vec::with_capacity(size.min(LARGEST_BODY)));
    loop {
        let chunk = select! {
            biased;
            chunk = response.chunk() => chunk,
            () = &mut patience => return (body, Some(EvidenceCode::Timeout)),
        };
        match chunk {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST_BODY => {
                return (body, Some(EvidenceCode::AnswerTooLarge));
            }
            Ok(Some(chunk)) => append(&mut body, &chunk),
            // hyper reports no error for an HTTP/2 stream that was reset with NO_ERROR, at any byte.
            Ok(None) if announced.is_some_and(|length| length != body.len() as u64) => {
                return (body, Some(EvidenceCode::IncompleteAnswer));
            }
            Ok(None) => return (body, None),
            Err(_) => return (body, Some(EvidenceCode::IncompleteAnswer)),
        }
    }
}

/// Appends like `extend_from_slice`, without leaving a copy in memory when the buffer grows.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() - body.len() < chunk.len() {
        let mut larger = Vec::with_capacity((body.len() + chunk.len()).max(2 * body.capacity()));
        larger.extend_from_slice(body);
        body.zeroize();
        **body = larger;
    }
    body.extend_from_slice(chunk);
}

/// Reads seconds, or a date relative to `now`.
fn retry_after(value: &str, now: WallTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_RETRY_AFTER),
        Ok(_) => return None,
        Err(_) => date(value)?.since(now),
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// Reads the seconds since 1970 in this header, relative to `now`.
fn reset(headers: &HeaderMap, name: &str, now: WallTime) -> Option<Duration> {
    let at = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    Some((WallTime(0) + Duration::from_secs(at)).since(now))
}

fn date(value: &str) -> Option<WallTime> {
    httpdate::parse_http_date(value).ok().map(WallTime::from)
}

fn correlation(headers: &HeaderMap, name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-/=+".contains(&byte);
    let text = headers.get(name)?.to_str().ok()?;
    ((1..=128).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "http2_tests.rs"]
mod http2_tests;

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood_tests;

#[cfg(test)]
#[path = "held_up_tests.rs"]
mod held_up_tests;
