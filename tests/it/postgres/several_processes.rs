//! Two supervisors at one store, as two processes have it, in real time.

use token_supervisor::{
    Freshness, Keyring, Migrate, RefreshSettings, State, TokenKey, TokenSupervisor,
    testing::{Profile, SimulatedIdp, Standing},
};

use super::server;
use crate::support::{stop, within};

#[tokio::test]
async fn a_grant_that_one_process_connects_is_refreshed_and_disconnected_by_another() {
    let Some(server) = server::shared() else { return };
    let (sim, keyring, url) = (SimulatedIdp::start(Profile::gitlab()).unwrap(), Keyring::generate(), server.url());
    let folder = tempfile::TempDir::new().unwrap();
    let start = async |name: &str| {
        TokenSupervisor::builder()
            .store(&url)
            .migrate(Migrate::Auto)
            .journal(folder.path().join(name))
            .keyring(keyring.clone())
            .refresh(RefreshSettings::default())
            .idp("idp", sim.idp())
            .start()
            .await
            .unwrap()
    };
    let (one, two) = (start("one").await, start("two").await);
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

    within(two.disconnect(&key, token_supervisor::Revoke::No)).await.unwrap();
    stop(two).await;
    stop(one).await;
    let restarted = start("one").await;
    assert_eq!(within(restarted.status(&key)).await.unwrap().state, State::Revoked);
    stop(restarted).await;
}
