//! The outcome of a refresh: what a response means for the refresh token that was sent. Pure.
//!
//! The question is never "was it an error?" but "may the refresh token have been spent?". Only a complete response of
//! the provider itself (an access token, or an OAuth error code) answers it. A status alone, a page of a proxy or half
//! a response leaves the refresh token in doubt.

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use super::{
    decode::{Fields, RefreshLifetime, decode, is_code},
    provider::{Idp, Rotation},
    rule::{ErrorRule, Meaning},
};
use crate::{
    Cause,
    code::EvidenceCode,
    model::{AccessToken, Evidence, RefreshToken, WallTime},
};

/// The outcome of one refresh request.
#[derive(Debug)]
pub(crate) enum ResponseOutcome {
    /// New tokens. They exist nowhere else: the caller must store them.
    Refreshed(Box<TokenResponse>),
    /// The refresh token was not spent and is still valid.
    NotSpent(IdpFailure),
    /// The provider does not accept the refresh token, or no longer.
    InvalidGrant(IdpFailure),
    /// The refresh token may have been spent: it is in doubt.
    Unknown(IdpFailure),
}

/// The tokens that the provider returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenResponse {
    pub(crate) access_token: AccessToken,
    /// `None` keeps the old refresh token.
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: Option<String>,
    pub(crate) scope: Option<String>,
    /// From the response, otherwise as assumed for this provider. Zero means expired, not unknown.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_expires: Option<RefreshLifetime>,
    /// When the provider issued the access token: earlier than now in a replayed response.
    pub(crate) created_at: Option<WallTime>,
    pub(crate) subject: Option<String>,
}

impl ResponseOutcome {
    /// Returns why there are no new tokens.
    pub(crate) fn failure(&self) -> Option<&IdpFailure> {
        match self {
            Self::Refreshed(_) => None,
            Self::NotSpent(failure) | Self::InvalidGrant(failure) | Self::Unknown(failure) => Some(failure),
        }
    }
}

/// Why a request returned no tokens. Contains nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdpFailure {
    pub(crate) meaning: Meaning,
    pub(crate) evidence: Evidence,
    pub(crate) retry_after: Option<Duration>,
}

impl IdpFailure {
    /// Returns the cause to report to callers.
    pub(crate) fn cause(&self) -> Cause {
        match self.meaning {
            Meaning::OperatorFault => Cause::ClientRefused,
            Meaning::Throttled => Cause::IdpThrottled,
            Meaning::UserMustReconnect | Meaning::Race | Meaning::Transient => Cause::IdpDown,
        }
    }
}

/// A response as received.
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    /// Whether the whole body was read.
    pub(crate) complete: bool,
    /// Whether a length, chunks or HTTP/2 mark the end of the body, not only the end of the connection.
    pub(crate) framed: bool,
    pub(crate) content_type: Option<String>,
    /// At most [`LONGEST_RETRY_AFTER`].
    pub(crate) retry_after: Option<Duration>,
    /// The time until the reset in the provider's [own header](Idp::rate_limit_reset_header). The header is in every
    /// response, so it counts only if the request was throttled.
    pub(crate) rate_limit_reset: Option<Duration>,
    pub(crate) correlation: Option<String>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// The longest wait that a provider may ask for.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Decides the outcome of `response`. Every case that is not listed is in doubt.
pub(crate) fn classify(idp: &Idp, response: &RawResponse) -> ResponseOutcome {
    match response.status {
        // The body does not matter: an error code in it is no verdict.
        429 => ResponseOutcome::NotSpent(response.throttled(idp)),
        408 => ResponseOutcome::Unknown(response.status_error()),
        200..=299 | 400..=499 => match response.fields(idp) {
            Ok(fields) => classify_fields(idp, response, fields),
            Err(EvidenceCode::UnreadableAnswer) if response.status >= 400 => {
                ResponseOutcome::Unknown(response.status_error())
            }
            Err(code) => ResponseOutcome::Unknown(response.failure(Meaning::Transient, code.as_str())),
        },
        _ => ResponseOutcome::Unknown(response.status_error()),
    }
}

/// Decides the outcome of a complete 2xx or 4xx response with fields.
fn classify_fields(idp: &Idp, response: &RawResponse, mut fields: Fields) -> ResponseOutcome {
    let unknown = |code: EvidenceCode| ResponseOutcome::Unknown(response.failure(Meaning::Transient, code.as_str()));
    let success = response.status < 300;
    let denied = fields.has("ok", "false");
    let rule = idp.errors.iter().rev().find(|rule| rule.matches(response.status, &fields));
    let error = rule.is_some() || fields.error.is_some();
    let subject = idp.subject_field.as_ref().and_then(|path| fields.subject_in(path));
    match (fields.access_token.take(), fields.refresh_token.take()) {
        (Some(_), None) if success && !denied && idp.rotation == Rotation::Always => {
            unknown(EvidenceCode::NoRefreshToken)
        }
        (Some(access_token), refresh_token) if success && !denied => {
            ResponseOutcome::Refreshed(Box::new(TokenResponse {
                access_token,
                refresh_token,
                token_type: fields.token_type,
                scope: fields.scope,
                expires_in: fields.expires_in.or(idp.access_lifetime),
                refresh_expires: fields.refresh_expires,
                created_at: fields.created_at,
                subject: subject.or(fields.subject),
            }))
        }
        (None, None) if error => classify_error(idp, response, &fields, rule),
        // An error with a token contradicts itself.
        (Some(_), _) | (_, Some(_)) if error || denied => unknown(EvidenceCode::ContradictoryAnswer),
        _ if success => unknown(EvidenceCode::NoAccessToken),
        _ => ResponseOutcome::Unknown(response.status_error()),
    }
}

/// Decides the outcome of an error of the provider itself, by the rule that matches, if any.
fn classify_error(idp: &Idp, response: &RawResponse, fields: &Fields, rule: Option<&ErrorRule>) -> ResponseOutcome {
    let failure = response.oauth_error(idp, fields, rule);
    match failure.meaning {
        _ if rule.is_some_and(|rule| rule.in_doubt) => ResponseOutcome::Unknown(failure),
        Meaning::UserMustReconnect => ResponseOutcome::InvalidGrant(failure),
        Meaning::OperatorFault | Meaning::Throttled | Meaning::Race | Meaning::Transient => {
            ResponseOutcome::NotSpent(failure)
        }
    }
}

/// Decides whether a revocation (RFC 7009) succeeded. A token that the provider no longer knows counts as revoked: the
/// RFC requires status 200 for it, Keycloak adds the error `invalid_token`, and Google sends that error with 400.
pub(super) fn classify_revocation(idp: &Idp, response: &RawResponse) -> Result<(), IdpFailure> {
    let fields = response.fields(idp).ok();
    let error = fields.as_ref().and_then(|fields| fields.error.as_deref());
    match (response.status, error, &fields) {
        (200..=299, None, _) | (200..=299 | 400, Some("invalid_token"), _) => Ok(()),
        (429, ..) => Err(response.throttled(idp)),
        (..=499, Some(_), Some(fields)) => {
            let rule = idp.errors.iter().rev().find(|rule| rule.matches(response.status, fields));
            Err(response.oauth_error(idp, fields, rule))
        }
        _ => Err(response.status_error()),
    }
}

impl RawResponse {
    /// Returns the fields of a body that is certainly complete, or the code of the reason why there are none.
    fn fields(&self, idp: &Idp) -> Result<Fields, EvidenceCode> {
        if !self.complete {
            return Err(EvidenceCode::IncompleteAnswer);
        }
        match decode(self.content_type.as_deref(), &self.body, &idp.response_paths()) {
            Some(fields) if self.framed || fields.json => Ok(fields),
            None if self.framed => Err(EvidenceCode::UnreadableAnswer),
            // A form that ends with the connection may be cut off.
            _ => Err(EvidenceCode::IncompleteAnswer),
        }
    }

    fn failure(&self, meaning: Meaning, code: &str) -> IdpFailure {
        let evidence = Evidence {
            code: code.to_owned(),
            detail: None,
            status: Some(self.status),
            request_id: self.correlation.clone(),
        };
        IdpFailure { meaning, evidence, retry_after: self.retry_after }
    }

    fn status_error(&self) -> IdpFailure {
        self.failure(Meaning::Transient, &format!("http_{}", self.status))
    }

    fn throttled(&self, idp: &Idp) -> IdpFailure {
        self.with_retry_time(self.failure(Meaning::Throttled, "http_429"), self.fields(idp).ok().as_ref())
    }

    /// Returns the failure for an OAuth error, with the provider's values as far as they are codes.
    fn oauth_error<'a>(&self, idp: &Idp, fields: &'a Fields, rule: Option<&'a ErrorRule>) -> IdpFailure {
        let meaning = rule.map_or(Meaning::Transient, |rule| rule.meaning);
        let code_of = |value: Option<&'a str>| value.filter(|value| is_code(value));
        let value = code_of(rule.map(|rule| &*rule.value));
        let second_value = code_of(rule.and_then(|rule| rule.and.as_ref()).map(|(_, value)| &**value));
        let status_error = self.status_error();
        let code = fields.error.as_deref().or(value).unwrap_or(&status_error.evidence.code);
        let detail = second_value.or(value.filter(|value| *value != code));
        let detail = detail.or_else(|| fields.code(idp.error_detail.as_ref()?));
        let mut failure = self.failure(meaning, code);
        failure.evidence.detail = detail.map(str::to_owned);
        self.with_retry_time(failure, Some(fields))
    }

    /// Adds the time to retry that a throttled response has elsewhere than in `Retry-After`.
    fn with_retry_time(&self, failure: IdpFailure, fields: Option<&Fields>) -> IdpFailure {
        let elsewhere = || fields.and_then(|fields| fields.retry_after).or(self.rate_limit_reset);
        match failure.retry_after.or_else(elsewhere) {
            Some(wait) if failure.meaning == Meaning::Throttled => {
                IdpFailure { retry_after: Some(wait.min(LONGEST_RETRY_AFTER)), ..failure }
            }
            _ => failure,
        }
    }
}

impl fmt::Debug for RawResponse {
    /// Omits the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawResponse")
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
