//! The arguments of `loadtest`.

use std::path::PathBuf;

use clap::{ValueEnum, value_parser};

use crate::{
    CliFailure,
    cli::backend::{Address, ServerTarget},
};

/// Measure the supervisor under load, and write a report
///
/// Runs in this process, against simulated identity providers with an embedded store in a temporary folder. With --server,
/// reads the tokens of grants that a running server has, as applications do: connects nothing, and changes no grant. A
/// server refreshes tokens that have expired when they are read, as always.
///
/// Exit code 0: the load ran. 1: it failed, or in this process a refresh token was spent twice or lost.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor loadtest --pairs 5000 --seconds 60 --report load.html\n  token-supervisor loadtest --server http://127.0.0.1:8080 --idp github --readers 32 --json"
)]
pub(crate) struct LoadtestArgs {
    /// Number of grants; with --server, the maximum number of grants whose tokens are read
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(super) pairs: u32,
    /// Number of concurrent readers; with --server, each reads one token after the other
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = value_parser!(u64).range(1..=1_024))]
    pub(super) readers: u64,
    /// Duration in seconds; Ctrl-C ends it early, with a report
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = value_parser!(u32).range(1..=86_400))]
    pub(super) seconds: u32,
    /// Lifetime of access tokens in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = value_parser!(u64).range(4..=86_400))]
    #[arg(conflicts_with = "server")]
    pub(super) lifetime: u64,
    /// Faults of the identity providers and panics of actors
    #[arg(long, value_enum, default_value_t = FaultMix::None, conflicts_with = "server")]
    pub(super) faults: FaultMix,
    /// Seed of an earlier run, for the same faults
    #[arg(long, value_name = "N", conflicts_with = "server")]
    pub(super) seed: Option<u64>,
    /// Write a report to this file
    #[arg(long, value_name = "FILE.html")]
    pub(super) report: Option<PathBuf>,
    /// Write each chart of the report to this folder, as SVG
    #[arg(long, value_name = "FOLDER")]
    pub(super) plots: Option<PathBuf>,
    /// Running server to load: its URL or unix:/PATH. TOKEN_SUPERVISOR_SERVER is ignored
    ///
    /// The API key is read from TOKEN_SUPERVISOR_API_KEY and needs the scopes admin (to list grants) and token.
    #[arg(long, value_name = "URL")]
    server: Option<Address>,
    /// Only grants at this identity provider
    #[arg(long, value_name = "NAME", requires = "server")]
    pub(super) idp: Option<String>,
    /// Only grants of users whose names start with this prefix
    #[arg(long, value_name = "PREFIX", requires = "server")]
    pub(super) user_prefix: Option<String>,
    /// Also load a server on another machine
    #[arg(long, requires = "server")]
    allow_remote: bool,
    /// Also use plain http to another machine, which exposes the API key and the tokens
    #[arg(long, requires = "server")]
    allow_http: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FaultMix {
    None,
    Some,
}

impl LoadtestArgs {
    /// Returns the server to load, if any.
    ///
    /// # Errors
    /// The server is on another machine, and the arguments do not allow that.
    pub(super) fn target(&self) -> Result<Option<ServerTarget>, CliFailure> {
        let Some(address) = &self.server else { return Ok(None) };
        if !address.is_local() && !self.allow_remote {
            return Err(CliFailure::usage(
                format!("{address} is not on this machine, and its other users would notice the load"),
                "add --allow-remote if the server is yours to load",
            ));
        }
        ServerTarget { address: address.clone(), proxy: None }.unexposed(self.allow_http).map(Some)
    }
}
