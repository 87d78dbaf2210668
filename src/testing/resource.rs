//! A resource server beside the identity provider, in the manner of GitHub's: it answers who shows a live access token.

use std::sync::Arc;

use hyper::{
    Response,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};

use super::{
    answer::{Body, SimulatedResponse},
    request::authorization,
    state::IdpShared,
};

pub(super) const USER: &str = "/user";
pub(super) const REPOSITORIES: &str = "/user/repos";

/// What one of these answers to the bearer of an access token.
pub(super) fn resource(shared: &IdpShared, path: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(user) = bearer(shared, headers) else {
        let mut response = SimulatedResponse::json(401, &json!({ "message": "Bad credentials" })).whole();
        let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    };
    let answer = if path == REPOSITORIES { repositories(&user) } else { json!({ "user": &*user, "login": &*user }) };
    SimulatedResponse::json(200, &answer).whole()
}

fn bearer(shared: &IdpShared, headers: &HeaderMap) -> Option<Arc<str>> {
    let now = shared.now();
    authorization(headers, "Bearer").and_then(|token| shared.lock().ledger.user_of(token, now))
}

/// Everybody has the same, each their own.
fn repositories(user: &str) -> Value {
    // The second is there for pages that forget to escape.
    let all = [("notes", "What I read", true), ("site", "<b>My</b> pages & more", false), ("tools", "", false)];
    let repository = |(name, description, private)| {
        let full_name = format!("{user}/{name}");
        json!({ "name": name, "full_name": full_name, "description": description, "private": private })
    };
    all.map(repository).into_iter().collect()
}
