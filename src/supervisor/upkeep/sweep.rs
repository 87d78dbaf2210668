//! The sweeper: has the grants refreshed that come due.
//!
//! The store's index of due rows is the only schedule: nothing in memory waits for a time that is written there. The sweeper
//! sleeps until the first row comes due. Rows of a provider that takes no requests are not read.

use std::{collections::HashMap, time::Duration};

use super::backlog::Backlog;
use crate::{
    model::{BootTime, WallTime},
    protocol::schedule::wake_at,
    store::StoreError,
    supervisor::{command::Ask, provider::Provider, refresh::Refresher, router::Router, settings::Limits},
};

/// The shortest time from the beginning of a look at what is due to that of the next one.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a grant is left to the process whose share it is.
const OTHERS_FIRST: Duration = Duration::from_secs(10);

/// The time between two looks at a provider that takes no requests for a time.
const CLOSED: Duration = Duration::from_secs(1);

pub(super) struct Sweeper {
    refresher: Refresher,
    router: Router,
    limits: Limits,
    backlogs: HashMap<String, Backlog>,
    /// By the boot-time clock.
    next_round: BootTime,
}

impl Sweeper {
    pub(super) fn new(refresher: Refresher, router: Router, limits: Limits) -> Self {
        Self { refresher, router, limits, backlogs: HashMap::new(), next_round: BootTime(0) }
    }

    /// Sweeps again and again.
    pub(super) async fn run(mut self) {
        loop {
            let refresher = self.refresher.clone();
            let ports = refresher.ports();
            let (clock, alarm) = (&ports.clock, ports.ledger.alarm());
            let began = clock.read();
            alarm.looking();
            let round_is_over = self.next_round <= began.boot;
            let swept = async {
                if round_is_over {
                    self.begin_round().await?;
                }
                self.hand_out_due().await
            };
            let next = swept.await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "a sweep was cut short: the next one starts over");
                self.backlogs.clear();
                None
            });
            if round_is_over {
                // Also after a failure.
                self.next_round = began.boot + self.limits.sweep_every;
            }
            let now = clock.read();
            let round = now.wall + self.next_round.since(now.boot);
            alarm.wait(clock, began.wall + PAUSE, next.unwrap_or(round).min(round)).await;
        }
    }

    /// Does what is done once in a while.
    async fn begin_round(&mut self) -> Result<(), StoreError> {
        let ports = self.refresher.ports();
        self.backlogs.values_mut().for_each(Backlog::start_over);
        ports.snapshot.forget_unused(self.limits.idle_after, |key| ports.attempts.runs_for(key));
        ports.providers.read_holds(&ports.ledger).await
    }

    /// Hands the grants that are due to their actors, of each provider as many as it can take: a slow provider must not hold
    /// up the others. Returns when to look again, if that is before the next round.
    async fn hand_out_due(&mut self) -> Result<Option<WallTime>, StoreError> {
        let ports = self.refresher.ports();
        let providers = ports.providers.all().clone();
        self.backlogs.retain(|idp, _| providers.contains_key(idp));
        let (now, mut next) = (ports.clock.now(), None);
        for (idp, provider) in providers.iter() {
            let look_again = if ports.providers.is_open(idp) {
                let backlog = self.backlogs.entry(idp.clone()).or_insert_with(Backlog::new);
                let room = room(&self.limits, provider, ports.attempts.running_for(idp) + backlog.on_their_way());
                hand_out(&self.refresher, &self.router, idp, backlog, room, now).await?
            } else {
                // What was read may be long out of date when the provider takes requests again.
                self.backlogs.remove(idp);
                Some(now + CLOSED)
            };
            next = next.into_iter().chain(look_again).min();
        }
        Ok(next)
    }
}

/// Returns how many grants may be handed out.
fn room(limits: &Limits, provider: &Provider, running: usize) -> usize {
    // One is enough to find out whether the provider works again.
    let most = if provider.gate.is_broken() { 1 } else { limits.swept_at_once };
    most.saturating_sub(running)
}

/// Hands out the provider's grants that are due, up to the room that there is. Returns when to look again.
async fn hand_out(
    refresher: &Refresher,
    router: &Router,
    idp: &str,
    backlog: &mut Backlog,
    mut room: usize,
    now: WallTime,
) -> Result<Option<WallTime>, StoreError> {
    let ports = refresher.ports();
    let (mut later, mut of_others, mut has_more) = (None, Vec::new(), true);
    while room > 0 {
        if backlog.is_empty() && has_more {
            later = backlog.fill(ports.ledger.store(), idp, now).await?;
            has_more = !backlog.is_empty();
        }
        let next = backlog.take();
        let is_own = next.is_some();
        // Late ones of other processes come last: if all processes are late, each has its own to do.
        let Some(due) = next.or_else(|| of_others.pop()) else { return Ok(later) };
        let key = due.row.key.clone();
        if is_own && !ports.ledger.replicas().has_share(key.stable_hash()) {
            // Another process hands it out. If it does not, the next rounds find it late.
            let is_late = wake_at(&due.row).is_some_and(|due| due + OTHERS_FIRST <= now);
            if is_late && of_others.len() < room {
                of_others.push(due);
            }
            continue;
        }
        // A caller may have been first.
        let is_replaced = ports.snapshot.current(&key).is_some_and(|issued| issued.generation > due.row.generation);
        if is_replaced || ports.attempts.progress(&key).is_some() {
            continue;
        }
        room -= 1;
        // A registry that is just being replaced loses nothing: the next round comes.
        router.route(key, Ask::Due(due)).await.ok();
    }
    Ok(Some(now + PAUSE))
}

#[cfg(test)]
mod tests {
    use crate::{
        model::TokenKey,
        store::ReplicaReport,
        supervisor::{bench::Bench, replicas::Replicas},
    };

    use super::*;

    #[actix::test]
    async fn due_grants_of_open_providers_are_handed_out_up_to_the_room_there_is() {
        let bench = Bench::with_idp("idp");
        for user in ["alice", "bob", "carol"] {
            bench.connect(&TokenKey::at("idp").user(user), &format!("ts-test-secret-{user}")).await;
        }
        let (router, mut routed) = bench.recording_router();
        let limits = Limits { swept_at_once: 2, ..Limits::default() };
        let mut sweeper = Sweeper::new(bench.refresher.clone(), router, limits);
        let first_due = sweeper.hand_out_due().await.unwrap().unwrap();
        let left = first_due.since(bench.clock.now());
        assert!(routed.try_recv().is_err(), "nothing is due");
        assert!((3_200..3_320).contains(&left.as_secs()), "it sleeps until the first is due: {left:?}");
        bench.manual.advance(Duration::from_secs(3_600));
        let now = bench.clock.now();
        assert_eq!(sweeper.hand_out_due().await.unwrap(), Some(now + PAUSE), "one is left");
        for _ in 0..2 {
            assert_eq!(routed.recv().await.unwrap().idp(), "idp");
        }
        assert_eq!(sweeper.hand_out_due().await.unwrap(), None, "none is handed out twice");
        assert_eq!(routed.recv().await.unwrap().idp(), "idp");
        sweeper.backlogs.values_mut().for_each(Backlog::start_over);
        bench.providers.set_hold(&bench.ledger, "idp", Some("maintenance")).await.unwrap();
        assert_eq!(sweeper.hand_out_due().await.unwrap(), Some(now + CLOSED));
        assert!(routed.try_recv().is_err(), "nothing is woken while the provider is on hold");
    }

    #[actix::test]
    async fn a_round_finds_what_was_passed_over() {
        let bench = Bench::with_idp("idp");
        let (router, mut routed) = bench.recording_router();
        let mut sweeper = Sweeper::new(bench.refresher.clone(), router, Limits::default());
        sweeper.hand_out_due().await.unwrap();
        bench.connect_for(&TokenKey::at("idp").user("alice"), "ts-test-secret-1", 0).await;
        sweeper.hand_out_due().await.unwrap();
        assert!(routed.try_recv().is_err(), "it became due before the last look");
        sweeper.begin_round().await.unwrap();
        sweeper.hand_out_due().await.unwrap();
        assert_eq!(routed.recv().await.unwrap().user(), "alice");
    }

    #[actix::test]
    async fn of_the_due_grants_the_first_to_expire_goes_first() {
        let bench = Bench::with_idp("idp");
        for (user, seconds) in [("late", 7_200), ("soon", 60), ("later", 9_000)] {
            bench.connect_for(&TokenKey::at("idp").user(user), &format!("ts-test-secret-{user}"), seconds).await;
        }
        bench.manual.advance(Duration::from_secs(8_990));
        let mut backlog = Backlog::new();
        backlog.fill(bench.ledger.store(), "idp", bench.clock.now()).await.unwrap();
        let users: Vec<_> = std::iter::from_fn(|| backlog.take()).map(|due| due.row.key.user().to_owned()).collect();
        assert_eq!(users, ["soon", "late", "later"]);
    }

    #[actix::test]
    async fn a_late_grant_of_another_process_is_handed_out_after_the_own_ones() {
        let bench = Bench::with_idp("idp");
        let own = |replicas: &Replicas| ReplicaReport { id: replicas.name(), report: Vec::new(), age_ms: 0 };
        let replicas = bench.ledger.replicas();
        let other = ReplicaReport { id: "r_other".to_owned(), report: Vec::new(), age_ms: 0 };
        replicas.sight(vec![own(replicas), other]);
        let keys: Vec<_> = (0..64).map(|number| TokenKey::at("idp").user(number.to_string())).collect();
        for key in &keys {
            bench.connect_for(key, &format!("ts-test-secret-{}", key.user()), 40).await;
        }
        let (own, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| replicas.has_share(key.stable_hash()));
        assert!(own.len() > 9 && others.len() > 9, "{} and {}", own.len(), others.len());
        let (router, mut routed) = bench.recording_router();
        let mut sweeper = Sweeper::new(bench.refresher.clone(), router, Limits::default());
        // They come due 26 to 30 s after the connect.
        bench.manual.advance(Duration::from_secs(31));
        sweeper.hand_out_due().await.unwrap();
        for _ in &own {
            assert!(own.contains(&&routed.recv().await.unwrap()));
        }
        assert!(routed.try_recv().is_err(), "the others are left to their process");
        bench.manual.advance(OTHERS_FIRST);
        sweeper.begin_round().await.unwrap();
        sweeper.hand_out_due().await.unwrap();
        let mut handed_out = Vec::new();
        for _ in &keys {
            handed_out.push(routed.recv().await.unwrap());
        }
        assert!(others.iter().all(|key| handed_out.contains(key)));
        let first_of_others = handed_out.iter().position(|key| others.contains(&key)).unwrap();
        assert!(handed_out[first_of_others..].iter().all(|key| others.contains(&key)), "own ones come first");
    }

    #[actix::test]
    async fn a_sweep_of_a_store_that_does_not_respond_is_cut_short() {
        let bench = Bench::with_idp("idp");
        bench.break_store();
        let (router, _routed) = bench.recording_router();
        assert!(Sweeper::new(bench.refresher.clone(), router, Limits::default()).hand_out_due().await.is_err());
    }
}
