//! `migrate`: updates the schema of the store.

use serde_json::json;

use super::{CliFailure, Exit, Out, args::SourceArgs};

/// Update the store's schema. A store or a journal that does not exist is created.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor migrate --check\n  \
    token-supervisor migrate --config /etc/token-supervisor/config.toml")]
pub(crate) struct MigrateArgs {
    /// Only list pending migrations; exit code 1 if there are any
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(args: &MigrateArgs, out: Out) -> Result<Exit, CliFailure> {
    let config = args.source.load()?;
    let pending = config.pending_migrations()?;
    if !args.check && (!pending.is_empty() || !config.journal().exists()) {
        config.migrate()?;
    }
    out.result(&json!({ "pending": if args.check { &*pending } else { &[] }, "applied": if args.check { &[] } else { &*pending } }), || {
        let head = match (pending.is_empty(), args.check) {
            (true, _) => "The schema is up to date.",
            (false, true) => "Pending migrations (next: token-supervisor migrate):",
            (false, false) => "The schema is up to date. Applied migrations:",
        };
        let lines = pending.iter().map(|name| format!("  {name}\n"));
        format!("{head}\n{}", lines.collect::<String>())
    })?;
    Ok(if args.check && !pending.is_empty() { Exit::Failed } else { Exit::Done })
}
