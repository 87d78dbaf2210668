//! The text output, word by word.

use std::time::Duration;

use serde_json::Value;

use super::{World, fits};
use crate::skip;

/// Masks the words that differ in every run.
fn masked(text: &str) -> String {
    let mask = |word: &str| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if word.starts_with("g_") {
            "g_..".to_owned()
        } else if word.starts_with("ts-") && word.len() == 9 {
            "ts-......".to_owned()
        } else if word.len() >= 20 && word.starts_with("20") && word.trim_end_matches(',').ends_with('Z') {
            "TIME".to_owned()
        } else if digits(word.trim_start_matches('(')) && word.starts_with('(') {
            "(N".to_owned()
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| line.split(' ').map(mask).collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}

fn shown(world: &World, args: &[&str]) -> String {
    let ran = world.run(args);
    assert!(ran.code == 0 && fits(&ran.stdout), "{ran:?}");
    assert!(ran.stderr.lines().all(|line| line.contains(" audit: ")), "{ran:?}");
    assert!(!ran.stdout.contains('\x1b'), "no colours but on a terminal: {ran:?}");
    masked(&ran.stdout)
}

#[test]
fn a_grant_is_shown() {
    let world = World::connected();
    let status = shown(&world, &["status", "gitlab", "alice"]);
    let expected = "\
gitlab / alice   g_..   generation 1
state     FRESH since TIME (N s ago)
expires   TIME (in 2 h)
refresh   TIME (in 1";
    assert!(status.starts_with(expected), "{status}");
    let held = shown(&world, &["hold", "gitlab", "alice", "--reason", "the audit"]);
    let expected = "\
On hold.
gitlab / alice   g_..   generation 1
state     FRESH since TIME (N s ago)
HELD      the audit
expires   TIME (in 2 h)
";
    assert_eq!(held, expected);
    shown(&world, &["disconnect", "gitlab", "alice"]);
    assert_eq!(shown(&world, &["purge", "gitlab", "alice"]), "Purged.\ngitlab / alice\n");
}

#[test]
fn a_grant_whose_user_must_reconnect_is_shown() {
    let world = World::connected();
    world.sim.end_family("alice");
    let ran = world.run(&["refresh", "gitlab", "alice"]);
    let expected = "\
error: reconnect required (invalid_grant): send the user through consent again

next: send the user through consent, then token-supervisor connect gitlab alice --stdin; \
token-supervisor why invalid_grant
";
    assert_eq!(ran.stderr, expected);
    let status = shown(&world, &["status", "gitlab", "alice"]);
    assert!(status.contains("state     RECONNECT REQUIRED since TIME"), "{status}");
    assert!(status.contains("reason    invalid_grant (400, request simulated-request)"), "{status}");
    let all = shown(&world, &["status"]);
    let expected = "\
ts-......   store ok   journal 0
idp     grants  fresh  backoff  in doubt  reconnect  first impact  health
gitlab       1      0        0         0          1  2 h           ok
next: token-supervisor list --idp gitlab --state reconnect_required
";
    assert_eq!(all, expected);
}

#[test]
fn grants_are_listed_in_pages() {
    let world = World::new(Duration::from_secs(7_200));
    world.run(&["migrate"]);
    assert_eq!(shown(&world, &["list"]), "No grant matches.\n");
    let long = "a-user-whose-name-is-longer-than-most@example.com";
    for user in ["alice", long] {
        world.connect(user);
    }
    world.run(&["hold", "gitlab", "alice", "--reason", "x"]);
    let expected = "\
idp     user                                               state        gen  expires
gitlab  a-user-whose-name-is-longer-than-most@example.com  fresh          1  TIME
gitlab  alice                                              fresh, held    1  TIME
";
    assert_eq!(shown(&world, &["list"]), expected);
    assert_eq!(shown(&world, &["list", "--held"]).lines().count(), 2);
    let first = world.run(&["list", "--limit", "1"]).stdout;
    let (_, cursor) = first.trim_end().split_once("next page: repeat the command with --after\n").unwrap();
    let second = world.json(&["list", "--limit", "1", "--after", cursor]);
    assert_eq!((&second["items"][0]["user"], &second["next"]), (&"alice".into(), &Value::Null));
    let all = shown(&world, &["status"]);
    assert!(all.contains("gitlab       2      2        0         0          0  2 h           ok, 1 held\n"), "{all}");
    assert!(all.ends_with("next: token-supervisor list --idp gitlab --held\n"), "{all}");
}

/// Runs a command on a terminal with that many columns; `None` if there is no program that makes one.
fn on_a_terminal(world: &World, columns: usize, args: &[&str]) -> Option<String> {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        skip::without("script", "there is no terminal without it");
        return None;
    }
    let command = world.command(args);
    let program = format!("stty cols {columns} rows 40; exec {} {}", command.get_program().display(), args.join(" "));
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &program, "/dev/null"]).current_dir(world.folder.path()).env_clear().env("NO_COLOR", "1");
    script.env("PATH", skip::variable("PATH").unwrap()).stdin(std::process::Stdio::null());
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(String::from_utf8(script.output().unwrap().stdout).unwrap().replace('\r', ""))
}

#[test]
fn a_terminal_of_80_columns_suffices_and_no_two_names_look_alike() {
    let world = World::new(Duration::from_secs(7_200));
    let long = ["a-user-whose-name-is-longer-than-a-column", "another-user-with-a-very-long-name"];
    let users = long.map(|user| format!("{user}@example.com"));
    for user in &users {
        world.connect(user);
    }
    let narrow = |text: &str, columns: usize| text.lines().all(|line| line.chars().count() <= columns);
    for (columns, args) in [
        (80, &["list"][..]),
        (80, &["status"]),
        (80, &["doctor"]),
        (80, &["status", "gitlab"]),
        (80, &["list", "--help"]),
    ] {
        let Some(shown) = on_a_terminal(&world, columns, args) else { return };
        assert!(!shown.is_empty() && narrow(&shown, columns), "{args:?} {columns}: {shown}");
    }
    let list = on_a_terminal(&world, 80, &["list"]).unwrap();
    assert!(list.contains("a-user-whose-name-i…column@example.com") && list.contains("fresh"), "{list}");
    world.run(&["hold", "gitlab", "--reason", "the-incident-of-their-certificate-authority"]);
    let status = on_a_terminal(&world, 80, &["status"]).unwrap();
    assert!(narrow(&status, 80) && status.contains("reconn.") && status.contains("HELD the-incident"), "{status}");

    // These differ only in the middle.
    for user in ["x-0123456789-0123456789-a-0123456789-0123456789", "x-0123456789-0123456789-b-0123456789-0123456789"] {
        world.connect(user);
    }
    let list = on_a_terminal(&world, 60, &["list"]).unwrap();
    let rows: std::collections::BTreeSet<_> = list.lines().filter(|line| line.contains("x-01")).collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.contains("0123456789-")), "{list}");
    assert!(world.run(&["list"]).stdout.contains("x-0123456789-0123456789-b-0123456789-0123456789 "));
}

/// `first impact` counts as the metric does.
#[test]
fn first_impact_counts_tokens_of_a_provider_on_hold() {
    let world = World::connected();
    let impact = || world.json(&["status"])["idps"][0]["first_impact_at"].clone();
    assert_eq!(impact(), Value::Null, "the next refresh replaces the token");
    world.run(&["hold", "gitlab", "--reason", "their incident of today"]);
    assert_eq!(impact(), world.json(&["status", "gitlab", "alice"])["expires_at"]);
    let all = shown(&world, &["status"]);
    assert!(all.contains("2 h           HELD their incident of today\n"), "{all}");
    assert!(all.ends_with("next: token-supervisor release gitlab\n"), "{all}");

    let world = World::new(Duration::from_secs(1));
    world.connect("alice");
    world.run(&["hold", "gitlab", "--reason", "x"]);
    let ended = || world.command(&["token", "gitlab", "alice"]).output().unwrap().status.code() == Some(1);
    assert!((0..200).any(|_| ended()), "its token expires");
    assert_eq!(world.json(&["status"])["idps"][0]["first_impact_at"], Value::Null, "the token has expired already");
}

#[test]
fn settings_and_findings_are_shown() {
    let world = World::new(Duration::from_secs(7_200));
    assert_eq!(
        shown(&world, &["config", "check"]),
        "token-supervisor.toml: configuration is valid. Providers: gitlab\n"
    );
    let settings = shown(&world, &["config", "show", "--origin"]);
    for line in [
        "refresh.margin_seconds                  300                       # default",
        "journal.dir                             token-supervisor.journal  # default",
        "    # environment variable TOKEN_SUPERVISOR__IDP__GITLAB__TOKEN_URL",
        "idp.gitlab.client_secret                ***",
        "server.api_key[0].sha256                ***",
    ] {
        assert!(settings.lines().any(|setting| setting.starts_with(line)), "{line}: {settings}");
    }
    assert!(settings.contains("environment variable GITLAB_CLIENT_SECRET"), "{settings}");
    assert_eq!(world.json(&["migrate"])["pending"], serde_json::json!([]));
    assert_eq!(shown(&world, &["migrate", "--check"]), "The schema is up to date.\n");
    let doctor = shown(&world, &["doctor"]);
    let expected = "\
ok     configuration  token-supervisor.toml: configuration is valid. Providers: gitlab
ok     keys           token-supervisor.keys
ok     api keys       1 is valid
ok     files          no other user can read or change them
ok     clock          TIME later than every stored file
ok     store          opens with these keys, and its schema is up to date
ok     journal        empty: the store has every response
";
    assert!(doctor.starts_with(expected) && doctor.ends_with("\nnext: token-supervisor status\n"), "{doctor}");
}

#[test]
fn pending_migrations_are_listed_and_applied() {
    let world = World::new(Duration::from_secs(7_200));
    let check = world.run(&["migrate", "--check"]);
    assert_eq!(check.code, 1, "{check:?}");
    assert!(check.stdout.starts_with("Pending migrations (next: token-supervisor migrate):\n  2026-"), "{check:?}");
    assert!(!world.folder.path().join("token-supervisor.db").exists(), "--check writes nothing");
    let done = shown(&world, &["migrate"]);
    assert!(done.starts_with("The schema is up to date. Applied migrations:\n  2026-"), "{done}");
    assert_eq!(shown(&world, &["migrate"]), "The schema is up to date.\n");
}

#[test]
fn a_code_is_explained() {
    let world = World::new(Duration::from_secs(7_200));
    let expected = "\
not_connected
  Nothing is stored for the key, or the grant was disconnected.

  What to do: Send the user through consent, then connect.
";
    assert_eq!(shown(&world, &["why", "not_connected"]), expected);
    let json = world.json(&["why", "http_502"]);
    assert_eq!((&json["code"], json["advice"].as_str() > Some("")), (&"http_502".into(), true), "{json}");
}
