//! No refresh token is spent while its response could not be kept: on a full disk, or where the files are no longer those
//! that the next process finds. Valid tokens are served, and refreshes go on by themselves.

use std::{fs, path::PathBuf, time::Duration};

use token_supervisor::{
    Cause, Error, State, TokenKey, TokenSupervisor,
    testing::{Profile, Standing},
};

use crate::{
    support::{LIFE, World, ask, eventually, passing, stop, within},
    the_journal_holds_what_the_store_does_not::left_in_the_journal,
};

/// Asks for the expired token until its deadline, and returns why there is none.
async fn refused(world: &World, supervisor: &TokenSupervisor, key: &TokenKey) -> Error {
    let asked = token_supervisor::Acquire::new(key).timeout(Duration::ZERO);
    let (supervisor, caller) = (supervisor.clone(), supervisor.clone());
    let caller = tokio::spawn(async move { caller.call(asked).await });
    let error = passing(world, Duration::from_millis(100), caller).await.unwrap_err();
    eventually("the attempt has ended", || supervisor.testing().attempts() == 0).await;
    error
}

async fn goes_on(world: &World, supervisor: TokenSupervisor, key: &TokenKey) {
    let caller = ask(&supervisor, key);
    assert_eq!(passing(world, Duration::from_millis(200), caller).await.unwrap().generation().get(), 2);
    assert!(!supervisor.is_disk_full() && !supervisor.is_store_down());
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
    assert_eq!(world.stored(supervisor, key).await, Standing::Current);
}

#[tokio::test]
async fn a_full_disk_spends_nothing() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    supervisor.testing().disk_full(true);
    within(supervisor.token(&key)).await.unwrap();
    assert!(supervisor.is_disk_full() && !supervisor.is_store_down());
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &key);
    let error = passing(&world, Duration::from_secs(1), caller).await.unwrap_err();
    assert!(matches!(error, Error::Timeout | Error::Unavailable { cause: Cause::DiskFull, .. }), "{error}");
    let error = refused(&world, &supervisor, &key).await;
    assert!(matches!(error, Error::Timeout | Error::Unavailable { cause: Cause::DiskFull, .. }), "{error}");
    assert_eq!(world.sim.requests(), 0);
    supervisor.testing().disk_full(false);
    goes_on(&world, supervisor, &key).await;
}

/// The path of the one journal in the journal's folder.
fn journal_file(world: &World) -> PathBuf {
    let files = fs::read_dir(world.folder.path().join("tokens.journal")).unwrap();
    let mut journals =
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "journal"));
    let (journal, None) = (journals.next().unwrap(), journals.next()) else { panic!("several journals") };
    journal
}

#[tokio::test]
async fn files_that_were_moved_away_are_noticed_before_anything_is_sent() {
    let paths: [fn(&World) -> PathBuf; 3] =
        [World::store, |world| world.store().with_extension("db-wal"), journal_file];
    for path in paths {
        let world = World::new(Profile::keycloak());
        let (supervisor, key) = world.connected().await;
        let (path, aside) = (path(&world), world.folder.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        world.clock.advance(LIFE);
        let caller = ask(&supervisor, &key);
        let error = passing(&world, Duration::from_secs(1), caller).await.unwrap_err();
        assert!(matches!(error, Error::Timeout | Error::Unavailable { cause: Cause::StoreDown, .. }), "{error}");
        assert!(supervisor.is_store_down(), "{}", path.display());
        // Another file in its place is not the same.
        fs::copy(&aside, &path).unwrap();
        let caller = ask(&supervisor, &key);
        passing(&world, Duration::from_secs(1), caller).await.unwrap_err();
        assert_eq!(world.sim.requests(), 0, "{}", path.display());
        fs::rename(&aside, &path).unwrap();
        goes_on(&world, supervisor, &key).await;
    }
}

#[tokio::test]
async fn a_response_whose_journal_is_damaged_leaves_a_doubt_and_a_good_copy_ends_it() {
    let world = World::new(Profile::keycloak().kind(token_supervisor::testing::Kind::Strict));
    let (supervisor, key) = left_in_the_journal(&world).await;
    stop(supervisor).await;

    let path = journal_file(&world);
    let good = fs::read(&path).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() - 9] ^= 4;
    fs::write(&path, &damaged).unwrap();
    let supervisor = world.start().await;
    let aside = path.with_extension("damaged");
    assert_eq!(fs::read(&aside).unwrap(), damaged);
    assert_eq!(supervisor.damaged_journals(), std::slice::from_ref(&aside));
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(30));
        let status = within(supervisor.status(&key)).await.unwrap();
        assert!(matches!(status.state, State::InDoubt | State::ReconnectRequired), "{status:?}");
    }
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0), "the spent token was sent again");
    stop(supervisor).await;

    fs::write(&path, &good).unwrap();
    fs::remove_file(&aside).unwrap();
    let supervisor = world.start().await;
    eventually("the store has the response", || supervisor.testing().journal_pending() == 0).await;
    assert!(supervisor.damaged_journals().is_empty());
    assert_eq!(within(supervisor.status(&key)).await.unwrap().generation.get(), 2);
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}
