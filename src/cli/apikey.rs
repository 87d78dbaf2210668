//! `apikey new`: creates an API key for a program that calls the server.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use token_supervisor::{
    api::time::{parse, rfc3339},
    config::Scope,
};
use zeroize::Zeroizing;

use super::{
    CliFailure, Exit, Out,
    args::key as grant_key,
    private_file,
    time::{lifetime, now, whole_seconds},
};

/// Create API keys for programs that call the server.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor apikey new billing --scope token --idp github\n  \
    token-supervisor apikey new acme --scope token --scope grant --user-prefix acme/")]
pub(crate) struct ApikeyArgs {
    #[command(subcommand)]
    command: ApikeyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ApikeyCommand {
    New(NewKeyArgs),
}

/// Print a new API key, once, and the configuration section that accepts it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor apikey new billing --scope token --idp github --expires-in 90d\n  \
    token-supervisor apikey new acme --scope token --scope grant --user-prefix acme/"
)]
struct NewKeyArgs {
    /// Program that uses the key; two keys may share a name, to replace one without a gap
    name: String,
    /// Scope: token, grant, admin, metrics; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", default_value = "token")]
    scopes: Vec<Scope>,
    /// Provider it may use; may be repeated [default: all]
    #[arg(long = "idp", value_name = "NAME")]
    idps: Vec<String>,
    /// Prefix of the users it may use, such as acme/ [default: all]
    #[arg(long, value_name = "PREFIX")]
    user_prefix: Option<String>,
    /// Lifetime of the key, such as 90d or 12h [default: it never expires]
    #[arg(long, value_name = "DURATION", value_parser = lifetime, conflicts_with = "expires_at")]
    expires_in: Option<Duration>,
    /// Time from which the key is refused: RFC 3339 or epoch seconds
    #[arg(long, value_name = "TIME", value_parser = parse)]
    expires_at: Option<SystemTime>,
    /// New file to write the key to, readable only by you
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &ApikeyArgs, out: Out) -> Result<Exit, CliFailure> {
    let ApikeyCommand::New(new) = &args.command;
    if new.name.is_empty() || new.name.chars().any(char::is_control) {
        return Err(CliFailure::usage("the name is empty or has control characters", "name the program that uses it"));
    }
    for idp in &new.idps {
        grant_key(idp, "any", "").map_err(|failure| failure.then("give --idp the NAME of a section [idp.NAME]"))?;
    }
    let prefix = |prefix: &String| prefix.len() > 1 && prefix.ends_with('/') && !prefix.chars().any(char::is_control);
    if !new.user_prefix.as_ref().is_none_or(prefix) {
        return Err(CliFailure::usage("--user-prefix must end in \"/\"", "write it as in --user-prefix acme/"));
    }
    if new.scopes.contains(&Scope::Metrics) && (!new.idps.is_empty() || new.user_prefix.is_some()) {
        return Err(CliFailure::usage(
            "metrics cover all providers and users: the scope metrics cannot be limited by --idp or --user-prefix",
            "create a key with --scope metrics alone, and another one for the rest",
        ));
    }
    let expires_at = new.expires_at.or(new.expires_in.map(|lifetime| whole_seconds(now() + lifetime)));
    if expires_at.is_some_and(|end| end <= now()) {
        return Err(CliFailure::usage("the key would have expired already", "give a later --expires-at"));
    }
    let (key, scopes, idps) = (NewApiKey::new()?, once(&new.scopes), once(&new.idps));
    let section = key.section(&new.name, &scopes, &idps, new.user_prefix.as_deref(), expires_at);
    if let Some(path) = &new.output {
        private_file::create(path, Zeroizing::new(format!("{}\n", &*key.text)).as_bytes())?;
    }
    let (shown, file) = if new.output.is_some() { (None, new.output.as_deref()) } else { (Some(&**key.text), None) };
    out.result(&NewKeyJson { key: shown, file, section: &section, expires_at }, || {
        let head = match file {
            Some(path) => format!("The key is in {}.", path.display()),
            None => format!("{}\n\nThis key is shown only once.", &*key.text),
        };
        format!("{head} Add this section to the configuration:\n\n{section}")
    })?;
    Ok(Exit::Done)
}

/// The result, as programs read it.
#[derive(Serialize)]
struct NewKeyJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
    section: &'a str,
    #[serde(with = "token_supervisor::api::time::optional")]
    expires_at: Option<SystemTime>,
}

/// Removes duplicates and keeps the order.
fn once<T: Clone + PartialEq>(all: &[T]) -> Vec<T> {
    let mut once: Vec<T> = Vec::new();
    for one in all {
        if !once.contains(one) {
            once.push(one.clone());
        }
    }
    once
}

/// A new API key: 256 random bits.
pub(crate) struct NewApiKey {
    pub(crate) text: Zeroizing<String>,
}

impl NewApiKey {
    pub(crate) fn new() -> Result<Self, CliFailure> {
        let mut bits = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bits).map_err(std::io::Error::other)?;
        Ok(Self { text: Zeroizing::new(format!("tsk_{}", URL_SAFE_NO_PAD.encode(*bits))) })
    }

    /// Returns the configuration section that accepts this key.
    pub(super) fn section(
        &self,
        name: &str,
        scopes: &[Scope],
        idps: &[String],
        user_prefix: Option<&str>,
        expires_at: Option<SystemTime>,
    ) -> String {
        let digest: String = Sha256::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let scopes: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        let mut lines = vec![
            "[[server.api_key]]".to_owned(),
            format!("name = {}", toml(&name)),
            format!("sha256 = {}", toml(&digest)),
            format!("scopes = {}", toml(&scopes)),
        ];
        if !idps.is_empty() {
            lines.push(format!("idps = {}", toml(&idps)));
        }
        if let Some(prefix) = user_prefix {
            lines.push(format!("user_prefix = {}", toml(&prefix)));
        }
        if let Some(end) = expires_at {
            lines.push(format!("expires_at = {}", toml(&rfc3339(end))));
        }
        lines.join("\n") + "\n"
    }
}

/// Formats strings and lists of strings, which TOML and JSON write the same way if they have no control characters.
fn toml(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts have a JSON form")
}
