//! API keys as the configuration gives them and the server knows them.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// What a key is good for. None includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Read tokens and states, report tokens as rejected.
    Token,
    /// Connect, and everything else that changes a grant.
    Grant,
    /// List grants, see and hold identity providers.
    Admin,
    /// Read metrics.
    Metrics,
}

impl Scope {
    /// The name in configurations and on the wire.
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

/// An API key of the HTTP API, sent as `Authorization: Bearer KEY` (RFC 6750): what its bearer may do. Only a digest of the
/// key is kept. A new one has no scope, so that every route answers it 403 until it is given some.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub(crate) name: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) scopes: Vec<Scope>,
    pub(crate) idps: Option<Vec<String>>,
    pub(crate) user_prefix: String,
}

impl ApiKey {
    /// The key whose SHA-256 this is. `name` is who is named in the audit log; several keys may have the same, so that they
    /// can be rotated without a gap.
    pub fn new(name: impl Into<String>, sha256: [u8; 32]) -> Self {
        Self { name: name.into(), sha256, scopes: Vec::new(), idps: None, user_prefix: String::new() }
    }

    /// As [`new`](Self::new), from the key itself; its digest is kept, the key is not.
    pub fn from_secret(name: impl Into<String>, secret: &str) -> Self {
        Self::new(name, Sha256::digest(secret).into())
    }

    /// Adds a scope to those it has.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scopes.push(scope);
        self
    }

    /// Only grants at these identity providers; at all of them unless set.
    pub fn idps(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.idps = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Only grants of users whose names begin like this; of all users unless set.
    pub fn user_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.user_prefix = prefix.into();
        self
    }
}

impl fmt::Debug for ApiKey {
    /// Without the digest: a key that somebody made up could be guessed from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .field("idps", &self.idps)
            .field("user_prefix", &self.user_prefix)
            .finish_non_exhaustive()
    }
}
