//! `init`: writes the files of a new installation.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use clap::builder::PossibleValuesParser;
use serde_json::json;
use tempfile::NamedTempFile;
use token_supervisor::{
    Keyring,
    config::{Config, Scope},
};
use zeroize::Zeroizing;

use super::{
    CliFailure, Exit, Out,
    apikey::NewApiKey,
    keys::BACKUP,
    show::{beside, folded},
};

/// Write a configuration, a key file and an API key to the current folder.
///
/// The files are readable only by you. Existing files are never changed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor init --idp github\n  token-supervisor init --idp keycloak --json"
)]
pub(crate) struct InitArgs {
    #[arg(long, value_name = "PRESET", help = IDP, long_help = presets(), hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(Config::presets()))]
    idp: Option<String>,
}

const IDP: &str = "Identity provider to start with, by its preset";

fn presets() -> String {
    listed_presets(IDP)
}

/// Returns the help of an argument that is a preset.
pub(super) fn listed_presets(what: &str) -> String {
    let names: Vec<_> = Config::presets().collect();
    // The help indents this text by ten columns.
    let lines = folded(&names.join(", "), 10);
    format!("{what}:\n{}", lines.lines().map(str::trim_start).collect::<Vec<_>>().join("\n"))
}

const CONFIG: &str = "token-supervisor.toml";
const KEYS: &str = "token-supervisor.keys";
const API_KEY: &str = "token-supervisor.api-key";

const EVERYTHING: &str =
    "API key with all scopes for programs that call the server. Its digest is in the configuration.";

pub(crate) fn run(args: &InitArgs, out: Out) -> Result<Exit, CliFailure> {
    if let Some(path) = [CONFIG, KEYS, API_KEY].into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        let next = match Path::new(CONFIG).exists() {
            true => "use it (token-supervisor config check), or run init in another folder",
            false => "restore token-supervisor.toml, which belongs to it, or run init in another folder",
        };
        return Err(CliFailure::new(Exit::Failed, format!("{path} already exists; nothing was written"), next));
    }
    let key = NewApiKey::new()?;
    let text = configuration(args.idp.as_deref(), &key)?;
    write(Path::new("."), &text, &key)?;
    let next = match &args.idp {
        Some(idp) => format!("{}, then run token-supervisor doctor", completing(idp, idp, CONFIG)),
        None => format!("add an identity provider at the end of {CONFIG}, then run token-supervisor config check"),
    };
    let json = json!({ "config": CONFIG, "keyring": KEYS, "api_key_file": API_KEY, "next": next });
    out.result(&json, || {
        let said = [(CONFIG, "the configuration"), (KEYS, BACKUP), (API_KEY, EVERYTHING)];
        let lines = said.map(|(file, text)| beside(&format!("{file:27}"), 27, text));
        format!("{}\n\n{}\n", lines.join("\n"), folded(&format!("next: {next}"), 0))
    })?;
    Ok(Exit::Done)
}

/// Returns what to do with a new section of a provider.
pub(super) fn completing(preset: &str, idp: &str, config: &str) -> String {
    let [id, secret] = Config::client_variables(idp);
    let edit = Config::to_edit(preset).map(|setting| format!("edit {setting} of [idp.{idp}] in {config}, "));
    format!("{}export {id} and {secret} of your client", edit.unwrap_or_default())
}

fn configuration(idp: Option<&str>, key: &NewApiKey) -> Result<String, CliFailure> {
    let template =
        Config::template(idp).ok_or_else(|| CliFailure::usage("unknown preset", "see token-supervisor init --help"))?;
    let name = getrandom::u32().map_err(io::Error::other)? & 0x00ff_ffff;
    let section = key.section("first", &[Scope::Token, Scope::Grant, Scope::Admin, Scope::Metrics], &[], None, None);
    let deployment = format!("# The name of this installation.\ndeployment = \"ts-{name:06x}\"\n");
    Ok(template.replacen("\n[server]\n", &format!("\n{deployment}\n[server]\n"), 1).replacen(
        "\n# Grants are stored here",
        &format!("\n{section}\n# Grants are stored here"),
        1,
    ))
}

/// Writes all files or none. The configuration is moved into place last and at once: if it exists, all files do.
fn write(folder: &Path, text: &str, key: &NewApiKey) -> Result<(), CliFailure> {
    let unwritable = |name: &str, error: &io::Error| {
        let next = match error.kind() {
            ErrorKind::AlreadyExists => "another process wrote it meanwhile: use it, or run init in another folder",
            _ => "check the folder's owner, mode and free space",
        };
        CliFailure::new(Exit::Failed, format!("cannot write {name}: {error}"), next)
    };
    // `tempfile` creates files that only their owner can read.
    let written = |name: &'static str, text: &str| {
        let written = NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all())?;
            Ok(file)
        });
        Ok::<_, CliFailure>((name, written.map_err(|error| unwritable(name, &error))?))
    };
    let files = [written(API_KEY, &Zeroizing::new(format!("{}\n", &*key.text)))?, written(CONFIG, text)?];
    Keyring::generate().write_new(folder.join(KEYS))?;
    let mut ours = vec![KEYS];
    for (name, file) in files {
        if let Err(refused) = file.persist_noclobber(folder.join(name)) {
            // No token is encrypted with these keys yet, and the files would block the next run of `init`.
            for name in ours {
                fs::remove_file(folder.join(name)).ok();
            }
            return Err(unwritable(name, &refused.error));
        }
        ours.push(name);
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritable("the folder", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_leaves_a_file_of_another_process_unchanged() {
        for taken in [API_KEY, CONFIG, KEYS] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(taken), "theirs").unwrap();
            write(folder.path(), "", &NewApiKey::new().unwrap()).unwrap_err();
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(left, [taken]);
            assert_eq!(fs::read_to_string(folder.path().join(taken)).unwrap(), "theirs");
        }
    }
}
