//! A damaged or changed store is found by `doctor`, also beside a running server, and nothing is created or sent for it.

use std::fs;

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use reqwest::Method;

use super::World;
use crate::served::Served;

impl World {
    /// Executes a statement as another program would.
    fn alter(&self, statement: &str) {
        let database = self.folder.path().join("token-supervisor.db");
        let mut other = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
        other.batch_execute(&format!("PRAGMA busy_timeout = 5000; {statement}")).unwrap();
    }

    /// Returns the exit code of `doctor` and the lines of it that are wrong.
    fn wrong(&self) -> (i32, String) {
        let ran = self.run(&["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let found = report["findings"].as_array().unwrap().iter().filter(|finding| finding["verdict"] == "wrong");
        (ran.code, found.map(|finding| format!("{}: {}\n", finding["what"], finding["text"])).collect())
    }
}

#[test]
fn doctor_names_rows_that_were_changed_and_an_index_that_does_not_fit() {
    let world = World::connected();
    world.connect("bob");
    assert_eq!(world.wrong(), (0, String::new()));
    world.alter("UPDATE grants SET held = 'x' WHERE user_id = 'alice'");
    let (code, wrong) = world.wrong();
    assert!(code == 1 && wrong.contains("integrity") && wrong.contains("column code is invalid"), "{wrong}");
    assert!(!wrong.contains("alice"), "no user is named: {wrong}");
    let status = world.run(&["status", "gitlab", "alice"]);
    assert!(status.code == 4 && status.stderr.contains("store_down"), "{status:?}");
    assert_eq!(world.run(&["status", "gitlab", "bob"]).code, 0);
    world.alter("UPDATE grants SET held = NULL WHERE user_id = 'alice'");
    assert_eq!(world.wrong(), (0, String::new()));
    world.alter(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'grants_due'; \
         PRAGMA writable_schema = OFF;",
    );
    let (code, wrong) = world.wrong();
    assert!(
        code == 1 && wrong.contains("integrity") && (wrong.contains("is damaged") || wrong.contains("malformed")),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_running_server_and_doctor_beside_it_report_a_changed_row() {
    let world = World::connected();
    let server = Served::start(world.serving("127.0.0.1:0")).unwrap();
    let key = world.api_key.clone();
    let get = async |path: &str| {
        let response = server.ask(Method::GET, path, Some(&key)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/readyz?strict").await.0, 200);
    world.alter("UPDATE grants SET expires_at = expires_at + 1");
    let (code, wrong) = world.wrong();
    assert!(code == 1 && wrong.contains("column code is invalid"), "{wrong}");
    let (status, problem) = get("/v1/grants/gitlab/alice").await;
    assert!(status == 503 && problem.contains("store_down"), "{problem}");
    let (status, ready) = get("/readyz?strict").await;
    assert!(status == 503 && ready.contains("unreadable_rows"), "{status} {ready}");
    assert!(get("/metrics").await.1.contains("token_supervisor_unreadable_rows 1"));
    server.logs("a row of the store cannot be read and is left out").await;
    server.signal("TERM");
    assert!(server.ended().await.0.success());
}

#[tokio::test]
async fn a_damaged_log_is_named_and_no_command_takes_it_for_the_end() {
    let world = World::connected();
    let server = Served::start(world.serving("127.0.0.1:0")).unwrap();
    let refreshed = server.ask(Method::POST, "/v1/grants/gitlab/alice/refresh", Some(&world.api_key)).send().await;
    assert!(refreshed.unwrap().text().await.unwrap().contains("\"generation\":2"));
    drop(server);
    let log = world.folder.path().join("token-supervisor.db-wal");
    let good = fs::read(&log).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    fs::write(&log, &damaged).unwrap();
    let (code, wrong) = world.wrong();
    assert!(code == 1 && wrong.contains("db-wal is damaged at byte"), "{wrong}");
    for command in [
        &["migrate", "--check"][..],
        &["migrate"],
        &["status", "gitlab", "alice"],
        &["list"],
        &["token", "gitlab", "alice"],
    ] {
        let ran = world.run(command);
        assert!(ran.code == 1 && ran.stderr.contains("db-wal is damaged at byte"), "{command:?}: {ran:?}");
    }
    let refused = Served::start(world.serving("127.0.0.1:0")).err().unwrap();
    assert!(refused.contains("db-wal is damaged at byte"), "{refused}");
    assert_eq!(fs::read(&log).unwrap(), damaged, "nothing was changed");
    fs::write(&log, &good).unwrap();
    assert_eq!(world.wrong(), (0, String::new()));
    let status = world.run(&["status", "gitlab", "alice", "--json"]);
    assert!(status.stdout.contains("\"generation\":2"), "{status:?}");
}

#[tokio::test]
async fn a_database_that_is_moved_away_is_logged_once_and_when_it_is_back() {
    let world = World::connected();
    let server = Served::start(world.serving("127.0.0.1:0")).unwrap();
    let refresh = async || {
        let path = "/v1/grants/gitlab/alice/refresh?timeout=1";
        server.ask(Method::POST, path, Some(&world.api_key)).send().await.unwrap().status().as_u16()
    };
    let [path, aside] = ["token-supervisor.db", "aside"].map(|name| world.folder.path().join(name));
    fs::rename(&path, &aside).unwrap();
    assert_ne!(refresh().await, 200);
    server.logs("nothing is written to the store").await;
    server.logs("was moved or removed while it was open").await;
    fs::rename(&aside, &path).unwrap();
    server.logs("the store is written again").await;
    assert_eq!(refresh().await, 200);
}
