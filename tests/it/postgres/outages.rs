//! The database goes away and comes back.

use std::time::Duration;

use token_supervisor::{
    Cause, Error, Migrate, TokenKey, TokenSupervisor,
    testing::{Profile, Standing},
};

use super::server::{self, Server};
use crate::support::{LIFE, World, ask, eventually, passing, stop, within};

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
async fn a_response_that_arrives_while_the_database_is_away_is_kept_and_stored_later() {
    let Some(server) = own_server() else { return };
    let world = World::new(Profile::gitlab()).on(store_on(&server));
    let (supervisor, key) = world.connected().await;
    world.sim.next(token_supervisor::testing::Fault::HangAfter);
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
