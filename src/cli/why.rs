//! `why`: explains a code.

use token_supervisor::Why;

use super::{CliFailure, Exit, Out, show::folded};

/// Explain an error code or reason, and what to do about it.
///
/// Also explains the usual error codes of identity providers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor why reconnect_required\n  token-supervisor why in_doubt --json")]
pub(crate) struct WhyArgs {
    /// Error code or reason, such as not_connected, client_refused, invalid_grant or http_502
    code: String,
}

/// The similarity from which a known code is suggested for an unknown one.
const ALIKE: f64 = 0.8;

pub(crate) fn run(args: &WhyArgs, out: Out) -> Result<Exit, CliFailure> {
    let Some(why) = Why::of(&args.code) else {
        let known: Vec<_> = Why::all().map(|why| why.code).collect();
        let alike = known.iter().map(|code| (strsim::jaro(&args.code, code), code)).filter(|(alike, _)| *alike > ALIKE);
        let nearest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let meant = nearest.map(|(_, code)| format!("token-supervisor why {code}, if you meant that; otherwise "));
        return Err(CliFailure::usage(
            "unknown code: it may be one of the identity provider's own",
            format!(
                "{}see the provider's documentation. Known codes:\n{}",
                meant.unwrap_or_default(),
                folded(&known.join(" "), 2)
            ),
        ));
    };
    let json = serde_json::json!({ "code": args.code, "means": why.means, "advice": why.advice });
    out.result(&json, || {
        format!("{}\n{}\n\n{}\n", args.code, folded(why.means, 2), folded(&format!("What to do: {}", why.advice), 2))
    })?;
    Ok(Exit::Done)
}
