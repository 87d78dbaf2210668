//! Lists of grants: filtered, in pages, in the order of their keys.
//!
//! They are read from the store, not asked of the actors. The store finds grants by their names; everything else is compared
//! here, so that [`Row::state`] stays the only place that says in which state a row is.

use std::{fmt, str::FromStr, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::{Either, select};

use super::{Status, TokenSupervisor, command::TIMEOUT, ledger::unavailable};
use crate::{
    error::Error,
    model::{Row, State, StoreTime, TokenKey, WallTime},
    store::Names,
};

/// The number of rows that are read at a time, so that a reader of the store is soon free for others.
const CHUNK: u32 = 1_024;

/// The largest number of rows that are read for one page. Rare grants among many are found page after page.
const READ_FOR_A_PAGE: u32 = 64 * CHUNK;

/// The grants to list: those to which every condition that is set applies.
///
/// ```
/// use token_supervisor::{Filter, State};
/// let filter = Filter::new().idp("github").user_prefix("acme/").state(State::ReconnectRequired).limit(20);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Filter {
    names: Names,
    states: Vec<State>,
    expiring_before: Option<WallTime>,
    held: Option<bool>,
    after: Option<Cursor>,
    limit: u32,
}

/// A page of grants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// In the order of identity provider, user and account, each compared byte by byte.
    pub items: Vec<(TokenKey, Status)>,
    /// Where the next page starts; `None` on the last page. A page may hold less than its limit and still have a next one:
    /// where few of very many grants are asked for.
    pub next: Option<Cursor>,
}

/// Where a page starts, as the page before says. Its text ([`Display`](fmt::Display), [`FromStr`]) is opaque and fits into
/// a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(TokenKey);

impl Cursor {
    /// Returns the cursor of the page after this key.
    #[cfg(feature = "web")]
    pub(crate) fn after(key: &TokenKey) -> Self {
        Self(key.clone())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = serde_json::to_vec(&self.0).expect("a key has a JSON form");
        f.write_str(&URL_SAFE_NO_PAD.encode(key))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidRequest`] for a text that is not the cursor of a page.
    fn from_str(text: &str) -> Result<Self, Error> {
        let key: Option<TokenKey> =
            URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        key.filter(|key| key.validate().is_ok()).map(Self).ok_or(Error::InvalidRequest("after is no cursor of a page"))
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter {
    /// Lists every grant, a hundred at a time.
    pub fn new() -> Self {
        let (names, states) = (Names::default(), Vec::new());
        Self { names, states, expiring_before: None, held: None, after: None, limit: 100 }
    }

    /// Only grants at this identity provider, configured or not.
    pub fn idp(mut self, idp: impl Into<String>) -> Self {
        self.names.idp = Some(idp.into());
        self
    }

    /// Only grants of this user.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.names.user = Some(user.into());
        self
    }

    /// Only grants of users whose names begin with this prefix, such as a tenant's.
    pub fn user_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.user_prefix = Some(prefix.into());
        self
    }

    /// Only grants of this account; the empty account is that of keys without one.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.names.account = Some(account.into());
        self
    }

    /// Only grants in this state; if set more than once, in any of these states. Disconnected grants are listed only if
    /// [`State::Revoked`] is asked for; they are purged some time later.
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Only grants that need consent before this time: their refresh token expires before it, or their access token if they
    /// have no refresh token.
    pub fn expiring_before(mut self, time: SystemTime) -> Self {
        self.expiring_before = Some(time.into());
        self
    }

    /// Only grants on hold, or only grants that are not.
    pub fn held(mut self, held: bool) -> Self {
        self.held = Some(held);
        self
    }

    /// Starts the page at this cursor.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Sets how many grants a page holds: 1 to 1 000; 100 unless set.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    #[cfg(feature = "web")]
    pub(crate) fn page_size(&self) -> u32 {
        self.limit
    }

    fn fits(&self, row: &Row, now: StoreTime) -> bool {
        let state = row.state(now);
        let wanted = if self.states.is_empty() { state != State::Revoked } else { self.states.contains(&state) };
        let end = row.consent_expires().at();
        wanted
            && self.expiring_before.is_none_or(|before| end.is_some_and(|end| end < before))
            && self.held.is_none_or(|held| row.held.is_some() == held)
    }
}

impl TokenSupervisor {
    /// Returns a page of the stored grants that the filter asks for. A grant that is connected or disconnected between two
    /// pages may or may not be on the later one; no other is left out or listed twice.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a limit that is not 1 to 1 000; [`Error::Unavailable`] or [`Error::Timeout`] if the store
    /// does not respond within 10 s.
    pub async fn list(&self, mut filter: Filter) -> Result<Page, Error> {
        if !(1..=1_000).contains(&filter.limit) {
            return Err(Error::InvalidRequest("limit must be 1 to 1000"));
        }
        filter.names.gone = !filter.states.is_empty() && filter.states.iter().all(|state| *state == State::Revoked);
        let deadline = self.rooms.refresher.ports().clock.sleep(TIMEOUT);
        match select(Box::pin(self.page(filter)), Box::pin(deadline)).await {
            Either::Left((page, _)) => page,
            Either::Right(_) => Err(Error::Timeout),
        }
    }

    async fn page(&self, mut filter: Filter) -> Result<Page, Error> {
        let store = self.rooms.ledger.store();
        let (full, mut items) = (filter.limit as usize, Vec::new());
        let mut after = filter.after.take().map(|Cursor(key)| key);
        let mut left = READ_FOR_A_PAGE;
        // One more grant than the page holds says whether there is a next page.
        let mut chunk = filter.limit + 1;
        while left > 0 {
            let listed = store.list(&filter.names, after, chunk).await.map_err(|error| unavailable(&error))?;
            let complete = listed.complete;
            after = listed.grants.last().map(|(key, _)| key.clone());
            for (key, row) in listed.grants {
                match row {
                    Ok(row) if !filter.fits(&row, listed.now) => {}
                    Ok(_) if items.len() == full => return Ok(Page { next: last(&items), items }),
                    Ok(row) => {
                        let status = self.rooms.refresher.status(&key, Some(&row), listed.now, None);
                        items.push((key, status));
                    }
                    Err(error) => {
                        tracing::error!(grant.id = error.grant_id(), error = %error, "a grant cannot be listed")
                    }
                }
            }
            if complete {
                return Ok(Page { items, next: None });
            }
            left = left.saturating_sub(chunk);
            chunk = CHUNK;
        }
        Ok(Page { items, next: after.map(Cursor) })
    }
}

fn last(items: &[(TokenKey, Status)]) -> Option<Cursor> {
    items.last().map(|(key, _)| Cursor(key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_no_other_text_is_one() {
        let cursor = Cursor(TokenKey::at("idp").user("acme/ä b").account("work"));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "x", "e30", "bm8"] {
            assert!(matches!(text.parse::<Cursor>(), Err(Error::InvalidRequest(_))), "{text}");
        }
    }
}
