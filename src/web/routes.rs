//! Every route of the API: what is served, and what `openapi.json` says of it.
//!
//! To add one: its entry in [`ROUTES`], beside those of the same path, and a handler.

use actix_web::http::{
    Method,
    header::{HeaderName, IF_MATCH, IF_NONE_MATCH},
};
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{answer::Answer, call::Call, grants, health, idps, lists, metrics, problem::Problem, schemas, tokens};
use crate::apikey::Scope::{self, Admin, Grant, Metrics, Token};

/// One method of one path.
pub(super) struct Route {
    pub(super) method: Method,
    /// Below wherever the API is mounted. `{idp}` and `{user}` are whole segments.
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    /// One of these is needed; of an open route none.
    pub(super) scopes: &'static [Scope],
    pub(super) query: &'static [Param],
    /// Proxies ask it about their own requests: what these ask for may follow the path, and then any method will do.
    pub(super) of_proxies: bool,
    /// Those that it honours; others are refused where something would change.
    pub(super) preconditions: &'static [Precondition],
    /// The schema of the body; of a route without one empty.
    pub(super) body: &'static str,
    /// The status and the schema of its body, if there is one.
    pub(super) answers: &'static [(u16, &'static str)],
    /// Headers of its answers beside those that follow from the rest, and what they say.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Of those bodies.
    pub(super) content_type: &'static str,
    /// The codes of problems beside those that follow from the rest.
    pub(super) problems: &'static [&'static str],
    /// What the audit calls it, if it hands out a token or changes something. Of many grants there is a line for each.
    pub(super) audit: Option<&'static str>,
    pub(super) handler: Handler,
}

impl Route {
    /// Whether it is carried out even if nobody waits for the answer any more.
    pub(super) fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// Whoever may GET may ask for the head of that alone.
    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        let head = (self.method == Method::GET).then_some("HEAD");
        std::iter::once(self.method.as_str()).chain(head)
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods().any(|ours| ours == method.as_str())
    }
}

/// Carries out an admitted request.
pub(super) type Handler = for<'a> fn(&'a Call) -> BoxFuture<'a, Result<Answer, Problem>>;

/// A parameter of a query.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    /// It must be given.
    pub(super) required: bool,
}

/// A precondition in a header (RFC 9110, 13.1).
pub(super) struct Precondition {
    pub(super) name: HeaderName,
    pub(super) about: &'static str,
    /// What its value must match, if not everything will do.
    pub(super) pattern: Option<&'static str>,
}

/// What may stand in a parameter.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `true`, `false`, or nothing after its name, which is true.
    Flag,
    /// A whole number within.
    Number(u64, u64),
    /// A text of this schema.
    Text(fn() -> Value),
}

const fn param(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, about, kind, required: false }
}

use Kind::{Flag, Number, Text};

pub(super) const ACCOUNT: Param = param(
    "account",
    Text(schemas::account),
    "Which of the user's accounts at the identity provider; empty unless given.",
);
pub(super) const TIMEOUT: Param =
    param("timeout", Number(0, 60), "How many seconds to wait for the answer, at most 60; 10 unless given.");
pub(super) const MIN_TTL: Param = param("min_ttl", Number(0, u64::MAX), "How many seconds the token must still live.");
pub(super) const WAIT: Param =
    param("wait", Number(0, 60), "With If-None-Match: how many seconds to wait for another token, at most 60.");
pub(super) const REVOKE: Param = param("revoke", Flag, "Whether the tokens are revoked at the identity provider, too.");
pub(super) const PURGE: Param = param(
    "purge",
    Flag,
    "Whether the tombstone goes, too: at once, or as soon as nothing of the grant is still to come.",
);
pub(super) const STRICT: Param = param("strict", Flag, "Whether any degradation counts as not ready.");
pub(super) const HELD: Param = param("held", Flag, "Only those that people hold, or only the others.");
pub(super) const LIMIT: Param = param("limit", Number(1, 1_000), "How many grants, 1 to 1000; 100 unless given.");

const USER: Param = Param { required: true, ..param("user", Text(schemas::name), "The user.") };
const LISTED: &[Param] = &[
    param("idp", Text(schemas::text), "Only at this identity provider."),
    param("user", Text(schemas::text), "Only of this user."),
    param("user_prefix", Text(schemas::text), "Only of users whose names begin like this."),
    param("account", Text(schemas::text), "Only of this account."),
    param("state", Text(schemas::states), "Only in this state, or in one of these, with commas between them."),
    HELD,
    param("expiring_before", Text(schemas::moment), "Only what ends before then for want of a consent."),
    param("after", Text(schemas::text), "Where the page starts: `next` of the page before."),
    LIMIT,
];

const KNOWN: &[Precondition] = &[Precondition {
    name: IF_NONE_MATCH,
    about: "The generations that the caller has, or * for any: then 304 while one of them is good.",
    pattern: None,
}];
const EXPECTED: &[Precondition] = &[
    Precondition { name: IF_MATCH, about: "Replaces only this generation.", pattern: Some("^\"g[0-9]{1,12}\"$") },
    Precondition { name: IF_NONE_MATCH, about: "With *: creates only.", pattern: Some(r"^\*$") },
];

const OF_PROXIES: &[(&str, &str)] = &[
    ("Authorization", "The token, as a resource server wants it."),
    ("X-Token-Generation", "Which token it is, to report it as rejected."),
];

const ASKED: &[&str] = &["busy", "unavailable", "timeout"];
const CHANGED: &[&str] = &["not_connected", "busy", "unavailable", "timeout"];
const SERVED: &[&str] =
    &["not_connected", "reconnect_required", "min_ttl_unsatisfiable", "busy", "unavailable", "timeout"];

macro_rules! routes {
    ($($method:ident $path:literal $about:literal { $($field:ident: $value:expr),* $(,)? } => $handler:path)*) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            about: $about,
            handler: |call| Box::pin($handler(call)),
            $($field: $value,)*
            ..OPEN
        }),*]
    };
}

/// A route of which nothing is said.
const OPEN: Route = Route {
    method: Method::GET,
    path: "",
    about: "",
    scopes: &[],
    query: &[],
    of_proxies: false,
    preconditions: &[],
    body: "",
    answers: &[],
    headers: &[],
    content_type: "application/json",
    problems: &[],
    audit: None,
    handler: |call| Box::pin(health::livez(call)),
};

pub(super) static ROUTES: &[Route] = routes! {
    GET "/v1/grants"
    "Grants in the order of their keys, without their tokens. Disconnected ones only if `state=revoked` is asked for." {
        scopes: &[Admin], query: LISTED, answers: &[(200, "Page")], problems: &["unavailable", "timeout"],
    } => lists::list
    DELETE "/v1/grants"
    "Ends all grants of one user: one result for each. May be repeated." {
        scopes: &[Grant], query: &[USER, REVOKE],
        answers: &[(200, "Offboarded")], problems: &["unavailable"], audit: Some("disconnect"),
    } => lists::offboard
    PUT "/v1/grants/{idp}/{user}"
    "Connects the user with what consent gave, as it came. A replay changes nothing and says so in `unchanged`. \
     `If-None-Match: *` creates only, `If-Match: \"g41\"` replaces only that." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], preconditions: EXPECTED, body: "Grant",
        answers: &[(200, "Status"), (201, "Status")],
        problems: &["duplicate_grant", "account_mismatch", "generation_mismatch", "busy", "unavailable", "timeout"],
        audit: Some("connect"),
    } => grants::connect
    GET "/v1/grants/{idp}/{user}"
    "What can be said about a grant without its tokens." {
        scopes: &[Token, Grant, Admin], query: &[ACCOUNT, TIMEOUT], answers: &[(200, "Status")], problems: CHANGED,
    } => grants::status
    DELETE "/v1/grants/{idp}/{user}"
    "Ends the grant. Its tombstone stands at once; revocation is queued and tried again." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT, REVOKE, PURGE], answers: &[(204, "")], problems: CHANGED,
        audit: Some("disconnect"),
    } => grants::disconnect
    GET "/v1/grants/{idp}/{user}/token"
    "A valid token. With `If-None-Match: \"g41\"`: 304 while that one is good, after waiting for another one." {
        scopes: &[Token], query: &[ACCOUNT, TIMEOUT, MIN_TTL, WAIT], preconditions: KNOWN,
        answers: &[(200, "Token"), (304, "")],
        problems: SERVED, audit: Some("token"),
    } => tokens::token
    POST "/v1/grants/{idp}/{user}/refresh"
    "Refreshes although the token is not due. `refreshed: false` if there has just been one." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], answers: &[(200, "Refreshed")],
        problems: &["not_connected", "reconnect_required", "busy", "unavailable", "timeout"], audit: Some("refresh"),
    } => grants::refresh
    POST "/v1/grants/{idp}/{user}/rejected"
    "A resource server refused this token: one refresh for any number of reports, none if it is already replaced." {
        scopes: &[Token], query: &[ACCOUNT, TIMEOUT], body: "Rejected", answers: &[(200, "Status")],
        problems: CHANGED, audit: Some("rejected"),
    } => grants::rejected
    POST "/v1/grants/{idp}/{user}/reconnect"
    "Sends the user through consent again; holds until the next connect." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], body: "Reason", answers: &[(200, "Status")],
        problems: CHANGED, audit: Some("reconnect"),
    } => grants::reconnect
    POST "/v1/grants/{idp}/{user}/hold"
    "Sends nothing for the grant until it is released. Valid tokens are served." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], body: "Reason", answers: &[(200, "Status")],
        problems: CHANGED, audit: Some("hold"),
    } => grants::hold
    POST "/v1/grants/{idp}/{user}/release"
    "Ends a hold." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], answers: &[(200, "Status")],
        problems: CHANGED, audit: Some("release"),
    } => grants::release
    POST "/v1/grants/{idp}/{user}/restore"
    "Takes a disconnect back, where nothing of the grant is or may be lost." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], answers: &[(200, "Status")],
        problems: CHANGED, audit: Some("restore"),
    } => grants::restore
    POST "/v1/grants/{idp}/{user}/purge"
    "Deletes what is stored of a disconnected grant: then nothing takes it back." {
        scopes: &[Grant], query: &[ACCOUNT, TIMEOUT], answers: &[(200, "Status")],
        problems: CHANGED, audit: Some("purge"),
    } => grants::purge
    POST "/v1/tokens"
    "Tokens of up to 100 grants: one result or problem for each, in their order." {
        scopes: &[Token], body: "Batch", answers: &[(200, "Tokens")], audit: Some("token"),
    } => tokens::batch
    GET "/v1/authorize/{idp}/{user}"
    "For proxies: 204 with the token as `Authorization`, and `X-Token-Generation`. If what a proxy is asked for follows \
     the path (Envoy's ext_authz), method and query count for nothing, and the answer is 200." {
        scopes: &[Token], query: &[ACCOUNT, TIMEOUT, MIN_TTL], of_proxies: true, answers: &[(204, "")],
        headers: OF_PROXIES,
        problems: SERVED, audit: Some("authorize"),
    } => tokens::authorize
    GET "/v1/idps"
    "How the identity providers are doing." {
        scopes: &[Admin], answers: &[(200, "Idps")],
    } => idps::list
    POST "/v1/idps/{idp}/hold"
    "Starts nothing more for an identity provider until it is released." {
        scopes: &[Admin], body: "Reason", answers: &[(200, "Idp")], problems: ASKED, audit: Some("hold_idp"),
    } => idps::hold
    POST "/v1/idps/{idp}/release"
    "Ends a hold of an identity provider." {
        scopes: &[Admin], answers: &[(200, "Idp")], problems: ASKED, audit: Some("release_idp"),
    } => idps::release
    POST "/v1/idps/{idp}/probe"
    "Lets the next request to a paused identity provider through: its answer decides." {
        scopes: &[Admin], answers: &[(200, "Idp")], audit: Some("probe_idp"),
    } => idps::probe
    GET "/livez" "Whether the process answers." { answers: &[(200, "Health")] } => health::livez
    GET "/readyz"
    "Whether valid tokens can be served; not while it drains." {
        query: &[STRICT], answers: &[(200, "Health"), (503, "Health")],
    } => health::readyz
    GET "/metrics"
    "Metrics in the text format of Prometheus." {
        scopes: &[Metrics], answers: &[(200, "Metrics")], content_type: metrics::CONTENT_TYPE,
    } => metrics::metrics
    GET "/openapi.json" "This document." { answers: &[(200, "Document")] } => health::openapi
};
