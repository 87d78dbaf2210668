//! Evidence: what an identity provider said when it refused a token.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Coded;

/// What an identity provider said when it refused a token: for operators, logs and the provider's support. Never
/// holds a response body or any part of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Evidence {
    /// The OAuth error code or the provider's own code; otherwise one of ours, such as `http_502`, `timeout`,
    /// `connect_failed`.
    pub code: String,
    /// A second code of the provider that distinguishes errors with the same `code`, such as Google's `error_subtype`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the provider says about it to people (`error_description`): one line of at most 256 characters, without
    /// secrets. It decides nothing, and may name the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Box<str>>,
    /// The HTTP status, if there was a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's identifier of the request, for its support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Evidence {
    /// Creates evidence of a finding of this program, for which no provider is the source.
    pub(crate) fn ours(code: impl Coded) -> Self {
        Self::of(code.code())
    }

    /// Creates evidence with the code of a provider or of the application, and nothing else.
    pub(crate) fn of(code: impl Into<String>) -> Self {
        Self { code: code.into(), detail: None, description: None, status: None, request_id: None }
    }
}

impl Evidence {
    /// Returns the evidence without the description, which may name the user.
    pub(crate) fn without_description(&self) -> Self {
        Self { description: None, ..self.clone() }
    }
}

impl fmt::Display for Evidence {
    /// Such as `invalid_grant 50173 (400, request 91B2:77AC)`. Omits the description.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, " {detail}")?;
        }
        match (self.status, &self.request_id) {
            (Some(status), Some(id)) => write!(f, " ({status}, request {id})"),
            (Some(status), None) => write!(f, " ({status})"),
            (None, Some(id)) => write!(f, " (request {id})"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_displayed_in_one_line() {
        let all = Evidence {
            code: "invalid_grant".to_owned(),
            detail: Some("50173".to_owned()),
            description: Some("the token has expired".into()),
            status: Some(400),
            request_id: Some("91B2:77AC".to_owned()),
        };
        assert_eq!(all.to_string(), "invalid_grant 50173 (400, request 91B2:77AC)");
        assert_eq!(Evidence::of("timeout").to_string(), "timeout");
    }
}
