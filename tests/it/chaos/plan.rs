//! What goes wrong, and when. Each part has dice of its own.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::json;

use super::{
    LEASE, PATIENCE, SEND_WINDOW, SETTLE,
    account::Why,
    pass,
    replica::{Process, Replica},
    users::{connect, disconnect, until_answered},
    world::World,
};
use crate::dice::Dice;

/// The replica dies, stands still and is replaced, again and again. It runs when this ends.
pub(super) async fn trouble_a_replica(world: Arc<World>, replica: Arc<Replica>, mut process: Process, mut dice: Dice) {
    loop {
        let runs = Duration::from_millis(500) + dice.duration(Duration::from_secs(3));
        if world.quiet_within(runs).await {
            world.keep(replica.number, process);
            return;
        }
        world.until_in_flight(replica.number, 1 + dice.up_to(4) as usize).await;
        process = match dice.up_to(12) {
            0..=3 => {
                world.count("kills");
                replica.kill(process);
                pass(dice.duration(Duration::from_secs(3))).await;
                replica.start().await
            }
            4 => {
                world.count("kills");
                replica.kill(process);
                let starting = replica.spawn();
                pass(dice.duration(Duration::from_millis(700))).await;
                world.count("kills while starting");
                replica.kill_starting(starting);
                replica.start().await
            }
            5..=6 => {
                world.count("terminations");
                replica.terminate(process).await;
                pass(dice.duration(Duration::from_secs(2))).await;
                replica.start().await
            }
            7..=8 => {
                world.count("freezes past the lease");
                replica.freeze(&process);
                pass(LEASE + dice.duration(2 * LEASE)).await;
                replica.thaw(&process);
                process
            }
            9 => {
                // Where there is a grace, another replica takes over.
                world.count("freezes past a takeover");
                replica.freeze(&process);
                pass(SEND_WINDOW + PATIENCE + SETTLE + dice.duration(Duration::from_secs(3))).await;
                replica.thaw(&process);
                process
            }
            _ => {
                world.count("kills of a frozen replica");
                replica.freeze(&process);
                pass(dice.duration(2 * LEASE)).await;
                replica.kill(process);
                pass(dice.duration(Duration::from_secs(2))).await;
                replica.start().await
            }
        };
    }
}

/// The database is restarted, and crashes.
pub(super) async fn trouble_the_database(world: Arc<World>, mut dice: Dice) {
    loop {
        if world.quiet_within(Duration::from_secs(4) + dice.duration(Duration::from_secs(10))).await {
            return;
        }
        let (crash, away) = (dice.up_to(2) == 0, dice.duration(Duration::from_millis(1_500)));
        world.count(if crash { "crashes of the database" } else { "restarts of the database" });
        let server = world.server.clone();
        let ended = tokio::task::spawn_blocking(move || if crash { server.crash() } else { server.stop() });
        ended.await.unwrap();
        pass(away).await;
        let server = world.server.clone();
        tokio::task::spawn_blocking(move || server.run()).await.unwrap();
    }
}

/// Between a replica and the database, replies are lost, wait, or all connections end. Nothing is wrong when this ends.
pub(super) async fn trouble_the_network(world: Arc<World>, mut dice: Dice) {
    loop {
        if world.quiet_within(Duration::from_millis(500) + dice.duration(Duration::from_secs(3))).await {
            return;
        }
        let proxy = &world.proxies[dice.up_to(world.proxies.len() as u64) as usize];
        match dice.up_to(5) {
            0..=2 => {
                world.count("times of lost acknowledgements");
                proxy.lose(50 + dice.up_to(350));
                pass(Duration::from_millis(500) + dice.duration(Duration::from_secs(2))).await;
                proxy.lose(0);
            }
            3 => {
                world.count("stalls of the network");
                proxy.stall(true);
                pass(dice.duration(Duration::from_secs(6))).await;
                proxy.stall(false);
            }
            _ => {
                world.count("cuts of the network");
                proxy.cut();
            }
        }
    }
}

/// Operators disconnect grants and connect them again, and hold and release them.
pub(super) async fn operate(world: Arc<World>, mut dice: Dice) {
    loop {
        if world.quiet_within(Duration::from_millis(300) + dice.duration(Duration::from_secs(3))).await {
            return;
        }
        let account = &world.accounts[dice.up_to(world.accounts.len() as u64) as usize];
        let _changing = account.changing.lock().await;
        if dice.up_to(3) > 0 {
            world.count("disconnects");
            disconnect(&world, account).await;
            pass(dice.duration(Duration::from_secs(1))).await;
            connect(&world, account, Why::Disconnected).await;
        } else {
            world.count("holds");
            let path = account.path();
            until_answered(&world, Method::POST, &format!("{path}/hold"), Some(json!({ "reason": "chaos" }))).await;
            pass(dice.duration(Duration::from_secs(5))).await;
            until_answered(&world, Method::POST, &format!("{path}/release"), None).await;
        }
    }
}
