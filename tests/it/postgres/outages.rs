//! The database goes away and comes back.

use std::time::Duration;

use token_supervisor::{
    Cause, Error, HeldBy, Migrate, TokenKey, TokenSupervisor,
    testing::{Fault, Kind, Profile, Standing},
};

use super::server::{self, Server};
use crate::support::{LIFE, World, ask, breathe, eventually, passing, stop, within};

/// A server of the test's own.
fn own_server() -> Option<Server> {
    server::shared()?;
    Server::start_on_loopback(|_| Vec::new())
}

fn store_on(server: &Server) -> String {
    format!("{}&sslmode=disable", server.url_at("127.0.0.1"))
}

async fn token_of(supervisor: &TokenSupervisor, key: &TokenKey) -> token_supervisor::Token {
    within(supervisor.token(key)).await.unwrap()
}

#[tokio::test]
async fn valid_tokens_are_served_while_the_database_is_away_and_nothing_is_lost() {
    let Some(server) = own_server() else { return };
    let world = World::new(Profile::gitlab()).on(store_on(&server));
    let (supervisor, key) = world.connected().await;
    let first = token_of(&supervisor, &key).await;

    server.stop();
    assert_eq!(token_of(&supervisor, &key).await.access_token(), first.access_token());
    let other = TokenKey::at("idp").user("bob");
    let error = within(supervisor.connect(&other, world.sim.consent("bob"))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::StoreDown, .. }), "{error}");
    assert!(supervisor.is_store_down());
    // Without its claim no refresh token is sent.
    world.clock.advance(LIFE);
    let waiting = ask(&supervisor, &key);
    eventually("an attempt has begun", || supervisor.testing().attempts() > 0 || waiting.is_finished()).await;
    assert_eq!(world.sim.requests(), 0);

    server.run();
    drop(waiting);
    let refreshed = passing(&world, Duration::from_secs(1), ask_again(&supervisor, &key)).await;
    assert!(refreshed.generation() > first.generation());
    assert_eq!(world.sim.duplicate_spends(), 0);
    assert!(!supervisor.is_store_down());
    // With the clock turned that far another refresh may be in flight: it is stored before the supervisor has stopped.
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

/// Asks until there is a token.
fn ask_again(supervisor: &TokenSupervisor, key: &TokenKey) -> tokio::task::JoinHandle<token_supervisor::Token> {
    let (supervisor, key) = (supervisor.clone(), key.clone());
    tokio::spawn(async move {
        loop {
            if let Ok(token) = supervisor.token(&key).await {
                return token;
            }
            tokio::task::yield_now().await;
        }
    })
}

#[tokio::test]
async fn a_request_whose_claim_a_fail_over_has_lost_is_repeated_by_nobody() {
    let Some(primary) = own_server() else { return };
    let world = World::new(Profile::oauth2(Kind::Strict)).on(store_on(&primary));
    let (one, key) = world.connected().await;
    let two = world.builder().journal(world.folder.path().join("two")).start().await.unwrap();
    let standby = primary.standby();
    world.clock.advance(LIFE);
    world.sim.next(Fault::HangAfter);
    let waiting = ask(&one, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    primary.crash();
    standby.run();

    let also_waiting = ask_again(&two, &key);
    // Longer than the database needs to come back, and than two looks at whether it went back.
    for _ in 0..120 {
        world.clock.advance(Duration::from_millis(100));
        within(two.status(&key)).await.ok();
        breathe().await;
    }
    assert!(two.idps()[0].held_by == Some(HeldBy::Recovery) && !two.is_store_down());
    assert_eq!(world.sim.requests(), 1, "the standby knows nothing of the claim");
    world.sim.release();
    assert_eq!(passing(&world, Duration::from_millis(100), also_waiting).await.generation().get(), 2);
    drop(waiting);
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    eventually("refreshes go on", || {
        world.clock.advance(Duration::from_millis(100));
        one.idps()[0].held.is_none() && two.idps()[0].held.is_none()
    })
    .await;
    world.clock.advance(LIFE);
    assert!(passing(&world, Duration::from_millis(100), ask_again(&two, &key)).await.generation().get() > 2);
    stop(one).await;
    assert_eq!(world.stored(two, &key).await, Standing::Current);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn a_response_that_arrives_while_the_database_is_away_is_kept_and_stored_later() {
    let Some(server) = own_server() else { return };
    let world = World::new(Profile::gitlab()).on(store_on(&server));
    // Time jumps, which is no reason to ask a database that is away for what other replicas may have done.
    let supervisor = world.builder().served_unheard(2 * LIFE).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the request has left", || world.sim.requests() == 1).await;
    server.stop();
    world.sim.release();
    let token = passing(&world, Duration::from_millis(100), caller).await.unwrap();
    assert_eq!((token.generation().get(), world.sim.requests()), (2, 1));
    assert!(supervisor.testing().journal_pending() > 0, "the journal has what the store has not");

    server.run();
    let turned = world.clock.clone();
    eventually("the store has it", || {
        turned.advance(Duration::from_secs(1));
        supervisor.testing().journal_pending() == 0
    })
    .await;
    let stored = within(supervisor.testing().stored_refresh_token(&key)).await.unwrap().unwrap();
    assert_eq!(world.sim.standing(&stored), Standing::Current);
    stop(supervisor).await;
}

#[tokio::test]
async fn a_start_without_schema_says_what_to_run() {
    let Some(server) = server::shared() else { return };
    let world = World::new(Profile::gitlab()).on(server.url());
    let error = world.builder().migrate(Migrate::Never).start().await.unwrap_err().to_string();
    assert!(error.contains("run token-supervisor migrate"), "{error}");
    world.start().await;
    let again = world.builder().migrate(Migrate::Never).journal(world.folder.path().join("another")).start().await;
    stop(again.unwrap()).await;
}
