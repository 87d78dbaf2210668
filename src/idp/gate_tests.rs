use futures_util::FutureExt as _;

use super::*;
use crate::{clock::ManualClock, error::Cause};

struct GateFixture {
    manual: ManualClock,
    clock: Clock,
    gate: Arc<Gate>,
}

fn idp() -> Idp {
    Idp::oauth2("https://idp.example/token", "client", "ts-test-secret-1")
}

impl GateFixture {
    fn new(idp: &Idp) -> Self {
        let manual = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
        manual.advance(Duration::from_secs(1_000));
        let clock = Clock::manual(&manual);
        let gate = Arc::new(Gate::new(idp, clock.read()));
        Self { clock, manual, gate }
    }

    async fn slot(&self, priority: Priority) -> Result<Slot, GateClosed> {
        self.gate.slot(&self.clock, 0, 1, priority).await
    }

    async fn report(&self, observed: Observation) -> Vec<HealthChange> {
        self.slot(Priority::Foreground).await.unwrap().report(observed, 1, self.clock.read(), 0).0
    }
}

#[tokio::test]
async fn slots_are_limited_and_released() {
    let fixture = GateFixture::new(&idp().max_concurrency(2));
    let first = fixture.slot(Priority::Foreground).await.unwrap();
    let _second = fixture.slot(Priority::Background).await.unwrap();
    let mut third = Box::pin(fixture.slot(Priority::Foreground));
    assert!((&mut third).now_or_never().is_none());
    drop(first);
    third.await.unwrap();
}

#[tokio::test]
async fn requests_with_a_waiting_caller_go_before_background_requests() {
    let fixture = GateFixture::new(&idp().max_concurrency(1));
    let running = fixture.slot(Priority::Foreground).await.unwrap();
    let mut background: Vec<_> = (0..100).map(|_| Box::pin(fixture.slot(Priority::Background))).collect();
    assert!(background.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let mut wanted = Box::pin(fixture.slot(Priority::Foreground));
    assert!((&mut wanted).now_or_never().is_none());
    drop(running);
    // At most one background request is ahead.
    let ahead = (&mut background[0]).now_or_never().expect("the first background request is admitted").unwrap();
    drop(ahead);
    drop(background);
    wanted.now_or_never().expect("the foreground request is next").unwrap();
}

#[tokio::test]
async fn the_rate_is_even_for_any_number_of_requests_due_at_once() {
    let fixture = GateFixture::new(&idp().requests_per_second(100.0).max_concurrency(16));
    let admitted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = || admitted.load(std::sync::atomic::Ordering::Relaxed);
    let all: Vec<_> = (0..50_000)
        .map(|number| {
            let (gate, clock, admitted) = (fixture.gate.clone(), fixture.clock.clone(), admitted.clone());
            let priority = if number % 100 == 0 { Priority::Foreground } else { Priority::Background };
            tokio::spawn(async move {
                let slot = gate.slot(&clock, 0, 1, priority).await.unwrap();
                admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                drop(slot);
            })
        })
        .collect();
    let settle = async |expected: usize| {
        while count() < expected {
            tokio::task::yield_now().await;
        }
        // No further request passes although there is time to.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(count(), expected);
    };
    settle(1).await;
    for second in 0..5 {
        for tenth in 1..=100 {
            fixture.manual.advance(Duration::from_millis(10));
            settle(1 + second * 100 + tenth).await;
        }
    }
    all.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_response_to_one_request_counts_for_waiting_requests() {
    let fixture = GateFixture::new(&idp().max_concurrency(1));
    let slot = fixture.slot(Priority::Foreground).await.unwrap();
    let mut waiting = Box::pin(fixture.slot(Priority::Foreground));
    assert!((&mut waiting).now_or_never().is_none());
    slot.report(Observation::Throttled(Some(Duration::from_secs(4))), 1, fixture.clock.read(), 0);
    let closed = GateClosed { wait: Duration::from_secs(4), cause: Cause::IdpThrottled };
    assert_eq!(waiting.await.unwrap_err(), closed);
    assert_eq!(fixture.gate.closed(fixture.clock.read()), Some(closed));
    fixture.manual.advance(Duration::from_secs(4));
    fixture.slot(Priority::Foreground).await.unwrap();
}

#[tokio::test]
async fn a_probe_that_is_not_sent_lets_another_probe() {
    let fixture = GateFixture::new(&idp());
    let paused = fixture.report(Observation::ClientRefused).await;
    assert!(matches!(paused[..], [HealthChange::Paused { cause: Cause::ClientRefused, .. }]), "{paused:?}");
    fixture.manual.advance(Duration::from_secs(60));
    let probe = fixture.slot(Priority::Foreground).await.unwrap();
    assert_eq!(fixture.slot(Priority::Foreground).await.unwrap_err().cause, Cause::ClientRefused);
    drop(probe);
    assert_eq!(fixture.report(Observation::Healthy).await, [HealthChange::Recovered { cause: Cause::ClientRefused }]);
    fixture.slot(Priority::Foreground).await.unwrap();
}

#[tokio::test]
async fn new_settings_end_a_pause_but_not_a_wait_that_the_provider_asked_for() {
    let fixture = GateFixture::new(&idp());
    fixture.report(Observation::ClientRefused).await;
    let renewed = Arc::new(fixture.gate.reconfigured(&idp(), fixture.clock.read()));
    assert_eq!(renewed.closed(fixture.clock.read()), None);
    let fixture = GateFixture { gate: renewed, ..fixture };
    fixture.report(Observation::Throttled(Some(Duration::from_secs(9)))).await;
    assert!(fixture.gate.reconfigured(&idp(), fixture.clock.read()).closed(fixture.clock.read()).is_some());
}

#[tokio::test]
async fn limits_are_shared_with_other_processes_also_while_requests_wait() {
    let fixture = GateFixture::new(&idp().max_concurrency(4).requests_per_second(2.0));
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(fixture.slot(Priority::Foreground).await.unwrap());
        fixture.manual.advance(Duration::from_millis(500));
    }
    fixture.gate.share(2);
    // One always waits: what becomes free goes to it, or to the other process.
    let mut waiting = Box::pin(fixture.slot(Priority::Foreground));
    for left in (2..4).rev() {
        drop(running.pop());
        assert!((&mut waiting).now_or_never().is_none(), "{left}");
    }
    drop(running.pop());
    let next = waiting.now_or_never().expect("a slot of its own").unwrap();
    drop((next, running));
    let own = [fixture.slot(Priority::Foreground).now_or_never(), fixture.slot(Priority::Foreground).now_or_never()];
    assert!(own[0].is_none(), "a request in a second");
    fixture.manual.advance(Duration::from_secs(1));
    let again = Arc::new(fixture.gate.reconfigured(&idp().max_concurrency(4), fixture.clock.read()));
    let slots: Vec<_> = (0..4).map(|_| again.slot(&fixture.clock, 0, 1, Priority::Foreground).now_or_never()).collect();
    assert_eq!(slots.iter().filter(|slot| slot.is_some()).count(), 2, "also under new settings");
    fixture.gate.share(100);
    let one = fixture.slot(Priority::Foreground).await.unwrap();
    assert!(fixture.slot(Priority::Foreground).now_or_never().is_none());
    fixture.gate.share(1);
    // The part of a hundredth was a request in 50 s.
    fixture.manual.advance(Duration::from_secs(50));
    assert!(fixture.slot(Priority::Foreground).now_or_never().is_some(), "the others are gone");
    drop(one);
}
