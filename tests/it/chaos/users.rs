//! Users: they consent when they are told to, and operators have them connect again.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    account::{Account, Why},
    http::TOO_SLOW,
    now, pass,
    world::World,
};

/// How long a user takes to consent.
const TAKES: Duration = Duration::from_secs(1);

/// After this time a replica that goes on knows what the others have stored.
const HEARS: Duration = Duration::from_secs(3);

/// How long a user waits who is told that a response may be lost: a replica that was frozen may still bring it.
const WAITS: Duration = Duration::from_secs(15);

/// Looks after those who must consent, until nothing is read any more.
pub(super) async fn live(world: Arc<World>) {
    while world.is_read() {
        pass(Duration::from_millis(200)).await;
        for grant in 0..world.accounts.len() {
            let account = &world.accounts[grant];
            if account.refused_since().is_some_and(|since| now() > since + TAKES) && account.changing.try_lock().is_ok()
            {
                tokio::spawn(consent_if_required(world.clone(), grant));
            }
        }
    }
}

/// Connects every grant.
pub(super) async fn connect_all(world: &Arc<World>) {
    for account in &world.accounts {
        let _changing = account.changing.lock().await;
        connect(world, account, Why::First).await;
    }
}

async fn consent_if_required(world: Arc<World>, grant: usize) {
    let account = &world.accounts[grant];
    let Ok(_changing) = account.changing.try_lock() else { return };
    let Some(since) = account.refused_since() else { return };
    // A replica that was frozen or cut off until now says what was true before.
    let (Some(_), ()) = (required_by_all(&world, account).await, pass(HEARS).await) else {
        return account.is_not_refused();
    };
    let Some(reason) = required_by_all(&world, account).await else { return account.is_not_refused() };
    if reason != "in_doubt" || now() > since + WAITS {
        connect(&world, account, Why::Required(reason)).await;
    }
}

/// Why the user must consent, if all replicas that answer say so.
async fn required_by_all(world: &World, account: &Account) -> Option<String> {
    let mut reason = None;
    for replica in 0..world.replicas.len() {
        let asked = world.ask(replica, Method::GET, &account.path(), None).await;
        let Some(asked) = asked.filter(|asked| asked.code().is_none()) else { continue };
        let Ok(status) = asked.answer else { continue };
        if status["state"] != "reconnect_required" || account.is_outdated(&status) {
            return None;
        }
        reason = status["reason"].as_str().map(str::to_owned);
    }
    reason
}

/// Consents and connects.
pub(super) async fn connect(world: &World, account: &Account, why: Why) {
    let sim = &world.providers.0[account.provider].sim;
    let expires = now() + sim.profile().access_lifetime;
    let mut consent: Value = serde_json::from_slice(&sim.consent_answer(&account.consent(why))).unwrap();
    // However late it is handed in.
    let members = consent.as_object_mut().unwrap();
    members.remove("expires_in");
    members.insert("expires_at".to_owned(), json!(expires.duration_since(UNIX_EPOCH).unwrap().as_secs()));
    account.connected(&until_answered(world, Method::PUT, &account.path(), Some(consent)).await);
}

/// Disconnects, which may be carried out more than once.
pub(super) async fn disconnect(world: &World, account: &Account) {
    account.is_going();
    until_answered(world, Method::DELETE, &account.path(), None).await;
}

/// Longer than a database is away, and all replicas at a time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);

/// Asks one replica after the other until one has done it.
pub(super) async fn until_answered(world: &World, method: Method, path: &str, body: Option<Value>) -> Value {
    let latest = now() + ANSWERED_WITHIN;
    for replica in (0..world.replicas.len()).cycle() {
        assert!(now() < latest, "no replica does it: {method} {path}");
        if let Some(asked) = world.ask(replica, method.clone(), path, body.clone()).await {
            match (asked.code(), &asked.answer) {
                (None, Ok(answer)) => return answer.clone(),
                (Some("busy" | "unavailable" | "timeout" | TOO_SLOW), _) | (_, Err(_)) => {}
                (Some(_), Ok(problem)) => {
                    world.violates(format!("{} of replica {replica}: {problem}", asked.verb));
                    return problem.clone();
                }
            }
        }
        pass(Duration::from_millis(50)).await;
    }
    unreachable!("the replicas are asked without end")
}
