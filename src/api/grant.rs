//! The body that connects a grant, written by clients and read by the server.

use std::{borrow::Cow, collections::BTreeMap};

#[cfg(feature = "web")]
use serde::Deserialize;
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::time::{TimeInput, rfc3339};
use crate::{Expiry, Grant, model::Lifetime};

/// What the identity provider's token endpoint returned, unchanged, with members of this API beside it. Other members are
/// read as the provider's settings say, or ignored. A grant without an access token is refreshed at once, and nothing is
/// served before.
#[derive(Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Grant", transform = super::schema::grant))]
pub(crate) struct GrantBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::secret_or_null"))]
    access_token: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::secret_or_null"))]
    refresh_token: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::secret_or_null"))]
    token_type: Option<Cow<'a, str>>,
    /// A text, or a list of texts as some providers send it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::anything"))]
    scope: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::moment_or_null"))]
    expires_at: Option<TimeInput>,
    /// A lifetime in any form that providers use. What cannot be read says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::anything"))]
    expires_in: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::moment_or_null"))]
    refresh_token_expires_at: Option<TimeInput>,
    /// The same; 0 means that the refresh token does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::anything"))]
    refresh_token_expires_in: Option<f64>,
    /// The client it was issued to; the configured one unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::word_or_null"))]
    client_id: Option<Cow<'a, str>>,
    /// The user's identifier at the identity provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::word_or_null"))]
    subject: Option<Cow<'a, str>>,
    /// Parameters of the provider's endpoints, such as a tenant, for this grant alone.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::params"))]
    params: Cow<'a, BTreeMap<String, String>>,
    /// Kept beside the tokens, sealed with them; at most 64 KiB.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::object"))]
    extra: Cow<'a, Map<String, Value>>,
}

/// Returns the body of a `PUT /v1/grants/{idp}/{user}` that connects this grant, for clients of a server elsewhere. The
/// body is secret. Lifetimes count from when the server reads it; it cannot say that an access token never expires.
pub fn grant_body(grant: &Grant) -> Zeroizing<Vec<u8>> {
    let (expires_in, expires_at) = expiry_members(grant.expiry);
    let (refresh_token_expires_in, refresh_token_expires_at) = match grant.refresh_expiry {
        Lifetime::Until(Expiry::Never) => (Some(0.0), None),
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

fn expiry_members(expiry: Lifetime) -> (Option<f64>, Option<TimeInput>) {
    match expiry {
        Lifetime::For(lifetime) => (Some(lifetime.as_secs_f64()), None),
        Lifetime::Until(Expiry::At(time)) => (None, Some(TimeInput::Text(rfc3339(time)))),
        Lifetime::Until(Expiry::Never | Expiry::Unknown) => (None, None),
    }
}

/// The members of that body that this API defines. All others are the provider's, and read like a response.
#[cfg(feature = "web")]
#[derive(Deserialize)]
pub(crate) struct OwnMembers<'a> {
    #[serde(borrow)]
    access_token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    refresh_token: Option<Cow<'a, str>>,
    token_type: Option<String>,
    expires_at: Option<TimeInput>,
    refresh_token_expires_at: Option<TimeInput>,
    client_id: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    extra: Map<String, Value>,
}

#[cfg(feature = "web")]
impl OwnMembers<'_> {
    /// Returns the grant that was read from the body, with these members.
    ///
    /// # Errors
    /// Which member is wrong, and what it must be.
    pub(crate) fn complete(self, mut grant: Grant) -> Result<Grant, &'static str> {
        if self.access_token.is_some_and(|token| token.is_empty()) {
            return Err("access_token must not be empty: omit it if there is none");
        }
        if self.refresh_token.is_some_and(|token| token.is_empty()) {
            return Err("refresh_token must not be empty: omit it if there is none");
        }
        let (expires_at, refresh_expires_at) = (self.expires_at, self.refresh_token_expires_at);
        if let Some(time) = expires_at {
            let end = Expiry::At(time.read()?);
            // `expires_in` comes first, as in a response.
            grant = if matches!(grant.expiry, Lifetime::For(_)) { grant } else { grant.expiry(end) };
        }
        if let Some(time) = refresh_expires_at {
            let end = Expiry::At(time.read()?);
            grant = if matches!(grant.refresh_expiry, Lifetime::For(_)) { grant } else { grant.refresh_expiry(end) };
        }
        grant.token_type = self.token_type.unwrap_or(grant.token_type);
        grant.client_id = self.client_id;
        grant.subject = self.subject.or(grant.subject);
        (grant.params, grant.extra) = (self.params, self.extra);
        Ok(grant)
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
            let own: OwnMembers<'_> = serde_json::from_slice(&body).unwrap();
            let read = own.complete(Grant::from_token_response(&body).unwrap()).unwrap();
            assert_eq!(grant_body(&read), body);
            assert_eq!(format!("{read:?}"), format!("{grant:?}"));
        }
    }
}
