//! Published tokens, and tokens as they are handed out to callers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use zeroize::Zeroizing;

use super::{AccessToken, BootTime, Expires, Expiry, Exposed, Generation, WallTime};

/// A valid access token. Cloning costs one counter.
#[derive(Clone)]
pub struct Token {
    issued: Arc<Issued>,
    grade: Grade,
}

/// The freshness of a token when it was handed out, in one byte, so that a token fits into two registers.
#[derive(Clone, Copy)]
enum Grade {
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
    /// Still valid, but the last refresh failed or its outcome is unknown; see [`Token::warning`].
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

impl Token {
    /// Returns the access token.
    pub fn access_token(&self) -> &AccessToken {
        &self.issued.access_token
    }

    /// Returns the token type, usually `Bearer`.
    pub fn token_type(&self) -> &str {
        &self.issued.token_type
    }

    /// Returns the value of an `Authorization` header. The scheme is `Bearer` (RFC 6750), whatever word the provider has for
    /// it (`bearer`, `bot`, `user`), unless the type is one that needs a proof as well, or the provider's settings name
    /// [a scheme](crate::Idp::authorization_scheme).
    pub fn authorization(&self) -> Zeroizing<String> {
        // The registry of token types, and RFC 9449. `PoP` is Microsoft's.
        const WITH_PROOF: [&str; 3] = ["DPoP", "MAC", "PoP"];
        let own = self.issued.beside.as_ref().and_then(|beside| beside.scheme.as_deref());
        let with_proof = WITH_PROOF.into_iter().find(|known| self.token_type().eq_ignore_ascii_case(known));
        let scheme = own.or(with_proof).unwrap_or("Bearer");
        Zeroizing::new(format!("{scheme} {}", self.access_token().expose_secret()))
    }

    /// Returns the granted scope, space-separated; empty if the identity provider did not say.
    pub fn scope(&self) -> &str {
        &self.issued.scope
    }

    /// Returns a member of the token response that is needed to use the token, such as Salesforce's `instance_url`, from
    /// the newest response that had it. The provider's preset and [`Idp::expose`](crate::Idp::expose) say which there are.
    pub fn field(&self, name: &str) -> Option<&serde_json::Value> {
        self.fields()?.get(name)
    }

    /// Returns all such members, if there are any.
    pub(crate) fn fields(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        self.issued.beside.as_deref().map(|beside| &beside.exposed.0)
    }

    /// Returns when the token expires.
    pub fn expiry(&self) -> Expiry {
        match self.issued.expires {
            Expires::At(time) => Expiry::At(time.into()),
            Expires::Never => Expiry::Never,
            Expires::Unknown => Expiry::Unknown,
        }
    }

    /// Returns the generation of the stored grant that the token belongs to.
    pub fn generation(&self) -> Generation {
        self.issued.generation
    }

    /// Returns the short public name of the grant, for logs and support: see [`Status::grant_id`](crate::Status::grant_id).
    pub fn grant_id(&self) -> &str {
        &self.issued.grant_id
    }

    /// Returns the freshness at the time at which the token was handed out.
    pub fn freshness(&self) -> Freshness {
        match self.grade {
            Grade::Fresh => Freshness::Fresh,
            Grade::Ageing => Freshness::Ageing,
            Grade::LastGood(_) => Freshness::LastGood,
        }
    }

    /// Returns why the token is the last good one, if it is.
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
            .field("grant_id", &self.grant_id())
            .field("generation", &self.generation())
            .field("expiry", &self.expiry())
            .field("freshness", &self.freshness())
            .field("warning", &self.warning())
            .finish_non_exhaustive()
    }
}

/// The token that is published for a key, with everything that the hot path needs to decide about it.
///
/// Shared by the snapshot, the key's actor and every [`Token`] handed out.
///
/// The order of the fields puts what a read looks at beside the counter that it raises, not one cache line further.
#[repr(C)]
pub(crate) struct Issued {
    /// The expiration by the boot-time clock, which a step of the wall clock does not move; `BootTime::MAX` if none.
    boot_end: BootTime,
    wall_end: WallTime,
    /// When the token is due for a refresh; `WallTime::MAX` if never.
    due_at: WallTime,
    /// The last use, in coarse ticks, so that the actor notices when the key is idle.
    pub(crate) used: AtomicU32,
    standing: AtomicU8,
    /// Whether the token is so far in the journal alone.
    pub(crate) journaled: bool,
    pub(crate) generation: Generation,
    pub(crate) expires: Expires,
    pub(crate) grant_id: Box<str>,
    pub(crate) access_token: AccessToken,
    pub(crate) token_type: Box<str>,
    pub(crate) scope: Box<str>,
    /// What there is beside the token; most providers have nothing.
    beside: Option<Box<Beside>>,
}

/// What callers need to use a token, beside the token.
struct Beside {
    exposed: Exposed,
    /// The scheme of `Authorization` headers, where the provider has its own.
    scheme: Option<Box<str>>,
}

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

impl Issued {
    #[expect(clippy::too_many_arguments, reason = "one constructor of a plain record, called in two places")]
    pub(crate) fn new(
        grant_id: &str,
        access_token: AccessToken,
        token_type: &str,
        scope: &str,
        expires: Expires,
        generation: Generation,
        due_at: Option<WallTime>,
        boot_end: Option<BootTime>,
        journaled: bool,
    ) -> Self {
        let (grant_id, token_type, scope) = (grant_id.into(), token_type.into(), scope.into());
        let (standing, used) = (AtomicU8::new(TokenStanding::Good as u8), AtomicU32::new(0));
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
            grant_id,
            access_token,
            token_type,
            scope,
            beside: None,
        }
    }

    /// Adds what callers need beside the token.
    pub(crate) fn beside(mut self, exposed: &Exposed, scheme: Option<&str>) -> Self {
        let needed = !exposed.0.is_empty() || scheme.is_some();
        self.beside = needed.then(|| Box::new(Beside { exposed: exposed.clone(), scheme: scheme.map(Box::from) }));
        self
    }

    #[inline]
    pub(crate) fn standing(&self) -> TokenStanding {
        const ALL: [TokenStanding; 6] = [
            TokenStanding::Good,
            TokenStanding::Withdrawn,
            TokenStanding::Failing,
            TokenStanding::InDoubt,
            TokenStanding::ReconnectRequired,
            TokenStanding::Rejected,
        ];
        ALL[usize::from(self.standing.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(crate) fn set_standing(&self, standing: TokenStanding) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    /// Returns whether the token is valid at these times; both clocks must agree.
    #[inline]
    pub(crate) fn valid_at(&self, wall: WallTime, boot: BootTime) -> bool {
        wall < self.wall_end && boot < self.boot_end
    }

    /// Returns the token for a caller; `None` if it may not be handed out.
    #[inline]
    pub(crate) fn hand_out(self: &Arc<Self>, wall: WallTime) -> Option<Token> {
        let grade = match self.standing() {
            TokenStanding::Good if self.due_at <= wall => Grade::Ageing,
            TokenStanding::Good => Grade::Fresh,
            TokenStanding::Withdrawn => return None,
            TokenStanding::Failing => Grade::LastGood(Warning::RefreshFailing),
            TokenStanding::InDoubt => Grade::LastGood(Warning::InDoubt),
            TokenStanding::ReconnectRequired => Grade::LastGood(Warning::ReconnectRequired),
            TokenStanding::Rejected => Grade::LastGood(Warning::Rejected),
        };
        Some(Token { issued: Arc::clone(self), grade })
    }

    /// Records a use in this tick. Written only once a tick, so that readers on many cores do not contend for the cache
    /// line.
    #[inline]
    pub(crate) fn mark_used(&self, tick: u32) {
        if self.used.load(Ordering::Relaxed) != tick {
            self.used.store(tick, Ordering::Relaxed);
        }
    }
}
