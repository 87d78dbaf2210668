//! Grants are listed in pages and by what they are doing; all of a user's end at once; what is left of one is purged in
//! time, and no replay brings it back.

use std::time::Duration;

use token_supervisor::{
    AccessToken, Cause, Cursor, Disconnect, Error, Expiry, Filter, Generation, Grant, Page, Purge, Revoke, State,
    Status, TokenKey, TokenSupervisor, Unchanged,
    testing::{Fault, Profile, StoreFault},
};

use super::support::{LIFE, World, ask, eventually, passing, stop, until_purged, within};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn key(user: &str) -> TokenKey {
    TokenKey::at("idp").user(user)
}

async fn connect(world: &World, supervisor: &TokenSupervisor, user: &str) -> TokenKey {
    within(supervisor.connect(&key(user), world.sim.consent(user))).await.unwrap();
    key(user)
}

/// Every page, one after the other.
async fn users(supervisor: &TokenSupervisor, filter: Filter) -> Vec<String> {
    let (mut users, mut filter) = (Vec::new(), filter);
    loop {
        let Page { items, next, .. } = within(supervisor.list(filter.clone())).await.unwrap();
        users.extend(items.iter().map(|(key, _)| key.user().to_owned()));
        match next {
            // As it travels in a URL.
            Some(next) => filter = filter.after(next.to_string().parse().unwrap()),
            None => return users,
        }
    }
}

#[tokio::test]
async fn grants_are_listed_by_their_state_at_the_time_of_asking_before_they_are_paged() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    for user in ["gone", "held", "refused"] {
        connect(&world, &supervisor, user).await;
    }
    within(supervisor.hold(&key("held"), "by hand")).await.unwrap();
    within(supervisor.require_reconnect(&key("refused"), "left")).await.unwrap();
    within(supervisor.disconnect(&key("gone"), Revoke::No)).await.unwrap();
    let state = |state| Filter::new().state(state).limit(1);
    assert_eq!(users(&supervisor, state(State::Fresh)).await, ["held"]);
    assert_eq!(users(&supervisor, state(State::Due)).await, [""; 0]);
    // Nothing is written: it is the time that makes it due.
    world.clock.advance(LIFE);
    for number in 0..6 {
        connect(&world, &supervisor, &format!("many-{number}")).await;
    }
    assert_eq!(users(&supervisor, state(State::Due)).await, ["held"]);
    assert_eq!(users(&supervisor, state(State::ReconnectRequired)).await, ["refused"]);
    assert_eq!(users(&supervisor, state(State::Revoked)).await, ["gone"]);
    assert_eq!(users(&supervisor, state(State::Due).state(State::Revoked)).await, ["gone", "held"]);
    assert_eq!(users(&supervisor, Filter::new().held(true)).await, ["held"]);
    assert_eq!(users(&supervisor, Filter::new().held(false).limit(3)).await.len(), 7);
    assert_eq!(users(&supervisor, Filter::new().user_prefix("many-").limit(2)).await.len(), 6);
    let all = users(&supervisor, Filter::new().limit(2)).await;
    assert!(all.is_sorted() && all.len() == 8 && !all.contains(&"gone".to_owned()), "{all:?}");

    let filled = within(supervisor.list(Filter::new().limit(8))).await.unwrap();
    assert_eq!((filled.items.len(), filled.next), (8, None), "it is full, and there is no more");
    for (key, status) in filled.items {
        assert_eq!(within(supervisor.status(&key)).await.unwrap(), status);
    }
}

#[tokio::test]
async fn a_grant_ends_with_its_refresh_token_or_without_one_with_its_access_token() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let now = world.clock.now();
    let grant = |end| Grant::new("ts-test-secret-access").expiry(end);
    let with = |token: &str, end| grant(Expiry::At(now + DAY)).refresh_token(token).refresh_expiry(end);
    for (user, grant) in [
        ("day", grant(Expiry::At(now + DAY))),
        ("ever", grant(Expiry::Never)),
        ("unknown", with("ts-test-secret-1", Expiry::Unknown)),
        ("week", with("ts-test-secret-2", Expiry::At(now + 7 * DAY))),
    ] {
        within(supervisor.connect(&key(user), grant)).await.unwrap();
    }
    for (before, expected) in [(DAY, vec![]), (2 * DAY, vec!["day"]), (8 * DAY, vec!["day", "week"])] {
        assert_eq!(users(&supervisor, Filter::new().expiring_before(now + before)).await, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_listed_is_refused_and_says_why() {
    let world = World::new(Profile::gitlab());
    let (supervisor, _) = world.connected().await;
    for limit in [0, 1_001] {
        let error = within(supervisor.list(Filter::new().limit(limit))).await.unwrap_err();
        assert_eq!(error.code(), "invalid_request");
    }
    let shortened = within(supervisor.list(Filter::new().limit(1))).await.unwrap();
    assert_eq!(shortened.next, None);
    // No cursor; the JSON of no key; a key that cannot be.
    for text in ["", "alice", "e30", "eyJpZHAiOiJJIiwidXNlciI6ImEiLCJhY2NvdW50IjoiIn0"] {
        assert_eq!(text.parse::<Cursor>().unwrap_err().code(), "invalid_request", "{text}");
    }
    supervisor.testing().store_fault(StoreFault::Down);
    let error = within(supervisor.list(Filter::new())).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::StoreDown, .. }), "{error}");
}

#[tokio::test]
async fn a_purged_grant_is_gone_and_a_replay_does_not_bring_it_back() {
    let world = World::new(Profile::keycloak());
    let supervisor = world.start().await;
    let (alice, consent) = (key("alice"), world.sim.consent("alice"));
    within(supervisor.connect(&alice, consent.clone())).await.unwrap();
    world.clock.advance(LIFE);
    within(supervisor.token(&alice)).await.unwrap();
    let error = within(supervisor.purge(&alice)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest(text) if text.contains("disconnect")), "{error}");
    within(supervisor.token(&alice)).await.unwrap();
    let gone = within(supervisor.disconnect(&alice, Revoke::No)).await.unwrap().generation;
    for _ in 0..2 {
        assert_eq!(within(supervisor.purge(&alice)).await.unwrap().state, State::Absent);
        assert_eq!(within(supervisor.status(&alice)).await.unwrap().state, State::Absent);
        assert_eq!(within(supervisor.token(&alice)).await.unwrap_err(), Error::NotConnected);
        assert_eq!(within(supervisor.restore(&alice)).await.unwrap_err(), Error::NotConnected);
        assert_eq!(users(&supervisor, Filter::new().state(State::Revoked)).await, [""; 0]);
    }
    let Status { state, unchanged, .. } = within(supervisor.connect(&alice, consent)).await.unwrap();
    assert_eq!((state, unchanged), (State::Absent, Some(Unchanged::TokenAlreadySpent)));
    connect(&world, &supervisor, "alice").await;
    assert!(within(supervisor.token(&alice)).await.unwrap().generation() > gone);
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[tokio::test]
async fn a_purge_waits_for_an_answer_and_for_the_revocations() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    let waits_for = |error, expected| matches!(error, Error::Unavailable { cause, .. } if cause == expected);
    world.sim.next(Fault::HangAfter);
    world.sim.fail_revocations(Some(503));
    world.clock.advance(LIFE);
    let caller = ask(&supervisor, &alice);
    eventually("the request has left", || world.sim.requests() == 1).await;
    within(supervisor.disconnect(&alice, Revoke::Yes)).await.unwrap();
    within(caller).await.unwrap().unwrap_err();
    assert!(waits_for(within(supervisor.purge(&alice)).await.unwrap_err(), Cause::InDoubt));
    world.sim.release();
    // Asks again for as long as it is told this cause.
    let purging = |cause| {
        let (supervisor, alice) = (supervisor.clone(), alice.clone());
        tokio::spawn(async move {
            loop {
                let purged = supervisor.call(Purge::new(&alice).timeout(DAY)).await;
                if !matches!(purged, Err(Error::Unavailable { cause: waited, .. }) if waited == cause) {
                    return purged;
                }
            }
        })
    };
    let error = passing(&world, Duration::from_secs(1), purging(Cause::InDoubt)).await.unwrap_err();
    assert!(waits_for(error.clone(), Cause::Revoking) && error.is_transient(), "{error}");
    world.sim.fail_revocations(None);
    passing(&world, Duration::from_secs(1), purging(Cause::Revoking)).await.unwrap();
    assert_eq!(users(&supervisor, Filter::new().state(State::Revoked)).await, [""; 0]);
}

#[tokio::test]
async fn a_purge_waits_for_the_attempt_that_runs() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.bare_builder().idp("idp", world.sim.idp().max_concurrency(1)).start().await.unwrap();
    let (alice, bob) = (connect(&world, &supervisor, "alice").await, connect(&world, &supervisor, "bob").await);
    let refresh = |key: &TokenKey| {
        let (supervisor, key) = (supervisor.clone(), key.clone());
        tokio::spawn(async move { supervisor.refresh_now(&key).await })
    };
    world.sim.next(Fault::HangAfter);
    let has_the_only_slot = refresh(&bob);
    eventually("the first request has left", || world.sim.requests() == 1).await;
    let waits_for_it = refresh(&alice);
    eventually("the second attempt runs", || supervisor.testing().attempts() == 2).await;
    within(supervisor.disconnect(&alice, Revoke::No)).await.unwrap();
    let purging = {
        let (supervisor, alice) = (supervisor.clone(), alice.clone());
        tokio::spawn(async move { supervisor.purge(&alice).await })
    };
    for _ in 0..50 {
        assert_eq!(within(supervisor.status(&alice)).await.unwrap().state, State::Revoked);
    }
    world.sim.release();
    assert_eq!(within(purging).await.unwrap().unwrap().state, State::Absent);
    assert!(within(has_the_only_slot).await.unwrap().unwrap().refreshed);
    within(waits_for_it).await.unwrap().unwrap_err();
    eventually("both attempts end", || supervisor.testing().attempts() == 0).await;
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn what_is_to_be_purged_goes_long_before_other_tombstones() {
    let world = World::new(Profile::gitlab());
    let (supervisor, alice) = world.connected().await;
    within(supervisor.call(Disconnect::new(&alice, Revoke::No).purge())).await.unwrap();
    assert_eq!(within(supervisor.status(&alice)).await.unwrap().state, State::Revoked);
    let start = world.clock.now();
    passing(&world, Duration::from_secs(60), tokio::spawn(until_purged(supervisor.clone(), alice))).await;
    assert!(world.clock.now().duration_since(start).unwrap() < DAY);
    stop(supervisor).await;
}

#[tokio::test]
async fn what_was_disconnected_long_ago_is_purged_and_nothing_else() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.builder().tombstones_kept(10 * DAY).start().await.unwrap();
    for user in ["old", "new", "alive"] {
        connect(&world, &supervisor, user).await;
    }
    within(supervisor.disconnect(&key("old"), Revoke::No)).await.unwrap();
    world.clock.advance(9 * DAY);
    within(supervisor.disconnect(&key("new"), Revoke::No)).await.unwrap();
    assert_eq!(users(&supervisor, Filter::new().state(State::Revoked)).await, ["new", "old"]);
    stop(supervisor).await;
    world.clock.advance(DAY);
    let supervisor = world.builder().tombstones_kept(10 * DAY).start().await.unwrap();
    within(until_purged(supervisor.clone(), key("old"))).await;
    assert_eq!(within(supervisor.status(&key("new"))).await.unwrap().state, State::Revoked);
    within(supervisor.token(&key("alive"))).await.unwrap();
}

#[tokio::test]
async fn all_grants_of_a_user_end_also_at_an_idp_that_is_not_configured_any_more() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.builder().idp("former", world.sim.idp()).start().await.unwrap();
    let (former, work) = (TokenKey::at("former").user("alice"), key("alice").account("work"));
    for key in [&former, &key("alice"), &work, &key("alice2")] {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
    stop(supervisor).await;
    let supervisor = world.start().await;
    for _ in 0..2 {
        let results = within(supervisor.disconnect_user("alice", Revoke::Yes)).await.unwrap();
        let results = results.into_iter().map(|(key, result)| (key, result.unwrap().state)).collect::<Vec<_>>();
        let expected = [former.clone(), key("alice"), work.clone()];
        assert_eq!(results, expected.map(|key| (key, State::Revoked)));
    }
    assert_eq!(within(supervisor.token(&key("alice"))).await.unwrap_err(), Error::NotConnected);
    within(supervisor.token(&key("alice2"))).await.unwrap();
    eventually("what can be is revoked", || {
        world.clock.advance(Duration::from_secs(1));
        world.sim.revocations() == 2
    })
    .await;
    assert_eq!(within(supervisor.purge(&former)).await.unwrap().state, State::Absent);

    assert_eq!(within(supervisor.disconnect_user("nobody", Revoke::Yes)).await.unwrap(), []);
    assert_eq!(within(supervisor.disconnect_user("", Revoke::Yes)).await.unwrap_err().code(), "invalid_request");
    let unknown = TokenKey::at("another").user("alice");
    assert_eq!(within(supervisor.disconnect(&unknown, Revoke::Yes)).await.unwrap_err(), Error::UnknownIdp);
}

#[tokio::test]
async fn a_token_is_reported_by_itself_and_any_other_changes_nothing() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, alice) = world.connected().await;
    let first = within(supervisor.token(&alice)).await.unwrap();
    let stranger = AccessToken::new("ts-test-secret-stranger");
    let report = async |token: &AccessToken| within(supervisor.report_rejected_token(&alice, token)).await;
    let untouched = report(&stranger).await.unwrap();
    assert_eq!(untouched, within(supervisor.status(&alice)).await.unwrap());
    assert_eq!((untouched.state, world.sim.requests()), (State::Fresh, 0));
    report(first.access_token()).await.unwrap();
    let second = within(supervisor.token(&alice)).await.unwrap();
    assert_eq!(second.generation(), Generation::new(2));
    eventually("the refresh has ended", || supervisor.testing().attempts() == 0).await;
    for old in [first.access_token(), &stranger] {
        assert_eq!(report(old).await.unwrap(), within(supervisor.status(&alice)).await.unwrap());
    }
    assert_eq!(within(supervisor.token(&alice)).await.unwrap().generation(), second.generation());
    assert_eq!(world.sim.requests(), 1);

    // Whose actor has not read anything yet.
    stop(supervisor).await;
    world.clock.advance(LIFE / 4);
    let supervisor = world.start().await;
    let nobody = within(supervisor.report_rejected_token(&key("nobody"), second.access_token())).await.unwrap();
    assert_eq!(nobody.state, State::Absent);
    within(supervisor.report_rejected_token(&alice, &stranger)).await.unwrap();
    assert!(supervisor.cached(&alice).is_some());
    stop(supervisor).await;
    let supervisor = world.start().await;
    within(supervisor.report_rejected_token(&alice, second.access_token())).await.unwrap();
    assert_eq!(within(supervisor.token(&alice)).await.unwrap().generation(), Generation::new(3));
    assert_eq!(world.sim.requests(), 2);
}
