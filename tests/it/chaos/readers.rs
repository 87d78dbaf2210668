//! Applications: they read tokens of all replicas, and report each new one as rejected, so that there is always a refresh to do.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use token_supervisor::AccessToken;
use tokio::task::JoinHandle;

use super::{
    http::{Asked, TOO_SLOW},
    pass,
    world::World,
};
use crate::dice::Dice;

/// How long a request for a token that is valid may take on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// For each grant.
const READERS: usize = 2;

pub(super) fn start(world: &Arc<World>, dice: &mut Dice) -> Vec<JoinHandle<()>> {
    let all = (0..world.accounts.len()).flat_map(|grant| std::iter::repeat_n(grant, READERS));
    all.map(|grant| tokio::spawn(read(world.clone(), grant, Dice(dice.next())))).collect()
}

async fn read(world: Arc<World>, grant: usize, mut dice: Dice) {
    let account = &world.accounts[grant];
    let token = format!("{}/token?timeout=5", account.path());
    let mut reported = 0;
    while world.is_read() {
        pass(Duration::from_millis(200) + dice.duration(Duration::from_millis(500))).await;
        let replica = dice.up_to(world.replicas.len() as u64) as usize;
        if account.avoids(replica) {
            continue;
        }
        let Some(asked) = world.ask(replica, Method::GET, &token, None).await else { continue };
        let Ok(answer) = &asked.answer else { continue };
        match asked.code() {
            None => {
                let generation = answer["generation"].as_u64().unwrap();
                account.seen(generation, answer["warning"] == "reconnect_required");
                judge_the_token(&world, grant, &asked);
                if generation > reported {
                    reported = generation;
                    let report = Some(json!({ "generation": generation }));
                    world.ask(replica, Method::POST, &format!("{}/rejected", account.path()), report).await;
                }
            }
            Some("reconnect_required") => {
                account.refused(answer);
                account.avoid(replica);
            }
            Some("not_connected") if account.was_gone(asked.at) => account.avoid(replica),
            Some("busy" | "unavailable" | "timeout" | TOO_SLOW) => {}
            Some(_) => world.violates(format!("{} of replica {replica}: {answer}", asked.verb)),
        }
    }
}

/// A token that is handed out is valid when it is: by what the program says, and by the provider.
fn judge_the_token(world: &World, grant: usize, asked: &Asked) {
    let Ok(answer) = &asked.answer else { return };
    let provider = &world.providers.0[world.accounts[grant].provider];
    // A replica that was frozen meanwhile has answered after that, unless it stood still just before it sent the response.
    let life = &world.replicas[asked.replica].lives()[asked.life];
    let thawed = life.thawed(asked.at, asked.done).filter(|(stopped, _)| *stopped > asked.at + ANSWERS_WITHIN);
    let valid_at = thawed.map(|(_, went_on)| went_on).max().unwrap_or(asked.at);
    let says = answer["expires_at"].as_str().unwrap().parse::<Timestamp>().map(SystemTime::from).unwrap();
    let token = AccessToken::from(answer["access_token"].as_str().unwrap());
    let died = provider.sim.access_died_at(&token);
    let tell = |what: &str| {
        format!(
            "{what}: {} of replica {}, asked at {:?}, answered at {:?}, expires at {says:?}, died at {died:?}, frozen {:?}",
            asked.verb, asked.replica, asked.at, asked.done, life.frozen
        )
    };
    if says <= valid_at {
        world.violates(tell("an expired token is handed out"));
    } else if let Some(died) = died.filter(|died| *died <= valid_at) {
        // Its whole family may have ended, which only the provider knows.
        world.suspects(provider.name, died, tell("a dead token is handed out"));
    }
}
