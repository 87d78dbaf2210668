//! Validates the data of an identity provider before the first request.

use std::net::IpAddr;

use url::{Host, Url};

use crate::model::is_token;

use super::{
    endpoint::{self, EndpointParam},
    layout::ResponseField,
    provider::{ClientAuth, Idp, RESERVED_PARAMS},
};

/// The fields of a response that are secret.
const SECRET_FIELDS: [&str; 3] = ["access_token", "refresh_token", "id_token"];

impl Idp {
    /// Validates the settings, except for timing, which is validated where the supervisor's own settings are known.
    ///
    /// # Errors
    /// The name of the wrong setting, and what it must be; never its value.
    pub fn validate(&self) -> Result<(), String> {
        self.check_template("token_url", &self.token_url)?;
        for (name, url) in [
            ("revocation_url", &self.revocation_url),
            ("introspection_url", &self.introspection_url),
            ("userinfo_url", &self.userinfo_url),
        ] {
            url.iter().try_for_each(|url| self.check_template(name, url))?;
        }
        if self.clients.iter().any(|client| client.client_id.is_empty()) {
            return Err("client_id is empty".to_owned());
        }
        let secretless = self.clients.iter().any(|client| client.client_secret.expose_secret().is_empty());
        if self.client_auth != ClientAuth::None && secretless {
            return Err("client_secret is empty: set it, or client_auth = none for a public client".to_owned());
        }
        if let Some(name) = RESERVED_PARAMS.into_iter().find(|name| self.params.contains_key(*name)) {
            return Err(format!("params must not contain {name}: it is set by the request itself"));
        }
        self.check_response()?;
        if self.max_concurrency == 0 {
            return Err("max_concurrency must be at least 1".to_owned());
        }
        // A rate below one request a day is a mistake; a rate above the clock's milliseconds is no limit.
        if self.requests_per_second.is_some_and(|rate| !(1e-5..=1e3).contains(&rate)) {
            return Err("requests_per_second must be between 0.00001 and 1000".to_owned());
        }
        Ok(())
    }

    /// Validates how responses are read.
    fn check_response(&self) -> Result<(), String> {
        let paths = self.layout().more;
        if paths.iter().any(|path| path.is_empty()) || self.errors.iter().any(|rule| rule.value.is_empty()) {
            return Err("errors must not have an empty field or value, nor may error_detail or subject_field be empty"
                .to_owned());
        }
        if let Some((field, _)) = self.response_fields.iter().find(|(_, path)| path.is_empty()) {
            return Err(format!("response.{} must be a JSON pointer such as /body/{0}", field.name()));
        }
        let tokens = [ResponseField::AccessToken, ResponseField::RefreshToken];
        let own = |field: &ResponseField| self.response_fields.get(field).map(String::as_str);
        let secret: Vec<_> = SECRET_FIELDS.into_iter().chain(tokens.iter().filter_map(own)).collect();
        if let Some(name) = secret.iter().find(|name| paths.contains(name)) {
            return Err(format!("errors, error_detail and subject_field must not read {name}: it is secret"));
        }
        let shown = self.response_fields.iter().filter(|(field, _)| !tokens.contains(field));
        if let Some((field, _)) = shown.into_iter().find(|(_, path)| secret.contains(&path.as_str())) {
            return Err(format!("response.{} must not be the place of a token", field.name()));
        }
        let holds_token = |name: &String| secret.iter().any(|path| path.split('.').next() == Some(name.as_str()));
        if let Some(name) = self.expose.iter().find(|name| holds_token(name)) {
            return Err(format!("expose must not contain {name}: it is a token, or contains one"));
        }
        if !self.success_values.is_empty() && !self.response_fields.contains_key(&ResponseField::Error) {
            return Err("response.success needs response.error, the place of the value".to_owned());
        }
        if self.authorization_scheme.as_ref().is_some_and(|scheme| !is_token(scheme)) {
            return Err("authorization_scheme must be a word such as Bearer".to_owned());
        }
        if self.max_access_lifetime.is_zero() || self.access_lifetime_override.is_some_and(|life| life.is_zero()) {
            return Err(
                "max_access_lifetime_seconds and access_lifetime_override_seconds must be more than 0".to_owned()
            );
        }
        Ok(())
    }

    /// Checks an endpoint with its parameters.
    fn check_template(&self, name: &str, template: &str) -> Result<(), String> {
        endpoint::check(template, &self.endpoint_params).map_err(|text| format!("{name} {text}"))?;
        // A parameter without a default gets any value.
        let any = |(name, param): (&String, &EndpointParam)| {
            let value = param.default.as_ref().or(param.allowed.first()).map_or("x", String::as_str);
            (name.clone(), value.to_owned())
        };
        let values = self.endpoint_params.iter().map(any).collect();
        let url = endpoint::render(template, &self.endpoint_params, &values).map_err(str::to_owned)?;
        self.check_url(name, &url)
    }

    fn check_url(&self, name: &str, url: &str) -> Result<(), String> {
        let Ok(url) = Url::parse(url) else { return Err(format!("{name} is not a URL")) };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("{name} must not contain a user or password: use client_id and client_secret"));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http || loopback(&url) => {}
            "http" => return Err(format!("{name} must be https (or loopback, or set allow_http)")),
            _ => return Err(format!("{name} must be https")),
        }
        // RFC 6749, section 3.2: an endpoint must not have a fragment.
        if url.fragment().is_some() { Err(format!("{name} must not have a fragment")) } else { Ok(()) }
    }
}

/// Returns whether the URL names this machine, without asking a name server.
pub(crate) fn loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idp::rule::{ErrorRule, Meaning};

    fn at(url: &str) -> Idp {
        Idp::oauth2(url, "client", "ts-test-secret-client")
    }

    #[test]
    fn validation_names_the_setting() {
        let good = || at("https://idp.example/token");
        for (idp, expected) in [
            (good(), None),
            (at("http://127.0.0.1:8080/token"), None),
            (at("http://[::1]/token"), None),
            (at("http://localhost/token"), None),
            (at("http://idp.example/token").allow_http(true), None),
            (at("http://idp.example/token"), Some("token_url must be https (")),
            (at("http://localhost.evil.example/token"), Some("token_url must be https (")),
            (at("ftp://localhost/token"), Some("token_url must be https")),
            (at("/token"), Some("token_url is not a URL")),
            (at("https://me:ts-test-secret-x@idp.example/token"), Some("token_url must not contain a user")),
            (at("https://idp.example/token#x"), Some("token_url must not have a fragment")),
            (good().revocation_url("http://idp.example/r"), Some("revocation_url must be https")),
            (good().introspection_url("http://idp.example/i"), Some("introspection_url must be https")),
            (good().userinfo_url("http://idp.example/u"), Some("userinfo_url must be https")),
            (Idp::oauth2("https://idp.example/token", "", "ts-test-secret-x"), Some("client_id")),
            (Idp::oauth2("https://idp.example/token", "client", ""), Some("client_secret")),
            (Idp::oauth2("https://idp.example/token", "client", "").client_auth(ClientAuth::None), None),
            (at("https://idp.example/{realm}/token").endpoint_param("realm", "app"), None),
            (at("https://idp.example/{realm}/token"), Some("token_url has the parameter {realm}, which is not")),
            (at("https://idp.example/{realm/token"), Some("token_url has braces that enclose no name")),
            (at("https://{dc}/token").endpoint_param("dc", "com"), Some("token_url has {dc} at the end of its host")),
            (at("https://a.{dc}/token").allowed_params("dc", ["com", "eu"]), None),
            (at("https://idp.example/{realm}").endpoint_param("realm", ".."), Some("params: the value")),
            (good().param("refresh_token", "x"), Some("params must not contain refresh_token")),
            (good().max_concurrency(0), Some("max_concurrency")),
            (good().requests_per_second(0.5), None),
            (good().requests_per_second(0.0), Some("requests_per_second")),
            (good().requests_per_second(f64::NAN), Some("requests_per_second")),
            (good().requests_per_second(f64::INFINITY), Some("requests_per_second")),
            (good().client("old", "ts-test-secret-old"), None),
            (good().client("", "ts-test-secret-old"), Some("client_id")),
            (good().client("old", ""), Some("client_secret")),
            (good().error(ErrorRule::new("x", Meaning::Race).and("a.b", "c").status(409)), None),
            (good().error(ErrorRule::new("", Meaning::Race)), Some("errors must not have")),
            (good().error(ErrorRule::new("x", Meaning::Race).field("")), Some("errors must not have")),
            (good().error(ErrorRule::new("x", Meaning::Race).and("refresh_token", "x")), Some("errors, error_detail")),
            (good().subject_field("access_token"), Some("errors, error_detail")),
            (good().error_detail("id_token"), Some("errors, error_detail")),
            (good().response_field(ResponseField::AccessToken, "/body/token").expose("team"), None),
            (good().response_field(ResponseField::AccessToken, "body.token"), Some("response.access_token must be")),
            (good().response_field(ResponseField::Scope, "/access_token"), Some("response.scope must not be")),
            (
                good().response_field(ResponseField::AccessToken, "/body/token").error_detail("body.token"),
                Some("errors, error_detail"),
            ),
            (good().response_field(ResponseField::AccessToken, "/body/token").expose("body"), Some("expose")),
            (good().expose("refresh_token"), Some("expose must not contain refresh_token")),
            (good().authorization_scheme("Zoho-oauthtoken"), None),
            (good().authorization_scheme("Bearer x"), Some("authorization_scheme")),
            (good().success_value("0"), Some("response.success needs")),
            (good().response_field(ResponseField::Error, "/status").success_value("0"), None),
            (good().max_access_lifetime(std::time::Duration::ZERO), Some("max_access_lifetime_seconds")),
        ] {
            match (idp.validate(), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(start)) => assert!(error.starts_with(start) && !error.contains("ts-test"), "{error}"),
                (result, expected) => panic!("{idp:?}: {result:?}, expected {expected:?}"),
            }
        }
    }
}
