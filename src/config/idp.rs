//! `[idp.NAME]`: a preset, and the settings that differ from it.

use strum::IntoEnumIterator as _;

use super::{
    Config,
    error::Origin,
    field::{ComparedValue, Word},
    preset::Preset,
    refresh,
    section::Section,
};
use crate::{
    idp::{ClientAuth, Credentials, ErrorRule, Idp, Meaning, ResponseField, parameters_of, path_of_pointer},
    model::{ClientSecret, valid_idp_name},
    supervisor::RefreshSettings,
};

pub(super) fn valid_name(name: &str) -> Result<(), &'static str> {
    if valid_idp_name(name) {
        Ok(())
    } else {
        Err("the name of an identity provider must match [a-z0-9][a-z0-9_-]{0,63}")
    }
}

/// Reads an identity provider with its own times, or else those of `common`, and checks it unless it has problems already.
pub(super) fn read(section: &mut Section<'_, '_>, common: &RefreshSettings) -> Idp {
    let mut idp = read_preset(section);
    read_endpoints(section, &mut idp);
    read_endpoint_params(section, &mut idp);
    read_client(section, &mut idp);
    read_tokens(section, &mut idp);
    read_responses(section, &mut idp);
    read_errors(section, &mut idp);
    refresh::read_own(section, &mut idp);
    for later in ["proxy", "tls_root_certificate"] {
        section.not_yet(later);
    }
    let idp = common.complete(idp);
    if section.is_sound() {
        if idp.token_url.is_empty() {
            section.wrong("token_url", "must be set");
        } else if let Err(text) = idp.validate() {
            let (setting, what) = text.split_once(' ').unwrap_or(("", &text));
            section.wrong(setting, what);
        } else if let Err(text) = common.check(&idp) {
            section.wrong("", text);
        }
    }
    idp
}

/// Reads the preset. With an unknown preset the other settings are still read, so that all problems are reported.
fn read_preset(section: &mut Section<'_, '_>) -> Idp {
    let mut name = String::new();
    section.read("preset", &mut name);
    let preset = Preset::find(&name);
    if preset.is_none() && section.is_sound() {
        let presets: Vec<_> = Config::presets().collect();
        section.wrong("preset", format!("must be one of: {}", presets.join(", ")));
    }
    let mut params = section.texts("params", |name| preset.is_some_and(|preset| preset.takes(name)));
    let made = preset.map(|preset| preset.make(&mut params));
    if let Some(preset) = preset {
        section.defaults_from(Origin::Preset { name: preset.name });
    }
    let mut idp = match made {
        Some(Ok(idp)) => idp,
        Some(Err(text)) => {
            section.wrong("params", text);
            Idp::oauth2("", "", "")
        }
        None => Idp::oauth2("", "", ""),
    };
    idp.params.extend(params);
    section.read("strategy", &mut StrategyName::RefreshToken);
    idp
}

/// How an access token is obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StrategyName {
    RefreshToken,
}

fn read_endpoints(section: &mut Section<'_, '_>, idp: &mut Idp) {
    if section.has("token_url") {
        // Those of the preset belong to its own server: no token of another one is sent there.
        (idp.introspection_url, idp.userinfo_url) = (None, None);
    }
    section.read("token_url", &mut idp.token_url);
    section.read("revocation_url", &mut idp.revocation_url);
    section.read("introspection_url", &mut idp.introspection_url);
    section.read("userinfo_url", &mut idp.userinfo_url);
    section.read("revocation_hits_user", &mut idp.revocation_hits_user);
    section.read("allow_http", &mut idp.allow_http);
    section.read("max_concurrency", &mut idp.max_concurrency);
    section.read("requests_per_second", &mut idp.requests_per_second);
}

/// Reads the parameters of the endpoints: what stands in braces there is no form field.
fn read_endpoint_params(section: &mut Section<'_, '_>, idp: &mut Idp) {
    for (name, values) in section.texts("allowed_params", |_| true) {
        idp.endpoint_params.entry(name).or_default().allowed = values.split_whitespace().map(str::to_owned).collect();
    }
    let more = [&idp.revocation_url, &idp.introspection_url, &idp.userinfo_url].into_iter().flatten();
    for template in std::iter::once(&idp.token_url).chain(more) {
        for name in parameters_of(template) {
            let param = idp.endpoint_params.entry(name.clone()).or_default();
            if let Some(value) = idp.params.remove(&name) {
                param.default = Some(value);
            }
        }
    }
}

fn read_client(section: &mut Section<'_, '_>, idp: &mut Idp) {
    section.read("client_auth", &mut idp.client_auth);
    let public = idp.client_auth == ClientAuth::None;
    idp.clients.clear();
    section.listed("clients", |client| idp.clients.push(read_credentials(client, public)));
    if !section.has("clients") {
        idp.clients.push(read_credentials(section, public));
    } else if section.has("client_id") || section.has("client_secret") {
        section.wrong("clients", "set either `client_id` and `client_secret`, or `clients`");
        read_credentials(section, public);
    } else if idp.clients.is_empty() && section.is_sound() {
        section.wrong("clients", "must have at least one client");
    }
}

fn read_credentials(section: &mut Section<'_, '_>, public: bool) -> Credentials {
    let (mut client_id, mut client_secret) = (String::new(), None);
    section.read("client_id", &mut client_id);
    section.read("client_secret", &mut client_secret);
    let client_secret = client_secret.unwrap_or_else(|| ClientSecret::from(""));
    if client_id.is_empty() && section.is_sound() {
        section.wrong("client_id", "must be set");
    }
    if client_secret.expose_secret().is_empty() && !public && section.is_sound() {
        section.wrong("client_secret", "must be set, or client_auth = \"none\" for a public client");
    }
    Credentials { client_id, client_secret }
}

fn read_tokens(section: &mut Section<'_, '_>, idp: &mut Idp) {
    section.read("scope", &mut idp.scope);
    section.read("rotation", &mut idp.rotation);
    section.read("reuse_grace_seconds", &mut idp.reuse_grace);
    section.read("retry_safe", &mut idp.retry_safe);
    section.read("rotation_ends_access_token", &mut idp.rotation_ends_access_token);
    section.read("access_lifetime_seconds", &mut idp.access_lifetime);
    section.read("access_lifetime_override_seconds", &mut idp.access_lifetime_override);
    section.read("max_access_lifetime_seconds", &mut idp.max_access_lifetime);
    section.read("refresh_lifetime_seconds", &mut idp.refresh_lifetime);
}

/// Reads where responses have their fields, and which of them go out. The preset's own stay.
fn read_responses(section: &mut Section<'_, '_>, idp: &mut Idp) {
    section.section("response", |section| {
        for field in ResponseField::iter() {
            let mut pointer: Option<String> = None;
            section.read(field.name(), &mut pointer);
            match pointer.as_deref().map(path_of_pointer) {
                Some(Ok(path)) => drop(idp.response_fields.insert(field, path)),
                Some(Err(text)) => section.wrong(field.name(), text),
                None => {}
            }
        }
        let mut success: Vec<ComparedValue> = Vec::new();
        section.read("success", &mut success);
        idp.success_values.extend(success.into_iter().map(|value| value.0));
    });
    section.read("authorization_scheme", &mut idp.authorization_scheme);
    let mut expose: Vec<Word> = Vec::new();
    section.read("expose", &mut expose);
    idp.expose.extend(expose.into_iter().map(|name| name.0));
}

/// Reads rules for error responses; they take precedence over those of the preset.
fn read_errors(section: &mut Section<'_, '_>, idp: &mut Idp) {
    section.listed("errors", |section| {
        let (mut code, mut meaning, mut field) = (None::<ComparedValue>, None::<Meaning>, None::<String>);
        section.read("code", &mut code);
        section.read("meaning", &mut meaning);
        section.read("field", &mut field);
        let (mut status, mut in_doubt) = (None::<usize>, false);
        section.read("status", &mut status);
        section.read("in_doubt", &mut in_doubt);
        let and = section.section("and", |and| {
            let (mut field, mut value) = (None::<String>, None::<ComparedValue>);
            and.read("field", &mut field);
            and.read("value", &mut value);
            match (field, value) {
                (Some(field), Some(value)) => Some((field_path(and, field), value.0)),
                (None, None) => None,
                (Some(_), None) => {
                    and.wrong("value", "must be set: the value that the field must have");
                    None
                }
                (None, Some(_)) => {
                    and.wrong("field", "must be set: the field that must have the value");
                    None
                }
            }
        });
        let (Some(ComparedValue(code)), Some(meaning)) = (&code, meaning) else {
            if section.is_sound() {
                let missing = if code.is_none() { "code" } else { "meaning" };
                section.wrong(missing, "must be set: each rule gives the meaning of one error code");
            }
            return;
        };
        let mut rule = ErrorRule::new(code, meaning);
        if let Some(field) = field {
            rule = rule.field(field_path(section, field));
        }
        if let Some((field, value)) = and {
            rule = rule.and(field, value);
        }
        match status.map(u16::try_from) {
            Some(Ok(status @ 200..=499)) => rule = rule.status(status),
            Some(_) => section.wrong("status", "must be from 200 to 499: no other response is a verdict"),
            None => {}
        }
        idp.errors.push(if in_doubt { rule.in_doubt() } else { rule });
    });
}

/// Reads the place of a field: a name, names with dots, or a JSON pointer.
fn field_path(section: &mut Section<'_, '_>, field: String) -> String {
    if !field.starts_with('/') {
        return field;
    }
    path_of_pointer(&field).unwrap_or_else(|text| {
        section.wrong("field", text);
        field
    })
}
