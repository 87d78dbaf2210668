//! `list`: lists grants.

use token_supervisor::api::StatusBody;

use super::{
    CliFailure, Exit, Out,
    args::{GrantArgs, TargetArgs},
    backend::Backend,
    body::StatusWords as _,
    show::RowTable,
};

/// List grants, ordered by identity provider, user and account.
///
/// Never prints a token, and sends nothing to identity providers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor list --idp github --state reconnect_required\n  \
    token-supervisor list --user-prefix acme/ --expiring-before 2027-01-15T08:00:00Z --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    wanted: GrantArgs,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: ListArgs, out: Out) -> Result<Exit, CliFailure> {
    let place = args.target.place()?;
    let (items, next) = Backend::with(&place, async |backend| backend.list(&args.wanted.query()).await).await?;
    let next = next.map(|cursor| cursor.to_string());
    out.result(&serde_json::json!({ "items": items, "next": next }), || {
        if items.is_empty() && next.is_none() {
            return "No grant matches.\n".to_owned();
        }
        let table = RowTable::new(&["idp", "user", "state", "gen", "expires"], &[0, 1]).rows(items.iter().map(row));
        let next = next.iter().map(|next| format!("next page: repeat the command with --after\n{next}\n"));
        table.text() + &next.collect::<String>()
    })?;
    Ok(Exit::Done)
}

/// Returns the cells of a grant.
fn row(grant: &StatusBody) -> Vec<String> {
    let held = if grant.held { ", held" } else { "" };
    let generation = grant.generation.to_string();
    vec![grant.idp.clone(), grant.owner(), format!("{}{held}", grant.state), generation, grant.expires_in_words()]
}
