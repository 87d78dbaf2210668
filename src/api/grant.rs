//! The body that connects a grant, written by clients and read by the server.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::time::{LifetimeInput, TimeInput, rfc3339};
use crate::{Expiry, Grant, model::Lifetime};

/// What the identity provider's token endpoint returned. Members that are not listed here belong into `extra`. A grant
/// without an access token is refreshed at once, and nothing is served before.
#[derive(Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Grant", transform = super::schema::grant))]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantBody<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::secret_or_null"))]
    access_token: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::secret_or_null"))]
    refresh_token: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::secret_or_null"))]
    token_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::text_or_null"))]
    scope: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::moment_or_null"))]
    expires_at: Option<TimeInput>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::lifetime_or_null"))]
    expires_in: Option<LifetimeInput>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::moment_or_null"))]
    refresh_token_expires_at: Option<TimeInput>,
    /// 0 means that the refresh token does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::refresh_lifetime_or_null"))]
    refresh_token_expires_in: Option<LifetimeInput>,
    /// The client it was issued to; the configured one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::word_or_null"))]
    client_id: Option<Cow<'a, str>>,
    /// The user's identifier at the identity provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::word_or_null"))]
    subject: Option<Cow<'a, str>>,
    /// Parameters that are sent with every refresh.
    #[serde(default)]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::params"))]
    params: Cow<'a, BTreeMap<String, String>>,
    /// Kept beside the tokens, sealed with them; at most 64 KiB.
    #[serde(default)]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::object"))]
    extra: Cow<'a, Map<String, Value>>,
}

/// Returns the body of a `PUT /v1/grants/{idp}/{user}` that connects this grant, for clients of a server elsewhere. The
/// body is secret. Lifetimes count from when the server reads it; it cannot say that an access token never expires.
pub fn grant_body(grant: &Grant) -> Zeroizing<Vec<u8>> {
    let (expires_in, expires_at) = expiry_members(grant.expiry);
    let (refresh_token_expires_in, refresh_token_expires_at) = match grant.refresh_expiry {
        Lifetime::Until(Expiry::Never) => (Some(LifetimeInput::Number(0.0)), None),
        expiry => expiry_members(expiry),
    };
    let body = GrantBody {
        access_token: grant.access_token.as_ref().map(|token| token.expose_secret().into()),
        refresh_token: grant.refresh_token.as_ref().map(|token| token.expose_secret().into()),
        token_type: Some(grant.token_type.as_str().into()),
        scope: Some(grant.scope.as_str().into()),
        expires_at,
        expires_in,
        refresh_token_expires_at,
        refresh_token_expires_in,
        client_id: grant.client_id.as_deref().map(Cow::from),
        subject: grant.subject.as_deref().map(Cow::from),
        params: Cow::Borrowed(&grant.params),
        extra: Cow::Borrowed(&grant.extra),
    };
    Zeroizing::new(serde_json::to_vec(&body).expect("texts and numbers have a JSON form"))
}

fn expiry_members(expiry: Lifetime) -> (Option<LifetimeInput>, Option<TimeInput>) {
    match expiry {
        Lifetime::For(lifetime) => (Some(LifetimeInput::Number(lifetime.as_secs_f64())), None),
        Lifetime::Until(Expiry::At(time)) => (None, Some(TimeInput::Text(rfc3339(time)))),
        Lifetime::Until(Expiry::Never | Expiry::Unknown) => (None, None),
    }
}

#[cfg(feature = "web")]
impl GrantBody<'_> {
    /// Returns the grant, handed in at this time.
    ///
    /// # Errors
    /// Which member is wrong, and what it must be.
    pub(crate) fn grant(self, now: std::time::SystemTime) -> Result<Grant, &'static str> {
        let mut grant = match (self.access_token, &self.refresh_token) {
            (Some(token), _) => Grant::new(token.into_owned()),
            (None, Some(token)) => Grant::from_refresh_token(token.clone().into_owned()),
            (None, None) => return Err("give access_token, refresh_token or both"),
        };
        grant = match (self.expires_in, self.expires_at) {
            (Some(_), Some(_)) => return Err("give expires_in or expires_at, not both"),
            (Some(lifetime), None) => {
                let lifetime = lifetime.read()?;
                if lifetime < std::time::Duration::from_millis(1) {
                    return Err("expires_in must be more than 0: omit it if the lifetime is not known");
                }
                grant.expires_in(lifetime)
            }
            (None, Some(time)) => grant.expiry(Expiry::At(time.read()?)),
            (None, None) => grant,
        };
        grant = match (self.refresh_token_expires_in, self.refresh_token_expires_at) {
            (Some(_), Some(_)) => return Err("give refresh_token_expires_in or refresh_token_expires_at, not both"),
            (Some(lifetime), None) => match lifetime.read()? {
                // Keycloak writes 0 for refresh tokens that do not expire.
                zero if zero.is_zero() => grant.refresh_expiry(Expiry::Never),
                lifetime => grant.refresh_expiry(Expiry::At(now + lifetime)),
            },
            (None, Some(time)) => grant.refresh_expiry(Expiry::At(time.read()?)),
            (None, None) => grant,
        };
        let set = |grant, value: Option<Cow<'_, str>>, setter: fn(Grant, String) -> Grant| match value {
            Some(value) => setter(grant, value.into_owned()),
            None => grant,
        };
        grant = set(grant, self.refresh_token, Grant::refresh_token);
        grant = set(grant, self.token_type, Grant::token_type);
        grant = set(grant, self.scope, Grant::scope);
        grant = set(grant, self.client_id, Grant::client_id);
        grant = set(grant, self.subject, Grant::subject);
        grant = self.params.into_owned().into_iter().fold(grant, |grant, (name, value)| grant.param(name, value));
        Ok(self.extra.into_owned().into_iter().fold(grant, |grant, (name, value)| grant.extra(name, value)))
    }
}

#[cfg(all(test, feature = "web"))]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_server_reads_the_body_that_a_client_writes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let end = now + Duration::from_secs(60);
        let plain = Grant::new("ts-test-secret-a");
        for grant in [
            Grant::from_refresh_token("ts-test-secret-r"),
            plain.clone(),
            plain.clone().refresh_token("ts-test-secret-r").scope("api").token_type("bearer").client_id("c"),
            plain.clone().subject("42").param("tenant", "contoso").extra("id_token", "ts-test-secret-i".into()),
            plain.clone().expires_in(Duration::from_millis(7_200_500)).refresh_expiry(Expiry::Never),
            plain.expiry(Expiry::At(end)).refresh_expiry(Expiry::At(end)),
        ] {
            let body = grant_body(&grant);
            let read: GrantBody<'_> = serde_json::from_slice(&body).unwrap();
            let read = read.grant(now).unwrap();
            assert_eq!(grant_body(&read), body);
            assert_eq!(format!("{read:?}"), format!("{grant:?}"));
        }
    }
}
