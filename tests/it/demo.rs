//! The demo, as users run it: the program itself.

#![cfg(feature = "cli")]

use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_token-supervisor")).arg("demo").args(args).output().expect("the program starts")
}

/// On a screen of a hundred columns.
fn fits(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 100)
}

#[test]
fn nothing_is_lost_under_load_and_faults() {
    let output = demo(&["--pairs", "20", "--seconds", "6", "--json"]);
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

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for wrong in [&["--wrong"][..], &["--pairs", "0"], &["--seconds", "soon"], &["--db", "mysql://x"]] {
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
