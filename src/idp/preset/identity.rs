//! Presets of identity services.

use std::time::Duration;

use super::days;
use crate::{
    idp::{
        provider::{ClientAuth, Idp, Rotation},
        rule::{ErrorRule, Meaning},
    },
    model::ClientSecret,
};

/// Google. A consent without `access_type=offline` returns no refresh token.
///
/// Refresh tokens of a project with the publishing status "Testing" expire after seven days \[D\]; no response says so.
pub fn google(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://oauth2.googleapis.com/token", client_id, client_secret)
        // [D] "Using OAuth 2.0 for Web Server Applications": identifier and secret as parameters; responses to
        // refreshes have no refresh token.
        .client_auth(ClientAuth::Body)
        // [D] "Using OAuth 2.0 to Access Google APIs": store refresh tokens "and continue to use them as long as
        // they remain valid"; one that "has not been used for six months" may expire.
        .rotation(Rotation::Never)
        .refresh_lifetime(days(180))
        .revocation_url("https://oauth2.googleapis.com/revoke")
        // [D] "Incremental authorization": a revocation ends the whole combined authorization of the user.
        .revocation_hits_user(true)
        // [I] google-auth-library-nodejs#1961: `invalid_rapt`, the organization requires the user to sign in again.
        .error_detail("error_subtype")
}

/// Microsoft Entra ID. `tenant` is a directory's identifier or domain, `organizations`, `consumers` or `common`; a
/// grant may name another one, as its parameter `tenant`.
///
/// Revocation is not set: instead of RFC 7009, Microsoft Graph has `revokeSignInSessions`, which ends all sessions.
pub fn entra(tenant: impl AsRef<str>, client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    let token_url = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token";
    Idp::oauth2(token_url, client_id, client_secret)
        .endpoint_param("tenant", tenant.as_ref())
        // [D] "Microsoft identity platform and OAuth 2.0 authorization code flow": `client_secret` as a parameter.
        .client_auth(ClientAuth::Body)
        // [D] "Refresh tokens in the Microsoft identity platform": they "replace themselves with a fresh token upon
        // every use", and the platform "doesn't revoke old refresh tokens when used". They are valid for 90 days, those
        // of single-page applications for 24 hours: for this time the old one is certainly valid.
        .rotation(Rotation::Sometimes)
        .reuse_grace(days(1))
        .refresh_lifetime(days(90))
        // [D] "Handling error codes in your application": `error` decides, the numbers are for people to read.
        .error_detail("error_codes")
        // [I] MSAL.PS#10: 50196 means throttling, whatever `error` says.
        .error(ErrorRule::new("50196", Meaning::Throttled).field("error_codes"))
        // [S] MSAL.
        .correlation_header("x-ms-request-id")
}

/// An authorization server of Okta at `issuer`, such as `https://acme.okta.com/oauth2` (the organization's own) or
/// `https://acme.okta.com/oauth2/default`.
///
/// The reuse grace, and the timing that must fit into it, suit a client with Okta's default of 30 seconds. If an
/// administrator configured another grace period, set [`reuse_grace`](Idp::reuse_grace).
pub fn okta(issuer: impl AsRef<str>, client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    let issuer = issuer.as_ref().trim_end_matches('/');
    Idp::oauth2(format!("{issuer}/v1/token"), client_id, client_secret)
        // [D] "Client authentication methods": `client_secret_basic` is the default.
        .client_auth(ClientAuth::Basic)
        // [D] "Refresh access tokens and rotate refresh tokens": each response returns a persistent refresh token; a
        // rotating one may be used again for 30 seconds by default. After that Okta "invalidates the most recently
        // issued refresh token and all access tokens".
        .rotation(Rotation::Sometimes)
        .reuse_grace(Duration::from_secs(30))
        // A whole recovery fits into that grace period.
        .lease(Duration::from_secs(6))
        .send_window(Duration::from_secs(3))
        .settle(Duration::from_secs(8))
        .attempt_timeout(Duration::from_secs(10))
        .revocation_url(format!("{issuer}/v1/revoke"))
        // [D] "Rate limit best practices": seconds since 1970.
        .rate_limit_reset_header("x-rate-limit-reset")
        // [S] okta-sdk-golang.
        .correlation_header("x-okta-request-id")
}
