//! `why`: the text behind a code.

use token_supervisor::Why;

use super::{Exit, Failure, Out, show::folded};

/// Says what a code means, and what to do about it.
///
/// Of errors, of the reasons beside them, and the usual ones of identity providers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor why reconnect_required\n  token-supervisor why in_doubt --json")]
pub(crate) struct Args {
    /// Such as not_connected, client_refused, invalid_grant, http_502
    code: String,
}

pub(crate) fn run(args: &Args, out: Out) -> Result<Exit, Failure> {
    let Some(why) = Why::of(&args.code) else {
        let known: Vec<_> = Why::all().map(|why| why.code).collect();
        return Err(Failure::usage(
            "this is no code of ours, nor of OAuth: perhaps the identity provider's own",
            format!("look into its documentation, or ask about one of:\n{}", folded(&known.join(" "), 2)),
        ));
    };
    let json = serde_json::json!({ "code": args.code, "means": why.means, "advice": why.advice });
    out.result(&json, || {
        format!("{}\n{}\n\n{}\n", args.code, folded(why.means, 2), folded(&format!("Do: {}", why.advice), 2))
    })?;
    Ok(Exit::Done)
}
