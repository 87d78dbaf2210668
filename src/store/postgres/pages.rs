//! Pages of rows: those that come due, notices, revocations, listings; and what is counted.

use std::{collections::HashMap, ops::Range};

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, QueryDsl as _, SelectableHelper as _,
    dsl::min,
    pg::Pg,
    sql_types::{BigInt, Binary, Integer, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{Shared, failure::OperationError, row::time, statement::sql};
use crate::{
    model::{Sealed, StoreTime, TokenKey, WallTime},
    store::{
        Census, Counted, DueCursor, DuePage, Expiring, Listed, Names, Outbox, QueuedRevocation,
        counted::{Alike, count_statement},
        listing::listing_page,
        record::{Columns, GrantRecord, expires},
        schema::{grants, spent},
        spent::SpentTokens,
        stored::Stored,
    },
};

listing_page!(Pg);

pub(super) async fn due(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    idp: &str,
    by: WallTime,
    after: Option<DueCursor>,
    limit: u32,
) -> Result<DuePage, OperationError> {
    let after = after.unwrap_or(DueCursor { wake_at: i64::MIN, id: 0 });
    let found = due_page(idp, by.0, after.wake_at, after.id, limit.into());
    let found = found.load::<((Option<i64>, i64, i64), GrantRecord)>(connection).await?;
    let next = found.last().filter(|_| found.len() == limit as usize);
    let next = next.and_then(|((wake_at, id, _), _)| Some(DueCursor { wake_at: (*wake_at)?, id: *id }));
    // Read after the rows: what was spent since belongs to a later revision, over which no change of this one is written.
    let ids = found.iter().map(|((_, id, _), _)| *id).collect::<Vec<_>>();
    let listed = spent::table.filter(spent::grant_row.eq_any(ids));
    let listed = listed.select((spent::grant_row, (spent::generation, spent::tokens)));
    let listed = listed.load::<(i64, (i64, Vec<u8>))>(connection).await?;
    let mut listed: HashMap<_, _> = listed.into_iter().collect();
    let row = |((_, id, revision), record): ((Option<i64>, i64, i64), GrantRecord)| {
        let row = store.reader.row(id, record.key(), &record).ok()?;
        let is_canonical = Columns::from(&row) == Columns::from(&record);
        let spent = Some(SpentTokens::stored(listed.remove(&id)));
        store.known.put_due(Stored { row: row.clone(), id, revision, is_canonical, spent });
        Some(row)
    };
    let rows = found.into_iter().filter_map(row).collect();
    let later = grants::table.filter(grants::idp.eq(idp)).filter(grants::wake_at.gt(by.0));
    let later = later.select(min(grants::wake_at)).get_result::<Option<i64>>(connection).await?;
    Ok(DuePage { rows, next, later: later.map(WallTime) })
}

/// The query of the rows that are due by a time, after a row that was due at `wake_at`.
#[diesel::dsl::auto_type]
pub(super) fn due_page<'a>(idp: &'a str, by: i64, wake_at: i64, id: i64, limit: i64) -> _ {
    let record: diesel::dsl::AsSelect<GrantRecord, Pg> = GrantRecord::as_select();
    grants::table
        .filter(grants::idp.eq(idp))
        .filter(grants::wake_at.le(by))
        .filter(grants::wake_at.ge(wake_at))
        .filter(grants::wake_at.gt(wake_at).or(grants::wake_at.eq(wake_at).and(grants::id.gt(id))))
        .order((grants::wake_at, grants::id))
        .limit(limit)
        .select(((grants::wake_at, grants::id, grants::revision), record))
}

pub(super) async fn expiring(
    connection: &mut AsyncPgConnection,
    noticed: &Range<StoreTime>,
    after: Option<&Expiring>,
    limit: u32,
) -> Result<Vec<Expiring>, OperationError> {
    type Notice = (i64, (String, String, String), String, (bool, Option<i64>, Option<i64>));
    let found = grants::table
        .filter(grants::id.gt(after.map_or(0, |last| last.id)))
        .filter(grants::notice_at.ge(noticed.start.0))
        .filter(grants::notice_at.lt(noticed.end.0))
        .filter(grants::tombstone.is_null())
        .filter(grants::verdict.is_null())
        .order(grants::id)
        .limit(limit.into())
        .select((
            grants::id,
            (grants::idp, grants::user_id, grants::account),
            grants::grant_id,
            (grants::fingerprint.is_null(), grants::expires_at, grants::refresh_expires_at),
        ))
        .load::<Notice>(connection)
        .await?;
    let grant = |(id, (idp, user, account), grant_id, (alone, access, refresh)): Notice| {
        let key = TokenKey::at(idp).user(user).account(account);
        Expiring { id, key, grant_id, consent_expires: expires(if alone { access } else { refresh }) }
    };
    Ok(found.into_iter().map(grant).collect())
}

/// Reads a page of the listing.
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    names: &Names,
    after: Option<&TokenKey>,
    limit: u32,
) -> Result<Listed, OperationError> {
    let given = [&names.idp, &names.user, &names.user_prefix, &names.account];
    if given.into_iter().flatten().any(|name| name.contains('\0')) {
        // PostgreSQL takes no such text, and no key has it.
        return Ok(Listed { grants: Vec::new(), complete: true, now: time(connection, store).await? });
    }
    let rows = page(names, after, limit).load::<(i64, GrantRecord)>(connection).await?;
    let complete = rows.len() < limit as usize;
    let listed = |(id, record): (i64, GrantRecord)| {
        let key = record.key();
        let row = store.reader.row(id, key.clone(), &record).map(|row| row.without_ciphertext());
        (key, row)
    };
    let grants = rows.into_iter().map(listed).collect();
    Ok(Listed { grants, complete, now: time(connection, store).await? })
}

pub(super) async fn census(connection: &mut AsyncPgConnection, store: &Shared) -> Result<Census, OperationError> {
    const COUNT: &str = count_statement!("convert_to(idp, 'UTF8')", "$1");
    let now = time(connection, store).await?;
    let found = diesel::sql_query(COUNT).bind::<BigInt, _>(now.0).load::<Alike>(connection).await?;
    let counted = found.into_iter().map(Counted::from).collect();
    Ok(Census { counted, outbox: outbox(connection, None).await?, now })
}

pub(super) async fn outbox(
    connection: &mut AsyncPgConnection,
    key: Option<&TokenKey>,
) -> Result<Outbox, OperationError> {
    let counts = sql::<(BigInt, BigInt)>("SELECT count(*), count(*) FILTER (WHERE failures > 0) FROM revocations");
    let counts = match key {
        Some(key) => counts
            .sql(" WHERE user_id = ")
            .name(key.user())
            .sql(" AND idp = ")
            .name(key.idp())
            .sql(" AND account = ")
            .name(key.account_name()),
        None => counts,
    };
    let (pending, unconfirmed) = counts.get_result::<(i64, i64)>(connection).await?;
    Ok(Outbox { pending: pending.unsigned_abs(), unconfirmed: unconfirmed.unsigned_abs() })
}

pub(super) async fn revocations(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    limit: u32,
) -> Result<Vec<QueuedRevocation>, OperationError> {
    let now = time(connection, store).await?;
    let found = sql::<(BigInt, (Text, Text, Text), Binary, Integer)>(
        "SELECT id, idp, user_id, account, token, failures FROM revocations WHERE due_at <= ",
    )
    .long(now.0)
    .sql(" ORDER BY due_at, id LIMIT ")
    .long(limit.into());
    let found = found.load::<QueuedRecord>(connection).await?;
    Ok(found.into_iter().map(queued_revocation).collect())
}

/// Returns the next revocations after the one with this id.
pub(super) async fn queued(
    connection: &mut AsyncPgConnection,
    after: i64,
    limit: u32,
) -> Result<Vec<QueuedRevocation>, OperationError> {
    let found = sql::<(BigInt, (Text, Text, Text), Binary, Integer)>(
        "SELECT id, idp, user_id, account, token, failures FROM revocations WHERE id > ",
    )
    .long(after)
    .sql(" ORDER BY id LIMIT ")
    .long(limit.into());
    let found = found.load::<QueuedRecord>(connection).await?;
    Ok(found.into_iter().map(queued_revocation).collect())
}

type QueuedRecord = (i64, (String, String, String), Vec<u8>, i32);

fn queued_revocation((id, (idp, user, account), token, failures): QueuedRecord) -> QueuedRevocation {
    let key = TokenKey::at(idp).user(user).account(account);
    QueuedRevocation { id, key, token: Sealed(token), failures: failures.unsigned_abs() }
}

/// Records that a revocation is about to be sent, if it is as it was listed.
pub(super) async fn revoking(
    connection: &mut AsyncPgConnection,
    id: i64,
    failures: u32,
    retry_at: StoreTime,
) -> Result<bool, OperationError> {
    let begun = sql::<()>("UPDATE revocations SET failures = failures + 1, due_at = ")
        .long(retry_at.0)
        .sql(" WHERE id = ")
        .long(id)
        .sql(" AND failures = ")
        .int(failures.cast_signed());
    Ok(begun.execute(connection).await? == 1)
}

pub(super) async fn revoked(
    connection: &mut AsyncPgConnection,
    id: i64,
    retry_at: Option<StoreTime>,
) -> Result<(), OperationError> {
    let row = match retry_at {
        None => sql::<()>("DELETE FROM revocations WHERE id = ").long(id),
        Some(time) => sql("UPDATE revocations SET due_at = ").long(time.0).sql(" WHERE id = ").long(id),
    };
    row.execute(connection).await?;
    Ok(())
}

/// Deletes old fingerprints, of those that begin with this byte.
pub(super) async fn forget_spent(
    connection: &mut AsyncPgConnection,
    before: StoreTime,
    first: u8,
) -> Result<(), OperationError> {
    // The first byte of the next part; after the last one, what is longer than any fingerprint that begins with it.
    let end = first.checked_add(1).map_or_else(|| vec![u8::MAX; 17], |next| vec![next]);
    let old = sql::<()>("DELETE FROM fingerprints WHERE fingerprint >= ")
        .bytes(&[first])
        .sql(" AND fingerprint < ")
        .bytes(&end)
        .sql(" AND NOT connected AND at < ")
        .long(before.0);
    old.execute(connection).await?;
    Ok(())
}

/// Deletes what purged grants have spent, if it is old.
pub(super) async fn forget_spent_of_purged(
    connection: &mut AsyncPgConnection,
    before: StoreTime,
) -> Result<(), OperationError> {
    let gone =
        sql::<()>("DELETE FROM spent WHERE grant_row IN (SELECT grant_row FROM purged) AND at < ").long(before.0);
    gone.execute(connection).await?;
    Ok(())
}
