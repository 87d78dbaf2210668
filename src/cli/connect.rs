//! `connect`: a grant from what the identity provider answered.

use std::io::{self, IsTerminal as _, Read as _};

use token_supervisor::Grant;
use zeroize::Zeroizing;

use super::{
    CliFailure, Exit, Out,
    args::{KeyArgs, TargetArgs},
    backend::{Backend, Verb},
    body::StatusWords as _,
    show::note,
};

/// Stores what the user's consent gave.
///
/// A repetition changes nothing and says so. Nothing of what is handed in is ever shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor connect github alice --stdin < answer.json\n  \
    curl -s .. | token-supervisor connect gitlab alice --account work --stdin")]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// Reads the token endpoint's answer from standard input, JSON or a form, as it came
    #[arg(long, required = true)]
    stdin: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Far more than any token answer.
const LARGEST: u64 = 1 << 20;

pub(crate) async fn run(args: ConnectArgs, out: Out) -> Result<Exit, CliFailure> {
    let (key, place) = (args.which.key()?, args.target.place()?);
    // Before the store is opened: whoever types must not lock others out.
    let answer = read()?;
    let grant = Grant::from_token_response(&answer)
        .map_err(|error| CliFailure::usage(error.to_string(), "nothing was stored: fix the input, and run it again"))?;
    let verb = Verb::Connect(Box::new(grant));
    let body = Backend::with(&place, async |backend| backend.on(&key, verb).await).await?.status;
    out.result(&body, || {
        let head = match &body.unchanged {
            Some(why) => format!("unchanged: {} (token-supervisor why {why})", why.replace('_', " ")),
            None => "connected".to_owned(),
        };
        format!("{head}\n{}", body.in_words())
    })?;
    Ok(Exit::Done)
}

fn read() -> Result<Zeroizing<Vec<u8>>, CliFailure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        note("paste the answer of the token endpoint, then press Ctrl-D");
    }
    // All room at once: a buffer that grows would leave secrets behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 1));
    let length = stdin.lock().take(LARGEST + 1).read_to_end(&mut answer)?;
    if length as u64 > LARGEST {
        return Err(CliFailure::usage(
            "the input is longer than a mebibyte",
            "hand in one answer of the token endpoint",
        ));
    }
    Ok(answer)
}
