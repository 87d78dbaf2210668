//! The callers of the API.

use std::sync::Arc;

use crate::{
    TokenKey,
    apikey::{ApiKey, Scope},
};

/// The caller of a request, and what it may reach.
#[derive(Clone, Debug)]
pub(super) enum Principal {
    /// Nobody that is known: of an open endpoint, or before the key was checked. Reaches nothing.
    Anonymous,
    /// A process on this machine that can open the server's socket. Reaches everything.
    LocalPeer,
    /// The bearer of an API key.
    Key(Arc<ApiKey>),
}

impl Principal {
    /// Its name in the audit log.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Key(key) => &key.name,
            Self::Anonymous | Self::LocalPeer => "-",
        }
    }

    pub(super) fn key(&self) -> Option<&ApiKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Anonymous | Self::LocalPeer => None,
        }
    }

    pub(super) fn has_any(&self, scopes: &[Scope]) -> bool {
        match self {
            Self::Anonymous => false,
            Self::LocalPeer => true,
            Self::Key(key) => key.has_any(scopes),
        }
    }

    /// The identity providers that it reaches; `None` if it reaches all.
    pub(super) fn reached_idps(&self) -> Option<&[String]> {
        match self {
            Self::Anonymous => Some(&[]),
            Self::LocalPeer => None,
            Self::Key(key) => key.idps.as_deref(),
        }
    }

    /// The prefix of the users that it reaches.
    pub(super) fn user_prefix(&self) -> &str {
        self.key().map_or("", |key| &key.user_prefix)
    }

    pub(super) fn reaches_idp(&self, idp: &str) -> bool {
        self.reached_idps().is_none_or(|idps| idps.iter().any(|name| name == idp))
    }

    pub(super) fn reaches_user(&self, user: &str) -> bool {
        !matches!(self, Self::Anonymous) && user.starts_with(self.user_prefix())
    }

    /// Whether it reaches every grant at this identity provider.
    pub(super) fn reaches_all_of(&self, idp: &str) -> bool {
        self.reaches_idp(idp) && self.user_prefix().is_empty()
    }

    pub(super) fn reaches(&self, key: &TokenKey) -> bool {
        self.reaches_idp(key.idp()) && self.reaches_user(key.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reaches_what_it_names() {
        let key = ApiKey::new("billing", [0; 32]).scope(Scope::Token).idps(["github"]).user_prefix("acme/");
        assert!(!format!("{key:?}").contains("sha256"));
        let billing = Principal::Key(Arc::new(key));
        assert!(billing.reaches(&TokenKey::at("github").user("acme/alice")));
        assert!(!billing.reaches(&TokenKey::at("gitlab").user("acme/alice")));
        assert!(!billing.reaches(&TokenKey::at("github").user("acmealice")));
        assert!(!billing.reaches_all_of("github") && Principal::LocalPeer.reaches_all_of("github"));
        let limited = billing.key().is_some_and(ApiKey::is_limited);
        assert!(limited && !ApiKey::new("all", [0; 32]).is_limited());
        assert!(billing.has_any(&[Scope::Admin, Scope::Token]) && !billing.has_any(&[Scope::Grant]));
        assert!(!billing.has_any(&[]) && !Principal::Anonymous.reaches(&TokenKey::at("github").user("a")));
    }
}
