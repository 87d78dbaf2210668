//! `status`: how one grant is, or all identity providers.

use serde_json::json;
use token_supervisor::{IdpStatus, State};

use super::{
    Exit, Failure, Out,
    args::{Source, key},
    backend::{Backend, Verb},
    coloured,
    show::table,
    time::{for_people, rfc3339},
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
    source: Source,
}

pub(crate) async fn run(args: Args, out: Out) -> Result<Exit, Failure> {
    match (&args.idp, &args.user) {
        (Some(idp), Some(user)) => one(&args, idp, user, out).await,
        _ => all(&args, out).await,
    }
}

async fn one(args: &Args, idp: &str, user: &str, out: Out) -> Result<Exit, Failure> {
    let (key, config) = (key(idp, user, &args.account)?, args.source.load()?);
    let body = Backend::with(&config, async |backend| backend.on(&key, Verb::Status).await).await?;
    if body.state == State::Absent {
        return Err(Failure::about(&key, &token_supervisor::Error::NotConnected));
    }
    out.result(&body, || body.in_words())?;
    Ok(Exit::Done)
}

async fn all(args: &Args, out: Out) -> Result<Exit, Failure> {
    let config = args.source.load()?;
    let (idps, journal) =
        Backend::with(&config, async |backend| Ok((backend.idps(), backend.journal_pending()))).await?;
    let json = json!({
        "deployment": config.deployment(),
        "journal_pending": journal,
        "idps": idps.iter().map(|idp| json!({
            "idp": idp.name,
            "paused": idp.paused.map(|cause| cause.as_str()),
            "paused_until": idp.paused_until.map(rfc3339),
            "held": idp.held.is_some(),
            "held_reason": idp.held,
        })).collect::<Vec<_>>(),
    });
    out.result(&json, || {
        let head = format!("{}   store ok   journal {journal}\n", config.deployment().unwrap_or("no deployment"));
        let mut rows = vec![["idp", "health"].map(str::to_owned).to_vec()];
        rows.extend(idps.iter().map(|idp| vec![idp.name.clone(), health(idp)]));
        head + &table(&rows)
    })?;
    Ok(Exit::Done)
}

fn health(idp: &IdpStatus) -> String {
    match (&idp.held, idp.paused) {
        (Some(reason), _) => format!("{} {reason}", coloured("HELD", 33)),
        (None, Some(cause)) => {
            let until = idp.paused_until.map(|until| format!(" until {}", for_people(until))).unwrap_or_default();
            format!("{} {cause}{until}", coloured("PAUSED", 31))
        }
        (None, None) => coloured("ok", 32),
    }
}
