//! Which grants a list contains: the query of `GET /v1/grants`.

use std::time::SystemTime;

use super::time::rfc3339;
use crate::{Cursor, Filter, State};

/// Which grants to list: all conditions that are set must hold. Further conditions may be added: build it on the default.
///
/// ```
/// use token_supervisor::{State, api::GrantQuery};
///
/// let states = vec![State::ReconnectRequired];
/// let query = GrantQuery { idp: Some("github".to_owned()), states, ..GrantQuery::default() };
/// ```
#[derive(Clone, Debug, Default)]
pub struct GrantQuery {
    /// Only grants at this identity provider, configured or not.
    pub idp: Option<String>,
    /// Only grants of this user.
    pub user: Option<String>,
    /// Only grants of users whose names begin with this prefix, such as a tenant's.
    pub user_prefix: Option<String>,
    /// Only grants of this account; the empty account is that of keys without one.
    pub account: Option<String>,
    /// Only grants in one of these states. If empty, grants in every state but [`State::Revoked`].
    pub states: Vec<State>,
    /// Only grants that are on hold (`true`), or only those that are not (`false`).
    pub held: Option<bool>,
    /// Only grants that need consent before this time: see [`Filter::expiring_before`].
    pub expiring_before: Option<SystemTime>,
    /// Where the page starts: `next` of the page before.
    pub after: Option<Cursor>,
    /// How many grants a page holds, 1 to 1000; 100 unless set.
    pub limit: Option<u32>,
}

impl GrantQuery {
    /// The filter of [`TokenSupervisor::list`](crate::TokenSupervisor::list).
    pub fn filter(&self) -> Filter {
        let mut filter = Filter::new();
        let set = |filter: Filter, text: &Option<String>, setter: fn(Filter, String) -> Filter| match text {
            Some(text) => setter(filter, text.clone()),
            None => filter,
        };
        filter = set(filter, &self.idp, Filter::idp);
        filter = set(filter, &self.user, Filter::user);
        filter = set(filter, &self.user_prefix, Filter::user_prefix);
        filter = set(filter, &self.account, Filter::account);
        filter = self.states.iter().copied().fold(filter, Filter::state);
        if let Some(held) = self.held {
            filter = filter.held(held);
        }
        if let Some(time) = self.expiring_before {
            filter = filter.expiring_before(time);
        }
        if let Some(cursor) = &self.after {
            filter = filter.after(cursor.clone());
        }
        match self.limit {
            Some(limit) => filter.limit(limit),
            None => filter,
        }
    }

    /// The query parameters of `GET /v1/grants`.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let states: Vec<_> = self.states.iter().map(|state| state.as_str()).collect();
        let given = [
            ("idp", self.idp.clone()),
            ("user", self.user.clone()),
            ("user_prefix", self.user_prefix.clone()),
            ("account", self.account.clone()),
            ("state", (!states.is_empty()).then(|| states.join(","))),
            ("held", self.held.map(|held| held.to_string())),
            ("expiring_before", self.expiring_before.map(rfc3339)),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("after", self.after.as_ref().map(Cursor::to_string)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
