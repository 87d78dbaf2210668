//! `demo`: runs the supervisor under load against simulated identity providers that misbehave, and proves that no token
//! was lost.
//!
//! Read [`world`] (the providers, the grants and the faults), [`load`] (readers and panics), [`verdict`] (what the
//! providers' ledgers say about the tokens that are stored in the end) and [`show`] (progress and result). [`served`]
//! is the HTTP API over the same grants; [`naive`] is a typical hand-written client, for comparison. `loadtest` uses the
//! same world, load, meter and verdict.
//!
//! Invariant: the simulators' ledgers judge, never the supervisor's own view.

mod args;
pub(crate) mod load;
pub(crate) mod meter;
mod naive;
pub(crate) mod progress;
mod served;
mod show;
pub(crate) mod time;
pub(crate) mod verdict;
pub(crate) mod words;
pub(crate) mod world;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

pub(crate) use self::args::DemoArgs;
use self::{
    load::{Load, LoadPlan},
    meter::DemoMeter,
    naive::Naive,
    served::Served,
    show::Show,
    time::Moment,
    verdict::{Compared, Summary},
    world::World,
};
use crate::{CliFailure, Exit, cli::signals::ending_early};

/// Number of readers: too few to keep the CPU from the supervisor, even on a slow machine or in a debug build.
const READERS: u64 = 16;

/// How long requests in flight may take to finish once faults have stopped.
pub(crate) const QUIET_WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: DemoArgs, json: bool, verbose: bool) -> Result<Exit, CliFailure> {
    load::count_injected_panics();
    ending_early(|interrupted| show_all(args, json, verbose, interrupted)).await
}

async fn show_all(
    args: DemoArgs,
    json: bool,
    verbose: bool,
    interrupted: watch::Receiver<bool>,
) -> Result<Exit, CliFailure> {
    let seed = args.seed.unwrap_or_else(|| getrandom::u32().map_or(1, u64::from));
    let listener = served::listen(args.port)?;
    let world = Arc::new(World::start(args.plan(), seed).await?);
    let meter = Arc::new(DemoMeter::new());
    let show = Show::new(&args, json, verbose, &world, seed);
    world.connect().await?;
    let served = Served::start(listener, &world)?;
    show.say(&served.lines());

    let naive = args.compare_naive.then(|| Naive::start(world.pairs.len(), world.lifetime, seed));
    let mut naive = naive.transpose()?;

    let (load, started) =
        (Load::start(&world, &meter, LoadPlan { readers: READERS, panics: true, seed }), Moment::now());
    show.until_over(&world, &meter, naive.as_ref(), started, interrupted).await;
    let (elapsed, reads) = (started.elapsed(), meter.reads());
    show.say("stopping: waiting for requests in flight");
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
