//! How grants are counted: the statement, and its rows.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Bool, Nullable},
};

use super::Counted;
use crate::model::{Marks, WallTime};

/// Rows that are alike in everything that determines their state.
#[derive(QueryableByName)]
pub(super) struct Alike {
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

impl From<Alike> for Counted {
    fn from(alike: Alike) -> Self {
        Self {
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
        }
    }
}

/// The statement that counts all grants, with the provider's name as bytes and the time of the count as this backend writes
/// them. The largest integer means "never".
macro_rules! count_statement {
    ($idp:literal, $now:literal) => {
        concat!("
    SELECT ", $idp, " AS idp, tombstone IS NOT NULL AS ended, 
        verdict IS NOT NULL OR (refresh_token IS NULL AND coalesce(expires_at <= ", $now, ", FALSE)) AS required,
        coalesce(lease_until > ", $now, ", FALSE) AS leased, intent IS NOT NULL AS doubted,
        coalesce(retry_at > ", $now, ", FALSE) AS waits, 
        refresh_token IS NOT NULL AND coalesce(due_at <= ", $now, ", FALSE) AS due,
        last_error IS NOT NULL AS failing, held IS NOT NULL AS held, refresh_token IS NOT NULL AS refreshable,
        count(*) AS grants, min(due_at) AS first_due,
        min(CASE WHEN expires_at > ", $now, " AND expires_at < 9223372036854775807 THEN expires_at END) AS first_end
    FROM grants
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10")
    };
}

pub(super) use count_statement;
