//! Where a provider's responses have their fields.

use std::{collections::BTreeMap, time::Duration};

use strum::{EnumIter, IntoStaticStr};

/// A field of a response of a token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum ResponseField {
    /// The access token.
    AccessToken,
    /// The refresh token.
    RefreshToken,
    /// The type of the access token.
    TokenType,
    /// The lifetime of the access token.
    ExpiresIn,
    /// When the access token expires.
    ExpiresAt,
    /// The lifetime of the refresh token.
    RefreshTokenExpiresIn,
    /// When the refresh token expires.
    RefreshTokenExpiresAt,
    /// The granted scope.
    Scope,
    /// The user's identifier at the provider.
    Subject,
    /// The error code. Together with [`Idp::success_value`](crate::Idp::success_value), a status that is in every
    /// response.
    Error,
}

impl ResponseField {
    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The names of the field in the order of their precedence. RFC 6749, sections 5.1 and 5.2; the rest is what
    /// providers and the libraries that store their responses write. `refresh_token_timeout` and
    /// `authorization_expires_in` are from draft-ietf-oauth-refresh-token-expiration.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::AccessToken => &["access_token"],
            Self::RefreshToken => &["refresh_token"],
            Self::TokenType => &["token_type"],
            Self::ExpiresIn => &["expires_in"],
            Self::ExpiresAt => &["expires_at", "expires_on", "expiry", "expires"],
            Self::RefreshTokenExpiresIn => &[
                "refresh_token_expires_in",
                "refresh_expires_in",
                "x_refresh_token_expires_in",
                "refresh_token_timeout",
                "authorization_expires_in",
            ],
            Self::RefreshTokenExpiresAt => &["refresh_token_expires_at", "refresh_expires_at"],
            Self::Scope => &["scope", "scopes"],
            Self::Subject => &["sub"],
            Self::Error => &["error"],
        }
    }
}

/// Where providers have the code of a refusal that is not one of RFC 6749; only shown.
pub(super) const CODES: [&str; 5] = ["error.code", "error.type", "error.status", "code", "errors.errorType"];

/// Where providers have what they say to people, in the order of their precedence; only shown.
pub(super) const DESCRIPTIONS: [&str; 4] = ["error_description", "error.message", "message", "error"];

/// Fields without a place of their own in [`Layout`].
const OTHERS: [&str; 3] = ["ok", "retry_after", "id_token"];

/// The longest lifetime of an access token that is believed, unless the provider's settings say another.
pub(super) const LONGEST_ACCESS_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3_600);

/// Where the responses of one provider have their fields, and how they are read.
pub(crate) struct Layout<'a> {
    /// The places that differ from RFC 6749, as paths (`body.access_token`).
    pub(super) own: &'a BTreeMap<ResponseField, String>,
    /// The values of the field `error` that mean success.
    pub(super) success: &'a [String],
    /// The fields that error rules read.
    pub(super) more: Vec<&'a str>,
    /// The members that callers get beside the token.
    pub(super) expose: &'a [String],
    pub(super) longest: Duration,
}

impl Layout<'static> {
    /// The layout of RFC 6749.
    pub(super) fn standard() -> Self {
        static NO_OTHER: BTreeMap<ResponseField, String> = BTreeMap::new();
        Self::new(&NO_OTHER)
    }
}

impl<'a> Layout<'a> {
    pub(super) fn new(own: &'a BTreeMap<ResponseField, String>) -> Self {
        Self { own, success: &[], more: Vec::new(), expose: &[], longest: LONGEST_ACCESS_LIFETIME }
    }

    /// The places of a field, in the order of their precedence.
    pub(super) fn paths(&self, field: ResponseField) -> impl Iterator<Item = &'a str> + use<'a> {
        self.own.get(&field).map(String::as_str).into_iter().chain(field.names().iter().copied())
    }

    /// The place of a field where the provider's settings give it one.
    pub(super) fn own_path(&self, field: ResponseField) -> Option<&'a str> {
        self.own.get(&field).map(String::as_str)
    }

    /// All paths that are read.
    pub(super) fn wanted(&self) -> Vec<&'a str> {
        use strum::IntoEnumIterator as _;
        let fields = ResponseField::iter().flat_map(|field| self.paths(field));
        fields.chain(OTHERS).chain(CODES).chain(DESCRIPTIONS).chain(self.more.iter().copied()).collect()
    }
}

/// Returns the path that a JSON pointer (RFC 6901) names.
///
/// # Errors
/// Why it names none.
pub(crate) fn path(pointer: &str) -> Result<String, &'static str> {
    let Some(segments) = pointer.strip_prefix('/') else {
        return Err("must be a JSON pointer such as /body/access_token");
    };
    if segments.split('/').any(|segment| segment.is_empty() || segment.contains('.')) {
        return Err("must be a JSON pointer without empty parts and dots");
    }
    Ok(segments.replace('/', ".").replace("~1", "/").replace("~0", "~"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_becomes_a_path() {
        for (pointer, expected) in [
            ("/body/access_token", Ok("body.access_token")),
            ("/status", Ok("status")),
            ("/tokens/0/value", Ok("tokens.0.value")),
            ("/a~1b/c~0d", Ok("a/b.c~d")),
            ("status", Err("JSON pointer such as")),
            ("", Err("JSON pointer such as")),
            ("/", Err("empty parts")),
            ("/a//b", Err("empty parts")),
            ("/a.b", Err("dots")),
        ] {
            match (path(pointer), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, expected),
                (Err(text), Err(word)) => assert!(text.contains(word), "{pointer}: {text}"),
                (path, expected) => panic!("{pointer}: {path:?}, not {expected:?}"),
            }
        }
    }
}
