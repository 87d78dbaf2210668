//! `loadtest`: in its own process, and against a server.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::{Ran, SECRET, World, fits, program};
use crate::{running::Running, support::nobody};

fn run(folder: &Path, args: &[&str]) -> Ran {
    Ran::new(program(folder, &[&["loadtest"], args].concat()).output().unwrap()).without_secrets()
}

/// Reads a report and checks that it needs nothing but itself, and names no user.
fn report(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    for foreign in ["src=", "href=", "url(", "@import", "<script", "<link", "<img", "<iframe"] {
        assert!(!text.contains(foreign), "{foreign}: {text}");
    }
    for private in [SECRET, "user-0", "alice"] {
        assert!(!text.contains(private), "{private}: {text}");
    }
    text
}

/// By this seed the first request to four of the six providers meets a fault, however few there are in the time.
#[test]
fn a_load_with_faults_in_this_process_loses_nothing_and_is_reported() {
    let folder = TempDir::new().unwrap();
    let args =
        ["--pairs", "12", "--readers", "4", "--seconds", "5", "--lifetime", "4", "--faults", "some", "--seed", "281"];
    let ran = run(folder.path(), &[&args[..], &["--report", "load.html", "--plots", ".", "--json"]].concat());
    assert!(ran.code == 0 && ran.stderr.is_empty(), "{ran:?}");
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&result["parameters"]["pairs"], &result["parameters"]["readers"]), (&12.into(), &4.into()), "{result}");
    assert_eq!((&result["interrupted"], &result["errors"]), (&false.into(), &serde_json::json!({})), "{result}");
    assert_eq!(result["losses"], serde_json::json!({ "duplicate_spends": 0, "lost_rotations": 0 }));
    for some in ["reads", "reads_per_second", "refreshes", "refreshes_per_second"] {
        assert!(result[some].as_f64().unwrap() > 0.0, "{some}: {result}");
    }
    assert!(result["latency"]["p99_9_us"].as_f64() >= result["latency"]["p50_us"].as_f64(), "{result}");
    assert!(result["samples"].as_array().unwrap().len() >= 2, "{result}");
    assert!(!result["faults"].as_object().unwrap().is_empty(), "{result}");
    assert!(!ran.stdout.contains("user-0"), "{ran:?}");

    let html = report(&folder.path().join("load.html"));
    for part in ["duplicate spends 0  lost rotations 0", "Reads per second", "prefers-color-scheme", "12", "4 s"] {
        assert!(html.contains(part), "{part}: {html}");
    }
    for plot in ["latency", "reads", "refreshes"] {
        let svg = report(&folder.path().join(format!("{plot}.svg")));
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n") && svg.contains("class=\"line\""), "{svg}");
    }
}

#[test]
fn people_read_the_figures_and_where_the_report_is() {
    let folder = TempDir::new().unwrap();
    let ran = run(folder.path(), &["--pairs", "3", "--readers", "1", "--seconds", "1", "--report", "load.html"]);
    assert!(ran.code == 0 && fits(&ran.stdout) && !ran.stdout.contains('\x1b'), "{ran:?}");
    for line in
        ["load     1", "reads    ", "latency  p50 ", "errors   none", "losses   duplicate spends 0", "written  load"]
    {
        assert!(ran.stdout.lines().any(|found| found.starts_with(line)), "{line:?} is missing: {ran:?}");
    }
}

#[tokio::test]
async fn the_tokens_of_a_server_are_read_and_nothing_else_happens() {
    let world = World::new(Duration::from_secs(7_200));
    for user in ["acme/alice", "acme/bob", "carol"] {
        world.connect(user);
    }
    let (server, requests) = (world.serve(), world.sim.requests());
    let folder = TempDir::new().unwrap();
    let args = |more: &[&str]| {
        let args = ["loadtest", "--seconds", "1", "--readers", "2", "--server", &server.addresses[0]];
        let mut command = program(folder.path(), &[&args, more].concat());
        command.env("TOKEN_SUPERVISOR_API_KEY", &world.api_key);
        Ran::new(command.output().unwrap()).without_secrets()
    };
    let ran = args(&["--user-prefix", "acme/", "--report", "load.html", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&result["parameters"]["pairs"], &result["errors"]), (&2.into(), &serde_json::json!({})), "{result}");
    assert!(result["reads"].as_u64().unwrap() > 0 && result.get("losses").is_none(), "{result}");
    let html = report(&folder.path().join("load.html"));
    assert!(html.contains("Refreshes are new tokens") && !html.contains(&world.api_key) && !html.contains("acme"));
    assert_eq!(world.sim.requests(), requests, "the tokens are valid");

    args(&["--idp", "github"]).failed(1, "no grant to read");
    let unauthorized =
        program(folder.path(), &["loadtest", "--seconds", "1", "--server", &server.addresses[0]]).output();
    Ran::new(unauthorized.unwrap()).failed(2, "API key");
}

#[tokio::test]
async fn a_server_is_loaded_only_if_the_command_line_names_it_and_it_is_on_this_machine() {
    let folder = TempDir::new().unwrap();
    // An address that is reserved for documentation: nothing is sent to it.
    let elsewhere = "http://192.0.2.1:8080";
    run(folder.path(), &["--server", elsewhere]).failed(2, "--allow-remote");
    run(folder.path(), &["--server", elsewhere, "--allow-remote"]).failed(2, "--allow-http");
    run(folder.path(), &["--server", elsewhere, "--allow-http"]).failed(2, "--allow-remote");
    let (_kept, address) = nobody();
    run(folder.path(), &["--server", &format!("http://{address}")]).failed(4, "nothing listens there");

    let mut command =
        program(folder.path(), &["loadtest", "--pairs", "1", "--readers", "1", "--seconds", "1", "--json"]);
    let ran = Ran::new(command.env("TOKEN_SUPERVISOR_SERVER", elsewhere).output().unwrap());
    assert!(ran.code == 0 && ran.stdout.contains("this process"), "{ran:?}");
}

#[test]
fn what_is_out_of_bounds_or_cannot_be_written_is_refused_before_the_load() {
    let folder = TempDir::new().unwrap();
    for wrong in [
        &["--pairs", "0"][..],
        &["--pairs", "100001"],
        &["--readers", "0"],
        &["--readers", "1025"],
        &["--seconds", "0"],
        &["--seconds", "86401"],
        &["--lifetime", "3"],
        &["--faults", "many"],
        &["--idp", "github"],
        &["--user-prefix", "acme/"],
        &["--allow-remote"],
        &["--server", "http://127.0.0.1:1", "--seed", "1"],
        &["--server", "http://127.0.0.1:1", "--faults", "some"],
        &["--server", "http://127.0.0.1:1", "--lifetime", "60"],
    ] {
        let ran = run(folder.path(), wrong);
        assert!(ran.code == 2 && ran.stderr.starts_with("error: "), "{wrong:?}: {ran:?}");
    }
    run(folder.path(), &["--report", "missing/load.html"]).failed(2, "missing is not a folder");
    run(folder.path(), &["--report", "."]).failed(2, "is a folder");
    run(folder.path(), &["--plots", "missing"]).failed(2, "missing is not a folder");
}

#[tokio::test]
async fn an_interrupted_load_is_reported() {
    let folder = TempDir::new().unwrap();
    let args = ["loadtest", "--pairs", "5", "--readers", "2", "--seconds", "600", "--report", "load.html"];
    let mut running = Running::start(&mut program(folder.path(), &args));
    running.finds("it runs", |line| line.contains("/600 s").then_some(())).await;
    let (code, said) = running.interrupt().await;
    assert_eq!(code, Some(0), "{said:?}");
    assert!(said.iter().any(|line| line.contains("of 600, ended early")), "{said:?}");
    assert!(report(&folder.path().join("load.html")).contains("Ended early"));
}
