//! The query of a page of grants, with one text for both databases.

/// Defines `page`, the query of a page, and its type for this backend.
macro_rules! listing_page {
    ($backend:ty) => {
        /// The query of a page of grants in the order of their keys.
        pub(super) type ListingPage<'a> = diesel::dsl::IntoBoxed<
            'a,
            diesel::dsl::Select<
                crate::store::schema::grants::table,
                (crate::store::schema::grants::id, diesel::dsl::AsSelect<crate::store::record::GrantRecord, $backend>),
            >,
            $backend,
        >;

        /// Builds the query of a page. It compares rows as a whole, and never has two lower bounds where an index can use only
        /// one, so that every page costs the same.
        pub(super) fn page<'a>(
            names: &'a crate::store::Names,
            after: Option<&'a crate::model::TokenKey>,
            limit: u32,
        ) -> ListingPage<'a> {
            let mut query = crate::store::schema::grants::table
                .select((crate::store::schema::grants::id, crate::store::record::GrantRecord::as_select()))
                .order((
                    crate::store::schema::grants::idp,
                    crate::store::schema::grants::user_id,
                    crate::store::schema::grants::account,
                ))
                .limit(limit.into())
                .into_boxed();
            if let Some(idp) = &names.idp {
                query = query.filter(crate::store::schema::grants::idp.eq(idp));
            }
            if let Some(user) = &names.user {
                query = query.filter(crate::store::schema::grants::user_id.eq(user));
            }
            if let Some(account) = &names.account {
                query = query.filter(crate::store::schema::grants::account.eq(account));
            }
            if names.gone {
                query = query.filter(crate::store::schema::grants::tombstone.is_not_null());
            }
            // The page continues at the same identity provider, because the filter names only this one.
            let within = after.filter(|after| names.idp.as_deref() == Some(after.idp()));
            if let Some(prefix) = &names.user_prefix {
                if within.is_none_or(|after| after.user() < prefix.as_str()) {
                    query = query.filter(crate::store::schema::grants::user_id.ge(prefix));
                }
                if let Some(end) = crate::store::listing::beyond(prefix) {
                    query = query.filter(crate::store::schema::grants::user_id.lt(end));
                }
            }
            match (within, after) {
                (Some(after), _) => query.filter(
                    diesel::dsl::sql::<diesel::sql_types::Bool>("(user_id, account) > (")
                        .bind::<diesel::sql_types::Text, _>(after.user())
                        .sql(", ")
                        .bind::<diesel::sql_types::Text, _>(after.account_name())
                        .sql(")"),
                ),
                (None, Some(after)) => query.filter(
                    diesel::dsl::sql::<diesel::sql_types::Bool>("(idp, user_id, account) > (")
                        .bind::<diesel::sql_types::Text, _>(after.idp())
                        .sql(", ")
                        .bind::<diesel::sql_types::Text, _>(after.user())
                        .sql(", ")
                        .bind::<diesel::sql_types::Text, _>(after.account_name())
                        .sql(")"),
                ),
                (None, None) => query,
            }
        }
    };
}

pub(super) use listing_page;

/// Returns the first text after all texts that begin with `prefix`, if there is one.
pub(super) fn beyond(prefix: &str) -> Option<String> {
    let end = prefix.trim_end_matches(char::MAX);
    let last = end.chars().next_back()?;
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", &end[..end.len() - last.len_utf8()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_returns_the_first_text_after_all_with_the_prefix() {
        for (prefix, next) in [
            ("acme/", Some("acme0")),
            ("a\u{7f}", Some("a\u{80}")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(beyond(prefix).as_deref(), next);
            if let Some(next) = next {
                assert!(next > prefix && *next > *format!("{prefix}\u{10ffff}x"));
            }
        }
    }
}
