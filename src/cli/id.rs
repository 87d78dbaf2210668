//! `id`: what stands for a grant and its user in logs.

use serde_json::json;

use super::{
    CliFailure, Exit, Out,
    args::{KeyArgs, TargetArgs},
    backend::{Backend, Verb},
};

/// Show the ID of a grant and the hash of its user, as logs have them.
///
/// Search the log for the grant ID, and the audit log for the user hash.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor id github alice\n  token-supervisor id github alice --json")]
pub(crate) struct IdArgs {
    #[command(flatten)]
    which: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: IdArgs, out: Out) -> Result<Exit, CliFailure> {
    let (key, place) = (args.which.key()?, args.target.place()?);
    let status = Backend::with(&place, async |backend| backend.on(&key, Verb::Status).await).await?.status;
    let hash = status.user_hash.as_deref();
    let json = json!({
        "idp": status.idp, "user": status.user, "account": status.account, "grant_id": status.grant_id, "user_hash": hash,
    });
    out.result(&json, || {
        let hash = hash.unwrap_or("not known: the server is an older version");
        format!("grant ID   {}\nuser hash  {hash}\n", status.grant_id)
    })?;
    Ok(Exit::Done)
}
