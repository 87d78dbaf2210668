//! How good a token is: for those who publish it, and for those who get it.

/// The status of a published token. An atomic, so that it changes without a new publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TokenStanding {
    Good,
    /// Not to be handed out: the refresh that is running invalidates it, or a resource server rejected it.
    Withdrawn,
    Failing,
    InDoubt,
    ReconnectRequired,
    Rejected,
}

/// The freshness of a token when it was handed out, in one byte, so that a token fits into two registers.
#[derive(Clone, Copy)]
pub(super) enum Grade {
    Fresh,
    Ageing,
    LastGood(Warning),
}

/// The freshness of a token: its relation to the next refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Not yet due for a refresh.
    Fresh,
    /// Due for a refresh, which is running or about to start.
    Ageing,
    /// Still valid, but the last refresh failed or its outcome is unknown; see [`Token::warning`](crate::Token::warning).
    LastGood,
}

/// Why a token is the last good one and cannot be replaced for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// The last refresh failed and will be retried.
    RefreshFailing,
    /// A refresh was sent and got no response; whether the refresh token is spent is not known.
    InDoubt,
    /// The user must go through consent again; this token is the last one.
    ReconnectRequired,
    /// A resource server rejected this token right after it was issued, so that it would probably reject a new one too:
    /// the token is replaced a little later, not immediately.
    Rejected,
    /// The grant has no refresh token: it ends with its access token. A warning of the grant's
    /// [status](crate::Status::warning), not of a token.
    NoRefreshToken,
}

impl Freshness {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Ageing => "ageing",
            Self::LastGood => "last_good",
        }
    }
}

impl Warning {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefreshFailing => "refresh_failing",
            Self::InDoubt => "in_doubt",
            Self::ReconnectRequired => "reconnect_required",
            Self::Rejected => "rejected",
            Self::NoRefreshToken => "no_refresh_token",
        }
    }
}
