//! `status`: shows the state of one grant, of one identity provider, or of all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::json;
use token_supervisor::{
    Error, Evidence, HeldBy, State,
    api::{GrantQuery, StatusBody},
};

use super::{
    CliFailure, Exit, Out,
    args::{TargetArgs, key},
    backend::{Backend, PlaceHealth, Verb},
    body::StatusWords as _,
    coloured,
    show::{RowTable, beside, cut, terminal_width, visible},
    time::{self, for_people, rough, to_the_second},
};

/// Show the state of a grant, of an identity provider, or a summary of all providers.
///
/// Never prints a token. Exit code 5 if the grant is not connected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor status github\n  token-supervisor status github alice --json")]
pub(crate) struct StatusArgs {
    /// Identity provider, by its name in the configuration [default: all]
    idp: Option<String>,
    /// User, by the name your application uses
    user: Option<String>,
    /// Account, if the user has several at the identity provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "user")]
    account: String,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: StatusArgs, out: Out) -> Result<Exit, CliFailure> {
    match (&args.idp, &args.user) {
        (Some(idp), Some(user)) => one(&args, idp, user, out).await,
        (Some(idp), None) => of_idp(&args, idp, out).await,
        _ => all(&args, out).await,
    }
}

async fn one(args: &StatusArgs, idp: &str, user: &str, out: Out) -> Result<Exit, CliFailure> {
    let (key, place) = (key(idp, user, &args.account)?, args.target.place()?);
    let body = Backend::with(&place, async |backend| backend.on(&key, Verb::Status).await).await?.status;
    out.result(&body, || body.in_words())?;
    Ok(Exit::Done)
}

async fn of_idp(args: &StatusArgs, idp: &str, out: Out) -> Result<Exit, CliFailure> {
    let place = args.target.place()?;
    let found = Backend::with(&place, async |backend| summary(backend, Some(idp)).await).await?;
    let Some(found) = found.into_iter().find(|found| found.idp == idp) else {
        let failure = CliFailure::from(Error::UnknownIdp);
        return Err(failure.then("use a name that token-supervisor status lists, or add a section [idp.NAME]"));
    };
    out.result(&found, || found.in_words(&args.target.again()))?;
    Ok(Exit::Done)
}

async fn all(args: &StatusArgs, out: Out) -> Result<Exit, CliFailure> {
    let place = args.target.place()?;
    let (health, summary) =
        Backend::with(&place, async |backend| Ok((backend.health().await?, summary(backend, None).await?))).await?;
    let json = json!({
        "name": health.name,
        "store": if health.store_ok { "ok" } else { "down" },
        "journal_pending": health.journal_pending,
        "revocations_pending": health.revocations.map(|(pending, _)| pending),
        "revocations_unconfirmed": health.revocations.map(|(_, unconfirmed)| unconfirmed),
        "replicas": health.replicas,
        "degraded": health.degraded,
        "idps": summary,
    });
    out.result(&json, || {
        let table = RowTable::new(&HEADER, &[0]).short(&SHORT_HEADER).rows(summary.iter().map(IdpSummary::row));
        let mut steps: Vec<_> = summary.iter().flat_map(|idp| idp.next_steps(&args.target.again())).collect();
        let mut seen = HashSet::new();
        // One step may end the holds of all providers.
        steps.retain(|step| seen.insert(step.clone()));
        head(&health) + &table.text() + &steps.concat()
    })?;
    Ok(Exit::Done)
}

const HEADER: [&str; 8] = ["idp", "grants", "fresh", "backoff", "in doubt", "reconnect", "first impact", "health"];
/// For terminals of 80 columns.
const SHORT_HEADER: [&str; 8] = ["idp", "grants", "fresh", "backoff", "doubt", "reconn.", "impact", "health"];

fn head(health: &PlaceHealth) -> String {
    let store = if health.store_ok { "ok".to_owned() } else { coloured("down", 31) };
    let journal = health.journal_pending.map_or_else(|| "pending".to_owned(), |pending| pending.to_string());
    let revocations = match health.revocations {
        None | Some((0, _)) => String::new(),
        Some((pending, 0)) => format!("   revocations {pending}"),
        Some((pending, unconfirmed)) => coloured(&format!("   revocations {pending}, {unconfirmed} not confirmed"), 33),
    };
    let degraded = match health.degraded.as_slice() {
        [] => String::new(),
        degraded => coloured(&format!("   degraded: {}", degraded.join(", ")), 33),
    };
    let replicas = match health.replicas.len() {
        0 | 1 => String::new(),
        live => format!("   replicas {live}"),
    };
    format!("{}   store {store}   journal {journal}{revocations}{replicas}{degraded}\n", health.name)
}

/// The state of an identity provider and the number of its grants in each state.
#[derive(Debug, Default, Serialize)]
struct IdpSummary {
    idp: String,
    configured: bool,
    grants: u64,
    fresh: u64,
    backoff: u64,
    in_doubt: u64,
    reconnect_required: u64,
    held_grants: u64,
    /// When the first valid token expires whose grant is on hold or fails to refresh.
    #[serde(with = "token_supervisor::api::time::optional")]
    first_impact_at: Option<SystemTime>,
    paused: Option<Cow<'static, str>>,
    #[serde(with = "token_supervisor::api::time::optional")]
    paused_until: Option<SystemTime>,
    held_reason: Option<String>,
    held_by: Option<Cow<'static, str>>,
    revokes: bool,
    /// How many refreshes are under way or queued.
    refreshing: usize,
    last_error: Option<Evidence>,
    #[serde(with = "token_supervisor::api::time::optional")]
    last_error_at: Option<SystemTime>,
}

/// Summarizes the providers, or one of them, in the order of their names, including those that have grants but are not
/// configured.
async fn summary(backend: &Backend, only: Option<&str>) -> Result<Vec<IdpSummary>, CliFailure> {
    let mut all: BTreeMap<String, IdpSummary> = BTreeMap::new();
    for idp in backend.idps().await?.into_iter().filter(|idp| only.is_none_or(|only| idp.idp == only)) {
        let summary = IdpSummary {
            idp: idp.idp.clone(),
            configured: true,
            paused: idp.paused,
            paused_until: idp.paused_until,
            held_reason: idp.held_reason,
            held_by: idp.held_by,
            revokes: idp.revokes,
            refreshing: idp.refreshing,
            last_error: idp.last_error,
            last_error_at: idp.last_error_at,
            ..IdpSummary::default()
        };
        all.insert(idp.idp, summary);
    }
    // All but the disconnected ones, in the largest pages.
    let (limit, idp) = (Some(1_000), only.map(str::to_owned));
    let (mut query, now) = (GrantQuery { limit, idp, ..GrantQuery::default() }, time::now());
    loop {
        let (grants, next) = backend.list(&query).await?;
        for grant in grants {
            let summary = all.entry(grant.idp.clone()).or_default();
            summary.idp.clone_from(&grant.idp);
            summary.count(&grant, now);
        }
        match next {
            Some(_) => query.after = next,
            None => return Ok(all.into_values().collect()),
        }
    }
}

impl IdpSummary {
    fn count(&mut self, grant: &StatusBody, now: SystemTime) {
        self.grants += 1;
        self.held_grants += u64::from(grant.held);
        *match grant.state {
            State::Backoff => &mut self.backoff,
            State::InDoubt => &mut self.in_doubt,
            State::ReconnectRequired => &mut self.reconnect_required,
            _ => &mut self.fresh,
        } += 1;
        let hindered = grant.is_hindered() || self.held_reason.is_some() || !self.configured;
        if let Some(end) = grant.expires_at.filter(|end| hindered && *end > now) {
            self.first_impact_at = Some(self.first_impact_at.map_or(end, |first| first.min(end)));
        }
    }

    fn row(&self) -> Vec<String> {
        let counts = [self.grants, self.fresh, self.backoff, self.in_doubt, self.reconnect_required];
        let impact = self.first_impact_at.map(|at| at.duration_since(time::now()).map_or("now".to_owned(), rough));
        let mut row = vec![self.idp.clone()];
        row.extend(counts.map(|count| count.to_string()));
        // A reason is cut where it would break the table, a name never is.
        let widest = terminal_width().map(|_| 18);
        row.extend([impact.unwrap_or_else(|| "-".to_owned()), self.health(widest)]);
        row
    }

    /// Describes the provider in several lines.
    fn in_words(&self, again: &str) -> String {
        let Self { grants, fresh, backoff, in_doubt, reconnect_required, held_grants, .. } = self;
        let mut text = String::new();
        let mut line = |head: &str, words: String| text += &(beside(&format!("{head:12}"), 12, &words) + "\n");
        line(&self.idp, self.health(None));
        if let Some(until) = self.paused_until.filter(|_| self.paused.is_some()) {
            line("", format!("until {} at least", for_people(until)));
        }
        line(
            "grants",
            format!(
                "{grants}: {fresh} fresh, {backoff} backoff, {in_doubt} in doubt, {reconnect_required} reconnect required, \
                 {held_grants} held"
            ),
        );
        line("refreshing", self.refreshing.to_string());
        if let Some(at) = self.first_impact_at {
            line("impact", format!("the first user has no valid token from {}", for_people(at)));
        }
        if let (Some(error), Some(at)) = (&self.last_error, self.last_error_at) {
            line("last error", visible(&format!("{error}, {}", for_people(at))));
        }
        line("revokes", if self.revokes { "yes" } else { "no: its tokens stay valid until they expire" }.to_owned());
        text + &self.next_steps(again).concat()
    }

    fn health(&self, widest_reason: Option<usize>) -> String {
        match (&self.held_reason, &self.paused) {
            _ if !self.configured => coloured("NOT CONFIGURED", 31),
            (Some(reason), _) => {
                let reason = visible(reason);
                let reason = widest_reason.map_or_else(|| reason.clone(), |widest| cut(&reason, widest));
                format!("{} {reason}", coloured("HELD", 33))
            }
            (None, Some(cause)) => format!("{} {cause}", coloured("PAUSED", 31)),
            (None, None) if self.held_grants > 0 => format!("{}, {} held", coloured("ok", 32), self.held_grants),
            (None, None) => coloured("ok", 32),
        }
    }

    /// Returns the commands to run next, one a line; `again` holds the options that select the place.
    fn next_steps(&self, again: &str) -> Vec<String> {
        let idp = &self.idp;
        let list = |wanted: &str, any: u64| (any > 0).then(|| format!("list --idp {idp} {wanted}{again}"));
        let until = || self.paused_until.map(|until| format!(" until {}", to_the_second(until))).unwrap_or_default();
        let is_held_by = |by: HeldBy| self.held_by.as_deref() == Some(by.as_str());
        let is_foreign = is_held_by(HeldBy::Deployment);
        // A copy must not be adopted: its help says so.
        let end = || if is_foreign { "adopt --help".to_owned() } else { format!("release {idp}{again}") };
        let release = self.held_reason.as_ref().filter(|_| !is_held_by(HeldBy::Recovery)).map(|_| end());
        let why = self.paused.as_ref().map(|cause| format!("why {cause}   ({idp} is paused{})", until()));
        let all = [
            release,
            why,
            list("--state reconnect_required", self.reconnect_required),
            list("--state in_doubt", self.in_doubt),
            list("--held", self.held_grants),
        ];
        all.into_iter().flatten().map(|command| format!("next: token-supervisor {command}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use token_supervisor::Cause;

    use super::*;

    #[test]
    fn each_problem_has_a_next_step() {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (idp, configured) = ("a-name-of-16-char".to_owned(), true);
        let held = IdpSummary {
            idp: idp.clone(),
            configured,
            held_reason: Some("their incident of today".to_owned()),
            ..IdpSummary::default()
        };
        assert_eq!(
            (&*held.health(Some(18)), held.next_steps("").concat()),
            ("HELD their incident of…", format!("next: token-supervisor release {idp}\n"))
        );
        let paused = Some(Cause::ClientUnknown.as_str().into());
        let paused = IdpSummary {
            idp,
            configured,
            paused,
            paused_until: Some(until),
            in_doubt: 1,
            held_grants: 1,
            ..IdpSummary::default()
        };
        assert_eq!(held.health(None), "HELD their incident of today");
        assert_eq!(paused.health(None), "PAUSED client_unknown");
        let expected = "\
next: token-supervisor why client_unknown   (a-name-of-16-char is paused until 2027-01-15T08:00:00Z)
next: token-supervisor list --idp a-name-of-16-char --state in_doubt
next: token-supervisor list --idp a-name-of-16-char --held
";
        assert_eq!(paused.next_steps("").concat(), expected);
    }
}
