//! The commands with `--server`: they do the same as on the store.

use std::process::Command;

use serde_json::Value;
use token_supervisor::testing::Fault;

use super::{ON_GRANTS, Ran, SECRET, World, fits, interrupted, program, started};
use crate::{
    served::Served,
    support::{eventually, nobody},
};

/// A server, and a user who has its address and an API key but none of its files.
struct Remote<'a> {
    world: &'a World,
    server: Served,
    elsewhere: tempfile::TempDir,
}

impl<'a> Remote<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, server: world.serve(), elsewhere: tempfile::TempDir::new().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(self.elsewhere.path(), args);
        command
            .env("TOKEN_SUPERVISOR_SERVER", &self.server.addresses[0])
            .env("TOKEN_SUPERVISOR_API_KEY", &self.world.api_key);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let ran = Ran::new(self.command(args).output().unwrap()).without_secrets();
        assert!(args.contains(&"--json") || fits(&ran.stdout) && fits(&ran.stderr), "{ran:?}");
        ran
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn connect(&self, user: &str) -> Ran {
        use std::io::Write as _;
        let mut child = started(self.command(&["connect", "gitlab", user, "--stdin"]));
        child.stdin.take().unwrap().write_all(&self.world.sim.consent_answer(user)).unwrap();
        Ran::new(child.wait_with_output().unwrap()).without_secrets()
    }
}

#[tokio::test]
async fn every_command_does_the_same_on_a_server_as_on_the_store() {
    let world = World::new(std::time::Duration::from_secs(7_200));
    let remote = Remote::new(&world);
    for user in ["alice", "acme/böb", "~carol"] {
        let connected = remote.connect(user);
        assert!(connected.code == 0 && connected.stdout.starts_with("Connected.\n"), "{connected:?}");
        assert_eq!(remote.json(&["status", "gitlab", user])["user"], user);
    }
    let token = Ran::new(remote.command(&["token", "gitlab", "alice", "--format", "header"]).output().unwrap());
    assert!(token.stdout.starts_with(&format!("Authorization: Bearer {SECRET}")), "{token:?}");

    assert!(remote.run(&["refresh", "gitlab", "alice"]).stdout.starts_with("Refreshed.\n"));
    let again = remote.json(&["refresh", "gitlab", "alice"]);
    assert_eq!((&again["refreshed"], &again["reason"]), (&false.into(), &"just_refreshed".into()));
    assert_eq!(remote.json(&["hold", "gitlab", "alice", "--reason", "audit"])["held_reason"], "audit");
    let refused = remote.run(&["refresh", "gitlab", "alice", "--json"]);
    let report: Value = serde_json::from_str(&refused.stderr).unwrap();
    for field in ["generation", "grant_id", "valid_until", "retry_after", "request_id"] {
        assert!(!report[field].is_null(), "{field}: {report}");
    }
    assert_eq!((refused.code, &report["next"]), (1, &"token-supervisor release gitlab alice".into()), "{report}");
    assert_eq!(remote.json(&["list", "--held"])["items"].as_array().unwrap().len(), 1);
    assert_eq!(remote.json(&["release", "gitlab", "alice"])["held"], false);
    assert_eq!(remote.json(&["hold", "gitlab", "--reason", "incident"])["held_reason"], "incident");
    assert!(remote.run(&["status"]).stdout.contains("HELD incident"));
    assert_eq!(remote.run(&["release", "gitlab"]).stdout, "Released.\nall grants of gitlab\n");
    let page = remote.json(&["list", "--limit", "2", "--state", "fresh", "--state", "due"]);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let next = remote.json(&["list", "--after", page["next"].as_str().unwrap()]);
    assert_eq!((next["items"].as_array().unwrap().len(), &next["next"]), (1, &Value::Null));

    world.sim.next(Fault::error(400, "invalid_grant"));
    assert_eq!(remote.run(&["refresh", "gitlab", "~carol", "--json"]).code, 3);
    let retried = remote.run(&["retry", "gitlab"]).stdout;
    assert_eq!(retried, "Retried 1 grant of gitlab: its refresh token will be sent once more.\n");
    let again = remote.run(&["retry", "gitlab", "~carol"]).stdout;
    assert!(again.starts_with("Nothing to retry: the provider did not refuse"), "{again}");
    eventually("it is refreshed without a connect", || {
        remote.json(&["status", "gitlab", "~carol"])["generation"].as_u64() == Some(2)
    })
    .await;

    remote.run(&["purge", "gitlab", "alice"]).failed(2, "disconnect");
    assert_eq!(remote.json(&["disconnect", "gitlab", "alice"])["state"], "revoked");
    assert_ne!(remote.json(&["restore", "gitlab", "alice"])["state"], "revoked");
    let revocation = remote.json(&["disconnect", "gitlab", "acme/böb", "--revoke"])["revocation"].clone();
    assert!(["queued", "unconfirmed", "done"].map(Value::from).contains(&revocation), "{revocation}");
    assert_eq!(remote.json(&["disconnect", "gitlab", "alice"])["state"], "revoked");
    let purged = remote.run(&["purge", "gitlab", "alice"]);
    assert_eq!(purged.code, 0, "{purged:?}");
    remote.run(&["token", "gitlab", "alice"]).failed(5, "token-supervisor connect gitlab alice --stdin");
    remote.run(&["token", "github", "alice"]).failed(2, "[idp.github]");

    let status = remote.json(&["status"]);
    assert_eq!((&status["idps"][0]["grants"], &status["degraded"]), (&1.into(), &Value::Array(vec![])), "{status}");
    assert!(
        remote.run(&["status"]).stdout.starts_with(&format!("{}   store ok   journal 0\n", remote.server.addresses[0]))
    );
    let doctor = remote.run(&["doctor"]);
    assert!(doctor.code == 0 && doctor.stdout.contains("is ready"), "{doctor:?}");
    eventually("the queued revocation is carried out", || world.sim.revocations() == 1).await;
}

#[tokio::test]
async fn a_provider_without_revocation_is_reported_in_both_places() {
    use std::io::Write as _;
    let world = World::connected();
    let (url, client) = (world.sim.token_url(), &world.sim.profile().client_id);
    let idp = format!(
        "[idp.other]\npreset = \"oauth2\"\ntoken_url = \"{url}\"\nclient_id = \"{client}\"\n\
         client_secret = {{ env = \"GITLAB_CLIENT_SECRET\" }}\n"
    );
    let file = world.folder.path().join("token-supervisor.toml");
    std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(idp.as_bytes()).unwrap();
    for user in ["bob", "carol"] {
        let ran = world.pipe(&["connect", "other", user, "--stdin"], &world.sim.consent_answer(user));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let here = world.json(&["disconnect", "other", "bob", "--revoke"]);
    let there = Remote::new(&world).json(&["disconnect", "other", "carol", "--revoke"]);
    assert_eq!([&here["revocation"], &there["revocation"]], ["no_endpoint"; 2]);
    assert_eq!(world.json(&["status", "other", "bob"])["revocation"], "no_endpoint");
    let restored = world.run(&["restore", "other", "bob"]);
    assert!(restored.stdout.starts_with("Restored. Nothing was revoked: the provider has no"), "{restored:?}");
}

#[tokio::test]
async fn a_missing_or_wrong_api_key_is_reported() {
    let world = World::connected();
    let remote = Remote::new(&world);
    let run = |key: Option<&str>, args: &[&str]| {
        let mut command = remote.command(args);
        match key {
            Some(key) => command.env("TOKEN_SUPERVISOR_API_KEY", key),
            None => command.env_remove("TOKEN_SUPERVISOR_API_KEY"),
        };
        Ran::new(command.output().unwrap()).without_secrets()
    };
    for key in [None, Some("ts-test-secret-wrong")] {
        run(key, &["token", "gitlab", "alice"]).failed(2, "set TOKEN_SUPERVISOR_API_KEY");
        run(key, &["list"]).failed(2, "TOKEN_SUPERVISOR_API_KEY");
        let doctor = run(key, &["doctor"]);
        assert!(doctor.code == 1 && doctor.stdout.contains("WRONG"), "{doctor:?}");
    }
    let json = run(None, &["token", "gitlab", "alice", "--json"]);
    let report: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!((&report["code"], &report["exit_code"]), (&"unauthorized".into(), &2.into()));
}

#[test]
fn every_command_names_a_server_that_cannot_be_reached() {
    let folder = tempfile::TempDir::new().unwrap();
    let (_kept, nobody) = nobody();
    let nobody = format!("http://{nobody}");
    for args in ON_GRANTS {
        use std::io::Write as _;
        let mut child = started(program(folder.path(), &[args, &["--server", &nobody]].concat()));
        child.stdin.take().unwrap().write_all(br#"{"access_token":"ts-test-secret-a"}"#).ok();
        let ran = Ran::new(child.wait_with_output().unwrap()).without_secrets();
        ran.failed(4, &format!("cannot reach {nobody}"));
    }
    let doctor = Ran::new(program(folder.path(), &["doctor", "--server", &nobody]).output().unwrap());
    assert!(doctor.code == 1 && doctor.stdout.contains("cannot reach"), "{doctor:?}");
    for wrong in ["127.0.0.1:8080", "unix:ts.sock", "ftp://example.com"] {
        let ran = Ran::new(program(folder.path(), &["list", "--server", wrong]).output().unwrap());
        assert!(ran.code == 2 && ran.stderr.contains("must be a URL"), "{ran:?}");
        let mut command = program(folder.path(), &["list"]);
        Ran::new(command.env("TOKEN_SUPERVISOR_SERVER", wrong).output().unwrap()).failed(2, "TOKEN_SUPERVISOR_SERVER");
    }
    let both = program(folder.path(), &["list", "--server", &nobody, "--config", "x.toml"]).output().unwrap();
    assert_eq!(Ran::new(both).code, 2);
}

#[tokio::test]
async fn a_server_that_is_no_token_supervisor_is_reported() {
    let world = World::connected();
    let other = format!("http://{}", world.sim.token_url().split('/').nth(2).unwrap());
    for args in [&["token", "gitlab", "alice"][..], &["status"]] {
        world.run(&[args, &["--server", &other]].concat()).failed(1, "not as a token-supervisor does");
    }
    let doctor = world.run(&["doctor", "--server", &other]);
    assert!(doctor.code == 1 && doctor.stdout.contains(" 404 Not Found, and not as a"), "{doctor:?}");
}

/// The error blames the API key or TLS, not the server.
#[tokio::test]
async fn the_cause_is_reported_if_a_request_cannot_be_sent() {
    let world = World::connected();
    let remote = Remote::new(&world);
    for key in ["ts-test-secret-key\n", "ts-test-secret \u{e9}"] {
        let mut command = remote.command(&["list"]);
        let ran = Ran::new(command.env("TOKEN_SUPERVISOR_API_KEY", key).output().unwrap()).without_secrets();
        ran.failed(2, "TOKEN_SUPERVISOR_API_KEY is not an API key");
    }
    let https = remote.server.addresses[0].replace("http:", "https:");
    remote.run(&["list", "--server", &https]).failed(2, "use http://");
}

/// Otherwise the responding server could choose where the API key is sent.
#[test]
fn a_redirect_is_not_followed() {
    let folder = tempfile::TempDir::new().unwrap();
    let named = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("http://{}/v1/grants", elsewhere.local_addr().unwrap());
    let url = format!("http://{}", named.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut asked, _) = named.accept().unwrap();
        assert!(asked.read(&mut [0; 4_096]).unwrap() > 0);
        let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        asked.write_all(answer.as_bytes()).unwrap();
    });
    let mut command = program(folder.path(), &["list", "--server", &url]);
    let ran = Ran::new(command.env("TOKEN_SUPERVISOR_API_KEY", "ts-test-secret-key").output().unwrap());
    answering.join().unwrap();
    ran.without_secrets().failed(1, "not as a token-supervisor does");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "a request went to a server that was not named");
}

#[tokio::test]
async fn ctrl_c_stops_the_command_but_not_the_refresh_of_the_server() {
    let world = World::connected();
    let remote = Remote::new(&world);
    world.sim.next(Fault::Hang);
    let child = started(remote.command(&["refresh", "gitlab", "alice"]));
    eventually("the refresh request is sent", || world.sim.requests() == 1).await;
    interrupted::interrupt(&child);
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(130), "{ran:?}");
    world.sim.release();
    eventually("the server has stored the response", || remote.json(&["status", "gitlab", "alice"])["generation"] == 2)
        .await;
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
}
