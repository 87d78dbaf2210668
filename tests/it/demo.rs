//! The demo, as users run it: the program itself.

#![cfg(feature = "cli")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    running::Running,
    skip,
    support::{eventually, within},
};

fn demo(args: &[&str]) -> Output {
    command(args).output().expect("the program starts")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-supervisor"));
    command.arg("demo").args(args);
    command
}

/// On a screen of a hundred columns.
fn fits(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 100)
}

/// By this seed the first request to four of the six providers meets a fault, however few there are in the time.
#[test]
fn nothing_is_lost_under_load_and_faults() {
    let output = demo(&["--pairs", "20", "--seconds", "6", "--seed", "281", "--json"]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stderr.is_empty(), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&summary["result"], &summary["pairs"]), (&"pass".into(), &20.into()), "{stdout}");
    for bad in ["duplicate_spends", "lost_rotations", "caller_errors"] {
        assert_eq!(summary[bad], 0, "{stdout}");
    }
    for some in ["refreshes", "reads", "reads_per_second", "read_p99_us", "actor_panics"] {
        assert!(summary[some].as_f64().unwrap() > 0.0, "{some}: {stdout}");
    }
    assert!(!summary["faults"].as_object().unwrap().is_empty(), "{stdout}");
    assert!(summary["server"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{stdout}");
    assert!(summary.get("naive").is_none(), "nobody asked for it: {stdout}");
}

/// A hundred users at providers where a second use costs the grant: of their first visits, one in four is a page
/// whose parts find the token expired together.
#[test]
fn beside_it_a_client_without_supervision_loses_grants() {
    let output = demo(&["--compare-naive", "--pairs", "150", "--seconds", "3", "--json"]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    let bad = ["duplicate_spends", "lost_rotations", "caller_errors"];
    assert_eq!(bad.map(|bad| summary[bad].as_u64()), [Some(0); 3], "{stdout}");
    let naive = &summary["naive"];
    assert_eq!(naive["of"], 150, "{stdout}");
    for some in ["duplicate_spends", "logged_out", "caller_errors", "refreshes"] {
        assert!(naive[some].as_u64().unwrap() > 0, "{some}: {stdout}");
    }
    assert!(naive["logged_out"].as_u64() < Some(150), "where reuse is forgiven, users stay: {stdout}");
}

#[test]
fn people_read_a_verdict_and_what_was_broken() {
    let output = demo(&["--pairs", "5", "--seconds", "1", "--seed", "7", "--compare-naive"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let ours = "ours    duplicate spends 0  lost rotations 0  caller errors 0";
    for line in ["github gitlab", "faults  ", ours, "naive   duplicate spends ", "PASS  "] {
        assert!(stdout.lines().any(|found| found.starts_with(line)), "{line:?} is missing: {stdout}");
    }
    assert!(stdout.contains("seed 7") && !stdout.contains('\x1b') && fits(&stdout), "{stdout}");
}

#[cfg(unix)]
#[tokio::test]
async fn meanwhile_its_grants_are_served_to_who_has_the_key() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::TempDir::new().unwrap();
    let mut running = Running::start(command(&["--pairs", "6"]).env("TMPDIR", folder.path()));
    let line = running.finds("the server is named", |line| line.starts_with("server ").then(|| line.to_owned())).await;
    let url = running.url("server").await;
    let key_file = Path::new(line.split_once("key ").unwrap().1);
    assert_eq!(fs::metadata(key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(key_file).unwrap();

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask =
        async |path: &str, key: &str| within(http.get(format!("{url}{path}")).bearer_auth(key).send()).await.unwrap();
    assert_eq!(ask("/livez", "").await.status(), 200);
    let token = "/v1/grants/github/user-0000/token";
    assert_eq!(ask(token, "tsk_made_up").await.status(), 401);
    let answer = ask(token, key.trim()).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert!(answer["access_token"].as_str().is_some_and(|token| token.starts_with("ts-test-secret-at-")));

    eventually("the line to try is whole", || running.said().iter().any(|line| line.ends_with(token))).await;
    let said = running.said();
    let try_it = said.iter().position(|line| line.starts_with("try ")).unwrap();
    let pasted = said[try_it..try_it + 2].join("\n");
    match Command::new("curl").arg("--version").output() {
        Err(error) => skip::without("curl", &format!("what people paste was not tried: {error}")),
        Ok(_) => {
            let pasted = pasted.strip_prefix("try ").unwrap();
            let pasted =
                Command::new("sh").args(["-c", pasted]).env("http_proxy", "http://127.0.0.1:9").output().unwrap();
            let answer: Value = serde_json::from_slice(&pasted.stdout).unwrap_or_default();
            assert_eq!(answer["token_type"], "bearer", "{}", String::from_utf8_lossy(&pasted.stderr));
        }
    }

    let (code, said) = running.interrupt().await;
    let said = said.join("\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(key.trim()) && !said.contains("ts-test-secret-"), "a secret was printed");
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");
}

#[test]
fn a_port_that_is_taken_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = demo(&["--seconds", "1", "--port", &port]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(&port) && stderr.contains("\nnext: "), "{stderr}");
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for wrong in
        [&["--wrong"][..], &["--pairs", "0"], &["--seconds", "soon"], &["--port", "65536"], &["--db", "mysql://x"]]
    {
        let output = demo(wrong);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("not-a-folder");
    std::fs::write(&file, "").unwrap();
    let output = demo(&["--seconds", "1", "--db", &format!("sqlite://{}", file.join("demo.db").display())]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains("\nnext: "), "{stderr}");
}

#[test]
fn help_ends_with_two_examples() {
    let output = demo(&["--help"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (_, examples) = stdout.split_once("Examples:\n").unwrap();
    assert_eq!(examples.trim().lines().count(), 2, "{stdout}");
    assert!(fits(&stdout), "{stdout}");
}
