//! `why`: the text behind a code.

use token_supervisor::Why;

use super::{CliFailure, Exit, Out, show::folded};

/// Says what a code means, and what to do about it.
///
/// Of errors, of the reasons beside them, and the usual ones of identity providers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor why reconnect_required\n  token-supervisor why in_doubt --json")]
pub(crate) struct WhyArgs {
    /// Such as not_connected, client_refused, invalid_grant, http_502
    code: String,
}

/// How alike two codes must be for one to be meant by the other.
const ALIKE: f64 = 0.8;

pub(crate) fn run(args: &WhyArgs, out: Out) -> Result<Exit, CliFailure> {
    let Some(why) = Why::of(&args.code) else {
        let known: Vec<_> = Why::all().map(|why| why.code).collect();
        let alike = known.iter().map(|code| (strsim::jaro(&args.code, code), code)).filter(|(alike, _)| *alike > ALIKE);
        let nearest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let meant = nearest.map(|(_, code)| format!("token-supervisor why {code}, if you meant that; else "));
        return Err(CliFailure::usage(
            "this is no code of ours, nor of OAuth: perhaps the identity provider's own",
            format!(
                "{}look into its documentation, or ask about one of:\n{}",
                meant.unwrap_or_default(),
                folded(&known.join(" "), 2)
            ),
        ));
    };
    let json = serde_json::json!({ "code": args.code, "means": why.means, "advice": why.advice });
    out.result(&json, || {
        format!("{}\n{}\n\n{}\n", args.code, folded(why.means, 2), folded(&format!("Do: {}", why.advice), 2))
    })?;
    Ok(Exit::Done)
}
