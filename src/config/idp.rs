//! `[idp.NAME]`: a preset, and the settings that differ from it.

use super::{Config, error::Origin, preset::Preset, refresh, section::Section};
use crate::{
    idp::{ClientAuth, Credentials, Idp},
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
    read_client(section, &mut idp);
    read_tokens(section, &mut idp);
    refresh::read_own(section, &mut idp);
    for later in ["introspection_url", "userinfo_url", "proxy", "tls_root_certificate"] {
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
    section.read("token_url", &mut idp.token_url);
    section.read("revocation_url", &mut idp.revocation_url);
    section.read("revocation_hits_user", &mut idp.revocation_hits_user);
    section.read("allow_http", &mut idp.allow_http);
    section.read("max_concurrency", &mut idp.max_concurrency);
    section.read("requests_per_second", &mut idp.requests_per_second);
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
    section.read("rotation_ends_access_token", &mut idp.rotation_ends_access_token);
    section.read("access_lifetime_seconds", &mut idp.access_lifetime);
    section.read("refresh_lifetime_seconds", &mut idp.refresh_lifetime);
}
