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
