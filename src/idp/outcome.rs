//! What an answer means for the refresh token that was sent: the protocol's table of
//! outcomes. Pure.
//!
//! The question is never "was it an error?" but "may the refresh token have been spent?". Only a
//! complete answer in which the provider itself speaks (an access token, or an OAuth error code) says
//! so; a status alone, a page of a proxy or half an answer leaves it in doubt.

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use super::{
    ErrorRule, Idp, Rotation,
    decode::{Fields, RefreshLife, decode, is_code},
};
use crate::{
    Cause,
    code::EvidenceCode,
    model::{AccessToken, Evidence, RefreshToken, Time},
};

/// What was learnt from one request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// New tokens. They exist nowhere else: store them.
    Answered(Box<Answer>),
    /// The refresh token is as good as before.
    NotSpent(Failure),
    /// The provider does not accept the refresh token (any more).
    InvalidGrant(Failure),
    /// Nobody knows. The refresh token is in doubt.
    Unknown(Failure),
}

/// What the provider gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) access_token: AccessToken,
    /// None: the old one goes on.
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: Option<String>,
    pub(crate) scope: Option<String>,
    /// From the answer, else as assumed for this provider. Zero means over at once, not unknown.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_expires: Option<RefreshLife>,
    /// When the provider made the access token: earlier than now in a replayed answer.
    pub(crate) created_at: Option<Time>,
    pub(crate) subject: Option<String>,
}

impl Outcome {
    /// Why there are no new tokens.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Answered(_) => None,
            Self::NotSpent(failure) | Self::InvalidGrant(failure) | Self::Unknown(failure) => Some(failure),
        }
    }
}

/// Why there are no new tokens, in words that can be shown to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) meaning: Meaning,
    pub(crate) evidence: Evidence,
    pub(crate) retry_after: Option<Duration>,
}

/// What an error of a token endpoint means: who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// The refresh token is not accepted (any more): only consent helps.
    UserMustReconnect,
    /// Our client or what it asks for is refused: an operator must act, and no grant is touched.
    OperatorFault,
    /// The provider asks to slow down.
    Throttled,
    /// Another request with this refresh token is being processed: what came of it will be seen.
    Race,
    /// It passes by itself.
    Transient,
}

impl Failure {
    /// What callers are told.
    pub(crate) fn cause(&self) -> Cause {
        match self.meaning {
            Meaning::OperatorFault => Cause::ClientRefused,
            Meaning::Throttled => Cause::IdpThrottled,
            Meaning::UserMustReconnect | Meaning::Race | Meaning::Transient => Cause::IdpDown,
        }
    }
}

/// An answer as it came from the wire.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Whether the body was read to its end.
    pub(crate) complete: bool,
    /// Whether something but the end of the connection says where the body ends: a length, chunks, or
    /// HTTP/2.
    pub(crate) framed: bool,
    pub(crate) content_type: Option<String>,
    /// At most an hour.
    pub(crate) retry_after: Option<Duration>,
    /// How long until the moment in the provider's [own header](Idp::rate_limit_reset_header), which stands in every
    /// answer: it says something only where one is throttled.
    pub(crate) rate_limit_reset: Option<Duration>,
    pub(crate) correlation: Option<String>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// What a provider may ask for.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Decides what `reply` means. Whatever is not listed is in doubt.
pub(crate) fn classify(idp: &Idp, reply: &Reply) -> Outcome {
    match reply.status {
        // Whatever is in its body: an error code inside is no verdict.
        429 => Outcome::NotSpent(reply.throttled(idp)),
        408 => Outcome::Unknown(reply.by_status()),
        200..=299 | 400..=499 => match reply.fields(idp) {
            Ok(fields) => judge(idp, reply, fields),
            Err(EvidenceCode::UnreadableAnswer) if reply.status >= 400 => Outcome::Unknown(reply.by_status()),
            Err(code) => Outcome::Unknown(reply.failure(Meaning::Transient, code.as_str())),
        },
        _ => Outcome::Unknown(reply.by_status()),
    }
}

/// A complete 2xx or 4xx with fields.
fn judge(idp: &Idp, reply: &Reply, mut fields: Fields) -> Outcome {
    let unknown = |code: EvidenceCode| Outcome::Unknown(reply.failure(Meaning::Transient, code.as_str()));
    let success = reply.status < 300;
    let denied = fields.says("ok", "false");
    let rule = idp.errors.iter().rev().find(|rule| rule.fits(reply.status, &fields));
    let refused = rule.is_some() || fields.error.is_some();
    let subject = idp.subject_field.as_ref().and_then(|path| fields.subject_in(path));
    match (fields.access_token.take(), fields.refresh_token.take()) {
        (Some(_), None) if success && !denied && idp.rotation == Rotation::Always => {
            unknown(EvidenceCode::NoRefreshToken)
        }
        (Some(access_token), refresh_token) if success && !denied => Outcome::Answered(Box::new(Answer {
            access_token,
            refresh_token,
            token_type: fields.token_type,
            scope: fields.scope,
            expires_in: fields.expires_in.or(idp.access_lifetime),
            refresh_expires: fields.refresh_expires,
            created_at: fields.created_at,
            subject: subject.or(fields.subject),
        })),
        (None, None) if refused => refusal(idp, reply, &fields, rule),
        // A refusal that brings a token contradicts itself.
        (Some(_), _) | (_, Some(_)) if refused || denied => unknown(EvidenceCode::ContradictoryAnswer),
        _ if success => unknown(EvidenceCode::NoAccessToken),
        _ => Outcome::Unknown(reply.by_status()),
    }
}

/// An error that the provider itself speaks, and the rule that fits, if one does.
fn refusal(idp: &Idp, reply: &Reply, fields: &Fields, rule: Option<&ErrorRule>) -> Outcome {
    let failure = reply.said(idp, fields, rule);
    match failure.meaning {
        _ if rule.is_some_and(|rule| rule.in_doubt) => Outcome::Unknown(failure),
        Meaning::UserMustReconnect => Outcome::InvalidGrant(failure),
        Meaning::OperatorFault | Meaning::Throttled | Meaning::Race | Meaning::Transient => Outcome::NotSpent(failure),
    }
}

/// What an answer to a revocation (RFC 7009) means. Done is also what the provider does not know any more, which it
/// says by 200; Keycloak adds an error of `invalid_token` to that, and Google says 400.
pub(super) fn revoked(idp: &Idp, reply: &Reply) -> Result<(), Failure> {
    let fields = reply.fields(idp).ok();
    let error = fields.as_ref().and_then(|fields| fields.error.as_deref());
    match (reply.status, error, &fields) {
        (200..=299, None, _) | (200..=299 | 400, Some("invalid_token"), _) => Ok(()),
        (429, ..) => Err(reply.throttled(idp)),
        (..=499, Some(_), Some(fields)) => {
            let rule = idp.errors.iter().rev().find(|rule| rule.fits(reply.status, fields));
            Err(reply.said(idp, fields, rule))
        }
        _ => Err(reply.by_status()),
    }
}

impl Reply {
    /// The fields of a body that is surely complete, or our code for why there are none.
    fn fields(&self, idp: &Idp) -> Result<Fields, EvidenceCode> {
        if !self.complete {
            return Err(EvidenceCode::IncompleteAnswer);
        }
        match decode(self.content_type.as_deref(), &self.body, &idp.answer_paths()) {
            Some(fields) if self.framed || fields.json => Ok(fields),
            None if self.framed => Err(EvidenceCode::UnreadableAnswer),
            // A form that ends with the connection may have lost its end.
            _ => Err(EvidenceCode::IncompleteAnswer),
        }
    }

    fn failure(&self, meaning: Meaning, code: &str) -> Failure {
        let evidence = Evidence {
            code: code.to_owned(),
            detail: None,
            status: Some(self.status),
            request_id: self.correlation.clone(),
        };
        Failure { meaning, evidence, retry_after: self.retry_after }
    }

    fn by_status(&self) -> Failure {
        self.failure(Meaning::Transient, &format!("http_{}", self.status))
    }

    fn throttled(&self, idp: &Idp) -> Failure {
        self.waiting(self.failure(Meaning::Throttled, "http_429"), self.fields(idp).ok().as_ref())
    }

    /// An error in the provider's own words, as far as they are codes.
    fn said<'a>(&self, idp: &Idp, fields: &'a Fields, rule: Option<&'a ErrorRule>) -> Failure {
        let meaning = rule.map_or(Meaning::Transient, |rule| rule.meaning);
        let code_of = |value: Option<&'a str>| value.filter(|value| is_code(value));
        let named = code_of(rule.map(|rule| &*rule.value));
        let particular = code_of(rule.and_then(|rule| rule.and.as_ref()).map(|(_, value)| &**value));
        let by_status = self.by_status();
        let code = fields.error.as_deref().or(named).unwrap_or(&by_status.evidence.code);
        let detail = particular.or(named.filter(|named| *named != code));
        let detail = detail.or_else(|| fields.code(idp.error_detail.as_ref()?));
        let mut failure = self.failure(meaning, code);
        failure.evidence.detail = detail.map(str::to_owned);
        self.waiting(failure, Some(fields))
    }

    /// Who is throttled may be told in other ways than by `Retry-After` when to ask again.
    fn waiting(&self, failure: Failure, fields: Option<&Fields>) -> Failure {
        let told = || fields.and_then(|fields| fields.retry_after).or(self.rate_limit_reset);
        match failure.retry_after.or_else(told) {
            Some(wait) if failure.meaning == Meaning::Throttled => {
                Failure { retry_after: Some(wait.min(LONGEST_RETRY_AFTER)), ..failure }
            }
            _ => failure,
        }
    }
}

impl fmt::Debug for Reply {
    /// Without the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("complete", &self.complete)
            .field("framed", &self.framed)
            .field("correlation", &self.correlation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "outcome_table_tests.rs"]
mod table_tests;
