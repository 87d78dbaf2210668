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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_spends_nothing_twice_that_was_delivered() {
    let Some(provider) = Provider::start_slow(DELAY).await else { return };
    let installed = Arc::new(installed(&provider, &[("[refresh]", "[refresh]\nsettle_seconds = 0.5")]));
    let (provider, over) = (Arc::new(provider), Arc::new(AtomicBool::new(false)));
    let mut server = installed.serve();
    let users: Vec<_> = (0..USERS).map(|number| format!("user-{number}")).collect();
    let user = |user: &String| use_grant(user.clone(), installed.clone(), provider.clone(), over.clone());
    let uses: Vec<_> = users.iter().map(|it| tokio::spawn(user(it))).collect();
    let mut kills = vec![Vec::new(); USERS];
    for _ in 0..KILLS {
        // Long enough for a doubt to be settled, or not.
        pass(LIFE / 3 + Duration::from_millis(u64::from(getrandom::u32().unwrap()) % 2_000)).await;
        let at = now();
        installed.end(server, "KILL").await;
        for (kills, left) in kills.iter_mut().zip(installed.left(&users).await) {
            kills.push(Kill { at, left: left.iter().map(|token| digest(token.expose_secret())).collect() });
        }
        server = installed.serve();
    }
    pass(2 * LIFE).await;
    over.store(true, Ordering::SeqCst);
    let used = join_all(uses).await;
    assert_eq!(installed.end(server, "TERM").await.code(), Some(0));
    let (mut spent, mut lost) = (0, 0);
    for ((user, handed), kills) in users.iter().zip(used).zip(&kills) {
        let grant = judged(&provider.story(user), &handed.unwrap(), kills);
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

/// A kill, by one grant.
#[derive(Clone, Debug)]
struct Kill {
    /// When the server still lived (ms since 1970).
    at: u64,
    /// Digests of the refresh tokens on its disk.
    left: BTreeSet<String>,
}

impl Kill {
    /// Whether the next server knew the refresh token and not what this answer had given for it.
    fn lost(&self, answer: &Event) -> bool {
        let has = |token: &Option<String>| token.as_ref().is_some_and(|token| self.left.contains(token));
        has(&answer.presented) && !has(&answer.issued)
    }
}

/// How many refresh tokens were spent, and how many of the answers were lost when the server was killed. A server spends
/// a refresh token once, and knows no others than its predecessor left.
fn judged(story: &[Event], handed: &BTreeSet<String>, kills: &[Kill]) -> (usize, usize) {
    let (mut spent, mut lost) = (0, BTreeSet::new());
    // The newest answer, and how often its refresh token was presented.
    let mut newest: Option<(&Event, usize)> = None;
    for event in story {
        match (event.event.as_str(), newest) {
            ("grant.success", _) if event.presented.is_none() => newest = Some((event, 1)),
            ("grant.success", Some((answer, _))) if event.presented == answer.issued && !lost.contains(&answer.at) => {
                (newest, spent) = (Some((event, 1)), spent + 1);
            }
            // It is told by the request that comes next.
            ("grant.revoked", _) => {}
            // The answer was lost on its way. So may be the one that says so.
            ("grant.error", Some((answer, times))) if event.presented == answer.presented => {
                let needs = kills.iter().filter(|kill| kill.at < event.at && kill.lost(answer)).count();
                assert!(times <= needs, "a token is spent again without need: {event:?} after {answer:?}, {kills:?}");
                let delivered = answer.access_token.as_ref().is_some_and(|token| handed.contains(token));
                assert!(!delivered, "an answer that was delivered is lost: {answer:?}, {kills:?}");
                newest = Some((answer, times + 1));
                lost.insert(answer.at);
            }
            _ => panic!("{event:?} after {newest:?}, {kills:?}"),
        }
    }
    (spent, lost.len())
}
