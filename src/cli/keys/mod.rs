//! `keys`: creates key files, and rotates the keys in them.
//!
//! The key file is local to each replica, and changed by these commands alone. A process takes a changed file over by itself. What needs a
//! key, and which replicas have it, the store says, or a running server.

mod change;
mod list;
mod place;
mod reseal;

use std::path::PathBuf;

use serde_json::json;
use token_supervisor::Keyring;

use self::{
    change::{AddKeyArgs, PromoteKeyArgs, RemoveKeyArgs},
    list::ListKeysArgs,
    reseal::ResealArgs,
};
use super::{
    CliFailure, Exit, Out,
    show::{beside, folded},
};

/// Create key files, which encrypt the stored tokens, and rotate the keys in them.
///
/// A key is staged (it decrypts), then active (it also encrypts), then retired (it only decrypts).
/// To rotate: add, distribute the file, promote, distribute it, reseal, remove, distribute it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys new token-supervisor.keys\n  \
    token-supervisor keys list --json")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    New(NewKeysArgs),
    List(ListKeysArgs),
    Add(AddKeyArgs),
    Promote(PromoteKeyArgs),
    Reseal(ResealArgs),
    Remove(RemoveKeyArgs),
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

pub(crate) async fn run(args: KeysArgs, out: Out) -> Result<Exit, CliFailure> {
    match args.command {
        KeysCommand::New(args) => create(&args, out),
        KeysCommand::List(args) => args.run(out).await,
        KeysCommand::Add(args) => args.run(out),
        KeysCommand::Promote(args) => args.run(out).await,
        KeysCommand::Reseal(args) => args.run(out).await,
        KeysCommand::Remove(args) => args.run(out).await,
    }
}

fn create(NewKeysArgs { file }: &NewKeysArgs, out: Out) -> Result<Exit, CliFailure> {
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
