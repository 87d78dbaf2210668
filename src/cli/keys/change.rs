//! `keys add`, `keys promote`, `keys remove`: change the key file.

use serde_json::json;
use token_supervisor::{KeyFileEdit, RotationError};

use super::place::{KeyFileArgs, loaded, unreadable};
use crate::cli::{CliFailure, Exit, Out, args::SourceArgs, show::folded, time::now};

/// Stage a new random key in the key file: it decrypts, and encrypts nothing yet.
///
/// The file is replaced at once, and stays readable only by its owner. A server takes it over by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys add\n  \
    token-supervisor keys add --config /etc/token-supervisor/config.toml --json")]
pub(super) struct AddKeyArgs {
    #[command(flatten)]
    source: SourceArgs,
}

/// Make a staged key the active one, which encrypts from now on; the active one is retired.
///
/// Refused until every live replica has the key. A retired key can be promoted again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys promote 7f3a9c01\n  \
    token-supervisor keys promote 7f3a9c01 --server http://127.0.0.1:8080")]
pub(super) struct PromoteKeyArgs {
    /// Key to promote, by its ID
    id: String,
    #[command(flatten)]
    file: KeyFileArgs,
}

/// Remove a key that nothing needs from the key file.
///
/// Refused while it is active, while a stored value, a queued revocation or a journal of this machine needs it, and while a
/// live replica encrypts with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys remove 0a0b0c0d\n  \
    token-supervisor keys remove 0a0b0c0d --server http://127.0.0.1:8080")]
pub(super) struct RemoveKeyArgs {
    /// Key to remove, by its ID
    id: String,
    #[command(flatten)]
    file: KeyFileArgs,
}

impl AddKeyArgs {
    pub(super) fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let config = loaded(&self.source)?;
        let edit = KeyFileEdit::open(config.keyring()).map_err(unreadable)?;
        let (keyring, id) = edit.keyring().staging(now());
        edit.replace(&keyring).map_err(unreadable)?;
        let next = format!(
            "copy the file to every replica and to its backup; when keys list shows that all have the key, run \
             token-supervisor keys promote {id}"
        );
        out.result(&json!({ "id": id, "file": config.keyring(), "next": next }), || {
            done(&format!("Key {id} is staged in {}.", config.keyring().display()), &next)
        })?;
        Ok(Exit::Done)
    }
}

impl PromoteKeyArgs {
    pub(super) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let (id, config) = (self.id.to_ascii_lowercase(), self.file.config()?);
        let edit = KeyFileEdit::open(config.keyring()).map_err(unreadable)?;
        let keyring = match edit.keyring().promoting(&id, now()) {
            // Run again after a failure that came late.
            Err(RotationError::Active(_)) => None,
            Err(error) => return Err(unknown(&error)),
            Ok(keyring) => Some(keyring),
        };
        if let Some(keyring) = &keyring {
            let keys = self.file.keys(&config).await?;
            let lacking = keys.lacking(&id);
            if !lacking.is_empty() {
                return Err(CliFailure::new(
                    Exit::Later,
                    format!("key {id} is not promoted: {} lacks it", lacking.join(", ")),
                    "copy the key file there, and promote again when keys list shows that all have it",
                ));
            }
            edit.replace(keyring).map_err(unreadable)?;
        }
        let next = "copy the file to every replica and to its backup, then run token-supervisor keys reseal";
        out.result(&json!({ "id": id, "file": config.keyring(), "next": next }), || {
            done(&format!("Key {id} is the active one in {}.", config.keyring().display()), next)
        })?;
        Ok(Exit::Done)
    }
}

impl RemoveKeyArgs {
    pub(super) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let (id, config) = (self.id.to_ascii_lowercase(), self.file.config()?);
        let edit = KeyFileEdit::open(config.keyring()).map_err(unreadable)?;
        let refused =
            |why: String, next| Err(CliFailure::new(Exit::Failed, format!("key {id} is not removed: {why}"), next));
        let keyring = match edit.keyring().removing(&id) {
            Err(RotationError::Active(_)) => {
                return refused(
                    "it is the active one".to_owned(),
                    "promote another key first: see token-supervisor keys list",
                );
            }
            Err(error) => return Err(unknown(&error)),
            Ok(keyring) => keyring,
        };
        let keys = self.file.keys(&config).await?;
        let sealing = keys.sealing(&id);
        if !sealing.is_empty() {
            return refused(
                format!("{} still encrypts with it", sealing.join(", ")),
                "copy the key file there, run token-supervisor keys reseal, and remove again",
            );
        }
        if let Some(need) =
            keys.items.iter().find(|key| key.id == id).map(|key| key.need()).filter(|need| need.is_any())
        {
            return refused(
                format!("it is needed by {}", need.in_words()),
                "run token-supervisor keys reseal, and remove again; keys list shows what is left",
            );
        }
        edit.replace(&keyring).map_err(unreadable)?;
        let next = "copy the file to every replica; keep the removed key in its backup for as long as you keep backups of the \
                    store from before";
        out.result(&json!({ "id": id, "file": config.keyring(), "next": next }), || {
            done(&format!("Key {id} is removed from {}.", config.keyring().display()), next)
        })?;
        Ok(Exit::Done)
    }
}

fn unknown(error: &RotationError) -> CliFailure {
    CliFailure::usage(error.to_string(), "name a key that token-supervisor keys list shows")
}

fn done(text: &str, next: &str) -> String {
    format!("{}\n\n{}\n", folded(text, 0), folded(&format!("next: {next}"), 0))
}
