//! On a real OpenID provider that ends a grant when a refresh token is used twice: every refresh token is spent once,
//! by the provider's own account.
//!
//! `provider` is the server and what it has seen; here is the library, in `served` and `killed` the program. Time is real.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod killed;
mod provider;
mod served;

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::join_all;
use tempfile::TempDir;
use token_supervisor::{
    Builder, Error, Expiry, Keyring, RefreshSettings, State, TokenKey, TokenSupervisor, presets::oauth2,
};

use self::provider::{CLIENT, CLIENT_SECRET, LIFE, Provider};
use crate::{
    real_time::{now, pass, polled_async},
    support::{ask, stop, within},
};

const READERS: usize = 200;
/// For how many lives of an access token a grant is kept.
const LIVES: u32 = 8;
/// Every so many readers one uses its tokens.
const USES_EACH: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_outlives_its_tokens_under_readers() {
    let Some(provider) = Provider::start().await else { return };
    let folder = TempDir::new().unwrap();
    let supervisor = builder(folder.path(), &provider).start().await.unwrap();
    supervisor.connect(&key(), provider.consent(key().user()).await.grant()).await.unwrap();
    let until = now() + (LIVES * LIFE).as_millis() as u64;
    let used: usize =
        join_all((0..READERS).map(|number| read(number, &supervisor, &provider, until))).await.into_iter().sum();
    let status = within(supervisor.status(&key())).await.unwrap();
    assert_eq!(status.last_error, None);
    stop(supervisor).await;
    let (spent, generation) = (provider.spent_once_each(key().user()), status.generation.get());
    // More often than once in a life, unless the machine was held up.
    assert!(spent >= u64::from(LIVES / 2) && used > READERS / USES_EACH, "{spent} spent, {used} uses");
    assert!((generation - 1..=generation).contains(&spent), "each refresh is a generation: {spent}, {generation}");
    println!("{READERS} readers, {LIVES} lifetimes, {used} uses, {spent} refresh tokens spent once each");
}

/// Reads tokens, and may use them; how many the provider accepted.
async fn read(number: usize, supervisor: &TokenSupervisor, provider: &Provider, until: u64) -> usize {
    let mut used = 0;
    while now() < until {
        let token = supervisor.token(&key()).await.unwrap();
        let Expiry::At(end) = token.expiry() else { panic!("the provider tells when tokens end") };
        let end = end.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        if number.is_multiple_of(USES_EACH) {
            let accepted = provider.accepts(token.access_token().expose_secret()).await;
            // Its way takes its time, and nobody knows how old a consent's token was when it came.
            assert!(accepted || now() >= end || token.generation().get() == 1, "a good token is refused");
            used += usize::from(accepted);
        }
        pass(Duration::from_millis(500)).await;
    }
    used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_an_expired_token_spend_one_refresh_token() {
    let Some(provider) = Provider::start().await else { return };
    let folder = TempDir::new().unwrap();
    let supervisor = builder(folder.path(), &provider).start().await.unwrap();
    supervisor.connect(&key(), provider.consent(key().user()).await.grant()).await.unwrap();
    stop(supervisor).await;
    pass(LIFE).await;
    let supervisor = builder(folder.path(), &provider).on_demand().start().await.unwrap();
    let (before, asked) = (1 + provider.spent_once_each(key().user()), now());
    let readers: Vec<_> = (0..READERS).map(|_| ask(&supervisor, &key())).collect();
    for token in within(join_all(readers)).await {
        assert!(token.unwrap().unwrap().generation().get() > before, "the token has ended");
    }
    stop(supervisor).await;
    let (took, spent) = (now() - asked, 1 + provider.spent_once_each(key().user()) - before);
    // On a busy machine the new token may be due before everybody has it.
    assert!(spent <= 1 + took / (LIFE / 3).as_millis() as u64, "{spent} for {READERS} readers, in {took} ms");
}

/// Without this nothing above would mean anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_use_ends_the_grant_for_everybody() {
    let Some(provider) = Provider::start().await else { return };
    let folder = TempDir::new().unwrap();
    let supervisor = builder(folder.path(), &provider).start().await.unwrap();
    let consent = provider.consent(key().user()).await;
    let theirs = provider.spend(&consent.refresh_token()).await.expect("the first use is fine");
    supervisor.connect(&key(), consent.grant()).await.unwrap();
    let error = within(supervisor.refresh_now(&key())).await.unwrap_err();
    assert!(matches!(&error, Error::ReconnectRequired { reason, .. } if reason == "invalid_grant"), "{error}");
    let status = within(supervisor.status(&key())).await.unwrap();
    assert_eq!(status.state, State::ReconnectRequired);
    assert_eq!(status.evidence.unwrap().to_string(), "invalid_grant (400)");
    assert_eq!(provider.spend(&theirs).await, Err("invalid_grant".to_owned()), "the newest token is dead too");
    let seen = provider.story(key().user());
    let seen: Vec<_> = seen.iter().map(|event| event.detail.as_deref().unwrap_or(&event.event)).collect();
    let reuse = ["grant.revoked", "refresh token already used", "refresh token not found"];
    assert_eq!(seen, [&["grant.success"; 2][..], &reuse].concat());

    supervisor.connect(&key(), provider.consent(key().user()).await.grant()).await.unwrap();
    let refreshed = polled_async("a refresh", Duration::from_secs(30), async || {
        let refreshed = supervisor.refresh_now(&key()).await.unwrap();
        refreshed.refreshed.then_some(refreshed.status.state)
    });
    assert_eq!(refreshed.await, State::Fresh);
    stop(supervisor).await;
}

fn key() -> TokenKey {
    TokenKey::at("sso").user("alice")
}

/// A supervisor on the files in `folder`.
fn builder(folder: &Path, provider: &Provider) -> Builder {
    let keys = folder.join("tokens.keys");
    if !keys.exists() {
        Keyring::generate().write_new(&keys).unwrap();
    }
    TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.join("tokens.db").display()))
        .keyring(Keyring::from_file(&keys).unwrap())
        .refresh(RefreshSettings::default())
        .idp("sso", oauth2(provider.token_url(), CLIENT, CLIENT_SECRET))
}
