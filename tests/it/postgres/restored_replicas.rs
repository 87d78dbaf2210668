//! Several replicas whose database went back in time: each brings back what it had stored, and all wait for each other.

use std::{fs, time::Duration};

use token_supervisor::{
    HeldBy, State, TokenKey, TokenSupervisor,
    testing::{Profile, Standing},
};

use super::{
    server,
    support::{LIFE, World, eventually, stop, within},
};

const SECOND: Duration = Duration::from_secs(1);

/// Two replicas, each of which has connected a user.
struct Pair {
    world: World,
    alice: TokenKey,
    bob: TokenKey,
}

impl Pair {
    /// Nothing where PostgreSQL is not installed.
    async fn new() -> Option<Self> {
        server::shared()?;
        let (alice, bob) = (TokenKey::at("idp").user("alice"), TokenKey::at("idp").user("bob"));
        let pair = Self { world: World::new(Profile::gitlab()), alice, bob };
        let (one, two) = (pair.world.start().await, pair.two().await);
        within(one.connect(&pair.alice, pair.world.sim.consent("alice"))).await.unwrap();
        within(two.connect(&pair.bob, pair.world.sim.consent("bob"))).await.unwrap();
        pair.world.clock.advance(LIFE / 2);
        pair.stop_both(one, two).await;
        Some(pair)
    }

    /// Starts the second replica, with a journal of its own.
    async fn two(&self) -> TokenSupervisor {
        self.world.builder().journal(self.world.folder.path().join("two")).start().await.unwrap()
    }

    async fn stop_both(&self, one: TokenSupervisor, two: TokenSupervisor) {
        stop(two).await;
        stop(one).await;
    }

    /// Backs up, has each replica refresh its user's grant, and restores the backup.
    async fn went_back(&self) {
        let backup = self.world.back_up();
        let (one, two) = (self.world.start().await, self.two().await);
        assert!(within(one.refresh_now(&self.alice)).await.unwrap().refreshed);
        assert!(within(two.refresh_now(&self.bob)).await.unwrap().refreshed);
        self.stop_both(one, two).await;
        self.world.restore(&backup);
    }

    async fn standing(&self, supervisor: &TokenSupervisor, key: &TokenKey) -> Standing {
        let token = within(supervisor.testing().stored_refresh_token(key)).await.unwrap().unwrap();
        self.world.sim.standing(&token)
    }

    /// Waits until the store has the current token again; for less time than a missing replica is waited for.
    async fn until_current(&self, supervisor: &TokenSupervisor, key: &TokenKey) {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        for _ in 0..3_000 {
            if self.standing(supervisor, key).await == Standing::Current {
                return;
            }
            self.world.clock.advance(Duration::from_millis(10));
            looks.tick().await;
        }
        panic!("the store lacks the current token of {key:?}");
    }

    async fn released(&self, supervisors: &[&TokenSupervisor]) {
        eventually("the providers are released", || {
            self.world.clock.advance(Duration::from_millis(50));
            supervisors.iter().all(|supervisor| supervisor.idps()[0].held.is_none())
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_is_sent_before_all_replicas_have_brought_back_what_they_know() {
    let Some(pair) = Pair::new().await else { return };
    pair.went_back().await;
    let one = pair.world.start().await;
    pair.until_current(&one, &pair.alice).await;
    assert_eq!(one.idps()[0].held_by, Some(HeldBy::Recovery));
    let two = pair.two().await;
    pair.released(&[&one, &two]).await;
    for key in [&pair.alice, &pair.bob] {
        assert_eq!(pair.standing(&one, key).await, Standing::Current, "{key:?}");
        assert_eq!(within(one.status(key)).await.unwrap().state, State::Fresh, "{key:?}");
    }
    assert_eq!(pair.world.sim.duplicate_spends(), 0);
    pair.stop_both(one, two).await;
}

#[tokio::test]
async fn what_a_missing_replica_may_have_refreshed_is_in_doubt_until_it_comes() {
    let Some(pair) = Pair::new().await else { return };
    pair.went_back().await;
    // Only what is due can have been refreshed. Its access token is still valid.
    pair.world.clock.advance(LIFE / 2 - 180 * SECOND);
    let one = pair.world.start().await;
    assert_eq!(one.idps()[0].held_by, Some(HeldBy::Recovery));
    pair.world.clock.advance(60 * SECOND);
    pair.released(&[&one]).await;
    assert_eq!(within(one.status(&pair.alice)).await.unwrap().state, State::Fresh);
    assert_eq!(within(one.status(&pair.bob)).await.unwrap().state, State::InDoubt);
    let two = pair.two().await;
    pair.released(&[&one, &two]).await;
    assert_eq!(pair.standing(&two, &pair.bob).await, Standing::Current);
    // The doubt about the former token ends once no request with it can be processed any more.
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    within(async {
        while two.status(&pair.bob).await.unwrap().state != State::Fresh {
            pair.world.clock.advance(SECOND);
            looks.tick().await;
        }
    })
    .await;
    assert_eq!(pair.standing(&two, &pair.bob).await, Standing::Current);
    assert_eq!(pair.world.sim.duplicate_spends(), 0);
    pair.stop_both(one, two).await;
}

#[tokio::test]
async fn a_store_that_goes_back_under_a_running_replica_is_noticed() {
    let Some(pair) = Pair::new().await else { return };
    let Pair { world, alice, .. } = &pair;
    let backup = world.back_up();
    let one = world.start().await;
    assert!(within(one.refresh_now(alice)).await.unwrap().refreshed);
    let marked = || {
        let files = fs::read_dir(world.folder.path().join("tokens.journal")).unwrap().map(|file| file.unwrap().path());
        let mut marks = files.filter(|path| path.extension().is_some_and(|end| end == "mark"));
        marks.any(|path| fs::read_to_string(path).unwrap().contains("\"number\":2,"))
    };
    eventually("the refresh is marked", || {
        world.clock.advance(Duration::from_millis(100));
        marked()
    })
    .await;
    world.restore(&backup);
    assert_eq!(pair.standing(&one, alice).await, Standing::Spent);
    pair.until_current(&one, alice).await;
    pair.world.clock.advance(90 * SECOND);
    pair.released(&[&one]).await;
    assert!(within(one.refresh_now(alice)).await.unwrap().refreshed);
    assert_eq!(world.sim.duplicate_spends(), 0);
    stop(one).await;
}
