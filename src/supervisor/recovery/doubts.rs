//! What no history knows: grants that came due since the loss may have been refreshed by a process that is not there.

use super::round::RecoveryRound;
use crate::{
    model::{Generation, Row, TokenKey},
    protocol::{Change, ChangeReply},
    store::StoreError,
    supervisor::{by::By, command::Ask, refresh::Ports, router::Router, snapshot::Published},
};

/// Rows at a time.
const PAGE: u32 = 256;

/// Raises a doubt for each grant that is due and was not written in this round. Returns how many there are.
pub(super) async fn raise(ports: &Ports, router: &Router, round: &RecoveryRound) -> Result<usize, StoreError> {
    let providers = ports.providers.all().clone();
    let mut doubts = 0;
    for (idp, provider) in providers.iter() {
        let rules = provider.rules();
        let mut after = None;
        loop {
            let page = ports.ledger.store().due(idp, ports.clock.now(), after, PAGE).await?;
            for row in page.rows {
                if row.sendable() && row.changed_at < round.since && !rules.never_rotates(&row) {
                    doubts += usize::from(doubt(ports, router, &row, row.generation.next()).await?);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(doubts)
}

/// Records that the row's token was spent, and that the response may be with a process that is not there. Returns false if
/// the row has changed since.
pub(super) async fn doubt(ports: &Ports, router: &Router, row: &Row, seen: Generation) -> Result<bool, StoreError> {
    // The incarnation stands for the unknown attempt: it is the id of none.
    let raise = Change::Raise { incarnation: row.incarnation, seen, unknown: row.incarnation };
    let changed = ports.ledger.change(&row.key, By::Recovery, raise).await?;
    outdate(ports, router, &row.key).await;
    Ok(changed.reply == ChangeReply::Done)
}

/// Has the row read again where its token is in memory.
pub(super) async fn outdate(ports: &Ports, router: &Router, key: &TokenKey) {
    let ask = match ports.snapshot.outdate(key, Generation(u64::MAX)) {
        Published::Nothing => Ask::StaleIfAwake,
        Published::Earlier | Published::Later => Ask::Stale,
    };
    router.route(key.clone(), ask).await.ok();
}
