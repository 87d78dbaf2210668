//! A replica is stopped just after the provider has responded, and goes on long after its lease has ended. The response lies in
//! its socket meanwhile.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::Value;
use token_supervisor::testing::{Fault, Kind, Outcome};
use tokio::task::JoinHandle;

use super::{
    LEASE, PATIENCE, SEND_WINDOW, SETTLE,
    http::Asked,
    now, own_server, pass,
    providers::{GRACE, Provider, Providers},
    replica::Process,
    users::connect_all,
    world::World,
};

const HOLDER: usize = 0;
const OTHER: usize = 1;

/// Longer than the test takes.
const HOUR: Duration = Duration::from_secs(3_600);

/// Only bounds how long a broken test takes.
const LIMIT: Duration = Duration::from_secs(60);

/// So long after the claim another replica considers the request as processed.
const FOREIGN: Duration = SEND_WINDOW.saturating_add(PATIENCE).saturating_add(SETTLE);

/// Each provider has one grant, which the holder refreshes. The requests wait at the provider.
struct Scene {
    world: Arc<World>,
    holder: Process,
    refreshing: Vec<JoinHandle<Option<Asked>>>,
}

impl Scene {
    async fn new(providers: Vec<(Provider, Fault)>) -> Option<Self> {
        let server = own_server()?;
        let (providers, faults): (Vec<_>, Vec<_>) = providers.into_iter().unzip();
        let world = Arc::new(World::new(server, Providers(providers), 1, 1).await);
        let holder = world.replicas[HOLDER].start().await;
        world.keep(OTHER, world.replicas[OTHER].start().await);
        connect_all(&world).await;
        let mut refreshing = Vec::new();
        for (grant, fault) in faults.into_iter().enumerate() {
            world.providers.0[grant].sim.next(fault);
            let (world, path) = (world.clone(), format!("{}/refresh?timeout=50", world.accounts[grant].path()));
            refreshing.push(tokio::spawn(async move { world.ask(HOLDER, Method::POST, &path, None).await }));
        }
        for provider in &world.providers.0 {
            until("the refresh request is sent", || provider.sim.requests() == 1).await;
        }
        Some(Self { world, holder, refreshing })
    }

    /// Lets the provider of this grant respond to the holder, which stands still.
    async fn answer_while_stopped(&self, grant: usize) {
        let sim = &self.world.providers.0[grant].sim;
        sim.release_first(1);
        until("the provider has responded", || sim.presentations()[0].answered_at.is_some()).await;
    }

    async fn ask(&self, replica: usize, method: Method, grant: usize, verb: &str) -> Value {
        let path = format!("{}{verb}", self.world.accounts[grant].path());
        self.world.ask(replica, method, &path, None).await.unwrap().answer.unwrap()
    }

    /// Asks a replica for the state until it holds.
    async fn state_until(&self, what: &str, replica: usize, grant: usize, holds: impl Fn(&Value) -> bool) {
        let latest = now() + LIMIT;
        while !holds(&self.ask(replica, Method::GET, grant, "").await) {
            assert!(now() < latest, "not within {LIMIT:?}: {what}");
            pass(Duration::from_millis(200)).await;
        }
    }

    fn sent(&self, grant: usize) -> Vec<Outcome> {
        self.world.providers.0[grant].sim.presentations().iter().map(|one| one.outcome).collect()
    }

    /// The holder goes on; its callers are answered.
    async fn go_on(&mut self) -> Vec<Value> {
        self.world.replicas[HOLDER].thaw(&self.holder);
        let mut answers = Vec::new();
        for asked in self.refreshing.drain(..) {
            answers.push(asked.await.unwrap().unwrap().answer.unwrap());
        }
        answers
    }

    /// Both stop; the store has what counts of each grant, and nobody has violated anything.
    async fn end(self) {
        self.world.keep(HOLDER, self.holder);
        self.world.stop_all().await;
        let stored = self.world.stored().await;
        for (provider, stored) in self.world.providers.0.iter().zip(stored) {
            let standing = provider.sim.standing(&stored.unwrap());
            assert_eq!(standing, token_supervisor::testing::Standing::Current, "{}", provider.name);
            assert_eq!(provider.sim.duplicate_spends(), 0, "{}", provider.name);
        }
        self.world.judge_the_logs(&[HOLDER, OTHER]);
        assert_eq!(*self.world.violations.lock().unwrap(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_second_use_is_fatal_nobody_else_sends_and_the_late_response_is_stored() {
    const LONG: usize = 0;
    const SHORT: usize = 1;
    let providers = [("strict", HOUR), ("strict-and-short", Duration::from_secs(8))]
        .map(|(name, life)| (Provider::start(name, Kind::Strict, life), Fault::HangAfter));
    let Some(mut scene) = Scene::new(providers.into()).await else { return };
    let world = scene.world.clone();
    world.replicas[HOLDER].freeze(&scene.holder);
    let stopped = now();
    for grant in [LONG, SHORT] {
        scene.answer_while_stopped(grant).await;
    }

    // While the old token is valid it is served; nothing is sent, however long the lease is over.
    while now() < stopped + FOREIGN + 2 * LEASE {
        let refresh = scene.ask(OTHER, Method::POST, LONG, "/refresh?timeout=1").await;
        assert!(matches!(refresh["code"].as_str(), Some("unavailable" | "timeout")), "{refresh}");
        assert_eq!(scene.ask(OTHER, Method::GET, LONG, "/token").await["generation"], 1);
        pass(Duration::from_millis(500)).await;
    }
    // Once it has expired, the user is asked to consent; the response ends that, however late it is.
    scene.state_until("the doubt is given up", OTHER, SHORT, |status| status["reason"] == "in_doubt").await;
    assert_eq!([LONG, SHORT].map(|grant| scene.sent(grant).len()), [1, 1]);

    let answers = scene.go_on().await;
    assert_eq!((&answers[LONG]["refreshed"], &answers[LONG]["generation"]), (&true.into(), &2.into()), "{answers:?}");
    let again = scene.ask(HOLDER, Method::POST, LONG, "/refresh").await;
    assert_eq!((&again["refreshed"], &again["generation"]), (&true.into(), &3.into()), "{again}");
    let lives = |status: &Value| status["state"] == "fresh" && status["generation"].as_u64() >= Some(3);
    for (grant, replica) in [(LONG, HOLDER), (LONG, OTHER), (SHORT, HOLDER), (SHORT, OTHER)] {
        scene.state_until("the grant lives", replica, grant, lives).await;
    }
    assert_eq!(scene.sent(LONG), [Outcome::Rotated; 2]);
    assert!(scene.sent(SHORT).iter().all(|outcome| *outcome == Outcome::Rotated));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_a_grace_another_sends_and_no_response_is_dropped() {
    const LATE: usize = 2;
    let (same, last) = (Kind::SamePair { grace: GRACE }, Kind::LastWins { grace: GRACE });
    let providers = [
        (Provider::start("same-pair", same, HOUR), Fault::HangAfter),
        (Provider::start("last-wins", last, HOUR), Fault::HangAfter),
        // The request of the holder is processed after that of the other.
        (Provider::start("last-wins-late", last, HOUR), Fault::Hang),
    ];
    let Some(mut scene) = Scene::new(providers.into()).await else { return };
    let world = scene.world.clone();
    world.replicas[HOLDER].freeze(&scene.holder);
    for grant in 0..LATE {
        scene.answer_while_stopped(grant).await;
    }
    for grant in 0..=LATE {
        let renewed = |status: &Value| status["state"] == "fresh" && status["generation"] == 2;
        scene.state_until("another takes over", OTHER, grant, renewed).await;
    }
    scene.answer_while_stopped(LATE).await;
    use Outcome::{Refused, Replayed, Rotated};
    assert_eq!(
        (0..=LATE).map(|grant| scene.sent(grant)).collect::<Vec<_>>(),
        [vec![Rotated, Replayed], vec![Rotated, Replayed], vec![Replayed, Rotated]]
    );

    let answers = scene.go_on().await;
    assert!(answers.iter().all(|answer| answer["state"] == "fresh"), "{answers:?}");
    // A token that was just refreshed is not refreshed again.
    pass(Duration::from_secs(10)).await;
    for grant in 0..=LATE {
        let again = scene.ask(OTHER, Method::POST, grant, "/refresh?timeout=50").await;
        assert!(again["refreshed"] == true && again["generation"] == 3, "{again}");
        let lives = |status: &Value| status["state"] == "fresh" && status["generation"].as_u64() >= Some(3);
        scene.state_until("the grant lives", OTHER, grant, lives).await;
    }
    assert_eq!((scene.sent(0)[2..].to_vec(), scene.sent(1)[2..].to_vec()), (vec![Rotated], vec![Rotated]));
    // The token of the other was replaced by the later response, which the store had kept.
    assert_eq!(scene.sent(LATE)[2..], [Refused, Rotated]);
    scene.end().await;
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let latest = now() + LIMIT;
    while !holds() {
        assert!(now() < latest, "not within {LIMIT:?}: {what}");
        pass(Duration::from_millis(5)).await;
    }
}
