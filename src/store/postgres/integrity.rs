//! Checks every row of the store. Reads only, beside the processes that have it open.

use diesel::{ExpressionMethods as _, QueryDsl as _, SelectableHelper as _, dsl::AsSelect, pg::Pg};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{failure::OperationError, meta};
use crate::{
    keyring::RowCodes,
    store::{record::GrantRecord, schema::grants, unreadable::RowReader},
};

/// A finding each; the first of them where there are many.
const FINDINGS: usize = 20;

const PAGE: i64 = 1_000;

/// `fits` tells whether the keys are those of the store with this check value: with others, every row looks changed.
pub(super) async fn integrity(
    connection: &mut AsyncPgConnection,
    codes: RowCodes,
    fits: impl FnOnce(&[u8]) -> bool + Send,
) -> Result<Vec<String>, OperationError> {
    let mut findings = Vec::new();
    if !meta::key_check(connection).await?.is_some_and(|checked| fits(&checked)) {
        return Ok(findings);
    }
    let (reader, mut last) = (RowReader::new(codes), i64::MIN);
    loop {
        let record: AsSelect<GrantRecord, Pg> = GrantRecord::as_select();
        let page = grants::table.filter(grants::id.gt(last)).order(grants::id).limit(PAGE).select((grants::id, record));
        let page = page.load::<(i64, GrantRecord)>(connection).await?;
        for (id, record) in &page {
            last = *id;
            if let Err(error) = reader.row(*id, record.key(), record) {
                findings.push(format!("row {id}: {error}"));
            }
        }
        if page.is_empty() || findings.len() >= FINDINGS {
            findings.truncate(FINDINGS);
            return Ok(findings);
        }
    }
}
