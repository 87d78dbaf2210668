//! Wrong usage, missing files, and `--help`.

use std::fs;

use tempfile::TempDir;

use super::{COMMANDS, ON_GRANTS, Ran, World, fits, program};

fn run(args: &[&str]) -> Ran {
    let folder = TempDir::new().unwrap();
    Ran::new(program(folder.path(), args).output().unwrap()).without_secrets()
}

#[test]
fn every_help_ends_with_two_examples() {
    let of = |command: &'static str| vec![command];
    let subcommands = [
        vec!["config", "check"],
        vec!["config", "show"],
        vec!["apikey", "new"],
        vec!["keys", "new"],
        vec!["keys", "list"],
        vec!["keys", "add"],
        vec!["keys", "promote"],
        vec!["keys", "reseal"],
        vec!["keys", "remove"],
        vec!["idp", "add"],
        vec![],
    ];
    for command in COMMANDS.map(of).into_iter().chain(subcommands) {
        let ran = run(&[&*command, &["--help"]].concat());
        assert_eq!(ran.code, 0, "{command:?}");
        let (_, examples) = ran.stdout.split_once("Examples:\n").unwrap();
        let lines: Vec<_> = examples.trim_end().lines().collect();
        assert_eq!(lines.len(), 2, "{command:?}: {examples}");
        assert!(
            lines.iter().all(|line| line.contains(&format!("token-supervisor {}", command.join(" ")))),
            "{examples}"
        );
        assert!(fits(&ran.stdout), "{}", ran.stdout);
        assert!(ran.stdout.contains("--json"), "{command:?}");
    }
}

#[test]
fn every_command_reports_wrong_usage() {
    for wrong in [
        &[][..],
        &["nonsense"],
        &["init", "--idp"],
        &["init", "extra"],
        &["config"],
        &["config", "show", "--wrong"],
        &["apikey"],
        &["apikey", "new"],
        &["apikey", "new", "x", "--scope", "all"],
        &["connect", "gitlab", "alice"],
        &["connect", "gitlab", "--stdin"],
        &["token", "gitlab"],
        &["token", "gitlab", "alice", "--format", "xml"],
        &["token", "gitlab", "alice", "--format", "netrc"],
        &["token", "gitlab", "alice", "--min-ttl", "-1"],
        &["status", "gitlab", "--account", "x"],
        &["reconnect", "gitlab", "alice"],
        &["offboard"],
        &["probe"],
        &["id", "gitlab"],
        &["keys", "new"],
        &["idp", "add"],
        &["idp", "add", "nothing"],
        &["list", "--state", "lost"],
        &["list", "--limit", "0"],
        &["list", "--expiring-before", "1800000000000"],
        &["list", "--after", "x"],
        &["refresh"],
        &["retry"],
        &["retry", "gitlab", "--account", "work"],
        &["hold", "gitlab", "alice"],
        &["release"],
        &["hold", "gitlab"],
        &["token", "gitlab", "alice", "--timeout", "0"],
        &["disconnect", "gitlab", "alice", "--purge"],
        &["restore", "gitlab"],
        &["purge", "gitlab"],
        &["migrate", "now"],
        &["doctor", "--spend"],
        &["why"],
    ] {
        let ran = run(wrong);
        assert_eq!(ran.code, 2, "{wrong:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && ran.stderr.contains("--help"), "{wrong:?}: {ran:?}");
        let ran = run(&[&["--json"], wrong].concat());
        let report: serde_json::Value =
            serde_json::from_str(&ran.stderr).unwrap_or_else(|_| panic!("{wrong:?}: {ran:?}"));
        let next = report["next"].as_str().unwrap();
        assert!(next.starts_with("token-supervisor") && next.ends_with("--help"), "{wrong:?}: {report}");
        let error = report["error"].as_str().unwrap();
        let one_line = !error.contains('\n') && !error.starts_with("error") && !error.ends_with('.');
        assert!(one_line && !error.is_empty(), "{wrong:?}: {report}");
        assert_eq!((ran.code, ran.stdout.is_empty(), &report["exit_code"]), (2, true, &2.into()), "{wrong:?}");
    }
    for (wrong, word) in [
        (&["apikey", "new", ""][..], "name"),
        (&["apikey", "new", "x", "--user-prefix", "acme"], "must end in"),
        (&["apikey", "new", "x", "--idp", "GitHub"], "next: give --idp the NAME of a section [idp.NAME]"),
        (&["token", "GitHub", "alice"], "identity provider must match"),
        (&["hold", "gitlab", "", "--reason", "x"], "user must be"),
        (&["why", "nonsense"], "unknown code"),
        (&["why", "reconect_required"], "next: token-supervisor why reconnect_required, if you meant that"),
    ] {
        run(wrong).failed(2, word);
    }
}

/// The configuration is missing, is not TOML, is not text, or names a key file that is missing.
#[test]
fn every_command_names_a_missing_file() {
    let world = World::connected();
    let path = |name: &str| world.folder.path().join(name).display().to_string();
    fs::write(path("broken.toml"), "[store\nurl = \"ts-test-secret-url\"").unwrap();
    fs::write(path("binary.toml"), [0xff, 0xfe]).unwrap();
    let others = [&["config", "check"][..], &["config", "show"], &["migrate"]];
    for command in ON_GRANTS.into_iter().chain(others) {
        world.run(&[command, &["--config", "missing.toml"]].concat()).failed(2, "missing.toml");
        world.run(&[command, &["--config", "broken.toml"]].concat()).failed(2, "broken.toml:1:");
        run(command).failed(2, "next: token-supervisor init");
        let unreadable = world.run(&[command, &["--config", "binary.toml"]].concat());
        unreadable.failed(2, "it must be a UTF-8 text");
        assert!(!unreadable.stderr.contains("init"), "{unreadable:?}");
    }
    fs::rename(path("token-supervisor.keys"), path("elsewhere")).unwrap();
    for command in [&["token", "gitlab", "alice"][..], &["config", "check"], &["status"]] {
        world.run(command).failed(2, "cannot read key file token-supervisor.keys");
    }
    let doctor = world.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.stdout.contains("WRONG  keys"), "{doctor:?}");
    assert!(doctor.stdout.contains("-      idp.gitlab     not checked\n") && fits(&doctor.stdout), "{doctor:?}");
    for config in ["missing.toml", "broken.toml"] {
        let doctor = world.run(&["doctor", "--json", "--config", config]);
        let report: serde_json::Value = serde_json::from_str(&doctor.stdout).unwrap();
        let found = |what: &str| {
            let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == what);
            finding.map(|finding| finding["verdict"].as_str().unwrap())
        };
        assert_eq!((doctor.code, &report["ok"]), (2, &false.into()), "{report}");
        assert_eq!(found("configuration"), Some("wrong"), "{report}");
        for what in ["keys", "api keys", "files", "clock", "store", "journal"] {
            assert_eq!(found(what), Some("not_looked_at"), "{report}");
        }
    }
}

/// The error and `doctor` give the same advice.
#[test]
fn a_store_that_cannot_be_opened_is_explained() {
    let world = World::connected();
    fs::create_dir(world.folder.path().join("folder")).unwrap();
    fs::write(world.folder.path().join("notes"), "not a database, but longer than a few bytes").unwrap();
    fs::write(world.folder.path().join("file"), "").unwrap();
    let (store, journal) = ("TOKEN_SUPERVISOR__STORE__URL", "TOKEN_SUPERVISOR__JOURNAL__DIR");
    for (setting, value, advice, what) in [
        (store, "sqlite://folder", "set store.url to a file in it", "store"),
        (store, "sqlite://missing/x.db", "its folder is missing: create it", "store"),
        (store, "sqlite://notes", "restore it from its backup", "store"),
        (journal, "file", "of the journal's directory", "journal"),
    ] {
        let with = |args: &[&str]| {
            let mut command = world.command(args);
            Ran::new(command.env(setting, value).output().unwrap()).without_secrets()
        };
        let ran = with(&["status"]);
        ran.failed(1, advice);
        assert!(!ran.stderr.contains("doctor"), "{ran:?}");
        let doctor: serde_json::Value = serde_json::from_str(&with(&["doctor", "--json"]).stdout).unwrap();
        let wrong = |finding: &&serde_json::Value| finding["verdict"] == "wrong" && finding["what"] != "files";
        let wrong: Vec<_> = doctor["findings"].as_array().unwrap().iter().filter(wrong).collect();
        assert_eq!((wrong.len(), &wrong[0]["what"]), (1, &what.into()), "{doctor}");
        assert!(wrong[0]["text"].as_str().unwrap().contains(advice), "{doctor}");
    }
}
