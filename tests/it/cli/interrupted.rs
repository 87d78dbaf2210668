//! Ctrl-C while a refresh is in flight, and stores that another process has open.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command},
    time::Duration,
};

use token_supervisor::{Keyring, TokenSupervisor, testing::Fault};

use super::{World, started};
use crate::{real_time::polled, support::eventually};

/// Starts a refresh whose response the provider holds back.
async fn hanging(world: &World) -> Child {
    world.sim.next(Fault::Hang);
    let child = started(world.command(&["refresh", "gitlab", "alice"]));
    eventually("the refresh request is sent", || world.sim.requests() == 1).await;
    child
}

pub(super) fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
#[tokio::test]
async fn a_refresh_in_flight_at_ctrl_c_is_stored() {
    let world = World::connected();
    let mut child = hanging(&world).await;
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("in flight"), "{line}");
    assert!(child.try_wait().unwrap().is_none(), "the command waits for the response");
    world.sim.release();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    line.clear();
    stderr.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("error: interrupted\n\nnext: "), "{line}");
    let status = world.json(&["status", "gitlab", "alice"]);
    assert_eq!((&status["generation"], &status["state"]), (&2.into(), &"fresh".into()), "{status}");
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_while_a_response_is_pasted_stores_nothing() {
    let world = World::connected();
    let mut child = started(world.command(&["connect", "gitlab", "bob", "--stdin"]));
    let mut response = world.sim.consent_answer("bob");
    // Larger than a pipe's buffer: once all is written, the response at its start has been read.
    response.resize(1 << 18, b'\n');
    let mut input = child.stdin.take().unwrap();
    input.write_all(&response).unwrap();
    interrupt(&child);
    let ended = polled("the command ends", Duration::from_secs(30), || child.try_wait().unwrap()).await;
    assert!(!ended.success(), "{ended:?}");
    drop(input);
    world.run(&["status", "gitlab", "bob"]).failed(5, "token-supervisor connect gitlab bob --stdin");
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_ctrl_c_abandons_the_refresh_and_leaves_it_in_doubt() {
    let world = World::connected();
    let mut child = hanging(&world).await;
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    stderr.read_to_string(&mut line).unwrap();
    assert!(line.contains("given up"), "{line}");
    world.sim.abandon_first(1);
    let status = world.json(&["status", "gitlab", "alice"]);
    // The sent request is recorded; its age decides which of the two states is shown.
    let doubt = status["state"] == "refreshing" || status["state"] == "in_doubt";
    assert!(doubt && status["generation"] == 1, "{status}");
}

#[tokio::test]
async fn the_process_that_has_the_store_open_is_named() {
    let world = World::connected();
    let path = |name: &str| world.folder.path().join(name);
    let supervisor = TokenSupervisor::builder()
        .store(format!("sqlite://{}", path("token-supervisor.db").display()))
        .keyring(Keyring::from_file(path("token-supervisor.keys")).unwrap())
        .start()
        .await
        .unwrap();
    let process = format!("in use by process {}", std::process::id());
    for args in [&["token", "gitlab", "alice"][..], &["status"], &["hold", "gitlab", "alice", "--reason", "x"]] {
        world.run(args).failed(4, &process);
        world.run(args).failed(4, "add --server http://127.0.0.1:8080");
    }
    let doctor = world.run(&["doctor"]);
    let words = doctor.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        doctor.code == 0 && words.contains(&format!("warn store store token-supervisor.db is {process}")),
        "{doctor:?}"
    );
    assert!(words.ends_with("next: token-supervisor doctor --server http://127.0.0.1:8080"), "{doctor:?}");
    assert!(words.contains("- journal not checked"), "{doctor:?}");
    assert_eq!(world.run(&["migrate", "--check"]).code, 0, "migrate --check needs no lock");
    crate::support::stop(supervisor).await;
}
