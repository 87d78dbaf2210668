//! The description of an identity provider as data, with its setters.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use url::{Url, form_urlencoded::byte_serialize};
use zeroize::Zeroizing;

use super::{
    decode::Fields,
    endpoint::{self, EndpointParams},
    layout::{self, LONGEST_ACCESS_LIFETIME, Layout, ResponseField},
    rule::{self, ErrorRule},
};
use crate::model::ClientSecret;

/// An identity provider: its endpoints, and how its refresh tokens behave.
///
/// Built from [`Idp::oauth2`] or one of the [`presets`](crate::presets), adjusted with setters.
///
/// ```
/// use token_supervisor::{ClientAuth, Idp, Rotation};
/// let idp = Idp::oauth2("https://acme.example/oauth/token", "client", "secret")
///     .client_auth(ClientAuth::Body)
///     .rotation(Rotation::Always);
/// idp.validate().unwrap();
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Idp {
    pub(crate) token_url: String,
    pub(crate) revocation_url: Option<String>,
    pub(crate) introspection_url: Option<String>,
    /// Accepts any access token.
    pub(crate) userinfo_url: Option<String>,
    /// In the order in which they are tried. The first client is used for new grants.
    pub(crate) clients: Vec<Credentials>,
    pub(crate) client_auth: ClientAuth,
    pub(crate) scope: Option<String>,
    pub(crate) params: BTreeMap<String, String>,
    /// The parameters in braces in the endpoints.
    pub(crate) endpoint_params: EndpointParams,
    pub(crate) rotation: Rotation,
    pub(crate) reuse_grace: Duration,
    pub(crate) retry_safe: bool,
    pub(crate) rotation_ends_access_token: bool,
    pub(crate) revocation_hits_user: bool,
    pub(crate) access_lifetime: Option<Duration>,
    pub(crate) access_lifetime_override: Option<Duration>,
    pub(crate) max_access_lifetime: Duration,
    pub(crate) refresh_lifetime: Option<Duration>,
    pub(crate) allow_http: bool,
    pub(crate) max_concurrency: usize,
    pub(crate) requests_per_second: Option<f64>,
    pub(crate) timing: Timing,
    pub(crate) in_doubt: Option<InDoubt>,
    /// The meanings of errors. The last rule that matches decides.
    pub(crate) errors: Vec<ErrorRule>,
    /// The field that distinguishes errors with the same code.
    pub(crate) error_detail: Option<String>,
    /// The field that names the user, in addition to those of OpenID Connect.
    pub(crate) subject_field: Option<String>,
    /// The places of fields in a response where they are not those of RFC 6749, as paths.
    pub(crate) response_fields: BTreeMap<ResponseField, String>,
    /// The values of the error field that mean success.
    pub(crate) success_values: Vec<String>,
    /// The members of a response that callers get beside the token.
    pub(crate) expose: Vec<String>,
    /// The scheme of `Authorization` headers, if it is not that of the token's type.
    pub(crate) authorization_scheme: Option<String>,
    /// The user's identifier is a URL whose host may change: its path names the user.
    pub(crate) subject_is_url: bool,
    /// The response header with the request id for the provider's support.
    pub(crate) correlation_header: String,
    /// The response header with the time of the next permitted request, in seconds since 1970.
    pub(crate) rate_limit_reset_header: Option<String>,
}

/// A client and one of its secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) client_id: String,
    pub(crate) client_secret: ClientSecret,
}

impl Credentials {
    /// Returns the value of `Basic` authentication: base64 of both parts, form-encoded first (RFC 6749, section 2.3.1).
    pub(super) fn basic(&self) -> Zeroizing<String> {
        let secret = self.client_secret.expose_secret();
        let mut pair = Zeroizing::new(String::with_capacity(3 * (self.client_id.len() + secret.len()) + 1));
        pair.extend(byte_serialize(self.client_id.as_bytes()));
        pair.push(':');
        pair.extend(byte_serialize(secret.as_bytes()));
        Zeroizing::new(STANDARD.encode(pair.as_bytes()))
    }
}

/// Timing of this identity provider where it differs from the supervisor's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) margin: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) patience: Option<Duration>,
    pub(crate) send_window: Option<Duration>,
    pub(crate) settle: Option<Duration>,
    pub(crate) lease: Option<Duration>,
}

/// How the client authenticates (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Identifier and secret in the `Authorization` header.
    #[default]
    Basic,
    /// The same, and the identifier as a form field beside it, for providers that want both.
    BasicAndId,
    /// Identifier and secret as form fields.
    Body,
    /// A public client: its identifier as a form field, no secret.
    None,
}

/// Whether a refresh returns a new refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rotation {
    /// Every refresh returns one. A response without one is treated as incomplete.
    Always,
    /// A refresh may return one, or the provider promises nothing. A response without one keeps the old one.
    #[default]
    Sometimes,
    /// No refresh returns one, by documented promise: a refresh without a response may be repeated. A refresh token
    /// that is returned nevertheless is stored.
    Never,
}

/// How a grant goes on when it cannot be determined whether its refresh token was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InDoubt {
    /// The user must connect again. This never makes things worse.
    #[default]
    Ask,
    /// The refresh token is sent once more. This is a risk: a provider that punishes reuse revokes the whole grant.
    Try,
}

/// The fields that every refresh request sets itself.
pub(crate) const RESERVED_PARAMS: [&str; 4] = ["grant_type", "refresh_token", "client_id", "client_secret"];

impl Idp {
    /// Describes any provider of OAuth 2: client authentication by header, rotation
    /// [`Sometimes`](Rotation::Sometimes), no grace for reuse.
    pub fn oauth2(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<ClientSecret>,
    ) -> Self {
        Self {
            token_url: token_url.into(),
            revocation_url: None,
            introspection_url: None,
            userinfo_url: None,
            clients: vec![Credentials { client_id: client_id.into(), client_secret: client_secret.into() }],
            client_auth: ClientAuth::Basic,
            scope: None,
            params: BTreeMap::new(),
            endpoint_params: EndpointParams::new(),
            rotation: Rotation::Sometimes,
            reuse_grace: Duration::ZERO,
            retry_safe: false,
            rotation_ends_access_token: false,
            revocation_hits_user: false,
            access_lifetime: None,
            access_lifetime_override: None,
            max_access_lifetime: LONGEST_ACCESS_LIFETIME,
            refresh_lifetime: None,
            allow_http: false,
            max_concurrency: 16,
            requests_per_second: None,
            timing: Timing::default(),
            in_doubt: None,
            errors: rule::rfc_6749(),
            error_detail: None,
            subject_field: None,
            response_fields: BTreeMap::new(),
            success_values: Vec::new(),
            expose: Vec::new(),
            authorization_scheme: None,
            subject_is_url: false,
            correlation_header: "x-request-id".to_owned(),
            rate_limit_reset_header: None,
        }
    }

    /// Returns where the responses have their fields.
    pub(super) fn layout(&self) -> Layout<'_> {
        let own = [&self.error_detail, &self.subject_field].into_iter().flatten().map(String::as_str);
        let more = self.errors.iter().flat_map(ErrorRule::paths).chain(own).collect();
        let (success, expose) = (&self.success_values, &self.expose);
        Layout {
            success,
            more,
            expose,
            longest: LONGEST_ACCESS_LIFETIME.max(self.max_access_lifetime),
            ..Layout::new(&self.response_fields)
        }
    }

    /// Returns the rule that decides about an error response, if one does.
    pub(super) fn rule(&self, status: u16, fields: &Fields) -> Option<&ErrorRule> {
        self.errors.iter().rev().find(|rule| rule.matches(status, fields))
    }

    /// Returns the token endpoint of a grant with these parameters of its own.
    ///
    /// # Errors
    /// Why a parameter cannot be used.
    pub(crate) fn token_endpoint(&self, params: &BTreeMap<String, String>) -> Result<String, &'static str> {
        endpoint::render(&self.token_url, &self.endpoint_params, params)
    }

    /// Returns the revocation endpoint of such a grant, if there is one.
    ///
    /// # Errors
    /// Why a parameter cannot be used.
    pub(super) fn revocation_endpoint(
        &self,
        params: &BTreeMap<String, String>,
    ) -> Result<Option<String>, &'static str> {
        let render = |url: &String| endpoint::render(url, &self.endpoint_params, params);
        self.revocation_url.as_ref().map(render).transpose()
    }

    /// Checks the parameters that a grant brings.
    ///
    /// # Errors
    /// Why one cannot be used: the endpoints have no such parameter, or not with this value.
    pub(crate) fn check_grant_params(&self, params: &BTreeMap<String, String>) -> Result<(), &'static str> {
        if params.keys().any(|name| !self.endpoint_params.contains_key(name)) {
            return Err("params: the endpoints of this provider have no such parameter");
        }
        self.token_endpoint(params)?;
        self.probe_endpoints(params)?;
        self.revocation_endpoint(params).map(drop)
    }

    /// Returns whether a refresh token of one provider could be spent at the other: it has the same token endpoint and one
    /// of the clients.
    pub(crate) fn shares_tokens_with(&self, other: &Self) -> bool {
        let known = |client: &Credentials| other.clients.iter().any(|its| its.client_id == client.client_id);
        let url = |idp: &Self| reqwest::Url::parse(&idp.token_endpoint(&BTreeMap::new()).ok()?).ok();
        let same_url = || url(self).is_some_and(|its| url(other) == Some(its));
        (self.token_url == other.token_url || same_url()) && self.clients.iter().any(known)
    }

    /// Returns whether tokens can be revoked, which requires a revocation endpoint.
    pub fn revokes(&self) -> bool {
        self.revocation_url.is_some()
    }

    /// Returns whether one refresh token can be revoked without ending the user's other grants.
    pub(crate) fn revocable_alone(&self) -> bool {
        self.revocation_url.is_some() && !self.revocation_hits_user
    }

    /// Sets the token endpoint, for example to point a preset at a simulator. A name in braces is a
    /// [parameter](Self::endpoint_param): `https://sso.example/realms/{realm}/token`.
    ///
    /// The other endpoints to which tokens in doubt are sent ([`introspection_url`](Self::introspection_url),
    /// [`userinfo_url`](Self::userinfo_url)) belong to the previous one, and are not used any more: set them afterwards.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = url.into();
        (self.introspection_url, self.userinfo_url) = (None, None);
        self
    }

    /// Sets the revocation endpoint (RFC 7009). Without one nothing is revoked at the provider.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.revocation_url = Some(url.into());
        self
    }

    /// Adds a client, or another secret of the same client, after the existing ones.
    ///
    /// A secret is tried when all secrets before it were refused; the last accepted secret is used first from then on.
    /// To roll out a new secret, add it before the provider accepts it, and remove the old one when it is no longer
    /// needed. A grant is only refreshed with the client it was issued to; the first client is used for new grants.
    pub fn client(mut self, client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Self {
        self.clients.push(Credentials { client_id: client_id.into(), client_secret: client_secret.into() });
        self
    }

    /// Sets how the client authenticates. The default is [`ClientAuth::Basic`].
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.client_auth = auth;
        self
    }

    /// Sets the scope to request with every refresh. By default none is sent, which requests the granted scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Declares a parameter of the endpoints, with the value for grants that have none of their own
    /// ([`Grant::param`](crate::Grant::param)). A value is one segment of the path, or one label of the host.
    pub fn endpoint_param(mut self, name: impl Into<String>, default: impl Into<String>) -> Self {
        self.endpoint_params.entry(name.into()).or_default().default = Some(default.into());
        self
    }

    /// Declares a parameter of the endpoints that may have only these values. A parameter at the end of the host needs
    /// this, because its value decides who gets the tokens: `https://accounts.zoho.{dc}/oauth/v2/token`.
    pub fn allowed_params<V: Into<String>>(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.endpoint_params.entry(name.into()).or_default().allowed = values.into_iter().map(V::into).collect();
        self
    }

    /// Adds a form field to every refresh request.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Sets whether a refresh returns a new refresh token. The default is [`Rotation::Sometimes`].
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// Sets how long after its first use a refresh token may be used again. The default is zero.
    pub fn reuse_grace(mut self, grace: Duration) -> Self {
        self.reuse_grace = grace;
        self
    }

    /// Sets whether the provider keeps a refresh token valid until the one that replaced it is used, as FAPI 2.0 requires.
    /// Then a refresh without a response is sent again, whoever sent it, and never ends in a reconnect. The default is
    /// `false`.
    pub fn retry_safe(mut self, safe: bool) -> Self {
        self.retry_safe = safe;
        self
    }

    /// Sets whether a refresh invalidates the previous access token. The default is `false`.
    pub fn rotation_ends_access_token(mut self, ends: bool) -> Self {
        self.rotation_ends_access_token = ends;
        self
    }

    /// Sets whether revoking one refresh token ends every grant of that user with this client, not only its own family.
    /// The default is `false`.
    pub fn revocation_hits_user(mut self, hits: bool) -> Self {
        self.revocation_hits_user = hits;
        self
    }

    /// Sets the lifetime of an access token if the response does not contain it.
    pub fn access_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_lifetime = Some(lifetime);
        self
    }

    /// Sets the lifetime of an access token, whatever the response says.
    pub fn access_lifetime_override(mut self, lifetime: Duration) -> Self {
        self.access_lifetime_override = Some(lifetime);
        self
    }

    /// Sets the longest lifetime of an access token that is believed; 400 days unless set. A longer one is read as what
    /// it plainly is (milliseconds, a point in time) or reduced to this one, and reported.
    pub fn max_access_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_access_lifetime = lifetime;
        self
    }

    /// Sets where responses have a field, as a JSON pointer (RFC 6901), for a provider that wraps its responses: such as
    /// `/body/access_token`. If there is nothing, the field is read where RFC 6749 has it. [`validate`](Self::validate)
    /// refuses what is not a pointer.
    pub fn response_field(mut self, field: ResponseField, pointer: impl Into<String>) -> Self {
        self.response_fields.insert(field, layout::path(&pointer.into()).unwrap_or_default());
        self
    }

    /// Adds a value of the field [`Error`](ResponseField::Error) that means success, for a provider whose responses all
    /// have a status: such as `0`.
    pub fn success_value(mut self, value: impl Into<String>) -> Self {
        self.success_values.push(value.into());
        self
    }

    /// Adds a member of the response that callers need beside the token, such as `instance_url`: see
    /// [`Token::field`](crate::Token::field). No other member goes out.
    pub fn expose(mut self, member: impl Into<String>) -> Self {
        self.expose.push(member.into());
        self
    }

    /// Sets the lifetime of an unused refresh token if the response does not contain it. It restarts with each refresh.
    pub fn refresh_lifetime(mut self, lifetime: Duration) -> Self {
        self.refresh_lifetime = Some(lifetime);
        self
    }

    /// Sets whether an unencrypted endpoint outside this machine is accepted. The default is `false`.
    pub fn allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// Sets the maximum number of concurrent requests. The default is 16.
    pub fn max_concurrency(mut self, requests: usize) -> Self {
        self.max_concurrency = requests;
        self
    }

    /// Sets the maximum rate of requests, evenly spaced. There is no limit by default. Requests that a caller waits for
    /// go first.
    pub fn requests_per_second(mut self, requests: f64) -> Self {
        self.requests_per_second = Some(requests);
        self
    }

    /// Sets how long before its expiry an access token is refreshed.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.timing.margin = Some(margin);
        self
    }

    /// Sets how long connecting may take, TLS included.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timing.connect_timeout = Some(timeout);
        self
    }

    /// Sets how long a response is awaited.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.timing.attempt_timeout = Some(timeout);
        self
    }

    /// Sets how long a response is awaited if the provider punishes reuse.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.timing.patience = Some(patience);
        self
    }

    /// Sets how long after the claim a request may still be written.
    pub fn send_window(mut self, window: Duration) -> Self {
        self.timing.send_window = Some(window);
        self
    }

    /// Sets the time after which a request whose sender is gone is certainly no longer processed.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.timing.settle = Some(settle);
        self
    }

    /// Sets how long a claim excludes other replicas unless it is renewed.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.timing.lease = Some(lease);
        self
    }

    /// Sets how a doubt that cannot be resolved ends. The default is the supervisor's setting.
    pub fn in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.in_doubt = Some(in_doubt);
        self
    }

    /// Adds a rule for an error response. It takes precedence over all earlier rules, and over those of RFC 6749.
    pub fn error(mut self, rule: ErrorRule) -> Self {
        self.errors.push(rule);
        self
    }

    /// Sets the field of an error response that distinguishes errors with the same code, such as `error_subtype`. It is
    /// shown if it is a code, and decides nothing.
    pub fn error_detail(mut self, path: impl Into<String>) -> Self {
        self.error_detail = Some(path.into());
        self
    }

    /// Sets the field of a response that names the user, for a provider that has neither `sub` nor `id_token`.
    pub fn subject_field(mut self, path: impl Into<String>) -> Self {
        self.subject_field = Some(path.into());
        self
    }

    /// Sets whether the user's identifier is a URL of which only the path names the user. The default is `false`.
    pub fn subject_is_url(mut self, is: bool) -> Self {
        self.subject_is_url = is;
        self
    }

    /// Returns whether two identifiers name the same user of this provider.
    pub(crate) fn same_subject(&self, one: &str, other: &str) -> bool {
        let path = |text: &str| Url::parse(text).ok().map(|url| url.path().trim_end_matches('/').to_owned());
        one == other || (self.subject_is_url && path(one).is_some_and(|one| Some(one) == path(other)))
    }

    /// Sets the scheme of `Authorization` headers, for resource servers that want another one than `Bearer`.
    pub fn authorization_scheme(mut self, scheme: impl Into<String>) -> Self {
        self.authorization_scheme = Some(scheme.into());
        self
    }

    /// Sets the response header with the request id for the provider's support. The default is `x-request-id`.
    pub fn correlation_header(mut self, name: impl Into<String>) -> Self {
        self.correlation_header = name.into();
        self
    }

    /// Sets the header of a throttled response that says in seconds since 1970 when to retry, for a provider that sends
    /// no `Retry-After`.
    pub fn rate_limit_reset_header(mut self, name: impl Into<String>) -> Self {
        self.rate_limit_reset_header = Some(name.into());
        self
    }
}

impl fmt::Debug for Idp {
    /// Omits secrets, the values of parameters and the queries of URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idp")
            .field("token_url", &shown(&self.token_url))
            .field("revocation_url", &self.revocation_url.as_deref().map(shown))
            .field("clients", &self.clients.iter().map(|client| &client.client_id).collect::<Vec<_>>())
            .field("client_auth", &self.client_auth)
            .field("scope", &self.scope)
            .field("params", &self.params.keys())
            .field("rotation", &self.rotation)
            .field("reuse_grace", &self.reuse_grace)
            .field("retry_safe", &self.retry_safe)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| "(not a URL)".to_owned(),
        |url| format!("{}{}", url.origin().ascii_serialization(), url.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_user_may_have_two_urls() {
        let idp = Idp::oauth2("https://idp.example/token", "client", "ts-test-secret-client");
        let url = idp.clone().subject_is_url(true);
        for (one, other, same, same_by_url) in [
            ("42", "42", true, true),
            ("42", "43", false, false),
            ("https://login.sf.example/id/00D/005", "https://eu9.sf.example/id/00D/005", false, true),
            ("https://login.sf.example/id/00D/005", "https://login.sf.example/id/00D/005/", false, true),
            ("https://login.sf.example/id/00D/005", "https://login.sf.example/id/00D/006", false, false),
            ("https://login.sf.example/id/00D/005", "https://login.sf.example/id/00E/005", false, false),
            ("https://login.sf.example/id/00D/005", "005", false, false),
        ] {
            let found = (idp.same_subject(one, other), url.same_subject(one, other));
            assert_eq!(found, (same, same_by_url), "{one} {other}");
        }
    }

    #[test]
    fn debug_is_redacted() {
        let idp = Idp::oauth2("https://idp.example/token?key=ts-test-secret-query", "client", "ts-test-secret-client")
            .param("tenant", "ts-test-secret-param")
            .revocation_url("https://me:ts-test-secret-pw@idp.example/revoke");
        let text = format!("{idp:?}");
        assert!(!text.contains("ts-test-secret"), "{text}");
        assert!(text.contains("https://idp.example/token") && text.contains("tenant"), "{text}");
    }
}
