//! Which keys sealed the stored values, and the rows and queued revocations to seal again.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName, RunQueryDsl as _, SqliteConnection,
    dsl::exists,
    sql_types::{BigInt, Binary, Bool, Nullable, Text},
};

use super::{lookup::revocation_of, pages::find_by_id, threads::JobError};
use crate::{
    keyring::KeyId,
    model::{Sealed, TokenKey},
    protocol::Resealed,
    store::{
        KeyUse, QueuedRevocation, RowPosition, SealedPage,
        key_use::{alt_begins, alt_of, key_use as added_up},
        schema::revocations,
        unreadable::RowReader,
    },
};

pub(super) fn key_use(connection: &mut SqliteConnection) -> Result<Vec<KeyUse>, JobError> {
    #[derive(QueryableByName)]
    struct Alike {
        #[diesel(sql_type = Nullable<Binary>)]
        document: Option<Vec<u8>>,
        #[diesel(sql_type = Nullable<Binary>)]
        token: Option<Vec<u8>>,
        #[diesel(sql_type = Nullable<Binary>)]
        alt: Option<Vec<u8>>,
        #[diesel(sql_type = BigInt)]
        alike: i64,
    }
    #[derive(QueryableByName)]
    struct Queued {
        #[diesel(sql_type = Nullable<Binary>)]
        token: Option<Vec<u8>>,
        #[diesel(sql_type = BigInt)]
        alike: i64,
    }
    const ROWS: &str = concat!(
        "SELECT substr(document, 2, 4) AS document, substr(refresh_token, 2, 4) AS token, CASE WHEN instr(alt, '",
        alt_begins!(),
        "') > 0 THEN substr(alt, instr(alt, '",
        alt_begins!(),
        "') + 11, 8) END AS alt, count(*) AS alike FROM grants GROUP BY 1, 2, 3"
    );
    const QUEUED: &str = "SELECT substr(token, 2, 4) AS token, count(*) AS alike FROM revocations GROUP BY 1";
    let rows = diesel::sql_query(ROWS).load::<Alike>(connection)?;
    let queued = diesel::sql_query(QUEUED).load::<Queued>(connection)?;
    let rows = rows.into_iter().map(|Alike { document, token, alt, alike }| (document, token, alt, alike));
    let queued = queued.into_iter().map(|Queued { token, alike }| (token, alike));
    Ok(added_up(rows.collect(), queued.collect()))
}

pub(super) fn sealed_by_others(
    connection: &mut SqliteConnection,
    reader: &RowReader,
    active: KeyId,
    RowPosition(after): RowPosition,
    limit: u32,
) -> Result<SealedPage, JobError> {
    #[derive(QueryableByName)]
    struct Looked {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = Bool)]
        others: bool,
    }
    const PAGE: &str = "
        SELECT id, substr(document, 2, 4) <> ?2 OR coalesce(substr(refresh_token, 2, 4) <> ?2, FALSE)
            OR coalesce(instr(alt, ?3) = 0, FALSE) AS others
        FROM grants WHERE id > ?1 ORDER BY id LIMIT ?4";
    let looked = diesel::sql_query(PAGE)
        .bind::<BigInt, _>(after)
        .bind::<Binary, _>(active.bytes().to_vec())
        .bind::<Text, _>(alt_of(active))
        .bind::<BigInt, _>(i64::from(limit))
        .load::<Looked>(connection)?;
    let next = looked.last().filter(|_| looked.len() == limit as usize).map(|last| RowPosition(last.id));
    let mut page = SealedPage { rows: Vec::new(), unreadable: 0, next };
    for Looked { id, .. } in looked.into_iter().filter(|row| row.others) {
        match find_by_id(connection, reader, id) {
            Ok(Some(row)) => page.rows.push(row),
            Ok(None) => page.unreadable += 1,
            // It was purged meanwhile.
            Err(JobError::Database(diesel::result::Error::NotFound)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

/// Replaces the ciphertext of a queued revocation, if it is as it was listed. One that is queued twice by then is dropped.
pub(super) fn reseal_revocation(
    connection: &mut SqliteConnection,
    revocation: &QueuedRevocation,
    resealed: &Sealed,
) -> Result<(), JobError> {
    let QueuedRevocation { id, key, token, .. } = revocation;
    let as_listed = revocations::table.find(id).filter(revocations::token.eq(&token.0));
    let same = revocation_of(key.idp(), key.user(), key.account_name(), &resealed.0);
    if diesel::select(exists(same)).get_result(connection)? {
        diesel::delete(as_listed).execute(connection)?;
    } else {
        diesel::update(as_listed).set(revocations::token.eq(&resealed.0)).execute(connection)?;
    }
    Ok(())
}

/// Replaces the ciphertext of the key's queued revocation of a token.
pub(super) fn reseal_queued(
    connection: &mut SqliteConnection,
    key: &TokenKey,
    Resealed { from, to }: &Resealed,
) -> diesel::QueryResult<()> {
    let queued = revocation_of(key.idp(), key.user(), key.account_name(), &from.0);
    diesel::update(queued).set(revocations::token.eq(&to.0)).execute(connection).map(drop)
}
