//! The error codes, and why there is no valid token now.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::why::{Coded, Why, codes};

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

            /// The exit code of a command that fails with it, unless an operator must act first: see
            /// [`ProblemBody::exit_code`](crate::api::ProblemBody::exit_code).
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
    /// Too many callers wait, or this one sends too many requests.
    Busy "busy" (429, exit 4)
        "too many requests"
        "Too many callers are waiting already, or this caller sends more requests than it may."
        "Send fewer requests, and retry after the time that the error gives."
    /// No valid token now.
    Unavailable "unavailable" (503, exit 4)
        "there is no valid token now"
        "There is no valid token now, and it is not known whether there will be one. The error gives the reason."
        "Run `why` with the reason. Unless it says that an operator must act, retry after the time that the error gives."
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
        /// The identity provider refuses unusually many refresh tokens. An operator should look.
        RefusalSurge => Why::new(
            "refusal_surge",
            "The identity provider suddenly refused the refresh tokens of many users, as some do while they restart. \
             Nothing more is sent but one request from time to time, so that no more users are sent through consent. When \
             one is accepted, those that were refused are tried once more.",
            "Check the identity provider. If the refusals are right, or it works again, release it: \
             `token-supervisor release IDP`; retry single grants with `token-supervisor retry IDP USER`.",
        ),
        /// The identity provider refuses with a code that no rule knows. An operator must act.
        UnknownError => Why::new(
            "unknown_error",
            "For a quarter of an hour the identity provider has refused with a code that neither RFC 6749 nor the preset \
             knows, so it is not known who can help. It is retried.",
            "Look at the code in the status, and say what it means: [[idp.NAME.errors]] with code = \"..\" and meaning = \
             \"reconnect\" or \"operator\" or \"transient\".",
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
            "Check client_id, client_secret and scope in the section of the identity provider, and what the client is \
             allowed to do there. Do not send users through consent: their grants are as they were.",
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
        /// There is no space left for the response to a refresh.
        DiskFull => Why::new(
            "disk_full",
            "The disk of the store or of the journal is full. No refresh token is sent, because its response could not be \
             stored; valid tokens are served.",
            "Free some space on that disk: refreshes go on by themselves.",
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
