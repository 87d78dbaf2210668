//! Random histories of callers, people, faults and deaths, through the real supervisor, store, journal and provider.
//!
//! A seed replays its history. A failing one is shortened to the steps that matter before it is printed. The
//! number of histories is bounded here; `TOKEN_SUPERVISOR_TEST_HISTORIES=100000` runs more, and
//! `TOKEN_SUPERVISOR_TEST_SEED=7` starts at another seed.
//!
//! To read: `story` (what can happen), `stage` (how it is done), `plot` (what is known of it), `judge` (what must hold after each step), `rest`
//! (what must hold in the end).

mod judge;
mod plot;
mod rest;
mod setting;
mod stage;
mod story;

use self::{
    plot::Plot,
    setting::{SETTINGS, Setting},
    stage::Stage,
    story::{Step, story},
};

/// How many histories run unless told otherwise.
const HISTORIES: u64 = 360;
/// A provider and a store serve this many histories, one user each.
const HISTORIES_PER_WORLD: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_history_loses_or_spends_twice() {
    let first = number("TOKEN_SUPERVISOR_TEST_SEED", 0);
    let end = first + number("TOKEN_SUPERVISOR_TEST_HISTORIES", HISTORIES);
    let mut stage: Option<Stage> = None;
    for seed in first..end {
        let setting = setting_of(seed);
        let mut now = match stage.take() {
            Some(stage) if !seed.is_multiple_of(HISTORIES_PER_WORLD) => stage,
            _ => Stage::new(setting).await,
        };
        if let Err(what) = play(&mut now, seed, &story(seed)).await {
            drop(now);
            shorten(seed, what).await;
        }
        stage = Some(now);
    }
}

async fn play(stage: &mut Stage, seed: u64, steps: &[Step]) -> Result<(), String> {
    let mut plot = stage.begin(seed).await?;
    let played = act(stage, &mut plot, steps).await;
    let deeds = || plot.deeds.iter().map(|deed| format!("\n    {deed:?}")).collect::<String>();
    played.map_err(|what| format!("{what}; what people did:{}", deeds()))
}

async fn act(stage: &mut Stage, plot: &mut Plot, steps: &[Step]) -> Result<(), String> {
    for step in steps {
        stage.carry_out(plot, step).await;
        judge::look(stage, plot).await?;
    }
    rest::come_to_rest(stage, plot).await?;
    rest::leave(stage, plot).await
}

/// Leaves out what does not matter, and fails with what is left. What was found at first is printed before: a finding that
/// depends on the machine's threads may be gone with the next try.
async fn shorten(seed: u64, mut what: String) -> ! {
    eprintln!("seed {seed}: {what}");
    let setting = setting_of(seed);
    let mut steps = story(seed);
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        match play(&mut Stage::new(setting).await, seed, &fewer).await {
            Err(again) => (steps, what) = (fewer, again),
            Ok(()) => at += 1,
        }
    }
    let steps: String = steps.iter().map(|step| format!("\n    {step:?}")).collect();
    panic!("seed {seed}, {}: {what}\nafter{steps}", setting.name);
}

fn setting_of(seed: u64) -> &'static Setting {
    &SETTINGS[(seed / HISTORIES_PER_WORLD) as usize % SETTINGS.len()]
}

#[expect(clippy::disallowed_methods, reason = "how a person asks for a longer run")]
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
