//! `status`: how one grant is, or all identity providers.

use std::{borrow::Cow, collections::BTreeMap, time::SystemTime};

use serde::Serialize;
use serde_json::json;
use token_supervisor::State;

use super::{
    Exit, Failure, Out,
    args::{Target, Wanted, key},
    backend::{Backend, Verb},
    body::GrantBody,
    coloured,
    show::{cut, table},
    time::{self, rough},
};

/// Says how a grant is, or all identity providers. Never shows a token.
///
/// Exit code 5 if the grant is not connected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor status\n  token-supervisor status github alice --json")]
pub(crate) struct Args {
    /// The identity provider, by its name in the configuration
    #[arg(requires = "user")]
    idp: Option<String>,
    /// The user, as your application names it
    user: Option<String>,
    /// The account, where the user has several at the identity provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    account: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, out: Out) -> Result<Exit, Failure> {
    match (&args.idp, &args.user) {
        (Some(idp), Some(user)) => one(&args, idp, user, out).await,
        _ => all(&args, out).await,
    }
}

async fn one(args: &Args, idp: &str, user: &str, out: Out) -> Result<Exit, Failure> {
    let (key, place) = (key(idp, user, &args.account)?, args.target.place()?);
    let body = Backend::with(&place, async |backend| backend.on(&key, Verb::Status).await).await?;
    out.result(&body, || body.in_words())?;
    Ok(Exit::Done)
}

async fn all(args: &Args, out: Out) -> Result<Exit, Failure> {
    let place = args.target.place()?;
    let (health, summary) =
        Backend::with(&place, async |backend| Ok((backend.health().await?, summary(backend).await?))).await?;
    let json = json!({
        "name": health.name,
        "journal_pending": health.journal_pending,
        "degraded": health.degraded,
        "idps": summary,
    });
    out.result(&json, || {
        let journal = health.journal_pending.map(|pending| format!("   journal {pending}")).unwrap_or_default();
        let degraded = match health.degraded.as_slice() {
            [] => String::new(),
            degraded => coloured(&format!("   degraded: {}", degraded.join(", ")), 33),
        };
        let head = format!("{}{journal}{degraded}\n", health.name);
        let names = ["idp", "grants", "fresh", "backoff", "in doubt", "reconnect", "first impact", "health"];
        let mut rows = vec![names.map(str::to_owned).to_vec()];
        rows.extend(summary.iter().map(Summary::row));
        let reconnect = summary.iter().find(|idp| idp.reconnect_required > 0);
        let next =
            reconnect.map(|idp| format!("do: token-supervisor list --state reconnect_required --idp {}\n", idp.idp));
        head + &table(&rows) + &next.unwrap_or_default()
    })?;
    Ok(Exit::Done)
}

/// How an identity provider and its grants are.
#[derive(Debug, Default, Serialize)]
struct Summary {
    idp: String,
    configured: bool,
    grants: u64,
    fresh: u64,
    backoff: u64,
    in_doubt: u64,
    reconnect_required: u64,
    /// When the first valid token of a grant that fails, or is held, runs out.
    #[serde(with = "time::optional")]
    first_impact_at: Option<SystemTime>,
    paused: Option<Cow<'static, str>>,
    #[serde(with = "time::optional")]
    paused_until: Option<SystemTime>,
    held_reason: Option<String>,
}

/// In the order of their names; also those that have grants and are not configured.
async fn summary(backend: &Backend) -> Result<Vec<Summary>, Failure> {
    let mut all: BTreeMap<String, Summary> = BTreeMap::new();
    for idp in backend.idps().await? {
        let summary = Summary {
            idp: idp.idp.clone(),
            configured: true,
            paused: idp.paused,
            paused_until: idp.paused_until,
            held_reason: idp.held_reason,
            ..Summary::default()
        };
        all.insert(idp.idp, summary);
    }
    let mut after = None;
    loop {
        let (grants, next) = backend.list(&Wanted::all(after)).await?;
        for grant in grants {
            let summary = all.entry(grant.idp.clone()).or_default();
            summary.idp.clone_from(&grant.idp);
            summary.count(&grant);
        }
        match next {
            Some(_) => after = next,
            None => return Ok(all.into_values().collect()),
        }
    }
}

impl Summary {
    fn count(&mut self, grant: &GrantBody) {
        self.grants += 1;
        let (of, fails) = match grant.state {
            State::Backoff => (&mut self.backoff, true),
            State::InDoubt => (&mut self.in_doubt, true),
            State::ReconnectRequired => (&mut self.reconnect_required, false),
            _ => (&mut self.fresh, grant.held),
        };
        *of += 1;
        if fails && let Some(end) = grant.expires_at {
            self.first_impact_at = Some(self.first_impact_at.map_or(end, |first| first.min(end)));
        }
    }

    fn row(&self) -> Vec<String> {
        let counts = [self.grants, self.fresh, self.backoff, self.in_doubt, self.reconnect_required];
        let impact = self.first_impact_at.map(|at| at.duration_since(time::now()).map_or("now".to_owned(), rough));
        let mut row = vec![cut(&self.idp, 16)];
        row.extend(counts.map(|count| count.to_string()));
        row.extend([impact.unwrap_or_else(|| "-".to_owned()), self.health()]);
        row
    }

    fn health(&self) -> String {
        match (&self.held_reason, &self.paused) {
            _ if !self.configured => coloured("NOT CONFIGURED", 31),
            (Some(reason), _) => format!("{} {}", coloured("HELD", 33), cut(reason, 20)),
            (None, Some(cause)) => format!("{} {cause}", coloured("PAUSED", 31)),
            (None, None) => coloured("ok", 32),
        }
    }
}
