//! The reports of the processes that work with the store.

use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{failure::OperationError, statement::sql};
use crate::store::ReplicaReport;

/// Reports that were not renewed for so long are deleted, in milliseconds.
const KEPT: i64 = 24 * 3_600_000;

/// Writes the report of a process, or deletes it. Old reports of others are deleted.
pub(super) async fn report(
    connection: &mut AsyncPgConnection,
    id: &str,
    report: Option<&[u8]>,
) -> Result<(), OperationError> {
    let written = match report {
        None => sql::<()>("DELETE FROM replicas WHERE id = ").name(id),
        Some(report) => sql("INSERT INTO replicas (id, at, report) VALUES (")
            .name(id)
            .sql(", store_now(), ")
            .bytes(report)
            .sql(") ON CONFLICT (id) DO UPDATE SET at = excluded.at, report = excluded.report"),
    };
    written.execute(connection).await?;
    sql::<()>("DELETE FROM replicas WHERE at < store_now() - ").long(KEPT).execute(connection).await?;
    Ok(())
}

/// Sends texts where no line is open.
pub(super) async fn say(
    connection: &mut AsyncPgConnection,
    channel: &str,
    texts: &[String],
) -> Result<(), OperationError> {
    for text in texts {
        let say = sql::<()>("SELECT pg_notify(").name(channel).sql(", ").name(text).sql(")");
        say.execute(connection).await?;
    }
    Ok(())
}

pub(super) async fn reports(connection: &mut AsyncPgConnection) -> Result<Vec<ReplicaReport>, OperationError> {
    let all = sql::<(Text, Binary, BigInt)>("SELECT id, report, store_now() - at FROM replicas ORDER BY id");
    let all = all.load::<(String, Vec<u8>, i64)>(connection).await?.into_iter();
    Ok(all.map(|(id, report, age)| ReplicaReport { id, report, age_ms: age.max(0).unsigned_abs() }).collect())
}
