//! The program `token-supervisor`; see `token-supervisor --help`.
//!
//! To add a command, add a module to [`cli`], a variant to [`CliCommand`] and an arm to [`run`].

mod cli;
mod demo;
mod loadtest;

use std::{alloc::System, process::ExitCode};

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use zeroizing_alloc::ZeroAlloc;

use cli::{
    CliFailure, Exit, Out, adopt, apikey, config, connect, doctor, healthcheck, id, idp, init, keys, list, migrate,
    offboard, serve, status, token,
    verbs::{
        DisconnectArgs, HoldArgs, ProbeArgs, PurgeArgs, ReconnectArgs, RefreshArgs, ReleaseArgs, RestoreArgs, RetryArgs,
    },
    why,
};

/// Keeps OAuth tokens valid, through crashes and outages.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 the user must reconnect,
/// 4 try again later (it passes by itself), 5 not connected.
#[derive(Debug, Parser)]
#[command(
    name = "token-supervisor",
    version,
    verbatim_doc_comment,
    after_help = "Examples:\n  token-supervisor demo\n  token-supervisor init --idp github"
)]
struct Cli {
    /// Log to stderr; -vv logs in detail
    #[arg(short, long, global = true, display_order = 100, action = ArgAction::Count)]
    verbose: u8,
    /// Print the result or the error as one JSON object
    #[arg(long, global = true, display_order = 101)]
    json: bool,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    Demo(demo::DemoArgs),
    Loadtest(loadtest::LoadtestArgs),
    Init(init::InitArgs),
    Serve(serve::ServeArgs),
    Healthcheck(healthcheck::HealthcheckArgs),
    Config(config::ConfigArgs),
    Idp(idp::IdpArgs),
    Keys(keys::KeysArgs),
    Apikey(apikey::ApikeyArgs),
    Connect(connect::ConnectArgs),
    Token(token::TokenArgs),
    Status(status::StatusArgs),
    Id(id::IdArgs),
    List(list::ListArgs),
    Refresh(RefreshArgs),
    Retry(RetryArgs),
    Hold(HoldArgs),
    Release(ReleaseArgs),
    Probe(ProbeArgs),
    Reconnect(ReconnectArgs),
    Disconnect(DisconnectArgs),
    Restore(RestoreArgs),
    Purge(PurgeArgs),
    Offboard(offboard::OffboardArgs),
    Adopt(adopt::AdoptArgs),
    Migrate(migrate::MigrateArgs),
    Doctor(doctor::DoctorArgs),
    Why(why::WhyArgs),
}

/// Overwrites what is freed: replaced tokens and keys are gone with every copy that a library made of them.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    cli::memory::seal_off();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help or version. The reader may have closed the pipe, which is no failure.
        Err(error) if !error.use_stderr() => {
            error.print().ok();
            return Exit::Done.into();
        }
        Err(error) if !wants_json() => {
            error.print().ok();
            return Exit::Usage.into();
        }
        Err(error) => return misused(&error).tell(true).into(),
    };
    // `serve` takes its log settings from the configuration. The grants of `demo` and `loadtest` are nobody's.
    let logs = match cli.command {
        CliCommand::Serve(_) => false,
        CliCommand::Demo(_) | CliCommand::Loadtest(_) => cli.verbose > 0,
        _ => true,
    };
    if logs {
        cli::log::of_command(cli.verbose, cli.json);
    }
    let json = cli.json;
    // The command's threads. The supervisor starts its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(CliFailure::from).and_then(|runtime| runtime.block_on(run(cli)));
    ended.unwrap_or_else(|failure| failure.tell(json)).into()
}

/// Returns whether `--json` is among the arguments. Used when clap could not parse them.
fn wants_json() -> bool {
    std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// Turns a usage error of clap into one line and the `--help` command to run next, for `--json`.
fn misused(error: &clap::Error) -> CliFailure {
    let mut command = Cli::command();
    let mut help = command.get_name().to_owned();
    let words = std::env::args_os().skip(1).filter(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
    for word in words {
        let Some(found) = command.find_subcommand(&word).cloned() else { break };
        help = format!("{help} {}", found.get_name());
        command = found;
    }
    let text = match error.kind() {
        // clap's text is the whole help here.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "the command is incomplete".to_owned(),
        _ => {
            let told = error.to_string();
            let first = told.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            first.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches("...").to_owned()
        }
    };
    CliFailure::usage(text, format!("{help} --help"))
}

async fn run(cli: Cli) -> Result<Exit, CliFailure> {
    let out = Out { json: cli.json };
    match cli.command {
        CliCommand::Demo(args) => demo::run(args, cli.json, cli.verbose > 0).await,
        CliCommand::Loadtest(args) => loadtest::run(args, cli.json, cli.verbose > 0).await,
        CliCommand::Init(args) => init::run(&args, out),
        CliCommand::Serve(args) => serve::run(&args, cli.verbose, out).await,
        CliCommand::Healthcheck(args) => healthcheck::run(args, out).await,
        CliCommand::Config(args) => config::run(&args, out),
        CliCommand::Idp(args) => idp::run(&args, out),
        CliCommand::Keys(args) => keys::run(args, out).await,
        CliCommand::Apikey(args) => apikey::run(&args, out),
        CliCommand::Connect(args) => connect::run(args, out).await,
        CliCommand::Token(args) => token::run(args, out).await,
        CliCommand::Status(args) => status::run(args, out).await,
        CliCommand::Id(args) => id::run(args, out).await,
        CliCommand::List(args) => list::run(args, out).await,
        CliCommand::Refresh(verb) => verb.run(out).await,
        CliCommand::Retry(verb) => verb.run(out).await,
        CliCommand::Hold(verb) => verb.run(out).await,
        CliCommand::Release(verb) => verb.run(out).await,
        CliCommand::Probe(verb) => verb.run(out).await,
        CliCommand::Reconnect(verb) => verb.run(out).await,
        CliCommand::Disconnect(verb) => verb.run(out).await,
        CliCommand::Restore(verb) => verb.run(out).await,
        CliCommand::Purge(verb) => verb.run(out).await,
        CliCommand::Offboard(args) => offboard::run(args, out).await,
        CliCommand::Adopt(args) => adopt::run(args, out).await,
        CliCommand::Migrate(args) => migrate::run(&args, out),
        CliCommand::Doctor(args) => doctor::run(args, out).await,
        CliCommand::Why(args) => why::run(&args, out),
    }
}
