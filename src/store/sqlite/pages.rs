//! Pages of rows that come due: refreshes, notices, revocations. Names that are no text are left out and do not fail a page:
//! rows are read one by one, or the names of their keys as bytes.

use std::ops::Range;

use diesel::{dsl::min, prelude::*};

use super::threads::{JobError, is_undecodable};
use crate::{
    model::{Row, Sealed, StoreTime, TokenKey, WallTime},
    store::{
        DueCursor, DuePage, Expiring, QueuedRevocation,
        record::{GrantRecord, expires},
        schema::grants,
        unreadable::RowReader,
    },
};

pub(super) fn due(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    idp: &str,
    by: WallTime,
    after: Option<DueCursor>,
    limit: u32,
) -> Result<DuePage, JobError> {
    let after = after.unwrap_or(DueCursor { wake_at: i64::MIN, id: 0 });
    let beyond = grants::wake_at.gt(after.wake_at).or(grants::wake_at.eq(after.wake_at).and(grants::id.gt(after.id)));
    let found = grants::table
        .filter(grants::idp.eq(idp))
        .filter(grants::wake_at.le(by.0))
        .filter(grants::wake_at.ge(after.wake_at))
        .filter(beyond)
        .order((grants::wake_at, grants::id))
        .limit(limit.into())
        .select((grants::wake_at.assume_not_null(), grants::id))
        .load::<(i64, i64)>(connection)?;
    let next = found.last().filter(|_| found.len() == limit as usize);
    let next = next.map(|(wake_at, id)| DueCursor { wake_at: *wake_at, id: *id });
    let mut rows = Vec::with_capacity(found.len());
    for (_, id) in found {
        // One by one: a row that cannot be read does not fail its page.
        rows.extend(find_by_id(connection, reader, id)?);
    }
    let later = grants::table.filter(grants::idp.eq(idp)).filter(grants::wake_at.gt(by.0));
    let later = later.select(min(grants::wake_at)).get_result::<Option<i64>>(connection)?;
    Ok(DuePage { rows, next, later: later.map(WallTime) })
}

pub(super) fn find_by_id(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    id: i64,
) -> Result<Option<Row>, JobError> {
    match grants::table.find(id).select(GrantRecord::as_select()).get_result(connection) {
        Ok(record) => Ok(reader.row(id, record.key(), &record).ok()),
        Err(error) if is_undecodable(&error) => {
            reader.undecoded(id);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

diesel::table! {
    /// The table `grants` with the names of a key as bytes: one that is no text must not fail a whole page.
    #[sql_name = "grants"]
    named (id) {
        id -> BigInt,
        idp -> Binary,
        user_id -> Binary,
        account -> Binary,
        grant_id -> Binary,
        fingerprint -> Nullable<Binary>,
        notice_at -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
        refresh_expires_at -> Nullable<BigInt>,
        tombstone -> Nullable<Binary>,
        verdict -> Nullable<Binary>,
    }
}

/// The names of a key: identity provider, user, account.
type NameBytes = (Vec<u8>, Vec<u8>, Vec<u8>);
const NAMES: (named::idp, named::user_id, named::account) = (named::idp, named::user_id, named::account);

fn key_of(reader: &RowReader, id: i64, (idp, user, account): NameBytes) -> Option<TokenKey> {
    let text = |name: Vec<u8>| String::from_utf8(name).ok();
    let key = text(idp).zip(text(user)).zip(text(account));
    if key.is_none() {
        reader.undecoded(id);
    }
    key.map(|((idp, user), account)| TokenKey::at(idp).user(user).account(account))
}

pub(super) fn expiring(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    noticed: &Range<StoreTime>,
    after: Option<&Expiring>,
    limit: u32,
) -> Result<Vec<Expiring>, JobError> {
    let mut last = after.map_or(0, |last| last.id);
    let mut all = Vec::new();
    // A page of rows that cannot be read is not the last one.
    while all.len() < limit as usize {
        let found = named::table
            .filter(named::id.gt(last))
            .filter(named::notice_at.ge(noticed.start.0))
            .filter(named::notice_at.lt(noticed.end.0))
            .filter(named::tombstone.is_null())
            .filter(named::verdict.is_null())
            .order(named::id)
            .limit(i64::from(limit) - all.len() as i64)
            .select((
                named::id,
                NAMES,
                named::grant_id,
                (named::fingerprint.is_null(), named::expires_at, named::refresh_expires_at),
            ))
            .load::<(i64, NameBytes, Vec<u8>, (bool, Option<i64>, Option<i64>))>(connection)?;
        let Some((id, ..)) = found.last() else { break };
        last = *id;
        all.extend(found.into_iter().filter_map(|(id, names, grant_id, (alone, access, refresh))| {
            let key = key_of(reader, id, names)?;
            let grant_id = String::from_utf8_lossy(&grant_id).into_owned();
            Some(Expiring { id, key, grant_id, consent_expires: expires(if alone { access } else { refresh }) })
        }));
    }
    Ok(all)
}

pub(super) fn revocations(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    now: StoreTime,
    limit: u32,
) -> Result<Vec<QueuedRevocation>, JobError> {
    let found = queued::table
        .filter(queued::due_at.le(now.0))
        .order((queued::due_at, queued::id))
        .limit(limit.into())
        .select((queued::id, (queued::idp, queued::user_id, queued::account), queued::token, queued::failures))
        .load::<QueuedColumns>(connection)?;
    Ok(found.into_iter().filter_map(|columns| queued_revocation(reader, columns)).collect())
}

/// Returns the next revocations after the one with this id.
pub(super) fn queued(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    after: i64,
    limit: u32,
) -> Result<Vec<QueuedRevocation>, JobError> {
    let found = queued::table
        .filter(queued::id.gt(after))
        .order(queued::id)
        .limit(limit.into())
        .select((queued::id, (queued::idp, queued::user_id, queued::account), queued::token, queued::failures))
        .load::<QueuedColumns>(connection)?;
    Ok(found.into_iter().filter_map(|columns| queued_revocation(reader, columns)).collect())
}

type QueuedColumns = (i64, NameBytes, Vec<u8>, i32);

fn queued_revocation(reader: &RowReader, (id, names, token, failures): QueuedColumns) -> Option<QueuedRevocation> {
    let failures = failures.try_into().unwrap_or(0);
    // Rows of this table have ids of their own: none of them is a grant's.
    Some(QueuedRevocation { id, key: key_of(reader, -id, names)?, token: Sealed(token), failures })
}

diesel::table! {
    /// The table `revocations` with the names of a key as bytes.
    #[sql_name = "revocations"]
    queued (id) {
        id -> BigInt,
        idp -> Binary,
        user_id -> Binary,
        account -> Binary,
        token -> Binary,
        due_at -> BigInt,
        failures -> Integer,
    }
}
