//! `apikey new`: creates an API key for a program that calls the server.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use token_supervisor::config::Scope;
use zeroize::Zeroizing;

use super::{CliFailure, Exit, Out, args::key as grant_key};

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
#[command(after_help = "Examples:\n  token-supervisor apikey new billing --scope token --idp github\n  \
    token-supervisor apikey new acme --scope token --scope grant --user-prefix acme/")]
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
    let key = NewApiKey::new()?;
    let section = key.section(&new.name, &once(&new.scopes), &once(&new.idps), new.user_prefix.as_deref());
    out.result(&serde_json::json!({ "key": &*key.text, "section": section }), || {
        format!("{}\n\nThis key is shown only once. Add this section to the configuration:\n\n{section}", &*key.text)
    })?;
    Ok(Exit::Done)
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
    pub(super) fn section(&self, name: &str, scopes: &[Scope], idps: &[String], user_prefix: Option<&str>) -> String {
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
        lines.join("\n") + "\n"
    }
}

/// Formats strings and lists of strings, which TOML and JSON write the same way if they have no control characters.
fn toml(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts have a JSON form")
}
