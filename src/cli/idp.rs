//! `idp add`: adds a provider to a configuration.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
};

use clap::builder::PossibleValuesParser;
use serde_json::json;
use tempfile::NamedTempFile;
use token_supervisor::config::Config;

use super::{
    CliFailure, Exit, Out,
    args::SourceArgs,
    init::{completing, listed_presets},
    show::folded,
};

/// Add identity providers to the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor idp add gitlab\n  \
    token-supervisor idp add keycloak --name sso --config /etc/token-supervisor/config.toml")]
pub(crate) struct IdpArgs {
    #[command(subcommand)]
    command: IdpCommand,
}

#[derive(Debug, clap::Subcommand)]
enum IdpCommand {
    Add(AddIdpArgs),
}

/// Add a section for a provider at the end of the configuration file.
///
/// All else in the file stays as it is. It is replaced at once, with its mode and owner.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor idp add gitlab\n  \
    token-supervisor idp add keycloak --name sso --config /etc/token-supervisor/config.toml")]
struct AddIdpArgs {
    #[arg(value_name = "PRESET", help = PRESET, long_help = listed_presets(PRESET), hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(Config::presets()))]
    preset: String,
    /// Name of the provider in commands and URLs [default: the name of the preset]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
}

const PRESET: &str = "Preset of the provider";

pub(crate) fn run(args: &IdpArgs, out: Out) -> Result<Exit, CliFailure> {
    let IdpCommand::Add(add) = &args.command;
    let name = add.name.as_deref().unwrap_or(&add.preset);
    let path = Config::find(add.source.path(), env::vars_os())?.ok_or_else(|| {
        CliFailure::usage(
            "everything is configured by variables: there is no file to add a section to",
            "add variables",
        )
    })?;
    let unwritable = |error: io::Error| {
        let text = format!("cannot write {}: {error}; it is unchanged", path.display());
        CliFailure::new(Exit::Failed, text, "check the owner and mode of the file and its folder")
    };
    // A link to the file stays one.
    let file = path.canonicalize().map_err(unwritable)?;
    let before = fs::read_to_string(&file).map_err(unwritable)?;
    let after = Config::with_idp(&before, &path, &add.preset, name)?;
    replace(&file, &before, &after).map_err(unwritable)?;
    let file = path.display().to_string();
    let next = format!("{}, then run token-supervisor config check", completing(&add.preset, name, &file));
    out.result(&json!({ "config": file, "idp": name, "next": next }), || {
        format!("{file}: added [idp.{name}].\n\n{}\n", folded(&format!("next: {next}"), 0))
    })?;
    Ok(Exit::Done)
}

/// Replaces the file at once, unless somebody else changed it meanwhile.
fn replace(path: &Path, before: &str, after: &str) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(after.as_bytes())?;
    let old = fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let new = file.as_file().metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.as_file().set_permissions(old.permissions())?;
    file.as_file().sync_all()?;
    if fs::read_to_string(path)? != before {
        return Err(io::Error::other("another program changed it meanwhile; run the command again"));
    }
    file.persist(path)?;
    Ok(())
}
