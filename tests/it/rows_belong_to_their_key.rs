//! A row is as this program wrote it, or it is not used: ciphertext opens only in its own row, a keyed code covers the
//! rest, and a row that was put back to an earlier generation spends nothing.

use std::time::Duration;

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use token_supervisor::{
    Cause, Error, Filter, State, TokenKey,
    testing::{Kind, Point, Profile, Standing},
};

use crate::support::{LIFE, World, ask, eventually, passing, stop, within};

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

/// Executes statements on the file while nobody has it open.
fn alter(world: &World, statements: &str) {
    let mut raw = SqliteConnection::establish(world.store().to_str().unwrap()).unwrap();
    raw.batch_execute(statements).unwrap();
}

#[tokio::test]
async fn a_row_that_another_program_changed_is_not_served_until_its_user_connects_again() {
    for change in [
        "document = refresh_token",
        "tombstone = NULL",
        "verdict = NULL",
        "held = NULL",
        "expires_at = expires_at + 86400000",
        "code = NULL",
    ] {
        let world = World::new(Profile::keycloak());
        let (supervisor, alice) = world.connected().await;
        let bob = TokenKey::at("idp").user("bob");
        within(supervisor.connect(&bob, world.sim.consent("bob"))).await.unwrap();
        within(supervisor.hold(&alice, "investigation")).await.unwrap();
        within(supervisor.require_reconnect(&alice, "left")).await.unwrap();
        if change.starts_with("tombstone") {
            within(supervisor.disconnect(&alice, token_supervisor::Revoke::No)).await.unwrap();
        }
        stop(supervisor).await;
        alter(&world, &format!("UPDATE grants SET {change} WHERE user_id = 'alice'"));

        let supervisor = world.start().await;
        let error = within(supervisor.token(&alice)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { cause: Cause::StoreDown, .. }), "{change}: {error}");
        assert!(supervisor.cached(&alice).is_none());
        within(supervisor.token(&bob)).await.unwrap();
        let listed = within(supervisor.list(Filter::new())).await.unwrap();
        assert_eq!(listed.items.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&bob], "{change}");
        assert_eq!(supervisor.unreadable_rows(), 1);
        world.clock.advance(LIFE);
        within(supervisor.token(&bob)).await.unwrap();
        assert_eq!(world.sim.requests(), 1, "{change}: only bob's refresh token was sent");
        within(supervisor.connect(&alice, world.sim.consent("alice"))).await.unwrap();
        assert_eq!(supervisor.unreadable_rows(), 0);
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_row_that_was_put_back_by_a_generation_sends_nothing_and_its_newer_one_goes_on() {
    let world = World::new(Profile::keycloak().kind(Kind::Strict));
    let (supervisor, key) = world.connected().await;
    stop(supervisor).await;
    alter(&world, "CREATE TABLE kept AS SELECT * FROM grants");
    let supervisor = world.start().await;
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap();
    stop(supervisor).await;
    alter(
        &world,
        "CREATE TABLE newer AS SELECT * FROM grants; DELETE FROM grants; INSERT INTO grants SELECT * FROM kept",
    );

    let supervisor = world.start().await;
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    passing(&world, Duration::from_millis(500), caller).await.unwrap_err();
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, world.sim.requests(), world.sim.duplicate_spends()), (State::InDoubt, 1, 0));
    stop(supervisor).await;

    alter(&world, "DELETE FROM grants; INSERT INTO grants SELECT * FROM newer");
    let supervisor = world.start().await;
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap();
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (2, 0));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

#[tokio::test]
async fn a_store_without_the_check_value_of_its_keys_does_not_start() {
    let world = World::new(Profile::keycloak());
    let (supervisor, _) = world.connected().await;
    stop(supervisor).await;
    alter(&world, "DELETE FROM meta WHERE name = 'key_check'");
    let error = world.builder().start().await.err().unwrap().to_string();
    assert!(error.contains("no check value of its keys") && error.contains("restore the store"), "{error}");
}

#[tokio::test]
async fn an_attempt_whose_row_is_damaged_meanwhile_ends_and_its_response_is_kept() {
    let world = World::new(Profile::keycloak().kind(Kind::Strict));
    let database = world.store();
    let damage = move |point| {
        if point == Point::Answered {
            let mut raw = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
            raw.batch_execute(
                "PRAGMA busy_timeout = 5000; CREATE TABLE kept AS SELECT * FROM grants; UPDATE grants SET held = 'x'",
            )
            .unwrap();
        }
    };
    let supervisor = world.builder().at_points(damage).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    eventually("the attempt has ended", || {
        world.clock.advance(Duration::from_millis(200));
        world.sim.requests() == 1 && supervisor.testing().journal_pending() == 1 && supervisor.testing().attempts() == 0
    })
    .await;
    caller.abort();
    stop(supervisor).await;

    alter(&world, "DELETE FROM grants; INSERT INTO grants SELECT * FROM kept");
    let supervisor = world.start().await;
    eventually("the store has the response", || supervisor.testing().journal_pending() == 0).await;
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}
