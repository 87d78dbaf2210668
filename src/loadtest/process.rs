//! The load in this process: the world, the readers and the verdict of the demo.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    args::{FaultMix, LoadtestArgs},
    outcome::{LoadParameters, LoadResult, Losses},
    series::Recorder,
};
use crate::{
    CliFailure,
    cli::time::to_the_second,
    demo::{
        QUIET_WITHIN,
        load::{Load, LoadPlan, count_injected_panics},
        meter::DemoMeter,
        progress::{LiveProgress, ProgressText},
        time::Moment,
        verdict::{self, duplicate_spends, faults},
        words::{grouped, listed, per_second},
        world::{World, WorldPlan},
    },
};

pub(super) async fn measure(
    args: &LoadtestArgs,
    json: bool,
    verbose: bool,
    interrupted: watch::Receiver<bool>,
) -> Result<LoadResult, CliFailure> {
    count_injected_panics();
    let seed = args.seed.unwrap_or_else(|| getrandom::u32().map_or(1, u64::from));
    let faulty = args.faults == FaultMix::Some;
    let lifetime = Duration::from_secs(args.lifetime);
    let world =
        Arc::new(World::start(WorldPlan { pairs: args.pairs, lifetime, faults: faulty, db: None }, seed).await?);
    let meter = Arc::new(DemoMeter::new());
    let progress = LiveProgress::new(json, verbose, Some(args.seconds));
    progress.say(&world.head());
    progress.say(&format!("connecting {} grants", grouped(u64::from(args.pairs))));
    world.connect().await?;

    let recorder = Recorder::start(meter.clone(), args.seconds, true, {
        let world = world.clone();
        move || world.requests()
    });
    let before = world.requests();
    let load = Load::start(&world, &meter, LoadPlan { readers: args.readers, panics: faulty, seed });
    let started = Moment::now();
    let text = || {
        let reads = per_second(meter.reads() as f64, started.elapsed());
        let (pairs, requests) = (grouped(u64::from(args.pairs)), grouped(world.requests()));
        let detail = if faulty { listed(&faults(&world)).join("  ") } else { String::new() };
        ProgressText { line: format!("{pairs} pairs  {requests} requests  reads {reads}"), detail, below: None }
    };
    let early = progress.until_over(started, interrupted, text).await;
    let (elapsed, reads, refreshes) = (started.elapsed(), meter.reads(), world.requests() - before);
    let samples = recorder.stop().await;
    let times = meter.times();
    progress.say("stopping: waiting for requests in flight");
    load.stop().await;
    world.calm();
    verdict::quiet_down(&world, &meter, QUIET_WITHIN).await;
    let findings = verdict::find(&world, &meter).await;

    let losses = Losses {
        duplicate_spends: duplicate_spends(&world.idps),
        lost_rotations: findings.lost_rotations,
        unjudged: findings.unjudged,
    };
    let parameters = LoadParameters {
        target: "this process, with simulated identity providers".to_owned(),
        started_at: to_the_second(started.wall()),
        pairs: u64::from(args.pairs),
        readers: args.readers,
        seconds: args.seconds,
        lifetime_seconds: Some(args.lifetime),
        seed: Some(seed),
    };
    let mut result = LoadResult::new(parameters, elapsed, early, reads, refreshes, &times, samples);
    result.faults = faults(&world);
    result.add_errors(&meter);
    result.losses = Some(losses);
    Ok(result)
}
