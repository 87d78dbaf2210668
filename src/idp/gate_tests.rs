use futures_util::FutureExt as _;

use super::*;
use crate::{clock::ManualClock, error::Cause};

struct Bench {
    manual: ManualClock,
    clock: Clock,
    gate: Arc<Gate>,
}

fn idp() -> Idp {
    Idp::oauth2("https://idp.example/token", "client", "ts-test-secret-1")
}

impl Bench {
    fn new(idp: &Idp) -> Self {
        let manual = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
        manual.advance(Duration::from_secs(1_000));
        Self { clock: Clock::manual(&manual), manual, gate: Arc::new(Gate::new(idp)) }
    }

    async fn slot(&self, lane: Priority) -> Result<Slot, GateClosed> {
        self.gate.slot(&self.clock, 0, lane).await
    }

    async fn report(&self, said: Observation) -> Vec<HealthChange> {
        self.slot(Priority::Foreground).await.unwrap().report(said, 1, self.clock.read(), 0).0
    }
}

#[tokio::test]
async fn slots_are_limited_and_come_back() {
    let bench = Bench::new(&idp().max_concurrency(2));
    let first = bench.slot(Priority::Foreground).await.unwrap();
    let _second = bench.slot(Priority::Background).await.unwrap();
    let mut third = Box::pin(bench.slot(Priority::Foreground));
    assert!((&mut third).now_or_never().is_none());
    drop(first);
    third.await.unwrap();
}

#[tokio::test]
async fn whom_a_caller_waits_for_goes_before_those_refreshed_ahead_of_need() {
    let bench = Bench::new(&idp().max_concurrency(1));
    let running = bench.slot(Priority::Foreground).await.unwrap();
    let mut background: Vec<_> = (0..100).map(|_| Box::pin(bench.slot(Priority::Background))).collect();
    assert!(background.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let mut wanted = Box::pin(bench.slot(Priority::Foreground));
    assert!((&mut wanted).now_or_never().is_none());
    drop(running);
    // At most one of the others is ahead.
    let ahead = (&mut background[0]).now_or_never().expect("the first of them is").unwrap();
    drop(ahead);
    drop(background);
    wanted.now_or_never().expect("then it is its turn").unwrap();
}

#[tokio::test]
async fn a_rate_is_kept_evenly_by_any_number_of_those_who_are_due_at_once() {
    let bench = Bench::new(&idp().requests_per_second(100.0).max_concurrency(16));
    let admitted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = || admitted.load(std::sync::atomic::Ordering::Relaxed);
    let all: Vec<_> = (0..50_000)
        .map(|number| {
            let (gate, clock, admitted) = (bench.gate.clone(), bench.clock.clone(), admitted.clone());
            let lane = if number % 100 == 0 { Priority::Foreground } else { Priority::Background };
            tokio::spawn(async move {
                let slot = gate.slot(&clock, 0, lane).await.unwrap();
                admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                drop(slot);
            })
        })
        .collect();
    let settle = async |expected: usize| {
        while count() < expected {
            tokio::task::yield_now().await;
        }
        // Nobody slips through although there is time to.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(count(), expected);
    };
    settle(1).await;
    for second in 0..5 {
        for tenth in 1..=100 {
            bench.manual.advance(Duration::from_millis(10));
            settle(1 + second * 100 + tenth).await;
        }
    }
    all.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_one_request_learns_is_heard_by_those_who_wait() {
    let bench = Bench::new(&idp().max_concurrency(1));
    let slot = bench.slot(Priority::Foreground).await.unwrap();
    let mut waiting = Box::pin(bench.slot(Priority::Foreground));
    assert!((&mut waiting).now_or_never().is_none());
    slot.report(Observation::Throttled(Some(Duration::from_secs(4))), 1, bench.clock.read(), 0);
    let closed = GateClosed { wait: Duration::from_secs(4), cause: Cause::IdpThrottled };
    assert_eq!(waiting.await.unwrap_err(), closed);
    assert_eq!(bench.gate.closed(bench.clock.read()), Some(closed));
    bench.manual.advance(Duration::from_secs(4));
    bench.slot(Priority::Foreground).await.unwrap();
}

#[tokio::test]
async fn a_probe_that_is_not_sent_lets_another_probe() {
    let bench = Bench::new(&idp());
    let paused = bench.report(Observation::ClientRefused).await;
    assert!(matches!(paused[..], [HealthChange::Paused { cause: Cause::ClientRefused, .. }]), "{paused:?}");
    bench.manual.advance(Duration::from_secs(60));
    let probe = bench.slot(Priority::Foreground).await.unwrap();
    assert_eq!(bench.slot(Priority::Foreground).await.unwrap_err().cause, Cause::ClientRefused);
    drop(probe);
    assert_eq!(bench.report(Observation::Well).await, [HealthChange::Recovered { cause: Cause::ClientRefused }]);
    bench.slot(Priority::Foreground).await.unwrap();
}

#[tokio::test]
async fn new_settings_end_a_pause_but_not_what_the_provider_asked_for() {
    let bench = Bench::new(&idp());
    bench.report(Observation::ClientRefused).await;
    let renewed = Arc::new(bench.gate.reconfigured(&idp(), bench.clock.read()));
    assert_eq!(renewed.closed(bench.clock.read()), None);
    let bench = Bench { gate: renewed, ..bench };
    bench.report(Observation::Throttled(Some(Duration::from_secs(9)))).await;
    assert!(bench.gate.reconfigured(&idp(), bench.clock.read()).closed(bench.clock.read()).is_some());
}
