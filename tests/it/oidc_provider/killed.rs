//! Whatever moment a server is killed at: an answer that was on its way is lost with it, at a provider as strict as this
//! one; one that arrived is not, and nothing that was delivered is ever spent again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;

use super::{
    provider::{Event, LIFE, Provider, digest},
    served::installed,
};
use crate::{
    installed::Installed,
    real_time::{now, pass},
};

const USERS: usize = 12;
const KILLS: usize = 8;
/// How long answers are on their way: with so many users, one of them is at most times.
const DELAY: Duration = Duration::from_millis(150);
/// What a server that is killed may say, and the next one until it has settled what is in doubt.
const PASSES: [&str; 3] = ["gone", "unavailable", "timeout"];
/// For how long a busy machine may hold something up (ms).
const BUSY: u64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_spends_nothing_twice_that_was_delivered() {
    let Some(provider) = Provider::start_slow(DELAY).await else { return };
    let installed = Arc::new(installed(&provider, &[("[refresh]", "[refresh]\nsettle_seconds = 0.5")]));
    let (provider, over) = (Arc::new(provider), Arc::new(AtomicBool::new(false)));
    let mut server = installed.serve();
    let users = (0..USERS).map(|number| format!("user-{number}"));
    let uses = users.map(|user| tokio::spawn(use_grant(user, installed.clone(), provider.clone(), over.clone())));
    let uses: Vec<_> = uses.collect();
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        // Long enough for a doubt to be settled, or not.
        pass(LIFE / 3 + Duration::from_millis(u64::from(getrandom::u32().unwrap()) % 2_000)).await;
        kills.push(now());
        installed.end(server, "KILL").await;
        server = installed.serve();
    }
    pass(2 * LIFE).await;
    over.store(true, Ordering::SeqCst);
    let used = join_all(uses).await;
    assert_eq!(installed.end(server, "TERM").await.code(), Some(0));
    let (mut spent, mut lost) = (0, 0);
    for (number, handed) in used.into_iter().enumerate() {
        let grant = judged(&provider.story(&format!("user-{number}")), &handed.unwrap(), &kills);
        (spent, lost) = (spent + grant.0, lost + grant.1);
    }
    println!("{KILLS} kills, {spent} refresh tokens spent, {lost} answers lost on their way, each told to its user");
}

/// An application: it reads tokens, and sends its user through consent when it is told to. Digests of the tokens that it
/// was handed.
async fn use_grant(
    user: String,
    installed: Arc<Installed>,
    provider: Arc<Provider>,
    over: Arc<AtomicBool>,
) -> BTreeSet<String> {
    let mut handed = BTreeSet::new();
    loop {
        let last = over.load(Ordering::SeqCst);
        match installed.token(&user).await {
            Ok(token) => {
                handed.insert(digest(&token.access_token));
                if last {
                    return handed;
                }
            }
            Err(code) => {
                assert!(!last, "{user} has no token at the end: {code}");
                if ["not_connected", "reconnect_required"].contains(&&*code) {
                    connect(&user, &installed, &provider).await;
                } else {
                    assert!(PASSES.contains(&&*code), "{user}: {code}");
                }
            }
        }
        pass(Duration::from_millis(50)).await;
    }
}

/// Until it is stored: a repetition changes nothing.
async fn connect(user: &str, installed: &Installed, provider: &Provider) {
    let consent = provider.consent(user).await;
    while let Err(code) = installed.put(user, &consent.0).await {
        assert!(PASSES.contains(&&*code), "{user}: {code}");
        pass(Duration::from_millis(50)).await;
    }
}

/// How many refresh tokens were spent, and how many of the answers were lost on their way when the server was killed.
fn judged(story: &[Event], handed: &BTreeSet<String>, kills: &[u64]) -> (usize, usize) {
    let (mut spent, mut lost) = (0, BTreeSet::new());
    // The newest answer, and when its refresh token was presented last.
    let mut newest: Option<(&Event, u64)> = None;
    for event in story {
        match (event.event.as_str(), newest) {
            ("grant.success", _) if event.presented.is_none() => newest = Some((event, event.at)),
            ("grant.success", Some((answer, _))) if event.presented == answer.issued && !lost.contains(&answer.at) => {
                (newest, spent) = (Some((event, event.at)), spent + 1);
            }
            // It is told by the request that comes next.
            ("grant.revoked", _) => {}
            // The answer was lost on its way. So may be the one that says so.
            ("grant.error", Some((answer, at))) if event.presented == answer.presented => {
                let on_its_way = at.saturating_sub(BUSY)..at + DELAY.as_millis() as u64 + BUSY;
                let killed = kills.iter().any(|kill| on_its_way.contains(kill) && *kill < event.at);
                assert!(killed, "a token is spent again without need: {event:?} after {answer:?}, {kills:?}");
                let delivered = answer.access_token.as_ref().is_some_and(|token| handed.contains(token));
                assert!(!delivered, "an answer that was delivered is lost: {answer:?}, {kills:?}");
                newest = Some((answer, event.at));
                lost.insert(answer.at);
            }
            _ => panic!("{event:?} after {newest:?}, {kills:?}"),
        }
    }
    (spent, lost.len())
}
