//! The table of routes: what is served, and what `openapi.json` says of it.
//!
//! To add one: its entry in [`ROUTES`], beside the entries with the same path, and a handler. Only `mount`, `serve` and
//! `openapi.json` use the table. Paths are matched in the order of the table: those that are requested most come first.

use std::sync::OnceLock;

use actix_web::{
    http::{
        Method,
        header::{IF_MATCH, IF_NONE_MATCH},
    },
    web::Bytes,
};
use futures_util::future::BoxFuture;

use super::{
    call::Call,
    endpoint::{Endpoint, Precondition},
    grants, health, idps, lists, metrics, openapi,
    parameters::{ACCOUNT, LISTED, MIN_TTL, PURGE, QueryParameter, REVOKE, STRICT, TIMEOUT, USER, WAIT},
    problem::{Problem, line},
    response::ApiResponse,
    rotation, tokens,
};
use crate::{
    apikey::Scope::{Admin, Grant, Metrics, Token},
    code::Code::{
        self, AccountMismatch, Busy, DuplicateGrant, GenerationMismatch, MinTtlUnsatisfiable, NotConnected,
        ReconnectRequired, Timeout, Unavailable,
    },
};

/// An endpoint and its handler.
pub(super) struct ApiRoute {
    pub(super) endpoint: Endpoint,
    pub(super) handler: Handler,
}

/// Carries out an admitted request.
pub(super) type Handler = for<'a> fn(&'a Call) -> BoxFuture<'a, Result<ApiResponse, Problem>>;

const KNOWN: &[Precondition] = &[Precondition {
    name: IF_NONE_MATCH,
    about: "The generations that the caller has, or * for any: the response is 304 while one of them is current.",
    pattern: None,
}];
const EXPECTED: &[Precondition] = &[
    Precondition { name: IF_MATCH, about: "Replaces only this generation.", pattern: Some("^\"g[0-9]{1,12}\"$") },
    Precondition { name: IF_NONE_MATCH, about: "With *: creates only.", pattern: Some(r"^\*$") },
];

const OF_PROXIES: &[(&str, &str)] = &[
    ("Authorization", "The token in the form that a resource server accepts."),
    ("X-Token-Generation", "The generation of the token, to report it as rejected."),
];

const ASKED: &[Code] = &[Busy, Unavailable, Timeout];
const CHANGED: &[Code] = &[NotConnected, Busy, Unavailable, Timeout];
const SERVED: &[Code] = &[NotConnected, ReconnectRequired, MinTtlUnsatisfiable, Busy, Unavailable, Timeout];

macro_rules! routes {
    ($($method:ident $path:literal $about:literal { $($field:ident: $value:expr),* $(,)? } => $handler:path)*) => {
        &[$(ApiRoute {
            endpoint: Endpoint {
                method: Method::$method,
                path: $path,
                about: $about,
                $($field: $value,)*
                ..Endpoint::OPEN
            },
            handler: |call| Box::pin($handler(call)),
        }),*]
    };
}

/// `GET /openapi.json`.
async fn document(_: &Call) -> Result<ApiResponse, Problem> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| line(&openapi::document(ROUTES.iter().map(|route| &route.endpoint))).into());
    Ok(ApiResponse::text("application/json", document.clone()))
}

/// The query of an endpoint for one grant.
const OF_A_GRANT: &[QueryParameter] = &[ACCOUNT, TIMEOUT];

pub(super) static ROUTES: &[ApiRoute] = routes! {
    GET "/v1/grants/{idp}/{user}/token"
    "A valid token. With `If-None-Match: \"g41\"`: 304 while generation 41 is current, after waiting for another." {
        name: "get_token",
        scopes: &[Token], query: &[ACCOUNT, TIMEOUT, MIN_TTL, WAIT], preconditions: KNOWN,
        responses: &[(200, "Token"), (304, "")],
        problems: SERVED, audit: Some("token"),
    } => tokens::token
    GET "/v1/authorize/{idp}/{user}"
    "For proxies: 204 with the token as `Authorization`, and `X-Token-Generation`. If the path of the proxied request follows \
     the path (Envoy's ext_authz), method and query are ignored, and the status is 200." {
        name: "authorize",
        scopes: &[Token], query: &[ACCOUNT, TIMEOUT, MIN_TTL], of_proxies: true, responses: &[(204, "")],
        headers: OF_PROXIES,
        problems: SERVED, audit: Some("authorize"),
    } => tokens::authorize
    GET "/v1/grants"
    "Grants in the order of their keys, without their tokens. Disconnected ones only if `state=revoked` is asked for." {
        name: "list_grants",
        scopes: &[Admin], query: LISTED, responses: &[(200, "Page")], problems: &[Unavailable, Timeout],
    } => lists::list
    DELETE "/v1/grants"
    "Disconnects all grants of one user: one result for each. May be repeated." {
        name: "disconnect_user",
        scopes: &[Grant], query: &[USER, REVOKE],
        responses: &[(200, "Offboarded")], problems: &[Unavailable], audit: Some("disconnect"),
    } => lists::offboard
    PUT "/v1/grants/{idp}/{user}"
    "Connects the user with the token response from consent. A replay changes nothing and says so in `unchanged`. \
     `If-None-Match: *` creates only, `If-Match: \"g41\"` replaces only that." {
        name: "connect",
        scopes: &[Grant], query: OF_A_GRANT, preconditions: EXPECTED, body: "Grant",
        responses: &[(200, "Status"), (201, "Status")],
        problems: &[DuplicateGrant, AccountMismatch, GenerationMismatch, Busy, Unavailable, Timeout],
        audit: Some("connect"),
    } => grants::connect
    GET "/v1/grants/{idp}/{user}"
    "The state of a grant, without its tokens." {
        name: "get_status",
        scopes: &[Token, Grant, Admin], query: OF_A_GRANT, responses: &[(200, "Status")], problems: CHANGED,
    } => grants::status
    DELETE "/v1/grants/{idp}/{user}"
    "Disconnects the grant. This takes effect immediately; revocation is queued and retried." {
        name: "disconnect",
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT, REVOKE, PURGE], responses: &[(204, "")], problems: CHANGED,
        audit: Some("disconnect"),
    } => grants::disconnect
    POST "/v1/grants/{idp}/{user}/refresh"
    "Refreshes although the token is not due. `refreshed: false` if there has just been a refresh." {
        name: "refresh",
        scopes: &[Grant], query: OF_A_GRANT, responses: &[(200, "Refreshed")],
        problems: &[NotConnected, ReconnectRequired, Busy, Unavailable, Timeout], audit: Some("refresh"),
    } => grants::refresh
    POST "/v1/grants/{idp}/{user}/rejected"
    "Reports that a resource server refused this token: one refresh for any number of reports, none if the token is already replaced." {
        name: "report_rejected",
        scopes: &[Token], query: OF_A_GRANT, body: "Rejected", responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("rejected"),
    } => grants::rejected
    POST "/v1/grants/{idp}/{user}/reconnect"
    "Requires the user to consent again, until the next connect." {
        name: "require_reconnect",
        scopes: &[Grant], query: OF_A_GRANT, body: "Reason", responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("reconnect"),
    } => grants::reconnect
    POST "/v1/grants/{idp}/{user}/hold"
    "Puts the grant on hold: nothing is sent for it until it is released. Valid tokens are served." {
        name: "hold",
        scopes: &[Grant], query: OF_A_GRANT, body: "Reason", responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("hold"),
    } => grants::hold
    POST "/v1/grants/{idp}/{user}/release"
    "Ends a hold." {
        name: "release",
        scopes: &[Grant], query: OF_A_GRANT, responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("release"),
    } => grants::release
    POST "/v1/grants/{idp}/{user}/restore"
    "Reverses a disconnect, unless a token of the grant is or may be lost." {
        name: "restore",
        scopes: &[Grant], query: OF_A_GRANT, responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("restore"),
    } => grants::restore
    POST "/v1/grants/{idp}/{user}/retry"
    "Sends the grant's refused refresh token once more. Changes nothing unless the provider refused it." {
        name: "retry",
        scopes: &[Grant], query: OF_A_GRANT, responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("retry"),
    } => grants::retry
    POST "/v1/grants/{idp}/{user}/purge"
    "Deletes the stored data of a disconnected grant. This cannot be reversed." {
        name: "purge",
        scopes: &[Grant], query: OF_A_GRANT, responses: &[(200, "Status")],
        problems: CHANGED, audit: Some("purge"),
    } => grants::purge
    POST "/v1/tokens"
    "Tokens of up to 100 grants: one result or problem for each, in their order." {
        name: "get_tokens",
        scopes: &[Token], body: "Batch", responses: &[(200, "Tokens")], audit: Some("token"),
    } => tokens::batch
    GET "/v1/idps"
    "The state of each identity provider." {
        name: "list_idps",
        scopes: &[Admin], responses: &[(200, "Idps")],
    } => idps::list
    POST "/v1/idps/{idp}/hold"
    "Puts an identity provider on hold: no request to it is started until it is released." {
        name: "hold_idp",
        scopes: &[Admin], body: "Reason", responses: &[(200, "Idp")], problems: ASKED, audit: Some("hold_idp"),
    } => idps::hold
    POST "/v1/idps/{idp}/release"
    "Ends a hold of an identity provider." {
        name: "release_idp",
        scopes: &[Admin], responses: &[(200, "Idp")], problems: ASKED, audit: Some("release_idp"),
    } => idps::release
    POST "/v1/idps/{idp}/probe"
    "Lets the next request to a paused identity provider through: its response decides whether the pause ends." {
        name: "probe_idp",
        scopes: &[Admin], responses: &[(200, "Idp")], audit: Some("probe_idp"),
    } => idps::probe
    POST "/v1/idps/{idp}/retry"
    "Sends the refused refresh tokens of an identity provider once more, at most 1000 in one request." {
        name: "retry_idp",
        scopes: &[Admin], responses: &[(200, "Retried")], problems: ASKED, audit: Some("retry_idp"),
    } => idps::retry
    POST "/v1/adopt"
    "Takes over a store that belongs to another deployment, and ends the hold of all identity providers that comes with it." {
        name: "adopt",
        scopes: &[Admin], responses: &[(200, "Adopted")], problems: ASKED, audit: Some("adopt"),
    } => idps::adopt
    GET "/v1/replicas"
    "The processes that work with the store and live: each has reported within 20 seconds." {
        name: "list_replicas",
        scopes: &[Admin], responses: &[(200, "Replicas")], problems: &[Unavailable],
    } => idps::replicas
    GET "/v1/keys"
    "The keys that seal stored values, what needs each of them, and the processes that have them. Reads every row of the store." {
        name: "list_keys",
        scopes: &[Admin], responses: &[(200, "Keys")], problems: &[Unavailable, Timeout],
    } => rotation::list
    POST "/v1/keys/reseal"
    "Seals stored values with the active key that other keys sealed, for about a second. Go on with `next`, until it is null." {
        name: "reseal",
        scopes: &[Admin], body: "Reseal", responses: &[(200, "Resealed")], problems: ASKED, audit: Some("reseal"),
    } => rotation::reseal
    GET "/livez" "Whether the process responds." { name: "get_livez", responses: &[(200, "Health")] } => health::livez
    GET "/readyz"
    "Whether valid tokens can be served; not while the server drains." {
        name: "get_readyz",
        query: &[STRICT], responses: &[(200, "Health"), (503, "Health")],
    } => health::readyz
    GET "/metrics"
    "Metrics in the text format of Prometheus." {
        name: "get_metrics",
        scopes: &[Metrics], responses: &[(200, "Metrics")], content_type: metrics::CONTENT_TYPE,
    } => metrics::metrics
    GET "/openapi.json" "This document." { name: "get_openapi", responses: &[(200, "Document")] } => document
};

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
