//! `adopt`: takes over a store that belongs to another deployment.

use serde_json::json;

use super::{CliFailure, Exit, Out, args::TargetArgs, backend::Backend, show::visible};

/// Take over a store that belongs to another deployment.
///
/// A store keeps the name of the deployment that opened it first. Under another name it is taken for a copy, and nothing is sent
/// to identity providers: the original may spend the same refresh tokens, and the grants would be lost. Adopt a store only if
/// the other deployment does not use its grants any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor adopt --config /etc/token-supervisor/config.toml\n  \
    token-supervisor adopt --server https://tokens.example.com --json")]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: AdoptArgs, out: Out) -> Result<Exit, CliFailure> {
    let from = Backend::with(&args.target.place()?, async |backend| backend.adopt().await).await?;
    out.result(&json!({ "adopted_from": from }), || match &from {
        Some(from) => {
            format!(
                "Adopted: the store belonged to {}. Grants that are due are refreshed from now on.\n",
                visible(from)
            )
        }
        None => "Nothing to adopt: the store belongs to this deployment.\n".to_owned(),
    })?;
    Ok(Exit::Done)
}
