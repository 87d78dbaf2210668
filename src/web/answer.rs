//! What a granted request is answered with.

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    web::Bytes,
};
use serde::Serialize;

use super::{audit::Granted, problem::REQUEST_ID};
use crate::model::Generation;

/// JSON that leaves the prompt of who reads it with curl at the start of a line.
pub(super) fn line(body: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(body).expect("what we say has a JSON form");
    json.push(b'\n');
    json
}

/// An answer without what every answer has.
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    generation: Option<Generation>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// Without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, content_type: "", body: Bytes::new(), generation: None, headers: Vec::new() }
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

    /// Which of the key's grants it speaks of: its entity tag.
    pub(super) fn generation(self, generation: Generation) -> Self {
        Self { generation: Some(generation), ..self }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What the audit says of it.
    pub(super) fn granted(&self) -> Granted {
        Granted { unmodified: self.status == StatusCode::NOT_MODIFIED, generation: self.generation }
    }

    /// Nothing of it may be kept on its way: it may hold a token, and a state is old when it is kept.
    pub(super) fn respond(self, request_id: &str) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        response.insert_header((header::CACHE_CONTROL, "no-store")).insert_header((REQUEST_ID, request_id));
        if let Some(generation) = self.generation {
            response.insert_header((header::ETAG, format!("\"{generation}\"")));
        }
        for header in self.headers {
            response.insert_header(header);
        }
        if self.body.is_empty() {
            return response.finish();
        }
        response.content_type(self.content_type).body(self.body)
    }
}
