//! Applications hear what happens to their grants: once, without secrets, and without holding anything up.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use actix::{Actor, Context, Handler, ResponseFuture};
use futures_util::future::join_all;
use token_supervisor::{
    Cause, Error, EventKind, Events, Expiry, Filter, Freshness, Grant, Lagged, Revoke, State, TokenEvent, TokenKey,
    TokenSupervisor, VerdictBy, Warning,
    testing::{Fault, Kind, Profile},
};
use tokio::sync::Semaphore;

use super::support::{LIFE, World, eventually, pass, stop, within};

const SETTLE: Duration = Duration::from_secs(31);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

async fn next(events: &mut Events) -> Result<TokenEvent, Lagged> {
    let event = within(events.recv()).await.expect("the supervisor runs");
    assert!(!format!("{event:?}").contains("ts-test-secret"), "{event:?}");
    event
}

async fn kind(events: &mut Events) -> EventKind {
    next(events).await.unwrap().kind
}

/// What was told of grants until the supervisor stopped.
async fn rest(mut events: Events) -> Vec<TokenEvent> {
    let mut rest = Vec::new();
    while let Some(event) = within(events.recv()).await {
        assert!(!format!("{event:?}").contains("ts-test-secret"), "{event:?}");
        rest.push(event.unwrap());
    }
    rest.retain(|event| event.key.is_some());
    rest
}

fn names(events: &[TokenEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

#[tokio::test]
async fn a_refresh_is_told_with_its_generation_and_a_connect_is_not() {
    let world = World::new(Profile::bitbucket());
    let supervisor = world.start().await;
    let (mut events, mut other) = (supervisor.events(), supervisor.events());
    let key = TokenKey::at("idp").user("alice");
    let status = within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE / 2);
    within(supervisor.refresh_now(&key)).await.unwrap();
    let event = next(&mut events).await.unwrap();
    assert!(matches!(event.kind, EventKind::Renewed { generation } if generation.get() == 2), "{event:?}");
    assert_eq!((event.key.as_ref(), event.idp.as_str(), event.at), (Some(&key), "idp", world.clock.now()));
    assert_eq!(event.grant_id, status.grant_id);
    assert_eq!(next(&mut other).await.unwrap(), event, "every listener hears it");
    // Its end is told although the handle is kept.
    stop(supervisor.clone()).await;
    assert_eq!((rest(events).await, rest(supervisor.events()).await), (vec![], vec![]));
}

#[tokio::test]
async fn a_refusal_is_told_with_what_the_provider_said_and_a_connect_ends_it() {
    let world = World::new(Profile::oauth2(Kind::Reject));
    // The simulated provider does not number its answers: another header stands for the one that does.
    let idp = world.sim.idp().correlation_header("cache-control");
    let supervisor = world.bare_builder().idp("idp", idp).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    let mut events = supervisor.events();
    world.sim.end_family("alice");
    within(supervisor.refresh_now(&key)).await.unwrap_err();
    let EventKind::ReconnectRequired { evidence, by } = kind(&mut events).await else { panic!("a verdict") };
    assert_eq!(evidence.to_string(), "invalid_grant (400, request no-store)");
    assert_eq!(by, VerdictBy::Idp);
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, status.evidence), (State::ReconnectRequired, Some(evidence)));
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    assert_eq!(kind(&mut events).await, EventKind::Recovered);
    within(supervisor.require_reconnect(&key, "left")).await.unwrap();
    let told = kind(&mut events).await;
    assert!(
        matches!(&told, EventKind::ReconnectRequired { evidence, by: VerdictBy::Application } if evidence.code == "left")
    );
    within(supervisor.disconnect(&key, Revoke::No)).await.unwrap();
    stop(supervisor).await;
    assert_eq!(rest(events).await, [], "whoever disconnects knows");
}

#[tokio::test]
async fn a_grant_without_a_refresh_token_warns_and_ends_with_its_access_token() {
    let world = World::new(Profile::bitbucket());
    let supervisor = world.start().await;
    let events = supervisor.events();
    let [alice, bob] = ["alice", "bob"].map(|user| TokenKey::at("idp").user(user));
    for key in [&alice, &bob] {
        let grant = Grant::new("ts-test-secret-lone").expires_in(HOUR);
        let status = within(supervisor.connect(key, grant)).await.unwrap();
        assert_eq!((status.state, status.warning), (State::Fresh, Some(Warning::NoRefreshToken)));
    }
    world.clock.advance(HOUR - Duration::from_secs(2));
    let token = within(supervisor.token(&alice)).await.unwrap();
    assert_eq!((token.freshness(), token.warning()), (Freshness::Fresh, None), "there is nothing to do before its end");
    assert_eq!(within(supervisor.status(&alice)).await.unwrap().state, State::Fresh);
    let end = world.clock.now() + Duration::from_secs(2);
    world.clock.advance(Duration::from_secs(2));
    let refused = within(supervisor.token(&alice)).await.unwrap_err();
    assert_eq!(refused, Error::ReconnectRequired { reason: "no_refresh_token".into(), since: end });
    let status = within(supervisor.status(&alice)).await.unwrap();
    assert_eq!((status.state, status.since, status.warning), (State::ReconnectRequired, Some(end), None));
    assert_eq!(status.reason.as_deref(), Some("no_refresh_token"));
    let listed = within(supervisor.list(Filter::new().state(State::ReconnectRequired))).await.unwrap();
    assert_eq!(listed.items.len(), 2, "also the one that nobody has asked for");
    let metrics = within(supervisor.metrics()).await;
    let grants = metrics.iter().find(|metric| metric.name == "grants").unwrap();
    let state = ("state", "reconnect_required".to_owned());
    let counted = grants.samples.iter().find(|sample| sample.labels.contains(&state)).unwrap();
    assert!(counted.value == 2.0, "{counted:?}");
    pass(&world, &supervisor, MINUTE, Duration::from_secs(5)).await;
    within(supervisor.connect(&alice, world.sim.consent("alice"))).await.unwrap();
    assert_eq!(within(supervisor.status(&alice)).await.unwrap().warning, None);
    stop(supervisor).await;
    assert_eq!(world.sim.requests(), 0);
    let told = rest(events).await;
    for (key, expected) in [(&alice, &["reconnect_required", "recovered"][..]), (&bob, &["reconnect_required"])] {
        let its = told.iter().filter(|event| event.key.as_ref() == Some(key)).cloned().collect::<Vec<_>>();
        let its: Vec<_> = names(&its).into_iter().filter(|name| *name != "expiring_soon").collect();
        assert_eq!(its, expected, "{key:?}");
    }
    let by = told.iter().find_map(|event| match &event.kind {
        EventKind::ReconnectRequired { evidence, by } => Some((evidence.code.as_str(), *by)),
        _ => None,
    });
    assert_eq!(by, Some(("no_refresh_token", VerdictBy::Expiry)));
}

#[tokio::test]
async fn a_doubt_is_told_once_however_often_it_is_asked_about() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let (supervisor, key) = world.connected().await;
    let events = supervisor.events();
    world.sim.always(Some(Fault::DropBefore));
    world.clock.advance(LIFE);
    for asked in 1..5 {
        within(supervisor.token(&key)).await.unwrap_err();
        assert_eq!(world.sim.requests(), asked);
        world.clock.advance(SETTLE);
    }
    world.sim.always(None);
    eventually("the last attempt has ended", || supervisor.testing().attempts() == 0).await;
    world.clock.advance(SETTLE);
    within(supervisor.token(&key)).await.unwrap();
    stop(supervisor).await;
    let told = rest(events).await;
    assert_eq!(names(&told), ["in_doubt", "renewed", "recovered"]);
    assert!(matches!(&told[0].kind, EventKind::InDoubt { evidence } if evidence.code == "connection_lost"));
}

#[tokio::test]
async fn long_failure_is_an_alert_told_once_while_it_is_tried_on() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    within(supervisor.watch(&key)).await.unwrap();
    let mut events = supervisor.events();
    world.sim.always(Some(Fault::Status(429, None)));
    world.clock.advance(LIFE);
    within(supervisor.refresh_now(&key)).await.unwrap_err();
    let (began, mut tries) = (world.clock.now(), Vec::new());
    while world.clock.now() < began + HOUR {
        let (next, tried) = (within(next_try(&world, &supervisor, &key)).await, world.sim.requests());
        world.clock.advance(next);
        eventually("it is tried again", || world.sim.requests() > tried).await;
        tries.push(world.clock.now());
    }
    let alert = next(&mut events).await.unwrap();
    let EventKind::Failing { evidence, since } = alert.kind else { panic!("{alert:?}") };
    assert_eq!((evidence.status, since), (Some(429), began));
    let after = alert.at.duration_since(began).unwrap();
    assert!(after >= 15 * MINUTE && after <= 20 * MINUTE, "{after:?}");
    assert!(tries.iter().filter(|time| **time > alert.at).count() > 5, "it is tried on: {tries:?}");
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.failing_since, status.evidence), (Some(began), Some(evidence)));
    world.sim.always(None);
    world.clock.advance(within(next_try(&world, &supervisor, &key)).await);
    assert_eq!(within(supervisor.refresh_now(&key)).await.unwrap().status.failing_since, None);
    stop(supervisor).await;
    assert_eq!(names(&rest(events).await), ["renewed", "recovered"]);
}

#[tokio::test]
async fn a_provider_that_refuses_our_client_is_told_once_and_its_grants_are_not() {
    let world = World::new(Profile::oauth2(Kind::Reject));
    let supervisor = world.start().await;
    let mut events = supervisor.events();
    let users = ["alice", "bob", "carol"].map(|user| TokenKey::at("idp").user(user));
    for key in &users {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
    world.sim.always(Some(Fault::error(401, "invalid_client")));
    world.clock.advance(LIFE / 2);
    for key in &users {
        within(supervisor.refresh_now(key)).await.unwrap_err();
    }
    let event = next(&mut events).await.unwrap();
    assert_eq!((event.idp.as_str(), event.key.as_ref(), event.grant_id.as_str()), ("idp", None, ""));
    let EventKind::IdpPaused { cause: Cause::ClientRefused, evidence, until } = event.kind else { panic!("{event:?}") };
    assert_eq!((evidence.code.as_str(), evidence.status), ("invalid_client", Some(401)));
    world.sim.always(None);
    world.clock.advance(until.duration_since(world.clock.now()).unwrap());
    within(supervisor.refresh_now(&users[2])).await.unwrap();
    let told = [kind(&mut events).await, kind(&mut events).await];
    assert!(told.contains(&EventKind::IdpRecovered { cause: Cause::ClientRefused }), "{told:?}");
    assert!(told.iter().any(|kind| kind.as_str() == "renewed"), "{told:?}");
}

/// How long it waits from now until its next try.
async fn next_try(world: &World, supervisor: &TokenSupervisor, key: &TokenKey) -> Duration {
    loop {
        // Until there is one the last has not been heard of.
        if let Some(next) = supervisor.status(key).await.unwrap().next_refresh_at
            && let Ok(wait) = next.duration_since(world.clock.now())
            && !wait.is_zero()
        {
            return wait;
        }
    }
}

/// Lets time pass, hardly any after `latest`, until an end is told: whose, when, and the end.
async fn told_ahead(world: &World, events: &mut Events, latest: SystemTime) -> (TokenKey, SystemTime, SystemTime) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    loop {
        let event = tokio::select! {
            event = next(events) => event.unwrap(),
            _ = looks.tick() => {
                assert!(world.clock.now() < latest + MINUTE, "nothing is told ahead");
                let step = if world.clock.now() < latest { MINUTE } else { Duration::from_millis(10) };
                world.clock.advance(step);
                continue;
            }
        };
        if let EventKind::ExpiringSoon { ends_at } = event.kind {
            return (event.key.unwrap(), event.at, ends_at);
        }
    }
}

#[tokio::test]
async fn the_end_of_a_refresh_token_is_told_ahead_once_also_over_restarts() {
    let world = World::new(Profile::oauth2(Kind::Reject));
    let begin = world.clock.now();
    let supervisor = world.start().await;
    let mut events = supervisor.events();
    let users = ["alice", "bob", "carol"].map(|user| TokenKey::at("idp").user(user));
    let ends = [8, 16, 24].map(|hours| begin + hours * HOUR);
    for (key, end) in users.iter().zip(ends) {
        let grant = world.sim.consent(key.user()).refresh_expiry(Expiry::At(end));
        within(supervisor.connect(key, grant)).await.unwrap();
    }
    world.clock.advance(5 * HOUR);
    within(supervisor.refresh_now(&users[0])).await.unwrap();
    // A quarter of its 8 hours ahead, to the hour: the refresh has not moved its end.
    let latest = begin + 7 * HOUR + 2 * MINUTE;
    let (key, at, end) = told_ahead(&world, &mut events, latest).await;
    assert_eq!((&key, end), (&users[0], ends[0]));
    assert!(at >= begin + 6 * HOUR, "{at:?}");
    stop(supervisor).await;
    assert!(!names(&rest(events).await).contains(&"expiring_soon"));

    // Bob's notice comes while nobody is there to give it, and then nobody to hear it.
    world.clock.advance(8 * HOUR);
    let requests = world.sim.requests();
    let supervisor = world.start().await;
    eventually("it looks at all grants", || world.sim.requests() > requests).await;
    let mut events = supervisor.events();
    for (user, end) in users.iter().zip(ends).skip(1) {
        let (key, _, told) = told_ahead(&world, &mut events, begin + 19 * HOUR + 2 * MINUTE).await;
        assert_eq!((&key, told), (user, end), "alice is not told again");
    }
    stop(supervisor).await;
}

/// Handles an event when it is let.
struct Listener {
    may: Arc<Semaphore>,
    heard: Arc<Mutex<Vec<TokenEvent>>>,
}

impl Listener {
    fn start(may: usize) -> (actix::Addr<Self>, Arc<Semaphore>, Arc<Mutex<Vec<TokenEvent>>>) {
        let (may, heard) = (Arc::new(Semaphore::new(may)), Arc::default());
        (Self { may: Arc::clone(&may), heard: Arc::clone(&heard) }.start(), may, heard)
    }
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<TokenEvent> for Listener {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, event: TokenEvent, _: &mut Self::Context) -> Self::Result {
        self.heard.lock().unwrap().push(event);
        let may = self.may.clone();
        Box::pin(async move { may.acquire().await.unwrap().forget() })
    }
}

/// 1 200 events, and a refresh at the end.
async fn much_happens(world: &World, supervisor: &TokenSupervisor, alice: &TokenKey) {
    let users: Vec<_> = (0..600).map(|number| TokenKey::at("idp").user(format!("user-{number}"))).collect();
    let connect = || join_all(users.iter().map(|key| supervisor.connect(key, world.sim.consent(key.user()))));
    let require = || join_all(users.iter().map(|key| supervisor.require_reconnect(key, "left")));
    for done in [within(connect()).await, within(require()).await, within(connect()).await] {
        assert!(done.iter().all(Result::is_ok));
    }
    world.clock.advance(LIFE / 2);
    within(supervisor.refresh_now(alice)).await.unwrap();
}

#[actix::test]
async fn who_is_too_slow_is_told_how_much_was_missed_and_holds_nothing_up() {
    const TOLD: u64 = 1_201;
    const KEPT: u64 = 1_024;
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let (listener, may, heard) = Listener::start(0);
    let subscription = supervisor.subscribe(listener.clone().recipient());
    let mut events = supervisor.events();
    within(supervisor.require_reconnect(&key, "a pause")).await.unwrap();
    eventually("the first is being handled", || heard.lock().unwrap().len() == 1).await;
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    much_happens(&world, &supervisor, &key).await;

    // By hand: before the 1 201 there were a verdict and its end.
    let lagged = next(&mut events).await.unwrap_err();
    assert_eq!(lagged.missed, TOLD + 2 - KEPT);
    for _ in 0..KEPT - 1 {
        next(&mut events).await.unwrap();
    }
    assert_eq!(kind(&mut events).await.as_str(), "renewed");

    // By an actor: one of the two was taken before it lagged.
    may.add_permits(2_000);
    eventually("it hears the last", || {
        let heard = heard.lock().unwrap();
        heard.last().is_some_and(|event| event.kind.as_str() == "renewed")
    })
    .await;
    let heard = heard.lock().unwrap();
    assert_eq!(heard[1].kind, EventKind::Missed { count: TOLD + 1 - KEPT });
    assert_eq!(heard.len() as u64, 2 + KEPT);
    drop(subscription);
}

#[actix::test]
async fn a_dropped_subscription_hears_nothing_more() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let (listener, _, heard) = Listener::start(100);
    let (other, _, heard_by_other) = Listener::start(100);
    let _stays = supervisor.subscribe(other.recipient());
    let subscription = supervisor.subscribe(listener.recipient());
    within(supervisor.require_reconnect(&key, "first")).await.unwrap();
    eventually("both hear it", || heard.lock().unwrap().len() + heard_by_other.lock().unwrap().len() == 2).await;
    drop(subscription);
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    within(supervisor.require_reconnect(&key, "second")).await.unwrap();
    eventually("the other hears all", || heard_by_other.lock().unwrap().len() == 3).await;
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn events_end_with_the_last_handle() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, _) = world.connected().await;
    let events = supervisor.events();
    drop(supervisor);
    assert_eq!(rest(events).await, []);
}
