//! A resource server beside the identity provider, like GitHub's API: it takes requests with a valid access token.

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

/// Returns the response of a resource to the bearer of an access token.
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

/// Returns the user's repositories; every user has three of the same names.
fn repositories(user: &str) -> Value {
    // The second description reveals pages that do not escape it.
    let all = [("notes", "What I read", true), ("site", "<b>My</b> pages & more", false), ("tools", "", false)];
    let repository = |(name, description, private)| {
        let full_name = format!("{user}/{name}");
        json!({ "name": name, "full_name": full_name, "description": description, "private": private })
    };
    all.map(repository).into_iter().collect()
}
