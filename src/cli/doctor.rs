//! `doctor`: checks the installation without using any refresh token.

mod rotation;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use token_supervisor::{
    Cause, HeldBy, Reached, State,
    api::{GrantQuery, IdpBody},
    config::{Config, ConfigProblem, ExposedFile},
};

use super::{
    CliFailure, Exit, Out,
    args::TargetArgs,
    backend::{Backend, PlaceHealth, Workplace, is_new, server_of},
    coloured,
    config::{exposure, in_words, unedited},
    exit::StartFailure,
    show::{beside, folded, visible},
    time::{for_people, now, rough, to_the_second},
};

/// Check the installation without using any refresh token.
///
/// Checks the configuration, keys, clock, store, journal and the settings of identity providers.
///
/// With --server, checks whether the server is ready, its clock, and the state of its providers.
///
/// Exit code 1 if anything is wrong or an operator must act, 2 if the configuration is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor doctor --probe\n  \
    token-supervisor doctor --config /etc/token-supervisor/config.toml --json")]
pub(crate) struct DoctorArgs {
    /// Send each provider an empty, unauthenticated request to see whether it responds
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckVerdict {
    Ok,
    /// It works, but an operator should know about it.
    Warning,
    Wrong,
    NotLookedAt,
}

#[derive(Debug, Serialize)]
struct CheckFinding {
    what: String,
    verdict: CheckVerdict,
    text: String,
}

fn finding(what: impl Into<String>, verdict: CheckVerdict, text: impl Into<String>) -> CheckFinding {
    CheckFinding { what: what.into(), verdict, text: text.into() }
}

pub(crate) async fn run(args: DoctorArgs, out: Out) -> Result<Exit, CliFailure> {
    let mut findings = Vec::new();
    let place = match args.target.server()? {
        Some(server) => Some(Workplace::Server(server)),
        None => match args.target.config() {
            Ok(config) => {
                let fits = finding("configuration", CheckVerdict::Ok, in_words(&config));
                findings.extend([fits, keys(&config), api_keys(&config)]);
                findings.extend(files(&config));
                findings.push(clock(&config));
                Some(Workplace::Store(Box::new(config)))
            }
            Err(error) => {
                let wrong =
                    |problem: &ConfigProblem| finding("configuration", CheckVerdict::Wrong, problem.to_string());
                findings.extend(error.problems().iter().map(wrong));
                None
            }
        },
    };
    let mut next = format!("token-supervisor status{}", args.target.again());
    // The store cannot be opened without valid keys, and nothing is done by a wrong clock.
    let stops =
        |finding: &CheckFinding| ["keys", "clock"].contains(&&*finding.what) && finding.verdict == CheckVerdict::Wrong;
    let opens = !findings.iter().any(stops);
    // Before the store is opened: a start would set a damaged journal aside.
    if let Some(Workplace::Store(config)) = place.as_ref().filter(|_| opens) {
        findings.extend(integrity(config));
    }
    if let Some(place) = place.as_ref().filter(|_| opens) {
        match look(place, args.probe).await {
            Ok(found) => findings.extend(found),
            Err(failure) if failure.exit == Exit::Usage && args.probe => return Err(failure),
            Err(failure) if matches!(failure.exit, Exit::Interrupted(_)) => return Err(failure),
            Err(failure) => {
                let (finding, instead) = unopened(place, &failure);
                findings.push(finding);
                next = instead.unwrap_or(next);
            }
        }
    }
    findings.extend(not_looked_at(place.as_ref(), &findings));
    let wrong = any_wrong(&findings);
    if wrong {
        "fix the items marked WRONG, then run doctor again".clone_into(&mut next);
    }
    out.result(&serde_json::json!({ "findings": findings, "ok": !wrong }), || in_rows(&findings, &next))?;
    Ok(match place {
        None => Exit::Usage,
        Some(_) if wrong => Exit::Failed,
        Some(_) => Exit::Done,
    })
}

fn any_wrong(findings: &[CheckFinding]) -> bool {
    findings.iter().any(|finding| finding.verdict == CheckVerdict::Wrong)
}

async fn look(place: &Workplace, probe: bool) -> Result<Vec<CheckFinding>, CliFailure> {
    let looked = async |backend: &Backend| {
        let reached = if probe { backend.reach().await? } else { Vec::new() };
        let (health, idps) = (backend.health().await?, backend.idps().await);
        let mut further = failing(backend).await;
        // A server shows them to a key of an operator alone.
        further.extend(backend.keys().await.iter().flat_map(rotation::keys_in_use));
        Ok((health, idps, reached, further))
    };
    let ((health, idps, reached, further), is_new) = match place {
        // Nothing is created before the first user is connected.
        Workplace::Store(config) if is_new(config) => (Backend::on_trial(config, looked).await?, true),
        place => (Backend::with(place, looked).await?, false),
    };
    let mut findings = found(place, &health, idps, is_new);
    findings.extend(further);
    findings.extend(reached.iter().flat_map(|(name, reached)| probed(name, reached)));
    Ok(findings)
}

/// The codes of refreshes that fail until an operator acts, also where no process knows of a pause.
const OPERATOR_CODES: [&str; 13] = [
    "invalid_client",
    "incorrect_client_credentials",
    "bad_client_secret",
    "invalid_client_id",
    "redirect_uri_mismatch",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_request",
    "client_unknown",
    "unknown_error",
    "does_not_open",
    "bad_request",
];

/// Finds grants whose refresh fails until an operator acts: one finding for each provider and code.
async fn failing(backend: &Backend) -> Vec<CheckFinding> {
    let mut query = GrantQuery { limit: Some(1_000), states: vec![State::Backoff], ..GrantQuery::default() };
    let mut counts = BTreeMap::<(String, String), usize>::new();
    // A key that may not list grants has a finding of its own.
    while let Ok((grants, next)) = backend.list(&query).await {
        for grant in grants {
            if let Some(code) = grant.last_error.filter(|code| OPERATOR_CODES.contains(&code.as_str())) {
                *counts.entry((grant.idp, code)).or_default() += 1;
            }
        }
        match next {
            Some(_) => query.after = next,
            None => break,
        }
    }
    let found = |((idp, code), count): ((String, String), usize)| {
        let grants = if count == 1 { "1 grant is".to_owned() } else { format!("{count} grants are") };
        let text = format!("{grants} not refreshed: {code}; next: token-supervisor why {code}");
        finding(format!("idp.{idp}"), CheckVerdict::Wrong, text)
    };
    counts.into_iter().map(found).collect()
}

impl CliFailure {
    fn finding(&self, what: &str) -> CheckFinding {
        finding(what, CheckVerdict::Wrong, format!("{}; next: {}", self.text, self.next))
    }
}

/// Returns the finding for a place that could not be opened, and the next command if nothing needs fixing.
fn unopened(place: &Workplace, failure: &CliFailure) -> (CheckFinding, Option<String>) {
    match (failure.start, place) {
        // A running server has the store open, which is normal.
        (Some(StartFailure::StoreInUse), Workplace::Store(config)) => {
            let server = server_of(config).unwrap_or_else(|| "--server URL".to_owned());
            let next = format!("token-supervisor doctor {server}");
            (finding("store", CheckVerdict::Warning, format!("{}: {next}", failure.text)), Some(next))
        }
        (Some(StartFailure::Journal), _) => (finding("journal", CheckVerdict::Wrong, &failure.text), None),
        (Some(_), _) => (finding("store", CheckVerdict::Wrong, &failure.text), None),
        (None, Workplace::Store(_)) => (failure.finding("store"), None),
        (None, Workplace::Server(_)) => (failure.finding("server"), None),
    }
}

/// Returns the checks of the store that were skipped because an earlier one failed.
fn not_looked_at(place: Option<&Workplace>, findings: &[CheckFinding]) -> Vec<CheckFinding> {
    let mut all: Vec<_> = ["keys", "api keys", "files", "clock", "store", "journal"].map(str::to_owned).into();
    match place {
        Some(Workplace::Server(_)) => return Vec::new(),
        Some(Workplace::Store(config)) => all.extend(config.idps().map(|(name, _)| format!("idp.{name}"))),
        None => {}
    }
    all.retain(|what| findings.iter().all(|finding| finding.what != *what));
    all.into_iter().map(|what| finding(what, CheckVerdict::NotLookedAt, "not checked")).collect()
}

fn keys(config: &Config) -> CheckFinding {
    let path = config.keyring().display();
    match config.check() {
        Err(error) => finding("keys", CheckVerdict::Wrong, error.to_string()),
        Ok(()) => finding("keys", CheckVerdict::Ok, path.to_string()),
    }
}

/// Checks every page and every row of the store. What keeps it from being opened is found by opening it.
fn integrity(config: &Config) -> Vec<CheckFinding> {
    let wrong = config.integrity().unwrap_or_default();
    wrong.into_iter().map(|wrong| finding("integrity", CheckVerdict::Wrong, wrong)).collect()
}

/// Checks that only the owner can read or change the files of the installation.
fn files(config: &Config) -> Vec<CheckFinding> {
    let exposed = config.exposed_files();
    if exposed.is_empty() {
        return vec![finding("files", CheckVerdict::Ok, "no other user can read or change them")];
    }
    let found = |file: &ExposedFile| {
        let verdict = if file.is_serious { CheckVerdict::Wrong } else { CheckVerdict::Warning };
        finding("files", verdict, exposure(file))
    };
    exposed.iter().map(found).collect()
}

/// Checks that the server has an API key that is still valid for a while, if it needs one.
fn api_keys(config: &Config) -> CheckFinding {
    const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);
    let (keys, now) = (&config.server().api_keys, now());
    let what = "api keys";
    if let Some(bind) = config.server().unguarded() {
        let text = format!("serve needs an API key to listen on {bind}; next: token-supervisor apikey new NAME");
        return finding(what, CheckVerdict::Wrong, text);
    }
    let expired: Vec<_> = keys.iter().filter(|key| key.expiry().is_some_and(|end| end <= now)).collect();
    let ends = keys.iter().filter_map(|key| Some((key.name(), key.expiry()?)));
    let ends: Vec<_> = ends.filter(|(_, end)| *end <= now + SOON).map(|(name, end)| expires(name, end, now)).collect();
    let (verdict, text) = match (ends.as_slice(), keys.len()) {
        ([], 0) => (CheckVerdict::Ok, "none; the server listens on Unix sockets only".to_owned()),
        ([], 1) => (CheckVerdict::Ok, "1 is valid".to_owned()),
        ([], many) => (CheckVerdict::Ok, format!("{many} are valid")),
        (ends, many) => {
            let verdict = if expired.len() == many { CheckVerdict::Wrong } else { CheckVerdict::Warning };
            let next = "next: token-supervisor apikey new NAME, then replace the sections";
            (verdict, format!("{}; {next}", ends.join("; ")))
        }
    };
    finding(what, verdict, text)
}

/// Returns in words that an API key has expired, or will soon.
fn expires(name: &str, end: SystemTime, now: SystemTime) -> String {
    let verb = if end <= now { "expired" } else { "expires" };
    format!("{} {verb} {}", visible(name), for_people(end))
}

/// Checks that no file of the installation has a modification time in the future.
fn clock(config: &Config) -> CheckFinding {
    let now = now();
    let ahead = written(config).into_iter().find(|path| {
        let written = path.metadata().and_then(|file| file.modified());
        written.is_ok_and(|written| written > now + SKEW)
    });
    match ahead {
        Some(path) => {
            let text =
                format!("{} was modified after now, {}; next: correct the clock", path.display(), to_the_second(now));
            finding("clock", CheckVerdict::Wrong, text)
        }
        None => finding("clock", CheckVerdict::Ok, format!("{}, later than every stored file", to_the_second(now))),
    }
}

/// Returns the files that the program writes. Changes stay in SQLite's WAL for a long time before the file has them.
fn written(config: &Config) -> Vec<PathBuf> {
    let mut files = vec![config.keyring().to_owned()];
    for end in ["", "-wal"] {
        files.extend(config.store_file().map(|file| format!("{}{end}", file.display()).into()));
    }
    let journal = config.journal().read_dir().into_iter().flatten();
    files.extend(journal.filter_map(Result::ok).map(|file| file.path()));
    files
}

/// Larger than the difference between file systems and clocks.
const SKEW: Duration = Duration::from_secs(60);

fn found(
    place: &Workplace,
    health: &PlaceHealth,
    idps: Result<Vec<IdpBody>, CliFailure>,
    is_new: bool,
) -> Vec<CheckFinding> {
    let mut findings = match place {
        Workplace::Store(config) if is_new => {
            let path = config.store_file().unwrap_or(Path::new("")).display();
            let text = format!("there is none at {path} yet: connect or serve creates it, and its journal");
            vec![finding("store", CheckVerdict::Warning, text)]
        }
        Workplace::Store(_) => {
            vec![finding("store", CheckVerdict::Ok, "opens with these keys, and its schema is up to date")]
        }
        Workplace::Server(_) => vec![server(health)],
    };
    findings.extend(health.time.map(|time| skew(time, now())));
    findings.extend(health.revocations.filter(|(pending, _)| *pending > 0).map(|counts| match counts {
        (pending, 0) => finding("revocations", CheckVerdict::Ok, format!("{pending} queued")),
        (pending, sent) => finding(
            "revocations",
            CheckVerdict::Warning,
            format!(
                "{pending} queued, of which {sent} were sent and are not confirmed; next: look for \
                 \"not revoked\" in the log, and check revocation_url"
            ),
        ),
    }));
    findings.extend(health.journal_pending.map(|pending| match pending {
        _ if is_new => finding("journal", CheckVerdict::Ok, "none yet"),
        0 => finding("journal", CheckVerdict::Ok, "empty: the store has every response"),
        _ => finding(
            "journal",
            CheckVerdict::Warning,
            format!("{pending} responses are not stored; next: run doctor again"),
        ),
    }));
    match idps {
        Ok(idps) => findings.extend(idps.iter().map(|idp| of_idp(place, idp))),
        Err(failure) => findings.push(failure.finding("idps")),
    }
    findings
}

fn server(health: &PlaceHealth) -> CheckFinding {
    match health.degraded.as_slice() {
        [] => finding("server", CheckVerdict::Ok, format!("{} is ready", health.name)),
        degraded => {
            // What only an operator can end; all else passes by itself, or the providers below say so.
            let needs_operator = |what: &String| ["unreadable_rows", "journal_damaged"].contains(&&**what);
            let wrong = !health.store_ok || degraded.iter().any(needs_operator);
            let verdict = if wrong { CheckVerdict::Wrong } else { CheckVerdict::Warning };
            finding("server", verdict, format!("{}: {}", health.name, degraded.join(", ")))
        }
    }
}

/// Compares a server's clock with this machine's: tokens expire by both.
fn skew(theirs: SystemTime, ours: SystemTime) -> CheckFinding {
    let apart = theirs.duration_since(ours).or_else(|error| Ok::<_, ()>(error.duration())).unwrap_or_default();
    if apart > SKEW {
        return finding(
            "clock",
            CheckVerdict::Warning,
            format!("the server's clock differs from this machine's by {}; next: correct one", rough(apart)),
        );
    }
    finding("clock", CheckVerdict::Ok, "the server's clock agrees with this machine's")
}

fn of_idp(place: &Workplace, idp: &IdpBody) -> CheckFinding {
    let name = format!("idp.{}", idp.idp);
    let last = idp.last_error.as_ref().map(|error| format!(" (last error: {error})")).unwrap_or_default();
    match (&idp.held_reason, &idp.paused, place) {
        (Some(reason), _, _) if idp.held_by.as_deref() == Some(HeldBy::Deployment.as_str()) => {
            finding(&name, CheckVerdict::Wrong, format!("on hold: {reason}; next: token-supervisor adopt --help"))
        }
        (Some(reason), _, _) if idp.held_by.as_deref() == Some(HeldBy::Recovery.as_str()) => {
            let next = "next: start every other replica with its journal folder";
            finding(&name, CheckVerdict::Warning, format!("on hold: {reason}; {next}"))
        }
        (Some(reason), _, _) => finding(&name, CheckVerdict::Warning, format!("on hold: {reason}")),
        (None, Some(cause), _) => {
            // A limited rate passes by itself; for the rest somebody should look.
            let passes = *cause == Cause::IdpThrottled.as_str();
            let verdict = if passes { CheckVerdict::Warning } else { CheckVerdict::Wrong };
            finding(&name, verdict, format!("paused: {cause}{last}; next: token-supervisor why {cause}"))
        }
        (None, None, Workplace::Server(_)) => finding(&name, CheckVerdict::Ok, format!("not paused{last}")),
        (None, None, Workplace::Store(config)) => {
            if let Some((_, setting)) = config.unedited().find(|(unedited, _)| *unedited == idp.idp) {
                return finding(&name, CheckVerdict::Warning, unedited(setting));
            }
            let setting = |key: &str| config.show().iter().find(|shown| shown.path == format!("{name}.{key}"));
            let url = setting("token_url").map_or("", |shown| &shown.value);
            finding(&name, CheckVerdict::Ok, format!("settings are valid: {url}"))
        }
    }
}

/// Reports a probe. Any response counts: a token endpoint refuses an empty request.
fn probed(idp: &str, reached: &Reached) -> Vec<CheckFinding> {
    let what = format!("idp.{idp}");
    match &reached.answer {
        Err(evidence) => {
            let next = "next: check token_url, and that this machine can reach it";
            vec![finding(what, CheckVerdict::Wrong, format!("no response: {evidence}; {next}"))]
        }
        Ok(status) => {
            let apart = reached.date.map(|date| skew(date, now())).filter(|skew| skew.verdict != CheckVerdict::Ok);
            let skewed = apart.map(|skew| CheckFinding { what: what.clone(), ..skew });
            let responds =
                finding(what, CheckVerdict::Ok, format!("responds ({status} to an unauthenticated request)"));
            [responds].into_iter().chain(skewed).collect()
        }
    }
}

fn in_rows(findings: &[CheckFinding], next: &str) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let row = |finding: &CheckFinding| {
        let verdict = match finding.verdict {
            CheckVerdict::Ok => coloured("ok   ", 32),
            CheckVerdict::Warning => coloured("warn ", 33),
            CheckVerdict::Wrong => coloured("WRONG", 31),
            CheckVerdict::NotLookedAt => "-    ".to_owned(),
        };
        let head = format!("{verdict}  {:width$}  ", finding.what);
        beside(&head, "WRONG".len() + width + 4, &finding.text) + "\n"
    };
    format!("{}\n{}\n", findings.iter().map(row).collect::<String>(), folded(&format!("next: {next}"), 0))
}
