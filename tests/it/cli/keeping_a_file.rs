//! `token --file`: keeps a file up to date from the store and from a server.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{Ran, SECRET, World, started};
use crate::{real_time::polled, support::signal};

const LIFETIME: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(60);

/// Returns the token in the file.
fn token_in(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.starts_with(SECRET) && text.ends_with('\n'), "the file has a whole token");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    text
}

/// Checks that the file is kept up to date until the command is stopped or the user must consent again.
async fn keeps_up_to_date(world: &World, command: impl Fn(&[&str]) -> Command) {
    let path = world.folder.path().join("token");
    fs::write(&path, "somebody's, and open to all").unwrap();
    for ends in ["TERM", "reconnect"] {
        let args = ["token", "gitlab", "alice", "--file", "token", "--watch", "--json"];
        let before = fs::read(&path).unwrap();
        let child = started(command(&args));
        polled("the file is written", SOON, || (fs::read(&path).unwrap() != before).then_some(())).await;
        let mut seen = BTreeSet::new();
        polled("the file is updated twice", SOON, || {
            seen.insert(token_in(&path));
            (seen.len() == 3).then_some(())
        })
        .await;
        fs::remove_file(&path).unwrap();
        polled("a deleted file is written again", SOON, || path.exists().then_some(())).await;
        match ends {
            "TERM" => signal("TERM", child.id()),
            _ => world.sim.end_family("alice"),
        }
        let ran = Ran::new(child.wait_with_output().unwrap()).without_secrets();
        let reports: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let generations: Vec<_> = reports.iter().map(|report| report["generation"].as_u64().unwrap()).collect();
        assert!(generations.is_sorted() && generations.len() > 3 && reports[0]["file"] == "token", "{ran:?}");
        let (code, said) = if ends == "TERM" { (0, "") } else { (3, "reconnect_required") };
        assert!(ran.code == code && ran.stderr.contains(said), "{ends}: {ran:?}");
        token_in(&path);
    }
    assert_eq!(world.sim.duplicate_spends(), 0);
}

fn world() -> World {
    let world = World::new(LIFETIME);
    world.connect("alice");
    world
}

#[tokio::test]
async fn a_file_is_kept_up_to_date_from_the_store() {
    let world = world();
    keeps_up_to_date(&world, |args| world.command(args)).await;
}

#[tokio::test]
async fn a_file_is_kept_up_to_date_from_a_server() {
    let world = world();
    let server = world.serve();
    let asking = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("TOKEN_SUPERVISOR_SERVER", &server.addresses[0]).env("TOKEN_SUPERVISOR_API_KEY", &world.api_key);
        command
    };
    keeps_up_to_date(&world, asking).await;
}

#[test]
fn a_file_is_written_once_in_any_format_or_the_error_is_reported() {
    let world = World::connected();
    let written = world.run(&["token", "gitlab", "alice", "--file", "token.env", "--format", "env"]);
    assert!(written.code == 0 && written.stdout.starts_with("token.env: generation 1, expires "), "{written:?}");
    let text = fs::read_to_string(world.folder.path().join("token.env")).unwrap();
    assert!(text.starts_with(&format!("GITLAB_TOKEN={SECRET}")), "{text}");
    world.run(&["token", "gitlab", "alice", "--file", "nowhere/token"]).failed(1, "cannot write nowhere/token");
    world.run(&["token", "gitlab", "bob", "--file", "token.env"]).failed(5, "connect gitlab bob");
    assert_eq!(fs::read_to_string(world.folder.path().join("token.env")).unwrap(), text, "the file is unchanged");
    assert_eq!(world.run(&["token", "gitlab", "alice", "--watch"]).code, 2);
}
