//! A cold read: a token that is not published goes from the store to its caller, without an actor.

use std::sync::Arc;

use super::{
    ledger::Ledger,
    provider::Providers,
    refresh::{Attempts, Ports, seal, withdraw_sent},
    snapshot::Snapshot,
};
use crate::{clock::Clock, keyring::Keyring, model::TokenKey};

/// Has what a read needs, and not all ports of attempts: a caller that keeps a future after the shutdown must not keep the journal
/// open.
pub(super) struct ColdReader {
    snapshot: Arc<Snapshot>,
    ledger: Ledger,
    keyring: Keyring,
    providers: Arc<Providers>,
    attempts: Arc<Attempts>,
    clock: Clock,
}

/// What the store has of a key.
#[derive(Debug, PartialEq)]
pub(super) enum ColdRead {
    /// The row's token is published.
    Published { is_due: bool },
    /// There is no grant.
    Nothing,
    /// Only the key's actor can tell: something is published for the key, or happened to it during the read, or the store did
    /// not reply.
    Unknown,
}

impl ColdReader {
    pub(super) fn new(ports: &Ports) -> Self {
        let Ports { snapshot, ledger, keyring, providers, attempts, clock, .. } = ports;
        let (snapshot, ledger, keyring) = (snapshot.clone(), ledger.clone(), keyring.clone());
        let (providers, attempts, clock) = (providers.clone(), attempts.clone(), clock.clone());
        Self { snapshot, ledger, keyring, providers, attempts, clock }
    }

    /// Reads the row of a key of which nothing is published, and publishes its token. The place in the snapshot is reserved
    /// before: if anything happens to the key during the read, the row may be from before that, and is not used.
    ///
    /// Dropping the future gives the place back.
    pub(super) async fn read(&self, key: &TokenKey) -> ColdRead {
        let Some(place) = self.snapshot.reserve(key) else { return ColdRead::Unknown };
        let Ok(read) = self.ledger.store().read(key).await else { return ColdRead::Unknown };
        let Some(row) = read.row.filter(|row| row.tombstone.is_none()) else { return ColdRead::Nothing };
        let now = self.clock.read();
        let Ok(issued) = seal::issued(&self.keyring, &row, now) else { return ColdRead::Unknown };
        issued.set_standing(row.standing());
        if !place.publish(&issued) {
            return ColdRead::Unknown;
        }
        withdraw_sent(&self.providers, &self.attempts, key, &issued);
        ColdRead::Published { is_due: row.due_at.is_some_and(|due| due <= now.wall) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use actix::Actor as _;
    use futures_util::FutureExt as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        error::Error,
        model::TokenStanding,
        protocol::Change,
        supervisor::{
            bench::Bench,
            by::By,
            command::{Acquire, GetStatus},
            registry::RegistryActor,
        },
    };

    /// A read that waits for the store: one that has its reply at the first poll is begun anew.
    fn begun<T, F: Future<Output = T>>(read: impl Fn() -> F) -> std::pin::Pin<Box<F>> {
        loop {
            let mut reading = Box::pin(read());
            if reading.as_mut().now_or_never().is_none() {
                return reading;
            }
        }
    }

    #[tokio::test]
    async fn a_token_is_published_as_good_as_its_row_says() {
        let bench = Bench::with_idp("idp");
        let (key, ports) = (TokenKey::at("idp").user("alice"), bench.refresher.ports());
        let cold = ColdReader::new(ports);
        bench.connect(&key, "ts-test-secret-1").await;
        assert_eq!(cold.read(&key).await, ColdRead::Published { is_due: false });
        ports.snapshot.remove(&key);
        let require = Change::RequireReconnect { reason: "left".into() };
        bench.ledger.change(&key, By::Application, require).await.unwrap();
        cold.read(&key).await;
        assert_eq!(ports.snapshot.current(&key).unwrap().standing(), TokenStanding::ReconnectRequired);
        ports.snapshot.remove(&key);
        bench.manual.advance(std::time::Duration::from_secs(3_500));
        assert_eq!(cold.read(&key).await, ColdRead::Published { is_due: true });
    }

    #[actix::test]
    async fn a_valid_token_comes_from_the_store_without_an_actor_and_a_missing_grant_is_told() {
        let bench = Bench::with_idp("idp");
        let (alice, bob) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
        bench.connect(&alice, "ts-test-secret-1").await;
        let (around, front, _, registry) = bench.assembled();
        let (ended, _) = mpsc::unbounded_channel();
        registry.send_replace(Some(RegistryActor::new(around.clone(), ended).start().recipient()));
        let awake = || around.awake.load(Ordering::Relaxed);
        let token = front.call(Acquire::new(&alice), By::Application).await.unwrap();
        assert_eq!((token.access_token().expose_secret(), awake()), ("ts-test-secret-1-access", 0));
        assert_eq!(front.call(Acquire::new(&bob), By::Application).await.unwrap_err(), Error::NotConnected);
        assert_eq!(awake(), 0);

        assert!(front.call(GetStatus::new(&alice), By::Application).await.is_ok());
        assert_eq!(awake(), 1);
        while awake() > 0 {
            bench.manual.advance(std::time::Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
        assert!(bench.refresher.ports().snapshot.current(&alice).is_some(), "its token stays published");
    }

    #[tokio::test]
    async fn what_was_read_is_not_used_if_anything_happened_meanwhile() {
        let bench = Bench::with_idp("idp");
        let (key, ports) = (TokenKey::at("idp").user("alice"), bench.refresher.ports());
        let row = bench.connect(&key, "ts-test-secret-1").await;
        let cold = ColdReader::new(ports);
        {
            let reading = begun(|| {
                ports.snapshot.remove(&key);
                cold.read(&key)
            });
            ports.snapshot.end(&key, row.generation);
            assert_eq!(reading.await, ColdRead::Unknown, "disconnected during the read");
        }
        ports.snapshot.remove(&key);
        bench.break_store();
        assert_eq!(cold.read(&key).await, ColdRead::Unknown);
        assert!(ports.snapshot.reserve(&key).is_some(), "the place was given back");
    }

    #[tokio::test]
    async fn a_caller_that_keeps_its_future_does_not_keep_the_journal() {
        let bench = Bench::with_idp("idp");
        let (around, front, _, _registry) = bench.assembled();
        let alice = TokenKey::at("idp").user("alice");
        let asking = begun(|| front.call(Acquire::new(&alice), By::Application));
        let journal = Arc::downgrade(&bench.refresher.ports().journal);
        drop((around, bench));
        assert!(journal.upgrade().is_none());
        drop((asking, front));
    }
}
