//! Reads the token response that ends a user's consent into a grant to connect.

use super::{decode::decode, layout::Layout, lifetime::Ends, provider::Idp};
use crate::{
    error::Error,
    model::{Expiry, Grant, Lifetime},
};

impl Grant {
    /// Reads the grant from the unchanged response of a token endpoint, JSON or a form. Its lifetimes count from the
    /// moment of connecting. A refresh token alone is enough; see [`from_refresh_token`](Self::from_refresh_token).
    ///
    /// ```
    /// use token_supervisor::Grant;
    /// let response = br#"{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r","expires_in":7200}"#;
    /// let grant = Grant::from_token_response(response)?;
    /// # Ok::<(), token_supervisor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] with the reason why the response contains no grant. It never quotes the response.
    pub fn from_token_response(body: &[u8]) -> Result<Self, Error> {
        Self::read(body, &Layout::standard(), None)
    }

    /// Reads the grant from the unchanged response of this provider, which may have its fields elsewhere than RFC 6749
    /// says ([`Idp::response_field`]). Members that the provider's settings [expose](Idp::expose) are kept.
    ///
    /// # Errors
    /// As [`from_token_response`](Self::from_token_response).
    pub fn from_response_of(idp: &Idp, body: &[u8]) -> Result<Self, Error> {
        Self::read(body, &idp.layout(), idp.subject_field.as_deref())
    }

    fn read(body: &[u8], layout: &Layout<'_>, subject_field: Option<&str>) -> Result<Self, Error> {
        let mut fields = decode(None, body, layout).ok_or(Error::InvalidRequest(if body.trim_ascii().is_empty() {
            "the response is empty: pass the response of the token endpoint unchanged"
        } else {
            "the response is neither a JSON object nor a form: pass the response of the token endpoint unchanged"
        }))?;
        let denied = fields.error.is_some() || fields.has("ok", "false");
        let grant = match (fields.access_token.take(), fields.refresh_token.take()) {
            _ if fields.bad_access_token => Err("access_token must be printable ASCII characters without spaces"),
            _ if fields.bad_refresh_token => Err("refresh_token must be printable ASCII characters without spaces"),
            (None, None) if denied => {
                Err("the response has an error and no token: send the user through consent again")
            }
            (None, None) => Err("the response has no token: pass the response of the token endpoint unchanged"),
            _ if denied => Err("the response has a token and an error: send the user through consent again"),
            (Some(access), None) => Ok(Self::new(access)),
            (Some(access), Some(refresh)) => Ok(Self::new(access).refresh_token(refresh)),
            (None, Some(refresh)) => Ok(Self::from_refresh_token(refresh)),
        };
        let subject = subject_field.and_then(|path| fields.subject_in(path));
        let mut grant = grant.map_err(Error::InvalidRequest)?;
        grant.token_type = fields.token_type.unwrap_or(grant.token_type);
        grant.scope = fields.scope.unwrap_or_default();
        grant.subject = subject.or(fields.subject);
        grant.expiry = fields.expires.map_or(grant.expiry, until);
        // A lifetime that counts from now and a point in time cannot be compared here: the first one counts.
        grant.refresh_expiry = match fields.refresh_expires.first() {
            Some(ends) => until(*ends),
            None if fields.refresh_never_expires => Lifetime::Until(Expiry::Never),
            None => grant.refresh_expiry,
        };
        grant.exposed = fields.exposed;
        grant.validate().map_err(Error::InvalidRequest)?;
        Ok(grant)
    }
}

fn until(ends: Ends) -> Lifetime {
    match ends {
        Ends::In(lifetime) => Lifetime::For(lifetime),
        Ends::At(time) => Lifetime::Until(Expiry::At(time.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn json_and_forms_are_read_with_all_fields() {
        let json = br#" {"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r","token_type":"bearer",
            "expires_in":"7200","refresh_expires_in":0,"scope":"api","sub":"42","foo":[1]} "#;
        let grant = Grant::from_token_response(json).unwrap();
        assert_eq!(grant.access_token.unwrap().expose_secret(), "ts-test-secret-a");
        assert_eq!(grant.refresh_token.unwrap().expose_secret(), "ts-test-secret-r");
        assert_eq!((&*grant.token_type, &*grant.scope, grant.subject.as_deref()), ("bearer", "api", Some("42")));
        assert!(matches!(grant.expiry, Lifetime::For(life) if life == Duration::from_secs(7_200)));
        assert!(matches!(grant.refresh_expiry, Lifetime::Until(Expiry::Never)));

        let form = b"access_token=ts-test-secret-a&refresh_token_expires_in=60&scope=a%2Cb\n";
        let grant = Grant::from_token_response(form).unwrap();
        assert_eq!((&*grant.token_type, &*grant.scope), ("Bearer", "a,b"));
        assert!(grant.refresh_token.is_none() && matches!(grant.expiry, Lifetime::Until(Expiry::Unknown)));
        assert!(matches!(grant.refresh_expiry, Lifetime::For(life) if life == Duration::from_secs(60)));

        let refresh_only = Grant::from_token_response(br#"{"refresh_token":"ts-test-secret-r"}"#).unwrap();
        assert!(refresh_only.access_token.is_none());
        assert_eq!(refresh_only.refresh_token.unwrap().expose_secret(), "ts-test-secret-r");
    }

    #[test]
    fn a_response_without_a_grant_is_refused_and_not_quoted() {
        for (body, word) in [
            ("", "empty"),
            (" \n", "empty"),
            ("ts-test-secret-a", "neither"),
            (r#"{"access_token":"ts-test-secret-a""#, "neither"),
            (r#"["ts-test-secret-a"]"#, "neither"),
            ("<html>ts-test-secret-a</html>", "neither"),
            (r#"{"id_token":"ts-test-secret-i"}"#, "no token"),
            (r#"{"error":"x","refresh_token":"ts-test-secret-r"}"#, "a token and an error"),
            (r#"{"error":"bad_verification_code"}"#, "an error and no token"),
            (r#"{"ok":false,"error":"invalid_code"}"#, "an error and no token"),
            ("error=bad_verification_code&error_description=ts-test-secret-x", "an error and no token"),
            (r#"{"error":"x","access_token":"ts-test-secret-a"}"#, "a token and an error"),
            (r#"{"access_token":"ts-test-secret a"}"#, "access_token must be"),
            (r#"{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret\n"}"#, "refresh_token must be"),
        ] {
            let error = Grant::from_token_response(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("ts-test-secret"), "{body}: {error}");
        }
    }
}
