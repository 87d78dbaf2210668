//! The known providers, as data. Each fact has its source: documentation \[D\], source code of the provider or of a
//! client \[S\], an issue or a forum \[I\], general knowledge \[K\], or an observation of our own \[seen\]; as of
//! 2026-11. An unknown fact gets the safe value: a grace period that the provider does not promise is zero.
//!
//! If a client's settings at the provider change such a fact (whether refresh tokens rotate, a lifetime), adjust the
//! preset with the setters of [`Idp`].
//!
//! To add a preset, write a function that starts from [`Idp::oauth2`], a source for each setter, a row in the table of
//! `outcome`'s tests with an error as the provider really sends it, and a profile of the simulator.

mod apps;
mod identity;

use std::time::Duration;

pub use self::{
    apps::{atlassian, box_com, discord, hubspot, salesforce, salesforce_at, slack, zoom},
    identity::{entra, google, okta},
};
use super::{
    provider::{ClientAuth, Idp, Rotation},
    rule::{ErrorRule, Meaning},
};
use crate::model::ClientSecret;

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3_600)
}

fn user(error: &str) -> ErrorRule {
    ErrorRule::new(error, Meaning::UserMustReconnect)
}

fn operator(error: &str) -> ErrorRule {
    ErrorRule::new(error, Meaning::OperatorFault)
}

/// Any provider of OAuth 2; see [`Idp::oauth2`].
pub fn oauth2(
    token_url: impl Into<String>,
    client_id: impl Into<String>,
    client_secret: impl Into<ClientSecret>,
) -> Idp {
    Idp::oauth2(token_url, client_id, client_secret)
}

/// GitHub, for expiring user tokens of a GitHub App (a setting of the app).
///
/// Revocation is not set: GitHub has `DELETE /applications/{client_id}/token` instead of RFC 7009 \[D\].
pub fn github(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://github.com/login/oauth/access_token", client_id, client_secret)
        // [D] "Refreshing user access tokens": identifier and secret as parameters; a new refresh token
        // each time, and "that refresh token and the old user access token will no longer work".
        .client_auth(ClientAuth::Body)
        .rotation(Rotation::Always)
        .rotation_ends_access_token(true)
        // [D] "Get the authenticated user": any user token will do.
        .userinfo_url("https://api.github.com/user")
        // [I] interLink#262, getsentry/junior#620: status 200 with this code for a spent or expired token.
        .error(user("bad_refresh_token"))
        // [D] "Troubleshooting OAuth app access token request errors".
        .error(operator("incorrect_client_credentials"))
        .error(operator("redirect_uri_mismatch"))
        .correlation_header("x-github-request-id")
}

/// gitlab.com.
pub fn gitlab(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    gitlab_at("https://gitlab.com", client_id, client_secret)
}

/// A self-managed GitLab at `base`, such as `https://git.example.com`.
pub fn gitlab_at(base: impl AsRef<str>, client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    let base = base.as_ref().trim_end_matches('/');
    Idp::oauth2(format!("{base}/oauth/token"), client_id, client_secret)
        // [D] "OAuth 2.0 identity provider API": identifier and secret as parameters; a refresh invalidates the
        // existing access token and refresh token; POST /oauth/revoke.
        .client_auth(ClientAuth::Body)
        .rotation(Rotation::Always)
        .rotation_ends_access_token(true)
        .revocation_url(format!("{base}/oauth/revoke"))
        // [D] The same page, "Retrieve the token information": needs no scope.
        .userinfo_url(format!("{base}/oauth/token/info"))
        // [D] "Tracing requests with correlation ID".
        .correlation_header("x-request-id")
}

/// Bitbucket Cloud.
pub fn bitbucket(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://bitbucket.org/site/oauth2/access_token", client_id, client_secret)
        // [D] "Use OAuth on Bitbucket Cloud": HTTP Basic.
        .client_auth(ClientAuth::Basic)
        // [I] git-credential-manager#2433 (by Atlassian, 2026-09): Bitbucket moves to rotating refresh tokens that
        // expire about ten minutes after their first use; consumers of both kinds exist. The grace is half of that,
        // because the announcement says "about".
        .rotation(Rotation::Sometimes)
        .reuse_grace(Duration::from_secs(300))
        // [I] The same issue: three months.
        .refresh_lifetime(days(90))
}

/// The realm `realm` of a Keycloak (a grant may name another one, as its parameter `realm`) at `base`: `https://sso.example.com`, or with `/auth` on servers that still use it.
pub fn keycloak(
    base: impl AsRef<str>,
    realm: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<ClientSecret>,
) -> Idp {
    let base = base.as_ref().trim_end_matches('/');
    let endpoint = format!("{base}/realms/{{realm}}/protocol/openid-connect");
    Idp::oauth2(format!("{endpoint}/token"), client_id, client_secret)
        .endpoint_param("realm", realm.as_ref())
        // [seen] 26.4.0 and 26.7.3: refresh tokens are single-use only with the realm's "revoke refresh token", and
        // then reuse ends the client session; the old access token stays valid. A wrong secret yields
        // `unauthorized_client`, a disabled user `invalid_grant`.
        .client_auth(ClientAuth::Basic)
        .rotation(Rotation::Sometimes)
        // [seen] The same versions: introspection of a refresh token or an offline token does not spend it; a spent one is not
        // active.
        .introspection_url(format!("{endpoint}/token/introspect"))
        .revocation_url(format!("{endpoint}/revoke"))
        // [S] TokenRevocationEndpoint.revokeClient: revokes consent, offline token and every session of the user with
        // this client.
        .revocation_hits_user(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_have_the_expected_endpoints() {
        let secret = "ts-test-secret-client";
        for (idp, token_url, revocation_url) in [
            (github("id", secret), "https://github.com/login/oauth/access_token", None),
            (gitlab("id", secret), "https://gitlab.com/oauth/token", Some("https://gitlab.com/oauth/revoke")),
            (
                gitlab_at("https://git.example/", "id", secret),
                "https://git.example/oauth/token",
                Some("https://git.example/oauth/revoke"),
            ),
            (bitbucket("id", secret), "https://bitbucket.org/site/oauth2/access_token", None),
            (
                keycloak("http://127.0.0.1:8080/", "my realm", "id", secret),
                "http://127.0.0.1:8080/realms/my%20realm/protocol/openid-connect/token",
                Some("http://127.0.0.1:8080/realms/my%20realm/protocol/openid-connect/revoke"),
            ),
            (oauth2("https://acme.example/t", "id", secret), "https://acme.example/t", None),
            (google("id", secret), "https://oauth2.googleapis.com/token", Some("https://oauth2.googleapis.com/revoke")),
            (
                entra("my tenant/x", "id", secret),
                "https://login.microsoftonline.com/my%20tenant%2Fx/oauth2/v2.0/token",
                None,
            ),
            (
                okta("https://acme.okta.com/oauth2/default/", "id", secret),
                "https://acme.okta.com/oauth2/default/v1/token",
                Some("https://acme.okta.com/oauth2/default/v1/revoke"),
            ),
            (slack("id", secret), "https://slack.com/api/oauth.v2.access", None),
            (
                salesforce("id", secret),
                "https://login.salesforce.com/services/oauth2/token",
                Some("https://login.salesforce.com/services/oauth2/revoke"),
            ),
            (
                salesforce_at("https://acme.my.salesforce.com/", "id", secret),
                "https://acme.my.salesforce.com/services/oauth2/token",
                Some("https://acme.my.salesforce.com/services/oauth2/revoke"),
            ),
            (hubspot("id", secret), "https://api.hubapi.com/oauth/2026-03/token", None),
            (atlassian("id", secret), "https://auth.atlassian.com/oauth/token", None),
            (box_com("id", secret), "https://api.box.com/oauth2/token", Some("https://api.box.com/oauth2/revoke")),
            (
                discord("id", secret),
                "https://discord.com/api/oauth2/token",
                Some("https://discord.com/api/oauth2/token/revoke"),
            ),
            (zoom("id", secret), "https://zoom.us/oauth/token", None),
        ] {
            idp.validate().unwrap();
            let none = std::collections::BTreeMap::new();
            let endpoints = (idp.token_endpoint(&none).unwrap(), idp.revocation_endpoint(&none).unwrap());
            assert_eq!((endpoints.0.as_str(), endpoints.1.as_deref()), (token_url, revocation_url));
        }
    }
}
