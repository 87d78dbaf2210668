//! The columns of a row in the groups in which they are written, as text and values of a statement.
//!
//! The fragments of both databases have one text; only diesel's backend in their signatures differs.

/// How the columns of a group are written into a statement.
#[derive(Clone, Copy)]
pub(super) enum ColumnForm {
    /// `, name = ?`
    Assignment,
    /// `, name`
    Name,
    /// `, ?`
    Value,
}

/// Defines a function for each group of columns, which writes them into a statement of this backend.
macro_rules! column_fragments {
    ($backend:ty) => {
        crate::store::columns::columns! { $backend;
            name {
                idp: diesel::sql_types::Text,
                user_id: diesel::sql_types::Text,
                account: diesel::sql_types::Text,
                grant_id: diesel::sql_types::Text,
            }
            claim {
                epoch: diesel::sql_types::BigInt,
                lease: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                lease_until: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
                intent: diesel::sql_types::Nullable<diesel::sql_types::Text>,
            }
            wake {
                wake_at: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
            }
            token {
                refresh_token: diesel::sql_types::Nullable<diesel::sql_types::Binary>,
                fingerprint: diesel::sql_types::Nullable<diesel::sql_types::Binary>,
            }
            content {
                incarnation: diesel::sql_types::Binary,
                generation: diesel::sql_types::BigInt,
                client_id: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                parent: diesel::sql_types::Nullable<diesel::sql_types::Binary>,
                committed_by: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                alt: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                verdict: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                held: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                issued_at: diesel::sql_types::BigInt,
                expires_at: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
                refresh_expires_at: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
                notice_at: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
                due_at: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
                retry_at: diesel::sql_types::Nullable<diesel::sql_types::BigInt>,
                last_error: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                document: diesel::sql_types::Binary,
                tombstone: diesel::sql_types::Nullable<diesel::sql_types::Text>,
                changed_at: diesel::sql_types::BigInt,
            }
        }
    };
}

/// Writes columns of a row into a statement: their names, their values, or both.
macro_rules! columns {
    ($backend:ty; $($group:ident { $($name:ident: $kind:ty,)* })*) => { $(
        fn $group<'b>(
            columns: &'b crate::store::record::Columns<'_>,
            part: crate::store::columns::ColumnForm,
            out: &mut diesel::query_builder::AstPass<'_, 'b, $backend>,
        ) -> diesel::QueryResult<()> {
            use crate::store::columns::ColumnForm;
            $(
                match part {
                    ColumnForm::Assignment => out.push_sql(concat!(", ", stringify!($name), " = ")),
                    ColumnForm::Name => out.push_sql(concat!(", ", stringify!($name))),
                    ColumnForm::Value => out.push_sql(", "),
                }
                if !matches!(part, ColumnForm::Name) {
                    out.push_bind_param::<$kind, _>(&columns.$name)?;
                }
            )*
            Ok(())
        }
    )* };
}

pub(super) use {column_fragments, columns};
