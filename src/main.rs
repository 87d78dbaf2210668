//! The program `token-supervisor`; see `token-supervisor --help`.
//!
//! A command is a module with its arguments (a clap struct whose help ends with two examples) and a `run`
//! that resolves to an [`Exit`] or a [`Failure`]. To add one: the module, a variant of [`Command`], its arm.

mod demo;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Keeps OAuth tokens alive and never loses one.
#[derive(Debug, Parser)]
#[command(
    name = "token-supervisor",
    version,
    after_help = "Examples:\n  token-supervisor demo\n  token-supervisor demo --pairs 200 --seconds 30 --json"
)]
struct Cli {
    /// Writes what happens to stderr; twice: in detail
    #[arg(short, long, global = true, display_order = 100, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the supervisor under load, against simulated identity providers that misbehave
    Demo(demo::Args),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done,
    Failed,
    Usage,
}

/// Why a command could not do what it was asked, and what to do next.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    text: String,
    next: &'static str,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help, version or wrong usage. Whoever should read it may have hung up.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    log(cli.verbose);
    // The supervisor brings threads of its own; these are the command's.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(cli)));
    ended.unwrap_or_else(Failure::tell).into()
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Demo(args) => demo::run(args, cli.verbose > 0).await,
    }
}

/// Quiet unless asked.
fn log(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "token_supervisor=info",
        _ => "token_supervisor=trace",
    };
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr).init();
}

impl Failure {
    fn tell(self) -> Exit {
        use std::io::Write as _;
        let mut stderr = std::io::stderr().lock();
        writeln!(stderr, "error: {}\n\nnext: {}", self.text, self.next).ok();
        self.exit
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self {
            exit: Exit::Failed,
            text: format!("the operating system refused: {error}"),
            next: "see that there are files, threads and space left, then try again",
        }
    }
}
