//! Store operations as SQL statements.

use std::ops::Range;

use diesel::{
    dsl::{exists, max},
    prelude::*,
    sql_types::{BigInt, Binary},
};

use super::{
    statement::{Remember, UpdateGrant},
    threads::JobError,
};
use crate::{
    model::{Fingerprint, Generation, Row, Sealed, Spendable, StoreTime, TokenKey, WallTime},
    protocol::{Applied, Change, ChangeInput, Lookup, LookupResult, Side},
    store::{
        CONNECTED_KEPT, Changed, DueCursor, DuePage, Expiring, Outbox, QueuedRevocation, StoreError,
        record::{GrantRecord, expires},
        schema::{fingerprints, grants, meta, purged, revocations},
    },
};

/// A row with the id and revision that its next write compares.
pub(super) struct Stored {
    pub(super) row: Row,
    pub(super) id: i64,
    pub(super) revision: i64,
}

pub(super) fn find(connection: &mut SqliteConnection, key: &TokenKey) -> Result<Option<Stored>, JobError> {
    let found = grants::table
        .filter(grants::idp.eq(key.idp()))
        .filter(grants::user_id.eq(key.user()))
        .filter(grants::account.eq(key.account_name()))
        .select((grants::id, grants::revision, GrantRecord::as_select()))
        // Not `first`: SQLite plans a statement anew each time its LIMIT is bound.
        .get_result::<(i64, i64, GrantRecord)>(connection)
        .optional()?;
    let stored = |(id, revision, record): (i64, i64, GrantRecord)| {
        Ok(Stored { row: record.into_row(key.clone()).map_err(JobError::Store)?, id, revision })
    };
    found.map(stored).transpose()
}

/// Reads the row, applies the change and writes the result. Must run in a transaction.
pub(super) fn change(
    connection: &mut SqliteConnection,
    key: &TokenKey,
    change: &Change,
    now: StoreTime,
) -> Result<Changed, JobError> {
    let stored = find(connection, key)?;
    let id = stored.as_ref().map(|stored| stored.id);
    let known = match (change.looks_up(stored.is_some()), &stored) {
        (Some(Lookup::Token(fingerprint)), _) => known(connection, key, fingerprint, id)?,
        (Some(Lookup::TokenAnywhere(fingerprint, elsewhere)), _) => match known(connection, key, fingerprint, id)? {
            LookupResult::New if known_as_any(connection, &elsewhere)? => LookupResult::Elsewhere,
            found => found,
        },
        (Some(Lookup::Revocations), _) => revoking_any(connection, key)?,
        (Some(Lookup::Restorable), Some(stored)) => restorable(connection, &stored.row, stored.id)?,
        (Some(Lookup::Restorable), None) | (None, _) => LookupResult::New,
    };
    let floor = Generation(floor(connection)?);
    let row = stored.as_ref().map(|stored| &stored.row);
    let applied = change.apply(ChangeInput { row, now, floor, known });
    let id = match (&applied.row, &stored) {
        (Some(row), Some(Stored { id, revision, .. })) => Some(update(connection, *id, *revision, row)?),
        (Some(row), None) => Some(insert(connection, row)?),
        (None, _) => id,
    };
    for side in &applied.sides {
        write_side(connection, key, id, side, now)?;
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
pub(super) fn update(connection: &mut SqliteConnection, id: i64, revision: i64, row: &Row) -> Result<i64, JobError> {
    if UpdateGrant::new(id, revision, row).execute(connection)? != 1 {
        return Err(StoreError::Conflict.into());
    }
    Ok(id)
}

fn insert(connection: &mut SqliteConnection, row: &Row) -> Result<i64, JobError> {
    // SQLite would assign the id of a purged row again if it was the largest.
    let last = grants::table.select(max(grants::id)).get_result::<Option<i64>>(connection)?;
    let gone = purged::table.select(max(purged::grant_row)).get_result::<Option<i64>>(connection)?;
    let id = last.max(gone).unwrap_or(0) + 1;
    Ok(diesel::insert_into(grants::table)
        .values((grants::id.eq(id), GrantRecord::from(row), grants::revision.eq(1)))
        .returning(grants::id)
        .get_result(connection)?)
}

fn write_side(
    connection: &mut SqliteConnection,
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
        Side::Purge(floor) => purge(connection, key, id, *floor),
    }
}

fn purge(connection: &mut SqliteConnection, key: &TokenKey, id: i64, floor: Generation) -> QueryResult<()> {
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

pub(super) fn due(
    connection: &mut SqliteConnection,
    by: WallTime,
    after: Option<DueCursor>,
    limit: u32,
) -> Result<DuePage, JobError> {
    let after = after.unwrap_or(DueCursor { wake_at: i64::MIN, id: 0 });
    let beyond = grants::wake_at.gt(after.wake_at).or(grants::wake_at.eq(after.wake_at).and(grants::id.gt(after.id)));
    let found = grants::table
        .filter(grants::wake_at.le(by.0))
        .filter(grants::wake_at.ge(after.wake_at))
        .filter(beyond)
        .order((grants::wake_at, grants::id))
        .limit(limit.into())
        .select((grants::wake_at.assume_not_null(), grants::id, grants::idp, grants::user_id, grants::account))
        .load::<(i64, i64, String, String, String)>(connection)?;
    let next =
        found.last().filter(|_| found.len() == limit as usize).map(|row| DueCursor { wake_at: row.0, id: row.1 });
    let keys = found.iter().map(|(_, _, idp, user, account)| TokenKey::at(idp).user(user).account(account)).collect();
    Ok(DuePage { keys, next })
}

pub(super) fn expiring(
    connection: &mut SqliteConnection,
    noticed: &Range<StoreTime>,
    after: Option<&Expiring>,
    limit: u32,
) -> Result<Vec<Expiring>, JobError> {
    let found = grants::table
        .filter(grants::id.gt(after.map_or(0, |last| last.id)))
        .filter(grants::notice_at.ge(noticed.start.0))
        .filter(grants::notice_at.lt(noticed.end.0))
        .filter(grants::tombstone.is_null())
        .filter(grants::verdict.is_null())
        .order(grants::id)
        .limit(limit.into())
        .select((
            (grants::id, grants::idp, grants::user_id, grants::account),
            grants::grant_id,
            (grants::fingerprint.is_null(), grants::expires_at, grants::refresh_expires_at),
        ))
        .load::<((i64, String, String, String), String, (bool, Option<i64>, Option<i64>))>(connection)?;
    let expiring = |((id, idp, user, account), grant_id, (alone, access, refresh))| Expiring {
        id,
        key: TokenKey::at(idp).user(user).account(account),
        grant_id,
        consent_expires: expires(if alone { access } else { refresh }),
    };
    Ok(found.into_iter().map(expiring).collect())
}

pub(super) fn revocations(
    connection: &mut SqliteConnection,
    now: StoreTime,
    limit: u32,
) -> Result<Vec<QueuedRevocation>, JobError> {
    let found = revocations::table
        .filter(revocations::due_at.le(now.0))
        .order((revocations::due_at, revocations::id))
        .limit(limit.into())
        .load::<(i64, String, String, String, Vec<u8>, i64, i32)>(connection)?;
    let revocation =
        |(id, idp, user, account, token, _, failures): (i64, String, String, String, Vec<u8>, i64, i32)| {
            QueuedRevocation {
                id,
                key: TokenKey::at(idp).user(user).account(account),
                token: Sealed(token),
                failures: failures.try_into().unwrap_or(0),
            }
        };
    Ok(found.into_iter().map(revocation).collect())
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

pub(super) fn meta(connection: &mut SqliteConnection, name: &str, value: &[u8]) -> Result<Vec<u8>, JobError> {
    diesel::insert_into(meta::table)
        .values((meta::name.eq(name), meta::value.eq(value)))
        .on_conflict_do_nothing()
        .execute(connection)?;
    Ok(meta::table.find(name).select(meta::value).get_result(connection)?)
}

pub(super) fn set_meta(connection: &mut SqliteConnection, name: &str, value: Option<&[u8]>) -> Result<(), JobError> {
    match value {
        None => diesel::delete(meta::table.find(name)).execute(connection)?,
        Some(value) => diesel::replace_into(meta::table)
            .values((meta::name.eq(name), meta::value.eq(value)))
            .execute(connection)?,
    };
    Ok(())
}

pub(super) fn metas(connection: &mut SqliteConnection, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JobError> {
    let from = meta::table.filter(meta::name.ge(prefix)).order(meta::name);
    let found = from.load::<(String, Vec<u8>)>(connection)?.into_iter();
    Ok(found.map_while(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value))).collect())
}
