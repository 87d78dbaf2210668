//! Published tokens, and tokens as they are handed out to callers.

use std::fmt;

use zeroize::Zeroizing;

use super::{
    AccessToken, Expires, Expiry, Generation, Issued, WallTime,
    standing::{Freshness, Grade, Warning},
};

/// A valid access token. Cloning costs one counter.
#[derive(Clone)]
pub struct Token {
    issued: Issued,
    grade: Grade,
}

impl Token {
    /// Returns the access token.
    pub fn access_token(&self) -> &AccessToken {
        &self.issued.access_token
    }

    /// Returns the token type, usually `Bearer`.
    pub fn token_type(&self) -> &str {
        self.issued.token_type()
    }

    /// Returns the value of an `Authorization` header. The scheme is `Bearer` (RFC 6750), whatever word the provider has for
    /// it (`bearer`, `bot`, `user`), unless the type is one that needs a proof as well, or the provider's settings name
    /// [a scheme](crate::Idp::authorization_scheme).
    pub fn authorization(&self) -> Zeroizing<String> {
        // The registry of token types, and RFC 9449. `PoP` is Microsoft's.
        const WITH_PROOF: [&str; 3] = ["DPoP", "MAC", "PoP"];
        let own = self.issued.scheme();
        let with_proof = WITH_PROOF.into_iter().find(|known| self.token_type().eq_ignore_ascii_case(known));
        let scheme = own.or(with_proof).unwrap_or("Bearer");
        Zeroizing::new(format!("{scheme} {}", self.access_token().expose_secret()))
    }

    /// Returns the granted scope, space-separated; empty if the identity provider did not say.
    pub fn scope(&self) -> &str {
        self.issued.scope()
    }

    /// Returns a member of the token response that is needed to use the token, such as Salesforce's `instance_url`, from
    /// the newest response that had it. The provider's preset and [`Idp::expose`](crate::Idp::expose) say which there are.
    pub fn field(&self, name: &str) -> Option<&serde_json::Value> {
        self.fields()?.get(name)
    }

    /// Returns all such members, if there are any.
    pub(crate) fn fields(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        self.issued.fields()
    }

    /// Returns when the token expires.
    pub fn expiry(&self) -> Expiry {
        match self.issued.expires() {
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
        self.issued.grant_id()
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

impl Token {
    /// Wraps a token for publication: as it is handed out while nothing is wrong with it.
    pub(crate) fn fresh(issued: Issued) -> Self {
        Self { issued, grade: Grade::Fresh }
    }

    pub(super) fn graded(issued: Issued, grade: Grade) -> Self {
        Self { issued, grade }
    }

    #[inline]
    pub(crate) fn issued(&self) -> &Issued {
        &self.issued
    }

    /// Calls `read` with a published token; `None` if it may not be handed out at this time. `read` gets the published token
    /// itself if it is fresh, so that no counter is raised, and otherwise a copy with its freshness and warning.
    #[inline]
    pub(crate) fn lend<R>(&self, wall: WallTime, read: impl FnOnce(&Self) -> R) -> Option<R> {
        Some(match self.issued.grade(wall)? {
            Grade::Fresh => read(self),
            grade => read(&Self::graded(self.issued.clone(), grade)),
        })
    }
}

impl Issued {
    /// Returns the token for a caller; `None` if it may not be handed out.
    #[inline]
    pub(crate) fn hand_out(&self, wall: WallTime) -> Option<Token> {
        let grade = self.grade(wall)?;
        Some(Token::graded(self.clone(), grade))
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
