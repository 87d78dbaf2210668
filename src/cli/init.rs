//! `init`: what one starts with.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use clap::builder::PossibleValuesParser;
use serde_json::json;
use token_supervisor::{
    Keyring,
    config::{Config, Scope},
};
use zeroize::Zeroizing;

use super::{Exit, Failure, Out, apikey::Key, show::folded};

/// Writes a configuration, a key file and an API key into this folder.
///
/// Each is readable by you alone. Nothing that exists is touched.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor init --idp github\n  token-supervisor init --idp keycloak --json"
)]
pub(crate) struct Args {
    #[arg(long, value_name = "PRESET", help = IDP, long_help = presets(), hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(Config::presets()))]
    idp: Option<String>,
}

const IDP: &str = "The identity provider to start with, by its preset";

fn presets() -> String {
    let names: Vec<_> = Config::presets().collect();
    // As far in as the help will have it.
    let lines = folded(&names.join(", "), 10);
    format!("{IDP}:\n{}", lines.lines().map(str::trim_start).collect::<Vec<_>>().join("\n"))
}

const CONFIG: &str = "token-supervisor.toml";
const KEYS: &str = "token-supervisor.keys";
const API_KEY: &str = "token-supervisor.api-key";

pub(crate) fn run(args: &Args, out: Out) -> Result<Exit, Failure> {
    if let Some(path) = [CONFIG, KEYS, API_KEY].into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        return Err(Failure::new(
            Exit::Failed,
            format!("{path} exists and is left alone"),
            "go on with it (token-supervisor config check), or run init in another folder",
        ));
    }
    let key = Key::new()?;
    let text = configuration(args.idp.as_deref(), &key)?;
    write(&text, &key)?;
    let next = match &args.idp {
        Some(idp) => {
            let variable = idp.to_ascii_uppercase();
            format!(
                "export {variable}_CLIENT_ID and {variable}_CLIENT_SECRET of your client, then token-supervisor doctor"
            )
        }
        None => format!("add an identity provider at the end of {CONFIG}, then token-supervisor config check"),
    };
    let json = json!({ "config": CONFIG, "keyring": KEYS, "api_key_file": API_KEY, "next": next });
    out.result(&json, || {
        format!(
            "{CONFIG}      the configuration\n\
             {KEYS}      the keys that seal what is stored. Keep its backup apart from the database's:\n\
             {:27}either alone is worth nothing to a thief, the database without them nothing to you.\n\
             {API_KEY}   for programs that ask the server: good for everything.\n\
             {:27}The configuration has its digest.\n\n{}\n",
            "",
            "",
            folded(&format!("next: {next}"), 0),
        )
    })?;
    Ok(Exit::Done)
}

fn configuration(idp: Option<&str>, key: &Key) -> Result<String, Failure> {
    let template =
        Config::template(idp).ok_or_else(|| Failure::usage("there is no such preset", "init --help lists them"))?;
    let name = getrandom::u32().map_err(std::io::Error::other)? & 0x00ff_ffff;
    let section = key.section("first", &[Scope::Token, Scope::Grant, Scope::Admin, Scope::Metrics], &[], None);
    let deployment = format!("# The name of this installation.\ndeployment = \"ts-{name:06x}\"\n");
    Ok(template.replacen("\n[server]\n", &format!("\n{deployment}\n[server]\n"), 1).replacen(
        "\n# Where grants are kept",
        &format!("\n{section}\n# Where grants are kept"),
        1,
    ))
}

/// All files or none. The configuration comes last, whole at once: where it stands, everything does.
fn write(text: &str, key: &Key) -> Result<(), Failure> {
    let unwritable = |error: std::io::Error| {
        Failure::new(
            Exit::Failed,
            format!("cannot write {CONFIG}: {error}"),
            "check the folder's owner, mode and free space",
        )
    };
    // Readable by their owner alone, as `tempfile` makes them.
    let written = |text: &str| {
        let mut file = tempfile::NamedTempFile::new_in(".")?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all())?;
        Ok(file)
    };
    let api_key = written(&Zeroizing::new(format!("{}\n", &*key.text))).map_err(unwritable)?;
    let config = written(text).map_err(unwritable)?;
    Keyring::generate().write_new(KEYS)?;
    let persisted = api_key.persist_noclobber(API_KEY).and_then(|_| config.persist_noclobber(CONFIG));
    persisted.map_err(|error| {
        // They are ours, nothing is sealed with them, and they would be in the way of the next try.
        fs::remove_file(KEYS).and_then(|()| fs::remove_file(API_KEY)).ok();
        unwritable(error.error)
    })?;
    File::open(Path::new(".")).and_then(|folder| folder.sync_all()).map_err(unwritable)
}
