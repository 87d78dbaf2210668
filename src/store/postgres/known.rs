//! Changes of a row that exists, in one statement: the way of every refresh.
//!
//! The change is applied to the row as this process knows it, or to the row that was just read, and written if the row is
//! still that one. Nothing is locked before; a reply that is based on a known row is given only if that row was written.

use diesel_async::AsyncPgConnection;

use super::{
    Shared,
    failure::OperationError,
    row::{FoundRow, find},
    write::{REMEMBERED, held, newly_spent, update},
};
use crate::{
    model::{Generation, TokenKey},
    protocol::{Applied, Change, ChangeInput, LookupResult, Side},
    store::{Changed, stored::Stored},
};

/// Applies the change; `None` if that takes a transaction: it concerns other tables or a missing row, or another writer was
/// first.
pub(super) async fn change(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    key: &TokenKey,
    change: &Change,
) -> Result<Option<Changed>, OperationError> {
    if matches!(change, Change::Connect(_) | Change::Restore | Change::Purge) {
        return Ok(None);
    }
    let (stored, now, was_read) = match store.known.take(key).zip(store.clock.estimate()) {
        Some((stored, now)) => (stored, now, false),
        None => {
            let FoundRow { row, now } = find(connection, store, key).await?;
            let Some(stored) = row? else { return Ok(None) };
            (stored, now, true)
        }
    };
    let known = match change {
        Change::Claim(_) if spent_already(&stored) => LookupResult::Spent,
        _ => LookupResult::New,
    };
    // Only what takes a transaction starts new rows, above the floor.
    let input = ChangeInput { row: Some(&stored.row), now, floor: Generation(0), known };
    let Applied { row, reply, sides, transitions } = change.apply(input);
    if sides.iter().any(|side| !matches!(side, Side::Spent(_))) || newly_spent(&sides).len() > REMEMBERED {
        return Ok(None);
    }
    let Some(row) = row else {
        let is_answered = was_read && sides.is_empty();
        return Ok(is_answered.then_some(Changed { reply, row: Some(stored.row), now, replaced: None, transitions }));
    };
    let Some(written) = update(connection, store, stored, row, &sides, now).await? else { return Ok(None) };
    let row = Some(written.row.clone());
    store.known.put(written);
    Ok(Some(Changed { reply, row, now, replaced: None, transitions }))
}

/// Returns whether the row holds a refresh token that it has spent: then the row is from before that.
pub(super) fn spent_already(stored: &Stored) -> bool {
    let spent = stored.spent.as_ref();
    held(&stored.row).is_some_and(|held| spent.is_some_and(|spent| spent.contains(held) || spent.is_after(&stored.row)))
}
