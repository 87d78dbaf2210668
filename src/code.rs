//! Every code of the API with its texts: the errors, the reasons beside them, and what this program finds itself.
//!
//! A code is one entry here (and a variant of [`Error`](crate::Error), if callers can meet it). Problem documents, exit
//! codes, `openapi.json` and `token-supervisor why` follow from the entry.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The text behind a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The code.
    pub code: &'static str,
    /// What has happened.
    pub means: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl Why {
    const fn new(code: &'static str, means: &'static str, advice: &'static str) -> Self {
        Self { code, means, advice }
    }

    /// Returns the text of a code of this program or of OAuth (RFC 6749); `None` for a provider's own code.
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
        reasons.chain(NOTES).chain([HTTP_STATUS]).chain(own).chain(PROVIDERS)
    }
}

/// A code with its text. Implemented by the enumerations of this module alone.
pub(crate) trait Coded: Copy {
    /// The code as it stands in documents, logs and rows.
    fn code(self) -> &'static str;
}

/// Declares an enumeration of codes, each variant with its text.
macro_rules! codes {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$doc:meta])* $variant:ident => $why:expr,)*
    }) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// The text behind it.
            $vis const fn why(self) -> Why {
                match self {
                    $(Self::$variant => $why,)*
                }
            }

            /// The code as it stands on the wire.
            $vis const fn as_str(self) -> &'static str {
                self.why().code
            }
        }

        impl Coded for $name {
            fn code(self) -> &'static str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// Declares the error codes: name, HTTP status, exit code, title, meaning and advice.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident $code:literal ($status:literal, exit $exit:literal) $title:literal
        $means:literal $advice:literal)*) => {
        codes! {
            /// An error code of the HTTP API.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            #[non_exhaustive]
            pub enum Code {
                $($(#[$doc])* $variant => Why::new($code, $means, $advice),)*
            }
        }

        impl Code {
            /// The HTTP status of a problem with this code.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                }
            }

            /// The exit code of a command that fails with it.
            pub const fn exit_code(self) -> u8 {
                match self {
                    $(Self::$variant => $exit,)*
                }
            }

            /// The title of a problem document.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
        }
    };
}

error_codes! {
    /// The provider is not configured.
    UnknownIdp "unknown_idp" (404, exit 2)
        "the identity provider is not configured"
        "The key names an identity provider that is not configured."
        "Add a section [idp.NAME] to the configuration, or correct the name."
    /// Nothing is stored for the key.
    NotConnected "not_connected" (404, exit 5)
        "the user is not connected"
        "Nothing is stored for the key, or the grant was disconnected."
        "Send the user through consent, then connect."
    /// The user must consent again.
    ReconnectRequired "reconnect_required" (409, exit 3)
        "the user must go through consent again"
        "The grant can no longer be refreshed: the identity provider ended it, or its outcome cannot be determined. The \
         error says why (`reason`) and since when. The stored grant is kept."
        "Send the user through consent again, then connect. Run `why` with the reason."
    /// The refresh token is connected under another key.
    DuplicateGrant "duplicate_grant" (409, exit 1)
        "the refresh token lives under another key"
        "The refresh token is connected under another key. If two keys spent it, the user would be logged out."
        "Use the other key, or disconnect it first."
    /// The tokens belong to another user.
    AccountMismatch "account_mismatch" (409, exit 1)
        "the grant belongs to another user of the identity provider"
        "The tokens belong to a different user of the identity provider than the tokens that the key holds. Nothing was \
         changed."
        "Disconnect the key first if the user has changed, or connect under another account of the key."
    /// A precondition failed.
    GenerationMismatch "generation_mismatch" (412, exit 1)
        "the grant has changed"
        "The grant has changed since the caller read it."
        "Read it again, and decide again."
    /// The request is wrong.
    InvalidRequest "invalid_request" (400, exit 2)
        "the request is not as it should be"
        "A part of the request is wrong, as the error says; or an identity provider reported this about a request of \
         this program."
        "Correct the request. If an identity provider reported it, check the settings in its section."
    /// No token of the provider lives that long.
    MinTtlUnsatisfiable "min_ttl_unsatisfiable" (400, exit 2)
        "no token lives that long"
        "No token of this identity provider has a lifetime as long as the requested one."
        "Request a shorter lifetime; the error gives the longest."
    /// The API key is missing or unknown.
    Unauthorized "unauthorized" (401, exit 2)
        "the caller is not known"
        "The request has no API key, or an unknown one."
        "Send a key from the configuration: `token-supervisor apikey new` creates one."
    /// The API key does not permit the request.
    Forbidden "forbidden" (403, exit 2)
        "the caller may not do this"
        "The API key does not permit this request: its scopes, identity providers or users are others."
        "Use another key, or add the scope to this one."
    /// Too many callers wait.
    Busy "busy" (429, exit 4)
        "too many callers wait"
        "Too many callers are waiting already."
        "Send fewer requests, and retry after the time that the error gives."
    /// No valid token now.
    Unavailable "unavailable" (503, exit 4)
        "there is no valid token now"
        "There is no valid token now, and it is not known whether there will be one. The error gives the reason."
        "Retry after the time that the error gives; run `why` with the reason."
    /// The deadline passed.
    Timeout "timeout" (504, exit 4)
        "the deadline passed"
        "The deadline passed before there was a response. Of a refresh: the identity provider did not respond."
        "Retry; what was started continues. A refresh is settled automatically."
    /// A defect, or a failure to start.
    Internal "internal" (500, exit 1)
        "a defect of the token supervisor"
        "The program, its configuration or its store has a fault, as the error says."
        "Follow the advice in the error; if there is none, report a bug."
}

codes! {
    /// Why there is no valid token now.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[non_exhaustive]
    pub enum Cause {
        /// The identity provider asked to slow down.
        IdpThrottled => Why::new(
            "idp_throttled",
            "The identity provider asked to slow down (429, or Retry-After).",
            "Nothing: requests resume at the time it gave. If it happens often, lower requests_per_second.",
        ),
        /// The identity provider does not respond, or not as it should.
        IdpDown => Why::new(
            "idp_down",
            "The identity provider failed to respond correctly several times in a row. One request at a time checks \
             whether it has recovered.",
            "Nothing, unless the provider is well: then check the network, and run `token-supervisor doctor`.",
        ),
        /// The grant is on hold.
        Held => Why::new(
            "held",
            "An operator has put the grant on hold: nothing is sent for it, its valid token is served.",
            "Release it when the reason is gone: `token-supervisor release IDP USER`.",
        ),
        /// The identity provider is on hold until an operator releases it.
        IdpHeld => Why::new(
            "idp_held",
            "An operator has put the identity provider on hold: nothing is sent to it, valid tokens are served.",
            "Release it when the reason is gone.",
        ),
        /// A refresh was sent without a response; its outcome is being determined.
        InDoubt => Why::new(
            "in_doubt",
            "A refresh token was sent, and no response is known: it may be spent. Whether it is spent is determined \
             automatically; where that is impossible, the user must reconnect.",
            "Nothing: it is settled automatically. If it ended in reconnect_required, send the user through consent.",
        ),
        /// The identity provider refused our client. An operator must act.
        ClientRefused => Why::new(
            "client_refused",
            "The identity provider refused our client (invalid_client and the like). No grant was changed; one request \
             at a time checks whether the client is accepted again.",
            "Check client_id, client_secret and scope in the section of the identity provider.",
        ),
        /// The grant was issued to a client that is not configured. An operator must act.
        ClientUnknown => Why::new(
            "client_unknown",
            "The grant was issued to a client that is not configured; another client cannot refresh it.",
            "Configure that client as well (clients = [..]), or send the user through consent again.",
        ),
        /// The store does not respond.
        StoreDown => Why::new(
            "store_down",
            "The store does not respond, or its rows cannot be decrypted with the keys.",
            "Check the database, its disk and the key file.",
        ),
        /// The supervisor is shutting down.
        Stopping => Why::new("stopping", "The process is shutting down.", "Retry in a moment: the next process responds."),
        /// Tokens of the grant wait for their revocation at the identity provider.
        Revoking => Why::new(
            "revoking",
            "Tokens of the grant wait for their revocation at the identity provider.",
            "Purge the grant later.",
        ),
        /// The key's actor failed repeatedly and is left alone for a while.
        Failing => Why::new(
            "failing",
            "The actor of this grant failed several times in a minute, and is not restarted for a while.",
            "Report a bug, with the log.",
        ),
    }
}

codes! {
    /// What this program finds itself where an identity provider gave no token and no reason.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum EvidenceCode {
        /// Nothing was sent.
        ConnectFailed => Why::new(
            "connect_failed",
            "No connection to the identity provider could be made: nothing was sent.",
            "Nothing: it is retried. If it persists, check the network, DNS and token_url.",
        ),
        ConnectionLost => Why::new(
            "connection_lost",
            "The connection was lost after the request may have been sent.",
            "Nothing: it is settled automatically.",
        ),
        Timeout => Code::Timeout.why(),
        Unanswered => Why::new(
            "unanswered",
            "The request was sent, and the process that sent it ended before a response arrived.",
            "Nothing: it is settled automatically.",
        ),
        IncompleteAnswer => Why::new(
            "incomplete_answer",
            "The response broke off before its end.",
            "Nothing: it is settled automatically.",
        ),
        UnreadableAnswer => Why::new(
            "unreadable_answer",
            "The response is neither JSON nor a form: usually it is the page of a proxy.",
            "Check token_url, and any proxy between this machine and the provider.",
        ),
        AnswerTooLarge => Why::new(
            "answer_too_large",
            "The response is larger than any token response.",
            "Check token_url.",
        ),
        NoAccessToken => Why::new(
            "no_access_token",
            "The response has no access token.",
            "Check token_url, and the preset.",
        ),
        NoRefreshToken => Why::new(
            "no_refresh_token",
            "The response has no refresh token, although this identity provider issues a new one each time.",
            "Check `rotation` in its section.",
        ),
        ContradictoryAnswer => Why::new(
            "contradictory_answer",
            "The response has both a token and an error.",
            "Report it to the identity provider, with the request's id.",
        ),
        NoRevocationUrl => Why::new(
            "no_revocation_url",
            "The identity provider has no endpoint to revoke tokens.",
            "Nothing: the tokens expire.",
        ),
        BadRequest => Why::new(
            "bad_request",
            "The request could not be built.",
            "Check the URLs and params in its section.",
        ),
        DoesNotOpen => Why::new(
            "does_not_open",
            "The stored refresh token cannot be decrypted with the keys of the key file.",
            "Start with the key file that it was sealed with; restore the file from its backup.",
        ),
        Unknown => Why::new(
            "unknown",
            "The identity provider gave a reason that cannot be shown, because it repeats a secret.",
            "Check the HTTP status beside it.",
        ),
        AccountMismatch => Code::AccountMismatch.why(),
        ClientUnknown => Cause::ClientUnknown.why(),
        InDoubt => Cause::InDoubt.why(),
    }
}

impl EvidenceCode {
    /// Codes whose texts stand among the errors and their causes.
    const SHARED: [&str; 4] = [
        Code::Timeout.as_str(),
        Code::AccountMismatch.as_str(),
        Cause::ClientUnknown.as_str(),
        Cause::InDoubt.as_str(),
    ];
}

/// The reason beside `"refreshed": false`.
pub(crate) const JUST_REFRESHED: Why = Why::new(
    "just_refreshed",
    "The grant has just been refreshed: another refresh would only burden the identity provider.",
    "Nothing.",
);

/// Why nothing was changed ([`Unchanged`](crate::Unchanged)), and how good a token is ([`Warning`](crate::Warning)).
const NOTES: [Why; 6] = [
    JUST_REFRESHED,
    Why::new("already_connected", "The key already holds this refresh token.", "Nothing."),
    Why::new(
        "token_already_spent",
        "This refresh token is an old copy: it was spent here before, and its outcome is stored.",
        "Nothing; if the user has to be connected again, send the user through consent.",
    ),
    Why::new(
        "refresh_in_flight",
        "A refresh is under way or in doubt, and an access token without a refresh token does not replace it.",
        "Nothing: the outcome of the refresh is stored.",
    ),
    Why::new(
        "refresh_failing",
        "The token is valid, but its refresh fails and is retried.",
        "Nothing yet; `status` says why it fails.",
    ),
    Why::new(
        "rejected",
        "A resource server refused the token right after it was issued, so another token would probably be refused too.",
        "Check what the token is allowed to do; it is replaced in a moment.",
    ),
];

const HTTP_STATUS: Why = Why::new(
    "http_STATUS",
    "The identity provider responded with this HTTP status, and with nothing more specific.",
    "Nothing if it is a 5xx: it is retried. Otherwise check the URLs in its section.",
);

/// The error codes of OAuth (RFC 6749, section 5.2) and the most common ones of providers.
const PROVIDERS: [Why; 15] = [
    Why::new(
        "invalid_grant",
        "The identity provider does not accept the refresh token: the user or an administrator revoked it, it has \
         expired, or another program spent it.",
        "Send the user through consent again. If it happens to many users: does another program spend the same grants?",
    ),
    Why::new(
        "bad_refresh_token",
        "GitHub's code for invalid_grant: the refresh token is revoked, expired or spent.",
        "Send the user through consent again.",
    ),
    Why::new(
        "invalid_client",
        "The identity provider does not know our client, or its secret is wrong. No grant was changed.",
        "Check client_id, client_secret and client_auth in its section.",
    ),
    Why::new(
        "incorrect_client_credentials",
        "GitHub's code for invalid_client.",
        "Check client_id and client_secret in its section.",
    ),
    Why::new(
        "unauthorized_client",
        "The identity provider does not permit our client to do this. No grant was changed.",
        "Allow the client refresh tokens there; check client_id.",
    ),
    Why::new(
        "unsupported_grant_type",
        "The identity provider does not support refresh tokens at this URL. No grant was changed.",
        "Check token_url, and what the client is allowed to do there.",
    ),
    Why::new(
        "invalid_scope",
        "The identity provider does not grant the requested scope. No grant was changed.",
        "Check `scope` in its section: usually it is best omitted.",
    ),
    Why::new(
        "invalid_token",
        "The identity provider does not know the token.",
        "Nothing if it was to be revoked: it is already revoked. Otherwise send the user through consent again.",
    ),
    Why::new(
        "interaction_required",
        "The identity provider requires the user to interact with it again.",
        "Send the user through consent again.",
    ),
    Why::new(
        "consent_required",
        "The user or an administrator must consent again.",
        "Send the user through consent again.",
    ),
    Why::new(
        "login_required",
        "The identity provider requires the user to sign in again.",
        "Send the user through consent again.",
    ),
    Why::new(
        "access_denied",
        "The user or an administrator refused.",
        "Ask the user whether access is wanted; then send the user through consent again.",
    ),
    Why::new(
        "temporarily_unavailable",
        "The identity provider is overloaded or under maintenance.",
        "Nothing: it is retried.",
    ),
    Why::new("server_error", "The identity provider reports an internal failure.", "Nothing: it is retried."),
    Why::new(
        "slow_down",
        "The identity provider receives requests too often.",
        "Nothing: it is retried later. If it happens often, lower requests_per_second.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Unchanged, Warning};

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
        let warnings = [Warning::RefreshFailing, Warning::InDoubt, Warning::ReconnectRequired, Warning::Rejected];
        for code in unchanged.map(Unchanged::as_str).into_iter().chain(warnings.map(Warning::as_str)) {
            assert!(Why::of(code).is_some(), "{code}");
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
