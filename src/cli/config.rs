//! `config`: checks and shows the settings.

use std::path::Path;

use serde_json::json;
use token_supervisor::config::{Config, ExposedFile, Shown};
use unicode_width::UnicodeWidthStr as _;

use super::{
    CliFailure, Exit, Out,
    args::SourceArgs,
    exit::quoted,
    show::{columns, note},
};

/// Check and show the settings
///
/// The first of these files is used: --config, $TOKEN_SUPERVISOR_CONFIG,
/// ./token-supervisor.toml, /etc/token-supervisor/config.toml.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[command(after_help = "Examples:\n  token-supervisor config check\n  token-supervisor config show --origin")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    Check(ConfigCheckArgs),
    Show(ConfigShowArgs),
    Schema(ConfigSchemaArgs),
}

/// Report every mistake in the settings.
///
/// A mistake is reported with its place in the file and without the value, which may be secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor config check\n  \
    token-supervisor config check --config /etc/token-supervisor/config.toml --json")]
struct ConfigCheckArgs {
    #[command(flatten)]
    source: SourceArgs,
}

/// Show the settings in effect, with secrets as ***.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor config show\n  token-supervisor config show --origin")]
struct ConfigShowArgs {
    /// Also show where each value comes from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    source: SourceArgs,
}

/// Print the JSON Schema of the configuration file, for editors.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor config schema > token-supervisor.schema.json\n  \
    token-supervisor config schema --json")]
struct ConfigSchemaArgs {}

pub(crate) fn run(args: &ConfigArgs, out: Out) -> Result<Exit, CliFailure> {
    match &args.command {
        ConfigCommand::Check(check) => {
            let config = check.source.load()?;
            config.check()?;
            let idps: Vec<_> = config.idps().map(|(name, _)| name).collect();
            let json = json!({ "file": config.file().map(Path::to_string_lossy), "idps": idps });
            out.result(&json, || format!("{}\n", in_words(&config)))?;
            if let Some(bind) = config.server().unguarded() {
                note(&format!("serve needs an API key to listen on {bind}; next: token-supervisor apikey new NAME"));
            }
            for (idp, setting) in config.unedited() {
                note(&format!("idp.{idp}: {}", unedited(setting)));
            }
        }
        ConfigCommand::Show(show) => self::show(&show.source.load()?, show.origin, out)?,
        ConfigCommand::Schema(ConfigSchemaArgs {}) => {
            let schema = Config::schema();
            out.result(&schema, || format!("{schema:#}\n"))?;
        }
    }
    Ok(Exit::Done)
}

/// Describes a setting of an identity provider that still has the example value of `init`.
pub(super) fn unedited(setting: &str) -> String {
    format!("{setting} is still the example that init wrote; next: replace it with your own")
}

/// Describes a file that other users can read or change.
pub(super) fn exposure(file: &ExposedFile) -> String {
    let path = file.path.display().to_string();
    format!("{path}: {}; next: chmod {} {}", file.finding, file.mode, quoted(&path))
}

/// Returns one line with the file of the configuration and the names of its providers.
pub(super) fn in_words(config: &Config) -> String {
    let idps: Vec<_> = config.idps().map(|(name, _)| name).collect();
    let idps = if idps.is_empty() { "none".to_owned() } else { idps.join(", ") };
    let file = config.file().map_or("the environment".into(), Path::to_string_lossy);
    format!("{file}: configuration is valid. Providers: {idps}")
}

/// The widest value that has its origin on the same line.
const LONG: usize = 24;

fn show(config: &Config, origin: bool, out: Out) -> Result<(), CliFailure> {
    let settings = config.show().iter().map(|shown| {
        let mut setting = json!({ "name": shown.path, "value": shown.value });
        if origin {
            setting["origin"] = shown.origin.to_string().into();
        }
        setting
    });
    let settings: Vec<_> = settings.collect();
    out.result(&json!({ "settings": settings }), || {
        let names = config.show().iter().map(|shown| shown.path.len()).max().unwrap_or(0);
        let short = config.show().iter().map(|shown| shown.value.width()).filter(|width| *width <= LONG);
        let values = short.max().unwrap_or(0);
        let line = |Shown { path, value, origin: from, .. }: &Shown| {
            let setting = format!("{path:names$}  {value}");
            let column = names + 2 + values;
            let fits = column + from.to_string().width() + "  # ".len() <= columns();
            let missing = column.checked_sub(setting.width()).filter(|_| fits);
            match (origin, missing) {
                (false, _) => format!("{setting}\n"),
                (true, Some(missing)) => format!("{setting}{:missing$}  # {from}\n", ""),
                (true, None) => format!("{setting}\n    # {from}\n"),
            }
        };
        config.show().iter().map(line).collect()
    })
}
