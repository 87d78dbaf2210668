//! Probes: what a provider says of a token without spending it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    endpoint,
    outcome::{IdpFailure, RawResponse},
    provider::Idp,
};
use crate::code::EvidenceCode;

impl Idp {
    /// Sets the introspection endpoint (RFC 7662). It must know refresh tokens: one that says of each of them that it is not
    /// active ends every grant whose refresh was not answered.
    ///
    /// Before a refresh token that may be spent is sent again, the provider is asked whether it is active.
    pub fn introspection_url(mut self, url: impl Into<String>) -> Self {
        self.introspection_url = Some(url.into());
        self
    }

    /// Sets an endpoint that accepts a GET with any valid access token. If a refresh invalidates the previous access token
    /// ([`rotation_ends_access_token`](Self::rotation_ends_access_token)), the response to it shows whether a refresh token
    /// that may be spent is not.
    pub fn userinfo_url(mut self, url: impl Into<String>) -> Self {
        self.userinfo_url = Some(url.into());
        self
    }

    /// Returns the introspection endpoint and the userinfo endpoint of a grant with these parameters.
    ///
    /// # Errors
    /// Why a parameter cannot be used.
    pub(super) fn probe_endpoints(
        &self,
        params: &BTreeMap<String, String>,
    ) -> Result<[Option<String>; 2], &'static str> {
        let render = |url: &Option<String>| {
            url.as_ref().map(|url| endpoint::render(url, &self.endpoint_params, params)).transpose()
        };
        Ok([render(&self.introspection_url)?, render(&self.userinfo_url)?])
    }
}

/// The member of the response to an introspection that counts here.
#[derive(Deserialize)]
struct Introspection {
    active: bool,
}

/// Returns whether the response says that the token is active.
///
/// # Errors
/// It does not say so.
pub(super) fn introspected(response: &RawResponse) -> Result<bool, IdpFailure> {
    if response.status != 200 {
        return Err(response.status_error());
    }
    let body = serde_json::from_slice::<Introspection>(&response.body).ok().filter(|_| response.complete);
    body.map(|body| body.active).ok_or_else(|| IdpFailure::ours(EvidenceCode::UnreadableAnswer))
}

/// Returns whether the response to a request with an access token shows that the token is valid. That it is refused may
/// have other reasons than a refresh, such as a clock that is slow.
///
/// # Errors
/// It shows neither.
pub(super) fn accepted(response: &RawResponse) -> Result<bool, IdpFailure> {
    match response.status {
        200..=299 => Ok(true),
        401 => Ok(false),
        _ => Err(response.status_error()),
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::model::WallTime;

    fn response(status: u16, body: &str, complete: bool) -> RawResponse {
        RawResponse {
            status,
            complete,
            framed: complete,
            content_type: Some("application/json".to_owned()),
            retry_after: None,
            rate_limit_reset: None,
            correlation: None,
            now: WallTime(0),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn only_a_plain_word_of_the_provider_counts() {
        for (status, body, complete, expected) in [
            (200, r#"{"active":true,"sub":"alice"}"#, true, Some(true)),
            (200, r#"{"active":false}"#, true, Some(false)),
            (200, r#"{"active":false}"#, false, None),
            (200, r#"{"active":"false"}"#, true, None),
            (200, r#"{"error":"invalid_token"}"#, true, None),
            (200, "<html>", true, None),
            (401, r#"{"active":false}"#, true, None),
            (502, r#"{"active":false}"#, true, None),
        ] {
            assert_eq!(introspected(&response(status, body, complete)).ok(), expected, "{status} {body}");
        }
        for (status, expected) in
            [(200, Some(true)), (204, Some(true)), (401, Some(false)), (403, None), (302, None), (503, None)]
        {
            assert_eq!(accepted(&response(status, "", true)).ok(), expected, "{status}");
        }
    }

    #[test]
    fn another_token_endpoint_is_another_server() {
        let idp = crate::presets::keycloak("https://sso.example.com", "app", "id", "ts-test-secret-x");
        let params = BTreeMap::from([("realm".to_owned(), "other".to_owned())]);
        let [introspection, userinfo] = idp.probe_endpoints(&params).unwrap();
        assert_eq!(
            introspection.as_deref(),
            Some("https://sso.example.com/realms/other/protocol/openid-connect/token/introspect")
        );
        assert_eq!(userinfo, None);
        let elsewhere = idp.token_url("https://elsewhere.example/token");
        assert_eq!(elsewhere.probe_endpoints(&params), Ok([None, None]), "the preset's server gets no token of it");
    }
}
