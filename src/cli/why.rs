//! `why`: explains a code.

use token_supervisor::Why;

use super::{CliFailure, Exit, Out, show::folded};

/// Explain an error code, a reason or a state, and what to do about it.
///
/// Also explains the usual error codes of identity providers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor why reconnect_required\n  token-supervisor why in_doubt --json")]
pub(crate) struct WhyArgs {
    /// Error code, reason or state, such as not_connected, backoff, client_refused or http_502
    #[arg(required = true)]
    code: Vec<String>,
}

/// The similarity from which a known code is suggested for an unknown one.
const ALIKE: f64 = 0.7;

pub(crate) fn run(args: &WhyArgs, out: Out) -> Result<Exit, CliFailure> {
    // As tables and people write it: IN DOUBT, client-refused.
    let words = args.code.iter().flat_map(|word| word.split([' ', '-', '_'])).filter(|word| !word.is_empty());
    let code = words.collect::<Vec<_>>().join("_").to_lowercase();
    let Some(why) = Why::of(&code) else {
        let known: Vec<_> = Why::all().map(|why| why.code).collect();
        let alike =
            known.iter().map(|known| (strsim::jaro_winkler(&code, known), known)).filter(|(alike, _)| *alike > ALIKE);
        let nearest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let meant = nearest.map(|(_, code)| format!("token-supervisor why {code}, if you meant that; otherwise "));
        return Err(CliFailure::usage(
            "unknown code: it may be one of the identity provider's own, or the reason that an operator gave",
            format!(
                "{}see the provider's documentation. Known codes:\n{}",
                meant.unwrap_or_default(),
                folded(&known.join(" "), 2)
            ),
        ));
    };
    let json = serde_json::json!({ "code": code, "means": why.means, "advice": why.advice });
    out.result(&json, || {
        format!("{code}\n{}\n\n{}\n", folded(why.means, 2), folded(&format!("What to do: {}", why.advice), 2))
    })?;
    Ok(Exit::Done)
}
