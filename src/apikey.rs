//! API keys: what the configuration defines and the server checks.

use std::{fmt, str::FromStr, time::SystemTime};

use sha2::{Digest as _, Sha256};

/// What an API key permits. No scope includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Read tokens and states, report tokens as rejected.
    Token,
    /// Connect, and everything else that changes a grant.
    Grant,
    /// List grants; read, hold and release identity providers.
    Admin,
    /// Read metrics.
    Metrics,
}

impl Scope {
    /// The name in configurations and in `openapi.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Grant => "grant",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Token, Self::Grant, Self::Admin, Self::Metrics];
        all.into_iter().find(|scope| scope.as_str() == text).ok_or("must be of: token, grant, admin, metrics")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An API key of the HTTP API, sent as `Authorization: Bearer KEY` (RFC 6750), and what it permits. Only a digest of the
/// key is kept. A new key has no scope: every endpoint refuses it with 403 until it is given one.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub(crate) name: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) scopes: Vec<Scope>,
    pub(crate) idps: Option<Vec<String>>,
    pub(crate) user_prefix: String,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) requests_per_second: Option<u32>,
}

impl ApiKey {
    /// Creates a key from its SHA-256. `name` identifies the caller in the audit log; several keys may share a name, so that
    /// a key can be rotated without a gap.
    pub fn new(name: impl Into<String>, sha256: [u8; 32]) -> Self {
        Self {
            name: name.into(),
            sha256,
            scopes: Vec::new(),
            idps: None,
            user_prefix: String::new(),
            expires_at: None,
            requests_per_second: None,
        }
    }

    /// Creates a key from its text, of which only the digest is kept; see [`new`](Self::new). A text that is shorter than 32
    /// random bytes could be guessed.
    pub fn from_secret(name: impl Into<String>, secret: &str) -> Self {
        Self::new(name, Sha256::digest(secret).into())
    }

    /// Adds a scope.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scopes.push(scope);
        self
    }

    /// Limits the key to grants at these identity providers; unlimited unless set.
    pub fn idps(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.idps = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Limits the key to grants of users whose names start like this; unlimited unless set.
    pub fn user_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.user_prefix = prefix.into();
        self
    }

    /// Refuses the key from this time on; it never expires unless set.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// Limits how many requests the bearer of the key may send each second, on average; unlimited unless set. More are
    /// refused as busy.
    pub fn requests_per_second(mut self, requests: u32) -> Self {
        self.requests_per_second = Some(requests.max(1));
        self
    }

    /// Returns the name of the caller.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns when the key expires; `None` if it never does.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// Whether the key has expired by `now`.
    #[cfg(feature = "web")]
    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether the key is limited to some identity providers or users.
    #[cfg(feature = "web")]
    pub(crate) fn is_limited(&self) -> bool {
        self.idps.is_some() || !self.user_prefix.is_empty()
    }
}

impl fmt::Debug for ApiKey {
    /// Omits the digest: a key that is not random could be guessed from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .field("idps", &self.idps)
            .field("user_prefix", &self.user_prefix)
            .field("expires_at", &self.expires_at)
            .field("requests_per_second", &self.requests_per_second)
            .finish_non_exhaustive()
    }
}
