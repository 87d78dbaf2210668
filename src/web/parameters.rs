//! The parameters of queries.

use serde_json::Value;

use crate::api::schema;

/// A parameter of a query.
pub(super) struct QueryParameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: ParameterKind,
    pub(super) required: bool,
}

/// Which values a parameter takes.
#[derive(Clone, Copy)]
pub(super) enum ParameterKind {
    /// `true`, `false`, or no value, which means true.
    Flag,
    /// A whole number within these bounds.
    Number(u64, u64),
    /// A text with this schema.
    Text(fn() -> Value),
}

/// The value of a parameter.
#[derive(Clone, Copy)]
pub(super) enum ParameterValue {
    Flag(bool),
    Number(u64),
    /// The handler parses the text.
    Text,
}

use ParameterKind::{Flag, Number, Text};

const fn parameter(name: &'static str, kind: ParameterKind, about: &'static str) -> QueryParameter {
    QueryParameter { name, about, kind, required: false }
}

impl QueryParameter {
    /// # Errors
    /// What the value must be.
    pub(super) fn read(&self, text: &str) -> Result<ParameterValue, String> {
        match self.kind {
            Text(_) => Ok(ParameterValue::Text),
            Flag => match text {
                "true" | "" => Ok(ParameterValue::Flag(true)),
                "false" => Ok(ParameterValue::Flag(false)),
                _ => Err(format!("{} must be true or false", self.name)),
            },
            Number(least, most) => {
                let number = text.parse().ok().filter(|number| (least..=most).contains(number));
                number.map(ParameterValue::Number).ok_or_else(|| format!("{}: {}", self.name, self.about))
            }
        }
    }
}

pub(super) const ACCOUNT: QueryParameter = parameter(
    "account",
    Text(schema::account),
    "Which of the user's accounts at the identity provider; empty unless given.",
);
pub(super) const TIMEOUT: QueryParameter =
    parameter("timeout", Number(0, 60), "How many seconds to wait for the response, at most 60; 10 unless given.");
pub(super) const MIN_TTL: QueryParameter =
    parameter("min_ttl", Number(0, u64::MAX), "How many seconds the token must still be valid.");
pub(super) const WAIT: QueryParameter =
    parameter("wait", Number(0, 60), "With If-None-Match: how many seconds to wait for another token, at most 60.");
pub(super) const REVOKE: QueryParameter =
    parameter("revoke", Flag, "Whether to revoke the tokens at the identity provider as well.");
pub(super) const PURGE: QueryParameter = parameter(
    "purge",
    Flag,
    "Whether to delete the tombstone as well: at once, or as soon as no refresh or revocation of the grant is pending.",
);
pub(super) const STRICT: QueryParameter = parameter("strict", Flag, "Whether any degradation counts as not ready.");
pub(super) const HELD: QueryParameter = parameter("held", Flag, "Only grants on hold, or only the others.");
pub(super) const LIMIT: QueryParameter =
    parameter("limit", Number(1, 1_000), "How many grants, 1 to 1000; 100 unless given.");
pub(super) const USER: QueryParameter =
    QueryParameter { required: true, ..parameter("user", Text(schema::user), "The user.") };

/// Which grants a list contains.
pub(super) const LISTED: &[QueryParameter] = &[
    parameter("idp", Text(schema::text), "Only at this identity provider."),
    parameter("user", Text(schema::text), "Only of this user."),
    parameter("user_prefix", Text(schema::text), "Only of users whose names start like this."),
    parameter("account", Text(schema::text), "Only of this account."),
    parameter("state", Text(schema::states), "Only in this state, or in one of these, separated by commas."),
    HELD,
    parameter(
        "expiring_before",
        Text(schema::moment),
        "Only grants that need consent after an expiry before this time.",
    ),
    parameter("after", Text(schema::text), "Where the page starts: `next` of the page before."),
    LIMIT,
];
