//! The configuration file that `init` writes.

use super::{
    Config,
    preset::{PRESETS, Preset},
};

impl Config {
    /// Returns the names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.into_iter().map(|preset| preset.name)
    }

    /// Returns a configuration file to start with: every section with a comment, and an identity provider with this preset;
    /// `None` if there is no such preset.
    pub fn template(preset: Option<&str>) -> Option<String> {
        let idp = match preset {
            Some(name) => idp(Preset::find(name)?, ""),
            None => idp(Preset::find("github")?, "# "),
        };
        Some(format!("{TEMPLATE}{idp}"))
    }

    /// Returns the setting that must be edited in the template of this preset, because it is only an example; `None` for most.
    pub fn to_edit(preset: &str) -> Option<&'static str> {
        let preset = Preset::find(preset)?;
        match preset.needs().next() {
            Some(_) => Some("params"),
            None => (preset.name == "oauth2").then_some("token_url"),
        }
    }

    /// Returns the identity providers that still have the example of the template, with the setting to edit.
    pub fn unedited(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let shown =
            |path: String, example: &str| self.shown.iter().any(|shown| shown.path == path && shown.value == example);
        self.idps().filter_map(move |(name, _)| {
            let is = |key: &str, example: &str| shown(format!("idp.{name}.{key}"), example);
            let preset = PRESETS.iter().find(|preset| is("preset", preset.name))?;
            let params = preset.needs().all(|(param, example)| is(&format!("params.{param}"), example));
            let setting = Self::to_edit(preset.name)?;
            (params && (setting == "params" || is(setting, EXAMPLE))).then_some((name, setting))
        })
    }
}

/// An example; no provider has this URL.
const EXAMPLE: &str = "https://idp.example.com/oauth/token";

fn idp(preset: &Preset, comment: &str) -> String {
    let name = preset.name;
    let variable = name.to_ascii_uppercase();
    let mut lines = vec![format!("[idp.{name}]"), format!("preset = \"{name}\"")];
    let params: Vec<_> = preset.needs().map(|(name, example)| format!("{name} = \"{example}\"")).collect();
    if !params.is_empty() {
        lines.push(format!("params = {{ {} }}", params.join(", ")));
    }
    if name == "oauth2" {
        lines.push(format!("token_url = \"{EXAMPLE}\""));
    }
    for secret in ["client_id", "client_secret"] {
        lines.push(format!("{secret} = {{ env = \"{variable}_{}\" }}", secret.to_ascii_uppercase()));
    }
    lines.into_iter().map(|line| format!("{comment}{line}\n")).collect()
}

const TEMPLATE: &str = r#"# The configuration of token-supervisor. Commented lines show defaults or examples.
# Any string may also be { env = "NAME" } or { file = "PATH" }; a file is read again when it changes.
# TOKEN_SUPERVISOR__SECTION__KEY in the environment overrides [section] key.
# `token-supervisor config check` lists problems, `config show --origin` the values in effect.

[server]
# Address to listen on, or a list. Only this user can open a socket such as "unix:/run/token-supervisor.sock".
# bind = "127.0.0.1:8080"
# URL by which others reach the server.
# public_url = "https://tokens.example.com"
# Connections that may be open at once.
# max_connections = 1024

# API keys, a section each: `token-supervisor apikey new NAME` creates one.
# [[server.api_key]]
# name = "billing"
# sha256 = "..."
# scopes = ["token"]        # token, grant, admin, metrics
# idps = ["github"]         # default: all
# user_prefix = "acme/"     # default: all users
# requests_per_second = 100 # default: unlimited

# Grants are stored here, sealed.
[store]
# url = "sqlite://token-supervisor.db"

# Responses that the store does not have yet. Use a disk that survives the process.
[journal]
# dir = "token-supervisor.journal"

# The keys that seal stored tokens. Keep their backup apart from the backup of the store.
[keyring]
# file = "token-supervisor.keys"

# Times of refreshes. Each can also be set in [idp.NAME].
[refresh]
# margin_seconds = 300            # refresh this long before expiry, at most a quarter of the lifetime
# attempt_timeout_seconds = 15    # wait this long for a response,
# patience_seconds = 120          # or this long where a second request would end the grant
# in_doubt = "ask"                # ask | try: after a refresh whose outcome cannot be known

# Limits.
[limits]
# waiters_per_grant = 16384

# How long data of the past is kept.
[retention]
# timeline_days = 90
# tombstone_days = 30

[log]
# format = "text"                 # text | json
# user = "hash"                   # hash | plain

# Identity providers. Keys and URLs use the NAME of [idp.NAME].
"#;
