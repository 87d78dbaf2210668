//! Store operations as SQL statements.

use std::sync::atomic::Ordering;

use diesel::{
    dsl::{exists, max},
    prelude::*,
    sql_types::{BigInt, Binary},
};

use super::{
    lookup::{
        hash, held, is_marked_spent, known, known_as_any, read_spent, restorable, revocation_of, revocations_of,
        revoking_any, spent_already,
    },
    memory::WriterMemory,
    sealed::reseal_queued,
    statement::{CodedRow, Remember, Unspend, WriteSpent},
    threads::{JobError, is_undecodable},
};
use crate::{
    model::{Fingerprint, Generation, Row, Sealed, StoreTime, TokenKey},
    protocol::{Applied, Change, ChangeInput, Lookup, LookupResult, Side},
    store::{
        CONNECTED_KEPT, Changed, Outbox, StoreError,
        record::{Columns, GrantRecord, Touched},
        schema::{grants, meta, purged, revocations},
        spent::SpentTokens,
        stored::Stored,
        unreadable::{RowReader, UnreadableRow},
    },
};

/// Reads the row of a key.
pub(super) fn find(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    key: &TokenKey,
) -> Result<Option<Row>, JobError> {
    let found = find_record(connection, reader, key)?;
    found.map(|(id, _, record)| Ok(reader.row(id, key.clone(), &record)?)).transpose()
}

/// Reads the row of a key to change it.
pub(super) fn find_stored(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    key: &TokenKey,
) -> Result<Option<Stored>, JobError> {
    let Some((id, revision, record)) = find_record(connection, reader, key)? else { return Ok(None) };
    let row = reader.row(id, key.clone(), &record)?;
    let is_canonical = Columns::from(&row) == Columns::from(&record);
    Ok(Some(Stored { row, id, revision, is_canonical, spent: None }))
}

fn find_record(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    key: &TokenKey,
) -> Result<Option<(i64, i64, GrantRecord)>, JobError> {
    let found = of_key(key.idp(), key.user(), key.account_name())
        .select((grants::id, grants::revision, GrantRecord::as_select()))
        // Not `first`: SQLite plans a statement anew each time its LIMIT is bound.
        .get_result::<(i64, i64, GrantRecord)>(connection)
        .optional();
    match found {
        Ok(found) => Ok(found),
        Err(error) if is_undecodable(&error) => {
            let of_key = of_key(key.idp(), key.user(), key.account_name());
            Err(reader.undecoded(of_key.select(grants::id).get_result(connection)?).into())
        }
        Err(error) => Err(error.into()),
    }
}

#[diesel::dsl::auto_type]
fn of_key<'a>(idp: &'a str, user: &'a str, account: &'a str) -> _ {
    grants::table.filter(grants::idp.eq(idp)).filter(grants::user_id.eq(user)).filter(grants::account.eq(account))
}

fn unreadable(connection: &mut SqliteConnection, key: &TokenKey) -> QueryResult<UnreadableRow> {
    let of_key = of_key(key.idp(), key.user(), key.account_name());
    let at_rest = grants::tombstone.is_null().and(grants::intent.is_null());
    let (id, generation, fingerprint, is_at_rest) = of_key
        .select((grants::id, grants::generation, grants::fingerprint, at_rest))
        .get_result::<(i64, i64, Option<Vec<u8>>, bool)>(connection)?;
    Ok(UnreadableRow::of(id, generation, fingerprint.as_deref(), is_at_rest))
}

/// What is known of the token of a connect that would take the place of the row. The token that the row holds may come
/// back from a consent, if it is neither spent nor being spent.
fn known_instead(
    connection: &mut SqliteConnection,
    row: &UnreadableRow,
    fingerprint: Fingerprint,
    known: LookupResult,
) -> QueryResult<LookupResult> {
    if row.fingerprint != Some(fingerprint) {
        return Ok(known);
    }
    let spent =
        is_marked_spent(connection, fingerprint, row.id)? || read_spent(connection, row.id)?.contains(fingerprint);
    Ok(if row.is_at_rest && !spent { LookupResult::New } else { LookupResult::Spent })
}

/// Applies the change to the row and writes the result. Must run in a transaction.
///
/// A connect with a refresh token replaces a row that cannot be read: a user's consent ends the damage.
pub(super) fn change(
    connection: &mut SqliteConnection,
    memory: &mut WriterMemory,
    reader: &RowReader,
    key: &TokenKey,
    change: &Change,
    now: StoreTime,
) -> Result<Changed, JobError> {
    let found = match memory.take(key) {
        Some(known) => Ok(Some(known)),
        None => find_stored(connection, reader, key),
    };
    let (mut stored, replaced) = match found {
        Err(JobError::Store(StoreError::Corrupt { .. })) if change.replaces() => {
            (None, Some(unreadable(connection, key)?))
        }
        found => (found?, None),
    };
    let id = stored.as_ref().map(|stored| stored.id).or(replaced.as_ref().map(|row| row.id));
    let known = match (change.looks_up(stored.is_some()), &mut stored) {
        (Some(Lookup::Token(fingerprint)), _) => known(connection, key, fingerprint, id)?,
        (Some(Lookup::TokenAnywhere(fingerprint, elsewhere)), _) => match known(connection, key, fingerprint, id)? {
            LookupResult::New if known_as_any(connection, &elsewhere)? => LookupResult::Elsewhere,
            found => found,
        },
        (Some(Lookup::Revocations), _) => revoking_any(connection, key)?,
        (Some(Lookup::Current), Some(stored)) => spent_already(connection, stored)?,
        (Some(Lookup::Restorable), Some(stored)) => restorable(connection, &stored.row, stored.id)?,
        (Some(Lookup::Restorable | Lookup::Current), None) | (None, _) => LookupResult::New,
    };
    let known = match (&replaced, change) {
        (Some(row), Change::Connect(connect)) => match &connect.token {
            Some(token) => known_instead(connection, row, token.fingerprint, known)?,
            None => known,
        },
        _ => known,
    };
    let floor = memory.floor(|| floor(connection))?;
    let floor = floor.max(replaced.as_ref().map_or(Generation(0), |row| row.generation));
    let row = stored.as_ref().map(|stored| &stored.row);
    let before = row.map(|row| row.incarnation);
    let Applied { row: written, reply, sides, transitions } = change.apply(ChangeInput { row, now, floor, known });
    let is_updated = written.is_some() && stored.is_some();
    let (id, after) = match (written, stored) {
        (Some(row), Some(before)) => {
            let id = before.id;
            (Some(id), Some(update(connection, reader, before, row, &sides, now)?))
        }
        (Some(row), None) => {
            if let Some(UnreadableRow { id, fingerprint, .. }) = replaced {
                tracing::warn!(row = id, "a connect replaces a row that cannot be read");
                let now_held = held(&row);
                if let Some(held) = fingerprint.filter(|held| Some(*held) != now_held) {
                    remember(connection, held, id, false, now)?;
                }
                purge(connection, memory, reader, key, id, floor)?;
                reader.gone(id);
            }
            let inserted = insert(connection, reader, row)?;
            (Some(inserted.id), Some(inserted))
        }
        (None, stored) => (id, stored),
    };
    for side in sides.iter().filter(|side| !(is_updated && matches!(side, Side::Spent(_)))) {
        write_side(connection, memory, reader, key, id, side, now)?;
    }
    if sides.iter().any(|side| matches!(side, Side::Purge(_))) {
        return Ok(Changed { reply, row: None, now, replaced: None, transitions });
    }
    let row = after.as_ref().map(|stored| stored.row.clone());
    after.into_iter().for_each(|stored| memory.put(stored));
    let replaced = crate::store::replaced_by(before, row.as_ref());
    Ok(Changed { reply, row, now, replaced, transitions })
}

/// The name of the generation above which new rows start.
const FLOOR: &str = "generation_floor";

fn floor(connection: &mut SqliteConnection) -> QueryResult<Generation> {
    let floor = meta::table.find(FLOOR).select(meta::value).get_result::<Vec<u8>>(connection).optional()?;
    let bytes = floor.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Ok(Generation(bytes.map_or(0, u64::from_le_bytes)))
}

/// Writes the row over the revision that was read, and what became of its refresh tokens. The writer's transaction holds
/// SQLite's write lock from before its read, so that the comparison fails only if another program writes past this process's
/// writer.
pub(super) fn update(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    before: Stored,
    row: Row,
    sides: &[Side],
    now: StoreTime,
) -> Result<Stored, JobError> {
    let Stored { row: old, id, revision, is_canonical, spent } = before;
    let touched = if is_canonical { Touched::between(&old, &row) } else { Touched::ALL };
    let columns = Columns::from(&row);
    let code = columns.code(id, &reader.codes).finish();
    if !(CodedRow { columns: &columns, code: &code, id }).update(connection, revision, touched)? {
        return Err(StoreError::Conflict.into());
    }
    let spent = remember_spent(connection, id, &old, &row, spent, sides, now)?;
    Ok(Stored { row, id, revision: revision + 1, is_canonical: true, spent })
}

/// Remembers which refresh tokens a row has spent with this write, and that its own is not.
fn remember_spent(
    connection: &mut SqliteConnection,
    id: i64,
    before: &Row,
    after: &Row,
    known: Option<SpentTokens>,
    sides: &[Side],
    now: StoreTime,
) -> QueryResult<Option<SpentTokens>> {
    let brought = held(after).filter(|current| held(before) != Some(*current));
    let spent = sides.iter().filter_map(|side| match side {
        Side::Spent(token) => Some(*token),
        _ => None,
    });
    let newly: Vec<_> = spent.collect();
    if brought.is_none() && newly.is_empty() {
        return Ok(known);
    }
    let mut tokens = match known {
        Some(known) => known,
        None => read_spent(connection, id)?,
    };
    for token in newly {
        tokens.add(token);
        // No other key can bring a token that a refresh brought and that no row holds any more.
        let is_replaced = held(before) == Some(token) && held(after) != Some(token);
        if before.commit.is_none() || !is_replaced {
            remember(connection, token, id, false, now)?;
        }
    }
    if let Some(current) = brought {
        tokens.remove(current);
        Unspend { fingerprint: current.0, grant: id }.execute(connection)?;
    }
    let (generation, spent) = tokens.written(after.generation);
    WriteSpent { grant: id, generation, at: now.0, tokens: spent.to_owned() }.execute(connection)?;
    Ok(Some(tokens))
}

fn insert(connection: &mut SqliteConnection, reader: &RowReader, row: Row) -> Result<Stored, JobError> {
    // SQLite would assign the id of a purged row again if it was the largest.
    let last = grants::table.select(max(grants::id)).get_result::<Option<i64>>(connection)?;
    let gone = purged::table.select(max(purged::grant_row)).get_result::<Option<i64>>(connection)?;
    let id = last.max(gone).unwrap_or(0) + 1;
    let columns = Columns::from(&row);
    let code = columns.code(id, &reader.codes).finish();
    CodedRow { columns: &columns, code: &code, id }.insert(connection)?;
    Ok(Stored { row, id, revision: 1, is_canonical: true, spent: None })
}

fn write_side(
    connection: &mut SqliteConnection,
    memory: &mut WriterMemory,
    reader: &RowReader,
    key: &TokenKey,
    id: Option<i64>,
    side: &Side,
    now: StoreTime,
) -> QueryResult<()> {
    let id = id.unwrap_or(0);
    match side {
        Side::Spent(fingerprint) => remember(connection, *fingerprint, id, false, now),
        Side::Connected(fingerprint) => remember(connection, *fingerprint, id, true, now),
        Side::Revoke(token) => queue_revocation(connection, key, &token.sealed, now),
        Side::CancelRevocations => {
            let queued = revocations_of(key.idp(), key.user(), key.account_name());
            diesel::delete(queued).execute(connection).map(drop)
        }
        Side::Keep(token) => {
            let queued = revocation_of(key.idp(), key.user(), key.account_name(), &token.sealed.0);
            diesel::delete(queued).execute(connection).map(drop)
        }
        Side::Reseal(value) => reseal_queued(connection, key, value),
        Side::Purge(floor) => purge(connection, memory, reader, key, id, *floor),
    }
}

fn purge(
    connection: &mut SqliteConnection,
    memory: &mut WriterMemory,
    reader: &RowReader,
    key: &TokenKey,
    id: i64,
    floor: Generation,
) -> QueryResult<()> {
    reader.purged.store(true, Ordering::Relaxed);
    memory.forget_floor();
    diesel::delete(grants::table.find(id)).execute(connection)?;
    diesel::insert_into(purged::table)
        .values((purged::grant_row.eq(id), purged::key_hash.eq(hash(key))))
        .execute(connection)?;
    diesel::replace_into(meta::table)
        .values((meta::name.eq(FLOOR), meta::value.eq(floor.0.to_le_bytes().as_slice())))
        .execute(connection)
        .map(drop)
}

/// Queues a revocation, unless it is queued already: a late response may be committed several times.
fn queue_revocation(
    connection: &mut SqliteConnection,
    key: &TokenKey,
    token: &Sealed,
    now: StoreTime,
) -> QueryResult<()> {
    let queued = revocation_of(key.idp(), key.user(), key.account_name(), &token.0);
    if diesel::select(exists(queued)).get_result(connection)? {
        return Ok(());
    }
    diesel::insert_into(revocations::table)
        .values((
            revocations::idp.eq(key.idp()),
            revocations::user_id.eq(key.user()),
            revocations::account.eq(key.account_name()),
            revocations::token.eq(&token.0),
            revocations::due_at.eq(now.0),
            revocations::failures.eq(0),
        ))
        .execute(connection)
        .map(drop)
}

fn remember(
    connection: &mut SqliteConnection,
    fingerprint: Fingerprint,
    grant: i64,
    connected: bool,
    now: StoreTime,
) -> QueryResult<()> {
    Remember { fingerprint: fingerprint.0, grant, connected, at: now.0 }.execute(connection)?;
    if connected { forget_connected(connection, fingerprint, grant) } else { Ok(()) }
}

/// Deletes the fingerprints of the tokens that the grant was connected with, but for the newest and `kept`.
fn forget_connected(connection: &mut SqliteConnection, Fingerprint(kept): Fingerprint, grant: i64) -> QueryResult<()> {
    const OLD: &str = "
        DELETE FROM fingerprints WHERE grant_row = ?1 AND fingerprint IN (
            SELECT fingerprint FROM fingerprints WHERE grant_row = ?1 AND connected AND fingerprint <> ?2
            ORDER BY at DESC LIMIT -1 OFFSET ?3)";
    let old = diesel::sql_query(OLD).bind::<BigInt, _>(grant).bind::<Binary, _>(kept.to_vec());
    old.bind::<BigInt, _>(CONNECTED_KEPT - 1).execute(connection).map(drop)
}

pub(super) fn outbox(connection: &mut SqliteConnection, key: Option<&TokenKey>) -> Result<Outbox, JobError> {
    let begun: Vec<bool> = match key {
        Some(key) => revocations_of(key.idp(), key.user(), key.account_name())
            .select(revocations::failures.gt(0))
            .load(connection)?,
        None => revocations::table.select(revocations::failures.gt(0)).load(connection)?,
    };
    let unconfirmed = begun.iter().filter(|begun| **begun).count() as u64;
    Ok(Outbox { pending: begun.len() as u64, unconfirmed })
}

pub(super) fn revoking(
    connection: &mut SqliteConnection,
    id: i64,
    failures: u32,
    retry_at: StoreTime,
) -> Result<bool, JobError> {
    let as_listed = revocations::table.find(id).filter(revocations::failures.eq(failures.cast_signed()));
    let begun = diesel::update(as_listed)
        .set((revocations::due_at.eq(retry_at.0), revocations::failures.eq(revocations::failures + 1)))
        .execute(connection)?;
    Ok(begun == 1)
}

pub(super) fn revoked(connection: &mut SqliteConnection, id: i64, retry_at: Option<StoreTime>) -> Result<(), JobError> {
    let row = revocations::table.find(id);
    match retry_at {
        None => diesel::delete(row).execute(connection)?,
        Some(time) => diesel::update(row).set(revocations::due_at.eq(time.0)).execute(connection)?,
    };
    Ok(())
}
