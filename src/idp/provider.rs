//! An identity provider as data, with its setters.

use std::{collections::BTreeMap, fmt, time::Duration};

use url::Url;

use super::rule::{self, ErrorRule};
use crate::model::ClientSecret;

/// An identity provider: where its endpoints are and how its refresh tokens behave.
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
    /// In the order in which they are tried; the first is for new grants.
    pub(crate) clients: Vec<Credentials>,
    pub(crate) client_auth: ClientAuth,
    pub(crate) scope: Option<String>,
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) rotation: Rotation,
    pub(crate) reuse_grace: Duration,
    pub(crate) rotation_ends_access_token: bool,
    pub(crate) revocation_hits_user: bool,
    pub(crate) access_lifetime: Option<Duration>,
    pub(crate) refresh_lifetime: Option<Duration>,
    pub(crate) allow_http: bool,
    pub(crate) max_concurrency: usize,
    pub(crate) requests_per_second: Option<f64>,
    pub(crate) timing: Timing,
    pub(crate) in_doubt: Option<InDoubt>,
    /// What its errors mean; the last that fits decides.
    pub(crate) errors: Vec<ErrorRule>,
    /// The field that tells errors of one code apart.
    pub(crate) error_detail: Option<String>,
    /// The field that names the user, beside those of OpenID Connect.
    pub(crate) subject_field: Option<String>,
    /// The answer's header that the provider's support asks for.
    pub(crate) correlation_header: String,
    /// The header with the second since 1970 at which it may be asked again.
    pub(crate) rate_limit_reset_header: Option<String>,
}

/// A client and one of its secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) client_id: String,
    pub(crate) client_secret: ClientSecret,
}

/// What differs from the supervisor's own timing, for this identity provider alone.
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

/// How the client proves who it is (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Identifier and secret in the `Authorization` header.
    #[default]
    Basic,
    /// Identifier and secret as form fields.
    Body,
    /// A public client: its identifier as a form field, no secret.
    None,
}

/// Whether a refresh brings a new refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rotation {
    /// With every refresh. An answer without one is not believed to be complete.
    Always,
    /// Sometimes, or nobody promises anything. An answer without one keeps the old one.
    #[default]
    Sometimes,
    /// Never, by documented promise: a refresh without answer may simply be repeated. One that comes
    /// nevertheless is stored.
    Never,
}

/// What becomes of a grant when nobody can find out whether its refresh token was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InDoubt {
    /// The user is asked to connect again. Never makes things worse.
    #[default]
    Ask,
    /// The refresh token is sent once more: a chosen risk, since a provider that punishes reuse ends
    /// the whole grant.
    Try,
}

/// Fields that a refresh request sets itself.
pub(crate) const RESERVED_PARAMS: [&str; 4] = ["grant_type", "refresh_token", "client_id", "client_secret"];

impl Idp {
    /// Any provider that speaks OAuth 2: client authentication by header, rotation
    /// [`Sometimes`](Rotation::Sometimes), no grace for reuse.
    pub fn oauth2(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<ClientSecret>,
    ) -> Self {
        Self {
            token_url: token_url.into(),
            revocation_url: None,
            clients: vec![Credentials { client_id: client_id.into(), client_secret: client_secret.into() }],
            client_auth: ClientAuth::Basic,
            scope: None,
            params: BTreeMap::new(),
            rotation: Rotation::Sometimes,
            reuse_grace: Duration::ZERO,
            rotation_ends_access_token: false,
            revocation_hits_user: false,
            access_lifetime: None,
            refresh_lifetime: None,
            allow_http: false,
            max_concurrency: 16,
            requests_per_second: None,
            timing: Timing::default(),
            in_doubt: None,
            errors: rule::rfc_6749(),
            error_detail: None,
            subject_field: None,
            correlation_header: "x-request-id".to_owned(),
            rate_limit_reset_header: None,
        }
    }

    /// The fields of an answer that only this provider has.
    pub(super) fn answer_paths(&self) -> Vec<&str> {
        let own = [&self.error_detail, &self.subject_field].into_iter().flatten().map(String::as_str);
        self.errors.iter().flat_map(ErrorRule::paths).chain(own).collect()
    }

    /// Whether tokens can be revoked: an endpoint for it is known.
    pub fn revokes(&self) -> bool {
        self.revocation_url.is_some()
    }

    /// Whether one refresh token can be revoked here without ending the user's other grants.
    pub(crate) fn revocable_alone(&self) -> bool {
        self.revocation_url.is_some() && !self.revocation_hits_user
    }

    /// The token endpoint. For pointing a preset at another host, such as a simulator.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = url.into();
        self
    }

    /// The revocation endpoint (RFC 7009). Without one nothing is revoked at the provider.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.revocation_url = Some(url.into());
        self
    }

    /// A further client, or a further secret of the same client, after those that are there.
    ///
    /// A secret is tried when all before it were refused; the one that was accepted last goes first from then on. So a
    /// new secret is rolled out by adding it before the provider accepts it, and the old one removed when nobody needs
    /// it. A grant is only ever refreshed with the client it was issued to; the first client is for new grants.
    pub fn client(mut self, client_id: impl Into<String>, client_secret: impl Into<ClientSecret>) -> Self {
        self.clients.push(Credentials { client_id: client_id.into(), client_secret: client_secret.into() });
        self
    }

    /// How the client proves who it is; [`ClientAuth::Basic`] unless set.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.client_auth = auth;
        self
    }

    /// The scope to ask for with every refresh. Unset, none is sent, which means: as granted.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// A further form field of every refresh.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Whether a refresh brings a new refresh token; [`Rotation::Sometimes`] unless set.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// For how long after its first use a refresh token may be used again; zero unless set.
    pub fn reuse_grace(mut self, grace: Duration) -> Self {
        self.reuse_grace = grace;
        self
    }

    /// Whether a refresh ends the access token that was valid before it; `false` unless set.
    pub fn rotation_ends_access_token(mut self, ends: bool) -> Self {
        self.rotation_ends_access_token = ends;
        self
    }

    /// Whether revoking one refresh token ends every grant of that user with this client, not its own
    /// family alone; `false` unless set.
    pub fn revocation_hits_user(mut self, hits: bool) -> Self {
        self.revocation_hits_user = hits;
        self
    }

    /// How long an access token lives when the answer does not say.
    pub fn access_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_lifetime = Some(lifetime);
        self
    }

    /// How long a refresh token lives unused when nobody says; its time starts anew with each refresh.
    pub fn refresh_lifetime(mut self, lifetime: Duration) -> Self {
        self.refresh_lifetime = Some(lifetime);
        self
    }

    /// Whether an unencrypted endpoint beyond this machine is accepted; `false` unless set.
    pub fn allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// How many requests run at the same time; 16 unless set.
    pub fn max_concurrency(mut self, requests: usize) -> Self {
        self.max_concurrency = requests;
        self
    }

    /// How many requests are sent a second, evenly; not limited unless set. Those that a caller waits for go first.
    pub fn requests_per_second(mut self, requests: f64) -> Self {
        self.requests_per_second = Some(requests);
        self
    }

    /// How long before an access token's end it is refreshed.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.timing.margin = Some(margin);
        self
    }

    /// How long a connection may take, TLS included.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timing.connect_timeout = Some(timeout);
        self
    }

    /// How long an answer is awaited.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.timing.attempt_timeout = Some(timeout);
        self
    }

    /// How long an answer is awaited where reuse is punished.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.timing.patience = Some(patience);
        self
    }

    /// How long after the claim a request may still be written.
    pub fn send_window(mut self, window: Duration) -> Self {
        self.timing.send_window = Some(window);
        self
    }

    /// After which time a request whose sender is gone is surely not processed any more.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.timing.settle = Some(settle);
        self
    }

    /// How long a claim keeps other replicas away unless renewed.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.timing.lease = Some(lease);
        self
    }

    /// What becomes of a doubt that nobody can resolve; the supervisor's setting unless set.
    pub fn in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.in_doubt = Some(in_doubt);
        self
    }

    /// What a further error answer means. It goes before all those set earlier, and before those of RFC 6749.
    pub fn error(mut self, rule: ErrorRule) -> Self {
        self.errors.push(rule);
        self
    }

    /// The field of an error answer that tells errors of one code apart, such as `error_subtype`. Shown where it is a
    /// code, not decided upon.
    pub fn error_detail(mut self, path: impl Into<String>) -> Self {
        self.error_detail = Some(path.into());
        self
    }

    /// The field of an answer that names the user, for a provider that has neither `sub` nor `id_token`.
    pub fn subject_field(mut self, path: impl Into<String>) -> Self {
        self.subject_field = Some(path.into());
        self
    }

    /// The header of an answer that the provider's support asks for; `x-request-id` unless set.
    pub fn correlation_header(mut self, name: impl Into<String>) -> Self {
        self.correlation_header = name.into();
        self
    }

    /// The header of a throttled answer that says in seconds since 1970 when to ask again, for a provider that sends
    /// no `Retry-After`.
    pub fn rate_limit_reset_header(mut self, name: impl Into<String>) -> Self {
        self.rate_limit_reset_header = Some(name.into());
        self
    }
}

impl fmt::Debug for Idp {
    /// Without the secret, the values of parameters and the queries of URLs.
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
    fn debug_is_redacted() {
        let idp = Idp::oauth2("https://idp.example/token?key=ts-test-secret-query", "client", "ts-test-secret-client")
            .param("tenant", "ts-test-secret-param")
            .revocation_url("https://me:ts-test-secret-pw@idp.example/revoke");
        let text = format!("{idp:?}");
        assert!(!text.contains("ts-test-secret"), "{text}");
        assert!(text.contains("https://idp.example/token") && text.contains("tenant"), "{text}");
    }
}
