//! The bodies that hand out tokens.

use std::{borrow::Cow, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{ProblemBody, secret, status::expiry_parts, time};
use crate::{AccessToken, Token};

/// A token that is handed out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Token"))]
#[non_exhaustive]
pub struct TokenBody {
    /// The token.
    #[serde(with = "secret")]
    #[cfg_attr(feature = "web", schemars(with = "String"))]
    pub access_token: AccessToken,
    /// Its type (RFC 6749, section 7.1), such as `Bearer`.
    pub token_type: String,
    /// Whether its expiry is known.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::expiry"))]
    pub expiry: Cow<'static, str>,
    /// When it expires; null unless `expiry` is `at`.
    #[serde(with = "time::optional")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::time"))]
    pub expires_at: Option<SystemTime>,
    /// How many seconds it is still valid; null unless `expiry` is `at`.
    #[cfg_attr(feature = "web", schemars(with = "Option<i64>"))]
    pub expires_in: Option<u64>,
    /// Its scope, as the provider wrote it.
    pub scope: String,
    /// Members of the provider's response that are needed to use the token, such as Salesforce's `instance_url`, if there are
    /// any.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::object"))]
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// The generation of the grant that it belongs to.
    pub generation: u64,
    /// How it relates to its next refresh.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::freshness"))]
    pub freshness: Cow<'static, str>,
    /// Why it is only the last good token, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::warning"))]
    pub warning: Option<Cow<'static, str>>,
}

impl TokenBody {
    /// Returns the body of a token at this time.
    pub fn of(token: &Token, now: SystemTime) -> Self {
        let (expiry, expires_at) = expiry_parts(token.expiry());
        Self {
            access_token: token.access_token().clone(),
            token_type: token.token_type().to_owned(),
            expiry: expiry.into(),
            expires_at,
            expires_in: expires_at.map(|end| end.duration_since(now).unwrap_or_default().as_secs()),
            scope: token.scope().to_owned(),
            fields: token.fields().cloned().unwrap_or_default(),
            generation: token.generation().get(),
            freshness: token.freshness().as_str().into(),
            warning: token.warning().map(|warning| warning.as_str().into()),
        }
    }
}

/// The tokens of a batch.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Tokens"))]
#[non_exhaustive]
pub struct TokensBody {
    /// One result for each requested grant, in the order of the request.
    pub items: Vec<TokenResult>,
}

/// A token, or why there is none.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(transform = super::schema::result))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenResult {
    /// The token.
    Token(TokenBody),
    /// Why there is none.
    Problem(ProblemBody),
}
