//! The response to a granted request.

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    web::Bytes,
};
use serde::Serialize;

use super::{
    etag,
    problem::{REQUEST_ID, line},
};
use crate::model::Generation;

/// A response without the headers that every response has.
pub(super) struct ApiResponse {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    generation: Option<Generation>,
    grant_id: Option<Box<str>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What the audit log says of a granted request.
#[derive(Clone, Copy)]
pub(super) struct Granted {
    /// The caller had the token already: none was handed out.
    pub(super) unmodified: bool,
    pub(super) generation: Option<Generation>,
}

impl ApiResponse {
    /// Without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, content_type: "", body: Bytes::new(), generation: None, grant_id: None, headers: Vec::new() }
    }

    /// 200 with this body.
    pub(super) fn json(body: &impl Serialize) -> Self {
        Self::text("application/json", line(body))
    }

    /// 200 with a body of another type.
    pub(super) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { content_type, body: body.into(), ..Self::empty(StatusCode::OK) }
    }

    pub(super) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Sets which stored grant of the key the response is about: the entity tag, and the public name for the audit log.
    pub(super) fn about(self, grant_id: &str, generation: Generation) -> Self {
        Self { generation: Some(generation), ..self.of_grant(grant_id) }
    }

    /// Sets the public name of the grant that the request was about, for the audit log.
    pub(super) fn of_grant(self, grant_id: &str) -> Self {
        Self { grant_id: Some(grant_id.into()), ..self }
    }

    pub(super) fn grant_id(&self) -> Option<&str> {
        self.grant_id.as_deref()
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn granted(&self) -> Granted {
        Granted { unmodified: self.status == StatusCode::NOT_MODIFIED, generation: self.generation }
    }

    /// Returns the HTTP response. No cache may keep it: it may hold a token, and a kept state is outdated.
    pub(super) fn respond(self, request_id: &str) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        response.insert_header((header::CACHE_CONTROL, NO_STORE)).insert_header((&REQUEST_ID, request_id));
        if let Some(generation) = self.generation {
            response.insert_header((header::ETAG, etag::of(generation)));
        }
        for header in self.headers {
            response.insert_header(header);
        }
        if self.body.is_empty() {
            return response.finish();
        }
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(self.content_type))).body(self.body)
    }
}

/// Every response may hold a token or a state that is soon outdated.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
