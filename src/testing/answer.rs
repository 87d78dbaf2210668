//! Bodies and statuses in the format of each provider.

use std::{convert::Infallible, io::Read};

use flate2::{
    Compression,
    read::{GzEncoder, ZlibEncoder},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode, Version,
    body::{Bytes, Frame},
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING,
    },
};
use serde_json::{Map, Value};

use super::{Canned, Oddity, Profile, family::IssuedTokens, refusal::Refusal, timer::Timer};
use crate::model::WallTime;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A complete response, before its framing is decided.
pub(super) struct SimulatedResponse {
    pub(super) status: u16,
    content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// The header with the request ID.
    correlation: Option<&'static str>,
    /// The coding of the body.
    coding: Option<&'static str>,
}

impl SimulatedResponse {
    /// Returns the response to a successful refresh, with `sub` if a subject is given.
    pub(super) fn tokens(
        profile: &Profile,
        answer: &IssuedTokens,
        subject: Option<&str>,
        oddity: Option<Oddity>,
    ) -> Self {
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
        if let Some(oddity) = oddity {
            let end = (answer.issued + profile.access_lifetime).since(WallTime(0)).as_secs();
            with_odd_member(&mut fields, oddity, profile.access_lifetime.as_secs(), end);
        }
        let response = Self::fields(profile, 200, &fields);
        match oddity {
            Some(oddity) => response.with_odd_body(oddity),
            None => response,
        }
    }

    /// Adds a flaw of the body as a whole.
    fn with_odd_body(mut self, oddity: Oddity) -> Self {
        let json = self.body.first() == Some(&b'{');
        let member = |member: &[u8], body: &[u8]| [b"{", member, b",", &body[1..]].concat();
        match oddity {
            Oddity::Gzip => {
                self.coding = Some("gzip");
                self.body = coded(GzEncoder::new(&self.body[..], Compression::fast()));
            }
            Oddity::Deflate => {
                self.coding = Some("deflate");
                self.body = coded(ZlibEncoder::new(&self.body[..], Compression::fast()));
            }
            _ if !json => {}
            Oddity::NoticeBefore => {
                self.body.splice(0..0, *b"<br />\n<b>Notice</b>: Undefined index: x in <b>/srv/token.php</b>\n");
            }
            Oddity::CommentAfter => self.body.extend(b"\n<!-- 12 ms -->"),
            Oddity::NulAfter => self.body.push(0),
            Oddity::Latin1 => self.body = member(b"\"name\":\"Andr\xe9\"", &self.body),
            Oddity::ControlCharacter => self.body = member(b"\"name\":\"a\tb\"", &self.body),
            Oddity::NotANumber => self.body = member(b"\"quota\":NaN", &self.body),
            Oddity::WithoutAccessToken
            | Oddity::WithoutLifetime
            | Oddity::ZeroLifetime
            | Oddity::LifetimeAsEpoch
            | Oddity::LifetimeAsText => {}
        }
        self
    }

    /// Returns the response to a refused refresh token.
    pub(super) fn refused(profile: &Profile, refusal: Refusal) -> Self {
        let (status, code) = profile.wire.refusal;
        Self::error(profile, status, code, profile.wire.reasons.of(refusal))
    }

    /// Returns the response to wrong client credentials.
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
        Self { status, content_type, body: form.finish().into_bytes(), correlation, coding: None }
    }

    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json", value.to_string())
    }

    /// Returns a web page, as a proxy or a maintenance page sends it.
    pub(super) fn html(status: u16) -> Self {
        Self::text(status, "text/html", format!("<html><body><h1>{status}</h1>Please stand by.</body></html>"))
    }

    pub(super) fn text(status: u16, content_type: &'static str, text: String) -> Self {
        Self { status, content_type, body: text.into_bytes(), correlation: None, coding: None }
    }

    /// Sends the response at once, with its length.
    pub(super) fn whole(mut self) -> Response<Body> {
        let body = Full::new(Bytes::from(std::mem::take(&mut self.body)));
        self.head(body.boxed_unsync())
    }

    /// Sends the head at once, with the length, and the body in one piece for each timer.
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

    /// Sends the body without length or chunks: only the end of the connection ends it. The version is
    /// HTTP/1.0, since hyper frames every body of newer versions.
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
        if let Some(coding) = self.coding {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        if let Some(name) = self.correlation {
            response.headers_mut().insert(name, HeaderValue::from_static(REQUEST_ID));
        }
        response
    }
}

/// The ID of every request.
const REQUEST_ID: &str = "simulated-request";

/// Returns exactly this response, except that the server decides its framing.
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

/// Returns a value of a profile's table, as JSON if it parses, otherwise as text.
fn noise(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Changes the members as the flaw wants it; `seconds` is the lifetime of the access token, and `end` its end.
fn with_odd_member(fields: &mut Map<String, Value>, oddity: Oddity, seconds: u64, end: u64) {
    let lifetime = match oddity {
        Oddity::WithoutAccessToken => {
            fields.remove("access_token");
            return;
        }
        Oddity::WithoutLifetime => Value::Null,
        Oddity::ZeroLifetime => 0.into(),
        Oddity::LifetimeAsEpoch => end.into(),
        Oddity::LifetimeAsText => format!("{seconds}s").into(),
        _ => return,
    };
    fields.insert("expires_in".to_owned(), lifetime);
}

fn coded(mut encoder: impl Read) -> Vec<u8> {
    let mut coded = Vec::new();
    encoder.read_to_end(&mut coded).expect("memory can be read");
    coded
}
