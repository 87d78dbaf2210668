//! Writes of one row, each a comparison of its revision.

use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::{
    Shared,
    failure::OperationError,
    statement::{InsertRow, SpentWrite, UpdateRow, sql},
};
use crate::{
    model::{Fingerprint, Row, StoreTime},
    protocol::Side,
    store::{
        record::{Columns, Touched},
        spent::SpentTokens,
        stored::Stored,
    },
};

/// How many tokens one statement can remember.
pub(super) const REMEMBERED: usize = 2;

/// Writes the row and what became of its refresh tokens over the revision that was read. Returns `None` if it was not
/// written: another writer was first, or too much time has passed since `now`.
pub(super) async fn update(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    before: Stored,
    row: Row,
    sides: &[Side],
    now: StoreTime,
) -> Result<Option<Stored>, OperationError> {
    let Stored { row: old, id, revision, is_canonical, spent } = before;
    let touched = if is_canonical { Touched::between(&old, &row) } else { Touched::ALL };
    let columns = Columns::from(&row);
    let code = columns.code(id, &store.reader.codes).finish();
    let mut tokens = spent.unwrap_or_default();
    let newly = newly_spent(sides);
    let brought = held(&row).filter(|current| held(&old) != Some(*current));
    let spent =
        (brought.is_some() || !newly.is_empty()).then(|| spending(&mut tokens, &old, &row, &newly, brought, now));
    let update = UpdateRow {
        columns: &columns,
        code: &code,
        id,
        revision,
        content: touched.content,
        compared: store.clock.compared(now),
        spent,
    };
    // All rows, not the first: it comes before the commit, and the end of all rows after it.
    let written = update.load::<(i64, i64)>(connection).await?;
    let (written, time) = written.into_iter().next().ok_or(diesel::result::Error::NotFound)?;
    store.clock.read(time);
    if written == 0 {
        return Ok(None);
    }
    drop(columns);
    Ok(Some(Stored { row, id, revision: revision + 1, is_canonical: true, spent: Some(tokens) }))
}

/// Returns the refresh tokens that a change has spent.
pub(super) fn newly_spent(sides: &[Side]) -> Vec<Fingerprint> {
    let spent = sides.iter().filter_map(|side| match side {
        Side::Spent(token) => Some(*token),
        _ => None,
    });
    spent.collect()
}

/// Returns what to store of the tokens that a row has spent with this write, and that its own is not.
fn spending<'a>(
    tokens: &'a mut SpentTokens,
    before: &Row,
    after: &Row,
    newly: &[Fingerprint],
    brought: Option<Fingerprint>,
    now: StoreTime,
) -> SpentWrite<'a> {
    newly.iter().for_each(|token| tokens.add(*token));
    if let Some(current) = brought {
        tokens.remove(current);
    }
    // No other key can bring a token that a refresh brought and that no row holds any more.
    let is_replaced = |token| held(before) == Some(token) && held(after) != Some(token);
    let remembered =
        newly.iter().filter(|token| (before.commit.is_none() || !is_replaced(**token)) && Some(**token) != brought);
    let remembered = remembered.map(|token| token.0).collect();
    let (generation, tokens) = tokens.written(after.generation);
    SpentWrite { generation, tokens, at: now.0, remembered, brought: brought.map(|token| token.0) }
}

/// Inserts the row. Returns `None` if the key has one: another writer was first.
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    store: &Shared,
    row: Row,
) -> Result<Option<Stored>, OperationError> {
    let id = sql::<diesel::sql_types::BigInt>("SELECT nextval('grant_rows')").get_result::<i64>(connection).await?;
    let columns = Columns::from(&row);
    let code = columns.code(id, &store.reader.codes).finish();
    let inserted = InsertRow { columns: &columns, code: &code, id }.execute(connection).await?;
    drop(columns);
    Ok((inserted == 1).then(|| Stored {
        row,
        id,
        revision: 1,
        is_canonical: true,
        spent: Some(SpentTokens::default()),
    }))
}

pub(super) fn held(row: &Row) -> Option<Fingerprint> {
    row.refresh_token.as_ref().map(|token| token.fingerprint)
}
