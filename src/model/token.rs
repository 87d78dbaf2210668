//! Published tokens, and tokens as they are handed out to callers.

use std::fmt;

use zeroize::Zeroizing;

use super::{
    AccessToken, Expires, Expiry, Generation, Issued, IssuedRef, WallTime,
    standing::{Freshness, Grade, Warning},
};

/// A valid access token. Cloning costs one counter.
#[derive(Clone)]
pub struct Token {
    issued: Issued,
    grade: Grade,
}

/// A valid access token that is lent: see [`TokenSupervisor::with`](crate::TokenSupervisor::with). Its methods are those of
/// [`Token`].
#[derive(Clone, Copy)]
pub struct TokenRef<'a> {
    issued: IssuedRef<'a>,
    grade: Grade,
}

impl Token {
    /// Returns the access token.
    pub fn access_token(&self) -> &AccessToken {
        self.lent().access_token()
    }

    /// Returns the token type, usually `Bearer`.
    pub fn token_type(&self) -> &str {
        self.lent().token_type()
    }

    /// Returns the value of an `Authorization` header. The scheme is `Bearer` (RFC 6750), whatever word the provider has for
    /// it (`bearer`, `bot`, `user`), unless the type is one that needs a proof as well, or the provider's settings name
    /// [a scheme](crate::Idp::authorization_scheme).
    pub fn authorization(&self) -> Zeroizing<String> {
        self.lent().authorization()
    }

    /// Returns the granted scope, space-separated; empty if the identity provider did not say.
    pub fn scope(&self) -> &str {
        self.lent().scope()
    }

    /// Returns a member of the token response that is needed to use the token, such as Salesforce's `instance_url`, from
    /// the newest response that had it. The provider's preset and [`Idp::expose`](crate::Idp::expose) say which there are.
    pub fn field(&self, name: &str) -> Option<&serde_json::Value> {
        self.fields()?.get(name)
    }

    /// Returns all such members, if there are any.
    pub(crate) fn fields(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        self.issued.by_ref().head().fields()
    }

    /// Returns when the token expires.
    pub fn expiry(&self) -> Expiry {
        self.lent().expiry()
    }

    /// Returns the generation of the stored grant that the token belongs to.
    pub fn generation(&self) -> Generation {
        self.lent().generation()
    }

    /// Returns the short public name of the grant, for logs and support: see [`Status::grant_id`](crate::Status::grant_id).
    pub fn grant_id(&self) -> &str {
        self.lent().grant_id()
    }

    /// Returns the freshness at the time at which the token was handed out.
    pub fn freshness(&self) -> Freshness {
        self.lent().freshness()
    }

    /// Returns why the token is the last good one, if it is.
    pub fn warning(&self) -> Option<Warning> {
        self.lent().warning()
    }

    #[inline]
    fn lent(&self) -> TokenRef<'_> {
        TokenRef { issued: self.issued.by_ref(), grade: self.grade }
    }
}

impl<'a> TokenRef<'a> {
    /// See [`Token::access_token`].
    #[inline]
    pub fn access_token(self) -> &'a AccessToken {
        &self.issued.head().access_token
    }

    /// See [`Token::token_type`].
    pub fn token_type(self) -> &'a str {
        self.issued.token_type()
    }

    /// See [`Token::authorization`].
    pub fn authorization(self) -> Zeroizing<String> {
        // The registry of token types, and RFC 9449. `PoP` is Microsoft's.
        const WITH_PROOF: [&str; 3] = ["DPoP", "MAC", "PoP"];
        let own = self.issued.head().scheme();
        let with_proof = WITH_PROOF.into_iter().find(|known| self.token_type().eq_ignore_ascii_case(known));
        let scheme = own.or(with_proof).unwrap_or("Bearer");
        Zeroizing::new(format!("{scheme} {}", self.access_token().expose_secret()))
    }

    /// See [`Token::scope`].
    pub fn scope(self) -> &'a str {
        self.issued.scope()
    }

    /// See [`Token::field`].
    pub fn field(self, name: &str) -> Option<&'a serde_json::Value> {
        self.issued.head().fields()?.get(name)
    }

    /// See [`Token::expiry`].
    pub fn expiry(self) -> Expiry {
        match self.issued.expires() {
            Expires::At(time) => Expiry::At(time.into()),
            Expires::Never => Expiry::Never,
            Expires::Unknown => Expiry::Unknown,
        }
    }

    /// See [`Token::generation`].
    pub fn generation(self) -> Generation {
        self.issued.generation
    }

    /// See [`Token::grant_id`].
    pub fn grant_id(self) -> &'a str {
        self.issued.grant_id()
    }

    /// See [`Token::freshness`].
    pub fn freshness(self) -> Freshness {
        match self.grade {
            Grade::Fresh => Freshness::Fresh,
            Grade::Ageing => Freshness::Ageing,
            Grade::LastGood(_) => Freshness::LastGood,
        }
    }

    /// See [`Token::warning`].
    pub fn warning(self) -> Option<Warning> {
        match self.grade {
            Grade::LastGood(warning) => Some(warning),
            Grade::Fresh | Grade::Ageing => None,
        }
    }

    /// Returns the token to keep.
    #[inline]
    pub fn to_token(self) -> Token {
        Token { issued: self.issued.to_owned(), grade: self.grade }
    }

    #[cfg(test)]
    pub(crate) fn issued(self) -> IssuedRef<'a> {
        self.issued
    }
}

impl<'a> IssuedRef<'a> {
    /// Returns the token for a caller; `None` if it may not be handed out at this time.
    #[inline]
    pub(crate) fn lend(self, wall: WallTime) -> Option<TokenRef<'a>> {
        Some(TokenRef { issued: self, grade: self.grade(wall)? })
    }
}

impl Issued {
    /// Returns the token for a caller; `None` if it may not be handed out at this time.
    #[inline]
    pub(crate) fn hand_out(&self, wall: WallTime) -> Option<Token> {
        self.by_ref().lend(wall).map(TokenRef::to_token)
    }
}

impl fmt::Debug for TokenRef<'_> {
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

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lent().fmt(f)
    }
}
