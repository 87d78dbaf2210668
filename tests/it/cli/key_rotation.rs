//! The keys are rotated by the program, beside a running server and without one.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use token_supervisor::{KeyFileEdit, Keyring, TokenKey, TokenSupervisor};

use super::{Ran, World, fits, started};
use crate::{
    served::Served,
    support::{eventually, signal, stop, within},
};

impl World {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn keys(&self) -> Keyring {
        Keyring::from_file(self.at("token-supervisor.keys")).unwrap()
    }

    /// Runs a command that changes the key file of the folder and asks this server about its keys.
    fn asking(&self, server: &Served, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.env("TOKEN_SUPERVISOR_SERVER", &server.addresses[0]).env("TOKEN_SUPERVISOR_API_KEY", &self.api_key);
        let ran = Ran::new(command.output().unwrap()).without_secrets();
        assert!(args.contains(&"--json") || fits(&ran.stdout) && fits(&ran.stderr), "{ran:?}");
        ran
    }

    /// What a server says of each key: its state, how much needs it, and how many replicas have it.
    fn listed(&self, server: &Served) -> Vec<(String, String, u64, usize)> {
        let ran = self.asking(server, &["keys", "list", "--json"]);
        let keys: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
        let replicas = keys["replicas"].as_array().unwrap();
        let has = |replica: &&Value, id: &Value| replica["keys"].as_array().unwrap().iter().any(|key| key["id"] == *id);
        let key = |key: &Value| {
            let text = |member: &str| key[member].as_str().unwrap().to_owned();
            let has = replicas.iter().filter(|replica| has(replica, &key["id"])).count();
            (text("id"), text("state"), key["rows"].as_u64().unwrap(), has)
        };
        keys["items"].as_array().unwrap().iter().map(key).collect()
    }

    /// Copies the key file of the folder to where the server has its own.
    fn distribute(&self) {
        fs::copy(self.at("token-supervisor.keys"), self.at("server.keys.new")).unwrap();
        fs::rename(self.at("server.keys.new"), self.at("server.keys")).unwrap();
    }
}

fn id_of(ran: &Ran) -> String {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str::<Value>(&ran.stdout).unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_beside_a_server_that_refreshes_meanwhile() {
    let world = World::new(Duration::from_secs(7_200));
    let users = ["alice", "bob", "carol", "dave"];
    for user in users {
        world.connect(user);
    }
    world.distribute();
    let mut command = world.serving("127.0.0.1:0");
    command.env("TOKEN_SUPERVISOR__KEYRING__FILE", "server.keys");
    let server = Served::start(command).unwrap();
    let old = world.keys().labels()[0].id.clone();
    let new = id_of(&world.run(&["keys", "add", "--json"]));
    assert_eq!(world.keys().labels().len(), 2);

    // The server has a file of its own: until it has the key, the key is not promoted.
    let refused = world.asking(&server, &["keys", "promote", &new]);
    refused.failed(4, " is not promoted: r_");
    assert_eq!(world.listed(&server), [(old.clone(), "active".to_owned(), 4, 1)]);
    world.run(&["keys", "promote", &new]).failed(4, "is in use by process");
    world.distribute();
    server.logs("key file reloaded").await;
    let listed = world.asking(&server, &["keys", "list"]);
    assert!(listed.stdout.contains(&format!("{new}  staged  20")) && listed.stdout.contains("1 of 1"), "{listed:?}");
    let promoted = world.asking(&server, &["keys", "promote", &new]);
    assert!(promoted.code == 0 && promoted.stdout.starts_with(&format!("Key {new} is the active one")), "{promoted:?}");
    assert_eq!(world.asking(&server, &["keys", "promote", &new]).code, 0, "it may be repeated");
    world.asking(&server, &["keys", "remove", &old]).failed(1, "still encrypts with it");
    world.distribute();
    eventually("the server encrypts with it", || {
        world.listed(&server).iter().any(|(id, state, ..)| (id, state.as_str()) == (&new, "active"))
    })
    .await;
    world.asking(&server, &["keys", "remove", &old]).failed(1, "it is needed by 4 grants");

    // Refreshes and a reseal at a time.
    let (over, asked) = (AtomicBool::new(false), server.addresses[0].clone());
    let refreshing = async {
        let (client, mut refreshed) = (reqwest::Client::new(), 0);
        while !over.load(Ordering::Relaxed) {
            for user in users {
                let url = format!("{asked}/v1/grants/gitlab/{user}/refresh");
                let answer = client.post(url).bearer_auth(&world.api_key).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                refreshed += 1;
            }
        }
        refreshed
    };
    let resealing = async {
        let resealed = tokio::task::block_in_place(|| world.asking(&server, &["keys", "reseal"]));
        over.store(true, Ordering::Relaxed);
        resealed
    };
    let (refreshed, resealed) = tokio::join!(refreshing, resealing);
    assert!(refreshed >= 4 && resealed.code == 0 && resealed.stdout.contains(&new), "{resealed:?}");
    let again = world.asking(&server, &["keys", "reseal"]);
    assert!(again.stdout.starts_with("Nothing to do: all values are encrypted with key"), "{again:?}");
    let metrics = server.ask(Method::GET, "/metrics", Some(&world.api_key)).send().await.unwrap().text().await.unwrap();
    for (key, rows) in [(&old, 0), (&new, 4)] {
        let line = format!("token_supervisor_key_rows{{key=\"{key}\"}} {rows}\n");
        assert!(metrics.contains(&line), "{line} {metrics}");
    }

    let removed = world.asking(&server, &["keys", "remove", &old]);
    assert!(removed.code == 0 && removed.stdout.starts_with(&format!("Key {old} is removed")), "{removed:?}");
    world.distribute();
    eventually("the server has given it up", || world.listed(&server).len() == 1).await;
    for user in users {
        let path = format!("/v1/grants/gitlab/{user}/refresh");
        let answer = server.ask(Method::POST, &path, Some(&world.api_key)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{user}");
    }
    server.signal("TERM");
    let (ended, log) = server.ended().await;
    assert!(ended.code() == Some(0) && !log.contains("ERROR") && log.contains("action=\"reseal\""), "{log}");
    // The next process has the new key alone.
    assert!(world.token(&[]).starts_with("ts-test-secret-"));
    assert_eq!(world.sim.duplicate_spends(), 0);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_on_two_replicas_and_none_may_lack_the_new_one() {
    let Some(postgres) = crate::postgres::server::shared() else { return };
    let world = super::on_postgres::world_with(&postgres.url());
    assert_eq!(world.run(&["migrate"]).code, 0);
    for user in ["alice", "bob", "carol"] {
        world.connect(user);
    }
    let copy = |name: &str| {
        let beside = world.at(&format!("{name}.keys-new"));
        fs::copy(world.at("token-supervisor.keys"), &beside).unwrap();
        fs::rename(beside, world.at(&format!("{name}.keys"))).unwrap();
    };
    let serving = |name: &str| {
        let mut command = world.serving("127.0.0.1:0");
        command
            .env("TOKEN_SUPERVISOR__KEYRING__FILE", format!("{name}.keys"))
            .env("TOKEN_SUPERVISOR__JOURNAL__DIR", format!("{name}.journal"));
        command
    };
    let start = |name: &str| {
        copy(name);
        Served::start(serving(name)).unwrap()
    };
    let (one, two) = (start("one"), start("two"));
    let old = world.keys().labels()[0].id.clone();
    // The commands work on the store, beside the servers: each replica reports its keys there every few seconds.
    let replicas = |id: &str, state: &str| {
        let keys = world.json(&["keys", "list"]);
        let has = |replica: &&Value| {
            let of_replica = replica["keys"].as_array().unwrap();
            of_replica.iter().any(|key| key["id"] == *id && key["state"] == *state)
        };
        keys["replicas"].as_array().unwrap().iter().filter(has).count()
    };
    eventually("both replicas report", || replicas(&old, "active") == 2).await;
    let new = id_of(&world.run(&["keys", "add", "--json"]));
    copy("one");
    eventually("one replica has the key", || replicas(&new, "staged") == 1).await;
    let refused = world.run(&["keys", "promote", &new]);
    refused.failed(4, " lacks it");
    assert_eq!(refused.stderr.matches("r_").count(), 1, "{refused:?}");
    let listed = world.run(&["keys", "list"]);
    assert!(listed.stdout.contains("1 of 2") && listed.stdout.contains(&format!(" lacks {new}\n")), "{listed:?}");
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains(&format!("lacks key {new}")), "{doctor:?}");
    copy("two");
    eventually("both have the key", || replicas(&new, "staged") == 2).await;
    assert_eq!(world.run(&["keys", "promote", &new]).code, 0);
    copy("one");
    eventually("one replica encrypts with it", || replicas(&new, "active") == 1).await;
    world.run(&["keys", "remove", &old]).failed(1, "still encrypts with it");
    copy("two");
    eventually("both encrypt with it", || replicas(&new, "active") == 2).await;
    world.run(&["keys", "remove", &old]).failed(1, "it is needed by 3 grants");

    let refresh = async |server: &Served, user: &str| {
        let path = format!("/v1/grants/gitlab/{user}/refresh");
        server.ask(Method::POST, &path, Some(&world.api_key)).send().await.unwrap().status()
    };
    let resealing = async { tokio::task::block_in_place(|| world.run(&["keys", "reseal"])) };
    let (resealed, alice, bob) = tokio::join!(resealing, refresh(&one, "alice"), refresh(&two, "bob"));
    assert_eq!((resealed.code, alice, bob), (0, StatusCode::OK, StatusCode::OK), "{resealed:?}");
    assert_eq!(world.run(&["keys", "remove", &old]).code, 0);
    for name in ["one", "two"] {
        copy(name);
    }
    eventually("both have given it up", || replicas(&old, "retired") == 0 && replicas(&new, "active") == 2).await;
    for (server, user) in [(&one, "bob"), (&two, "alice"), (&one, "carol"), (&two, "carol")] {
        assert_eq!(refresh(server, user).await, StatusCode::OK, "{user}");
    }
    for server in [one, two] {
        server.signal("TERM");
        let (ended, log) = server.ended().await;
        assert!(ended.code() == Some(0) && !log.contains("ERROR"), "{log}");
    }
    assert_eq!(world.sim.duplicate_spends(), 0);
    // A replica that was away all the time is refused.
    Keyring::generate().write_new(world.at("three.keys")).unwrap();
    let refused = Served::start(serving("three")).err().unwrap();
    assert!(refused.contains(&format!("sealed with key {new}, which is not in the key file")), "{refused}");
}

#[tokio::test]
async fn a_wrong_key_file_is_refused_and_the_server_keeps_its_keys() {
    let world = World::connected();
    let server = world.serve();
    let path = world.at("token-supervisor.keys");
    let before = fs::read(&path).unwrap();
    let old = world.keys().labels()[0].id.clone();
    fs::write(&path, "half writ").unwrap();
    server.logs("is not a key file").await;
    fs::remove_file(&path).unwrap();
    Keyring::generate().write_new(&path).unwrap();
    server.logs("its fingerprint_key differs from the running one").await;
    // The key that everything is sealed with is missing.
    fs::write(&path, &before).unwrap();
    let edit = KeyFileEdit::open(&path).unwrap();
    let (staged, new) = edit.keyring().staging(std::time::SystemTime::UNIX_EPOCH);
    let promoted = staged.promoting(&new, std::time::SystemTime::UNIX_EPOCH).unwrap();
    edit.replace(&promoted.removing(&old).unwrap()).unwrap();
    server.logs(&format!("it lacks key {old}, with which this process seals")).await;
    let token = server.ask(Method::GET, "/v1/grants/gitlab/alice/token", Some(&world.api_key));
    assert_eq!(token.send().await.unwrap().status(), StatusCode::OK);
    // Retired, it may go when nothing needs it.
    KeyFileEdit::open(&path).unwrap().replace(&promoted).unwrap();
    server.logs("key file reloaded").await;
    KeyFileEdit::open(&path).unwrap().replace(&promoted.removing(&old).unwrap()).unwrap();
    server.logs(&format!("key {old} is missing, and needed by 1 grant")).await;
    fs::write(&path, promoted_text(&promoted)).unwrap();
    let doctor = world.asking(&server, &["doctor"]);
    assert!(doctor.stdout.contains(&format!("the retired key {old} is needed by")), "{doctor:?}");
    server.signal("HUP");
    assert_eq!(world.asking(&server, &["keys", "reseal"]).code, 0);
    server.signal("TERM");
    assert_eq!(server.ended().await.0.code(), Some(0));
}

fn promoted_text(keyring: &Keyring) -> Vec<u8> {
    let folder = tempfile::TempDir::new().unwrap();
    keyring.write_new(folder.path().join("keys")).unwrap();
    fs::read(folder.path().join("keys")).unwrap()
}

#[tokio::test]
async fn a_killed_reseal_is_finished_by_the_next_one() {
    let world = World::new(Duration::from_secs(7_200));
    assert_eq!(world.run(&["migrate"]).code, 0);
    let start = async || {
        let idp = token_supervisor::presets::oauth2("http://127.0.0.1:1/token", "id", "ts-test-secret-x");
        let folder = world.folder.path();
        let builder = TokenSupervisor::builder().store(format!("sqlite://{}/token-supervisor.db", folder.display()));
        let builder = builder.journal(folder.join("token-supervisor.journal")).keyring(world.keys());
        builder.idp("gitlab", idp).on_demand().start().await.unwrap()
    };
    let grants = 4_000;
    let supervisor = start().await;
    let connects = (0..grants).map(|number| {
        let supervisor = &supervisor;
        async move {
            let grant = token_supervisor::Grant::new(format!("ts-test-secret-access-{number}"))
                .refresh_token(format!("ts-test-secret-refresh-{number}").as_str())
                .expires_in(Duration::from_secs(7_200));
            let key = TokenKey::at("gitlab").user(format!("user-{number}"));
            supervisor.connect(&key, grant).await.unwrap();
        }
    });
    within(futures_util::future::join_all(connects)).await;
    stop(supervisor).await;

    let old = world.keys().labels()[0].id.clone();
    let new = id_of(&world.run(&["keys", "add", "--json"]));
    assert_eq!(id_of(&world.run(&["keys", "promote", &new, "--json"])), new);
    let sealed_by_old = |world: &World| {
        let listed = world.json(&["keys", "list"]);
        listed["items"].as_array().unwrap().iter().find(|key| key["id"] == *old).unwrap()["rows"].as_u64().unwrap()
    };
    assert_eq!(sealed_by_old(&world), grants);
    for _ in 0..3 {
        let mut run = started(world.command(&["keys", "reseal"]));
        tokio::time::timeout(Duration::from_millis(700), std::future::pending::<()>()).await.ok();
        signal("KILL", run.id());
        run.wait().unwrap();
    }
    let resealed = world.json(&["keys", "reseal"]);
    assert_eq!((&resealed["key"], sealed_by_old(&world)), (&Value::from(new.clone()), 0), "{resealed}");
    assert_eq!(id_of(&world.run(&["keys", "remove", &old, "--json"])), old);
    world.run(&["keys", "remove", &new]).failed(1, "it is the active one");
    world.run(&["keys", "remove", "ffffffff"]).failed(2, "no key of the key file has the id ffffffff");
    let supervisor = start().await;
    for number in [0, 1_234, grants - 1] {
        let token = within(supervisor.token(&TokenKey::at("gitlab").user(format!("user-{number}")))).await.unwrap();
        assert_eq!(token.access_token().expose_secret(), format!("ts-test-secret-access-{number}"));
    }
    stop(supervisor).await;
}

#[test]
fn keys_are_rotated_before_there_is_a_store() {
    let world = World::new(Duration::from_secs(7_200));
    let old = world.keys().labels()[0].id.clone();
    let new = id_of(&world.run(&["keys", "add", "--json"]));
    assert_eq!(world.run(&["keys", "promote", &new.to_uppercase()]).code, 0);
    assert_eq!(world.run(&["keys", "remove", &old]).code, 0);
    let listed = world.run(&["keys", "list"]);
    assert!(listed.stdout.lines().count() == 2 && listed.stdout.contains("active"), "{listed:?}");
    assert!(!world.at("token-supervisor.db").exists());
    world.connect("alice");
    fs::remove_file(world.at("token-supervisor.keys")).unwrap();
    for args in [&["add"][..], &["promote", &new], &["remove", &new], &["list"], &["reseal"]] {
        world.run(&[&["keys"], args].concat()).failed(2, "cannot read key file token-supervisor.keys");
    }
}
