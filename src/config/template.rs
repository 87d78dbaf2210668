//! The configuration file that `init` writes.

use std::path::Path;

use super::{
    Config, ConfigError,
    error::Origin,
    idp::valid_name,
    node::{self, Table, Value},
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
            Some(name) => idp(Preset::find(name)?, name, ""),
            None => idp(Preset::find("github")?, "github", "# "),
        };
        Some(format!("{TEMPLATE}{idp}"))
    }

    /// Returns the text of a configuration file with a section for another identity provider at its end; all else is left as it
    /// is. `path` is named in errors.
    ///
    /// # Errors
    /// The text is not TOML, has this provider already, or the name or the preset is not valid.
    pub fn with_idp(text: &str, path: &Path, preset: &str, name: &str) -> Result<String, ConfigError> {
        let wrong = |text: &str| ConfigError::one(Origin::Default, "", text);
        let found = Preset::find(preset).ok_or_else(|| wrong("unknown preset: see token-supervisor idp add --help"))?;
        valid_name(name).map_err(wrong)?;
        let idps = match node::parse(text, path)?.remove("idp").map(|node| (node.origin, node.value)) {
            Some((_, Value::Table(idps))) => idps,
            Some((origin, _)) => return Err(ConfigError::one(origin, "idp", "must be a section: write [idp.NAME]")),
            None => Table::new(),
        };
        if let Some(node) = idps.get(name) {
            let text = "is configured already: edit its section, or give the new one another name with --name";
            return Err(ConfigError::one(node.origin.clone(), format!("idp.{name}"), text));
        }
        let mut section = format!(
            "\n# The identity provider {name}. The preset supplies every setting that is left out: config show lists them.\n{}",
            idp(found, name, "")
        );
        if text.contains("\r\n") {
            section = section.replace('\n', "\r\n");
        }
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let extended = format!("{text}{end}{section}");
        // A section cannot be added to an inline table.
        let parsed = node::parse(&extended, path).ok().and_then(|mut all| all.remove("idp"));
        match parsed.map(|node| node.value) {
            Some(Value::Table(idps)) if idps.contains_key(name) => Ok(extended),
            _ => Err(wrong("the section cannot be added at the end of the file: add it by hand")),
        }
    }

    /// Returns the environment variables from which the template of a provider of this name reads its client.
    pub fn client_variables(name: &str) -> [String; 2] {
        let digit = if name.starts_with(|first: char| first.is_ascii_digit()) { "_" } else { "" };
        let prefix = format!("{digit}{}", name.to_ascii_uppercase().replace('-', "_"));
        ["CLIENT_ID", "CLIENT_SECRET"].map(|setting| format!("{prefix}_{setting}"))
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

fn idp(preset: &Preset, name: &str, comment: &str) -> String {
    let mut lines = vec![format!("[idp.{name}]"), format!("preset = \"{}\"", preset.name)];
    let params: Vec<_> = preset.needs().map(|(name, example)| format!("{name} = \"{example}\"")).collect();
    if !params.is_empty() {
        lines.push(format!("params = {{ {} }}", params.join(", ")));
    }
    if preset.name == "oauth2" {
        lines.push(format!("token_url = \"{EXAMPLE}\""));
    }
    for (setting, variable) in ["client_id", "client_secret"].into_iter().zip(Config::client_variables(name)) {
        lines.push(format!("{setting} = {{ env = \"{variable}\" }}"));
    }
    lines.into_iter().map(|line| format!("{comment}{line}\n")).collect()
}

const TEMPLATE: &str = r#"# The configuration of token-supervisor. Commented lines show defaults or examples.
# Paths are relative to the folder of this file.
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
# expires_at = "2027-01-15T08:00:00Z"   # default: never
# requests_per_second = 100 # default: unlimited

# Grants are stored here, sealed.
[store]
# url = "sqlite://token-supervisor.db"   # or postgres://USER:PASSWORD@HOST/DATABASE

# Responses that the store does not have yet. Use a disk that survives the process.
[journal]
# dir = "token-supervisor.journal"
# keep_hours = 48                        # copies of what the store has, for the time after a backup is restored

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
