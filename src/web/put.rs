//! A grant as a client of the API hands it in.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::time::rfc3339;
use crate::{Expiry, Grant, model::Lifetime};

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    token_type: &'a str,
    scope: &'a str,
    #[serde(flatten)]
    ends: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    params: &'a BTreeMap<String, String>,
    extra: &'a Map<String, Value>,
}

/// The body of a `PUT /v1/grants/{idp}/{user}` that connects this grant, for clients of a server that is elsewhere. It
/// is secret. Lifetimes count from when the server reads it; that an access token never ends cannot be said there.
pub fn grant_body(grant: &Grant) -> Zeroizing<Vec<u8>> {
    let mut ends = BTreeMap::new();
    ends.extend(end("expires_in", "expires_at", grant.expiry));
    ends.extend(end("refresh_token_expires_in", "refresh_token_expires_at", grant.refresh_expiry));
    if matches!(grant.refresh_expiry, Lifetime::Until(Expiry::Never)) {
        ends.insert("refresh_token_expires_in", 0.into());
    }
    let body = Body {
        access_token: grant.access_token.as_ref().map(|token| token.expose_secret()),
        refresh_token: grant.refresh_token.as_ref().map(|token| token.expose_secret()),
        token_type: &grant.token_type,
        scope: &grant.scope,
        ends,
        client_id: grant.client_id.as_deref(),
        subject: grant.subject.as_deref(),
        params: &grant.params,
        extra: &grant.extra,
    };
    Zeroizing::new(serde_json::to_vec(&body).expect("texts and numbers have a JSON form"))
}

fn end(lifetime: &'static str, time: &'static str, end: Lifetime) -> Option<(&'static str, Value)> {
    match end {
        Lifetime::For(life) => Some((lifetime, seconds(life))),
        Lifetime::Until(Expiry::At(at)) => Some((time, rfc3339(at).into())),
        Lifetime::Until(Expiry::Never | Expiry::Unknown) => None,
    }
}

fn seconds(life: Duration) -> Value {
    life.as_secs_f64().into()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{model::WallTime, web::wire::GrantBody};

    #[test]
    fn the_server_reads_what_was_handed_in() {
        let now = WallTime::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let end = SystemTime::from(now) + Duration::from_secs(60);
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
            let read: GrantBody = serde_json::from_slice(&body).unwrap();
            let read = read.grant(now).unwrap();
            assert_eq!(grant_body(&read), body);
            assert_eq!(format!("{read:?}"), format!("{grant:?}"));
        }
    }
}
