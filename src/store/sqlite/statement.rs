//! The statements that every refresh executes, prepared once.
//!
//! Diesel does not cache its own `UPDATE`s and upserts, so SQLite parses them every time, which costs more than
//! executing them. The statements here always have the same text, and their `QueryId` tells diesel so.

use diesel::{
    prelude::*,
    query_builder::{AsChangeset, AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Bool},
    sqlite::Sqlite,
};

use crate::store::record::{Content, GrantRecord};

type Columns = <Content as AsChangeset>::Changeset;

/// Writes a row if its revision has not changed since it was read.
pub(super) struct UpdateGrant {
    columns: Columns,
    id: i64,
    revision: i64,
}

impl UpdateGrant {
    pub(super) fn new(id: i64, revision: i64, record: GrantRecord) -> Self {
        Self { columns: record.content.as_changeset(), id, revision }
    }
}

impl QueryFragment<Sqlite> for UpdateGrant {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE grants SET revision = revision + 1, ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<BigInt, _>(&self.id)?;
        out.push_sql(" AND revision = ");
        out.push_bind_param::<BigInt, _>(&self.revision)
    }
}

/// Records that a refresh token was connected or spent.
pub(super) struct Remember {
    pub(super) fingerprint: Vec<u8>,
    pub(super) grant: i64,
    pub(super) connected: bool,
    pub(super) at: i64,
}

impl QueryFragment<Sqlite> for Remember {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO fingerprints (fingerprint, grant_row, connected, spent, at) VALUES (");
        out.push_bind_param::<Binary, _>(&self.fingerprint)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.grant)?;
        out.push_sql(", ");
        out.push_bind_param::<Bool, _>(&self.connected)?;
        out.push_sql(", NOT ");
        out.push_bind_param::<Bool, _>(&self.connected)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.at)?;
        out.push_sql(
            ") ON CONFLICT (fingerprint, grant_row) DO UPDATE SET \
             connected = connected OR excluded.connected, spent = spent OR excluded.spent, at = excluded.at",
        );
        Ok(())
    }
}

/// Makes the type of a statement its key in the cache of prepared statements: its text is the same for every value.
macro_rules! prepared_once {
    ($($statement:ty),*) => {
        $(impl QueryId for $statement {
            type QueryId = Self;

            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl RunQueryDsl<SqliteConnection> for $statement {})*
    };
}

prepared_once!(UpdateGrant, Remember);
