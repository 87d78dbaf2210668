//! Statements that are kept prepared: made of fixed texts and of values between them.
//!
//! Diesel finds a prepared statement by its text, so that texts must not contain values.

use std::marker::PhantomData;

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Bool, Integer, Text},
};

use crate::store::{columns::ColumnForm, record::Columns};

/// A statement whose rows have the SQL type `R`.
pub(super) struct Statement<R = ()> {
    parts: Vec<StatementPart>,
    row: PhantomData<fn() -> R>,
}

enum StatementPart {
    Sql(&'static str),
    Long(i64),
    Int(i32),
    Bytes(Vec<u8>),
    Name(String),
    Flag(bool),
}

/// Begins a statement.
pub(super) fn sql<R>(begin: &'static str) -> Statement<R> {
    Statement { parts: vec![StatementPart::Sql(begin)], row: PhantomData }
}

impl<R> Statement<R> {
    pub(super) fn sql(self, text: &'static str) -> Self {
        self.with(StatementPart::Sql(text))
    }

    pub(super) fn long(self, value: i64) -> Self {
        self.with(StatementPart::Long(value))
    }

    pub(super) fn int(self, value: i32) -> Self {
        self.with(StatementPart::Int(value))
    }

    pub(super) fn bytes(self, value: &[u8]) -> Self {
        self.with(StatementPart::Bytes(value.to_owned()))
    }

    pub(super) fn name(self, value: &str) -> Self {
        self.with(StatementPart::Name(value.to_owned()))
    }

    pub(super) fn flag(self, value: bool) -> Self {
        self.with(StatementPart::Flag(value))
    }

    fn with(mut self, part: StatementPart) -> Self {
        self.parts.push(part);
        self
    }
}

impl<R> QueryFragment<Pg> for Statement<R> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.parts.iter().try_for_each(|part| match part {
            StatementPart::Sql(text) => {
                out.push_sql(text);
                Ok(())
            }
            StatementPart::Long(value) => out.push_bind_param::<BigInt, _>(value),
            StatementPart::Int(value) => out.push_bind_param::<Integer, _>(value),
            StatementPart::Bytes(value) => out.push_bind_param::<Binary, _>(value),
            StatementPart::Name(value) => out.push_bind_param::<Text, _>(value),
            StatementPart::Flag(value) => out.push_bind_param::<Bool, _>(value),
        })
    }
}

impl<R> QueryId for Statement<R> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<R> Query for Statement<R> {
    type SqlType = R;
}

crate::store::columns::column_fragments!(Pg);

/// Writes a row over the revision that it was read with, and what it has spent, in one statement. Returns how many rows were
/// written, one or none, and the database's time.
pub(super) struct UpdateRow<'a> {
    pub(super) columns: &'a Columns<'a>,
    pub(super) code: &'a [u8],
    pub(super) id: i64,
    pub(super) revision: i64,
    /// Whether other columns than those of a claim were changed. The document of an unchanged row is not sent again.
    pub(super) content: bool,
    /// Compare this time with the database's clock, and write nothing if they differ.
    pub(super) compared: Option<i64>,
    pub(super) spent: Option<SpentWrite<'a>>,
}

/// The refresh tokens that a row has spent, as they are written with it.
pub(super) struct SpentWrite<'a> {
    pub(super) generation: i64,
    pub(super) tokens: &'a [u8],
    pub(super) at: i64,
    /// The tokens that another key could bring.
    pub(super) remembered: Vec<[u8; 16]>,
    /// The token that the row holds now: it is not spent.
    pub(super) brought: Option<[u8; 16]>,
}

impl QueryFragment<Pg> for UpdateRow<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH written AS (UPDATE grants SET revision = revision + 1");
        claim(self.columns, ColumnForm::Assignment, &mut out)?;
        wake(self.columns, ColumnForm::Assignment, &mut out)?;
        if self.content {
            content(self.columns, ColumnForm::Assignment, &mut out)?;
            token(self.columns, ColumnForm::Assignment, &mut out)?;
        }
        out.push_sql(", code = ");
        out.push_bind_param::<Binary, _>(self.code)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<BigInt, _>(&self.id)?;
        out.push_sql(" AND revision = ");
        out.push_bind_param::<BigInt, _>(&self.revision)?;
        if let Some(now) = &self.compared {
            out.push_sql(" AND store_now() - ");
            out.push_bind_param::<BigInt, _>(now)?;
            out.push_sql(" BETWEEN ");
            out.push_bind_param::<BigInt, _>(&-super::time::AHEAD)?;
            out.push_sql(" AND ");
            out.push_bind_param::<BigInt, _>(&super::time::APART)?;
        }
        out.push_sql(" RETURNING id)");
        if let Some(spent) = &self.spent {
            spent.walk(&mut out)?;
        }
        out.push_sql(" SELECT count(*), store_now() FROM written");
        Ok(())
    }
}

impl SpentWrite<'_> {
    fn walk<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(", listed AS (INSERT INTO spent (grant_row, generation, at, tokens) SELECT id, ");
        out.push_bind_param::<BigInt, _>(&self.generation)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.at)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(self.tokens)?;
        out.push_sql(
            " FROM written ON CONFLICT (grant_row) DO UPDATE SET \
             generation = excluded.generation, at = excluded.at, tokens = excluded.tokens)",
        );
        for (token, name) in self.remembered.iter().zip([", kept AS (", ", kept_too AS ("]) {
            out.push_sql(name);
            out.push_sql("INSERT INTO fingerprints (fingerprint, grant_row, connected, spent, at) SELECT ");
            out.push_bind_param::<Binary, _>(token.as_slice())?;
            out.push_sql(", id, FALSE, TRUE, ");
            out.push_bind_param::<BigInt, _>(&self.at)?;
            out.push_sql(
                " FROM written ON CONFLICT (fingerprint, grant_row) DO UPDATE SET spent = TRUE, at = excluded.at)",
            );
        }
        if let Some(token) = &self.brought {
            out.push_sql(", unspent AS (UPDATE fingerprints SET spent = FALSE FROM written WHERE fingerprint = ");
            out.push_bind_param::<Binary, _>(token.as_slice())?;
            out.push_sql(" AND grant_row = written.id AND spent)");
        }
        Ok(())
    }
}

impl QueryId for UpdateRow<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for UpdateRow<'_> {
    type SqlType = (BigInt, BigInt);
}

/// Inserts a row with its first revision, unless the key has one.
pub(super) struct InsertRow<'a> {
    pub(super) columns: &'a Columns<'a>,
    pub(super) code: &'a [u8],
    pub(super) id: i64,
}

impl QueryFragment<Pg> for InsertRow<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let columns = self.columns;
        let all = |part, out: &mut AstPass<'_, 'b, Pg>| {
            name(columns, part, out)?;
            claim(columns, part, out)?;
            content(columns, part, out)?;
            token(columns, part, out)?;
            wake(columns, part, out)
        };
        out.push_sql("INSERT INTO grants (revision, id, code");
        all(ColumnForm::Name, &mut out)?;
        out.push_sql(") VALUES (1, ");
        out.push_bind_param::<BigInt, _>(&self.id)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(self.code)?;
        all(ColumnForm::Value, &mut out)?;
        out.push_sql(") ON CONFLICT ON CONSTRAINT grants_key DO NOTHING");
        Ok(())
    }
}

impl QueryId for InsertRow<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}
