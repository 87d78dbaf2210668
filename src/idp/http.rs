//! The one file that speaks HTTP: a request is written at most once, and its answer read with a limit.
//!
//! What a client library does for convenience is off, because each of it sends a refresh token a second
//! time or to somebody else: redirects, retries (reqwest replays HTTP/2 `REFUSED_STREAM` and `GOAWAY` by
//! default), proxies from the environment, idle connections older than a second (on a stale one "never
//! seen" and "processed" look alike), early data. What is left in hyper is a second try when a reused
//! connection turned out closed before a byte of the request was written; and a request that is handed over
//! just as its connection ends may hear nothing (hyper's issue 4122): unsent, it ends with our patience, as a doubt.
//!
//! Time-outs here are real time, not the `Clock` port: they belong to sockets.

use std::{
    collections::BTreeMap,
    pin::{Pin, pin},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    RequestBuilder, Response, Version,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue},
    header::{RETRY_AFTER, TRANSFER_ENCODING},
};
use tokio::select;
use url::{
    Url,
    form_urlencoded::{Serializer, byte_serialize},
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    ClientAuth, Idp, RESERVED_PARAMS,
    outcome::{Failure, LONGEST_RETRY_AFTER, Meaning, Outcome, Reply, classify, revoked},
    patience,
    provider::Credentials,
};
use crate::{
    clock::Clock,
    code::EvidenceCode,
    model::{Evidence, RefreshToken, Time},
};

/// An answer beyond this is not read: token answers have a few kilobytes.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// How long a revocation may take; nobody waits for it.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long somebody who looks whether it is there waits.
const REACHED_WITHIN: Duration = Duration::from_secs(10);

/// The connections to one identity provider. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    clock: Clock,
}

impl Client {
    /// A client for `idp`, with its own `connect_timeout` where it has one. `clock` is for `Retry-After`.
    ///
    /// # Errors
    /// TLS cannot be prepared: no CA certificates on this machine. Without https that does not matter.
    pub(crate) fn new(idp: &Idp, connect_timeout: Duration, clock: Clock) -> Result<Self, String> {
        let http = builder(idp, connect_timeout).build().map_err(|_| {
            "TLS cannot be prepared: are CA certificates installed (package ca-certificates)?".to_owned()
        })?;
        Ok(Self { http, clock })
    }

    /// Spends `refresh_token`: one request as the client at the place `client`, and what its answer means. `params`
    /// are the grant's own form fields; they replace the provider's of the same name.
    ///
    /// Once polled this must run to its end: dropping it closes the connection, and a rotated token that
    /// was on its way is lost. `patience` runs from now until the answer's last byte.
    pub(crate) async fn refresh(
        &self,
        idp: &Idp,
        client: usize,
        refresh_token: &RefreshToken,
        params: &BTreeMap<String, String>,
        patience: Duration,
    ) -> Outcome {
        let mut fields = BTreeMap::new();
        fields.extend(idp.scope.as_ref().map(|scope| ("scope", scope.as_str())));
        fields.extend(idp.params.iter().chain(params).map(|(name, value)| (name.as_str(), value.as_str())));
        fields.retain(|name, _| !RESERVED_PARAMS.contains(name));
        let secret = refresh_token.expose_secret();
        let own = [("grant_type", "refresh_token"), ("refresh_token", secret)];
        let request = self.form(idp, client, &idp.token_url, own.into_iter().chain(fields));
        match self.send(idp, request, patience).await {
            Ok((reply, cut)) => told(idp, &reply, cut, secret),
            Err(Unsent::Never(failure)) => Outcome::NotSpent(failure),
            Err(Unsent::Perhaps(failure)) => Outcome::Unknown(failure),
        }
    }

    /// Revokes `token` (RFC 7009).
    ///
    /// # Errors
    /// Whatever says that this was not done. Repeating is harmless.
    pub(crate) async fn revoke(&self, idp: &Idp, client: usize, token: &RefreshToken) -> Result<(), Failure> {
        let Some(url) = &idp.revocation_url else { return Err(Failure::ours(EvidenceCode::NoRevocationUrl)) };
        let own = [("token", token.expose_secret()), ("token_type_hint", "refresh_token")];
        let request = self.form(idp, client, url, own);
        let (reply, _) = self
            .send(idp, request, REVOCATION_TIMEOUT)
            .await
            .map_err(|(Unsent::Never(failure) | Unsent::Perhaps(failure))| failure)?;
        revoked(idp, &reply).map_err(|mut failure| {
            failure.scrub(token.expose_secret());
            failure
        })
    }

    /// Asks the token endpoint for nothing and as nobody: its status, and its clock.
    ///
    /// # Errors
    /// It does not answer, and our code for why.
    pub(crate) async fn reach(&self, idp: &Idp) -> Result<(u16, Option<Time>), Evidence> {
        match self.http.get(&idp.token_url).timeout(REACHED_WITHIN).send().await {
            Ok(response) => {
                let date = response.headers().get(DATE).and_then(|value| date(value.to_str().ok()?));
                Ok((response.status().as_u16(), date))
            }
            Err(error) if error.is_connect() => Err(Evidence::ours(EvidenceCode::ConnectFailed)),
            Err(error) if error.is_timeout() => Err(Evidence::ours(EvidenceCode::Timeout)),
            Err(_) => Err(Evidence::ours(EvidenceCode::ConnectionLost)),
        }
    }

    /// A POST of `fields` with the client's authentication.
    ///
    /// The form goes to the HTTP stack, which copies it on its way to the socket and wipes nothing; wiping
    /// our copy alone would be pretence.
    fn form<'a>(
        &self,
        idp: &'a Idp,
        client: usize,
        url: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> RequestBuilder {
        let Credentials { client_id, client_secret } = &idp.clients[client];
        let secret = client_secret.expose_secret();
        let mut form = Serializer::new(String::with_capacity(4 * 1024));
        form.extend_pairs(fields);
        let mut request = self.http.post(url).header(ACCEPT, "application/json");
        match idp.client_auth {
            ClientAuth::Basic => request = request.header(AUTHORIZATION, basic(client_id, secret)),
            ClientAuth::Body => {
                form.append_pair("client_id", client_id).append_pair("client_secret", secret);
            }
            ClientAuth::None => {
                form.append_pair("client_id", client_id);
            }
        }
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
    }

    /// Sends, and reads the answer; beside it our code for why it was cut, if it was. What is there is read before the
    /// patience is looked at.
    async fn send(
        &self,
        idp: &Idp,
        request: RequestBuilder,
        patience: Duration,
    ) -> Result<(Reply, Option<EvidenceCode>), Unsent> {
        let (http, request) = request.build_split();
        let never = |code| Unsent::Never(Failure::ours(code));
        let request = request.map_err(|_| never(EvidenceCode::BadRequest))?;
        let mut patience = pin!(patience::run_out(patience));
        let mut response = select! {
            biased;
            response = http.execute(request) => response.map_err(|error| match () {
                // Name, connection or TLS: nothing of the request was written.
                () if error.is_connect() => never(EvidenceCode::ConnectFailed),
                () => Unsent::Perhaps(Failure::ours(EvidenceCode::ConnectionLost)),
            })?,
            () = &mut patience => return Err(Unsent::Perhaps(Failure::ours(EvidenceCode::Timeout))),
        };
        let (body, cut) = read(&mut response, patience).await;
        let head = Head {
            status: response.status().as_u16(),
            http2: response.version() >= Version::HTTP_2,
            headers: response.headers(),
        };
        Ok((head.reply(idp, body, cut.is_none(), self.clock.now()), cut))
    }
}

/// All of an answer but its body.
struct Head<'a> {
    status: u16,
    http2: bool,
    headers: &'a HeaderMap,
}

impl Head<'_> {
    /// The answer with its body, as far as it was read. Pure, like all that follows.
    fn reply(&self, idp: &Idp, body: Zeroizing<Vec<u8>>, complete: bool, now: Time) -> Reply {
        let text = |name: &HeaderName| self.headers.get(name).and_then(|value| value.to_str().ok());
        // The provider's own date where it has one, so that clocks that differ do not matter.
        let now = text(&DATE).and_then(date).unwrap_or(now);
        Reply {
            status: self.status,
            complete,
            framed: self.framed(),
            content_type: text(&CONTENT_TYPE).map(str::to_owned),
            retry_after: text(&RETRY_AFTER).and_then(|value| retry_after(value, now)),
            rate_limit_reset: idp.rate_limit_reset_header.as_ref().and_then(|name| reset(self.headers, name, now)),
            correlation: correlation(self.headers, &idp.correlation_header),
            body,
        }
    }

    fn framed(&self) -> bool {
        if self.http2 {
            return true;
        }
        let codings = self.headers.get_all(TRANSFER_ENCODING).iter().next_back();
        match codings.map(|value| value.to_str().unwrap_or_default()) {
            // RFC 9112, section 6.3: with another last coding the connection's end is the body's, whatever
            // the length says.
            Some(codings) => codings.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked")),
            None => self.headers.contains_key(CONTENT_LENGTH),
        }
    }
}

/// What the answer to `secret` means, in words that can be shown.
fn told(idp: &Idp, reply: &Reply, cut: Option<EvidenceCode>, secret: &str) -> Outcome {
    let mut outcome = with_reason(classify(idp, reply), cut);
    if let Outcome::NotSpent(failure) | Outcome::InvalidGrant(failure) | Outcome::Unknown(failure) = &mut outcome {
        failure.scrub(secret);
    }
    outcome
}

/// What [`Client::refresh`] makes of such an answer.
#[cfg(any(test, fuzzing))]
pub(crate) fn told_of(
    idp: &Idp,
    (status, http2): (u16, bool),
    headers: &[(&[u8], &[u8])],
    body: &[u8],
    cut: bool,
    secret: &str,
) -> Outcome {
    let header = |(name, value): &(&[u8], &[u8])| {
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter().filter_map(header) {
        map.append(name, value);
    }
    let head = Head { status, http2, headers: &map };
    let reply = head.reply(idp, Zeroizing::new(body.to_vec()), !cut, Time(1_800_000_000_000));
    told(idp, &reply, cut.then_some(EvidenceCode::Timeout), secret)
}

fn builder(idp: &Idp, connect_timeout: Duration) -> reqwest::ClientBuilder {
    let https = |url: &String| Url::parse(url).is_ok_and(|url| url.scheme() == "https");
    let builder = reqwest::Client::builder()
        .user_agent(concat!("token-supervisor/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(idp.timing.connect_timeout.unwrap_or(connect_timeout))
        .pool_idle_timeout(Duration::from_secs(1));
    if https(&idp.token_url) || idp.revocation_url.as_ref().is_some_and(https) {
        builder
    } else {
        // Building fails where there are no CA certificates, even if none is ever asked for.
        builder.tls_certs_only([])
    }
}

/// A request without answer.
enum Unsent {
    /// No byte of it was written.
    Never(Failure),
    /// It may have been received and processed.
    Perhaps(Failure),
}

impl Failure {
    fn ours(code: EvidenceCode) -> Self {
        Self { meaning: Meaning::Transient, evidence: Evidence::ours(code), retry_after: None }
    }

    /// Against a provider that repeats what it was sent in a field that is shown.
    fn scrub(&mut self, secret: &str) {
        let echoes =
            |text: &str| !secret.is_empty() && (text.contains(secret) || (text.len() > 7 && secret.contains(text)));
        let Evidence { code, detail, status, request_id } = &mut self.evidence;
        if echoes(code) {
            *code = status.map_or_else(|| EvidenceCode::Unknown.to_string(), |status| format!("http_{status}"));
        }
        detail.take_if(|text| echoes(text));
        request_id.take_if(|text| echoes(text));
    }
}

/// Says why an answer is incomplete, where that is known.
fn with_reason(mut outcome: Outcome, cut: Option<EvidenceCode>) -> Outcome {
    if let (Outcome::Unknown(failure), Some(reason)) = (&mut outcome, cut)
        && failure.evidence.code == EvidenceCode::IncompleteAnswer.as_str()
    {
        failure.evidence.code = reason.to_string();
    }
    outcome
}

/// `Basic` with both parts form-encoded first (RFC 6749, section 2.3.1); never shown by `Debug`.
fn basic(client_id: &str, secret: &str) -> HeaderValue {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (client_id.len() + secret.len()) + 1));
    pair.extend(byte_serialize(client_id.as_bytes()));
    pair.push(':');
    pair.extend(byte_serialize(secret.as_bytes()));
    let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
    let mut value = HeaderValue::from_str(&text).expect("base64 is plain ASCII");
    value.set_sensitive(true);
    value
}

/// The body up to the limit, and our code for why there is more of it.
async fn read(
    response: &mut Response,
    mut patience: Pin<&mut impl Future<Output = ()>>,
) -> (Zeroizing<Vec<u8>>, Option<EvidenceCode>) {
    let announced = response.content_length();
    let size = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(16 * 1024);
    let mut body = Zeroizing::new(Vec::with_capacity(size.min(LARGEST_ANSWER)));
    loop {
        let chunk = select! {
            biased;
            chunk = response.chunk() => chunk,
            () = &mut patience => return (body, Some(EvidenceCode::Timeout)),
        };
        match chunk {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST_ANSWER => {
                return (body, Some(EvidenceCode::AnswerTooLarge));
            }
            Ok(Some(chunk)) => append(&mut body, &chunk),
            // An HTTP/2 stream reset by NO_ERROR ends without an error in hyper, at whatever byte.
            Ok(None) if announced.is_some_and(|length| length != body.len() as u64) => {
                return (body, Some(EvidenceCode::IncompleteAnswer));
            }
            Ok(None) => return (body, None),
            Err(_) => return (body, Some(EvidenceCode::IncompleteAnswer)),
        }
    }
}

/// Like `extend_from_slice`, without leaving a copy behind when the buffer grows.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() - body.len() < chunk.len() {
        let mut larger = Vec::with_capacity((body.len() + chunk.len()).max(2 * body.capacity()));
        larger.extend_from_slice(body);
        body.zeroize();
        **body = larger;
    }
    body.extend_from_slice(chunk);
}

/// Seconds, or a date relative to `now`.
fn retry_after(value: &str, now: Time) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_RETRY_AFTER),
        Ok(_) => return None,
        Err(_) => date(value)?.since(now),
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// The seconds since 1970 in this header, relative to `now`.
fn reset(headers: &HeaderMap, name: &str, now: Time) -> Option<Duration> {
    let at = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    Some((Time(0) + Duration::from_secs(at)).since(now))
}

fn date(value: &str) -> Option<Time> {
    httpdate::parse_http_date(value).ok().map(Time::from)
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
#[path = "held_up_tests.rs"]
mod held_up_tests;
