//! Those whose business is something else.

use std::time::Duration;

use super::{days, operator, user};
use crate::{
    idp::{
        provider::{ClientAuth, Idp, Rotation},
        rule::{ErrorRule, Meaning},
    },
    model::ClientSecret,
};

/// Slack, for an app with token rotation. A bot's and a user's token are two grants, each with its refresh token.
///
/// Revocation is not set: Slack has `auth.revoke` instead of RFC 7009 \[D\].
pub fn slack(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://slack.com/api/oauth.v2.access", client_id, client_secret)
        // [D] "oauth.v2.access": rather by HTTP Basic than as parameters.
        .client_auth(ClientAuth::Basic)
        // [D] "Using token rotation": "The refresh token is then revoked, and a new refresh token is used".
        .rotation(Rotation::Always)
        // [I] python-slack-sdk#1242: 200 with this code for a spent or unknown refresh token.
        .error(user("invalid_refresh_token"))
        // [D] The errors that every method of the Web API has.
        .error(user("token_revoked"))
        .error(user("token_expired"))
        .error(user("account_inactive"))
        .error(ErrorRule::new("ratelimited", Meaning::Throttled))
        // [D] The same: "some aspect of the operation succeeded before", perhaps.
        .error(ErrorRule::new("internal_error", Meaning::Transient).in_doubt())
        .error(ErrorRule::new("fatal_error", Meaning::Transient).in_doubt())
        // [D] "oauth.v2.exchange", errors.
        .error(operator("bad_client_secret"))
        .error(operator("invalid_client_id"))
        // [S] Recorded answers in clients' tests.
        .correlation_header("x-slack-req-id")
}

/// Salesforce by its common login host.
pub fn salesforce(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    salesforce_at("https://login.salesforce.com", client_id, client_secret)
}

/// Salesforce at `base`: `https://test.salesforce.com`, or a domain of one's own such as
/// `https://acme.my.salesforce.com`.
///
/// Answers do not say how long an access token lives; two hours are assumed. Where the session policy is another, say
/// so by [`access_lifetime`](Idp::access_lifetime).
pub fn salesforce_at(
    base: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<ClientSecret>,
) -> Idp {
    let base = base.as_ref().trim_end_matches('/');
    Idp::oauth2(format!("{base}/services/oauth2/token"), client_id, client_secret)
        // [D] "OAuth 2.0 Refresh Token Flow for Renewed Sessions": parameters; rotation is an app's setting, with it
        // the previous refresh token ends. [I] restforce#957: then reuse ends all of them.
        .client_auth(ClientAuth::Body)
        .rotation(Rotation::Sometimes)
        // [D] The default session time-out.
        .access_lifetime(Duration::from_secs(7_200))
        .revocation_url(format!("{base}/services/oauth2/revoke"))
        // [D] Release notes (250): one token request per refresh token at a time. [S] The text as
        // segmentio/action-destinations#2300 met it; [I] SalesforceMobileSDK-iOS#3731 as the login history has it.
        .error(race("token request is already being processed"))
        .error(race("Token request is already being processed"))
        // [K] Beside `invalid_client`.
        .error(operator("invalid_client_id"))
        // [D] "Identity URLs": `https://login.salesforce.com/id/<organization>/<user>`.
        .subject_field("id")
}

fn race(description: &str) -> ErrorRule {
    ErrorRule::new("invalid_grant", Meaning::Race).and("error_description", description)
}

/// HubSpot, by the version 2026-03 of its OAuth API; version 1 ends on 2027-02-16 \[D\].
///
/// Revocation is not set: HubSpot deletes refresh tokens by a call of its own instead of RFC 7009 \[D\].
pub fn hubspot(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://api.hubapi.com/oauth/2026-03/token", client_id, client_secret)
        // [D] "Refresh an access token": all as parameters of the body.
        .client_auth(ClientAuth::Body)
        // [I] mk-node-hubspot#19: the same refresh token comes back with each answer. Promised nowhere, so not relied
        // upon.
        .rotation(Rotation::Sometimes)
        // [I] mk-node-hubspot#64, airbyte#79592: an envelope of its own instead of `error`.
        .error(user("BAD_REFRESH_TOKEN").field("status"))
        // [K] The same for the client.
        .error(operator("BAD_CLIENT_ID").field("status"))
        .error(operator("BAD_CLIENT_SECRET").field("status"))
        // [S] Clients read it; it is the body's `correlationId`.
        .correlation_header("x-hubspot-correlation-id")
}

/// Atlassian's cloud (Jira, Confluence) by OAuth 2.0 (3LO). Bitbucket is [another system](super::bitbucket).
///
/// Revocation is not set: nothing revokes a grant. However often it is refreshed, a grant ends after 365 days \[D\].
pub fn atlassian(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://auth.atlassian.com/oauth/token", client_id, client_secret)
        // [D] Identifier and secret in the body, as JSON; [S] pilcrowonpaper/arctic sends a form.
        .client_auth(ClientAuth::Body)
        // [D] The announcement of rotating refresh tokens (2022-01): reuse "outside the leeway interval invalidates
        // all refresh tokens", "the leeway interval is 10 minutes"; they end after 90 days without use.
        .rotation(Rotation::Always)
        .reuse_grace(Duration::from_secs(600))
        .refresh_lifetime(days(90))
        // [D] "Implementing the Refresh Token Flow": 403 `invalid_grant`. [I] raycast/extensions#11836: 403 with a
        // code that is about the client elsewhere.
        .error(user("unauthorized_client").and("error_description", "refresh_token is invalid").status(403))
        // [S] jira.js: a wrong client secret.
        .error(operator("access_denied"))
        // [S] Clients read it.
        .correlation_header("atl-traceid")
}

/// Box.
pub fn box_com(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://api.box.com/oauth2/token", client_id, client_secret)
        // [D] "Refresh a Token": as parameters; good for 60 days, and "only once".
        .client_auth(ClientAuth::Body)
        .rotation(Rotation::Always)
        .refresh_lifetime(days(60))
        // [D] "Revoke access token".
        .revocation_url("https://api.box.com/oauth2/revoke")
}

/// Discord.
pub fn discord(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://discord.com/api/oauth2/token", client_id, client_secret)
        // [D] "OAuth2": a form, with HTTP Basic or parameters; an answer to a refresh is like the first one.
        .client_auth(ClientAuth::Basic)
        .rotation(Rotation::Always)
        .revocation_url("https://discord.com/api/oauth2/token/revoke")
        // [D] The same: any token ends all those "associated with that authorization".
        .revocation_hits_user(true)
}

/// Zoom, for an app that its users add. (Server-to-server apps have no refresh tokens \[D\].)
///
/// Revocation is not set: Zoom documents it for access tokens alone.
pub fn zoom(client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Idp {
    Idp::oauth2("https://zoom.us/oauth/token", client_id, client_secret)
        // [D] "OAuth 2.0": HTTP Basic; the latest refresh token is the good one and lives 90 days.
        .client_auth(ClientAuth::Basic)
        .rotation(Rotation::Always)
        .refresh_lifetime(days(90))
        // [I] raycast/extensions#10896: beside `invalid_grant`. [K] Beside other codes, too.
        .error(user("Invalid Token!").field("reason"))
        // [D] What Zoom's support asks for.
        .correlation_header("x-zm-trackingid")
}
