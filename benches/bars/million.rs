//! A million stored grants: the memory of live ones, the start, those that come due, and those that cannot be refreshed.

use std::{path::Path, process::Command, time::Duration};

use futures_util::stream::{self, StreamExt};
use token_supervisor::{Keyring, TokenSupervisor, presets, testing::Fault};

use crate::{
    Size, Stage, builder,
    harness::{at_most, figure, median, now, pause, resident, time_without_provider, wall, within},
    key,
    schedule::{Schedule, first_refreshes},
};

pub(crate) async fn run(size: Size) {
    let mut stage = Stage::new().await;
    fill(&stage, size).await;
    stage.restart().await;
    come_due(&stage, size).await;
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
    start(&stage, &format!("start with {} stored, first token", size.stored)).await;
    memory(&stage, size).await;
    drop(stage);

    let mut stage = Stage::new().await;
    stage.connect(1).await;
    stage.supervisor.hold_idp("idp", "a bench").await.expect("a hold");
    stage.connect_as(1..size.stored, |_, grant| grant.expires_in(Duration::from_secs(1))).await;
    stage.restart().await;
    idle(&stage, &format!("{} due at a provider on hold", size.stored), size).await;
    stage.supervisor.release_idp("idp").await.expect("a release");
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
    start(&stage, "the same, all overdue").await;
    stage.sim.always(Some(Fault::error(401, "invalid_client")));
    stage.restart().await;
    idle(&stage, &format!("{} due at a paused provider", size.stored), size).await;
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Connects the grants so that they come due evenly over an hour, which begins about when this is done.
async fn fill(stage: &Stage, size: Size) {
    // The first ones are always valid, and show how long the others will take.
    let first = size.stored / 20;
    let started = now();
    stage.connect_as(0..first, |_, grant| grant).await;
    let rest = started.elapsed().mul_f64(1.3 * (size.stored - first) as f64 / first as f64);
    let begin = now() + rest;
    let change = |number: usize, grant: token_supervisor::Grant| {
        let due = begin + HOUR.mul_f64((number - first) as f64 / (size.stored - first) as f64);
        let due_in = due.saturating_duration_since(now()).max(Duration::from_secs(1));
        // The margin is 5 minutes, or a quarter of the lifetime.
        let margin = (due_in / 3).min(Duration::from_secs(300));
        grant.expires_in(due_in + margin)
    };
    stage.connect_as(first..size.stored, change).await;
    pause(begin.saturating_duration_since(now())).await;
}

/// Measures how late the refreshes of cold grants start, and what they cost.
async fn come_due(stage: &Stage, size: Size) {
    let schedule = Schedule::read(stage.folder.path());
    // The sweeper has worked off what came due while there was no supervisor.
    pause(size.load / 2).await;
    let (from, started, used) = (wall(), now(), time_without_provider());
    pause(2 * size.load).await;
    let (until, took, used) = (wall(), started.elapsed(), time_without_provider() - used);
    let refreshed = first_refreshes(&stage.sim);
    let due = schedule.0.iter().filter(|(_, times)| times.due >= from && times.due < until);
    let lags: Vec<_> = due
        .map(|(user, times)| {
            let refreshed = refreshed.get(user).map_or(until, |refreshed| refreshed.from);
            refreshed.duration_since(times.due).unwrap_or_default()
        })
        .collect();
    let rate = lags.len() as f64 / took.as_secs_f64();
    let latest = lags.iter().max().copied().unwrap_or_default();
    within(&format!("{} of an hour, {rate:.0}/s due: due lag", size.stored), latest, Duration::from_secs(1));
    at_most("  cores, without the provider", used.as_secs_f64() / took.as_secs_f64(), 0.1, "");
}

/// Measures the CPU time while nothing can be refreshed.
async fn idle(stage: &Stage, what: &str, size: Size) {
    // First the cause of a pause must be met.
    pause(size.load / 2).await;
    let idp = &stage.supervisor.idps()[0];
    assert!(idp.held.is_some() || idp.paused.is_some(), "the provider is closed");
    let (started, used) = (now(), time_without_provider());
    pause(size.load).await;
    let used = (time_without_provider() - used).as_secs_f64();
    at_most(&format!("{what}: cores"), used / started.elapsed().as_secs_f64(), 0.02, "");
}

/// Measures the time until the first token.
async fn start(stage: &Stage, what: &str) {
    let mut took = Vec::new();
    for _ in 0..5 {
        let started = now();
        let supervisor = builder(&stage.folder, &stage.keyring, stage.sim.idp()).start().await.expect("a supervisor");
        supervisor.token(&key(0)).await.expect("a token");
        took.push(started.elapsed());
        supervisor.shutdown(Duration::from_secs(60)).await;
    }
    within(what, median(took), Duration::from_millis(100));
}

/// Measures in processes of their own, whose heap nothing else has used: see [`live`].
async fn memory(stage: &Stage, size: Size) {
    let small = Stage::new().await;
    small.connect(1).await;
    small.supervisor.shutdown(Duration::from_secs(10)).await;
    let ([few, _], [stored, live]) = (measured(&small, 1), measured(stage, size.stored));
    let each = |bytes: usize| bytes as f64 / size.stored as f64;
    at_most("memory of a live pair, its tokens included", each(live.saturating_sub(stored)).round(), 512.0, "B");
    let limit = 600.0 * size.stored as f64 / 1e6;
    at_most(&format!("  resident with {} live pairs", size.stored), (live as f64 / 1e6).round(), limit, "MB");
    figure("memory of a stored pair", &format!("{:.1} B", each(stored.saturating_sub(few))), "nothing");
}

fn measured(stage: &Stage, count: usize) -> [usize; 2] {
    let folder = stage.folder.path();
    stage.keyring.write_new(folder.join("keys")).expect("a key file");
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    let child = child.arg("--live").arg(folder).arg(count.to_string()).arg(stage.sim.token_url()).output();
    let child = child.expect("a child process");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let printed = String::from_utf8_lossy(&child.stdout).into_owned();
    let figures: Vec<_> = printed.split_whitespace().map(|figure| figure.parse().expect("a number")).collect();
    figures.try_into().expect("two figures")
}

/// Reads every token once in a child process; prints the resident memory after the first one, and after the last.
pub(crate) async fn live(folder: &Path, count: usize, token_url: &str) {
    let keyring = Keyring::from_file(folder.join("keys")).expect("a key ring");
    let idp = presets::bitbucket("simulated-client", "ts-test-secret-client").token_url(token_url);
    let url = format!("sqlite://{}", folder.join("tokens.db").display());
    let supervisor = TokenSupervisor::builder().store(url).keyring(keyring).idp("idp", idp).start().await;
    let supervisor = supervisor.expect("a supervisor");
    let read = |number| {
        let supervisor = &supervisor;
        async move { drop(supervisor.token(&key(number)).await.expect("a token")) }
    };
    read(0).await;
    let stored = resident();
    stream::iter(1..count).map(read).buffer_unordered(64).collect::<()>().await;
    println!("{stored} {}", resident());
    supervisor.shutdown(Duration::from_secs(60)).await;
}
