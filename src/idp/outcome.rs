//! The outcome of a refresh: what a response means for the refresh token that was sent. Pure.
//!
//! The question is never "was it an error?" but "may the refresh token have been spent?". Only a complete response of
//! the provider itself (an access token, or an OAuth error code) answers it. A status alone, a page of a proxy or half
//! a response leaves the refresh token in doubt.

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use super::{
    decode::{Fields, decode, decode_tolerantly, is_code},
    layout::{CODES, ResponseField},
    lifetime::Ends,
    provider::{Idp, Rotation},
    rule::{ErrorRule, Meaning},
    scrub::Secrets,
    tolerant::Flaw,
};
use crate::{
    Cause,
    code::EvidenceCode,
    model::{AccessToken, Evidence, Exposed, RefreshToken, WallTime},
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
    /// The access token, or why there is none beside the new refresh token.
    pub(crate) access_token: Result<AccessToken, IdpFailure>,
    /// `None` keeps the old refresh token.
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) token_type: Option<String>,
    pub(crate) scope: Option<String>,
    /// As the response says, or as the provider's settings overrule it. Zero means expired, not unknown.
    pub(crate) expires_in: Option<Duration>,
    /// Whether the provider or the settings state the lifetime; otherwise it is assumed.
    pub(crate) told_lifetime: bool,
    pub(crate) refresh_expires: Option<RefreshLifetime>,
    pub(crate) subject: Option<String>,
    pub(crate) exposed: Exposed,
    /// What was odd about the response.
    pub(crate) oddities: Oddities,
}

/// What was odd about a response that was understood all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// What had to be tolerated to read it.
    pub(crate) flaw: Option<Flaw>,
    /// The fields whose lifetimes make no sense as such.
    pub(crate) senseless: Vec<&'static str>,
}

/// The lifetime of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshLifetime {
    In(Duration),
    Never,
}

impl ResponseOutcome {
    /// Returns why there is no new access token.
    pub(crate) fn failure(&self) -> Option<&IdpFailure> {
        match self {
            Self::Refreshed(tokens) => tokens.access_token.as_ref().err(),
            Self::NotSpent(failure) | Self::InvalidGrant(failure) | Self::Unknown(failure) => Some(failure),
        }
    }

    fn failure_mut(&mut self) -> Option<&mut IdpFailure> {
        match self {
            Self::Refreshed(tokens) => tokens.access_token.as_mut().err(),
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
    /// The provider gave a reason that no rule knows.
    pub(crate) unknown: bool,
}

impl TokenResponse {
    /// Removes what repeats the client's secret or a refresh token from the data that callers get.
    fn scrub(&mut self, idp: &Idp, sent: &str) {
        let new = self.refresh_token.as_ref().map(|token| Zeroizing::new(token.expose_secret().to_owned()));
        let secrets = Secrets::new(idp, sent, new.into_iter().collect());
        self.token_type.take_if(|text| secrets.whole_in(text));
        if let Some(scope) = self.scope.take_if(|text| secrets.whole_in(text)) {
            let words: Vec<_> = scope.split(' ').filter(|word| !secrets.whole_in(word)).collect();
            self.scope = Some(words.join(" ")).filter(|scope| !scope.is_empty());
        }
        self.exposed.0.retain(|_, value| !secrets.whole_in(&value.to_string()));
    }
}

impl IdpFailure {
    /// Adds the description, and removes what repeats a secret.
    fn scrub(&mut self, idp: &Idp, secrets: &Secrets, description: Option<Zeroizing<String>>) {
        let Evidence { code, detail, request_id, .. } = &mut self.evidence;
        // A code of the settings, or of this program, tells nothing about a secret that it resembles.
        let is_known = |text: &str| {
            idp.errors.iter().any(|rule| rule.value == text)
                || EvidenceCode::ALL.iter().any(|code| code.as_str() == text)
        };
        let repeats = |text: &str| !is_known(text) && secrets.are_in(text);
        if repeats(code) {
            *code = EvidenceCode::InvalidErrorCode.to_string();
        }
        detail.take_if(|text| repeats(text));
        request_id.take_if(|text| secrets.are_in(text));
        self.evidence.description = description.and_then(|text| secrets.description(&text)).map(Into::into);
    }

    /// Returns the cause to report to callers.
    pub(crate) fn cause(&self) -> Cause {
        match self.meaning {
            Meaning::OperatorFault => Cause::ClientRefused,
            Meaning::Throttled => Cause::IdpThrottled,
            _ if self.unknown => Cause::UnknownError,
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
    /// The time of the response: by the provider's clock, if it says so.
    pub(crate) now: WallTime,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// The longest wait that a provider may ask for.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Decides the outcome of `response` to a request with the refresh token `sent`. Every case that is not listed is in
/// doubt. The outcome repeats no secret of the request, and no token of the response where none belongs.
pub(crate) fn classify(idp: &Idp, response: &RawResponse, sent: &str) -> ResponseOutcome {
    let mut fields = response.fields(idp).map(|fields| without_echo(fields, sent));
    let (own, description) = fields.as_mut().map(Fields::take_told).unwrap_or_default();
    let mut outcome = verdict(idp, response, fields, sent);
    if let Some(failure) = outcome.failure_mut() {
        failure.scrub(idp, &Secrets::new(idp, sent, own).and_settings(idp), description);
    }
    if let ResponseOutcome::Refreshed(tokens) = &mut outcome {
        tokens.scrub(idp, sent);
    }
    outcome
}

fn verdict(idp: &Idp, response: &RawResponse, fields: Result<Fields, EvidenceCode>, sent: &str) -> ResponseOutcome {
    match (response.status, fields) {
        // A new refresh token is kept, whatever else is wrong with the response: the old one is probably spent.
        (200..=599, Ok(fields)) if fields.refresh_token.as_ref().is_some_and(|token| token.expose_secret() != sent) => {
            delivered(idp, response, fields)
        }
        // The body does not matter: an error code in it is no verdict.
        (429, _) => ResponseOutcome::NotSpent(response.throttled(idp)),
        (408, _) => ResponseOutcome::Unknown(response.status_error()),
        (200..=299 | 400..=499, Ok(fields)) => classify_fields(idp, response, fields),
        (400..=499, Err(EvidenceCode::UnreadableAnswer)) => ResponseOutcome::Unknown(response.status_error()),
        (200..=299 | 400..=499, Err(code)) => {
            ResponseOutcome::Unknown(response.failure(Meaning::Transient, code.as_str()))
        }
        _ => ResponseOutcome::Unknown(response.status_error()),
    }
}

/// Removes a refresh token that only repeats the one that was sent, if there is no access token beside it.
fn without_echo(mut fields: Fields, sent: &str) -> Fields {
    if fields.access_token.is_none() {
        fields.refresh_token.take_if(|token| token.expose_secret() == sent);
    }
    fields
}

/// Returns the tokens of a response with a new refresh token.
fn delivered(idp: &Idp, response: &RawResponse, mut fields: Fields) -> ResponseOutcome {
    let success = response.status < 300 && !fields.has("ok", "false");
    let rule = idp.rule(response.status, &fields);
    let ours = |code: EvidenceCode| response.failure(Meaning::Transient, code.as_str());
    let access_token = match fields.access_token.take() {
        Some(token) if success => Ok(token),
        _ if rule.is_some() || fields.error.is_some() => Err(response.oauth_error(idp, &fields, rule)),
        _ if response.status >= 300 => Err(response.status_error()),
        Some(_) => Err(ours(EvidenceCode::ContradictoryAnswer)),
        None => Err(ours(EvidenceCode::NoAccessToken)),
    };
    ResponseOutcome::Refreshed(Box::new(response.tokens(idp, access_token, fields)))
}

/// Decides the outcome of a complete 2xx or 4xx response with fields and without a new refresh token.
fn classify_fields(idp: &Idp, response: &RawResponse, mut fields: Fields) -> ResponseOutcome {
    let unknown = |code: EvidenceCode| ResponseOutcome::Unknown(response.failure(Meaning::Transient, code.as_str()));
    let success = response.status < 300;
    let denied = fields.has("ok", "false");
    let rule = idp.rule(response.status, &fields);
    let error = rule.is_some() || fields.error.is_some();
    match fields.access_token.take() {
        _ if fields.bad_refresh_token => unknown(EvidenceCode::BadRefreshToken),
        Some(_) if success && !denied && idp.rotation == Rotation::Always && fields.refresh_token.is_none() => {
            unknown(EvidenceCode::NoRefreshToken)
        }
        Some(access_token) if success && !denied => {
            ResponseOutcome::Refreshed(Box::new(response.tokens(idp, Ok(access_token), fields)))
        }
        None if error => classify_error(idp, response, &fields, rule),
        // An error with a token contradicts itself.
        Some(_) if error || denied => unknown(EvidenceCode::ContradictoryAnswer),
        _ if success => unknown(EvidenceCode::NoAccessToken),
        _ => ResponseOutcome::Unknown(response.unknown_refusal(&fields)),
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
pub(super) fn classify_revocation(idp: &Idp, response: &RawResponse, sent: &str) -> Result<(), IdpFailure> {
    let mut fields = response.fields(idp).ok();
    let (own, description) = fields.as_mut().map(Fields::take_told).unwrap_or_default();
    revoked(idp, response, fields).map_err(|mut failure| {
        failure.scrub(idp, &Secrets::new(idp, sent, own).and_settings(idp), description);
        failure
    })
}

fn revoked(idp: &Idp, response: &RawResponse, fields: Option<Fields>) -> Result<(), IdpFailure> {
    let error = fields.as_ref().and_then(|fields| fields.error.as_deref());
    match (response.status, error, &fields) {
        (200..=299, None, _) | (200..=299 | 400, Some("invalid_token"), _) => Ok(()),
        (429, ..) => Err(response.throttled(idp)),
        (..=499, Some(_), Some(fields)) => {
            let rule = idp.rule(response.status, fields);
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
        let (content_type, layout) = (self.content_type.as_deref(), idp.layout());
        match decode(content_type, &self.body, &layout) {
            Some(fields) if fields.json || (self.framed && fields.is_response()) => Ok(fields),
            // A form, or an object with flaws, that ends with the connection may be cut off.
            _ if !self.framed => Err(EvidenceCode::IncompleteAnswer),
            form => decode_tolerantly(content_type, &self.body, &layout).or(form).ok_or(EvidenceCode::UnreadableAnswer),
        }
    }

    /// Returns the tokens, with the lifetimes that count from the response.
    fn tokens(&self, idp: &Idp, access_token: Result<AccessToken, IdpFailure>, mut fields: Fields) -> TokenResponse {
        let own_subject = idp.subject_field.as_ref().and_then(|path| fields.subject_in(path));
        let left = |ends: Ends| match ends {
            Ends::In(lifetime) => lifetime,
            Ends::At(time) => time.since(self.now),
        };
        let mut senseless = fields.senseless;
        let stated = fields.expires.map(|ends| {
            let (lifetime, longest) = (left(ends), idp.max_access_lifetime);
            if lifetime > longest && senseless.is_empty() {
                let relative = matches!(ends, Ends::In(_));
                let field = if relative { ResponseField::ExpiresIn } else { ResponseField::ExpiresAt };
                senseless.push(field.name());
            }
            lifetime.min(longest)
        });
        // No provider issues an expired refresh token: such an end is an error of a clock.
        let refresh_ends = fields.refresh_expires.into_iter().map(left).filter(|left| !left.is_zero()).min();
        let refresh_ends = refresh_ends.map(RefreshLifetime::In);
        let expires_in = idp.access_lifetime_override.or(stated);
        TokenResponse {
            access_token,
            refresh_token: fields.refresh_token,
            token_type: fields.token_type,
            scope: fields.scope,
            expires_in,
            told_lifetime: expires_in.is_some_and(|lifetime| !lifetime.is_zero()),
            refresh_expires: refresh_ends.or(fields.refresh_never_expires.then_some(RefreshLifetime::Never)),
            subject: own_subject.or(fields.subject),
            exposed: fields.exposed,
            oddities: Oddities { flaw: fields.flaw, senseless },
        }
    }

    fn failure(&self, meaning: Meaning, code: &str) -> IdpFailure {
        let evidence = Evidence {
            code: code.to_owned(),
            detail: None,
            description: None,
            status: Some(self.status),
            request_id: self.correlation.clone(),
        };
        IdpFailure { meaning, evidence, retry_after: self.retry_after, unknown: false }
    }

    /// Returns the failure for a refusal whose reason is not where RFC 6749 has it, with a code that may help people.
    fn unknown_refusal(&self, fields: &Fields) -> IdpFailure {
        let detail = CODES.into_iter().find_map(|path| fields.code(path)).map(str::to_owned);
        let failure = self.status_error();
        // A page that was not found is no refusal.
        let unknown = detail.is_some() || matches!(self.status, 400 | 401 | 403);
        IdpFailure { unknown, evidence: Evidence { detail, ..failure.evidence }, ..failure }
    }

    pub(super) fn status_error(&self) -> IdpFailure {
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
        failure.unknown = rule.is_none();
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
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "outcome_table_tests.rs"]
mod table_tests;
