//! The model of an identity provider: families of refresh tokens, and what presenting one does, by policy.
//!
//! The rules are those of the simulated provider in `testing/family`, without HTTP.

use std::time::Duration;

use crate::model::{Fingerprint, StoreTime};

/// What a second use of a refresh token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReusePolicy {
    /// It invalidates the whole family.
    Strict,
    /// It is refused; the family stays valid.
    Reject,
    /// Within the grace it returns the same new token again; afterwards it invalidates the family.
    SamePair,
    /// Within the grace it returns another token and invalidates the earlier one; afterwards it invalidates the family.
    LastWins,
    /// Until the new token is used it returns another one and invalidates the earlier one; afterwards it invalidates the family.
    RetrySafe,
    /// Tokens do not rotate.
    NotRotating,
}

impl ReusePolicy {
    pub(super) fn has_grace(self) -> bool {
        matches!(self, Self::SamePair | Self::LastWins)
    }

    /// Returns whether a later response replaces an earlier one.
    pub(super) fn replaces(self) -> bool {
        matches!(self, Self::LastWins | Self::RetrySafe)
    }
}

/// A refresh token: its place in [`ModelIdp::tokens`].
pub(super) type TokenIndex = u8;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct ModelIdp {
    /// Whether each family is valid.
    pub(super) families: Vec<bool>,
    pub(super) tokens: Vec<ModelToken>,
    /// Requests that were sent and have neither been responded to nor been forgotten.
    pub(super) requests: Vec<Request>,
}

/// A refresh token with its state at the provider, and what became of it on our side.
#[derive(Clone, Debug, Hash)]
pub(super) struct ModelToken {
    pub(super) family: u8,
    /// The epoch of the request whose response brought it.
    pub(super) epoch: u64,
    /// The first use.
    pub(super) spent: Option<StoreTime>,
    pub(super) superseded: bool,
    /// The token in the last response to it.
    pub(super) response: Option<TokenIndex>,
    /// A process has seen it.
    pub(super) delivered: bool,
    /// It was lost in a way that no client can prevent: see `SEMANTICS.md`, "What no client can keep".
    pub(super) excused: bool,
    /// The provider has refused it to us.
    pub(super) refused: bool,
}

/// A refresh request on its way.
#[derive(Clone, Debug, Hash)]
pub(super) struct Request {
    pub(super) attempt: u8,
    pub(super) epoch: u64,
    pub(super) token: TokenIndex,
    pub(super) written: StoreTime,
    /// When its sender died or stopped listening.
    pub(super) orphaned: Option<StoreTime>,
    pub(super) response: Option<ModelResponse>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ModelResponse {
    /// A new refresh token, or the old one if tokens do not rotate.
    Token(TokenIndex),
    InvalidGrant,
}

impl ModelIdp {
    /// Creates a family with its first token, as a consent does.
    pub(super) fn consent(&mut self) -> TokenIndex {
        self.families.push(true);
        self.issue(self.families.len() as u8 - 1, 0, true)
    }

    fn issue(&mut self, family: u8, epoch: u64, delivered: bool) -> TokenIndex {
        let (spent, response) = (None, None);
        let (superseded, excused, refused) = (false, false, false);
        self.tokens.push(ModelToken { family, epoch, spent, superseded, response, delivered, excused, refused });
        self.tokens.len() as TokenIndex - 1
    }

    /// Returns whether the provider would accept the token as a first use.
    pub(super) fn live(&self, token: TokenIndex) -> bool {
        let issued = &self.tokens[usize::from(token)];
        self.families[usize::from(issued.family)] && issued.spent.is_none() && !issued.superseded
    }

    /// Processes a request. Whether it is within a grace depends on when it was sent.
    pub(super) fn spend(
        &mut self,
        kind: ReusePolicy,
        grace: Duration,
        request: &Request,
        now: StoreTime,
    ) -> ModelResponse {
        let at = usize::from(request.token);
        let ModelToken { family, spent, superseded, response, .. } = self.tokens[at].clone();
        if !self.families[usize::from(family)] || superseded {
            return ModelResponse::InvalidGrant;
        }
        let Some(first_use) = spent else {
            if kind == ReusePolicy::NotRotating {
                return ModelResponse::Token(request.token);
            }
            // Without a grace the time does not matter.
            return self.rotate(request, if kind.has_grace() { now } else { StoreTime(0) });
        };
        let in_grace = kind.has_grace() && request.written < first_use + grace;
        let unused = response.is_some_and(|next| self.tokens[usize::from(next)].spent.is_none());
        match (kind, response) {
            (ReusePolicy::SamePair, Some(same)) if in_grace => ModelResponse::Token(same),
            (ReusePolicy::LastWins | ReusePolicy::RetrySafe, _)
                if in_grace || (kind == ReusePolicy::RetrySafe && unused) =>
            {
                for later in self.tokens.iter_mut().skip(at + 1).filter(|later| later.family == family) {
                    later.superseded = true;
                }
                self.rotate(request, first_use)
            }
            (ReusePolicy::Reject | ReusePolicy::NotRotating, _) => ModelResponse::InvalidGrant,
            _ => {
                self.families[usize::from(family)] = false;
                ModelResponse::InvalidGrant
            }
        }
    }

    fn rotate(&mut self, request: &Request, first_use: StoreTime) -> ModelResponse {
        let at = usize::from(request.token);
        let new = self.issue(self.tokens[at].family, request.epoch, false);
        (self.tokens[at].spent, self.tokens[at].response) = (Some(first_use), Some(new));
        ModelResponse::Token(new)
    }
}

/// Returns the fingerprint that stands for a token; [`token`] is the inverse.
pub(super) fn fingerprint(token: TokenIndex) -> Fingerprint {
    let mut bytes = [0; 16];
    bytes[0] = token;
    Fingerprint(bytes)
}

pub(super) fn token(fingerprint: Fingerprint) -> TokenIndex {
    fingerprint.0[0]
}
