//! `keys new`: creates a key file.

use std::path::PathBuf;

use serde_json::json;
use token_supervisor::Keyring;

use super::{
    CliFailure, Exit, Out,
    show::{beside, folded},
};

/// Create key files, which encrypt the stored tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys new token-supervisor.keys\n  \
    token-supervisor keys new /etc/token-supervisor/keys --json")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    New(NewKeysArgs),
}

/// Write a new key file, readable only by you. An existing file is never changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys new token-supervisor.keys\n  \
    token-supervisor keys new /etc/token-supervisor/keys --json")]
struct NewKeysArgs {
    /// Path of the new file
    file: PathBuf,
}

/// What to know about a key file.
pub(super) const BACKUP: &str = "keys that encrypt the stored tokens. Back this file up apart from the database: a thief \
    needs both, and you cannot read the database without it.";

pub(crate) fn run(args: &KeysArgs, out: Out) -> Result<Exit, CliFailure> {
    let KeysCommand::New(NewKeysArgs { file }) = &args.command;
    Keyring::generate().write_new(file).map_err(|error| {
        let next = "name another file; a store can be opened only with the keys that it was created with";
        CliFailure::new(Exit::Failed, error.to_string(), next)
    })?;
    out.result(&json!({ "file": file }), || {
        let path = file.display().to_string();
        let next = "next: set keyring.file in the configuration to this path";
        format!("{}\n\n{}\n", beside(&format!("{path}  "), path.len() + 2, BACKUP), folded(next, 0))
    })?;
    Ok(Exit::Done)
}
