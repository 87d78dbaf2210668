//! The error of the public API: each variant says what the caller does next.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

pub(crate) use crate::code::Cause;
use crate::{code::Code, model::Generation};

/// Why a request was not granted.
///
/// Small and `Clone`, so that one failure can be returned to every caller that waited for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key names an identity provider that is not configured. Configure it, or correct the name.
    #[error("the identity provider is not configured: configure it, or correct its name")]
    UnknownIdp,
    /// Nothing is stored for the key. Connect the user.
    #[error("not connected: send the user through consent")]
    NotConnected,
    /// Send the user through consent again, then connect.
    #[error("reconnect required ({reason}): send the user through consent again")]
    ReconnectRequired {
        /// The identity provider's error code, or one of this program: see [`Why`](crate::Why).
        reason: String,
        /// Since when.
        since: SystemTime,
    },
    /// This refresh token is connected under another key. One grant belongs to one key.
    #[error("this refresh token is connected under another key: use that key, or disconnect it first")]
    DuplicateGrant,
    /// The grant belongs to another user of the identity provider than the grant that the key holds, which is kept.
    /// Disconnect that grant first, or connect this one under another account of the key.
    #[error(
        "this grant belongs to another user of the identity provider: disconnect the key first, or use another account"
    )]
    AccountMismatch,
    /// The key is not at the generation that the request expects. Read its state again.
    #[error("the key is at generation {generation}, not at the expected one: read its state again")]
    GenerationMismatch {
        /// The generation of the key; 0 if nothing was ever stored for it.
        generation: Generation,
    },
    /// The request is wrong. Correct it.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// No token of this identity provider has such a lifetime. Request a shorter one.
    #[error("no token has a lifetime that long: request a min_ttl of at most {} s", .max_ttl.as_secs())]
    MinTtlUnsatisfiable {
        /// The longest `min_ttl` that can be requested.
        max_ttl: Duration,
    },
    /// Too many callers are waiting already. Send fewer requests.
    #[error("too many callers wait for this token: try again in {}", Rough(*.retry_after))]
    Busy {
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// There is no valid token now, or the request cannot be carried out now. Retry later.
    #[error("unavailable ({cause}): {}try again in {}", .cause.remedy(), Rough(*.retry_after))]
    Unavailable {
        /// How long to wait before a retry.
        retry_after: Duration,
        /// Why there is none.
        cause: Cause,
    },
    /// The deadline passed; a refresh that was started continues. Retry.
    #[error("the deadline passed before there was a valid token: try again")]
    Timeout,
    /// The supervisor was shut down. Start a new one.
    #[error("the token supervisor was shut down: start a new one")]
    ShutDown,
    /// The configuration is not valid. Correct it.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The store cannot be opened, or the keys do not fit it.
    #[error("{0}")]
    Start(String),
    /// Another process has the store open. Use that process, or wait until it has ended.
    #[error("{0}")]
    StoreInUse(String),
    /// The journal cannot be opened.
    #[error("{0}")]
    Journal(String),
    /// A bug in this crate. Report it.
    #[error("internal error ({0}): please report it")]
    Internal(&'static str),
}

/// A duration for people, rounded up, so that a retry is never early.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX) {
            seconds @ ..120 => write!(f, "{} s", seconds.max(1)),
            seconds @ 120..7_200 => write!(f, "{} min", seconds.div_ceil(60)),
            seconds => write!(f, "{} h", seconds.div_ceil(3_600)),
        }
    }
}

impl Cause {
    /// What an operator has to do before a retry can succeed.
    fn remedy(self) -> &'static str {
        match self {
            Self::Held => "release the grant, then ",
            Self::IdpHeld => "release the identity provider, then ",
            Self::ClientRefused => "an operator must check the client's id, secret and scope; ",
            Self::UnknownError => "an operator must say in the configuration what the provider's error code means; ",
            Self::ClientUnknown => "an operator must configure the client that the grant was issued to; ",
            Self::IdpThrottled
            | Self::IdpDown
            | Self::RefusalSurge
            | Self::InDoubt
            | Self::StoreDown
            | Self::DiskFull
            | Self::Stopping
            | Self::Revoking
            | Self::Failing => "",
        }
    }

    /// Whether it passes without an operator.
    pub fn is_transient(self) -> bool {
        self.remedy().is_empty()
    }
}

impl Error {
    /// The error code of the HTTP API as text.
    pub fn code(&self) -> &'static str {
        self.kind().as_str()
    }

    /// The error code of the HTTP API, with its status, texts and exit code.
    pub fn kind(&self) -> Code {
        match self {
            Self::UnknownIdp => Code::UnknownIdp,
            Self::NotConnected => Code::NotConnected,
            Self::ReconnectRequired { .. } => Code::ReconnectRequired,
            Self::DuplicateGrant => Code::DuplicateGrant,
            Self::AccountMismatch => Code::AccountMismatch,
            Self::GenerationMismatch { .. } => Code::GenerationMismatch,
            Self::InvalidRequest(_) => Code::InvalidRequest,
            Self::MinTtlUnsatisfiable { .. } => Code::MinTtlUnsatisfiable,
            Self::Busy { .. } => Code::Busy,
            Self::Unavailable { .. } | Self::ShutDown => Code::Unavailable,
            Self::Timeout => Code::Timeout,
            Self::Configuration(_) | Self::Start(_) | Self::StoreInUse(_) | Self::Journal(_) | Self::Internal(_) => {
                Code::Internal
            }
        }
    }

    /// Whether the error passes without an operator or a user.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Timeout => true,
            Self::Unavailable { cause, .. } => cause.is_transient(),
            _ => false,
        }
    }

    /// How long to wait before a retry, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every error, with its code, whether it is transient, and how long to wait.
    pub(crate) fn every() -> Vec<(Error, &'static str, bool, Option<Duration>)> {
        let second = Duration::from_secs(1);
        let unavailable = |cause| Error::Unavailable { retry_after: second, cause };
        let reconnect = Error::ReconnectRequired { reason: "invalid_grant".into(), since: SystemTime::UNIX_EPOCH };
        vec![
            (Error::UnknownIdp, "unknown_idp", false, None),
            (Error::NotConnected, "not_connected", false, None),
            (reconnect, "reconnect_required", false, None),
            (Error::DuplicateGrant, "duplicate_grant", false, None),
            (Error::AccountMismatch, "account_mismatch", false, None),
            (Error::GenerationMismatch { generation: Generation(41) }, "generation_mismatch", false, None),
            (Error::InvalidRequest("x"), "invalid_request", false, None),
            (Error::MinTtlUnsatisfiable { max_ttl: second }, "min_ttl_unsatisfiable", false, None),
            (Error::Busy { retry_after: second }, "busy", true, Some(second)),
            (unavailable(Cause::IdpThrottled), "unavailable", true, Some(second)),
            (unavailable(Cause::IdpDown), "unavailable", true, Some(second)),
            (unavailable(Cause::RefusalSurge), "unavailable", true, Some(second)),
            (unavailable(Cause::UnknownError), "unavailable", false, Some(second)),
            (unavailable(Cause::InDoubt), "unavailable", true, Some(second)),
            (unavailable(Cause::StoreDown), "unavailable", true, Some(second)),
            (unavailable(Cause::Revoking), "unavailable", true, Some(second)),
            (unavailable(Cause::Stopping), "unavailable", true, Some(second)),
            (unavailable(Cause::Failing), "unavailable", true, Some(second)),
            (unavailable(Cause::Held), "unavailable", false, Some(second)),
            (unavailable(Cause::IdpHeld), "unavailable", false, Some(second)),
            (unavailable(Cause::ClientRefused), "unavailable", false, Some(second)),
            (unavailable(Cause::ClientUnknown), "unavailable", false, Some(second)),
            (Error::Timeout, "timeout", true, None),
            (Error::ShutDown, "unavailable", false, None),
            (Error::Configuration("x: do y".into()), "internal", false, None),
            (Error::Start("x: do y".into()), "internal", false, None),
            (Error::StoreInUse("x: do y".into()), "internal", false, None),
            (Error::Journal("x: do y".into()), "internal", false, None),
            (Error::Internal("x"), "internal", false, None),
        ]
    }

    #[test]
    fn every_error_says_what_the_caller_does_next() {
        for (error, code, transient, retry_after) in every() {
            let text = error.to_string();
            assert!(text.contains(": "), "{text}");
            assert_eq!((error.code(), error.is_transient(), error.retry_after()), (code, transient, retry_after));
        }
    }

    #[test]
    fn times_are_rounded_up() {
        for (milliseconds, shown) in
            [(0, "1 s"), (1_001, "2 s"), (119_999, "2 min"), (599_999, "10 min"), (86_400_000, "24 h")]
        {
            assert_eq!(Rough(Duration::from_millis(milliseconds)).to_string(), shown);
        }
    }
}
