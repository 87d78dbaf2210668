use super::{
    Observation::{ClientRefused, Healthy, Refused, Renewed, Throttled, Unhealthy},
    *,
};
use crate::model::WallTime;

const T: BootTime = BootTime(1_000_000);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(time: BootTime) -> Reading {
    Reading { wall: WallTime(time.0), boot: time }
}

fn idp() -> Idp {
    Idp::oauth2("https://idp.example/token", "new", "ts-test-secret-1")
}

type Reported = (Vec<HealthChange>, bool);

/// One request of `grant`, from its admission to the report of its response.
fn request(health: &mut IdpHealth, client: usize, grant: u64, observed: Observation, now: BootTime) -> Reported {
    let admission = health.admit(client, grant, now).unwrap();
    health.report(admission, observed, grant, at(now), 0)
}

fn cause(health: &IdpHealth, now: BootTime) -> Option<Cause> {
    health.closed(now).map(|closed| closed.cause)
}

#[test]
fn five_consecutive_failures_are_an_outage_and_one_response_ends_it() {
    let mut health = IdpHealth::new(&idp());
    for grant in 0..4 {
        assert_eq!(request(&mut health, 0, grant, Unhealthy(None), T), (vec![], false));
    }
    // A good response in between: the count starts anew.
    request(&mut health, 0, 9, Healthy, T);
    // The grants that failed have faults of their own, now that other grants get responses.
    for grant in (0..4).chain(10..14) {
        request(&mut health, 0, grant, Unhealthy(None), T);
    }
    assert_eq!(cause(&health, T), None);
    let before = health.admit(0, 77, T).unwrap();
    let (changes, _) = request(&mut health, 0, 14, Unhealthy(None), T);
    let wait = Duration::from_millis(500);
    assert_eq!(changes, [HealthChange::Paused { cause: Cause::IdpDown, wait }], "half of a second without jitter");
    assert_eq!(health.closed(T), Some(GateClosed { wait, cause: Cause::IdpDown }));
    assert_eq!(health.admit(0, 77, T).unwrap_err().cause, Cause::IdpDown);
    // A response to a request sent before the outage changes nothing.
    assert_eq!(health.report(before, Unhealthy(None), 5, at(T), 0), (vec![], false));
    assert_eq!(health.closed(T).unwrap().wait, wait);
    // One request probes, the others wait. The probe fails: the wait doubles, without a second alarm.
    let later = T + wait;
    assert_eq!(cause(&health, later), None);
    let probe = health.admit(0, 77, later).unwrap();
    assert_eq!(health.admit(0, 77, later).unwrap_err().wait, WHILE_PROBING);
    assert_eq!(health.report(probe, Unhealthy(None), 6, at(later), 0), (vec![], false));
    assert_eq!(health.closed(later).unwrap().wait, seconds(1));
    // The next probe gets a response, if only a refusal of its grant.
    let later = later + seconds(1);
    let (changes, _) = request(&mut health, 0, 7, Healthy, later);
    assert_eq!(changes, [HealthChange::Recovered { cause: Cause::IdpDown }]);
    assert_eq!((cause(&health, later), health.recovered().unwrap().wall), (None, at(later).wall));
}

#[test]
fn a_grant_with_a_fault_of_its_own_does_not_probe_an_outage() {
    let mut health = IdpHealth::new(&idp());
    request(&mut health, 0, 1, Unhealthy(None), T);
    request(&mut health, 0, 9, Renewed, T);
    for grant in [1, 10, 11, 12, 13, 1] {
        request(&mut health, 0, grant, Unhealthy(None), T);
    }
    assert_eq!(cause(&health, T), None, "four grants fail, and one that is accused");
    request(&mut health, 0, 14, Unhealthy(None), T);
    let later = T + seconds(1);
    assert_eq!(health.admit(0, 1, later).unwrap_err().cause, Cause::IdpDown);
    let probe = health.admit(0, 2, later).unwrap();
    health.give_back(probe);
    // If nobody else comes, it may.
    health.admit(0, 1, later + ACCUSED_PROBES_AFTER).unwrap();
}

#[test]
fn new_settings_do_not_wait_for_a_probe_of_the_old_ones() {
    let mut health = IdpHealth::new(&idp());
    for grant in 0..5 {
        request(&mut health, 0, grant, Unhealthy(None), T);
    }
    let later = T + seconds(1);
    let _under_way = health.admit(0, 5, later).unwrap();
    let mut health = health.reconfigured(&idp(), at(later));
    health.admit(0, 6, later).unwrap();
}

#[test]
fn a_surge_of_refusals_closes_the_gate_and_a_canary_opens_it() {
    let mut health = IdpHealth::new(&idp());
    let mut changes = Vec::new();
    for grant in 0..5 {
        changes.extend(request(&mut health, 0, grant, Refused, T).0);
    }
    let wait = seconds(30);
    assert_eq!(changes, [HealthChange::Paused { cause: Cause::RefusalSurge, wait }]);
    assert_eq!((cause(&health, T), health.is_broken(), health.is_paused()), (Some(Cause::RefusalSurge), true, false));
    let later = T + wait;
    assert_eq!(health.admit(0, 99, later).unwrap_err().cause, Cause::RefusalSurge, "it is a refused grant's turn");
    let canary = health.admit(0, 3, later).unwrap();
    assert!(health.admit(0, 4, later).is_err(), "one at a time");
    let (changes, _) = health.report(canary, Renewed, 3, at(later), 0);
    assert_eq!(changes, [HealthChange::Recovered { cause: Cause::RefusalSurge }]);
    assert_eq!((cause(&health, later), health.take_refused_since()), (None, Some(at(T).wall)));
    health.admit(0, 99, later).unwrap();
}

#[test]
fn a_later_response_does_not_shorten_a_wait_that_was_asked_for() {
    let mut health = IdpHealth::new(&idp());
    let slow = health.admit(0, 77, T).unwrap();
    request(&mut health, 0, 1, Throttled(Some(seconds(60))), T);
    health.report(slow, Unhealthy(Some(seconds(5))), 2, at(T), 0);
    assert_eq!(health.closed(T), Some(GateClosed { wait: seconds(60), cause: Cause::IdpThrottled }));
    // The longest wait is an hour.
    let mut health = IdpHealth::new(&idp());
    request(&mut health, 0, 1, Throttled(Some(seconds(86_400))), T);
    assert_eq!(health.closed(T).unwrap().wait, LONGEST_ASKED);
}

#[test]
fn throttling_without_a_time_doubles_until_a_good_response() {
    let mut health = IdpHealth::new(&idp());
    let mut now = T;
    for half in [500, 1_000, 2_000] {
        request(&mut health, 0, 1, Throttled(None), now);
        let wait = health.closed(now).unwrap().wait;
        assert_eq!(wait, Duration::from_millis(half));
        now = now + wait;
    }
    request(&mut health, 0, 1, Healthy, now);
    request(&mut health, 0, 1, Throttled(None), now);
    assert_eq!(health.closed(now).unwrap().wait, Duration::from_millis(500));
}

#[test]
fn the_next_secret_is_tried_after_a_refused_client_and_the_accepted_one_is_kept() {
    let mut health = IdpHealth::new(&idp().client("old", "ts-test-secret-2").client("new", "ts-test-secret-3"));
    let credentials = |health: &mut IdpHealth, client| {
        let admission = health.admit(client, 77, T).unwrap();
        health.give_back(admission);
        admission.credentials
    };
    let indexes = [None, Some("new"), Some("old"), Some("another")].map(|id| health.client_index(id));
    assert_eq!(indexes, [Some(0), Some(0), Some(1), None]);
    for observed in [Healthy, Unhealthy(None)] {
        request(&mut health, 0, 1, observed, T);
        assert_eq!(credentials(&mut health, 0), 0, "{observed:?}");
    }
    assert_eq!(request(&mut health, 0, 1, ClientRefused, T), (vec![], true), "no pause while one secret is untried");
    assert_eq!(credentials(&mut health, 0), 2);
    request(&mut health, 0, 1, Healthy, T);
    assert_eq!(credentials(&mut health, 0), 2, "the accepted secret");
    // All secrets refused: that client is paused, the other is not, and the gate as a whole is open.
    assert_eq!(request(&mut health, 0, 1, ClientRefused, T), (vec![], true));
    let (changes, try_next_secret) = request(&mut health, 0, 1, ClientRefused, T);
    assert!(matches!(changes[..], [HealthChange::Paused { cause: Cause::ClientRefused, .. }]) && !try_next_secret);
    assert_eq!(health.closed_to(0, 77, T).map(|closed| closed.cause), Some(Cause::ClientRefused));
    assert_eq!((credentials(&mut health, 1), cause(&health, T)), (1, None));
    // Each probe tries every secret before the next wait.
    let later = T + seconds(60);
    assert_eq!(request(&mut health, 0, 1, ClientRefused, later), (vec![], true));
    assert_eq!(request(&mut health, 0, 1, ClientRefused, later), (vec![], false), "one alarm");
    assert_eq!(health.closed_to(0, 77, later).unwrap().wait, seconds(60), "half of two minutes");
    let (changes, _) = request(&mut health, 0, 1, Healthy, later + seconds(60));
    assert_eq!(changes, [HealthChange::Recovered { cause: Cause::ClientRefused }]);
}

#[test]
fn a_fault_of_one_grant_ends_its_pause_with_the_next_good_response() {
    let mut health = IdpHealth::new(&idp());
    assert_eq!(request(&mut health, 0, 1, ClientRefused, T).0.len(), 1, "at first a fault of the client");
    let later = T + seconds(60);
    assert_eq!(request(&mut health, 0, 2, Healthy, later).0, [HealthChange::Recovered { cause: Cause::ClientRefused }]);
    assert_eq!(request(&mut health, 0, 1, ClientRefused, later), (vec![], false), "the fault lies with that grant");
    assert_eq!(cause(&health, later), None);
    // Another grant is refused too: the fault lies with the client.
    assert_eq!(request(&mut health, 0, 3, ClientRefused, later).0.len(), 1);
    assert_eq!(cause(&health, later), Some(Cause::ClientRefused));
}

#[test]
fn an_operator_can_start_a_probe() {
    let mut health = IdpHealth::new(&idp());
    request(&mut health, 0, 1, ClientRefused, T);
    assert!(health.admit(0, 77, T).is_err());
    health.probe_now(T);
    assert!(health.admit(0, 77, T).is_ok());
    assert!(health.admit(0, 77, T).is_err(), "a single probe");
}
