//! `demo`: the supervisor under load, against simulated identity providers that misbehave, and the proof that
//! nothing was lost.
//!
//! To read: [`world`] (who is there, and what goes wrong), [`load`] (readers and panics), [`verdict`] (what the
//! identity providers say about what is stored in the end), [`show`] (what people and programs see of it). Beside it:
//! [`served`] (the HTTP API, for who wants to try it) and, if asked for, [`naive`] (what people write by hand).
//!
//! Invariant: the judges are the simulators' ledgers, never the supervisor's own view.

mod load;
mod meter;
mod naive;
mod served;
mod show;
mod time;
mod verdict;
mod words;
mod world;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::value_parser;
use tokio::sync::watch;

use self::{
    load::Load,
    meter::Meter,
    naive::Naive,
    served::Served,
    show::Show,
    time::Moment,
    verdict::{Compared, Summary},
    world::World,
};
use crate::{CliFailure, Exit, cli::signals::Signals};

/// Shows the supervisor under load, against simulated identity providers that misbehave.
///
/// Nothing needs to be configured.
///
/// Exit code 0: no refresh token was spent twice, no rotation was lost, no caller saw an error.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  token-supervisor demo --compare-naive\n  token-supervisor demo --pairs 200 --seconds 30 --json"
)]
pub(crate) struct Args {
    /// How many grants: pairs of a user and an identity provider
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..=20_000))]
    pairs: u32,
    /// Ends by itself after so many seconds [default: at Ctrl-C]
    #[arg(long, value_name = "S", value_parser = value_parser!(u32).range(1..=604_800))]
    seconds: Option<u32>,
    /// Runs a client without supervision beside it, under the same faults
    #[arg(long)]
    compare_naive: bool,
    /// Where the HTTP API over these grants listens on 127.0.0.1 meanwhile; 0: any free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Stores in a new file and keeps it: sqlite://PATH [default: a temporary one]
    #[arg(long, value_name = "URL", value_parser = sqlite_path)]
    db: Option<PathBuf>,
    /// Draws the same faults as an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// How long everything may take to become quiet once the faults are over.
const QUIET_WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: Args, json: bool, verbose: bool) -> Result<Exit, CliFailure> {
    load::count_injected_panics();
    let (tell, interrupted) = watch::channel(false);
    let mut signals = Signals::listen()?;
    let twice = async {
        signals.next().await;
        tell.send_replace(true);
        // Some wrappers send the signal twice: that is still one wish.
        time::pause(Duration::from_secs(1)).await;
        signals.next().await
    };
    tokio::select! {
        ended = show_all(args, json, verbose, interrupted) => ended,
        signal = twice => Err(CliFailure::new(
            Exit::Interrupted(signal),
            "interrupted before the summary was there",
            "press Ctrl-C once and give it a few seconds",
        )),
    }
}

async fn show_all(
    args: Args,
    json: bool,
    verbose: bool,
    interrupted: watch::Receiver<bool>,
) -> Result<Exit, CliFailure> {
    let seed = args.seed.unwrap_or_else(|| getrandom::u32().map_or(1, u64::from));
    let listener = served::listen(args.port)?;
    let world = Arc::new(World::start(&args, seed).await?);
    let meter = Arc::new(Meter::new());
    let show = Show::new(&args, json, verbose, &world, seed);
    world.connect().await?;
    let served = Served::start(listener, &world)?;
    show.say(&served.lines());

    let naive = args.compare_naive.then(|| Naive::start(world.pairs.len(), world.life, seed));
    let mut naive = naive.transpose()?;

    let (load, started) = (Load::start(&world, &meter, seed), Moment::now());
    show.until_over(&world, &meter, naive.as_ref(), started, interrupted).await;
    let (elapsed, reads) = (started.elapsed(), meter.reads());
    show.say("no more faults: waiting for what is under way");
    tokio::join!(load.stop(), async {
        if let Some(naive) = &mut naive {
            naive.stop().await;
        }
    });
    world.calm();
    verdict::quiet_down(&world, &meter, QUIET_WITHIN).await;
    let server = served.url();
    served.stop().await?;
    let findings = verdict::find(&world, &meter).await;

    let summary = Summary::new(&args, seed, &world, &meter, elapsed, reads, findings);
    let summary = Summary { server, naive: naive.as_ref().map(Compared::new), ..summary };
    show.summary(&summary)?;
    Ok(if summary.passed() { Exit::Done } else { Exit::Failed })
}

fn sqlite_path(url: &str) -> Result<PathBuf, String> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        None | Some("" | ":memory:") => Err("write sqlite://PATH, such as sqlite://demo.db".to_owned()),
        Some(path) => Ok(path.into()),
    }
}
