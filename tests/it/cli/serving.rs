//! `serve`: start, reload and shutdown.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use token_supervisor::testing::Fault;
use tokio::task::JoinHandle;

use super::{Ran, SECRET, World};
use crate::{served::Served, support::eventually};

const TOKEN: &str = "/v1/grants/gitlab/alice/token";

impl World {
    /// Starts a server on a free port.
    pub(super) fn serve(&self) -> Served {
        Served::start(self.serving("127.0.0.1:0")).unwrap()
    }

    pub(super) fn serving(&self, bind: &str) -> std::process::Command {
        let mut command = self.command(&["serve", "--json"]);
        command.env("TOKEN_SUPERVISOR__SERVER__BIND", bind);
        command
    }

    fn serve_fails(&self, bind: &str) -> Ran {
        let mut command = self.command(&["serve"]);
        command.env("TOKEN_SUPERVISOR__SERVER__BIND", bind).env("RUST_LOG", "off");
        Ran::new(command.output().unwrap()).without_secrets()
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("token-supervisor.toml")
    }
}

impl Served {
    async fn status(&self, path: &str, key: Option<&str>) -> StatusCode {
        self.ask(Method::GET, path, key).send().await.unwrap().status()
    }
}

#[tokio::test]
async fn a_user_is_connected_served_and_offboarded_over_http() {
    let world = World::new(std::time::Duration::from_secs(7_200));
    let (server, key) = (world.serve(), Some(world.api_key.as_str()));
    let mut grant: Value = serde_json::from_slice(&world.sim.consent_answer("alice")).unwrap();
    // GitLab's responses have `created_at`; lifetimes count from now.
    grant.as_object_mut().unwrap().remove("created_at");
    let put = server.ask(Method::PUT, "/v1/grants/gitlab/alice", key).json(&grant).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    let token: Value = server.ask(Method::GET, TOKEN, key).send().await.unwrap().json().await.unwrap();
    assert_eq!(token["access_token"], grant["access_token"]);
    assert_eq!(server.status(TOKEN, None).await, StatusCode::UNAUTHORIZED);
    let refreshed = server.ask(Method::POST, "/v1/grants/gitlab/alice/refresh", key).send().await.unwrap();
    assert_eq!(refreshed.json::<Value>().await.unwrap()["generation"], 2);
    let left = server.ask(Method::DELETE, "/v1/grants/gitlab/alice", key).send().await.unwrap();
    assert_eq!(left.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.status(TOKEN, key).await, StatusCode::NOT_FOUND);

    server.signal("TERM");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(!log.contains(SECRET) && !log.contains(&world.api_key) && !log.contains("alice"), "{log}");
    let audited = |action: &str| log.lines().filter(|line| line.contains(&format!("action=\"{action}\""))).count();
    assert_eq!((audited("connect"), audited("refresh"), audited("disconnect")), (1, 1, 1), "{log}");
    // Another process reads what the server stored.
    let status = world.run(&["status", "gitlab", "alice", "--json"]);
    assert!(status.stdout.contains("revoked"), "{status:?}");
}

#[tokio::test]
async fn the_time_of_a_token_from_memory_is_visible() {
    let world = World::connected();
    let (server, key) = (world.serve(), Some(world.api_key.as_str()));
    for _ in 0..20 {
        assert_eq!(server.status(TOKEN, key).await, StatusCode::OK);
    }
    let metrics = server.ask(Method::GET, "/metrics", key).send().await.unwrap().text().await.unwrap();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {metrics}")).parse::<f64>().unwrap()
    };
    let of = |suffix: &str, le: &str| {
        value(&format!("token_supervisor_request_seconds_{suffix}{{idp=\"gitlab\",path=\"snapshot\"{le}}}"))
    };
    let (sum, below) = (of("sum", ""), of("bucket", ",le=\"0.001\""));
    assert!(sum > 0.0 && of("count", "") == 19.0, "{sum}");
    assert!(of("bucket", ",le=\"0.00001\"") <= below && below > 0.0, "{below}");
}

#[tokio::test]
async fn the_callers_request_id_and_trace_are_taken_over() {
    let world = World::connected();
    let (server, key) = (world.serve(), Some(world.api_key.as_str()));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = |path: &str, id: &str, parent: &str| {
        let request = server.ask(Method::GET, path, key).header("X-Request-Id", id).header("traceparent", parent);
        async { request.send().await.unwrap() }
    };
    let id = |response: &Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let granted = ask(TOKEN, "checkout:42", &format!("00-{trace}-00f067aa0ba902b7-01")).await;
    assert_eq!((granted.status(), id(&granted)), (StatusCode::OK, "checkout:42".to_owned()));
    let refused = ask("/v1/grants/gitlab/nobody/token", "checkout:43", "nonsense").await;
    assert_eq!(id(&refused), "checkout:43");
    assert_eq!(refused.json::<Value>().await.unwrap()["request_id"], "checkout:43");
    let forged = ask(TOKEN, "x outcome=\"ok\"", &format!("00-{trace}-0000000000000000-01")).await;
    assert!(forged.status() == StatusCode::OK && id(&forged).starts_with("r_"), "{forged:?}");
    server.signal("TERM");
    let (_, log) = server.ended().await;
    let line = |words: &str| log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {log}"));
    assert!(line("request_id=\"checkout:42\"").contains(&format!("trace_id=\"{trace}\"")), "{log}");
    assert!(!line("request_id=\"checkout:43\"").contains("trace_id"), "{log}");
    assert!(line("request_id=\"r_").contains("outcome=\"ok\"") && log.matches(trace).count() == 1, "{log}");
}

#[tokio::test]
async fn every_line_about_a_grant_has_its_id() {
    let world = World::connected();
    let (server, key) = (world.serve(), Some(world.api_key.as_str()));
    let ask = async |method: Method, path: &str| {
        let request = server.ask(method, &format!("/v1/grants/gitlab/alice{path}"), key);
        request.send().await.unwrap().status().as_u16()
    };
    let status: Value =
        server.ask(Method::GET, "/v1/grants/gitlab/alice", key).send().await.unwrap().json().await.unwrap();
    let id = format!("grant.id=\"{}\"", status["grant_id"].as_str().unwrap());
    assert_eq!(ask(Method::GET, "/token").await, 200);
    world.sim.next(Fault::error(400, "temporarily_unavailable"));
    assert_eq!(ask(Method::POST, "/refresh").await, 503);
    assert_eq!(ask(Method::POST, "/refresh").await, 200);
    assert_eq!(ask(Method::DELETE, "?revoke=true").await, 204);
    server.logs("a token was revoked").await;
    assert_eq!(ask(Method::POST, "/purge").await, 200);
    server.signal("TERM");
    let (_, log) = server.ended().await;
    let line = |words: &str| log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {log}"));
    for words in [
        "action=\"token\"",
        "action=\"refresh\"",
        "action=\"disconnect\"",
        "action=\"purge\"",
        "a refresh brought no access token",
        "a token was revoked",
    ] {
        assert!(line(words).contains(&id), "{words}: {log}");
    }
    let refreshed = line("refreshed ");
    for part in [&id, " INFO ", "idp=\"gitlab\"", "generation=2", "outcome=\"rotated\"", "duration_ms="] {
        assert!(refreshed.contains(part), "{part} in {refreshed}");
    }
    assert!(!log.contains("alice"), "{log}");
}

/// Returns a server that got SIGTERM while a refresh hangs, and the request that waits for the refresh.
async fn stopping_with_a_refresh_in_flight(world: &World) -> (Served, JoinHandle<reqwest::Result<Response>>) {
    let server = world.serve();
    world.sim.next(Fault::Hang);
    let refresh = server.ask(Method::POST, "/v1/grants/gitlab/alice/refresh?timeout=60", Some(&world.api_key)).send();
    let refresh = tokio::spawn(refresh);
    eventually("the refresh request is sent", || world.sim.requests() == 1).await;
    server.signal("TERM");
    server.logs("stopping").await;
    (server, refresh)
}

#[tokio::test]
async fn a_refresh_in_flight_at_sigterm_is_stored_and_answered() {
    let world = World::connected();
    let (server, refresh) = stopping_with_a_refresh_in_flight(&world).await;
    world.sim.release();
    assert_eq!(refresh.await.unwrap().unwrap().status(), StatusCode::OK);
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert_eq!(world.json(&["status", "gitlab", "alice"])["generation"], 2);
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
}

#[tokio::test]
async fn a_second_signal_abandons_refreshes_in_flight() {
    let world = World::connected();
    let (server, refresh) = stopping_with_a_refresh_in_flight(&world).await;
    server.signal("INT");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(130), "{log}");
    assert!(log.contains("stopped before all requests and refreshes were finished"), "{log}");
    assert!(refresh.await.unwrap().is_err());
    world.sim.abandon_first(1);
    let status = world.json(&["status", "gitlab", "alice"]);
    // The sent request is recorded; its age decides which of the two states is shown.
    let doubt = status["state"] == "refreshing" || status["state"] == "in_doubt";
    assert!(doubt && status["generation"] == 1, "{status}");
}

#[tokio::test]
async fn a_unix_socket_needs_no_key_and_is_readable_only_by_its_owner() {
    let world = World::connected();
    fs::write(world.config(), without_key(&fs::read_to_string(world.config()).unwrap())).unwrap();
    let path = world.folder.path().join("ts.sock");
    let bind = format!("unix:{}", path.display());

    let checked = world.run(&["config", "check"]);
    assert!(
        checked.code == 0 && checked.stderr.contains("serve needs an API key to listen on 127.0.0.1:8080"),
        "{checked:?}"
    );
    let refused = world.serve_fails("127.0.0.1:0");
    refused.failed(2, "server.api_key is not set: 127.0.0.1:0 is not served without an API key");
    assert!(refused.stderr.contains("apikey new"), "{refused:?}");

    let server = Served::start(world.serving(&bind)).unwrap();
    assert_eq!(server.addresses, [bind.as_str()]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let client = Client::builder().unix_socket(path.as_path()).build().unwrap();
    let token = client.get(format!("http://localhost{TOKEN}")).send().await.unwrap();
    assert_eq!(token.status(), StatusCode::OK);
    // The server would wait for a connection that is kept alive.
    drop((client, token));
    server.signal("INT");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(!path.exists());
}

#[tokio::test]
async fn sighup_applies_a_valid_configuration_and_rejects_an_invalid_one() {
    let world = World::connected();
    let server = world.serve();
    let config = fs::read_to_string(world.config()).unwrap();
    let made = world.json(&["apikey", "new", "second", "--scope", "token"]);
    let (first, second) = (Some(world.api_key.as_str()), made["key"].as_str());
    let with_second = config.replace("[store]", &format!("{}\n[store]", made["section"].as_str().unwrap()));

    fs::write(world.config(), format!("{with_second}\n[nonsense]\n")).unwrap();
    server.signal("HUP");
    server.logs("the new configuration is rejected").await;
    assert_eq!(server.status(TOKEN, second).await, StatusCode::UNAUTHORIZED);

    fs::write(world.config(), with_second).unwrap();
    server.signal("HUP");
    server.logs("configuration reloaded").await;
    assert_eq!(server.status(TOKEN, second).await, StatusCode::OK);

    fs::write(world.config(), without_key(&config)).unwrap();
    server.signal("HUP");
    server.logs("the last API key cannot be removed").await;
    assert_eq!(server.status(TOKEN, second).await, StatusCode::OK);
    assert_eq!(server.status(TOKEN, first).await, StatusCode::OK);
    server.signal("TERM");
    let (_, log) = server.ended().await;
    assert!(log.contains("unknown key") && !log.contains(second.unwrap()), "{log}");
}

fn without_key(config: &str) -> String {
    let (before, key) = config.split_once("[[server.api_key]]\nname = \"first\"").unwrap();
    let (_, after) = key.split_once("\n\n").unwrap();
    format!("{before}{after}")
}

#[tokio::test]
async fn an_address_or_store_in_use_is_named() {
    let world = World::connected();
    let server = world.serve();
    let taken = server.addresses[0].trim_start_matches("http://");
    world.serve_fails(taken).failed(1, &format!("cannot listen on {taken}"));
    world.serve_fails("127.0.0.1:0").failed(4, &format!("in use by process {}", server.id()));
    let socket = world.folder.path().join("ts.sock");
    world.serve_fails(&format!("unix:{}", socket.display())).failed(4, "in use by process");
    assert!(!socket.exists(), "a start that failed leaves no socket");
    let file = Path::new(&world.folder.path()).join("file");
    fs::write(&file, "mine").unwrap();
    world.serve_fails(&format!("unix:{}", file.display())).failed(1, "another file exists there");
    let logged = Ran::new(world.serving("127.0.0.1:0").env("RUST_LOG", "nonsense=loud").output().unwrap());
    assert!(logged.code == 2 && logged.stderr.contains("RUST_LOG"), "{logged:?}");
    let nowhere = format!("unix:{}/nowhere/ts.sock", world.folder.path().display());
    let refused = world.serve_fails(&nowhere);
    refused.failed(1, &format!("cannot listen on {nowhere}: its folder does not exist\n\nnext: create the folder"));
    assert_eq!(server.status("/livez", None).await, StatusCode::OK);
    let ready: Value = server.ask(Method::GET, "/readyz", None).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready, json!({ "status": "ok", "degraded": [] }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_failure_after_the_start_shuts_down_in_order() {
    let world = World::connected();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = Ran::new(world.serving("127.0.0.1:0").stdout(full).output().unwrap()).without_secrets();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("finishing open requests") && ran.stderr.contains("No space left"), "{ran:?}");
}
