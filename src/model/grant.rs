//! A grant as an application passes it to a connect.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{AccessToken, RefreshToken};

/// When a token expires. Never a magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Expiry {
    /// At this time.
    At(SystemTime),
    /// It does not expire.
    Never,
    /// The identity provider did not say.
    #[default]
    Unknown,
}

/// Counts the stored grants of a key: grows by one with each, never decreases, and orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub(crate) u64);

impl Generation {
    /// Creates the generation with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    /// The form in logs and entity tags: `g41`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// A grant as the user's consent brought it: the tokens with their lifetimes, and whose they are.
///
/// Built from a token with setters; a field that is not set is unknown.
#[derive(Clone)]
#[non_exhaustive]
pub struct Grant {
    pub(crate) access_token: Option<AccessToken>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: String,
    pub(crate) scope: String,
    pub(crate) expiry: Lifetime,
    pub(crate) refresh_expiry: Lifetime,
    pub(crate) client_id: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) extra: serde_json::Map<String, serde_json::Value>,
    pub(crate) exposed: Exposed,
}

/// An expiration, either as a point in time or as a duration from the connect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lifetime {
    Until(Expiry),
    For(Duration),
}

impl Grant {
    /// Creates a grant with this access token.
    pub fn new(access_token: impl Into<AccessToken>) -> Self {
        Self::with(Some(access_token.into()), None)
    }

    /// Creates a grant of which only the refresh token is known, such as one that another program kept. It is refreshed
    /// immediately, and no token is served before that. An access token expiration is ignored.
    pub fn from_refresh_token(token: impl Into<RefreshToken>) -> Self {
        Self::with(None, Some(token.into()))
    }

    fn with(access_token: Option<AccessToken>, refresh_token: Option<RefreshToken>) -> Self {
        Self {
            access_token,
            refresh_token,
            token_type: "Bearer".to_owned(),
            scope: String::new(),
            expiry: Lifetime::Until(Expiry::Unknown),
            refresh_expiry: Lifetime::Until(Expiry::Unknown),
            client_id: None,
            subject: None,
            params: BTreeMap::new(),
            extra: serde_json::Map::new(),
            exposed: Exposed::default(),
        }
    }

    /// Sets the refresh token. Without one the grant lasts as long as its access token.
    pub fn refresh_token(mut self, token: impl Into<RefreshToken>) -> Self {
        self.refresh_token = Some(token.into());
        self
    }

    /// Sets the access token's type; `Bearer` unless set.
    pub fn token_type(mut self, token_type: impl Into<String>) -> Self {
        self.token_type = token_type.into();
        self
    }

    /// Sets the granted scope, space-separated.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Sets when the access token expires.
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = Lifetime::Until(expiry);
        self
    }

    /// Sets the access token's lifetime from now (`expires_in`).
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expiry = Lifetime::For(lifetime);
        self
    }

    /// Sets when the refresh token expires.
    pub fn refresh_expiry(mut self, expiry: Expiry) -> Self {
        self.refresh_expiry = Lifetime::Until(expiry);
        self
    }

    /// Sets the client that the grant was issued to; the configured one unless set.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Sets the user's identifier at the identity provider (`sub`).
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets a parameter of the identity provider's preset for this grant alone, such as a tenant.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Adds a field that is stored with the tokens and sealed like them.
    pub fn extra(mut self, name: impl Into<String>, value: serde_json::Value) -> Self {
        self.extra.insert(name.into(), value);
        self
    }

    /// Checks that the grant can be stored.
    ///
    /// # Errors
    /// Says which field is invalid, and what it must be.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let token = |text: &str| text.len() <= MAX_TOKEN && is_token(text);
        if self.access_token.as_ref().is_some_and(|access| !token(access.expose_secret())) {
            return Err("access_token must be 1 to 65536 printable ASCII characters without spaces");
        }
        if self.refresh_token.as_ref().is_some_and(|refresh| !token(refresh.expose_secret())) {
            return Err("refresh_token must be 1 to 65536 printable ASCII characters without spaces");
        }
        if !token(&self.token_type) {
            return Err("token_type must be a word such as Bearer");
        }
        let plain = |text: &str| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
        if !plain(&self.scope) {
            return Err("scope must be at most 16384 bytes without control characters");
        }
        if ![&self.client_id, &self.subject].into_iter().flatten().all(|text| !text.is_empty() && plain(text)) {
            return Err("client_id and subject must be 1 to 16384 bytes without control characters");
        }
        if !self.params.iter().all(|(name, value)| plain(name) && plain(value)) {
            return Err("params must be at most 16384 bytes each without control characters");
        }
        if serde_json::to_vec(&self.extra).map_or(true, |json| json.len() > MAX_TOKEN) {
            return Err("extra must be at most 65536 bytes of JSON");
        }
        Ok(())
    }
}

impl fmt::Debug for Grant {
    /// Omits values that may be secret: `extra` often holds an ID token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("access_token", &self.access_token)
            .field("refresh_token", &self.refresh_token)
            .field("token_type", &self.token_type)
            .field("scope", &self.scope)
            .field("expiry", &self.expiry)
            .field("refresh_expiry", &self.refresh_expiry)
            .finish_non_exhaustive()
    }
}

/// Returns whether the text can be a token (RFC 6749, appendices A.12 and A.17) that fits into a header, where a space
/// would end it.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Members of a token response that callers need beside the token, such as Salesforce's `instance_url`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Exposed(pub(crate) serde_json::Map<String, serde_json::Value>);

impl fmt::Debug for Exposed {
    /// Omits the values: the settings may name a member that is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

const MAX_TOKEN: usize = 64 * 1024;
const MAX_TEXT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_field_is_rejected_by_name() {
        let good = || Grant::new("ts-test-secret-a").refresh_token("ts-test-secret-r");
        good().validate().unwrap();
        Grant::from_refresh_token("ts-test-secret-r").validate().unwrap();
        for (grant, word) in [
            (Grant::new(""), "access_token"),
            (Grant::from_refresh_token(""), "refresh_token"),
            (Grant::new("a b"), "access_token"),
            (Grant::new("x".repeat(70_000)), "access_token"),
            (good().refresh_token("a\nb"), "refresh_token"),
            (good().refresh_token(""), "refresh_token"),
            (good().token_type(""), "token_type"),
            (good().scope("a\u{0}"), "scope"),
            (good().client_id(""), "client_id"),
            (good().subject("\n"), "client_id and subject"),
            (good().param("tenant", "\n"), "params"),
            (good().extra("x", "y".repeat(70_000).into()), "extra"),
        ] {
            assert!(grant.validate().unwrap_err().starts_with(word), "{word}");
        }
    }
}
