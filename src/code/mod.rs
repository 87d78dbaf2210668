//! Every code of the API with its texts: the errors, the reasons beside them, and what this program finds itself.
//!
//! A code is one entry here (and a variant of [`Error`](crate::Error), if callers can meet it). Problem documents, exit
//! codes, `openapi.json` and `token-supervisor why` follow from the entry.

mod error;
mod evidence;
pub(crate) mod texts;
mod why;

use self::texts::{HTTP_STATUS, NOTES, PROVIDERS, STATES};
pub use self::{
    error::{Cause, Code},
    why::Why,
};
pub(crate) use self::{
    evidence::{ConnectFault, EvidenceCode},
    why::Coded,
};

impl Why {
    /// Returns the text of a code or a state of this program, or of a code of OAuth (RFC 6749); `None` for a provider's own
    /// code.
    pub fn of(code: &str) -> Option<Self> {
        let status = code.strip_prefix("http_").and_then(|rest| rest.parse().ok());
        let status = status.is_some_and(|status: u16| (100..600).contains(&status));
        let code = if status { HTTP_STATUS.code } else { code };
        Self::all().find(|why| why.code == code)
    }

    /// Returns every text, each code once. `http_STATUS` stands for any HTTP status.
    pub fn all() -> impl Iterator<Item = Self> {
        let reasons = Code::ALL.iter().map(|code| code.why()).chain(Cause::ALL.iter().map(|cause| cause.why()));
        let own =
            EvidenceCode::ALL.iter().map(|code| code.why()).filter(|why| !EvidenceCode::SHARED.contains(&why.code));
        let connecting = ConnectFault::ALL.iter().map(|fault| fault.why());
        reasons.chain(NOTES).chain(STATES).chain([HTTP_STATUS]).chain(own).chain(connecting).chain(PROVIDERS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{ErrorRule, Unchanged, Warning, presets};

    #[test]
    fn every_code_has_one_text() {
        let mut seen = BTreeSet::new();
        for Why { code, means, advice } in Why::all() {
            assert!(seen.insert(code), "{code} twice");
            assert!([means, advice].iter().all(|text| text.ends_with(['.', '?'])), "{code}");
        }
        for code in EvidenceCode::ALL {
            assert_eq!(Why::of(code.as_str()), Some(code.why()));
        }
        let unchanged = [Unchanged::AlreadyConnected, Unchanged::TokenAlreadySpent, Unchanged::RefreshInFlight];
        let warnings = [
            Warning::RefreshFailing,
            Warning::InDoubt,
            Warning::ReconnectRequired,
            Warning::Rejected,
            Warning::NoRefreshToken,
        ];
        for code in unchanged.map(Unchanged::as_str).into_iter().chain(warnings.map(Warning::as_str)) {
            assert!(Why::of(code).is_some(), "{code}");
        }
        for state in crate::State::ALL.into_iter().chain([crate::State::Absent]) {
            assert!(Why::of(state.as_str()).is_some(), "{state}");
        }
        let idps =
            [presets::github("", ""), presets::slack("", ""), presets::salesforce("", ""), presets::box_com("", "")];
        for error in idps.iter().flat_map(|idp| &idp.errors).filter_map(ErrorRule::error_code) {
            assert!(Why::of(error).is_some(), "{error}");
        }
        assert_eq!(Why::of("http_502").map(|why| why.code), Some("http_STATUS"));
        assert_eq!([Why::of("http_x"), Why::of("http_999")], [None, None]);
    }

    #[test]
    fn the_stored_name_of_a_cause_is_its_code() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }
}
