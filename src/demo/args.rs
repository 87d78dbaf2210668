//! The arguments of `demo`.

use std::{path::PathBuf, time::Duration};

use clap::value_parser;

use super::world::WorldPlan;

/// Run the supervisor under load against simulated identity providers that misbehave
///
/// Nothing needs to be configured.
///
/// Exit code 0: no refresh token was spent twice, no rotation was lost, no caller got an error.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor demo --compare-naive\n  token-supervisor demo --pairs 200 --seconds 30 --json"
)]
pub(crate) struct DemoArgs {
    /// Number of grants: pairs of a user and an identity provider
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..=20_000))]
    pub(super) pairs: u32,
    /// Duration in seconds [default: until Ctrl-C]
    #[arg(long, value_name = "S", value_parser = value_parser!(u32).range(1..=604_800))]
    pub(super) seconds: Option<u32>,
    /// Also run a client without supervision, under the same faults
    #[arg(long)]
    pub(super) compare_naive: bool,
    /// Port of the HTTP API over these grants, on 127.0.0.1; 0: any free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) port: u16,
    /// New file for the store, which is kept: sqlite://PATH [default: a temporary file]
    #[arg(long, value_name = "URL", value_parser = sqlite_path)]
    pub(super) db: Option<PathBuf>,
    /// Seed of an earlier run, for the same faults
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

/// At most this many refreshes per second: with more pairs, tokens live longer.
const PAIRS_PER_SECOND: u32 = 100;

impl DemoArgs {
    pub(super) fn plan(&self) -> WorldPlan {
        let lifetime = Duration::from_secs(u64::from(self.pairs.div_ceil(PAIRS_PER_SECOND).max(4)));
        WorldPlan { pairs: self.pairs, lifetime, faults: true, db: self.db.clone() }
    }
}

fn sqlite_path(url: &str) -> Result<PathBuf, String> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        None | Some("" | ":memory:") => Err("write sqlite://PATH, such as sqlite://demo.db".to_owned()),
        Some(path) => Ok(path.into()),
    }
}
