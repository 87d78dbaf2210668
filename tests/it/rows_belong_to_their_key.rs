//! Ciphertext is bound to its row and column: moved, it does not open.

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use token_supervisor::{Error, TokenKey, testing::Profile};

use crate::support::{LIFE, World, stop, within};

#[tokio::test]
async fn a_row_swapped_between_users_does_not_open() {
    let world = World::new(Profile::keycloak());
    let (supervisor, alice) = world.connected().await;
    let bob = TokenKey::at("idp").user("bob");
    within(supervisor.connect(&bob, world.sim.consent("bob"))).await.unwrap();
    stop(supervisor).await;

    let mut raw = SqliteConnection::establish(world.store().to_str().unwrap()).unwrap();
    raw.batch_execute(
        "UPDATE grants SET user_id = 'x' WHERE user_id = 'alice';
         UPDATE grants SET user_id = 'alice' WHERE user_id = 'bob';
         UPDATE grants SET user_id = 'bob' WHERE user_id = 'x';",
    )
    .unwrap();
    drop(raw);

    let supervisor = world.start().await;
    for key in [&alice, &bob] {
        assert!(within(supervisor.token(key)).await.is_err(), "nobody gets another user's token");
        assert!(supervisor.cached(key).is_none());
    }
    world.clock.advance(LIFE);
    let error =
        within(supervisor.call(token_supervisor::Acquire::new(&alice).timeout(LIFE / 3_600))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. } | Error::Timeout), "{error}");
    assert_eq!(world.sim.requests(), 0, "a refresh token that does not open is not sent");
}

#[tokio::test]
async fn a_refresh_token_moved_into_another_column_does_not_open() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    stop(supervisor).await;
    let mut raw = SqliteConnection::establish(world.store().to_str().unwrap()).unwrap();
    raw.batch_execute("UPDATE grants SET document = refresh_token").unwrap();
    drop(raw);
    let supervisor = world.start().await;
    assert!(supervisor.cached(&key).is_none());
    // The access token is lost, the refresh token is not: the next refresh brings a new one.
    world.clock.advance(LIFE);
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 2);
}
