//! Bodies and statuses as each provider writes them.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode, Version,
    body::{Bytes, Frame},
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Map, Value};

use super::{
    Profile,
    family::{Answer, Refusal},
    timer::Timer,
};
use crate::model::Time;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A whole answer, before it is decided how it travels.
pub(super) struct Page {
    pub(super) status: u16,
    content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Page {
    /// A successful refresh, of this subject if it is to be said.
    pub(super) fn tokens(profile: &Profile, answer: &Answer, subject: Option<&str>) -> Self {
        let wire = profile.wire;
        let mut fields = Map::new();
        let mut field = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        field("access_token", answer.access.expose_secret().into());
        field("token_type", wire.token_type.into());
        field("expires_in", profile.access_lifetime.as_secs().into());
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
            field("created_at", answer.issued.since(Time(0)).as_secs().into());
        }
        for (name, text) in wire.noise {
            field(name, text.parse::<u64>().map_or((*text).into(), Value::from));
        }
        Self::fields(profile, 200, &fields)
    }

    /// A refresh token that is refused.
    pub(super) fn refused(profile: &Profile, refusal: Refusal) -> Self {
        Self::error(profile, 400, profile.wire.refusal, profile.wire.reasons.of(refusal))
    }

    /// A client that cannot prove itself.
    pub(super) fn wrong_client(profile: &Profile) -> Self {
        let (status, code) = profile.wire.wrong_client;
        Self::error(profile, status, code, "Invalid client or Invalid client credentials")
    }

    pub(super) fn error(profile: &Profile, status: u16, code: &str, description: &str) -> Self {
        let fields = [("error", code), ("error_description", description)];
        let fields = fields.map(|(name, text)| (name.to_owned(), text.into())).into_iter().collect();
        Self::fields(profile, profile.wire.error_status.unwrap_or(status), &fields)
    }

    fn fields(profile: &Profile, status: u16, fields: &Map<String, Value>) -> Self {
        if !profile.wire.form {
            return Self::json(status, &Value::Object(fields.clone()));
        }
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            form.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        Self { status, content_type, body: form.finish().into_bytes() }
    }

    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json", value.to_string())
    }

    /// What a proxy or a maintenance page says.
    pub(super) fn html(status: u16) -> Self {
        Self::text(status, "text/html", format!("<html><body><h1>{status}</h1>Please stand by.</body></html>"))
    }

    pub(super) fn text(status: u16, content_type: &'static str, text: String) -> Self {
        Self { status, content_type, body: text.into_bytes() }
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
        response
    }
}
