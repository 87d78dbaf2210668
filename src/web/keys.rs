//! The API keys of the server, and which of them a request shows.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::apikey::{ApiKey, Scope};

impl ApiKey {
    pub(super) fn has_any(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(scope))
    }
}

/// The valid API keys. A handle: clones share one set, and [`replace`](Self::replace) changes it while it is in use.
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
    /// Returns a set of these keys.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Self {
        let these = Self::default();
        these.replace(keys);
        these
    }

    /// Replaces all keys: from now on these are valid, and no others.
    pub fn replace(&self, keys: impl IntoIterator<Item = ApiKey>) {
        self.0.store(Arc::new(keys.into_iter().map(Arc::new).collect()));
    }

    /// Whether this key is still valid.
    pub(super) fn has(&self, key: &ApiKey) -> bool {
        self.0.load().iter().any(|good| **good == *key)
    }

    /// Finds the key with this text. Takes the same time for every key, and for a text that is none.
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
    fn a_key_is_found_by_its_hash_alone_and_only_while_it_is_valid() {
        let keys =
            ApiKeys::new(["a", "b", "c"].map(|name| ApiKey::from_secret(name, &format!("ts-test-secret-{name}"))));
        let name = |presented: &str| keys.find(presented).map(|key| key.name.clone());
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
}
