//! `doctor`: looks at everything that can be looked at without spending anything.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use token_supervisor::{Reached, config::Config};

use super::{
    Exit, Failure, Out,
    args::Target,
    backend::{Backend, Health, Place},
    body::IdpBody,
    coloured,
    config::{in_words, unedited},
    show::table,
    time::{now, rough, to_the_second},
};

/// Looks whether everything is well, without spending anything.
///
/// Configuration, keys, clock, store, journal, and the settings of identity providers.
///
/// Of a running server: whether it is ready, its clock, how identity providers answer it.
///
/// Exit code 1 if anything is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor doctor --probe\n  \
    token-supervisor doctor --config /etc/token-supervisor/config.toml --json")]
pub(crate) struct Args {
    /// Asks each identity provider for nothing, without credentials: whether it answers
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    target: Target,
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
    let place = args.target.place()?;
    let mut findings = match &place {
        Place::Store(config) => {
            vec![finding("configuration", Verdict::Ok, in_words(config)), keys(config), clock(config)]
        }
        Place::Server(_) => Vec::new(),
    };
    // Without keys the store is not opened.
    if findings.iter().all(|finding| finding.verdict != Verdict::Wrong) {
        let what = if matches!(place, Place::Store(_)) { "store" } else { "server" };
        let looked = Backend::with(&place, async |backend| {
            let reached = if args.probe { backend.reach().await? } else { Vec::new() };
            Ok((backend.health().await?, backend.idps().await, reached))
        });
        let looked = looked.await;
        match looked {
            Ok((health, idps, reached)) => {
                findings.extend(found(&place, &health, idps));
                findings.extend(reached.iter().flat_map(|(name, reached)| probed(name, reached)));
            }
            Err(failure) if matches!(failure.exit, Exit::Interrupted(_) | Exit::Usage) && args.probe => {
                return Err(failure);
            }
            Err(failure) if matches!(failure.exit, Exit::Interrupted(_)) => return Err(failure),
            Err(failure) => findings.push(failure.finding(what)),
        }
    }
    let wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
    out.result(&serde_json::json!({ "findings": findings, "ok": !wrong }), || in_rows(&findings, wrong))?;
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

impl Failure {
    fn finding(&self, what: &str) -> Finding {
        finding(what, Verdict::Wrong, format!("{}; next: {}", self.text, self.next))
    }
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

fn found(place: &Place, health: &Health, idps: Result<Vec<IdpBody>, Failure>) -> Vec<Finding> {
    let mut findings = match place {
        Place::Store(_) => vec![finding("store", Verdict::Ok, "opens with these keys, its schema is up to date")],
        Place::Server(_) => vec![server(health)],
    };
    findings.extend(health.time.map(|time| skew(time, now())));
    findings.extend(health.journal_pending.map(|pending| match pending {
        0 => finding("journal", Verdict::Ok, "the store has every answer"),
        _ => finding("journal", Verdict::Warning, format!("{pending} answers wait for the store: run it again")),
    }));
    match idps {
        Ok(idps) => findings.extend(idps.iter().map(|idp| of_idp(place, idp))),
        Err(failure) => findings.push(failure.finding("idps")),
    }
    findings
}

fn server(health: &Health) -> Finding {
    match health.degraded.as_slice() {
        [] => finding("server", Verdict::Ok, format!("{} is ready", health.name)),
        degraded => finding("server", Verdict::Warning, format!("{}: {}", health.name, degraded.join(", "))),
    }
}

/// What a server's clock says beside ours: tokens end by both.
fn skew(theirs: SystemTime, ours: SystemTime) -> Finding {
    let apart = theirs.duration_since(ours).or_else(|error| Ok::<_, ()>(error.duration())).unwrap_or_default();
    if apart > SKEW {
        return finding(
            "clock",
            Verdict::Warning,
            format!("the server's differs from ours by {}: set one", rough(apart)),
        );
    }
    finding("clock", Verdict::Ok, "the server's is as ours")
}

fn of_idp(place: &Place, idp: &IdpBody) -> Finding {
    let name = format!("idp.{}", idp.idp);
    let last = idp.last_error.as_ref().map(|error| format!(" (last error: {error})")).unwrap_or_default();
    match (&idp.held_reason, &idp.paused, place) {
        (Some(reason), _, _) => finding(&name, Verdict::Warning, format!("held: {reason}")),
        (None, Some(cause), _) => {
            finding(&name, Verdict::Warning, format!("paused: {cause}{last}; token-supervisor why {cause}"))
        }
        (None, None, Place::Server(_)) => finding(&name, Verdict::Ok, format!("refreshes go on{last}")),
        (None, None, Place::Store(config)) => {
            if let Some((_, setting)) = config.unedited().find(|(unedited, _)| *unedited == idp.idp) {
                return finding(&name, Verdict::Warning, unedited(setting));
            }
            let setting = |key: &str| config.show().iter().find(|shown| shown.path == format!("{name}.{key}"));
            let url = setting("token_url").map_or("", |shown| &shown.value);
            finding(&name, Verdict::Ok, format!("settings fit: {url}"))
        }
    }
}

/// Any answer will do: a token endpoint refuses who asks for nothing.
fn probed(idp: &str, reached: &Reached) -> Vec<Finding> {
    let what = format!("idp.{idp}");
    match &reached.answer {
        Err(evidence) => {
            let next = "next: see token_url, and whether this machine may reach it";
            vec![finding(what, Verdict::Wrong, format!("does not answer: {evidence}; {next}"))]
        }
        Ok(status) => {
            let apart = reached.date.map(|date| skew(date, now())).filter(|skew| skew.verdict != Verdict::Ok);
            let skewed = apart.map(|skew| Finding { what: what.clone(), ..skew });
            let answers = finding(what, Verdict::Ok, format!("answers ({status} to a request without credentials)"));
            [answers].into_iter().chain(skewed).collect()
        }
    }
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
