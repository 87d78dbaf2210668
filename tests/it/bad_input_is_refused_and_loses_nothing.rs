//! Every public function answers bad input with what to do, without panicking and without losing anything.

use std::time::Duration;

use token_supervisor::{
    Acquire, Error, Generation, Grant, Idp, Keyring, RefreshSettings, Revoke, TokenKey, TokenSupervisor,
    testing::Profile,
};

use crate::support::{World, ask, within};

fn bad_keys() -> Vec<TokenKey> {
    let long = "x".repeat(300);
    vec![
        TokenKey::at("idp").user(""),
        TokenKey::at("idp").user("a\u{0}b"),
        TokenKey::at("idp").user(&long),
        TokenKey::at("").user("alice"),
        TokenKey::at("NoSuchThing").user("alice"),
        TokenKey::at(&long).user("alice"),
        TokenKey::at("idp").user("alice").account("\n"),
    ]
}

#[tokio::test]
async fn bad_keys_are_invalid_requests_everywhere() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    for key in bad_keys() {
        let invalid = |error: Error| assert_eq!(error.code(), "invalid_request", "{key:?}");
        assert!(supervisor.cached(&key).is_none());
        invalid(within(supervisor.token(&key)).await.unwrap_err());
        invalid(within(supervisor.watch(&key)).await.unwrap_err());
        invalid(within(supervisor.status(&key)).await.unwrap_err());
        invalid(within(supervisor.connect(&key, Grant::new("ts-test-secret-x"))).await.unwrap_err());
        invalid(within(supervisor.refresh_now(&key)).await.unwrap_err());
        invalid(within(supervisor.report_rejected(&key, Generation::new(1))).await.unwrap_err());
        invalid(within(supervisor.require_reconnect(&key, "x")).await.unwrap_err());
        invalid(within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap_err());
        invalid(within(supervisor.registry().send(Acquire::new(&key))).await.unwrap_err());
    }
}

#[tokio::test]
async fn unknown_names_are_told_apart_from_absent_grants() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let unknown = TokenKey::at("elsewhere").user("alice");
    assert_eq!(within(supervisor.token(&unknown)).await.unwrap_err(), Error::UnknownIdp);
    let absent = TokenKey::at("idp").user("alice");
    assert_eq!(within(supervisor.token(&absent)).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.report_rejected(&absent, Generation::new(7))).await.unwrap().generation.get(), 0);
    assert_eq!(within(supervisor.require_reconnect(&absent, "x")).await.unwrap_err(), Error::NotConnected);
    assert_eq!(within(supervisor.disconnect(&absent, Revoke::No)).await.unwrap_err(), Error::NotConnected);
}

#[tokio::test]
async fn bad_grants_and_reasons_are_refused_and_the_stored_grant_stays() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    for grant in [
        Grant::new(""),
        Grant::new("with space"),
        Grant::new("ts-test-secret-a").refresh_token("line\nbreak"),
        Grant::new("ts-test-secret-a").scope("\u{7}"),
        Grant::new("x".repeat(100_000)),
    ] {
        assert_eq!(within(supervisor.connect(&key, grant)).await.unwrap_err().code(), "invalid_request");
    }
    let stranger = Grant::new("ts-test-secret-a").refresh_token("ts-test-secret-r").client_id("somebody-else");
    let error = within(supervisor.connect(&key, stranger)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: token_supervisor::Cause::ClientUnknown, .. }), "{error}");
    for reason in ["", "\n", &"x".repeat(300)] {
        assert_eq!(within(supervisor.require_reconnect(&key, reason)).await.unwrap_err().code(), "invalid_request");
    }
    let token = within(supervisor.call(Acquire::new(&key).timeout(Duration::ZERO).min_ttl(Duration::ZERO))).await;
    assert_eq!(token.unwrap().generation().get(), 1);
    let endless = within(supervisor.call(Acquire::new(&key).min_ttl(Duration::MAX).timeout(Duration::MAX))).await;
    assert_eq!(endless.unwrap_err().code(), "min_ttl_unsatisfiable");
}

#[tokio::test]
async fn a_grant_is_never_refreshed_with_another_client() {
    let world = World::new(Profile::keycloak());
    let (supervisor, key) = world.connected().await;
    crate::support::stop(supervisor).await;
    let other = Idp::oauth2(world.sim.token_url(), "another-client", "ts-test-secret-other");
    let supervisor = world.bare_builder().idp("idp", other).start().await.unwrap();
    world.clock.advance(crate::support::LIFE);
    let error = within(supervisor.token(&key)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: token_supervisor::Cause::ClientUnknown, .. }), "{error}");
    assert_eq!(world.sim.requests(), 0);
}

#[tokio::test]
async fn more_waiters_than_allowed_are_told_to_slow_down() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.builder().waiters_per_grant(10).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.sim.next(token_supervisor::testing::Fault::Hang);
    world.clock.advance(crate::support::LIFE);
    let callers: Vec<_> = (0..50).map(|_| ask(&supervisor, &key)).collect();
    crate::support::eventually("the rest is refused", || {
        callers.iter().filter(|caller| caller.is_finished()).count() == 40
    })
    .await;
    crate::support::eventually("the request hangs", || world.sim.requests() == 1).await;
    world.sim.release();
    let mut served = 0;
    for caller in callers {
        match within(caller).await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => assert!(error.retry_after().is_some(), "{error}"),
        }
    }
    assert!(served <= 10);
}

#[tokio::test]
async fn a_builder_says_what_is_missing_or_contradictory() {
    let world = World::new(Profile::gitlab());
    let message = |error: Error| error.to_string();
    let start = |builder: token_supervisor::Builder| within(builder.start());
    let missing = start(TokenSupervisor::builder()).await.unwrap_err();
    assert!(message(missing).contains("no store"));
    let missing = start(TokenSupervisor::builder().store("sqlite://x.db")).await.unwrap_err();
    assert!(message(missing).contains("no key ring"));
    let elsewhere = start(world.builder().store("mysql://x")).await.unwrap_err();
    assert!(message(elsewhere).contains("sqlite://PATH"));
    let nowhere = start(world.builder().store("sqlite:///no/such/folder/x.db")).await.unwrap_err();
    assert!(message(nowhere).contains("/no/such/folder"));
    let twice = start(world.builder().idp("idp", world.sim.idp())).await.unwrap_err();
    assert!(message(twice).contains("twice"));
    let name = start(world.builder().idp("Bad Name", world.sim.idp())).await.unwrap_err();
    assert!(message(name).contains("[a-z0-9]"));
    let plain = start(world.builder().idp("x", Idp::oauth2("http://example.com/t", "id", "ts-test-secret-s"))).await;
    assert!(message(plain.unwrap_err()).contains("https"));
    let grace = world.sim.idp().reuse_grace(Duration::from_secs(30));
    let short = start(world.bare_builder().idp("idp", grace)).await.unwrap_err();
    assert!(message(short).contains("must be shorter than the reuse grace"));
    let zero = start(world.builder().refresh(RefreshSettings::default().lease(Duration::ZERO))).await.unwrap_err();
    assert!(message(zero).contains("longer than zero"));
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_noticed_at_start() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    crate::support::stop(supervisor).await;
    let error = within(world.builder().keyring(Keyring::generate()).start()).await.unwrap_err();
    assert!(matches!(error, Error::Start(_)) && error.to_string().contains("key"), "{error}");
    let missing = Keyring::from_file(world.folder.path().join("no.keys")).unwrap_err();
    assert!(missing.to_string().contains("no.keys"), "{missing}");
    let damaged = world.folder.path().join("damaged.keys");
    std::fs::write(&damaged, b"{\"version\":1,\"fingerprint_key\":\"ts-test-secret-k\"}").unwrap();
    let damaged = Keyring::from_file(&damaged).unwrap_err();
    assert!(!damaged.to_string().contains("ts-test-secret"), "no key material in errors");
    let file = world.folder.path().join("good.keys");
    world.keyring.write_new(&file).unwrap();
    assert!(world.keyring.write_new(&file).is_err(), "a key file is never overwritten");
    let keyring = Keyring::from_file(&file).unwrap();
    let supervisor = within(world.builder().keyring(keyring).start()).await.unwrap();
    assert_eq!(within(supervisor.token(&key)).await.unwrap().generation().get(), 1);
}

#[test]
fn nothing_secret_is_in_debug_output() {
    let world = World::new(Profile::gitlab());
    let grant = world.sim.consent("alice").extra("id_token", "ts-test-secret-extra".into());
    let idp = world.sim.idp();
    for text in [format!("{:?}", world.keyring), format!("{idp:?}"), format!("{:?}", world.builder())] {
        assert!(!text.contains("ts-test-secret"), "a secret is in a Debug output");
    }
    assert!(!format!("{grant:?}").contains("ts-test-secret"), "a secret is in a grant's Debug output");
}
