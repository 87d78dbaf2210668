//! `doctor`: looks at everything that can be looked at without spending anything.

use std::{path::Path, time::Duration};

use serde::Serialize;
use token_supervisor::config::Config;

use super::{
    Exit, Failure, Out,
    args::Source,
    backend::Backend,
    coloured,
    config::in_words,
    show::table,
    time::{now, to_the_second},
};

/// Looks whether everything is well, without spending anything.
///
/// Configuration, keys, clock, store, journal, and the settings of identity providers.
///
/// Exit code 1 if anything is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor doctor\n  \
    token-supervisor doctor --config /etc/token-supervisor/config.toml --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// It works, and somebody should know.
    Warning,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    text: String,
}

fn finding(what: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { what: what.into(), verdict, text: text.into() }
}

pub(crate) async fn run(args: Args, out: Out) -> Result<Exit, Failure> {
    let config = args.source.load()?;
    let mut findings = vec![finding("configuration", Verdict::Ok, in_words(&config)), keys(&config), clock(&config)];
    // Without keys the store is not opened.
    if findings.iter().all(|finding| finding.verdict != Verdict::Wrong) {
        let opened = Backend::with(&config, async |backend| Ok(store(&config, backend))).await;
        match opened {
            Ok(of_store) => findings.extend(of_store),
            Err(failure) if matches!(failure.exit, Exit::Interrupted(_)) => return Err(failure),
            Err(failure) => findings.push(finding("store", Verdict::Wrong, failure.text)),
        }
    }
    let wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
    out.result(&serde_json::json!({ "findings": findings, "ok": !wrong }), || in_rows(&findings, wrong))?;
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

fn keys(config: &Config) -> Finding {
    let path = config.keyring();
    match config.check() {
        Err(error) => finding("keys", Verdict::Wrong, error.to_string()),
        Ok(()) if exposed(path) => {
            let text = format!("{}: others may read it; next: chmod it to 600", path.display());
            finding("keys", Verdict::Warning, text)
        }
        Ok(()) => finding("keys", Verdict::Ok, path.display().to_string()),
    }
}

#[cfg(unix)]
fn exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn exposed(_path: &Path) -> bool {
    false
}

/// What was written lately was written in the past.
fn clock(config: &Config) -> Finding {
    let now = now();
    let store = config.store().trim_start_matches("sqlite:").trim_start_matches("//");
    let files = [Path::new(store), config.keyring()];
    let ahead = files.into_iter().find(|path| {
        let written = path.metadata().and_then(|file| file.modified());
        written.is_ok_and(|written| written > now + SKEW)
    });
    match ahead {
        Some(path) => {
            let text =
                format!("{} was written after now, {}: set the machine's clock", path.display(), to_the_second(now));
            finding("clock", Verdict::Wrong, text)
        }
        None => finding("clock", Verdict::Ok, format!("{}, after everything that was written", to_the_second(now))),
    }
}

/// More than file systems and clocks differ.
const SKEW: Duration = Duration::from_secs(60);

fn store(config: &Config, backend: &Backend) -> Vec<Finding> {
    let pending = backend.journal_pending();
    let journal = match pending {
        0 => finding("journal", Verdict::Ok, "the store has every answer"),
        _ => finding("journal", Verdict::Warning, format!("{pending} answers wait for the store: run it again")),
    };
    let mut findings = vec![finding("store", Verdict::Ok, "opens with these keys, its schema is up to date"), journal];
    findings.extend(backend.idps().into_iter().map(|idp| {
        let name = format!("idp.{}", idp.name);
        let setting = |key: &str| config.show().iter().find(|shown| shown.path == format!("{name}.{key}"));
        let url = setting("token_url").map_or("", |shown| &shown.value);
        match idp.held {
            Some(reason) => finding(&name, Verdict::Warning, format!("held: {reason}")),
            None => finding(&name, Verdict::Ok, format!("settings fit; not asked: {url}")),
        }
    }));
    findings
}

fn in_rows(findings: &[Finding], wrong: bool) -> String {
    let row = |finding: &Finding| {
        let verdict = match finding.verdict {
            Verdict::Ok => coloured("ok   ", 32),
            Verdict::Warning => coloured("look ", 33),
            Verdict::Wrong => coloured("WRONG", 31),
        };
        vec![verdict, finding.what.clone(), finding.text.clone()]
    };
    let next = if wrong { "fix what is WRONG, then token-supervisor doctor" } else { "token-supervisor status" };
    format!("{}\nnext: {next}\n", table(&findings.iter().map(row).collect::<Vec<_>>()))
}
