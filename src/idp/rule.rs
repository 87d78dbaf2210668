//! Rules for the meaning of error responses, as data.

use super::decode::Fields;

/// A rule for the meaning of error responses of a token endpoint: the field `error` must have exactly this value, and
/// all further conditions must hold.
///
/// Rules never search in texts. A response with a status other than 2xx and 4xx is never a verdict.
///
/// ```
/// use token_supervisor::{ErrorRule, Idp, Meaning};
/// let idp = Idp::oauth2("https://acme.example/oauth/token", "client", "secret")
///     .error(ErrorRule::new("token_gone", Meaning::UserMustReconnect))
///     .error(ErrorRule::new("invalid_grant", Meaning::Race).and("error_description", "already in progress").status(409));
/// idp.validate().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ErrorRule {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) and: Option<(String, String)>,
    pub(crate) status: Option<u16>,
    pub(crate) meaning: Meaning,
    pub(crate) in_doubt: bool,
}

/// The meaning of an error response of a token endpoint, and thereby who can resolve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// The refresh token is not accepted, or no longer. Only a new consent of the user helps.
    UserMustReconnect,
    /// The client, or what it requests, is refused. An operator must act; no grant is changed.
    OperatorFault,
    /// The provider asks the client to slow down.
    Throttled,
    /// Another request with the same refresh token is in progress. The stored row will show its result.
    Race,
    /// The error passes without intervention.
    Transient,
}

impl ErrorRule {
    /// A rule for responses whose `error` is this value.
    pub fn new(error: impl Into<String>, meaning: Meaning) -> Self {
        let (field, value) = ("error".to_owned(), error.into());
        Self { field, value, and: None, status: None, meaning, in_doubt: false }
    }

    /// Reads the value from another field than `error`. `a.b` is the member `b` of the object `a`, or of any object in
    /// the list `a`.
    pub fn field(mut self, path: impl Into<String>) -> Self {
        self.field = path.into();
        self
    }

    /// Requires that this field has exactly this value too; in a list, any of its values.
    pub fn and(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.and = Some((path.into(), value.into()));
        self
    }

    /// Requires this HTTP status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Treats the refresh token as possibly spent in spite of the error.
    pub fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// Returns whether the rule applies to this response.
    pub(super) fn matches(&self, status: u16, fields: &Fields) -> bool {
        // The code may have another place in this provider's responses.
        let has_code = self.field == "error" && fields.error.as_deref() == Some(&*self.value);
        self.status.is_none_or(|only| only == status)
            && (has_code || fields.has(&self.field, &self.value))
            && self.and.as_ref().is_none_or(|(path, value)| fields.has(path, value))
    }

    /// Returns the fields that the rule reads.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        [Some(self.field.as_str()), self.and.as_ref().map(|(path, _)| path.as_str())].into_iter().flatten()
    }
}

#[cfg(test)]
impl ErrorRule {
    /// Returns the code in the field `error` that the rule is for.
    pub(crate) fn error_code(&self) -> Option<&str> {
        (self.field == "error").then_some(&*self.value)
    }
}

/// Returns the rules for all providers. Keycloak sends `unauthorized_client` for a wrong secret; `invalid_scope` and
/// `unsupported_grant_type` concern the request, never the user's grant.
pub(super) fn rfc_6749() -> Vec<ErrorRule> {
    let refused = ["invalid_client", "unauthorized_client", "invalid_scope", "unsupported_grant_type"];
    let mut rules = refused.map(|error| ErrorRule::new(error, Meaning::OperatorFault)).to_vec();
    // `invalid_grant` is the RFC's; the next four are OpenID Connect Core's, section 3.1.2.6; `invalid_token` RFC 6750's;
    // `access_denied` the RFC's for the authorization endpoint: some providers send them from the token endpoint.
    let ended = [
        "invalid_grant",
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
        "invalid_token",
        "access_denied",
    ];
    rules.extend(ended.map(|error| ErrorRule::new(error, Meaning::UserMustReconnect)));
    // RFC 6749, section 4.1.2.1: they pass by themselves.
    rules.extend(["server_error", "temporarily_unavailable"].map(|error| ErrorRule::new(error, Meaning::Transient)));
    // RFC 8628, section 3.5.
    rules.push(ErrorRule::new("slow_down", Meaning::Throttled));
    rules
}
