//! A store that was restored from a backup gets back what it has lost from the history beside the journal: nobody must
//! reconnect, and no refresh token is sent twice.

use std::time::Duration;

use token_supervisor::{
    Revoke, State, TokenKey, TokenSupervisor,
    testing::{Profile, Standing},
};

use super::support::{LIFE, World, eventually, stop, within};

const GRANTS: usize = 200;

fn keys(grants: usize) -> Vec<TokenKey> {
    (0..grants).map(|user| TokenKey::at("idp").user(format!("user-{user}"))).collect()
}

async fn connect(world: &World, supervisor: &TokenSupervisor, keys: &[TokenKey]) {
    for key in keys {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
}

/// Lets all grants come due, and waits until so many were refreshed.
async fn refresh_all(world: &World, supervisor: &TokenSupervisor, grants: usize) {
    let expected = world.sim.requests() + grants as u64;
    world.clock.advance(LIFE);
    eventually("all are refreshed", || {
        world.clock.advance(Duration::from_millis(20));
        world.sim.requests() == expected && supervisor.testing().attempts() == 0
    })
    .await;
}

async fn released(world: &World, supervisor: &TokenSupervisor) {
    eventually("the providers are released", || {
        world.clock.advance(Duration::from_millis(20));
        supervisor.idps()[0].held.is_none()
    })
    .await;
}

async fn all_current(world: &World, supervisor: &TokenSupervisor, keys: &[TokenKey]) {
    for key in keys {
        let token = within(supervisor.testing().stored_refresh_token(key)).await.unwrap().unwrap();
        assert_eq!(world.sim.standing(&token), Standing::Current, "{key:?}");
    }
}

#[tokio::test]
async fn what_was_refreshed_since_the_backup_comes_back() {
    let world = World::new(Profile::gitlab());
    let keys = keys(GRANTS);
    let supervisor = world.start().await;
    connect(&world, &supervisor, &keys).await;
    stop(supervisor).await;
    let backup = world.back_up();
    let supervisor = world.start().await;
    refresh_all(&world, &supervisor, GRANTS).await;
    refresh_all(&world, &supervisor, GRANTS).await;
    stop(supervisor).await;

    world.restore(&backup);
    let supervisor = world.start().await;
    released(&world, &supervisor).await;
    all_current(&world, &supervisor, &keys).await;
    refresh_all(&world, &supervisor, GRANTS).await;
    all_current(&world, &supervisor, &keys).await;
    for key in &keys {
        assert_eq!(within(supervisor.status(key)).await.unwrap().state, State::Fresh, "{key:?}");
    }
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (3 * GRANTS as u64, 0));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_replay_that_was_interrupted_starts_over() {
    let world = World::new(Profile::gitlab());
    let keys = keys(GRANTS);
    let supervisor = world.start().await;
    connect(&world, &supervisor, &keys).await;
    stop(supervisor).await;
    let backup = world.back_up();
    let supervisor = world.start().await;
    refresh_all(&world, &supervisor, GRANTS).await;
    stop(supervisor).await;

    world.restore(&backup);
    // Each is dropped while it replays, perhaps at the end.
    for _ in 0..3 {
        drop(started(&world).await);
    }
    let supervisor = started(&world).await;
    released(&world, &supervisor).await;
    all_current(&world, &supervisor, &keys).await;
    refresh_all(&world, &supervisor, GRANTS).await;
    all_current(&world, &supervisor, &keys).await;
    assert_eq!(world.sim.duplicate_spends(), 0);
    stop(supervisor).await;
}

/// Starts a supervisor as soon as the one before has let go of the store.
async fn started(world: &World) -> TokenSupervisor {
    within(async {
        loop {
            if let Ok(supervisor) = world.builder().start().await {
                return supervisor;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn connects_and_disconnects_since_the_backup_come_back() {
    let world = World::new(Profile::gitlab());
    let [ended, again, restored, new, brief] =
        ["ended", "again", "restored", "new", "brief"].map(|user| TokenKey::at("idp").user(user));
    let supervisor = world.start().await;
    connect(&world, &supervisor, &[ended.clone(), again.clone(), restored.clone()]).await;
    stop(supervisor).await;
    let backup = world.back_up();
    let supervisor = world.start().await;
    within(supervisor.refresh_now(&ended)).await.unwrap();
    within(supervisor.disconnect(&ended, Revoke::No)).await.unwrap();
    within(supervisor.disconnect(&again, Revoke::No)).await.unwrap();
    connect(&world, &supervisor, &[again.clone(), new.clone(), brief.clone()]).await;
    within(supervisor.disconnect(&restored, Revoke::No)).await.unwrap();
    within(supervisor.restore(&restored)).await.unwrap();
    within(supervisor.disconnect(&brief, Revoke::No)).await.unwrap();
    refresh_all(&world, &supervisor, 3).await;
    stop(supervisor).await;

    world.restore(&backup);
    let supervisor = world.start().await;
    released(&world, &supervisor).await;
    for key in [&ended, &brief] {
        assert_eq!(within(supervisor.status(key)).await.unwrap().state, State::Revoked, "{key:?}");
    }
    let live = [again, restored, new];
    all_current(&world, &supervisor, &live).await;
    refresh_all(&world, &supervisor, 3).await;
    all_current(&world, &supervisor, &live).await;
    // A disconnect that is taken back now brings the token of the refresh before it.
    within(supervisor.restore(&ended)).await.unwrap();
    within(supervisor.refresh_now(&ended)).await.unwrap();
    all_current(&world, &supervisor, &[ended]).await;
    assert_eq!(world.sim.duplicate_spends(), 0);
    stop(supervisor).await;
}

#[tokio::test]
async fn without_a_history_only_grants_that_came_due_since_the_backup_are_in_doubt() {
    let world = World::new(Profile::gitlab());
    let keys = keys(20);
    let (due, later) = keys.split_at(10);
    let start = async || world.builder().history_kept(Duration::ZERO).start().await.unwrap();
    let supervisor = start().await;
    connect(&world, &supervisor, due).await;
    world.clock.advance(LIFE / 2);
    connect(&world, &supervisor, later).await;
    stop(supervisor).await;
    let backup = world.back_up();
    let supervisor = start().await;
    world.clock.advance(LIFE / 2);
    eventually("those are refreshed", || {
        world.clock.advance(Duration::from_millis(20));
        world.sim.requests() == 10 && supervisor.testing().attempts() == 0
    })
    .await;
    stop(supervisor).await;

    world.restore(&backup);
    let supervisor = start().await;
    released(&world, &supervisor).await;
    for key in due {
        let state = within(supervisor.status(key)).await.unwrap().state;
        assert!(matches!(state, State::InDoubt | State::ReconnectRequired), "{key:?}: {state:?}");
    }
    for key in later {
        assert_eq!(within(supervisor.status(key)).await.unwrap().state, State::Fresh, "{key:?}");
    }
    world.clock.advance(LIFE / 2);
    eventually("the others are refreshed", || {
        world.clock.advance(Duration::from_millis(20));
        world.sim.requests() == 20 && supervisor.testing().attempts() == 0
    })
    .await;
    all_current(&world, &supervisor, later).await;
    assert_eq!(world.sim.duplicate_spends(), 0);
    stop(supervisor).await;
}

#[tokio::test]
async fn a_full_disk_of_the_history_holds_up_no_refresh() {
    let world = World::new(Profile::gitlab());
    let keys = keys(20);
    let supervisor = world.start().await;
    connect(&world, &supervisor, &keys).await;
    stop(supervisor).await;
    let backup = world.back_up();
    let supervisor = world.start().await;
    supervisor.testing().history_full(true);
    refresh_all(&world, &supervisor, 20).await;
    stop(supervisor).await;

    // What could not be written is missing, and that is known.
    world.restore(&backup);
    let supervisor = world.start().await;
    released(&world, &supervisor).await;
    for key in &keys {
        let state = within(supervisor.status(key)).await.unwrap().state;
        assert!(matches!(state, State::InDoubt | State::ReconnectRequired), "{key:?}: {state:?}");
    }
    assert_eq!(world.sim.duplicate_spends(), 0);
    stop(supervisor).await;
}

#[tokio::test]
async fn a_store_that_did_not_go_back_is_left_alone() {
    let world = World::new(Profile::gitlab());
    let keys = keys(5);
    let supervisor = world.start().await;
    connect(&world, &supervisor, &keys).await;
    refresh_all(&world, &supervisor, 5).await;
    stop(supervisor).await;
    let supervisor = world.start().await;
    assert!(supervisor.idps()[0].held.is_none());
    refresh_all(&world, &supervisor, 5).await;
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (10, 0));
    stop(supervisor).await;
}
