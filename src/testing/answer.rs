//! Bodies and statuses as each provider writes them.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode, Version,
    body::{Bytes, Frame},
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING},
};
use serde_json::{Map, Value};

use super::{Canned, Profile, family::IssuedTokens, refusal::Refusal, timer::Timer};
use crate::model::WallTime;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A whole answer, before it is decided how it travels.
pub(super) struct SimulatedResponse {
    pub(super) status: u16,
    content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// The header that names the request.
    correlation: Option<&'static str>,
}

impl SimulatedResponse {
    /// A successful refresh, of this subject if it is to be said.
    pub(super) fn tokens(profile: &Profile, answer: &IssuedTokens, subject: Option<&str>) -> Self {
        let wire = profile.wire;
        let mut fields = Map::new();
        let mut field = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        field("access_token", answer.access.expose_secret().into());
        field("token_type", wire.token_type.into());
        if wire.expires_in {
            field("expires_in", profile.access_lifetime.as_secs().into());
        }
        if let Some(refresh) = &answer.refresh {
            field("refresh_token", refresh.expose_secret().into());
            if let Some((name, seconds)) = wire.refresh_lifetime {
                field(name, seconds.into());
            }
        }
        field(wire.scope_field, wire.scope.into());
        if let Some(subject) = subject {
            field("sub", subject.into());
        }
        if wire.created_at {
            field("created_at", answer.issued.since(WallTime(0)).as_secs().into());
        }
        for (name, text) in wire.noise {
            field(name, noise(text));
        }
        Self::fields(profile, 200, &fields)
    }

    /// A refresh token that is refused.
    pub(super) fn refused(profile: &Profile, refusal: Refusal) -> Self {
        let (status, code) = profile.wire.refusal;
        Self::error(profile, status, code, profile.wire.reasons.of(refusal))
    }

    /// A client that cannot prove itself.
    pub(super) fn wrong_client(profile: &Profile) -> Self {
        let (status, code, description) = profile.wire.wrong_client;
        Self::error(profile, status, code, description)
    }

    pub(super) fn error(profile: &Profile, status: u16, code: &str, description: &str) -> Self {
        let wire = profile.wire;
        let (code_field, description_field) = wire.error_fields;
        let mut fields = Map::from_iter([(code_field.to_owned(), code.into())]);
        fields.extend(description_field.map(|name| (name.to_owned(), description.into())));
        let of_this = wire.error_noise.iter().filter(|(only, ..)| only.is_empty() || *only == code);
        fields.extend(of_this.map(|(_, name, text)| ((*name).to_owned(), noise(text))));
        Self::fields(profile, wire.error_status.unwrap_or(status), &fields)
    }

    fn fields(profile: &Profile, status: u16, fields: &Map<String, Value>) -> Self {
        let correlation = Some(profile.wire.correlation);
        if !profile.wire.form {
            return Self { correlation, ..Self::json(status, &Value::Object(fields.clone())) };
        }
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            form.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        Self { status, content_type, body: form.finish().into_bytes(), correlation }
    }

    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json", value.to_string())
    }

    /// What a proxy or a maintenance page says.
    pub(super) fn html(status: u16) -> Self {
        Self::text(status, "text/html", format!("<html><body><h1>{status}</h1>Please stand by.</body></html>"))
    }

    pub(super) fn text(status: u16, content_type: &'static str, text: String) -> Self {
        Self { status, content_type, body: text.into_bytes(), correlation: None }
    }

    /// At once, with its length.
    pub(super) fn whole(mut self) -> Response<Body> {
        let body = Full::new(Bytes::from(std::mem::take(&mut self.body)));
        self.head(body.boxed_unsync())
    }

    /// The head at once with the length, the body in one piece for each timer.
    pub(super) fn slow(mut self, timers: Vec<Timer>) -> Response<Body> {
        let body = std::mem::take(&mut self.body);
        let size = body.len().div_ceil(timers.len().max(1)).max(1);
        let pieces: Vec<_> = body.chunks(size).map(Bytes::copy_from_slice).zip(timers).collect();
        let pieces = futures_util::stream::unfold(pieces.into_iter(), async |mut pieces| {
            let (piece, timer) = pieces.next()?;
            timer.await;
            Some((Ok::<_, Infallible>(Frame::data(piece)), pieces))
        });
        let mut response = self.head(StreamBody::new(pieces).boxed_unsync());
        response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        response
    }

    /// Without length or chunks: only the end of the connection ends it. HTTP/1.0, since hyper always
    /// frames what is newer.
    pub(super) fn close_delimited(mut self, cut_at: usize) -> Response<Body> {
        let mut body = std::mem::take(&mut self.body);
        body.truncate(cut_at);
        let piece = Ok::<_, Infallible>(Frame::data(Bytes::from(body)));
        let mut response = self.head(StreamBody::new(futures_util::stream::iter([piece])).boxed_unsync());
        *response.version_mut() = Version::HTTP_10;
        response
    }

    fn head(self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(name) = self.correlation {
            response.headers_mut().insert(name, HeaderValue::from_static(REQUEST_ID));
        }
        response
    }
}

/// How every request is named.
const REQUEST_ID: &str = "simulated-request";

/// Exactly this answer, but that how long its body is and where it ends is the server's business.
pub(super) fn canned(canned: &Canned) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(canned.body.clone())).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(canned.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &canned.headers {
        let (name, value) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        if let (Ok(name), Ok(value)) = (name, value)
            && ![CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name)
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// What stands in a table of a profile: JSON, or else text.
fn noise(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
