//! The end of grants: all of a user's, and at last what is left of each.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::{Disconnect, Purge, Revoke, Status, TokenSupervisor, handle::Shared, token::refusal};
use crate::{
    error::Error,
    model::TokenKey,
    store::{Names, StoreError},
};

/// Rows at a time.
const PAGE: u32 = 256;

/// How many grants of a user are disconnected at the same time.
const AT_ONCE: usize = 16;

/// How often it is looked for tombstones that are to go.
const EVERY: Duration = Duration::from_secs(3_600);

impl TokenSupervisor {
    /// Ends every grant of the user, at every identity provider, configured or not, and with every account; see
    /// [`Disconnect`]. One result for each, in the order of their keys; those that were disconnected before are there, too,
    /// so that it may be repeated. What is connected meanwhile may be left out.
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
    /// [`Error::InvalidRequest`] for a user who cannot be, or [`Error::Unavailable`] if the store does not say what there is
    /// of the user; nothing was disconnected then.
    pub async fn disconnect_user(
        &self,
        user: &str,
        revoke: Revoke,
    ) -> Result<Vec<(TokenKey, Result<Status, Error>)>, Error> {
        self.disconnect_each(user, revoke, |_, _| {}).await
    }

    /// The same, and tells of each grant as it ends.
    pub(crate) async fn disconnect_each(
        &self,
        user: &str,
        revoke: Revoke,
        tell: impl Fn(&TokenKey, &Result<Status, Error>) + Send + Sync,
    ) -> Result<Vec<(TokenKey, Result<Status, Error>)>, Error> {
        TokenKey::at("any").user(user).validate().map_err(Error::InvalidRequest)?;
        let names = Names { user: Some(user.to_owned()), ..Names::default() };
        let keys = self.shared.every_key(&names).await.map_err(|error| refusal(&error))?;
        let tell = &tell;
        let disconnected = keys.into_iter().map(|key| async move {
            let answer = self.call(Disconnect::new(&key, revoke)).await;
            tell(&key, &answer);
            (key, answer)
        });
        Ok(stream::iter(disconnected).buffered(AT_ONCE).collect().await)
    }
}

impl Shared {
    /// The keys of all rows with such names.
    async fn every_key(&self, names: &Names) -> Result<Vec<TokenKey>, StoreError> {
        let mut keys = Vec::<TokenKey>::new();
        loop {
            let page = self.core.store.list(names, keys.last().cloned(), PAGE).await?.grants;
            let complete = page.len() < PAGE as usize;
            keys.extend(page.into_iter().map(|(key, _)| key));
            if complete {
                return Ok(keys);
            }
        }
    }
}

/// Purges what was disconnected long ago, or was to be purged when it was disconnected; again and again.
pub(super) async fn purge_old(shared: Shared) {
    loop {
        if let Err(error) = purge_once(&shared).await {
            tracing::warn!(error = %error, "old tombstones were not all purged; they are looked at again");
        }
        shared.core.clock.sleep(EVERY).await;
    }
}

/// Purges the grant if that was asked for when it was disconnected; called when a token of it is revoked.
pub(super) async fn purge_if_wanted(shared: &Shared, key: &TokenKey) -> Result<(), StoreError> {
    let row = shared.core.store.read(key).await?.row;
    if row.and_then(|row| row.tombstone).is_some_and(|tombstone| tombstone.purge) {
        // While more of it is to be revoked, that comes first.
        shared.call(Purge::new(key)).await.ok();
    }
    Ok(())
}

async fn purge_once(shared: &Shared) -> Result<(), StoreError> {
    let core = &shared.core;
    let gone = Names { gone: true, ..Names::default() };
    let before = core.clock.store_time().minus(core.limits.tombstones_kept);
    let mut after = None;
    loop {
        let page = core.store.list(&gone, after, PAGE).await?.grants;
        let complete = page.len() < PAGE as usize;
        after = page.last().map(|(key, _)| key.clone());
        for (key, row) in page {
            let tombstone = row.ok().and_then(|row| row.tombstone);
            if tombstone.is_some_and(|tombstone| tombstone.purge || tombstone.at <= before) {
                // What is not over yet is purged another time.
                shared.call(Purge::new(&key)).await.ok();
            }
        }
        if complete {
            return Ok(());
        }
    }
}
