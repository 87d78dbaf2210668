//! The commands that read and change grants.

use std::time::Duration;

use serde_json::Value;
use token_supervisor::testing::{Fault, Presentation, Profile, SimulatedIdp};

use super::{Ran, World};
use crate::{
    real_time::{now, polled},
    support::nobody,
};

#[test]
fn a_change_on_the_store_is_audited_with_the_user_of_the_system() {
    let world = World::connected();
    let held = world.run(&["hold", "gitlab", "alice", "--reason", "the audit"]);
    // A machine with a system log has the line there.
    if !std::path::Path::new("/dev/log").exists() {
        for word in ["audit: changed", "caller=\"user:", "action=\"hold\"", "idp=\"gitlab\"", "outcome=\"ok\""] {
            assert!(held.stderr.contains(word), "{word}: {held:?}");
        }
    }
    assert!(!held.stderr.contains("alice"), "the user is a digest: {held:?}");
    let quiet = world.run(&["hold", "gitlab", "alice", "--reason", "the audit", "--json"]);
    assert_eq!(quiet.stderr, "", "with --json stderr is for errors");
    assert_eq!(world.run(&["status", "gitlab", "alice"]).stderr, "", "reading is no change");
}

#[test]
fn a_grant_is_held_released_disconnected_and_restored() {
    let world = World::connected();
    let held = world.json(&["hold", "gitlab", "alice", "--reason", "the audit"]);
    assert_eq!((&held["held"], &held["held_reason"]), (&true.into(), &"the audit".into()), "{held}");
    let refused = world.run(&["refresh", "gitlab", "alice"]);
    refused.failed(
        1,
        "unavailable (held): release the grant, then try again in 60 s; the current token is valid until 20",
    );
    refused.failed(1, "next: token-supervisor release gitlab alice\n");
    let report: Value = serde_json::from_str(&world.run(&["refresh", "gitlab", "alice", "--json"]).stderr).unwrap();
    assert_eq!((&report["generation"], &report["grant_id"]), (&1.into(), &held["grant_id"]), "{report}");
    assert_eq!((&report["valid_until"], report.get("max_ttl")), (&held["expires_at"], None), "{report}");
    assert!(world.token(&[]).starts_with("ts-test-secret-"), "valid tokens are still served");
    assert_eq!(world.json(&["release", "gitlab", "alice"])["held"], false);
    assert_eq!(world.sim.requests(), 0);
    for (args, head) in [
        (&["release", "gitlab", "alice"][..], "Nothing to release: not on hold.\n"),
        (&["hold", "gitlab", "--reason", "x"], "On hold.\nall grants of gitlab\n"),
        (&["release", "gitlab"], "Released.\nall grants of gitlab\n"),
        (&["release", "gitlab"], "Nothing to release: not on hold.\nall grants of gitlab\n"),
    ] {
        let ran = world.run(args);
        assert!(ran.code == 0 && ran.stdout.starts_with(head), "{ran:?}");
    }

    let refreshed = world.json(&["refresh", "gitlab", "alice"]);
    assert_eq!((&refreshed["refreshed"], &refreshed["generation"]), (&true.into(), &2.into()), "{refreshed}");
    let again = world.json(&["refresh", "gitlab", "alice"]);
    let just = again["reason"] == "just_refreshed";
    assert_eq!(again["refreshed"], !just, "{again}");
    let status = world.json(&["status"]);
    assert_eq!((&status["store"], &status["journal_pending"]), (&"ok".into(), &0.into()), "{status}");
    assert!(status["name"].as_str().unwrap().starts_with("ts-") && !status["name"].as_str().unwrap().contains(' '));

    world
        .run(&["purge", "gitlab", "alice"])
        .failed(2, "next: token-supervisor disconnect gitlab alice, then run purge");
    let gone = world.json(&["disconnect", "gitlab", "alice"]);
    assert_eq!((&gone["state"], gone.get("revoked")), (&"revoked".into(), None), "{gone}");
    world.run(&["token", "gitlab", "alice"]).failed(5, "token-supervisor connect gitlab alice --stdin");
    assert_eq!(world.json(&["restore", "gitlab", "alice"])["held"], false);
    world.token(&[]);

    let gone = world.json(&["disconnect", "gitlab", "alice", "--revoke"]);
    assert_eq!((&gone["revocation"], world.sim.revocations()), (&"done".into(), 1), "{gone}");
    world.run(&["restore", "gitlab", "alice"]).failed(5, "its tokens are revoked at the provider");
    assert_eq!(world.json(&["purge", "gitlab", "alice"])["state"], "absent");
    world.run(&["status", "gitlab", "alice"]).failed(5, "not connected");
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[test]
fn a_refused_refresh_token_is_retried() {
    let world = World::connected();
    for user in ["bob", "carol"] {
        world.connect(user);
    }
    let refused = |user: &str| {
        world.sim.next(Fault::error(400, "invalid_grant"));
        world.run(&["refresh", "gitlab", user]).failed(3, "invalid_grant");
    };
    let retried = |args: &[&str], head: &str| {
        let ran = world.run(&[&["retry"], args].concat());
        assert!(ran.code == 0 && ran.stdout.starts_with(head), "{head}: {ran:?}");
    };
    refused("alice");
    assert_eq!(world.json(&["status", "gitlab", "alice"])["state"], "reconnect_required");
    retried(&["gitlab", "alice"], "Retried: the refresh token will be sent once more.\ngitlab / alice ");
    let refreshed = world.json(&["refresh", "gitlab", "alice"]);
    assert!(refreshed["generation"].as_u64() >= Some(2), "no connect was necessary: {refreshed}");
    retried(&["gitlab", "alice"], "Nothing to retry: the provider did not refuse the refresh token.\n");
    retried(&["gitlab"], "Nothing to retry: gitlab refused no refresh token.\n");
    for user in ["bob", "carol"] {
        refused(user);
    }
    retried(&["gitlab"], "Retried 2 grants of gitlab: their refresh tokens will be sent once more.\n");
    for user in ["bob", "carol"] {
        assert!(world.json(&["refresh", "gitlab", user])["generation"].as_u64() >= Some(2), "{user}");
    }
    let all = world.json(&["retry", "gitlab"]);
    assert_eq!(all, serde_json::json!({"retried": 0, "left": false}));
    world.run(&["retry", "gitlab", "nobody"]).failed(5, "not connected");
    world.run(&["retry", "github"]).failed(2, "unknown_idp");
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[test]
fn a_revocation_that_fails_is_reported_as_queued() {
    let world = World::connected();
    world.sim.fail_revocations(Some(503));
    let ran = world.run(&["disconnect", "gitlab", "alice", "--revoke"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("Disconnected. The revocation is queued"), "{ran:?}");
    assert_eq!(world.sim.revocations(), 1);
    let status = world.json(&["status", "gitlab", "alice"]);
    assert_eq!((&status["state"], &status["revocation"]), (&"revoked".into(), &"unconfirmed".into()), "{status}");
    // Whether or not it is due again by now, it is not done.
    let again = world.json(&["disconnect", "gitlab", "alice", "--revoke"]);
    assert_eq!(again["revocation"], "unconfirmed", "{again}");
    let restore = world.run(&["restore", "gitlab", "alice"]);
    restore.failed(5, "the revocation of its tokens was sent, and may be carried out");
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("1 queued, of which 1 were sent and are not confirmed"), "{doctor:?}");
    assert!(world.run(&["status"]).stdout.contains("revocations 1, 1 not confirmed"));
}

#[test]
fn a_restore_says_what_became_of_the_revocation() {
    let world = World::connected();
    let restored = |line: &str| {
        let ran = world.run(&["restore", "gitlab", "alice"]);
        assert!(ran.code == 0 && ran.stdout.starts_with(line), "{line}: {ran:?}");
    };
    assert_eq!(world.json(&["disconnect", "gitlab", "alice"]).get("revocation"), None);
    restored("Restored.\n");
    // The provider is on hold: the revocation is queued, and nothing is sent.
    world.run(&["hold", "gitlab", "--reason", "maintenance"]);
    assert_eq!(world.json(&["disconnect", "gitlab", "alice", "--revoke"])["revocation"], "queued");
    restored("Restored. The revocation was canceled before anything was sent.\n");
    assert_eq!(world.json(&["status", "gitlab", "alice"]).get("revocation"), None);
    world.run(&["release", "gitlab"]);
    assert_eq!(world.json(&["disconnect", "gitlab", "alice", "--revoke"])["revocation"], "done");
    assert_eq!(world.json(&["status", "gitlab", "alice"])["revocation"], "done");
    world.run(&["restore", "gitlab", "alice"]).failed(5, "its tokens are revoked at the provider");
    assert_eq!(world.sim.revocations(), 1);
}

#[tokio::test]
async fn a_command_refreshes_no_other_grant_and_reading_refreshes_nothing() {
    let world = World::new(Duration::from_secs(4));
    let users = ["alice", "bob"];
    for user in users {
        world.connect(user);
    }
    // On a busy machine a stored grant may be due at once, and `connect` refreshes it.
    let before = world.sim.presentations().len();
    let due = |user| world.json(&["status", "gitlab", user])["state"] == "due";
    polled("both grants are due", Duration::from_secs(60), || users.into_iter().all(due).then_some(())).await;
    for reading in [&["status"][..], &["list"], &["doctor"], &["status", "gitlab", "alice"]] {
        assert_eq!(world.run(reading).code, 0);
    }
    assert_eq!(world.sim.presentations_after(before), []);
    // One of the next two commands refreshes the grant of alice.
    world.token(&[]);
    assert_eq!(world.run(&["refresh", "gitlab", "alice"]).code, 0);
    let sent = world.sim.presentations_after(before);
    let alices = |one: &Presentation| one.token.as_ref().is_some_and(|token| &*token.user == "alice");
    assert!(!sent.is_empty() && sent.iter().all(alices), "only alice's grant is refreshed: {sent:?}");
}

/// The last writes are in the WAL beside the store's file.
#[test]
fn a_clock_behind_a_stored_file_is_wrong() {
    let world = World::connected();
    let tomorrow = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(now() + 86_400_000);
    for name in ["token-supervisor.db-wal", "token-supervisor.journal/x"] {
        let path = world.folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_modified(tomorrow).unwrap();
        let doctor = world.run(&["doctor"]);
        assert!(doctor.code == 1 && doctor.stdout.contains(&format!("WRONG  clock          {name}")), "{doctor:?}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_input_of_connect_is_read_unmodified_and_never_printed() {
    let world = World::new(Duration::from_secs(7_200));
    let connect = |input: &[u8]| world.pipe(&["connect", "gitlab", "alice", "--stdin"], input);
    for (input, word) in [
        ("", "empty"),
        ("ts-test-secret-a", "neither a JSON object nor a form"),
        ("{\"access_token\":\"ts-test-secret-a\"", "neither a JSON object nor a form"),
        ("{\"id_token\":\"ts-test-secret-i\"}", "no token"),
        ("{\"error\":\"invalid_grant\",\"error_description\":\"ts-test-secret-a\"}", "an error and no token"),
    ] {
        connect(input.as_bytes()).failed(2, word);
    }
    let response = world.sim.consent_answer("alice");
    let (first, again) = (connect(&response), connect(&response));
    assert!(first.code == 0 && first.stdout.starts_with("Connected.\ngitlab / alice   g_"), "{first:?}");
    assert!(again.code == 0 && again.stdout.starts_with("Unchanged: already connected"), "{again:?}");
    let ran = world.pipe(&["connect", "gitlab", "bob", "--stdin"], &response);
    ran.failed(1, "connected under another key");

    // GitHub's responses are forms.
    let github = SimulatedIdp::start(Profile::github()).unwrap();
    let form = world.pipe(&["connect", "gitlab", "carol", "--stdin"], &github.consent_answer("carol"));
    assert_eq!(form.code, 0, "{form:?}");
}

#[test]
fn tokens_are_printed_in_the_requested_format() {
    let world = World::connected();
    let plain = world.token(&[]);
    let token = plain.trim_end();
    assert_eq!(world.token(&["--format", "plain", "--min-ttl", "60"]), plain);
    assert_eq!(world.token(&["--format", "header"]), format!("Authorization: Bearer {token}\n"));
    assert_eq!(world.token(&["--format", "env"]), format!("GITLAB_TOKEN={token}\n"));
    let netrc = world.token(&["--format", "netrc", "--machine", "gitlab.com"]);
    assert_eq!(netrc, format!("machine gitlab.com login oauth2 password {token}\n"));
    let json: Value = serde_json::from_str(&world.token(&["--json"])).unwrap();
    for (field, value) in [("access_token", token), ("token_type", "Bearer"), ("expiry", "at"), ("freshness", "fresh")]
    {
        assert_eq!(json[field], value, "{json}");
    }
    assert!(json["expires_at"].as_str().unwrap().ends_with('Z') && json["expires_in"].as_u64() > Some(7_000));
    // The log contains no token and goes to stderr.
    assert_eq!(world.token(&["-vv"]), plain);
}

#[test]
fn the_exit_code_says_what_to_do() {
    let world = World::connected();
    world.run(&["token", "github", "alice"]).failed(2, "[idp.github]");
    world.run(&["token", "gitlab", "bob"]).failed(5, "connect gitlab bob");
    let asked = world.run(&["token", "gitlab", "alice", "--min-ttl", "900000", "--json"]);
    let report: Value = serde_json::from_str(&asked.stderr).unwrap();
    assert_eq!(
        (asked.code, report["max_ttl"].as_u64() > Some(60), &report["generation"]),
        (2, true, &1.into()),
        "{report}"
    );
    world.sim.always(Some(Fault::Status(503, Some("20".to_owned()))));
    let down = world.run(&["refresh", "gitlab", "alice", "--json"]);
    let report: Value = serde_json::from_str(&down.stderr).unwrap();
    assert_eq!((down.code, &report["exit_code"], &report["code"]), (4, &4.into(), &"unavailable".into()), "{down:?}");
    assert!(report["retry_after"].as_u64() >= Some(1) && report["next"].as_str() > Some(""), "{report}");

    let world = World::connected();
    world.sim.end_family("alice");
    let ran = world.run(&["refresh", "gitlab", "alice"]);
    ran.failed(3, "token-supervisor why invalid_grant");
    assert_eq!(world.run(&["status", "gitlab", "alice"]).code, 0);
}

#[test]
fn a_grant_without_a_refresh_token_is_pointed_out_and_ends_with_its_token() {
    let world = World::new(std::time::Duration::from_secs(7_200));
    let lone = br#"{"access_token":"ts-test-secret-lone","expires_in":3600}"#;
    let connected = world.pipe(&["connect", "gitlab", "alice", "--stdin"], lone);
    assert!(
        connected.code == 0 && connected.stdout.contains("no refresh token: the user must consent"),
        "{connected:?}"
    );
    let status = world.json(&["status", "gitlab", "alice"]);
    assert_eq!((&status["state"], &status["warning"]), (&"fresh".into(), &"no_refresh_token".into()), "{status}");
    assert!(world.run(&["why", "no_refresh_token"]).stdout.contains("offline_access"));

    let over = br#"{"access_token":"ts-test-secret-lone","expires_at":1500000000}"#;
    assert_eq!(world.pipe(&["connect", "gitlab", "bob", "--stdin"], over).code, 0);
    let status = world.json(&["status", "gitlab", "bob"]);
    let state = (&status["state"], &status["reason"], &status["since"]);
    assert_eq!(state, (&"reconnect_required".into(), &"no_refresh_token".into(), &"2017-07-14T02:40:00Z".into()));
    world.run(&["token", "gitlab", "bob"]).failed(3, "no_refresh_token");
    let list = world.run(&["list", "--state", "reconnect_required"]);
    assert!(list.stdout.contains("bob") && !list.stdout.contains("alice"), "{list:?}");
    let summary = world.json(&["status"]);
    assert_eq!(summary["idps"][0]["reconnect_required"], 1, "{summary}");
}

#[test]
fn an_unreachable_identity_provider_is_reported() {
    let world = World::connected();
    let mut command = world.command(&["refresh", "gitlab", "alice"]);
    let (_kept, nobody) = nobody();
    command.env("TOKEN_SUPERVISOR__IDP__GITLAB__TOKEN_URL", format!("http://{nobody}/token"));
    Ran::new(command.output().unwrap()).without_secrets().failed(4, "idp_down");
    let status = world.json(&["status", "gitlab", "alice"]);
    assert_eq!((&status["generation"], &status["last_error"]), (&1.into(), &"connect_failed".into()), "{status}");
    assert_eq!(status["evidence"]["detail"], "refused", "{status}");
    assert!(world.run(&["status", "gitlab", "alice"]).stdout.contains("connect_failed refused"));
    assert!(world.run(&["why", "refused"]).stdout.contains("nothing listens at the port"));
}
