//! Store operations as SQL statements.

use std::sync::atomic::Ordering;

use diesel::{
    dsl::{exists, max},
    prelude::*,
    sql_types::{BigInt, Binary},
};

use super::{
    statement::{Remember, UpdateGrant},
    threads::JobError,
    unreadable::{RowReader, is_undecodable},
};
use crate::{
    model::{Fingerprint, Generation, Row, Sealed, Spendable, StoreTime, TokenKey},
    protocol::{Applied, Change, ChangeInput, Lookup, LookupResult, Side},
    store::{
        CONNECTED_KEPT, Changed, Outbox, StoreError,
        record::GrantRecord,
        schema::{fingerprints, grants, meta, purged, revocations},
    },
};

/// A row with the id and revision that its next write compares.
pub(super) struct Stored {
    pub(super) row: Row,
    pub(super) id: i64,
    pub(super) revision: i64,
}

pub(super) fn find(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    key: &TokenKey,
) -> Result<Option<Stored>, JobError> {
    let found = of_key(key.idp(), key.user(), key.account_name())
        .select((grants::id, grants::revision, GrantRecord::as_select()))
        // Not `first`: SQLite plans a statement anew each time its LIMIT is bound.
        .get_result::<(i64, i64, GrantRecord)>(connection)
        .optional();
    match found {
        Ok(None) => Ok(None),
        Ok(Some((id, revision, record))) => {
            Ok(Some(Stored { row: reader.row(id, key.clone(), record)?, id, revision }))
        }
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

/// What can be said of a row that cannot be read.
struct UnreadableRow {
    id: i64,
    generation: Generation,
    fingerprint: Option<Fingerprint>,
    /// Neither disconnected nor in doubt.
    is_at_rest: bool,
}

fn unreadable(connection: &mut SqliteConnection, key: &TokenKey) -> QueryResult<UnreadableRow> {
    let of_key = of_key(key.idp(), key.user(), key.account_name());
    let at_rest = grants::tombstone.is_null().and(grants::intent.is_null());
    let (id, generation, fingerprint, is_at_rest) = of_key
        .select((grants::id, grants::generation, grants::fingerprint, at_rest))
        .get_result::<(i64, i64, Option<Vec<u8>>, bool)>(connection)?;
    // A generation that no grant reaches is damaged itself, and would leave none for the next ones.
    let generation = Generation(u64::try_from(generation).ok().filter(|generation| *generation < 1 << 48).unwrap_or(0));
    let fingerprint = fingerprint.and_then(|bytes| Fingerprint::try_from(bytes.as_slice()).ok());
    Ok(UnreadableRow { id, generation, fingerprint, is_at_rest })
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
    let spent = fingerprints::table.find((fingerprint.0.as_slice(), row.id)).select(fingerprints::spent);
    let spent = spent.get_result::<bool>(connection).optional()? == Some(true);
    Ok(if row.is_at_rest && !spent { LookupResult::New } else { LookupResult::Spent })
}

/// Reads the row, applies the change and writes the result. Must run in a transaction.
///
/// A connect with a refresh token replaces a row that cannot be read: a user's consent ends the damage.
pub(super) fn change(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    key: &TokenKey,
    change: &Change,
    now: StoreTime,
) -> Result<Changed, JobError> {
    let (stored, replaced) = match find(connection, reader, key) {
        Err(JobError::Store(StoreError::Corrupt { .. })) if change.replaces() => {
            (None, Some(unreadable(connection, key)?))
        }
        found => (found?, None),
    };
    let id = stored.as_ref().map(|stored| stored.id).or(replaced.as_ref().map(|row| row.id));
    let known = match (change.looks_up(stored.is_some()), &stored) {
        (Some(Lookup::Token(fingerprint)), _) => known(connection, key, fingerprint, id)?,
        (Some(Lookup::TokenAnywhere(fingerprint, elsewhere)), _) => match known(connection, key, fingerprint, id)? {
            LookupResult::New if known_as_any(connection, &elsewhere)? => LookupResult::Elsewhere,
            found => found,
        },
        (Some(Lookup::Revocations), _) => revoking_any(connection, key)?,
        (Some(Lookup::Current), Some(stored)) => spent(connection, stored)?,
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
    let floor = Generation(floor(connection)?).max(replaced.as_ref().map_or(Generation(0), |row| row.generation));
    let row = stored.as_ref().map(|stored| &stored.row);
    let applied = change.apply(ChangeInput { row, now, floor, known });
    let id = match (&applied.row, &stored) {
        (Some(row), Some(Stored { id, revision, row: before })) => {
            let held = |row: &Row| row.refresh_token.as_ref().map(|token| token.fingerprint);
            if let Some(current) = held(row).filter(|current| held(before) != Some(*current)) {
                is_current(connection, current, *id)?;
            }
            Some(update(connection, reader, *id, *revision, row)?)
        }
        (Some(row), None) => {
            if let Some(UnreadableRow { id, fingerprint, .. }) = replaced {
                tracing::warn!(row = id, "a connect replaces a row that cannot be read");
                let now_held = row.refresh_token.as_ref().map(|token| token.fingerprint);
                if let Some(held) = fingerprint.filter(|held| Some(*held) != now_held) {
                    remember(connection, held, id, false, now)?;
                }
                purge(connection, reader, key, id, floor)?;
                reader.gone(id);
            }
            Some(insert(connection, reader, row)?)
        }
        (None, _) => id,
    };
    for side in &applied.sides {
        write_side(connection, reader, key, id, side, now)?;
    }
    let Applied { reply, row, transitions, sides } = applied;
    let purged = sides.iter().any(|side| matches!(side, Side::Purge(_)));
    let left = row.or(stored.map(|stored| stored.row)).filter(|_| !purged);
    Ok(Changed { reply, row: left, now, transitions })
}

fn known(
    connection: &mut SqliteConnection,
    key: &TokenKey,
    fingerprint: Fingerprint,
    id: Option<i64>,
) -> QueryResult<LookupResult> {
    let (fingerprint, own) = (fingerprint.0.to_vec(), id.unwrap_or(0));
    let before = purged::table.filter(purged::key_hash.eq(hash(key))).select(purged::grant_row);
    let seen = fingerprints::table
        .filter(fingerprints::fingerprint.eq(&fingerprint))
        .filter(fingerprints::grant_row.eq(own).or(fingerprints::grant_row.eq_any(before)));
    if diesel::select(exists(seen)).get_result(connection)? {
        return Ok(LookupResult::Spent);
    }
    let live = held_elsewhere(&fingerprint, own).filter(grants::tombstone.is_null());
    let elsewhere: bool = diesel::select(exists(live)).get_result(connection)?;
    let elsewhere = elsewhere || diesel::select(exists(spent_elsewhere(&fingerprint, own))).get_result(connection)?;
    Ok(if elsewhere { LookupResult::Elsewhere } else { LookupResult::New })
}

/// A response brought this token, so it is not spent, even if the grant had it before.
fn is_current(connection: &mut SqliteConnection, Fingerprint(current): Fingerprint, id: i64) -> QueryResult<()> {
    let known = fingerprints::table.find((current.as_slice(), id));
    // Diesel prepares a SELECT once, and an UPDATE anew each time.
    if known.select(fingerprints::spent).get_result::<bool>(connection).optional()? == Some(true) {
        diesel::update(known).set(fingerprints::spent.eq(false)).execute(connection)?;
    }
    Ok(())
}

/// Returns whether the row holds a refresh token that it has spent: then the row is from before that.
fn spent(connection: &mut SqliteConnection, stored: &Stored) -> QueryResult<LookupResult> {
    let Some(Spendable { fingerprint, .. }) = &stored.row.refresh_token else { return Ok(LookupResult::New) };
    let spent = fingerprints::table.find((fingerprint.0.as_slice(), stored.id)).select(fingerprints::spent);
    let spent = spent.get_result::<bool>(connection).optional()?;
    Ok(if spent == Some(true) { LookupResult::Spent } else { LookupResult::New })
}

/// Returns whether a token with one of these fingerprints is live or spent.
fn known_as_any(connection: &mut SqliteConnection, fingerprints: &[Fingerprint]) -> QueryResult<bool> {
    for Fingerprint(fingerprint) in fingerprints {
        let live = held_elsewhere(fingerprint, 0).filter(grants::tombstone.is_null());
        if diesel::select(exists(live)).get_result(connection)?
            || diesel::select(exists(spent_elsewhere(fingerprint, 0))).get_result(connection)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks up the tokens of a disconnected row. Another tombstone that holds one of them may be revoking it.
fn restorable(connection: &mut SqliteConnection, row: &Row, own: i64) -> QueryResult<LookupResult> {
    let mut unrevoked = true;
    for Spendable { sealed, fingerprint } in row.refresh_tokens() {
        let held: bool = diesel::select(exists(held_elsewhere(&fingerprint.0, own))).get_result(connection)?;
        if held || diesel::select(exists(spent_elsewhere(&fingerprint.0, own))).get_result(connection)? {
            return Ok(LookupResult::Elsewhere);
        }
        let queued = revocation_of(row.key.idp(), row.key.user(), row.key.account_name(), &sealed.0)
            .filter(revocations::failures.eq(0));
        unrevoked &= diesel::select(exists(queued)).get_result::<bool>(connection)?;
    }
    Ok(if unrevoked { LookupResult::Unrevoked } else { LookupResult::New })
}

fn revoking_any(connection: &mut SqliteConnection, key: &TokenKey) -> QueryResult<LookupResult> {
    let queued = revocations_of(key.idp(), key.user(), key.account_name());
    let any = diesel::select(exists(queued)).get_result(connection)?;
    Ok(if any { LookupResult::Revoking } else { LookupResult::New })
}

#[diesel::dsl::auto_type]
fn held_elsewhere<'a>(fingerprint: &'a [u8], own: i64) -> _ {
    grants::table.filter(grants::fingerprint.eq(fingerprint)).filter(grants::id.ne(own))
}

#[diesel::dsl::auto_type]
fn spent_elsewhere<'a>(fingerprint: &'a [u8], own: i64) -> _ {
    fingerprints::table
        .filter(fingerprints::fingerprint.eq(fingerprint))
        .filter(fingerprints::grant_row.ne(own))
        .filter(fingerprints::spent.eq(true))
}

/// The name of the generation above which new rows start.
const FLOOR: &str = "generation_floor";

fn floor(connection: &mut SqliteConnection) -> QueryResult<u64> {
    let floor = meta::table.find(FLOOR).select(meta::value).get_result::<Vec<u8>>(connection).optional()?;
    let bytes = floor.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

/// Writes the row over that revision. The writer's transaction holds SQLite's write lock from before its read, so that the
/// comparison fails only if another program writes past this process's writer.
pub(super) fn update(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    id: i64,
    revision: i64,
    row: &Row,
) -> Result<i64, JobError> {
    if UpdateGrant::new(id, revision, GrantRecord::coded(row, id, &reader.codes)).execute(connection)? != 1 {
        return Err(StoreError::Conflict.into());
    }
    Ok(id)
}

fn insert(connection: &mut SqliteConnection, reader: &RowReader, row: &Row) -> Result<i64, JobError> {
    // SQLite would assign the id of a purged row again if it was the largest.
    let last = grants::table.select(max(grants::id)).get_result::<Option<i64>>(connection)?;
    let gone = purged::table.select(max(purged::grant_row)).get_result::<Option<i64>>(connection)?;
    let id = last.max(gone).unwrap_or(0) + 1;
    Ok(diesel::insert_into(grants::table)
        .values((grants::id.eq(id), GrantRecord::coded(row, id, &reader.codes), grants::revision.eq(1)))
        .returning(grants::id)
        .get_result(connection)?)
}

fn write_side(
    connection: &mut SqliteConnection,
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
        Side::Purge(floor) => purge(connection, reader, key, id, *floor),
    }
}

fn purge(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    key: &TokenKey,
    id: i64,
    floor: Generation,
) -> QueryResult<()> {
    reader.purged.store(true, Ordering::Relaxed);
    diesel::delete(grants::table.find(id)).execute(connection)?;
    diesel::insert_into(purged::table)
        .values((purged::grant_row.eq(id), purged::key_hash.eq(hash(key))))
        .execute(connection)?;
    diesel::replace_into(meta::table)
        .values((meta::name.eq(FLOOR), meta::value.eq(floor.0.to_le_bytes().as_slice())))
        .execute(connection)
        .map(drop)
}

fn hash(key: &TokenKey) -> i64 {
    key.stable_hash().cast_signed()
}

#[diesel::dsl::auto_type]
fn revocations_of<'a>(idp: &'a str, user: &'a str, account: &'a str) -> _ {
    revocations::table
        .filter(revocations::idp.eq(idp))
        .filter(revocations::user_id.eq(user))
        .filter(revocations::account.eq(account))
}

#[diesel::dsl::auto_type]
fn revocation_of<'a>(idp: &'a str, user: &'a str, account: &'a str, token: &'a [u8]) -> _ {
    revocations::table
        .filter(revocations::idp.eq(idp))
        .filter(revocations::user_id.eq(user))
        .filter(revocations::account.eq(account))
        .filter(revocations::token.eq(token))
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
    Remember { fingerprint: fingerprint.0.to_vec(), grant, connected, at: now.0 }.execute(connection)?;
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

pub(super) fn forget_spent(connection: &mut SqliteConnection, before: StoreTime) -> Result<(), JobError> {
    let old = fingerprints::table.filter(fingerprints::connected.eq(false)).filter(fingerprints::at.lt(before.0));
    diesel::delete(old).execute(connection)?;
    Ok(())
}

/// Computes the codes of the next rows after `after` that have none; returns the id of the last one.
pub(super) fn code_rows(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    after: i64,
) -> Result<Option<i64>, JobError> {
    let without = grants::table.filter(grants::id.gt(after)).filter(grants::code.is_null());
    let found = without.order(grants::id).limit(1_000).select(grants::id).load::<i64>(connection)?;
    for id in &found {
        let row = grants::table.find(id);
        match row.select(GrantRecord::as_select()).get_result(connection) {
            Ok(record) => {
                let code = record.code(*id, &reader.codes).finish();
                diesel::update(row).set(grants::code.eq(code.as_slice())).execute(connection)?;
            }
            Err(error) if is_undecodable(&error) => drop(reader.undecoded(*id)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found.last().copied())
}
