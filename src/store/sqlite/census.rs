//! Counts all grants.

use diesel::{RunQueryDsl as _, SqliteConnection, sql_types::BigInt};

use super::{query, threads::JobError};
use crate::{
    model::StoreTime,
    store::{
        Census, Counted,
        counted::{Alike, count_statement},
    },
};

pub(super) fn census(connection: &mut SqliteConnection, now: StoreTime) -> Result<Census, JobError> {
    const COUNT: &str = count_statement!("idp", "?1");
    let found = diesel::sql_query(COUNT).bind::<BigInt, _>(now.0).load::<Alike>(connection)?;
    let counted = found.into_iter().map(Counted::from).collect();
    Ok(Census { counted, outbox: query::outbox(connection, None)?, now })
}
