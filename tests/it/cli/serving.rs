//! `serve`, from its start to its end.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use token_supervisor::testing::Fault;
use tokio::task::JoinHandle;

use super::{Ran, SECRET, World};
use crate::{served::Served, support::eventually};

const TOKEN: &str = "/v1/grants/gitlab/alice/token";

impl World {
    /// A server at a port of its own.
    pub(super) fn serve(&self) -> Served {
        Served::start(self.serving("127.0.0.1:0")).unwrap()
    }

    fn serving(&self, bind: &str) -> std::process::Command {
        let mut command = self.command(&["serve", "--json"]);
        command.env("TOKEN_SUPERVISOR__SERVER__BIND", bind);
        command
    }

    fn serve_badly(&self, bind: &str) -> Ran {
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
    // When it was made, in GitLab's answers; lifetimes count from now.
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
    // Another one takes over where it ended.
    let status = world.run(&["status", "gitlab", "alice", "--json"]);
    assert!(status.stdout.contains("revoked"), "{status:?}");
}

/// A server that was told to stop while a refresh hangs, and who waits for that.
async fn stopping_with_a_refresh_in_flight(world: &World) -> (Served, JoinHandle<reqwest::Result<Response>>) {
    let server = world.serve();
    world.sim.next(Fault::Hang);
    let refresh = server.ask(Method::POST, "/v1/grants/gitlab/alice/refresh?timeout=60", Some(&world.api_key)).send();
    let refresh = tokio::spawn(refresh);
    eventually("the request has left", || world.sim.requests() == 1).await;
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
async fn a_second_signal_gives_up_what_is_in_flight() {
    let world = World::connected();
    let (server, refresh) = stopping_with_a_refresh_in_flight(&world).await;
    server.signal("INT");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(130), "{log}");
    assert!(log.contains("stopped before everything was finished"), "{log}");
    assert!(refresh.await.unwrap().is_err());
    world.sim.abandon_first(1);
    let status = world.json(&["status", "gitlab", "alice"]);
    // What was sent is not forgotten; how long ago it was decides what it is called.
    let doubt = status["state"] == "refreshing" || status["state"] == "in_doubt";
    assert!(doubt && status["generation"] == 1, "{status}");
}

#[tokio::test]
async fn a_unix_socket_needs_no_key_and_is_its_owners_alone() {
    let world = World::connected();
    fs::write(world.config(), without_key(&fs::read_to_string(world.config()).unwrap())).unwrap();
    let path = world.folder.path().join("ts.sock");
    let bind = format!("unix:{}", path.display());

    let checked = world.run(&["config", "check"]);
    assert!(checked.code == 0 && checked.stderr.contains("serve needs an API key for 127.0.0.1:8080"), "{checked:?}");
    let refused = world.serve_badly("127.0.0.1:0");
    refused.failed(2, "server.api_key: without one nothing is served at 127.0.0.1:0");
    assert!(refused.stderr.contains("apikey new"), "{refused:?}");

    let server = Served::start(world.serving(&bind)).unwrap();
    assert_eq!(server.addresses, [bind.as_str()]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let client = Client::builder().unix_socket(path.as_path()).build().unwrap();
    let token = client.get(format!("http://localhost{TOKEN}")).send().await.unwrap();
    assert_eq!(token.status(), StatusCode::OK);
    // Kept alive, it would be waited for.
    drop((client, token));
    server.signal("INT");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(!path.exists());
}

#[tokio::test]
async fn sighup_takes_over_a_good_configuration_and_refuses_a_bad_one() {
    let world = World::connected();
    let server = world.serve();
    let config = fs::read_to_string(world.config()).unwrap();
    let made = world.json(&["apikey", "new", "second", "--scope", "token"]);
    let (first, second) = (Some(world.api_key.as_str()), made["key"].as_str());
    let with_second = config.replace("[store]", &format!("{}\n[store]", made["section"].as_str().unwrap()));

    fs::write(world.config(), format!("{with_second}\n[nonsense]\n")).unwrap();
    server.signal("HUP");
    server.logs("the new configuration is refused").await;
    assert_eq!(server.status(TOKEN, second).await, StatusCode::UNAUTHORIZED);

    fs::write(world.config(), with_second).unwrap();
    server.signal("HUP");
    server.logs("the configuration was read again").await;
    assert_eq!(server.status(TOKEN, second).await, StatusCode::OK);

    fs::write(world.config(), without_key(&config)).unwrap();
    server.signal("HUP");
    server.logs("the last API key must not go").await;
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
async fn what_it_cannot_have_is_named() {
    let world = World::connected();
    let server = world.serve();
    let taken = server.addresses[0].trim_start_matches("http://");
    world.serve_badly(taken).failed(1, &format!("cannot listen at {taken}"));
    world.serve_badly("127.0.0.1:0").failed(4, &format!("in use by process {}", server.id()));
    let socket = world.folder.path().join("ts.sock");
    world.serve_badly(&format!("unix:{}", socket.display())).failed(4, "in use by process");
    assert!(!socket.exists(), "nothing is left of a start that failed");
    let file = Path::new(&world.folder.path()).join("file");
    fs::write(&file, "mine").unwrap();
    world.serve_badly(&format!("unix:{}", file.display())).failed(1, "something else is there");
    let logged = Ran::new(world.serving("127.0.0.1:0").env("RUST_LOG", "nonsense=loud").output().unwrap());
    assert!(logged.code == 2 && logged.stderr.contains("RUST_LOG"), "{logged:?}");
    let nowhere = format!("unix:{}/nowhere/ts.sock", world.folder.path().display());
    let refused = world.serve_badly(&nowhere);
    refused.failed(1, &format!("cannot listen at {nowhere}: its folder is missing\n\nnext: make the folder"));
    assert_eq!(server.status("/livez", None).await, StatusCode::OK);
    let ready: Value = server.ask(Method::GET, "/readyz", None).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready, json!({ "status": "ok", "degraded": [] }));
}

#[cfg(target_os = "linux")]
#[test]
fn what_fails_after_the_start_ends_in_order() {
    let world = World::connected();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = Ran::new(world.serving("127.0.0.1:0").stdout(full).output().unwrap()).without_secrets();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("what is under way is finished") && ran.stderr.contains("No space left"), "{ran:?}");
}
