//! A token that can be handed out, and how good it is at the moment of handing out.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use super::{AccessToken, BootTime, Expires, Expiry, Generation, WallTime};

/// A valid access token. Cloning costs one counter.
#[derive(Clone)]
pub struct Token {
    issued: Arc<Issued>,
    grade: Grade,
}

/// How good a token was when it was handed out: one byte, so that a token travels in two registers.
#[derive(Clone, Copy)]
enum Grade {
    Fresh,
    Ageing,
    LastGood(Warning),
}

/// How a token relates to its next refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Not yet due for a refresh.
    Fresh,
    /// Due: a refresh runs or is about to.
    Ageing,
    /// Still valid, but the last refresh failed or nobody knows its outcome; see [`Token::warning`].
    LastGood,
}

/// Why a token is only the last good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// The last refresh failed and is tried again.
    RefreshFailing,
    /// A refresh was sent and not answered; whether the refresh token is spent is not known.
    InDoubt,
    /// The user must go through consent again; this token is the last one.
    ReconnectRequired,
    /// A resource server refused this token right after it was issued, so that another one would hardly fare better:
    /// it is replaced in a moment, not at once.
    Rejected,
}

impl Freshness {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Ageing => "ageing",
            Self::LastGood => "last_good",
        }
    }
}

impl Warning {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefreshFailing => "refresh_failing",
            Self::InDoubt => "in_doubt",
            Self::ReconnectRequired => "reconnect_required",
            Self::Rejected => "rejected",
        }
    }
}

impl Token {
    /// The access token.
    pub fn access_token(&self) -> &AccessToken {
        &self.issued.access_token
    }

    /// Its type, usually `Bearer`.
    pub fn token_type(&self) -> &str {
        &self.issued.token_type
    }

    /// The value of an `Authorization` header (RFC 6750). Some identity providers write `bearer` where few resource servers
    /// take it.
    #[cfg(any(feature = "web", feature = "client"))]
    pub(crate) fn authorization(&self) -> String {
        let scheme = if self.token_type().eq_ignore_ascii_case("bearer") { "Bearer" } else { self.token_type() };
        format!("{scheme} {}", self.access_token().expose_secret())
    }

    /// The granted scope, space-separated; empty if the identity provider did not say.
    pub fn scope(&self) -> &str {
        &self.issued.scope
    }

    /// When it ends.
    pub fn expiry(&self) -> Expiry {
        match self.issued.expires {
            Expires::At(time) => Expiry::At(time.into()),
            Expires::Never => Expiry::Never,
            Expires::Unknown => Expiry::Unknown,
        }
    }

    /// Which of the key's stored grants it belongs to.
    pub fn generation(&self) -> Generation {
        self.issued.generation
    }

    /// How it related to its next refresh when it was handed out.
    pub fn freshness(&self) -> Freshness {
        match self.grade {
            Grade::Fresh => Freshness::Fresh,
            Grade::Ageing => Freshness::Ageing,
            Grade::LastGood(_) => Freshness::LastGood,
        }
    }

    /// Why it is only the last good one, if it is.
    pub fn warning(&self) -> Option<Warning> {
        match self.grade {
            Grade::LastGood(warning) => Some(warning),
            Grade::Fresh | Grade::Ageing => None,
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("generation", &self.generation())
            .field("expiry", &self.expiry())
            .field("freshness", &self.freshness())
            .field("warning", &self.warning())
            .finish_non_exhaustive()
    }
}

/// What is published for a key: the token with what the hot path needs to judge it.
///
/// Shared by the snapshot, the key's actor and every [`Token`] handed out.
///
/// In this order so that what a read looks at lies beside the counter that it raises, not one cache line further.
#[repr(C)]
pub(crate) struct Issued {
    /// Its end by the boot-time clock, which a step of the wall clock does not move; `BootTime::MAX` without one.
    boot_end: BootTime,
    wall_end: WallTime,
    /// From here on it is due; `WallTime::MAX` if it never is by itself.
    due_at: WallTime,
    /// Last use in coarse ticks; lets the actor notice that nobody asks any more.
    pub(crate) used: AtomicU32,
    standing: AtomicU8,
    /// Whether only the journal has it so far.
    pub(crate) journaled: bool,
    pub(crate) generation: Generation,
    pub(crate) expires: Expires,
    pub(crate) access_token: AccessToken,
    pub(crate) token_type: Box<str>,
    pub(crate) scope: Box<str>,
}

/// What the last attempt left of a published token. An atomic, so that it changes without a new publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    Good,
    /// Not to be handed out: the refresh that is under way ends it, or a resource server refused it.
    Withdrawn,
    Failing,
    InDoubt,
    ReconnectRequired,
    Rejected,
}

impl Issued {
    #[expect(clippy::too_many_arguments, reason = "one constructor, called in two places, of a plain record")]
    pub(crate) fn new(
        access_token: AccessToken,
        token_type: &str,
        scope: &str,
        expires: Expires,
        generation: Generation,
        due_at: Option<WallTime>,
        boot_end: Option<BootTime>,
        journaled: bool,
    ) -> Self {
        let (token_type, scope) = (token_type.into(), scope.into());
        let (standing, used) = (AtomicU8::new(Standing::Good as u8), AtomicU32::new(0));
        let [wall_end, due_at] = [expires.at(), due_at].map(|time| time.unwrap_or(WallTime::MAX));
        let boot_end = boot_end.unwrap_or(BootTime::MAX);
        Self {
            boot_end,
            wall_end,
            due_at,
            used,
            standing,
            journaled,
            generation,
            expires,
            access_token,
            token_type,
            scope,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        const ALL: [Standing; 6] = [
            Standing::Good,
            Standing::Withdrawn,
            Standing::Failing,
            Standing::InDoubt,
            Standing::ReconnectRequired,
            Standing::Rejected,
        ];
        ALL[usize::from(self.standing.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    /// Whether it lives at least until these times; both clocks must agree.
    pub(crate) fn valid_at(&self, wall: WallTime, boot: BootTime) -> bool {
        wall < self.wall_end && boot < self.boot_end
    }

    /// The token as a caller gets it now; `None` if it may not be handed out.
    pub(crate) fn hand_out(self: &Arc<Self>, wall: WallTime) -> Option<Token> {
        let grade = match self.standing() {
            Standing::Good if self.due_at <= wall => Grade::Ageing,
            Standing::Good => Grade::Fresh,
            Standing::Withdrawn => return None,
            Standing::Failing => Grade::LastGood(Warning::RefreshFailing),
            Standing::InDoubt => Grade::LastGood(Warning::InDoubt),
            Standing::ReconnectRequired => Grade::LastGood(Warning::ReconnectRequired),
            Standing::Rejected => Grade::LastGood(Warning::Rejected),
        };
        Some(Token { issued: Arc::clone(self), grade })
    }

    /// Remembers that somebody asked in this tick. Written once a tick only, so that readers on many
    /// cores do not fight for the cache line.
    pub(crate) fn mark_used(&self, tick: u32) {
        if self.used.load(Ordering::Relaxed) != tick {
            self.used.store(tick, Ordering::Relaxed);
        }
    }
}
