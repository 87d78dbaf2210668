//! Checks every page and every row of the file. Reads only, beside a process that has the store open.

use std::path::Path;

use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryableByName, RunQueryDsl as _,
    SelectableHelper as _, SqliteConnection, sql_types::Text,
};

use super::{connect_to_read, files::unopened, log, meta::KEY_CHECK, query, threads::is_undecodable};
use crate::{
    error::Error,
    keyring::RowCodes,
    store::{
        record::GrantRecord,
        schema::{grants, meta},
        unreadable::RowReader,
    },
};

/// A finding each; the first of them where there are many.
const FINDINGS: usize = 20;

/// `fits` tells whether the keys are those of the store with this check value: with others, every row looks changed.
///
/// # Errors
/// The file cannot be opened or read.
pub(in crate::store) fn integrity(
    path: &Path,
    codes: RowCodes,
    fits: impl FnOnce(&[u8]) -> bool,
) -> Result<Vec<String>, Error> {
    let failed = |error: &dyn std::fmt::Display| unopened(path, error);
    let mut findings = Vec::new();
    let real = path.canonicalize().map_err(|error| failed(&error))?;
    if let Err(damaged) = log::check(&real).map_err(|error| failed(&error))? {
        return Ok(vec![damaged.to_string()]);
    }
    let mut connection = connect_to_read(path)?;
    match pages(&mut connection) {
        Ok(wrong) => findings.extend(wrong),
        // What is no database at all is found by opening it.
        Err(error) if error.to_string().contains("not a database") => return Ok(findings),
        Err(error) => findings.push(format!("{}: {error}", path.display())),
    }
    let checked = meta::table.find(KEY_CHECK).select(meta::value).get_result::<Vec<u8>>(&mut connection);
    if !checked.is_ok_and(|checked| fits(&checked)) {
        return Ok(findings);
    }
    if let Err(error) = rows(&mut connection, &RowReader::new(codes), &mut findings) {
        findings.push(format!("{}: the rows cannot be read: {error}", path.display()));
    }
    Ok(findings)
}

fn pages(connection: &mut SqliteConnection) -> diesel::QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct Finding {
        #[diesel(sql_type = Text)]
        integrity_check: String,
    }
    let found = diesel::sql_query(format!("PRAGMA integrity_check({FINDINGS})")).load::<Finding>(connection)?;
    let wrong = found.into_iter().map(|finding| finding.integrity_check).filter(|finding| finding != "ok");
    Ok(wrong.map(|finding| format!("the database is damaged: {finding}")).collect())
}

fn rows(connection: &mut SqliteConnection, reader: &RowReader, findings: &mut Vec<String>) -> diesel::QueryResult<()> {
    let mut last = i64::MIN;
    while findings.len() < FINDINGS {
        let next =
            grants::table.filter(grants::id.gt(last)).order(grants::id).select(grants::id).first::<i64>(connection);
        let Some(id) = next.optional()? else { break };
        last = id;
        let record = grants::table.find(id).select(GrantRecord::as_select()).get_result(connection);
        let wrong = match record {
            Ok(record) => {
                let key = record.key();
                let row = reader.row(id, key.clone(), &record);
                // A row that its index does not lead to is as good as lost.
                row.and_then(|_| query::find(connection, reader, &key).map_err(Into::into)).map(|found| found.is_some())
            }
            Err(error) if is_undecodable(&error) => Err(reader.undecoded(id)),
            Err(error) => return Err(error),
        };
        match wrong {
            Ok(true) => {}
            Ok(false) => findings.push(format!("row {id} is not found by its names")),
            Err(error) => findings.push(format!("row {id}: {error}")),
        }
    }
    Ok(())
}
