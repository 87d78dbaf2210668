//! `connect`: stores the response of a token endpoint as a grant.

use std::io::{self, IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use super::{
    CliFailure, Exit, Out,
    args::{KeyArgs, TargetArgs},
    backend::{Backend, Verb},
    body::StatusWords as _,
    show::note,
};

/// Store the tokens that a user's consent returned.
///
/// Connecting the same response again changes nothing. The input is never printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor connect github alice --stdin < response.json\n  \
    curl -s .. | token-supervisor connect gitlab alice --account work --stdin")]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// Read the token endpoint's response from standard input, JSON or form, unmodified
    #[arg(long, required = true)]
    stdin: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Far larger than any token response.
const LARGEST: u64 = 1 << 20;

pub(crate) async fn run(args: ConnectArgs, out: Out) -> Result<Exit, CliFailure> {
    let (key, place) = (args.which.key()?, args.target.place()?);
    // The input is read before the store is opened: a user who types must not lock out other processes.
    let response = read()?;
    let verb = Verb::Connect(response);
    let body = Backend::creating(&place, async |backend| backend.on(&key, verb).await).await?.status;
    out.result(&body, || {
        let head = match &body.unchanged {
            Some(why) => format!("Unchanged: {} (token-supervisor why {why}).", why.replace('_', " ")),
            None => "Connected.".to_owned(),
        };
        format!("{head}\n{}", body.in_words())
    })?;
    Ok(Exit::Done)
}

fn read() -> Result<Zeroizing<Vec<u8>>, CliFailure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        note("paste the response of the token endpoint, then press Ctrl-D");
    }
    // The capacity is allocated once: a buffer that grows would leave copies of secrets in freed memory.
    let mut response = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 1));
    let length = stdin.lock().take(LARGEST + 1).read_to_end(&mut response)?;
    if length as u64 > LARGEST {
        return Err(CliFailure::usage("the input is larger than 1 MiB", "pass one response of the token endpoint"));
    }
    Ok(response)
}
