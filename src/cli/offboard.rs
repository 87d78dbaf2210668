//! `offboard`: disconnects all grants of a user.

use serde_json::json;
use token_supervisor::{TokenKey, api::OffboardedGrant};

use super::{
    CliFailure, Exit, Out,
    args::{TargetArgs, key},
    backend::{Backend, Verb},
    show::{RowTable, visible},
};

/// Disconnect all grants of a user, at every provider.
///
/// Prints one result for each grant. Without --revoke, restore can undo it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor offboard alice\n  token-supervisor offboard alice --revoke --json"
)]
pub(crate) struct OffboardArgs {
    /// User, by the name your application uses
    user: String,
    /// Also revoke the tokens at the identity providers; cannot be undone
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: OffboardArgs, out: Out) -> Result<Exit, CliFailure> {
    key("any", &args.user, "").map_err(|failure| failure.then("give the name of the user, as in: offboard alice"))?;
    let place = args.target.place()?;
    let items = Backend::with(&place, async |backend| {
        let mut items = backend.offboard(&args.user, args.revoke).await?;
        // Only the state of one grant says how far its revocation is.
        for item in items.iter_mut().filter(|item| args.revoke && item.problem.is_none()) {
            let key = TokenKey::at(&item.idp).user(&item.user).account(&item.account);
            if let Ok(now) = backend.on(&key, Verb::Status).await {
                item.status = Some(now.status);
            }
        }
        Ok(items)
    });
    let items = items.await?;
    out.result(&json!({ "items": items }), || {
        if items.is_empty() {
            return format!("Nothing to disconnect: {} has no grant.\n", visible(&args.user));
        }
        let rows = items.iter().map(row);
        RowTable::new(&["idp", "account", "result"], &[0, 1]).rows(rows).text()
    })?;
    // The command can be repeated after a failure: what is disconnected stays so.
    let failed = items.iter().find_map(|item| item.problem.as_ref());
    Ok(failed.map_or(Exit::Done, Exit::of))
}

fn row(item: &OffboardedGrant) -> Vec<String> {
    let revocation = item.status.as_ref().and_then(|status| status.revocation.as_deref());
    let result = match (&item.problem, revocation) {
        (Some(problem), _) => visible(&problem.detail),
        (None, None) => "disconnected".to_owned(),
        (None, Some("done")) => "disconnected, revoked".to_owned(),
        (None, Some("no_endpoint")) => "disconnected, not revoked: no revocation endpoint".to_owned(),
        (None, Some(other)) => format!("disconnected, revocation {other}"),
    };
    vec![item.idp.clone(), visible(&item.account), result]
}
