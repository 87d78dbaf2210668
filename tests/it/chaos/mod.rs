//! Three server processes (`token-supervisor serve`) on one PostgreSQL, each with a journal of its own, and providers of each
//! kind. A seeded plan kills, freezes and terminates the servers, restarts and crashes PostgreSQL, loses its acknowledgements on
//! the network, and lets operators disconnect, connect, hold and release grants, while applications read tokens over HTTP.
//!
//! It ends with a quiet time. Then every grant is fresh, no refresh token was sent while the response to its first use could
//! still come, no expired token was handed out, and every request was answered. A refresh token that a provider gave and that
//! nobody has is a loss; each is explained by the provider's own log, by one of the [`Reason`](judge::Reason)s that no client can
//! remove.
//!
//! Time is real: killed processes cannot share a clock.
//!
//! To read: `judge` (the rules), `plan` (what goes wrong), then `replica`, `database`, `readers`, `users` (the parts), and
//! `paused_holder`, a test of its own.

mod account;
mod database;
mod http;
mod judge;
mod paused_holder;
mod plan;
mod providers;
mod readers;
mod replica;
mod report;
mod users;
mod world;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;

use self::{providers::Providers, world::World};
use crate::{dice::Dice, postgres::server::Server, skip};

/// How long things go wrong, in minutes (0.5).
const MINUTES: &str = "TOKEN_SUPERVISOR_TEST_CHAOS_MINUTES";
/// A number: the same plan, as far as threads and processes allow it.
const SEED: &str = "TOKEN_SUPERVISOR_TEST_SEED";

const REPLICAS: usize = 3;
const GRANTS_AT_EACH_PROVIDER: usize = 20;

/// The longest statement of the store must be shorter.
const SETTLE: Duration = Duration::from_secs(5);
const SEND_WINDOW: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_secs(2);

/// How long the end of the plan may take to become quiet: doubts settle, users consent, and everything is refreshed once more.
const QUIET_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_replicas_lose_nothing_whoever_dies() {
    let Some(server) = own_server() else { return };
    let minutes: f64 = skip::variable(MINUTES).map_or(0.5, |minutes| minutes.parse().expect("minutes, a number"));
    let seed = skip::variable(SEED).map_or(1, |seed| seed.parse().expect("the seed, a number"));
    println!("chaos: seed {seed}, {minutes} minutes");
    let mut dice = Dice(seed);
    let world = World::new(server, Providers::start(), GRANTS_AT_EACH_PROVIDER, dice.next()).await;
    let world = Arc::new(world);
    let mut replicas = world.start_all().await;
    let users = tokio::spawn(users::live(world.clone()));
    users::connect_all(&world).await;
    let readers: Vec<_> = readers::start(&world, &mut dice);

    world.providers.slow_down(&mut dice);
    let mut troubles = vec![
        tokio::spawn(plan::trouble_the_database(world.clone(), Dice(dice.next()))),
        tokio::spawn(plan::trouble_the_network(world.clone(), Dice(dice.next()))),
        tokio::spawn(plan::operate(world.clone(), Dice(dice.next()))),
    ];
    troubles.extend(replicas.drain(..).zip(&world.replicas).map(|(process, replica)| {
        tokio::spawn(plan::trouble_a_replica(world.clone(), replica.clone(), process, Dice(dice.next())))
    }));
    world.trouble_for(Duration::from_secs_f64(minutes * 60.0)).await;
    for ended in join_all(troubles).await {
        ended.unwrap();
    }
    world.providers.speed_up();
    let quiet_since = now();
    println!("quiet after {:?}", world.age());
    world.until_all_is_fresh(QUIET_WITHIN).await;
    println!("fresh after {:?}", quiet_since.elapsed().unwrap_or_default());
    world.end_reading();
    for ended in join_all(readers).await {
        ended.unwrap();
    }
    users.await.unwrap();
    world.stop_all().await;

    let stored = world.stored().await;
    let judged = judge::judge(&world, &stored);
    println!("{}", report::Report { world: &world, judged: &judged, seed });
    world.judge_the_logs(&[0, 1, 2]);
    assert!(judged.violations.is_empty(), "seed {seed}: {:#?}", judged.violations);
    assert!(judged.has_hit(), "nothing went wrong while refreshes were in flight");
}

/// A server of the test's own, which it may stop.
fn own_server() -> Option<Server> {
    let server = Server::start_on_loopback(|_| Vec::new());
    if server.is_none() {
        skip::without("postgres", "PostgreSQL's programs (postgres, initdb) are not installed");
    }
    server
}

/// Processes, providers and the test share the wall clock.
#[expect(clippy::disallowed_methods, reason = "processes are killed in real time")]
fn now() -> SystemTime {
    SystemTime::now()
}

async fn pass(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>()).await.ok();
}
