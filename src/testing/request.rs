//! A form posted by a client: its fields, and the client's authentication.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};

use super::{Profile, profile::WireAuth};
use crate::model::ClientSecret;

pub(super) struct Form {
    fields: BTreeMap<String, String>,
    basic: Option<(String, String)>,
}

impl Form {
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Self {
        let basic = authorization(headers, "Basic").and_then(|word| {
            let text = String::from_utf8(BASE64_STANDARD.decode(word).ok()?).ok()?;
            let (id, secret) = text.split_once(':')?;
            Some((id.to_owned(), secret.to_owned()))
        });
        Self { fields: url::form_urlencoded::parse(body).into_owned().collect(), basic }
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Returns whether the client's ID and secret are correct, and sent where this provider expects them.
    pub(super) fn authenticated(&self, profile: &Profile) -> bool {
        let right =
            |id: &str, secret: &str| id == profile.client_id && ClientSecret::from(secret) == profile.client_secret;
        let by_params =
            || self.field("client_id").zip(self.field("client_secret")).is_some_and(|(id, secret)| right(id, secret));
        // ID and secret are form-encoded first (RFC 6749, section 2.3.1); many clients omit this.
        let by_basic = || {
            let basic = self.basic.as_ref();
            basic.is_some_and(|(id, secret)| right(id, secret) || right(&decoded(id), &decoded(secret)))
        };
        match profile.wire.auth {
            WireAuth::Params => by_params(),
            WireAuth::Basic => by_basic(),
            WireAuth::Either => by_basic() || by_params(),
        }
    }
}

/// Returns what follows this scheme in the `Authorization` header.
pub(super) fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (given, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}
