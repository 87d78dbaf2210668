//! Counts all grants.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Binary, Bool, Nullable},
};

use super::{query, threads::JobError};
use crate::{
    model::{Marks, StoreTime, WallTime},
    store::{Census, Counted},
};

/// Rows that are alike in everything that determines their state.
#[derive(QueryableByName)]
struct Alike {
    /// As bytes: a name that is no text must not fail the count.
    #[diesel(sql_type = Binary)]
    idp: Vec<u8>,
    #[diesel(sql_type = Bool)]
    ended: bool,
    #[diesel(sql_type = Bool)]
    required: bool,
    #[diesel(sql_type = Bool)]
    leased: bool,
    #[diesel(sql_type = Bool)]
    doubted: bool,
    #[diesel(sql_type = Bool)]
    waits: bool,
    #[diesel(sql_type = Bool)]
    due: bool,
    #[diesel(sql_type = Bool)]
    failing: bool,
    #[diesel(sql_type = Bool)]
    held: bool,
    #[diesel(sql_type = Bool)]
    refreshable: bool,
    #[diesel(sql_type = BigInt)]
    grants: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    first_due: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    first_end: Option<i64>,
}

/// The largest integer means "never".
const COUNT: &str = "
    SELECT idp, tombstone IS NOT NULL AS ended, 
        verdict IS NOT NULL OR (refresh_token IS NULL AND coalesce(expires_at <= ?1, FALSE)) AS required,
        coalesce(lease_until > ?1, FALSE) AS leased, intent IS NOT NULL AS doubted,
        coalesce(retry_at > ?1, FALSE) AS waits, 
        refresh_token IS NOT NULL AND coalesce(due_at <= ?1, FALSE) AS due,
        last_error IS NOT NULL AS failing, held IS NOT NULL AS held, refresh_token IS NOT NULL AS refreshable,
        count(*) AS grants, min(due_at) AS first_due,
        min(CASE WHEN expires_at > ?1 AND expires_at < 9223372036854775807 THEN expires_at END) AS first_end
    FROM grants
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10";

pub(super) fn census(connection: &mut SqliteConnection, now: StoreTime) -> Result<Census, JobError> {
    let found = diesel::sql_query(COUNT).bind::<BigInt, _>(now.0).load::<Alike>(connection)?;
    let counted = |alike: Alike| Counted {
        idp: String::from_utf8_lossy(&alike.idp).into_owned(),
        marks: Marks {
            ended: alike.ended,
            required: alike.required,
            leased: alike.leased,
            doubted: alike.doubted,
            waits: alike.waits,
            due: alike.due,
        },
        failing: alike.failing,
        held: alike.held,
        refreshable: alike.refreshable,
        grants: alike.grants.unsigned_abs(),
        first_due: alike.first_due.map(WallTime),
        first_end: alike.first_end.map(WallTime),
    };
    let counted = found.into_iter().map(counted).collect();
    Ok(Census { counted, outbox: query::outbox(connection, None)?, now })
}
