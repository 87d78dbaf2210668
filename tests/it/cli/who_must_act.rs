//! Exit codes and advice: what passes by itself, and what does not before somebody acts.

use serde_json::Value;
use token_supervisor::testing::Fault;

use super::{Ran, World, fits};
#[cfg(unix)]
use crate::{served::Served, support::eventually};

#[test]
fn a_refused_client_is_the_operators_and_not_the_users() {
    let world = World::connected();
    let wrong = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("GITLAB_CLIENT_SECRET", "ts-test-secret-of-another-client");
        Ran::new(command.output().unwrap()).without_secrets()
    };
    let refused = wrong(&["refresh", "gitlab", "alice"]);
    refused.failed(1, "unavailable (client_refused): an operator must check the client's id, secret and scope");
    refused.failed(
        1,
        "next: check client_id, client_secret and scope of [idp.gitlab]; token-supervisor why client_refused",
    );
    assert!(!refused.stderr.contains("consent"), "{refused:?}");
    let report: Value = serde_json::from_str(&wrong(&["refresh", "gitlab", "alice", "--json"]).stderr).unwrap();
    assert_eq!((&report["exit_code"], &report["reason"]), (&1.into(), &"client_refused".into()), "{report}");
    let why = world.run(&["why", "client_refused"]).stdout;
    assert!(why.contains("Do not send users through consent"), "{why}");

    // Another process than the one that was refused says so, too.
    let doctor = wrong(&["doctor"]);
    assert!(doctor.code == 1 && fits(&doctor.stdout), "{doctor:?}");
    let words = doctor.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected =
        "WRONG idp.gitlab 1 grant is not refreshed: invalid_client; next: token-supervisor why invalid_client";
    assert!(words.contains(expected), "{words}");
    assert_eq!(world.run(&["refresh", "gitlab", "alice"]).code, 0, "with the right secret again");
    assert_eq!(world.run(&["doctor"]).code, 0);
}

#[test]
fn a_failure_that_passes_is_tried_again_later() {
    let world = World::connected();
    world.sim.next(Fault::error(503, "temporarily_unavailable"));
    let ran = world.run(&["refresh", "gitlab", "alice"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(world.run(&["doctor"]).code, 0);
}

/// Runs a command on the server.
#[cfg(unix)]
fn asked(world: &World, server: &Served, args: &[&str]) -> Ran {
    let mut command = super::program(world.folder.path(), args);
    command.env("TOKEN_SUPERVISOR_SERVER", &server.addresses[0]).env("TOKEN_SUPERVISOR_API_KEY", &world.api_key);
    Ran::new(command.output().unwrap()).without_secrets()
}

#[cfg(unix)]
#[tokio::test]
async fn doctor_fails_while_a_provider_of_the_server_is_paused() {
    let world = World::connected();
    let server = world.serve();
    let ask = |args: &[&str]| asked(&world, &server, args);
    let doctor = |code: i32, words: &str| {
        let ran = ask(&["doctor"]);
        assert!(ran.code == code && ran.stdout.contains(words), "{words}: {ran:?}");
    };
    doctor(0, "not paused");
    world.sim.next(Fault::error(401, "invalid_client"));
    ask(&["refresh", "gitlab", "alice"]).failed(1, "client_refused");
    eventually("it is paused", || ask(&["status", "gitlab"]).stdout.contains("PAUSED client_refused")).await;
    doctor(1, "WRONG  idp.gitlab");
    assert_eq!(ask(&["probe", "gitlab"]).code, 0);
    assert_eq!(ask(&["refresh", "gitlab", "alice"]).code, 0);
    eventually("it is not paused", || ask(&["doctor"]).code == 0).await;
    // What an operator did on purpose is no trouble.
    ask(&["hold", "gitlab", "--reason", "their incident"]);
    doctor(0, "warn   idp.gitlab  on hold: their incident");
}

/// A rate that is limited passes by itself, a failing provider may.
#[cfg(unix)]
#[tokio::test]
async fn doctor_only_warns_of_a_limited_rate() {
    let world = World::connected();
    let server = world.serve();
    let ask = |args: &[&str]| asked(&world, &server, args);
    world.sim.next(Fault::error(429, "slow_down"));
    ask(&["refresh", "gitlab", "alice"]).failed(4, "unavailable");
    let doctor = ask(&["doctor"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
}

#[test]
fn why_knows_every_state_and_suggests_the_nearest_word() {
    let world = World::connected();
    for state in [
        "fresh",
        "due",
        "refreshing",
        "backoff",
        "in_doubt",
        "reconnect_required",
        "revoked",
        "absent",
        "held",
        "last_good",
    ] {
        let ran = world.run(&["why", state]);
        assert!(ran.code == 0 && ran.stdout.starts_with(&format!("{state}\n  ")), "{ran:?}");
        assert!(ran.stdout.contains("What to do: ") && fits(&ran.stdout), "{ran:?}");
    }
    // As `status` shows them.
    for (words, code) in [
        (&["RECONNECT", "REQUIRED"][..], "reconnect_required"),
        (&["in doubt"], "in_doubt"),
        (&["HELD"], "held"),
        (&["client-refused"], "client_refused"),
    ] {
        let ran = world.run(&[&["why"], words].concat());
        assert!(ran.code == 0 && ran.stdout.starts_with(&format!("{code}\n")), "{ran:?}");
    }
    assert_eq!(world.json(&["why", "In", "Doubt"])["code"], "in_doubt");
    for (word, nearest) in [
        ("reconect", "reconnect_required"),
        ("backof", "backoff"),
        ("freshh", "fresh"),
        ("invalid_grand", "invalid_grant"),
        ("client_refuse", "client_refused"),
        ("indoubt", "in_doubt"),
    ] {
        world.run(&["why", word]).failed(2, &format!("token-supervisor why {nearest}, if you meant that"));
    }
    world.run(&["why", "qqqq"]).failed(2, "Known codes:");
}
