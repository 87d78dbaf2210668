//! What an identity provider said when it gave no token.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Coded;

/// What an identity provider said when it gave no token: for people, logs and its support. Never holds a body, nor
/// anything of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Evidence {
    /// The OAuth error code or the provider's own word; else ours, such as `http_502`, `timeout`, `connect_failed`.
    pub code: String,
    /// A further code of the provider that tells errors of the same code apart, such as Google's `error_subtype`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's own name for the request, for its support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Evidence {
    /// Evidence of a finding of this program: nothing that a provider said.
    pub(crate) fn ours(code: impl Coded) -> Self {
        Self::of(code.code())
    }

    /// Evidence with the code of a provider or of the application, and nothing else.
    pub(crate) fn of(code: impl Into<String>) -> Self {
        Self { code: code.into(), detail: None, status: None, request_id: None }
    }
}

impl fmt::Display for Evidence {
    /// As in `invalid_grant 50173 (400, request 91B2:77AC)`.
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
    fn people_read_it_in_one_line() {
        let all = Evidence {
            code: "invalid_grant".to_owned(),
            detail: Some("50173".to_owned()),
            status: Some(400),
            request_id: Some("91B2:77AC".to_owned()),
        };
        assert_eq!(all.to_string(), "invalid_grant 50173 (400, request 91B2:77AC)");
        assert_eq!(Evidence::of("timeout").to_string(), "timeout");
    }
}
