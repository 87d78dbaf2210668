//! Several supervisors at one store, as processes have it, in real time.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use token_supervisor::{
    Builder, Cause, Error, EventKind, Expiry, Freshness, Generation, Keyring, Migrate, Revoke, State, TokenKey,
    TokenSupervisor,
    testing::{Fault, Profile, SimulatedIdp, Standing, StoreFault},
};

use super::server;
use crate::support::{stop, within};

/// A store on the shared server, its keys, and a provider.
struct Deployment {
    sim: SimulatedIdp,
    keyring: Keyring,
    url: String,
    folder: TempDir,
}

impl Deployment {
    fn new(profile: Profile) -> Option<Self> {
        let url = server::shared()?.url();
        let sim = SimulatedIdp::start(profile).unwrap();
        Some(Self { sim, keyring: Keyring::generate(), url, folder: TempDir::new().unwrap() })
    }

    fn builder(&self, journal: &str) -> Builder {
        TokenSupervisor::builder()
            .store(&self.url)
            .migrate(Migrate::Auto)
            .journal(self.folder.path().join(journal))
            .keyring(self.keyring.clone())
            .idp("idp", self.sim.idp())
    }

    async fn start(&self, journal: &str) -> TokenSupervisor {
        self.builder(journal).start().await.unwrap()
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    let poll = async {
        while !is_so().await {
            looks.tick().await;
        }
    };
    assert!(tokio::time::timeout(60 * SECOND, poll).await.is_ok(), "not within a minute: {what}");
}

/// Waits until each process has seen so many live ones.
async fn acquainted(processes: &[&TokenSupervisor]) {
    for process in processes {
        until("each process knows all", async || {
            process.replicas().await.is_ok_and(|all| all.len() == processes.len())
        })
        .await;
    }
}

fn generation(supervisor: &TokenSupervisor, key: &TokenKey) -> Option<u64> {
    supervisor.cached(key).map(|token| token.generation().get())
}

/// The requests that wait for their answer.
async fn waiters(supervisor: &TokenSupervisor) -> f64 {
    let metrics = supervisor.metrics().await;
    let waiters = metrics.iter().find(|metric| metric.name == "waiters").unwrap();
    waiters.samples[0].value
}

#[tokio::test]
async fn what_one_process_stores_reaches_the_memory_the_watches_and_the_subscribers_of_the_others() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    let (alice, bob) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
    within(one.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    within(two.token(&alice)).await.unwrap();
    let (mut watch, mut events) = (two.watch(&alice).await.unwrap(), two.events());
    assert_eq!(watch.token().unwrap().generation().get(), 1);

    within(one.refresh_now(&alice)).await.unwrap();
    within(watch.changed()).await;
    assert_eq!(watch.token().unwrap().generation().get(), 2);
    until("it is published", async || generation(&two, &alice) == Some(2)).await;
    let event = within(events.recv()).await.unwrap().unwrap();
    assert_eq!((event.kind, event.elsewhere), (EventKind::Renewed { generation: Generation::new(2) }, true));

    // What nobody has asked this process for stays where it is.
    within(one.connect(&bob, deployment.sim.consent("bob"))).await.unwrap();
    within(one.require_reconnect(&alice, "left")).await.unwrap();
    let event = within(events.recv()).await.unwrap().unwrap();
    assert!(event.elsewhere && matches!(event.kind, EventKind::ReconnectRequired { .. }), "{event:?}");
    assert_eq!(generation(&two, &bob), None);

    within(one.disconnect(&alice, Revoke::No)).await.unwrap();
    until("it is withdrawn", async || two.cached(&alice).is_none() && watch.token().is_none()).await;
    assert_eq!(within(two.token(&alice)).await.unwrap_err(), Error::NotConnected);
    within(two.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    assert!(watch.token().is_some());
    stop(two).await;
    stop(one).await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it waits until a token has expired by the real clock")]
async fn callers_wait_for_the_refresh_of_another_process_and_get_its_token() {
    let Some(deployment) = Deployment::new(Profile::gitlab().access_lifetime(Duration::from_secs(2))) else { return };
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    let alice = TokenKey::at("idp").user("alice");
    within(one.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    let first = within(two.token(&alice)).await.unwrap();
    deployment.sim.next(Fault::HangAfter);
    let refreshing = tokio::spawn({
        let (one, alice) = (one.clone(), alice.clone());
        async move { one.refresh_now(&alice).await }
    });
    until("the request is under way", async || deployment.sim.presentations().len() == 1).await;
    until(
        "the token has expired",
        async || matches!(first.expiry(), Expiry::At(time) if time < SystemTime::now() - SECOND),
    )
    .await;
    let waiting = tokio::spawn({
        let (two, alice) = (two.clone(), alice.clone());
        async move { two.token(&alice).await }
    });
    until("the other process waits", async || two.testing().attempts() == 0 && waiters(&two).await == 1.0).await;
    deployment.sim.release();
    // The lifetime counts from the request: the first one may have brought a token that had expired.
    assert!(within(waiting).await.unwrap().unwrap().generation().get() >= 2);
    refreshing.await.unwrap().unwrap();
    assert_eq!(deployment.sim.duplicate_spends(), 0);
    stop(two).await;
    stop(one).await;
}

#[tokio::test]
async fn a_rejected_token_is_handed_out_by_no_process_until_it_was_replaced() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    let alice = TokenKey::at("idp").user("alice");
    within(one.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    let rejected = within(two.token(&alice)).await.unwrap().generation();
    deployment.sim.next(Fault::HangAfter);
    let reporting = tokio::spawn({
        let (one, alice) = (one.clone(), alice.clone());
        async move { one.report_rejected(&alice, rejected).await }
    });
    until("it is withdrawn everywhere", async || one.cached(&alice).is_none() && two.cached(&alice).is_none()).await;
    let waiting = tokio::spawn({
        let (two, alice) = (two.clone(), alice.clone());
        async move { two.token(&alice).await }
    });
    // Either process may be the one that refreshes.
    until("the other process waits", async || waiters(&two).await == 1.0).await;
    until("one of them has sent it", async || deployment.sim.presentations().len() == 1).await;
    deployment.sim.release();
    assert!(within(waiting).await.unwrap().unwrap().generation() > rejected);
    within(reporting).await.unwrap().unwrap();
    assert_eq!((deployment.sim.presentations().len(), deployment.sim.duplicate_spends()), (1, 0));

    // A refresh that fails elsewhere ends the wait, too: the token is handed out again.
    let second = within(two.token(&alice)).await.unwrap().generation();
    deployment.sim.next(Fault::Status(429, None));
    within(one.report_rejected(&alice, second)).await.unwrap();
    until("it is handed out again", async || generation(&two, &alice) >= Some(second.get())).await;
    stop(two).await;
    stop(one).await;
}

#[tokio::test]
async fn holds_and_their_ends_reach_the_other_processes() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let start = async |journal: &str| {
        deployment.builder(journal).sweep_every(Duration::from_secs(3_600)).start().await.unwrap()
    };
    let (one, two) = (start("one").await, start("two").await);
    let alice = TokenKey::at("idp").user("alice");
    within(two.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    within(one.hold_idp("idp", "maintenance")).await.unwrap();
    let held = |process: &TokenSupervisor| process.idps()[0].held.is_some();
    until("it is on hold", async || held(&two)).await;
    within(one.release_idp("idp")).await.unwrap();
    until("it is released", async || !held(&two)).await;
    within(one.hold(&alice, "audit")).await.unwrap();
    let is_held = async || within(two.status(&alice)).await.unwrap().held.is_some();
    until("the grant is on hold", is_held).await;
    stop(two).await;
    stop(one).await;
}

/// Ends the lines of all processes at the store.
fn interrupt_lines(url: &str) {
    let schema = url.rsplit_once("schema=").unwrap().1;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";
    server::shared().unwrap().execute(url, &format!("{end} 'token-supervisor line of {schema}'"));
}

#[tokio::test]
async fn a_command_on_the_store_tells_the_servers_what_it_changed() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let server = deployment.start("server").await;
    let alice = TokenKey::at("idp").user("alice");
    within(server.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    within(server.token(&alice)).await.unwrap();
    let command = deployment.builder("command").on_demand().start().await.unwrap();
    within(command.disconnect(&alice, Revoke::No)).await.unwrap();
    stop(command).await;
    until("the disconnect is known", async || server.cached(&alice).is_none()).await;
    assert_eq!(server.replicas().await.unwrap().len(), 1, "a command is no replica");
    stop(server).await;
}

#[tokio::test]
async fn a_change_is_heard_although_the_read_that_follows_fails() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    let alice = TokenKey::at("idp").user("alice");
    within(one.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    within(two.token(&alice)).await.unwrap();
    two.testing().store_fault(StoreFault::ReadsFail);
    within(one.disconnect(&alice, Revoke::No)).await.unwrap();
    until("a read has failed", async || two.is_store_down()).await;
    two.testing().store_fault(StoreFault::None);
    until("the disconnect is known", async || two.cached(&alice).is_none()).await;
    stop(two).await;
    stop(one).await;
}

#[tokio::test]
async fn what_was_missed_while_the_line_was_interrupted_is_made_up_for() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    let (alice, bob) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
    for key in [&alice, &bob] {
        within(one.connect(key, deployment.sim.consent(key.user()))).await.unwrap();
        within(two.token(key)).await.unwrap();
    }
    let watch = two.watch(&bob).await.unwrap();
    one.testing().store_fault(StoreFault::NothingIsHeard);
    within(one.disconnect(&alice, Revoke::No)).await.unwrap();
    within(one.refresh_now(&bob)).await.unwrap();
    assert_eq!((generation(&two, &alice), generation(&two, &bob)), (Some(1), Some(1)), "it was not told");
    interrupt_lines(&deployment.url);
    until("the disconnect is known", async || two.cached(&alice).is_none()).await;
    until("the new token is known", async || watch.token().is_some_and(|token| token.generation().get() == 2)).await;
    stop(two).await;
    stop(one).await;
}

#[tokio::test]
async fn what_a_process_had_not_told_when_it_died_is_made_up_for() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    acquainted(&[&one, &two]).await;
    let alice = TokenKey::at("idp").user("alice");
    within(one.connect(&alice, deployment.sim.consent("alice"))).await.unwrap();
    within(two.token(&alice)).await.unwrap();
    one.testing().store_fault(StoreFault::NothingIsHeard);
    within(one.disconnect(&alice, Revoke::No)).await.unwrap();
    one.testing().store_fault(StoreFault::Down);
    assert!(two.cached(&alice).is_some(), "it was not told");
    // As if it had been silent for longer.
    let dead = one.replicas().await.is_err();
    assert!(dead);
    let name = two.replicas().await.unwrap().into_iter().find(|replica| !replica.is_this).unwrap().id;
    let silent = format!("UPDATE replicas SET at = at - 60000 WHERE id = '{name}'");
    server::shared().unwrap().execute(&deployment.url, &silent);
    until("the disconnect is known", async || two.cached(&alice).is_none()).await;
    assert_eq!(two.replicas().await.unwrap().len(), 1);
    stop(two).await;
    one.testing().store_fault(StoreFault::None);
    stop(one).await;
}

#[tokio::test]
async fn a_process_that_hears_nothing_for_long_hands_out_only_what_it_has_just_read() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let one = deployment.start("one").await;
    let two = deployment.builder("two").served_unheard(2 * SECOND).start().await.unwrap();
    let (alice, bob) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
    for key in [&alice, &bob] {
        within(one.connect(key, deployment.sim.consent(key.user()))).await.unwrap();
        within(two.token(key)).await.unwrap();
    }
    let watch = two.watch(&bob).await.unwrap();
    assert!(!two.is_cut_off());
    two.testing().store_fault(StoreFault::NothingIsHeard);
    one.testing().store_fault(StoreFault::NothingIsHeard);
    within(one.disconnect(&alice, Revoke::No)).await.unwrap();
    until("nothing is handed out unread", async || two.cached(&alice).is_none() && watch.token().is_none()).await;
    assert_eq!(within(two.token(&alice)).await.unwrap_err(), Error::NotConnected);
    assert!(within(two.token(&bob)).await.is_ok());
    until("it says so", async || two.is_cut_off()).await;
    // The store does not respond either: then there is nothing that it may hand out.
    two.testing().store_fault(StoreFault::Down);
    until("nothing is handed out", async || two.cached(&bob).is_none()).await;
    let refused = within(two.token(&bob)).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { cause: Cause::StoreDown, .. }), "{refused}");

    two.testing().store_fault(StoreFault::None);
    until("it hears again", async || !two.is_cut_off()).await;
    until("the watch has its token again", async || watch.token().is_some()).await;
    stop(two).await;
    stop(one).await;
}

#[tokio::test]
async fn each_due_grant_is_refreshed_once_whichever_processes_live() {
    let Some(deployment) = Deployment::new(Profile::gitlab().access_lifetime(Duration::from_secs(8))) else { return };
    let all = [deployment.start("one").await, deployment.start("two").await, deployment.start("three").await];
    acquainted(&[&all[0], &all[1], &all[2]]).await;
    let keys: Vec<_> = (0..60).map(|number| TokenKey::at("idp").user(format!("user {number}"))).collect();
    for (number, key) in keys.iter().enumerate() {
        within(all[number % 3].connect(key, deployment.sim.consent(key.user()))).await.unwrap();
    }
    let refreshed = async |at_least: u64| {
        let mut least = u64::MAX;
        for key in &keys {
            least = least.min(within(all[0].status(key)).await.unwrap().generation.get());
        }
        least >= at_least
    };
    until("all are refreshed", async || refreshed(3).await).await;
    assert_eq!(deployment.sim.duplicate_spends(), 0);
    let [one, two, three] = all;
    stop(two).await;
    stop(three).await;
    // What was theirs is this one's now.
    let keys_of = async || within(one.status(&keys[0])).await.unwrap().generation.get();
    let before = keys_of().await;
    until("the last one refreshes all", async || keys_of().await > before + 1).await;
    assert_eq!((deployment.sim.duplicate_spends(), one.replicas().await.unwrap().len()), (0, 1));
    stop(one).await;
}

#[tokio::test]
async fn a_grant_that_one_process_connects_is_refreshed_and_disconnected_by_another() {
    let Some(deployment) = Deployment::new(Profile::gitlab()) else { return };
    let sim = &deployment.sim;
    let (one, two) = (deployment.start("one").await, deployment.start("two").await);
    let key = TokenKey::at("idp").user("alice");
    within(one.connect(&key, sim.consent("alice"))).await.unwrap();
    let first = within(two.token(&key)).await.unwrap();
    assert_eq!((first.generation().get(), first.freshness()), (1, Freshness::Fresh));

    // Many refreshes in turn: each process goes by the row that the other has written.
    for generation in 2..8 {
        let process = if generation % 2 == 0 { &two } else { &one };
        let refreshed = within(process.refresh_now(&key)).await;
        let status = refreshed.map(|refreshed| refreshed.status.generation.get());
        // Within ten seconds of a refresh another one is not sent.
        assert!(status.is_ok(), "{generation}: {status:?}");
    }
    assert_eq!(sim.duplicate_spends(), 0);
    let stored = within(one.testing().stored_refresh_token(&key)).await.unwrap().unwrap();
    assert_eq!(sim.standing(&stored), Standing::Current);

    within(two.disconnect(&key, Revoke::No)).await.unwrap();
    stop(two).await;
    stop(one).await;
    let restarted = deployment.start("one").await;
    assert_eq!(within(restarted.status(&key)).await.unwrap().state, State::Revoked);
    stop(restarted).await;
}
