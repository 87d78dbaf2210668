//! The statements that every refresh executes, prepared once.
//!
//! Diesel does not cache its own `UPDATE`s and upserts, so SQLite parses them every time, which costs more than
//! executing them. The statements here always have the same text, and their `QueryId` tells diesel so.

use diesel::{
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Bool},
    sqlite::Sqlite,
};

use crate::store::{
    columns::ColumnForm,
    record::{Columns, Touched},
};

crate::store::columns::column_fragments!(Sqlite);

/// A row with its code, as it is written under `id`.
#[derive(Clone, Copy)]
pub(super) struct CodedRow<'a> {
    pub(super) columns: &'a Columns<'a>,
    pub(super) code: &'a [u8],
    pub(super) id: i64,
}

impl CodedRow<'_> {
    /// Writes what was touched if the row's revision is this one. Returns whether it was.
    pub(super) fn update(
        self,
        connection: &mut SqliteConnection,
        revision: i64,
        touched: Touched,
    ) -> QueryResult<bool> {
        let row = self;
        let written = match touched {
            Touched { content: false, wake: false, .. } => {
                UpdateGrant::<false, false, false> { row, revision }.execute(connection)
            }
            Touched { content: false, wake: true, .. } => {
                UpdateGrant::<false, false, true> { row, revision }.execute(connection)
            }
            Touched { token: false, .. } => UpdateGrant::<true, false, true> { row, revision }.execute(connection),
            Touched { token: true, .. } => UpdateGrant::<true, true, true> { row, revision }.execute(connection),
        };
        written.map(|rows| rows == 1)
    }

    /// Inserts the row with its first revision.
    pub(super) fn insert(self, connection: &mut SqliteConnection) -> QueryResult<()> {
        InsertGrant { row: self }.execute(connection).map(drop)
    }
}

/// Writes the columns of a claim, and others if they were touched. An index is left alone where its columns are.
struct UpdateGrant<'a, const CONTENT: bool, const TOKEN: bool, const WAKE: bool> {
    row: CodedRow<'a>,
    revision: i64,
}

impl<const CONTENT: bool, const TOKEN: bool, const WAKE: bool> QueryFragment<Sqlite>
    for UpdateGrant<'_, CONTENT, TOKEN, WAKE>
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let columns = self.row.columns;
        out.push_sql("UPDATE grants SET revision = revision + 1");
        claim(columns, ColumnForm::Assignment, &mut out)?;
        if CONTENT {
            content(columns, ColumnForm::Assignment, &mut out)?;
        }
        if TOKEN {
            token(columns, ColumnForm::Assignment, &mut out)?;
        }
        if WAKE {
            wake(columns, ColumnForm::Assignment, &mut out)?;
        }
        out.push_sql(", code = ");
        out.push_bind_param::<Binary, _>(&self.row.code)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<BigInt, _>(&self.row.id)?;
        out.push_sql(" AND revision = ");
        out.push_bind_param::<BigInt, _>(&self.revision)
    }
}

impl<const CONTENT: bool, const TOKEN: bool, const WAKE: bool> QueryId for UpdateGrant<'_, CONTENT, TOKEN, WAKE> {
    type QueryId = UpdateGrant<'static, CONTENT, TOKEN, WAKE>;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const CONTENT: bool, const TOKEN: bool, const WAKE: bool> RunQueryDsl<SqliteConnection>
    for UpdateGrant<'_, CONTENT, TOKEN, WAKE>
{
}

struct InsertGrant<'a> {
    row: CodedRow<'a>,
}

impl QueryFragment<Sqlite> for InsertGrant<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let columns = self.row.columns;
        let all = |part, out: &mut AstPass<'_, 'b, Sqlite>| {
            name(columns, part, out)?;
            claim(columns, part, out)?;
            content(columns, part, out)?;
            token(columns, part, out)?;
            wake(columns, part, out)
        };
        out.push_sql("INSERT INTO grants (revision, id, code");
        all(ColumnForm::Name, &mut out)?;
        out.push_sql(") VALUES (1, ");
        out.push_bind_param::<BigInt, _>(&self.row.id)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(&self.row.code)?;
        all(ColumnForm::Value, &mut out)?;
        out.push_sql(")");
        Ok(())
    }
}

impl QueryId for InsertGrant<'_> {
    type QueryId = InsertGrant<'static>;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl RunQueryDsl<SqliteConnection> for InsertGrant<'_> {}

/// A statement that is made of texts and of values between them, prepared once.
macro_rules! statements {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($field:ident: $type:ty),* $(,)? } $(-> $row:ty)?
            = $begin:literal $($bind:ident as $sql:ty, $text:literal)*;
    )*) => { $(
        $(#[$doc])*
        pub(super) struct $name { $(pub(super) $field: $type),* }

        impl QueryFragment<Sqlite> for $name {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
                out.push_sql($begin);
                $(
                    out.push_bind_param::<$sql, _>(&self.$bind)?;
                    out.push_sql($text);
                )*
                Ok(())
            }
        }

        impl QueryId for $name {
            type QueryId = Self;

            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl RunQueryDsl<SqliteConnection> for $name {}

        $(impl Query for $name {
            type SqlType = $row;
        })?
    )* };
}

statements! {
    /// Records that the grant was connected with a refresh token or has spent it.
    Remember { fingerprint: [u8; 16], grant: i64, connected: bool, at: i64 }
        = "INSERT INTO fingerprints (fingerprint, grant_row, connected, spent, at) VALUES ("
        fingerprint as Binary, ", "
        grant as BigInt, ", "
        connected as Bool, ", NOT "
        connected as Bool, ", "
        at as BigInt, ") ON CONFLICT (fingerprint, grant_row) DO UPDATE SET \
            connected = connected OR excluded.connected, spent = spent OR excluded.spent, at = excluded.at";
    /// Records that the grant has not spent a refresh token.
    Unspend { fingerprint: [u8; 16], grant: i64 }
        = "UPDATE fingerprints SET spent = FALSE WHERE fingerprint = "
        fingerprint as Binary, " AND grant_row = "
        grant as BigInt, " AND spent";
    /// Reads the newest refresh tokens that the grant has spent.
    FindSpent { grant: i64 } -> (BigInt, Binary)
        = "SELECT generation, tokens FROM spent WHERE grant_row = "
        grant as BigInt, "";
    /// Writes the newest refresh tokens that the grant has spent.
    WriteSpent { grant: i64, generation: i64, at: i64, tokens: Vec<u8> }
        = "INSERT OR REPLACE INTO spent (grant_row, generation, at, tokens) VALUES ("
        grant as BigInt, ", "
        generation as BigInt, ", "
        at as BigInt, ", "
        tokens as Binary, ")";
    /// Returns a number that changes with every commit of another connection.
    DataVersion {} -> BigInt = "PRAGMA data_version";
}
