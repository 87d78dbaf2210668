//! What people see, word by word.

use std::{fs, time::Duration};

use serde_json::Value;

use super::{World, fits};

/// The text without what is different each time.
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

fn seen(world: &World, args: &[&str]) -> String {
    let ran = world.run(args);
    assert!(ran.code == 0 && fits(&ran.stdout) && ran.stderr.is_empty(), "{ran:?}");
    assert!(!ran.stdout.contains('\x1b'), "no colours but on a terminal: {ran:?}");
    masked(&ran.stdout)
}

#[test]
fn a_grant() {
    let world = World::connected();
    let status = seen(&world, &["status", "gitlab", "alice"]);
    let expected = "\
gitlab / alice   g_..   generation 1
state     FRESH since TIME (N s ago)
expires   TIME (in 2 h)
refresh   TIME (in 1";
    assert!(status.starts_with(expected), "{status}");
    let held = seen(&world, &["hold", "gitlab", "alice", "--reason", "the audit"]);
    let expected = "\
held
gitlab / alice   g_..   generation 1
state     FRESH since TIME (N s ago)
HELD      the audit
expires   TIME (in 2 h)
";
    assert_eq!(held, expected);
    seen(&world, &["disconnect", "gitlab", "alice"]);
    assert_eq!(seen(&world, &["purge", "gitlab", "alice"]), "purged\ngitlab / alice\n");
}

#[test]
fn a_grant_whose_user_must_reconnect() {
    let world = World::connected();
    world.sim.end_family("alice");
    let ran = world.run(&["refresh", "gitlab", "alice"]);
    let expected = "\
error: reconnect required (invalid_grant): send the user through consent again

next: send the user through consent, then token-supervisor connect gitlab alice --stdin; \
token-supervisor why invalid_grant
";
    assert_eq!(ran.stderr, expected);
    let status = seen(&world, &["status", "gitlab", "alice"]);
    assert!(status.contains("state     RECONNECT REQUIRED since TIME"), "{status}");
    assert!(status.contains("reason    invalid_grant (400, request simulated-request)"), "{status}");
    let all = seen(&world, &["status"]);
    let expected = "\
ts-......   store ok   journal 0
idp     grants  fresh  backoff  in doubt  reconnect  first impact  health
gitlab       1      0        0         0          1  2 h           ok
do: token-supervisor list --idp gitlab --state reconnect_required
";
    assert_eq!(all, expected);
}

#[test]
fn many_grants() {
    let world = World::new(Duration::from_secs(7_200));
    assert_eq!(seen(&world, &["list"]), "no such grants\n");
    let long = "a-user-whose-name-is-longer-than-a-column@example.com";
    for user in ["alice", long] {
        world.connect(user);
    }
    world.run(&["hold", "gitlab", "alice", "--reason", "x"]);
    let expected = "\
idp     user                          state        gen  expires
gitlab  a-user-whose-name-is-longer…  fresh          1  TIME
gitlab  alice                         fresh, held    1  TIME
";
    assert_eq!(seen(&world, &["list"]), expected);
    assert_eq!(seen(&world, &["list", "--held"]).lines().count(), 2);
    let first = world.run(&["list", "--limit", "1"]).stdout;
    let (_, cursor) = first.trim_end().split_once("next: the same with --after\n").unwrap();
    let second = world.json(&["list", "--limit", "1", "--after", cursor]);
    assert_eq!((&second["items"][0]["user"], &second["next"]), (&"alice".into(), &Value::Null));
    let all = seen(&world, &["status"]);
    assert!(all.contains("gitlab       2      2        0         0          0  2 h           ok, 1 held\n"), "{all}");
    assert!(all.ends_with("do: token-supervisor list --idp gitlab --held\n"), "{all}");
}

/// As the metric counts it.
#[test]
fn tokens_of_a_held_provider_run_out() {
    let world = World::connected();
    let impact = || world.json(&["status"])["idps"][0]["first_impact_at"].clone();
    assert_eq!(impact(), Value::Null, "the next refresh will do");
    world.run(&["hold", "gitlab", "--reason", "their incident of today"]);
    assert_eq!(impact(), world.json(&["status", "gitlab", "alice"])["expires_at"]);
    let all = seen(&world, &["status"]);
    assert!(all.contains("2 h           HELD their incident of…\n"), "{all}");
    assert!(all.ends_with("do: token-supervisor release gitlab\n"), "{all}");

    let world = World::new(Duration::from_secs(1));
    world.connect("alice");
    world.run(&["hold", "gitlab", "--reason", "x"]);
    let ended = || world.command(&["token", "gitlab", "alice"]).output().unwrap().status.code() == Some(4);
    assert!((0..200).any(|_| ended()), "its token ends");
    assert_eq!(world.json(&["status"])["idps"][0]["first_impact_at"], Value::Null, "it has run out");
}

#[test]
fn settings_and_health() {
    let world = World::new(Duration::from_secs(7_200));
    assert_eq!(seen(&world, &["config", "check"]), "token-supervisor.toml: everything fits together; gitlab\n");
    let shown = seen(&world, &["config", "show", "--origin"]);
    for line in [
        "refresh.margin_seconds                 300                       # default",
        "journal.dir                            token-supervisor.journal  # default",
        "    # environment variable TOKEN_SUPERVISOR__IDP__GITLAB__TOKEN_URL",
        "idp.gitlab.client_secret               ***",
        "server.api_key[0].sha256               ***",
    ] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}: {shown}");
    }
    assert!(shown.contains("environment variable GITLAB_CLIENT_SECRET"), "{shown}");
    assert_eq!(world.json(&["migrate"])["pending"], serde_json::json!([]));
    assert_eq!(seen(&world, &["migrate", "--check"]), "the schema is up to date\n");
    let doctor = seen(&world, &["doctor"]);
    let expected = "\
ok     configuration  token-supervisor.toml: everything fits together; gitlab
ok     keys           token-supervisor.keys
ok     clock          TIME after everything that was written
ok     store          opens with these keys, its schema is up to date
ok     journal        the store has every answer
";
    assert!(doctor.starts_with(expected) && doctor.ends_with("\nnext: token-supervisor status\n"), "{doctor}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let keys = world.folder.path().join("token-supervisor.keys");
        fs::set_permissions(keys, fs::Permissions::from_mode(0o644)).unwrap();
        let doctor = seen(&world, &["doctor"]);
        assert!(doctor.contains("look   keys           token-supervisor.keys: every user may read it"), "{doctor}");
        let keys = world.folder.path().join("token-supervisor.keys");
        fs::set_permissions(keys, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!seen(&world, &["doctor"]).contains("look"), "its group may");
    }
}

#[test]
fn a_schema_that_lacks_something() {
    let world = World::new(Duration::from_secs(7_200));
    let lacks = world.run(&["migrate", "--check"]);
    assert!(lacks.code == 1 && lacks.stdout.starts_with("the schema lacks (next: token-supervisor migrate)\n  2026-"));
    assert!(!world.folder.path().join("token-supervisor.db").exists(), "it only looks");
    let done = seen(&world, &["migrate"]);
    assert!(done.starts_with("the schema is up to date now; it lacked\n  2026-"), "{done}");
    assert_eq!(seen(&world, &["migrate"]), "the schema is up to date\n");
}

#[test]
fn what_is_behind_a_code() {
    let world = World::new(Duration::from_secs(7_200));
    let expected = "\
not_connected
  Nothing is stored for the key, or the grant was disconnected.

  Do: Send the user through consent, then connect.
";
    assert_eq!(seen(&world, &["why", "not_connected"]), expected);
    let json = world.json(&["why", "http_502"]);
    assert_eq!((&json["code"], json["advice"].as_str() > Some("")), (&"http_502".into(), true), "{json}");
}
