//! What happens is counted, by identity provider and never by user, for people who watch.

use std::time::Duration;

use token_supervisor::{
    Acquire, Error, MetricKind, Rotation, TokenKey, TokenSupervisor,
    testing::{Fault, Profile, StoreFault},
};

use crate::support::{LIFE, World, ask, eventually, stop, within};

/// The value of one sample; `None` if there is none.
async fn sample(supervisor: &TokenSupervisor, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let metrics = within(supervisor.metrics()).await;
    let (name, suffix) = match name.strip_suffix("_count") {
        Some(name) => (name, "_count"),
        None => (name, ""),
    };
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no metric {name}"));
    let fits =
        |given: &Vec<(&str, String)>| labels.iter().all(|(name, value)| given.contains(&(name, (*value).to_owned())));
    metric.samples.iter().find(|sample| sample.suffix == suffix && fits(&sample.labels)).map(|sample| sample.value)
}

async fn refreshes(supervisor: &TokenSupervisor, outcome: &str) -> f64 {
    sample(supervisor, "refreshes_total", &[("idp", "idp"), ("outcome", outcome)]).await.unwrap()
}

#[tokio::test]
async fn refreshes_are_counted_by_what_they_came_to() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let total = async || {
        let metrics = within(supervisor.metrics()).await;
        let refreshes = metrics.iter().find(|metric| metric.name == "refreshes_total").unwrap();
        refreshes.samples.iter().map(|sample| sample.value).sum::<f64>()
    };
    assert_eq!(total().await, 0.0);
    let (throttled, refused) = (Fault::Status(429, Some("1".into())), Fault::error(401, "invalid_client"));
    let transient = Fault::error(400, "temporarily_unavailable");
    let mut expected = 0.0;
    for (fault, outcome) in [
        (None, "rotated"),
        (Some(throttled), "throttled"),
        (Some(transient), "transient"),
        (Some(refused), "operator"),
        (Some(Fault::DropAfter), "in_doubt"),
    ] {
        fault.into_iter().for_each(|fault| world.sim.next(fault));
        world.clock.advance(LIFE);
        // Whatever is in the way of it.
        supervisor.probe_idp("idp").unwrap();
        let sent = world.sim.requests();
        let refreshed = ask(&supervisor, &key);
        eventually("it is sent", || world.sim.requests() > sent).await;
        eventually("it has ended", || supervisor.testing().attempts() == 0).await;
        refreshed.abort();
        expected += 1.0;
        assert_eq!((refreshes(&supervisor, outcome).await, total().await), (1.0, expected), "{outcome}");
    }
    let idp = [("idp", "idp")];
    assert_eq!(sample(&supervisor, "lost_answers_total", &idp).await, Some(1.0));
    for phase in ["gate", "claim", "idp"] {
        let seen = sample(&supervisor, "refresh_seconds_count", &[("idp", "idp"), ("phase", phase)]).await;
        assert_eq!(seen, Some(expected), "{phase}");
    }
    for phase in ["seal", "commit"] {
        let seen = sample(&supervisor, "refresh_seconds_count", &[("idp", "idp"), ("phase", phase)]).await;
        assert_eq!(seen, Some(1.0), "{phase}");
    }
    stop(supervisor).await;
}

#[tokio::test]
async fn a_refresh_token_that_is_kept_and_one_that_is_refused() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::WithoutRefreshToken);
    supervisor.set_idp("idp", world.sim.idp().rotation(Rotation::Sometimes)).unwrap();
    within(supervisor.refresh_now(&key)).await.unwrap();
    assert_eq!(refreshes(&supervisor, "kept").await, 1.0);
    world.sim.end_family("alice");
    world.clock.advance(LIFE);
    within(supervisor.token(&key)).await.unwrap_err();
    assert_eq!((refreshes(&supervisor, "user").await, refreshes(&supervisor, "kept").await), (1.0, 1.0));
    stop(supervisor).await;
}

#[tokio::test]
async fn grants_are_counted_once_a_minute_with_what_is_late_and_what_will_hurt() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let idp = [("idp", "idp")];
    let state = async |state| sample(&supervisor, "grants", &[("idp", "idp"), ("state", state)]).await;
    assert_eq!((state("fresh").await, state("reconnect_required").await), (Some(1.0), Some(0.0)));
    assert_eq!(sample(&supervisor, "due_lag_seconds", &idp).await, Some(0.0));
    assert_eq!(sample(&supervisor, "first_impact_seconds", &idp).await, None);
    within(supervisor.require_reconnect(&key, "asked to")).await.unwrap();
    assert_eq!(state("fresh").await, Some(1.0), "as it was counted");
    world.clock.advance(Duration::from_secs(60));
    assert_eq!((state("fresh").await, state("reconnect_required").await), (Some(0.0), Some(1.0)));
    assert_eq!(sample(&supervisor, "first_impact_seconds", &idp).await, Some(3_540.0));
    assert_eq!(sample(&supervisor, "due_lag_seconds", &idp).await, Some(0.0), "nothing is to be sent for it");
    world.sim.always(Some(Fault::Status(503, None)));
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE);
    let lag = sample(&supervisor, "due_lag_seconds", &idp).await.unwrap();
    assert!((300.0..=361.0).contains(&lag), "5 minutes and a jitter before its end: {lag}");
    within(supervisor.hold_idp("idp", "x")).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(sample(&supervisor, "due_lag_seconds", &idp).await, Some(0.0), "nothing is to be sent there");
    assert_eq!(sample(&supervisor, "idp_paused", &[("idp", "idp"), ("reason", "idp_held")]).await, Some(1.0));
    stop(supervisor).await;
}

#[tokio::test]
async fn trouble_with_the_store_and_with_ourselves_is_counted_and_over_when_it_is() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    assert_eq!(
        (supervisor.is_store_down(), sample(&supervisor, "actor_restarts_total", &[]).await),
        (false, Some(0.0))
    );
    supervisor.testing().panic_actor(&key).await;
    within(supervisor.status(&key)).await.unwrap();
    eventually("the actor is replaced", || supervisor.testing().is_published(&key)).await;
    assert_eq!(sample(&supervisor, "actor_restarts_total", &[]).await, Some(1.0));
    assert_eq!(sample(&supervisor, "actors", &[("state", "awake")]).await, Some(1.0));
    let read = sample(&supervisor, "store_seconds_count", &[("op", "read")]).await.unwrap();
    supervisor.testing().store_fault(StoreFault::Down);
    let error = within(supervisor.status(&TokenKey::at("idp").user("bob"))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && supervisor.is_store_down(), "{error}");
    assert_eq!(sample(&supervisor, "store_errors_total", &[("op", "read")]).await, Some(1.0));
    assert_eq!(sample(&supervisor, "store_seconds_count", &[("op", "read")]).await, Some(read + 1.0));
    world.clock.advance(Duration::from_secs(60));
    assert!(!within(supervisor.metrics()).await.iter().any(|metric| metric.name == "grants"), "nobody can count them");
    supervisor.testing().store_fault(StoreFault::None);
    within(supervisor.status(&TokenKey::at("idp").user("bob"))).await.unwrap();
    assert!(!supervisor.is_store_down());
    stop(supervisor).await;
}

#[tokio::test]
async fn who_is_told_to_slow_down_is_counted() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.builder().waiters_per_grant(1).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE);
    world.sim.next(Fault::HangAfter);
    let waiting = ask(&supervisor, &key);
    eventually("it waits", || world.sim.requests() == 1).await;
    within(supervisor.call(Acquire::new(&key))).await.unwrap_err();
    world.sim.release();
    within(waiting).await.unwrap().unwrap();
    assert_eq!(sample(&supervisor, "shed_total", &[("reason", "waiters_per_grant")]).await, Some(1.0));
    for metric in within(supervisor.metrics()).await {
        assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
        assert!(!format!("{metric:?}").contains("alice"), "{metric:?}");
    }
    stop(supervisor).await;
}
