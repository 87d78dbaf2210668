//! Changes of a row in a transaction: those that concern other tables, too, and those that lost a comparison.

use diesel::{
    OptionalExtension as _,
    sql_types::{BigInt, Binary, Bool, Nullable},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl as _, TransactionManager as _};

use super::{
    Shared,
    failure::OperationError,
    known::{self, spent_already},
    lookup::{
        is_marked_spent, known as known_token, known_as_any, lock_floor, lock_key, lock_tokens, restorable,
        revoking_any,
    },
    meta,
    row::{FoundRow, find, time},
    sides::{purge, remember, write_side},
    statement::sql,
    write::{REMEMBERED, held, insert, newly_spent, update},
};
use crate::{
    model::{Fingerprint, Generation, Row, TokenKey},
    protocol::{Applied, Change, ChangeInput, Lookup, LookupResult, Side},
    store::{Changed, StoreError, replaced_by, spent, stored::Stored, unreadable::UnreadableRow},
};

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// Applies the change to the row and writes the result.
pub(super) async fn change(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    key: &TokenKey,
    change: &Change,
) -> Result<Changed, OperationError> {
    if let Some(changed) = known::change(connection, store, key, change).await? {
        return Ok(changed);
    }
    Transactions::begin_transaction(connection).await?;
    match in_transaction(connection, store, key, change).await {
        Ok((changed, stored)) => {
            // Until the commit is acknowledged, whether anything was stored is not known.
            Transactions::commit_transaction(connection).await?;
            stored.into_iter().for_each(|stored| store.known.put(stored));
            Ok(changed)
        }
        Err(error) => {
            // A connection that cannot roll back is not used again.
            Transactions::rollback_transaction(connection).await.ok();
            Err(error)
        }
    }
}

/// A connect with a refresh token replaces a row that cannot be read: a user's consent ends the damage.
async fn in_transaction(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    key: &TokenKey,
    change: &Change,
) -> Result<(Changed, Option<Stored>), OperationError> {
    if !lock_row(connection, key).await? {
        lock_key(connection, key).await?;
        // It may have been inserted before the key was locked.
        lock_row(connection, key).await?;
    }
    if let Change::Connect(connect) = change
        && let Some(token) = &connect.token
    {
        lock_tokens(connection, connect.elsewhere.iter().copied().chain([token.fingerprint])).await?;
    }
    if matches!(change, Change::Connect(_)) {
        lock_floor(connection).await?;
    }
    // Every lock is held: what is read from here on stays as it is.
    let FoundRow { row: found, .. } = find(connection, store, key).await?;
    let (stored, replaced) = match found {
        Err(OperationError::Store(StoreError::Corrupt { .. })) if change.replaces() => {
            (None, Some(unreadable(connection, key).await?))
        }
        found => (found?, None),
    };
    let id = stored.as_ref().map(|stored| stored.id).or(replaced.as_ref().map(|row| row.id));
    let known = look_up(connection, key, change, stored.as_ref(), id).await?;
    let known = match (&replaced, change) {
        (Some(row), Change::Connect(connect)) => match &connect.token {
            Some(token) => known_instead(connection, row, token.fingerprint, known).await?,
            None => known,
        },
        _ => known,
    };
    let floor = meta::floor(connection).await?;
    let floor = floor.max(replaced.as_ref().map_or(Generation(0), |row| row.generation));
    // Read last: the write compares it with the time at which it is carried out.
    let now = time(connection, store).await?;
    let row = stored.as_ref().map(|stored| &stored.row);
    let before = row.map(|row| row.incarnation);
    let Applied { row: written, reply, sides, transitions } = change.apply(ChangeInput { row, now, floor, known });
    let is_updated = written.is_some() && stored.is_some();
    let conflict = || OperationError::from(StoreError::Conflict);
    let (id, after) = match (written, stored) {
        (Some(row), Some(before)) => {
            let id = before.id;
            let written = update(connection, store, before, row, &sides, now).await?.ok_or_else(conflict)?;
            for token in newly_spent(&sides).into_iter().skip(REMEMBERED) {
                remember(connection, token, id, false, now).await?;
            }
            (Some(id), Some(written))
        }
        (Some(row), None) => {
            if let Some(UnreadableRow { id, fingerprint, .. }) = replaced {
                replace(connection, store, key, (id, fingerprint), &row, floor, now).await?;
            }
            let inserted = insert(connection, store, row).await?.ok_or_else(conflict)?;
            (Some(inserted.id), Some(inserted))
        }
        (None, stored) => (id, stored),
    };
    for side in sides.iter().filter(|side| !(is_updated && matches!(side, Side::Spent(_)))) {
        write_side(connection, key, after.as_ref(), id, side, now).await?;
    }
    let is_purged = sides.iter().any(|side| matches!(side, Side::Purge(_)));
    let after = after.filter(|_| !is_purged);
    let row = after.as_ref().map(|stored| stored.row.clone());
    let replaced = replaced_by(before, row.as_ref());
    Ok((Changed { reply, row, now, replaced, transitions }, after))
}

/// Makes place for the row of a connect.
async fn replace(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    key: &TokenKey,
    (id, fingerprint): (i64, Option<Fingerprint>),
    row: &Row,
    floor: Generation,
    now: crate::model::StoreTime,
) -> Result<(), OperationError> {
    tracing::warn!(row = id, "a connect replaces a row that cannot be read");
    if let Some(token) = fingerprint.filter(|token| Some(*token) != held(row)) {
        remember(connection, token, id, false, now).await?;
    }
    purge(connection, key, id, None, floor).await?;
    store.reader.gone(id);
    Ok(())
}

async fn look_up(
    connection: &mut AsyncPgConnection,
    key: &TokenKey,
    change: &Change,
    stored: Option<&Stored>,
    id: Option<i64>,
) -> Result<LookupResult, OperationError> {
    Ok(match (change.looks_up(stored.is_some()), stored) {
        (Some(Lookup::Token(fingerprint)), _) => known_token(connection, key, fingerprint, id).await?,
        (Some(Lookup::TokenAnywhere(fingerprint, elsewhere)), _) => {
            match known_token(connection, key, fingerprint, id).await? {
                LookupResult::New if known_as_any(connection, &elsewhere).await? => LookupResult::Elsewhere,
                found => found,
            }
        }
        (Some(Lookup::Revocations), _) => revoking_any(connection, key).await?,
        (Some(Lookup::Current), Some(stored)) if spent_already(stored) => LookupResult::Spent,
        (Some(Lookup::Restorable), Some(stored)) => restorable(connection, &stored.row, stored.id).await?,
        (Some(Lookup::Restorable | Lookup::Current), _) | (None, _) => LookupResult::New,
    })
}

/// Waits until no other transaction writes the row, and keeps others from writing it. Returns whether there is one.
async fn lock_row(connection: &mut AsyncPgConnection, key: &TokenKey) -> Result<bool, OperationError> {
    let row = sql::<BigInt>("SELECT id FROM grants WHERE idp = ")
        .name(key.idp())
        .sql(" AND user_id = ")
        .name(key.user())
        .sql(" AND account = ")
        .name(key.account_name())
        .sql(" FOR UPDATE");
    Ok(row.get_result::<i64>(connection).await.optional()?.is_some())
}

async fn unreadable(connection: &mut AsyncPgConnection, key: &TokenKey) -> Result<UnreadableRow, OperationError> {
    let row = sql::<(BigInt, BigInt, Nullable<Binary>, Bool)>(
        "SELECT id, generation, fingerprint, tombstone IS NULL AND intent IS NULL FROM grants WHERE idp = ",
    )
    .name(key.idp())
    .sql(" AND user_id = ")
    .name(key.user())
    .sql(" AND account = ")
    .name(key.account_name());
    let (id, generation, fingerprint, is_at_rest) =
        row.get_result::<(i64, i64, Option<Vec<u8>>, bool)>(connection).await?;
    Ok(UnreadableRow::of(id, generation, fingerprint.as_deref(), is_at_rest))
}

/// What is known of the token of a connect that would take the place of the row. The token that the row holds may come
/// back from a consent, if it is neither spent nor being spent.
async fn known_instead(
    connection: &mut AsyncPgConnection,
    row: &UnreadableRow,
    fingerprint: Fingerprint,
    known: LookupResult,
) -> Result<LookupResult, OperationError> {
    if row.fingerprint != Some(fingerprint) {
        return Ok(known);
    }
    let tokens = sql::<Binary>("SELECT tokens FROM spent WHERE grant_row = ").long(row.id);
    let tokens = tokens.get_result::<Vec<u8>>(connection).await.optional()?;
    let spent = tokens.is_some_and(|tokens| spent::contains(&tokens, fingerprint))
        || is_marked_spent(connection, fingerprint, row.id).await?;
    Ok(if row.is_at_rest && !spent { LookupResult::New } else { LookupResult::Spent })
}
