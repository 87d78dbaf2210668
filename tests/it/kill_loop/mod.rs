//! The program is killed again and again (`token-supervisor serve`, SIGKILL) while applications ask it by HTTP, each
//! time with at least fifty refreshes in flight, ten at a provider of each kind. Where there is a grace nothing is
//! lost. Elsewhere nothing is lost but what no client can keep, each loss named by the provider's log, and ended by
//! one request and one consent.
//!
//! This is the one place where time is real: a killed process cannot share a clock.
//!
//! To read: `ledger` (the rules), `world` (a life of the process), `process` (the program) and `users` (who asks it),
//! then `providers` and `disk`.

mod disk;
mod ledger;
mod process;
mod providers;
mod report;
mod users;
mod world;

use std::time::{Duration, Instant};

use crate::skip::{variable, without};
use disk::Disk;
use process::SETTLE;
use world::World;

/// How often the process is killed (12).
const KILLS: &str = "TOKEN_SUPERVISOR_TEST_KILLS";
/// A number: the same faults in the same order, as far as threads allow it.
const SEED: &str = "TOKEN_SUPERVISOR_TEST_SEED";

/// Refreshes that are in flight when the process is killed, at least.
const IN_FLIGHT: usize = 50;
const IN_FLIGHT_AT_EACH: usize = 10;
/// Providers that take a refresh token more than once.
const THAT_REFUSE_NOTHING: usize = 3;

#[test]
fn a_process_killed_again_and_again_loses_nothing() {
    let (kills, mut world) = (kills(12), World::new(seed(), Disk::new()));
    for kill in 0..kills {
        if world.dice.up_to(8) == 0 {
            // Starting is a step like any other.
            let mut process = world.start_hastily();
            world.pass_some(&mut process, SETTLE + SETTLE);
            world.kill_early(process);
        }
        let mut process = world.start();
        world.until_in_flight(&mut process, IN_FLIGHT, IN_FLIGHT_AT_EACH);
        match kill % 4 {
            // While requests are unprocessed, processed and unanswered, or being answered.
            0 => world.pass_some(&mut process, Duration::from_millis(20)),
            // While answers come in and are stored.
            1 => {
                world.providers.answer_everything();
                world.pass_some(&mut process, Duration::from_millis(10));
            }
            // While the store is silent: answers are in memory, then in the journal.
            2 => {
                world.disk.silence_the_store();
                world.providers.answer_everything();
                world.pass_some(&mut process, Duration::from_millis(450));
            }
            // While the journal goes to the store.
            _ => {
                world.disk.silence_the_store();
                world.providers.answer_everything();
                world.until_journaled(&mut process, 10);
                world.disk.end_silence();
                world.pass_some(&mut process, Duration::from_millis(150));
            }
        }
        world.kill(process);
        if (kill + 1) % 50 == 0 {
            println!("{}", world.report());
        }
    }
    let process = world.start();
    world.live_on_and_stop(process);
    println!("{}", world.report());
    world.judge_the_end();
}

#[test]
fn a_disk_that_is_full_now_and_then_loses_nothing() {
    let Some(disk) = Disk::small() else { return without("mount", "no small disk can be mounted here") };
    let (kills, mut world) = (kills(8), World::new(seed(), disk));
    for kill in 0..kills {
        let mut process = world.start();
        world.until_in_flight(&mut process, IN_FLIGHT, IN_FLIGHT_AT_EACH);
        world.disk.fill();
        // Its log may have space from before.
        world.disk.silence_the_store();
        world.providers.answer_everything();
        // Of the others, some may be refused: a process that died had spent the token.
        world.until_journaled(&mut process, THAT_REFUSE_NOTHING * IN_FLIGHT_AT_EACH);
        world.disk.end_silence();
        match kill % 4 {
            0 => {}
            1 => world.pass_some(&mut process, Duration::from_millis(450)),
            // While the journal goes to the store, and the next refreshes start.
            2 => {
                world.disk.free();
                world.pass_some(&mut process, Duration::from_millis(150));
            }
            _ => {
                for _ in 0..4 {
                    world.disk.free();
                    world.pass_some(&mut process, Duration::from_millis(100));
                    world.disk.fill();
                    world.pass_some(&mut process, Duration::from_millis(100));
                }
            }
        }
        world.kill(process);
    }
    let process = world.start();
    world.live_on_and_stop(process);
    println!("{}", world.report());
    world.judge_the_end();
}

fn kills(otherwise: usize) -> usize {
    variable(KILLS).map_or(otherwise, |kills| kills.parse().expect("the number of kills"))
}

fn seed() -> u64 {
    variable(SEED).map_or(1, |seed| seed.parse().expect("the seed, a number"))
}

/// How often it is looked whether something happened.
const POLL: Duration = Duration::from_millis(1);
/// It only bounds how long a broken test takes.
const LIMIT: Duration = Duration::from_secs(30);

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(POLL);
    }
}

#[expect(clippy::disallowed_methods, reason = "processes are killed in real time")]
fn now() -> Instant {
    Instant::now()
}
