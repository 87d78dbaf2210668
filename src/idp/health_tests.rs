use super::*;

const T: Time = Time(1_000_000);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(time: Time) -> Reading {
    Reading { wall: time, boot: time }
}

fn idp() -> Idp {
    Idp::oauth2("https://idp.example/token", "new", "ts-test-secret-1")
}

/// One request of the grant `who`, from its admission to what it was told.
fn request(health: &mut Health, login: usize, who: u64, said: Observation, now: Time) -> (Vec<HealthChange>, bool) {
    let admitted = health.admit(login, now).unwrap();
    health.report(admitted, said, who, at(now), 0)
}

fn cause(health: &Health, now: Time) -> Option<Cause> {
    health.closed(now).map(|closed| closed.cause)
}

#[test]
fn five_failures_in_a_row_are_an_outage_and_one_answer_ends_it() {
    let mut health = Health::new(&idp());
    for grant in 0..4 {
        assert_eq!(request(&mut health, 0, grant, Observation::Ill(None), T), (vec![], false));
    }
    // An answer in between: it starts anew.
    request(&mut health, 0, 9, Observation::Well, T);
    for grant in 0..4 {
        request(&mut health, 0, grant, Observation::Ill(None), T);
    }
    assert_eq!(cause(&health, T), None);
    let before = health.admit(0, T).unwrap();
    let (notices, _) = request(&mut health, 0, 4, Observation::Ill(None), T);
    let wait = Duration::from_millis(500);
    assert_eq!(notices, [HealthChange::Paused { cause: Cause::IdpDown, wait }], "half of a second without jitter");
    assert_eq!(health.closed(T), Some(GateClosed { wait, cause: Cause::IdpDown }));
    assert_eq!(health.admit(0, T).unwrap_err().cause, Cause::IdpDown);
    // One that was sent before it opened changes nothing.
    assert_eq!(health.report(before, Observation::Ill(None), 5, at(T), 0), (vec![], false));
    assert_eq!(health.closed(T).unwrap().wait, wait);
    // One probes, the others wait; it fails: twice as long, and no second alarm.
    let later = T + wait;
    assert_eq!(cause(&health, later), None);
    let probe = health.admit(0, later).unwrap();
    assert_eq!(health.admit(0, later).unwrap_err().wait, WHILE_PROBING);
    assert_eq!(health.report(probe, Observation::Ill(None), 6, at(later), 0), (vec![], false));
    assert_eq!(health.closed(later).unwrap().wait, seconds(1));
    // The next is answered, if only by a refusal of that grant.
    let later = later + seconds(1);
    assert_eq!(
        request(&mut health, 0, 7, Observation::Well, later),
        (vec![HealthChange::Recovered { cause: Cause::IdpDown }], false)
    );
    assert_eq!((cause(&health, later), health.recovered().unwrap().wall), (None, later));
}

#[test]
fn what_was_learnt_last_does_not_shorten_what_was_asked_for() {
    let mut health = Health::new(&idp());
    let slow = health.admit(0, T).unwrap();
    request(&mut health, 0, 1, Observation::Throttled(Some(seconds(60))), T);
    health.report(slow, Observation::Ill(Some(seconds(5))), 2, at(T), 0);
    assert_eq!(health.closed(T), Some(GateClosed { wait: seconds(60), cause: Cause::IdpThrottled }));
    // An hour is the longest.
    let mut health = Health::new(&idp());
    request(&mut health, 0, 1, Observation::Throttled(Some(seconds(86_400))), T);
    assert_eq!(health.closed(T).unwrap().wait, LONGEST_ASKED);
}

#[test]
fn throttling_without_a_time_doubles_until_an_answer() {
    let mut health = Health::new(&idp());
    let mut now = T;
    for half in [500, 1_000, 2_000] {
        request(&mut health, 0, 1, Observation::Throttled(None), now);
        let wait = health.closed(now).unwrap().wait;
        assert_eq!(wait, Duration::from_millis(half));
        now = now + wait;
    }
    request(&mut health, 0, 1, Observation::Well, now);
    request(&mut health, 0, 1, Observation::Throttled(None), now);
    assert_eq!(health.closed(now).unwrap().wait, Duration::from_millis(500));
}

#[test]
fn the_next_secret_is_tried_only_on_a_refused_client_and_the_winner_is_remembered() {
    let mut health = Health::new(&idp().client("old", "ts-test-secret-2").client("new", "ts-test-secret-3"));
    let client = |health: &mut Health, login| {
        let admitted = health.admit(login, T).unwrap();
        health.give_back(admitted);
        admitted.client
    };
    assert_eq!(
        (health.client_index(None), health.client_index(Some("new")), health.client_index(Some("old"))),
        (Some(0), Some(0), Some(1))
    );
    assert_eq!(health.client_index(Some("another")), None);
    for said in [Observation::Well, Observation::Ill(None), Observation::Throttled(Some(Duration::ZERO))] {
        request(&mut health, 0, 1, said, T);
        assert_eq!(client(&mut health, 0), 0, "{said:?}");
    }
    assert_eq!(
        request(&mut health, 0, 1, Observation::ClientRefused, T),
        (vec![], true),
        "no pause while one is untried"
    );
    assert_eq!(client(&mut health, 0), 2);
    request(&mut health, 0, 1, Observation::Well, T);
    assert_eq!(client(&mut health, 0), 2, "the winner");
    // All refused: that client is paused, the other is not, and the gate as a whole is open.
    assert_eq!(request(&mut health, 0, 1, Observation::ClientRefused, T), (vec![], true));
    let (notices, again) = request(&mut health, 0, 1, Observation::ClientRefused, T);
    assert!(matches!(notices[..], [HealthChange::Paused { cause: Cause::ClientRefused, .. }]) && !again);
    assert_eq!(health.closed_to(0, T).map(|closed| closed.cause), Some(Cause::ClientRefused));
    assert_eq!((client(&mut health, 1), cause(&health, T)), (1, None));
    // Each probe tries every secret before it waits again.
    let later = T + seconds(60);
    assert_eq!(request(&mut health, 0, 1, Observation::ClientRefused, later), (vec![], true));
    assert_eq!(request(&mut health, 0, 1, Observation::ClientRefused, later), (vec![], false), "one alarm");
    assert_eq!(health.closed_to(0, later).unwrap().wait, seconds(60), "half of two minutes");
    let (notices, _) = request(&mut health, 0, 1, Observation::Well, later + seconds(60));
    assert_eq!(notices, [HealthChange::Recovered { cause: Cause::ClientRefused }]);
}

#[test]
fn one_grants_own_fault_pauses_nobody_for_long() {
    let mut health = Health::new(&idp());
    assert_eq!(
        request(&mut health, 0, 1, Observation::ClientRefused, T).0.len(),
        1,
        "at first it looks like the client"
    );
    let later = T + seconds(60);
    assert_eq!(
        request(&mut health, 0, 2, Observation::Well, later).0,
        [HealthChange::Recovered { cause: Cause::ClientRefused }]
    );
    assert_eq!(
        request(&mut health, 0, 1, Observation::ClientRefused, later),
        (vec![], false),
        "it was that grant's own"
    );
    assert_eq!(cause(&health, later), None);
    // Another one too: it is the client after all.
    assert_eq!(request(&mut health, 0, 3, Observation::ClientRefused, later).0.len(), 1);
    assert_eq!(cause(&health, later), Some(Cause::ClientRefused));
}

#[test]
fn people_can_have_it_probed_now() {
    let mut health = Health::new(&idp());
    request(&mut health, 0, 1, Observation::ClientRefused, T);
    assert!(health.admit(0, T).is_err());
    health.probe_now(T);
    assert!(health.admit(0, T).is_ok());
    assert!(health.admit(0, T).is_err(), "one");
}
