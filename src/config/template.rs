//! The file that one starts with.

use super::{
    Config,
    preset::{PRESETS, Preset},
};

impl Config {
    /// The names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.into_iter().map(|preset| preset.name)
    }

    /// A configuration file to start with: every section with a word about it, and an identity provider of that preset.
    /// None if there is no preset of that name.
    pub fn template(preset: Option<&str>) -> Option<String> {
        let idp = match preset {
            Some(name) => idp(Preset::find(name)?, ""),
            None => idp(Preset::find("github")?, "# "),
        };
        Some(format!("{TEMPLATE}{idp}"))
    }

    /// What the template of this preset has an example for, that nothing works with: the settings to edit. None of most.
    pub fn to_edit(preset: &str) -> Option<&'static str> {
        let preset = Preset::find(preset)?;
        match preset.needs().next() {
            Some(_) => Some("params"),
            None => (preset.name == "oauth2").then_some("token_url"),
        }
    }

    /// The identity providers that are still where the template's example is, and the setting to edit.
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

/// Where nobody's identity provider is.
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

const TEMPLATE: &str = r#"# The configuration of token-supervisor. What is commented out is the default, or an example.
# Any string may also be { env = "NAME" } or { file = "PATH" }; a file is read again when it changes.
# TOKEN_SUPERVISOR__SECTION__KEY in the environment overrides [section] key.
# `token-supervisor config check` says what is wrong, `config show --origin` what is in effect.

[server]
# Where it listens: an address, or a list of them. "unix:/run/token-supervisor.sock" is for this user alone.
# bind = "127.0.0.1:8080"
# What others call it.
# public_url = "https://tokens.example.com"

# Who may ask: a section for each key, made by `token-supervisor apikey new NAME`.
# [[server.api_key]]
# name = "billing"
# sha256 = "..."
# scopes = ["token"]        # token, grant, admin, metrics
# idps = ["github"]         # default: all
# user_prefix = "acme/"     # default: all users

# Where grants are kept, sealed.
[store]
# url = "sqlite://token-supervisor.db"

# Answers that the store has not got yet: on a disk that survives the process.
[journal]
# dir = "token-supervisor.journal"

# The keys that seal what is stored. Keep their backup apart from the store's.
[keyring]
# file = "token-supervisor.keys"

# When and how tokens are refreshed, in seconds. All of these also in [idp.NAME].
[refresh]
# margin_seconds = 300            # so long before its end; at most a quarter of its life
# attempt_timeout_seconds = 15    # so long an answer is awaited;
# patience_seconds = 120          # so long where a second request would end the grant
# in_doubt = "ask"                # ask | try: of a refresh that nobody knows the outcome of

# How much is done at a time.
[limits]
# waiters_per_grant = 16384

# For how long what is no longer needed is kept.
[retention]
# timeline_days = 90
# tombstone_days = 30

[log]
# format = "text"                 # text | json
# user = "hash"                   # hash | plain

# The identity providers: [idp.NAME] has the name that keys and URLs use.
"#;
