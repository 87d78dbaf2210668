//! A cold read: a token that is not published goes from the store to its caller, without an actor.

use std::sync::Arc;

use super::{
    refresh::{Refresher, seal},
    snapshot::Reservation,
};
use crate::model::{Row, TokenKey};

/// What the store has of a key.
pub(super) enum ColdRead {
    /// The row's token is published.
    Published(Arc<Row>),
    /// There is no grant.
    Nothing,
    /// Only the key's actor can tell: the store did not reply, or something was published or ended for the key meanwhile.
    Unknown,
}

/// Reads the row of a key and publishes its token. The place in the snapshot was reserved before: if anything happens to the
/// key during the read, the row may be from before that, and is not used.
///
/// Dropping the future gives the place back.
pub(super) async fn read(refresher: &Refresher, key: &TokenKey, place: Reservation) -> ColdRead {
    let ports = refresher.ports();
    let Ok(read) = ports.ledger.store().read(key).await else { return ColdRead::Unknown };
    let Some(row) = read.row.filter(|row| row.tombstone.is_none()) else { return ColdRead::Nothing };
    let Ok(issued) = seal::issued(&ports.keyring, &row, ports.clock.read()) else { return ColdRead::Unknown };
    issued.set_standing(row.standing());
    if !place.publish(key, &issued) {
        return ColdRead::Unknown;
    }
    refresher.withdraw_sent(key, &issued);
    ColdRead::Published(Arc::new(row))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use actix::Actor as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        error::Error,
        supervisor::{
            bench::Bench,
            by::By,
            command::{Acquire, GetStatus},
            registry::RegistryActor,
        },
    };

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
        let place = ports.snapshot.reserve(&key).unwrap();
        ports.snapshot.end(&key, row.generation);
        assert!(matches!(read(&bench.refresher, &key, place).await, ColdRead::Unknown), "disconnected during the read");
        ports.snapshot.remove(&key);
        bench.break_store();
        let place = ports.snapshot.reserve(&key).unwrap();
        assert!(matches!(read(&bench.refresher, &key, place).await, ColdRead::Unknown));
        assert!(ports.snapshot.reserve(&key).is_some());
    }
}
