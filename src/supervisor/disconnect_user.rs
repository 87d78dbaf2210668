//! Offboarding: the end of all of a user's grants.

use futures_util::{StreamExt as _, stream};

use super::{Disconnect, Revoke, Status, TokenSupervisor, ledger::unavailable};
use crate::{
    error::Error,
    model::TokenKey,
    store::{Names, Store, StoreError},
};

/// Rows at a time.
const PAGE: u32 = 256;

/// The number of grants of a user that are disconnected at the same time.
const AT_ONCE: usize = 16;

impl TokenSupervisor {
    /// Disconnects every grant of the user, at every identity provider, configured or not, and with every account; see
    /// [`Disconnect`]. Returns one result for each, in the order of their keys; grants that were disconnected before are
    /// among them, so that the call may be repeated. A grant that is connected meanwhile may be left out.
    ///
    /// Dropping the future leaves the rest as it is: call again.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, _, _| {
    /// use token_supervisor::Revoke;
    ///
    /// for (key, ended) in supervisor.disconnect_user("alice", Revoke::Yes).await? {
    ///     println!("{}: {:?}", key.idp(), ended?.state);
    /// }
    /// # assert_eq!(supervisor.revoke_queued().await?, 0);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a user name that is not valid, or [`Error::Unavailable`] if the store does not list the
    /// user's grants; nothing was disconnected then.
    pub async fn disconnect_user(
        &self,
        user: &str,
        revoke: Revoke,
    ) -> Result<Vec<(TokenKey, Result<Status, Error>)>, Error> {
        self.disconnect_each(user, revoke, |_, _| {}).await
    }

    /// The same; calls `ended` for each grant as it ends.
    pub(crate) async fn disconnect_each(
        &self,
        user: &str,
        revoke: Revoke,
        ended: impl Fn(&TokenKey, &Result<Status, Error>) + Send + Sync,
    ) -> Result<Vec<(TokenKey, Result<Status, Error>)>, Error> {
        TokenKey::at("any").user(user).validate().map_err(Error::InvalidRequest)?;
        let names = Names { user: Some(user.to_owned()), ..Names::default() };
        let keys = every_key(self.rooms.ledger.store(), &names).await.map_err(|error| unavailable(&error))?;
        let ended = &ended;
        let disconnected = keys.into_iter().map(|key| async move {
            let answer = self.call(Disconnect::new(&key, revoke)).await;
            ended(&key, &answer);
            (key, answer)
        });
        Ok(stream::iter(disconnected).buffered(AT_ONCE).collect().await)
    }
}

async fn every_key(store: &dyn Store, names: &Names) -> Result<Vec<TokenKey>, StoreError> {
    let mut keys = Vec::<TokenKey>::new();
    loop {
        let page = store.list(names, keys.last().cloned(), PAGE).await?.grants;
        let complete = page.len() < PAGE as usize;
        keys.extend(page.into_iter().map(|(key, _)| key));
        if complete {
            return Ok(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::bench::Bench;

    #[tokio::test]
    async fn every_key_of_a_user_is_found_at_every_provider_and_page() {
        let bench = Bench::with_idp("idp");
        let mut expected = Vec::new();
        for account in 0..PAGE + 3 {
            let key = TokenKey::at("idp").user("alice").account(format!("{account:04}"));
            bench.connect(&key, &format!("ts-test-secret-{account}")).await;
            expected.push(key);
        }
        bench.connect(&TokenKey::at("idp").user("bob"), "ts-test-secret-bob").await;
        let names = Names { user: Some("alice".to_owned()), ..Names::default() };
        assert_eq!(every_key(bench.ledger.store(), &names).await.unwrap(), expected);
    }
}
