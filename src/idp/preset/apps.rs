//! Presets of applications with an API of their own.

use std::time::Duration;

use super::{days, operator, user};
use crate::{
    idp::{
        provider::{ClientAuth, Idp, Rotation},
        rule::{ErrorRule, Meaning},
    },
    model::ClientSecret,
};

/// Slack, for an app with token rotation. The tokens of a bot and of a user are two grants, each with a refresh token.
///
/// Revocation is not set: Slack has `auth.revoke` instead of RFC 7009 \[D\].
pub fn slack(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://slack.com/api/oauth.v2.access", client_id, client_secret)
        // [D] "oauth.v2.access": HTTP Basic is preferred to parameters.
        .client_auth(ClientAuth::Basic)
        // [D] "Using token rotation": "The refresh token is then revoked, and a new refresh token is used".
        .rotation(Rotation::Always)
        // [I] python-slack-sdk#1242: status 200 with this code for a spent or unknown refresh token.
        .error(user("invalid_refresh_token"))
        // [D] Errors of every method of the Web API.
        .error(user("token_revoked"))
        .error(user("token_expired"))
        .error(user("account_inactive"))
        .error(ErrorRule::new("ratelimited", Meaning::Throttled))
        // [D] Also of every method; possibly "some aspect of the operation succeeded before".
        .error(ErrorRule::new("internal_error", Meaning::Transient).in_doubt())
        .error(ErrorRule::new("fatal_error", Meaning::Transient).in_doubt())
        // [D] "oauth.v2.exchange", errors.
        .error(operator("bad_client_secret"))
        .error(operator("invalid_client_id"))
        // [D] "oauth.v2.access": the workspace and the app that the token belongs to.
        .expose("team")
        .expose("app_id")
        // [S] Recorded responses in tests of clients.
        .correlation_header("x-slack-req-id")
}

/// Salesforce at its common login host.
pub fn salesforce(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    salesforce_at("https://login.salesforce.com", client_id, client_secret)
}

/// Salesforce at `base`: `https://test.salesforce.com`, or a custom domain such as `https://acme.my.salesforce.com`.
///
/// Responses do not contain the lifetime of an access token; two hours are assumed. If the session policy differs, set
/// [`access_lifetime`](Idp::access_lifetime).
pub fn salesforce_at(
    base: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<ClientSecret>,
) -> Idp {
    let base = base.as_ref().trim_end_matches('/');
    Idp::oauth2(format!("{base}/services/oauth2/token"), client_id, client_secret)
        // [D] "OAuth 2.0 Refresh Token Flow for Renewed Sessions": parameters. Rotation is a setting of the app and
        // invalidates the previous refresh token. [I] restforce#957: with rotation, reuse revokes all refresh tokens.
        .client_auth(ClientAuth::Body)
        .rotation(Rotation::Sometimes)
        // [D] The default session timeout.
        .access_lifetime(Duration::from_secs(7_200))
        .revocation_url(format!("{base}/services/oauth2/revoke"))
        // [D] Release notes (250): one token request per refresh token at a time. The text is from [S]
        // segmentio/action-destinations#2300 and, as in the login history, [I] SalesforceMobileSDK-iOS#3731.
        .error(race("token request is already being processed"))
        .error(race("Token request is already being processed"))
        // [K] In addition to `invalid_client`.
        .error(operator("invalid_client_id"))
        // [D] "Identity URLs": `https://login.salesforce.com/id/<organization>/<user>`.
        .subject_field("id")
        // [I] SalesforceMobileSDK: the host in `id` depends on the login host and on migrations of the organization.
        .subject_is_url(true)
        // [D] "OAuth 2.0 Refresh Token Flow": where the API of the organization is; it may change.
        .expose("instance_url")
}

fn race(description: &str) -> ErrorRule {
    ErrorRule::new("invalid_grant", Meaning::Race).and("error_description", description)
}

/// HubSpot, with version 2026-03 of its OAuth API; version 1 ends on 2027-02-16 \[D\].
///
/// Revocation is not set: HubSpot deletes refresh tokens with a call of its own instead of RFC 7009 \[D\].
pub fn hubspot(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://api.hubapi.com/oauth/2026-03/token", client_id, client_secret)
        // [D] "Refresh an access token": all parameters are in the body.
        .client_auth(ClientAuth::Body)
        // [I] mk-node-hubspot#19: each response has the same refresh token. HubSpot does not promise it, so it is not
        // relied upon.
        .rotation(Rotation::Sometimes)
        // [I] mk-node-hubspot#64, airbyte#79592: a custom error format instead of `error`.
        .error(user("BAD_REFRESH_TOKEN").field("status"))
        // [K] The same format for errors of the client.
        .error(operator("BAD_CLIENT_ID").field("status"))
        .error(operator("BAD_CLIENT_SECRET").field("status"))
        // [S] Clients read this header; it equals the body's `correlationId`.
        .correlation_header("x-hubspot-correlation-id")
}

/// Atlassian Cloud (Jira, Confluence) with OAuth 2.0 (3LO). Bitbucket is [another system](super::bitbucket).
///
/// Revocation is not set: Atlassian has no call for it. A grant expires after 365 days, however often it is refreshed
/// \[D\].
pub fn atlassian(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://auth.atlassian.com/oauth/token", client_id, client_secret)
        // [D] Identifier and secret are in the body, as JSON. [S] pilcrowonpaper/arctic sends a form.
        .client_auth(ClientAuth::Body)
        // [D] The announcement of rotating refresh tokens (2022-01): reuse "outside the leeway interval invalidates all
        // refresh tokens", "the leeway interval is 10 minutes"; they expire after 90 days without use.
        .rotation(Rotation::Always)
        .reuse_grace(Duration::from_secs(600))
        .refresh_lifetime(days(90))
        // [D] "Implementing the Refresh Token Flow": 403 `invalid_grant`. [I] raycast/extensions#11836: 403 with a code
        // that means the client at other providers.
        .error(user("unauthorized_client").and("error_description", "refresh_token is invalid").status(403))
        // [S] jira.js: a wrong client secret.
        .error(operator("access_denied"))
        // [S] Clients read this header.
        .correlation_header("atl-traceid")
}

/// Box.
pub fn box_com(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://api.box.com/oauth2/token", client_id, client_secret)
        // [D] "Refresh a Token": parameters; a refresh token is valid for 60 days, and "only once".
        .client_auth(ClientAuth::Body)
        .rotation(Rotation::Always)
        .refresh_lifetime(days(60))
        // [D] "Revoke access token".
        .revocation_url("https://api.box.com/oauth2/revoke")
}

/// Discord.
pub fn discord(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://discord.com/api/oauth2/token", client_id, client_secret)
        // [D] "OAuth2": a form, with HTTP Basic or parameters; the response to a refresh is like the first response.
        .client_auth(ClientAuth::Basic)
        .rotation(Rotation::Always)
        .revocation_url("https://discord.com/api/oauth2/token/revoke")
        // [D] The same page: revoking any token revokes all tokens "associated with that authorization".
        .revocation_hits_user(true)
}

/// Zoom, for an app that users add. (Server-to-server apps have no refresh tokens \[D\].)
///
/// Revocation is not set: Zoom documents it for access tokens only.
pub fn zoom(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://zoom.us/oauth/token", client_id, client_secret)
        // [D] "OAuth 2.0": HTTP Basic; only the latest refresh token is valid, for 90 days.
        .client_auth(ClientAuth::Basic)
        .rotation(Rotation::Always)
        .refresh_lifetime(days(90))
        // [I] raycast/extensions#10896: together with `invalid_grant`. [K] With other codes too.
        .error(user("Invalid Token!").field("reason"))
        // [D] Zoom's support asks for this header.
        .correlation_header("x-zm-trackingid")
}
