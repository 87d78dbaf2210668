//! `healthcheck`: container engines learn from the exit code whether the server is ready.

use std::{fs, net::TcpListener};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Ran, World};
use crate::support::eventually;

impl World {
    /// Checks the server of the configuration, which listens on `bind`.
    fn healthcheck(&self, bind: &str, args: &[&str]) -> Ran {
        let mut command = self.command(&[&["healthcheck"], args].concat());
        command.env("TOKEN_SUPERVISOR__SERVER__BIND", bind).env("TOKEN_SUPERVISOR_API_KEY", "not a key");
        Ran::new(command.output().unwrap()).without_secrets()
    }
}

#[tokio::test]
async fn a_server_is_ready_until_it_stops_whatever_becomes_of_its_configuration() {
    let world = World::connected();
    let server = world.serve();
    let address = server.addresses[0].clone();
    let bind = address.strip_prefix("http://").unwrap();
    let ready = world.healthcheck(bind, &[]);
    assert_eq!((ready.code, ready.stdout), (0, format!("{address} is ready\n")));
    let named = world.healthcheck("127.0.0.1:1", &["--server", &address, "--json"]);
    let body: Value = serde_json::from_str(&named.stdout).unwrap();
    assert_eq!((named.code, body), (0, json!({ "server": address, "ready": true, "degraded": [] })));

    let hold = server.ask(Method::POST, "/v1/idps/gitlab/hold", Some(&world.api_key)).json(&json!({ "reason": "x" }));
    assert!(hold.send().await.unwrap().status().is_success());
    let held = world.healthcheck(bind, &[]);
    assert_eq!((held.code, held.stdout), (0, format!("{address} is ready; degraded: idp_held:gitlab\n")));

    // The server keeps its settings, so it must not be stopped for these.
    let file = world.folder.path().join("token-supervisor.toml");
    fs::write(&file, "nonsense = 1\n[store]\nurl = 7\n[idp.x]\nclient_secret = { file = \"/nowhere\" }\n").unwrap();
    assert_eq!(world.healthcheck(bind, &[]).code, 0);
    world.healthcheck("nonsense", &[]).failed(2, "server.bind");
    world.healthcheck("127.0.0.1:0", &[]).failed(2, "no address with a port");

    server.signal("TERM");
    eventually("it is not ready any more", || world.healthcheck(bind, &[]).code == 4).await;
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    world.healthcheck(bind, &[]).failed(4, "nothing listens there");
}

#[test]
fn a_server_that_does_not_respond_in_time_is_not_ready() {
    let world = World::connected();
    // Connections wait in its queue, as those to a server do that starts.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = silent.local_addr().unwrap().to_string();
    world.healthcheck(&bind, &["--timeout", "1"]).failed(4, "did not respond within 1 s");
}
