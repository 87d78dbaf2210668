//! A retry of the grants whose refresh tokens an identity provider refused by mistake.

use futures_util::{StreamExt as _, stream};

use super::{
    Retry, Status, TokenSupervisor,
    ledger::{Audited, unavailable},
};
use crate::{
    error::Error,
    model::{Row, StoreTime, TokenKey, VerdictBy},
    store::{Names, Store, StoreError},
};

/// Rows at a time.
const PAGE: u32 = 256;

/// The largest number of grants that one call retries.
const AT_MOST: usize = 1_000;

/// The number of grants that are retried at the same time.
const AT_ONCE: usize = 16;

/// The result of [`TokenSupervisor::retry_idp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// The number of grants whose refresh token is sent once more.
    pub retried: u64,
    /// Whether refused grants are left: call again.
    pub left: bool,
}

impl TokenSupervisor {
    /// Sends the refused refresh tokens of an identity provider once more; see [`Retry`]. Retries at most 1 000 grants in one
    /// call, those that were refused first, and does not wait for their refreshes.
    ///
    /// A grant that the provider refuses again counts as refused again: call again for what is [`left`](Retried::left), but
    /// look at the first results before.
    ///
    /// Dropping the future leaves the rest as it is: call again.
    ///
    /// ```
    /// # mod doc { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/alice.rs")); }
    /// # doc::with_alice(async |supervisor, alice, simulated| {
    /// # simulated.next(token_supervisor::testing::Fault::error(400, "invalid_grant"));
    /// # supervisor.refresh_now(&alice).await.unwrap_err();
    /// let done = supervisor.retry_idp("gitlab").await?; // it had refused every token
    /// println!("{} grants are retried", done.retried);
    /// # assert_eq!((done.retried, done.left), (1, false));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownIdp`]; [`Error::Unavailable`] if the store does not list the grants; or why no grant could be retried.
    pub async fn retry_idp(&self, idp: &str) -> Result<Retried, Error> {
        self.retry_refused(idp, |_, _| {}).await
    }

    /// The same; calls `ended` for each grant.
    pub(crate) async fn retry_refused(
        &self,
        idp: &str,
        ended: impl Fn(&TokenKey, &Result<Status, Error>) + Send + Sync,
    ) -> Result<Retried, Error> {
        if self.rooms.providers.get(idp).is_none() {
            return Err(Error::UnknownIdp);
        }
        let retried = self.retry_each(idp, ended).await;
        let outcome = retried.as_ref().map(|_| None).map_err(Error::code);
        self.rooms.ledger.audit(self.by(), "retry_idp", Audited::idp(idp), outcome);
        retried
    }

    async fn retry_each(
        &self,
        idp: &str,
        ended: impl Fn(&TokenKey, &Result<Status, Error>) + Send + Sync,
    ) -> Result<Retried, Error> {
        let refused = refused_keys(self.rooms.ledger.store(), idp, None, AT_MOST).await;
        let (keys, left) = refused.map_err(|error| unavailable(&error))?;
        let ended = &ended;
        let retries = keys.into_iter().map(|key| async move {
            let answer = self.call(Retry::new(&key)).await;
            ended(&key, &answer);
            answer.map(drop)
        });
        let answers: Vec<Result<(), Error>> = stream::iter(retries).buffered(AT_ONCE).collect().await;
        Retried::of(answers, left)
    }
}

impl Retried {
    /// # Errors
    /// Why no grant could be retried, if none could.
    fn of(answers: Vec<Result<(), Error>>, left: bool) -> Result<Self, Error> {
        let (mut retried, mut failure) = (0, None);
        for answer in answers {
            match answer {
                Ok(()) => retried += 1,
                // Disconnected since it was listed.
                Err(Error::NotConnected) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if retried == 0 => Err(error),
            failure => Ok(Self { retried, left: left || failure.is_some() }),
        }
    }
}

/// Returns the keys of grants whose refresh token the identity provider refused, at `since` or later: at most `limit`, and
/// whether there are more. Those that were refused first come first, so that grants that are refused again and again hold up
/// no other; those of the same time are in the order of their keys. Reads every row of the provider.
pub(super) async fn refused_keys(
    store: &dyn Store,
    idp: &str,
    since: Option<StoreTime>,
    limit: usize,
) -> Result<(Vec<TokenKey>, bool), StoreError> {
    let names = Names { idp: Some(idp.to_owned()), ..Names::default() };
    let (mut refused, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(&names, after, PAGE).await?.grants;
        let complete = page.len() < PAGE as usize;
        after = page.last().map(|(key, _)| key.clone());
        for (key, row) in page {
            match row.as_ref().map(refused_at) {
                Ok(Some(at)) if since.is_none_or(|since| at >= since) => refused.push((at, key)),
                Ok(_) => {}
                Err(error) => tracing::error!(grant.id = error.grant_id(), error = %error, "a grant cannot be listed"),
            }
        }
        if complete {
            break;
        }
    }
    let left = refused.len() > limit;
    refused.sort_by_key(|(at, _)| *at);
    refused.truncate(limit);
    Ok((refused.into_iter().map(|(_, key)| key).collect(), left))
}

/// Returns when the identity provider refused the refresh token, if that is why the user must reconnect.
fn refused_at(row: &Row) -> Option<StoreTime> {
    let verdict = row.verdict.as_ref().filter(|verdict| verdict.by == VerdictBy::Idp && row.tombstone.is_none());
    verdict.map(|verdict| verdict.since)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Evidence, Id},
        protocol::{Change, ChangeReply, Claim, DisconnectChange, Refuse},
        supervisor::{bench::Bench, by::By},
    };

    fn key(user: &str) -> TokenKey {
        TokenKey::at("idp").user(user)
    }

    async fn change(bench: &Bench, key: &TokenKey, change: Change) {
        let changed = bench.ledger.change(key, By::Attempt, change).await.unwrap();
        assert_eq!(changed.reply, ChangeReply::Done);
    }

    /// Connects the key and lets the provider, or the response of another subject, refuse its token.
    async fn refused(bench: &Bench, key: &TokenKey, by: VerdictBy) -> StoreTime {
        let row = bench.connect(key, &format!("ts-test-secret-{}-{}", key.idp(), key.user())).await;
        let (attempt, owner, incarnation, generation) = (Id([1; 16]), Id([2; 16]), row.incarnation, row.generation);
        let lease = Duration::from_secs(30);
        change(bench, key, Change::Claim(Claim { attempt, owner, incarnation, generation, lease })).await;
        let evidence = Evidence::of("invalid_grant");
        change(bench, key, Change::Refuse(Refuse { attempt, incarnation, generation, evidence, by })).await;
        bench.row(key).await.unwrap().verdict.unwrap().since
    }

    async fn found(bench: &Bench, since: Option<StoreTime>, limit: usize) -> (Vec<TokenKey>, bool) {
        refused_keys(bench.ledger.store(), "idp", since, limit).await.unwrap()
    }

    #[tokio::test]
    async fn only_what_the_provider_refused_is_found_the_first_refusal_first() {
        let bench = Bench::with_idp("idp");
        assert_eq!(found(&bench, None, 10).await, (vec![], false));
        bench.connect(&key("fresh"), "ts-test-secret-fresh").await;
        bench.connect(&key("asked"), "ts-test-secret-asked").await;
        change(&bench, &key("asked"), Change::RequireReconnect { reason: "more_scope".to_owned() }).await;
        refused(&bench, &key("foreign"), VerdictBy::Subject).await;
        refused(&bench, &key("gone"), VerdictBy::Idp).await;
        change(
            &bench,
            &key("gone"),
            Change::Disconnect(DisconnectChange {
                revoke: false,
                unrevocable: false,
                purge: false,
                access_token: None,
            }),
        )
        .await;
        refused(&bench, &TokenKey::at("other").user("alice"), VerdictBy::Idp).await;

        let first = refused(&bench, &key("zoe"), VerdictBy::Idp).await;
        bench.manual.advance(Duration::from_secs(60));
        for user in ["carol", "bob"] {
            assert!(refused(&bench, &key(user), VerdictBy::Idp).await > first);
        }
        let all = ["zoe", "bob", "carol"].map(key);
        assert_eq!(found(&bench, None, 3).await, (all.to_vec(), false));
        assert_eq!(found(&bench, None, 2).await, (all[..2].to_vec(), true));
        assert_eq!(found(&bench, Some(first), 3).await, (all.to_vec(), false));
        assert_eq!(found(&bench, Some(first + Duration::from_millis(1)), 3).await, (all[1..].to_vec(), false));

        change(&bench, &key("zoe"), Change::Retry).await;
        assert_eq!(found(&bench, None, 3).await, (all[1..].to_vec(), false));
    }

    #[tokio::test]
    async fn every_page_is_searched() {
        let bench = Bench::with_idp("idp");
        for user in 0..PAGE + 1 {
            bench.connect(&key(&format!("{user:04}")), &format!("ts-test-secret-{user}")).await;
        }
        refused(&bench, &key("last"), VerdictBy::Idp).await;
        assert_eq!(found(&bench, None, 1).await, (vec![key("last")], false));
    }

    #[test]
    fn a_retry_that_fails_is_left_and_one_that_does_nothing_is_an_error() {
        let (gone, down) = (|| Err(Error::NotConnected), || Err(Error::Timeout));
        assert_eq!(Retried::of(vec![Ok(()), gone(), Ok(())], false), Ok(Retried { retried: 2, left: false }));
        assert_eq!(Retried::of(vec![Ok(())], true), Ok(Retried { retried: 1, left: true }));
        assert_eq!(Retried::of(vec![down(), Ok(())], false), Ok(Retried { retried: 1, left: true }));
        assert_eq!(Retried::of(vec![gone(), down()], false), Err(Error::Timeout));
        assert_eq!(Retried::of(vec![], false), Ok(Retried { retried: 0, left: false }));
    }
}
