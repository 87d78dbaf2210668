//! API keys: who may do what, to whose grants, and which of them somebody shows.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::apikey::{ApiKey, Scope};
use crate::model::TokenKey;

impl ApiKey {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_any(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(scope))
    }

    /// `None` if it reaches all.
    pub(super) fn reached_idps(&self) -> Option<&[String]> {
        self.idps.as_deref()
    }

    /// What the users that it reaches begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.user_prefix
    }

    pub(super) fn reaches_idp(&self, idp: &str) -> bool {
        self.reached_idps().is_none_or(|idps| idps.iter().any(|name| name == idp))
    }

    pub(super) fn reaches_user(&self, user: &str) -> bool {
        user.starts_with(&self.user_prefix)
    }

    pub(super) fn reaches(&self, key: &TokenKey) -> bool {
        self.reaches_idp(key.idp()) && self.reaches_user(key.user())
    }
}

/// The keys that are good now. A handle: clones are the same set, and [`replace`](Self::replace) works while they are
/// in use.
///
/// ```
/// use token_supervisor::web::{ApiKey, ApiKeys, Scope};
///
/// # let (old, new) = ([0; 32], [1; 32]);
/// let billing = |sha256| ApiKey::new("billing", sha256).scope(Scope::Token).idps(["github"]).user_prefix("acme/");
/// let keys = ApiKeys::new([billing(old)]);
/// keys.replace([billing(old), billing(new)]); // until every caller has the new one
/// ```
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Arc<ArcSwap<Vec<Arc<ApiKey>>>>);

impl ApiKeys {
    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Self {
        let these = Self::default();
        these.replace(keys);
        these
    }

    /// From now on these keys and no others.
    pub fn replace(&self, keys: impl IntoIterator<Item = ApiKey>) {
        self.0.store(Arc::new(keys.into_iter().map(Arc::new).collect()));
    }

    /// Whether this key is one of them still.
    pub(super) fn has(&self, key: &ApiKey) -> bool {
        self.0.load().iter().any(|good| **good == *key)
    }

    /// The key that this is. Takes the same time whichever it is, and whether it is one.
    pub(super) fn find(&self, presented: &str) -> Option<Arc<ApiKey>> {
        let keys = self.0.load();
        let presented = Sha256::digest(presented);
        let (mut found, mut at) = (Choice::from(0), 0u64);
        for (index, key) in (0..).zip(keys.iter()) {
            let same = key.sha256.ct_eq(presented.as_ref());
            at.conditional_assign(&index, same);
            found |= same;
        }
        keys.get(usize::try_from(at).ok()?).filter(|_| found.into()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_alone_and_only_while_it_is_good() {
        let keys =
            ApiKeys::new(["a", "b", "c"].map(|name| ApiKey::from_secret(name, &format!("ts-test-secret-{name}"))));
        let name = |presented: &str| keys.find(presented).map(|key| key.name().to_owned());
        for good in ["a", "b", "c"] {
            assert_eq!(name(&format!("ts-test-secret-{good}")).as_deref(), Some(good));
        }
        for bad in ["", "ts-test-secret-", "ts-test-secret-d", "a"] {
            assert_eq!(name(bad), None);
        }
        keys.replace([ApiKey::from_secret("d", "ts-test-secret-d")]);
        assert_eq!(name("ts-test-secret-d").as_deref(), Some("d"));
        assert_eq!(name("ts-test-secret-a"), None);
        assert!(ApiKeys::default().find("").is_none());
    }

    #[test]
    fn a_key_reaches_what_it_names() {
        let key = ApiKey::new("billing", [0; 32]).scope(Scope::Token).idps(["github"]).user_prefix("acme/");
        assert!(key.reaches(&TokenKey::at("github").user("acme/alice")));
        assert!(!key.reaches(&TokenKey::at("gitlab").user("acme/alice")));
        assert!(!key.reaches(&TokenKey::at("github").user("acmealice")));
        assert!(key.has_any(&[Scope::Admin, Scope::Token]) && !key.has_any(&[Scope::Grant]) && !key.has_any(&[]));
        assert!(!format!("{key:?}").contains("sha256"));
    }
}
