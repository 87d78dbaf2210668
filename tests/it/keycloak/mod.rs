//! On a real Keycloak with strict rotation: a grant outlives its tokens, our restarts and the server's, and each
//! way in which Keycloak says no means what we take it for.
//!
//! `server` is Keycloak, `keeper` our own process under its readers, in `served` the program is. Time is real here.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod keeper;
mod refusals;
#[cfg(feature = "cli")]
mod served;
mod server;
mod unanswered;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use token_supervisor::{Cause, Error, Grant, State, TokenSupervisor, Warning, testing::stored_refresh_token};

use self::{
    keeper::{Configuration, Failures, Keeper, Report, builder, key},
    server::{CLIENT, CLIENT_SECRET, Keycloak, USER},
};
use crate::{
    real_time::{now, pass, polled_async},
    skip,
    support::{stop, within},
};

const FOLDER: &str = "TOKEN_SUPERVISOR_TEST_KEYCLOAK";

/// How long an access token of the realm lives.
const LIFE: Duration = Duration::from_secs(5);
/// How long the grant is kept while Keycloak is up: ten lives and more.
const FIRST_LIVES: Duration = Duration::from_secs(18);
const LAST_LIFE: Duration = Duration::from_secs(16);
/// How long before its end a token is due, at least (ms). Whatever holds up its refresh for longer shows.
const AHEAD: u64 = 1_000;
/// How long a refresh is waited for that nobody asks for, once Keycloak is back.
const BACKOFF: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_outlives_restarts_and_every_refusal_is_understood() {
    let Some(folder) = skip::variable(FOLDER) else {
        return skip::without("keycloak", &format!("{FOLDER} does not say where a Keycloak is (or is to be)"));
    };
    let mut server = Keycloak::start(PathBuf::from(folder)).await;
    a_grant_outlives_its_tokens_and_two_kinds_of_restarts(&mut server).await;
    tokio::join!(
        a_wrong_client_secret_destroys_nothing(&server),
        an_ended_session_and_a_revoked_consent_require_a_reconnect(&server),
        a_user_who_is_enabled_again_needs_no_consent(&server),
        refusals::are_told_with_their_evidence(&server),
        unanswered::a_spent_token_is_found_out_without_a_second_use(&server),
        async {
            #[cfg(feature = "cli")]
            served::from_init_to_tokens_that_outlive_a_killed_server(&server).await;
        },
    );
}

/// Not a test: the process that the test above starts.
#[test]
fn the_keeper_process() {
    keeper::run_if_asked();
}

async fn a_grant_outlives_its_tokens_and_two_kinds_of_restarts(server: &mut Keycloak) {
    let folder = TempDir::new().unwrap();
    let configuration =
        Configuration { url: server.url(), secret: CLIENT_SECRET.to_owned(), folder: folder.path().to_owned() };
    let supervisor = start(server, &folder, CLIENT_SECRET).await;
    let consent = server.consent(USER, "openid offline_access").await;
    supervisor.connect(&key(), consent.grant).await.unwrap();
    stop(supervisor).await;
    let began = now();

    let mut lives = Vec::new();
    for _ in 0..2 {
        let mut keeper = Keeper::start(&configuration).await;
        pass(FIRST_LIVES).await;
        keeper.sees("it goes on", Duration::from_secs(30), |_| true).await;
        let life = keeper.terminate().await;
        let held_up = held_up(&life);
        let none = life.errors.is_empty() && life.last_errors.is_empty();
        let errors = (&life.errors, &life.last_errors);
        assert!(none || held_up >= AHEAD, "errors while Keycloak was up: {errors:?}; held up for {held_up} ms");
        lives.push(life);
    }

    let mut keeper = Keeper::start(&configuration).await;
    let crashed = now();
    // No refresh is in flight, so that nothing is in doubt but whether Keycloak comes back.
    keeper.hold(true).await;
    server.crash().await;
    keeper.hold(false).await;
    keeper.sees("readers are told", Duration::from_secs(60), |report| !report.errors.is_empty()).await;
    let before = keeper.report().unwrap().generation;
    server.start_again().await;
    let back = now();
    // A backoff has grown with the outage; whoever knows that it is over need not wait for its end.
    let renewed = |report: &Report| report.generation > before;
    let after = match keeper.may_see(BACKOFF, renewed).await {
        Some(after) => after,
        None => {
            keeper.refresh_now();
            keeper.sees("a refresh", Duration::from_secs(30), renewed).await
        }
    };
    pass(LAST_LIFE).await;
    let life = keeper.terminate().await;
    let ended = now();
    assert!(life.last_errors.contains("connect_failed"), "nobody was refused: {:?}", life.last_errors);
    for (name, Failures { count, first, last }) in &life.errors {
        let explained = ["unavailable/idp_down", "unavailable/idp_held", "unavailable/in_doubt", "timeout"];
        let explained = explained.contains(&name.as_str());
        let during = *first >= crashed && *last <= after.renewed_at + 1_000 + life.stalled;
        assert!(explained && during, "{count} x {name}, {first} to {last}, Keycloak was gone {crashed} to {back}");
    }
    let told = |(name, Failures { count, first, last }): (&String, &Failures)| {
        format!("{count} {name} ({} to {} ms after the crash)", first - crashed, last - crashed)
    };
    let told = life.errors.iter().map(told).collect::<Vec<_>>().join(", ");
    let recovered = after.renewed_at.saturating_sub(back);
    lives.push(life);
    for life in &lives {
        sound(life);
    }
    for pair in lives.windows(2) {
        assert!(pair[1].first_generation >= pair[0].generation, "a generation was forgotten");
    }

    let supervisor = start(server, &folder, CLIENT_SECRET).await;
    within(supervisor.token(&key())).await.unwrap();
    settled(&supervisor, State::Fresh).await;
    refreshed(&supervisor).await;
    works(server, &supervisor).await;
    let generation = within(supervisor.status(&key())).await.unwrap().generation.get();
    stop(supervisor).await;

    let refused = server.events(&["REFRESH_TOKEN_ERROR"]).await;
    let refused: Vec<_> = refused.iter().map(|event| &event["error"]).collect();
    assert!(refused.is_empty(), "Keycloak refused refreshes: {refused:?}");
    let rotations = one_presentation_each(server, &consent.session).await;
    assert!(
        (generation - 1..=generation).contains(&rotations),
        "each refresh is a generation: {rotations}, {generation}"
    );
    let kept = Duration::from_millis((ended - began) - (after.renewed_at - crashed));
    assert!(rotations >= 10 && kept >= 10 * LIFE, "{rotations} rotations in {kept:?}");
    let sum = |count: fn(&Report) -> u64| lives.iter().map(count).sum::<u64>();
    println!(
        "{} readers, {} lifetimes ({:.0} s), {:.0} s without Keycloak, {} reads, {rotations} rotations, userinfo {} \
         accepted, slowest read {} ms, held up for {} ms at most; errors: {told}; \
         refreshed {recovered} ms after Keycloak was back",
        keeper::READERS,
        kept.as_secs() / LIFE.as_secs(),
        kept.as_secs_f64(),
        (back - crashed) as f64 / 1_000.0,
        sum(|life| life.reads),
        sum(|life| life.accepted),
        lives.iter().map(|life| life.slowest).max().unwrap_or_default(),
        lives[..2].iter().map(held_up).max().unwrap_or_default(),
    );
}

/// For how long the machine or Keycloak held something up, at most (ms).
fn held_up(life: &Report) -> u64 {
    life.stalled.max(life.slowest_use)
}

/// What every life of a keeper must look like.
fn sound(life: &Report) {
    let Report { expired_by, late_by, stalled, .. } = *life;
    assert_eq!(life.expired_seen, 0, "tokens were handed out that had expired when they were asked for");
    assert!(expired_by <= 100 + stalled, "a token was handed out expired, by {expired_by} ms; stalled: {stalled} ms");
    assert!(late_by <= 1_000 + stalled, "an answer came {late_by} ms after the deadline; stalled: {stalled} ms");
    assert_eq!(life.refused, 0, "userinfo refused tokens");
    assert!(life.accepted > 0, "nobody used a token");
    assert!(life.shutdown.is_some_and(|(_, abandoned)| abandoned == 0), "shutdown: {:?}", life.shutdown);
    assert!(!life.states.contains("reconnect_required"), "states: {:?}", life.states);
    // A deadline passes while it stops as at any other time.
    let stopping = life.errors_while_stopping.keys().all(|name| name.starts_with("unavailable") || name == "timeout");
    assert!(stopping, "while stopping: {:?}", life.errors_while_stopping);
}

/// By Keycloak's own events: each refresh token of the session was presented once, and to be replaced by the next.
async fn one_presentation_each(server: &Keycloak, session: &str) -> u64 {
    let events = server.events(&["LOGIN", "REFRESH_TOKEN"]).await;
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let detail = |event: &Value, name: &str| event["details"][name].as_str().expect("a token's id").to_owned();
    let login = of("LOGIN").into_iter().find(|event| event["sessionId"] == session).expect("the consent's event");
    let mut current = detail(login, "refresh_token_id");
    let mut presented = BTreeSet::new();
    for refresh in of("REFRESH_TOKEN").into_iter().filter(|event| event["sessionId"] == session) {
        let id = detail(refresh, "refresh_token_id");
        assert!(presented.insert(id.clone()), "a refresh token was presented twice");
        assert_eq!(id, current, "a refresh token was presented that is not the newest");
        current = detail(refresh, "updated_refresh_token_id");
    }
    presented.len() as u64
}

async fn a_wrong_client_secret_destroys_nothing(server: &Keycloak) {
    let folder = TempDir::new().unwrap();
    server.add_user("wrong-secret").await;
    let consent = server.consent("wrong-secret", "openid offline_access").await;
    let supervisor = start(server, &folder, "ts-test-secret-wrong").await;
    supervisor.connect(&key(), consent.grant).await.unwrap();
    let refused = |error: &Error| matches!(error, Error::Unavailable { cause: Cause::ClientRefused, .. });
    let error = within(supervisor.refresh_now(&key())).await.unwrap_err();
    assert!(refused(&error) && !error.is_transient(), "{error}");
    let error = no_token(&supervisor).await;
    assert!(refused(&error), "{error}");
    let status = within(supervisor.status(&key())).await.unwrap();
    assert_eq!(status.last_error.as_deref(), Some("unauthorized_client"));
    assert!(matches!(status.state, State::Backoff | State::Due | State::Refreshing), "{:?}", status.state);
    assert_eq!((status.reason, status.generation.get()), (None, 1));
    stop(supervisor).await;
    assert_eq!(stored(&folder).await, consent.refresh_token);

    let supervisor = start(server, &folder, CLIENT_SECRET).await;
    assert_eq!(refreshed(&supervisor).await, 2);
    works(server, &supervisor).await;
    stop(supervisor).await;
}

async fn an_ended_session_and_a_revoked_consent_require_a_reconnect(server: &Keycloak) {
    let user = server.add_user("ended").await;
    for scope in ["openid", "openid offline_access"] {
        let folder = TempDir::new().unwrap();
        let supervisor = start(server, &folder, CLIENT_SECRET).await;
        let consent = server.consent("ended", scope).await;
        supervisor.connect(&key(), consent.grant).await.unwrap();
        let ended = match scope {
            "openid" => format!("/sessions/{}", consent.session),
            _ => format!("/users/{user}/consents/{CLIENT}"),
        };
        server.admin(Method::DELETE, &ended, None).await;
        reconnect_required(&supervisor).await;

        let consent = server.consent("ended", scope).await;
        let status = supervisor.connect(&key(), consent.grant).await.unwrap();
        assert_eq!((status.reason, status.unchanged), (None, None));
        refreshed(&supervisor).await;
        works(server, &supervisor).await;
        stop(supervisor).await;
    }
}

async fn a_user_who_is_enabled_again_needs_no_consent(server: &Keycloak) {
    let folder = TempDir::new().unwrap();
    let user = server.add_user("disabled").await;
    let consent = server.consent("disabled", "openid offline_access").await;
    let supervisor = start(server, &folder, CLIENT_SECRET).await;
    supervisor.connect(&key(), consent.grant).await.unwrap();
    refreshed(&supervisor).await;
    server.enable(&user, false).await;
    let generation = reconnect_required(&supervisor).await;
    server.enable(&user, true).await;
    stop(supervisor).await;
    let current = stored(&folder).await;
    assert_ne!(current, consent.refresh_token);

    let supervisor = start(server, &folder, CLIENT_SECRET).await;
    // The first one is spent: it neither changes anything nor reaches Keycloak, for which it would be a reuse.
    let spent = Grant::new(&*consent.access_token).refresh_token(&*consent.refresh_token);
    let status = supervisor.connect(&key(), spent).await.unwrap();
    assert_eq!(status.state, State::ReconnectRequired);
    let same = Grant::new(&*consent.access_token).refresh_token(&*current);
    let status = supervisor.connect(&key(), same).await.unwrap();
    assert_eq!((status.unchanged, status.reason, status.generation.get()), (None, None, generation));
    polled_async("a refresh", Duration::from_secs(30), async || {
        let token = supervisor.token(&key()).await.unwrap();
        (token.generation().get() > generation).then_some(())
    })
    .await;
    works(server, &supervisor).await;
    stop(supervisor).await;
}

async fn start(server: &Keycloak, folder: &TempDir, secret: &str) -> TokenSupervisor {
    builder(folder.path(), &server.url(), secret).start().await.unwrap()
}

/// Refreshes until there is a new generation, and says which.
async fn refreshed(supervisor: &TokenSupervisor) -> u64 {
    polled_async("a refresh", Duration::from_secs(30), async || {
        let refreshed = supervisor.refresh_now(&key()).await.unwrap();
        refreshed.refreshed.then(|| refreshed.status.generation.get())
    })
    .await
}

async fn works(server: &Keycloak, supervisor: &TokenSupervisor) {
    // On its way even a good token may end.
    polled_async("a token is accepted", Duration::from_secs(30), async || {
        let token = within(supervisor.token(&key())).await.unwrap();
        server.accepts(token.access_token().expose_secret()).await.then_some(())
    })
    .await;
}

async fn settled(supervisor: &TokenSupervisor, state: State) {
    polled_async(state.as_str(), Duration::from_secs(30), async || {
        (supervisor.status(&key()).await.unwrap().state == state).then_some(())
    })
    .await;
}

/// Keycloak's refusal of the refresh token is passed on: to whoever refreshes at once, to readers when their token ends.
/// The generation it ends with.
async fn reconnect_required(supervisor: &TokenSupervisor) -> u64 {
    let refused = |error: &Error| matches!(error, Error::ReconnectRequired { reason, .. } if reason == "invalid_grant");
    let error =
        // One that was under way before Keycloak knew may still succeed.
        polled_async("a refusal", Duration::from_secs(30), async || supervisor.refresh_now(&key()).await.err()).await;
    assert!(refused(&error), "{error}");
    if let Some(token) = supervisor.cached(&key()) {
        assert_eq!(token.warning(), Some(Warning::ReconnectRequired));
    }
    let error = no_token(supervisor).await;
    assert!(refused(&error), "{error}");
    let status = within(supervisor.status(&key())).await.unwrap();
    assert_eq!((status.state, status.reason.as_deref()), (State::ReconnectRequired, Some("invalid_grant")));
    status.generation.get()
}

/// The error of readers once the token that they have been given so far is over.
async fn no_token(supervisor: &TokenSupervisor) -> Error {
    polled_async("the token ends", Duration::from_secs(60), async || {
        // A caller's deadline may fall into an attempt: nothing is known then but that.
        supervisor.token(&key()).await.err().filter(|error| *error != Error::Timeout)
    })
    .await
}

/// The stored refresh token. Its supervisor must be stopped.
async fn stored(folder: &TempDir) -> Arc<str> {
    let keyring = token_supervisor::Keyring::from_file(folder.path().join("tokens.keys")).unwrap();
    let tokens = stored_refresh_token(&folder.path().join("tokens.db"), &keyring, &[key()]).await.unwrap();
    tokens[0].as_ref().expect("a refresh token is stored").expose_secret().into()
}
