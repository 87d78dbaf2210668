//! What is known of an endpoint without its handler: what it takes, and what it may return.

use actix_web::http::{Method, header::HeaderName};

use super::parameters::QueryParameter;
use crate::{Code, apikey::Scope};

/// One method of one path.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// Below the path at which the API is mounted. `{idp}` and `{user}` are whole segments.
    pub(super) path: &'static str,
    /// Its `operationId` in `openapi.json`: generated clients have a function of this name, so it never changes.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The key needs one of these; none for an open endpoint.
    pub(super) scopes: &'static [Scope],
    pub(super) query: &'static [QueryParameter],
    /// Proxies ask it about their own requests: the path of such a request may follow its own, with any method.
    pub(super) of_proxies: bool,
    /// The preconditions that it honours; a request for a change with any other is refused.
    pub(super) preconditions: &'static [Precondition],
    /// The schema of the request body; empty if there is none.
    pub(super) body: &'static str,
    /// The statuses of its responses, and the schema of each body; empty if there is none.
    pub(super) responses: &'static [(u16, &'static str)],
    /// Headers of its responses, beside those that follow from the rest, and what they say.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Content type of the responses.
    pub(super) content_type: &'static str,
    /// The codes of problems, beside those that follow from the rest.
    pub(super) problems: &'static [Code],
    /// The action in the audit log, if it hands out tokens or makes a change. Batches write a line for each grant.
    pub(super) audit: Option<&'static str>,
}

/// A precondition in a header (RFC 9110, section 13.1).
pub(super) struct Precondition {
    pub(super) name: HeaderName,
    pub(super) about: &'static str,
    /// The pattern of its value; `None` if every value is accepted.
    pub(super) pattern: Option<&'static str>,
}

/// The name of the path segment that follows an endpoint for proxies.
pub(super) const PROXIED: &str = "asked_of_the_proxy";

impl Endpoint {
    /// An open endpoint; the table of routes overrides its fields.
    pub(super) const OPEN: Self = Self {
        method: Method::GET,
        path: "",
        name: "",
        about: "",
        scopes: &[],
        query: &[],
        of_proxies: false,
        preconditions: &[],
        body: "",
        responses: &[],
        headers: &[],
        content_type: "application/json",
        problems: &[],
        audit: None,
    };

    /// Whether it is carried out even if the caller hangs up.
    pub(super) fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// Its methods: an endpoint for GET takes HEAD as well.
    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        let head = (self.method == Method::GET).then_some("HEAD");
        std::iter::once(self.method.as_str()).chain(head)
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods().any(|ours| ours == method.as_str())
    }
}
