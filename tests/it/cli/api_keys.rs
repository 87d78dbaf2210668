//! `apikey new`, and what `config check`, `doctor` and the server make of the keys of a configuration.

use std::{fs, time::Duration};

use super::{World, fits};

impl World {
    /// Adds this text before the section of the store.
    fn add(&self, section: &str) {
        let file = self.folder.path().join("token-supervisor.toml");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(file, config.replacen("\n[store]", &format!("\n{section}\n[store]"), 1)).unwrap();
    }
}

fn world() -> World {
    World::new(Duration::from_secs(7_200))
}

#[test]
fn a_weak_key_and_limited_metrics_are_refused() {
    let key = |rest: &str| format!("[[server.api_key]]\nname = \"a\"\n{rest}\n");
    for (section, word) in [
        (key("scopes = [\"token\"]\nsecret = \"ts-test-secret-too-short\""), "must have at least 32 bytes"),
        (key("scopes = [\"token\"]\nsecret = { env = \"GITLAB_CLIENT_ID\" }"), "must have at least 32 bytes"),
        (key("scopes = [\"metrics\"]\nuser_prefix = \"acme/\""), "metrics cover all"),
        (key("scopes = [\"token\", \"metrics\"]\nidps = [\"gitlab\"]"), "metrics cover all"),
    ] {
        let world = world();
        let digest = if section.contains("secret =") {
            ""
        } else {
            "sha256 = \"7bdbff1fbcd23e6385f70af513e082ce902ab18f9d7bb2c7f521806cd6f58e8b\"\n"
        };
        world.add(&(section + digest));
        world.run(&["config", "check"]).failed(2, word);
        world.run(&["serve"]).failed(2, word);
        let doctor = world.run(&["doctor"]);
        assert!(
            doctor.code == 2 && doctor.stdout.contains("WRONG  configuration") && fits(&doctor.stdout),
            "{doctor:?}"
        );
    }
    for limit in [["--user-prefix", "acme/"], ["--idp", "gitlab"]] {
        let new = [&["apikey", "new", "a", "--scope", "metrics", "--scope", "token"][..], &limit].concat();
        world().run(&new).failed(2, "metrics cover all");
    }
}

#[test]
fn keys_that_expire_are_made_and_doctor_warns_of_them() {
    let world = world();
    let doctor = |verdict: &str, words: &[&str]| {
        let ran = world.run(&["doctor"]);
        let line = ran.stdout.split("\n").find(|line| line.contains("api keys")).unwrap().to_owned();
        assert!(line.starts_with(verdict) && fits(&ran.stdout), "{ran:?}");
        assert!(words.iter().all(|word| ran.stdout.contains(word)), "{ran:?}");
        assert_eq!(ran.code, i32::from(verdict == "WRONG"), "{ran:?}");
    };
    doctor("ok", &["1 is valid"]);
    let made = world.json(&["apikey", "new", "later", "--expires-in", "90d"]);
    assert!(made["expires_at"].as_str().unwrap().ends_with('Z'), "{made}");
    world.add(made["section"].as_str().unwrap());
    doctor("ok", &["2 are valid"]);
    let made = world.json(&["apikey", "new", "soon", "--expires-in", "13d"]);
    world.add(made["section"].as_str().unwrap());
    doctor("warn", &["soon expires 20", "(in 13 d)", "apikey new"]);
    let made = world.json(&["apikey", "new", "old", "--expires-at", "2099-01-15T08:00:00Z"]);
    let section = made["section"].as_str().unwrap();
    assert!(section.contains("expires_at = \"2099-01-15T08:00:00Z\"\n"), "{section}");
    world.add(&section.replace("2099-01", "2001-01"));
    doctor("warn", &["old expired 2001-01-15T08:00:00Z"]);

    for wrong in [["--expires-in", "90"], ["--expires-in", "0d"], ["--expires-at", "tomorrow"]] {
        let ran = world.run(&[&["apikey", "new", "a"][..], &wrong].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
    }
    world.run(&["apikey", "new", "a", "--expires-at", "2001-01-15T08:00:00Z"]).failed(2, "expired already");
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_refuses_an_expired_key_and_says_so() {
    let world = World::connected();
    let made = world.json(&["apikey", "new", "old", "--expires-at", "2099-01-15T08:00:00Z"]);
    world.add(&made["section"].as_str().unwrap().replace("2099", "2001"));
    let server = world.serve();
    let key = made["key"].as_str();
    let refused = server.ask(reqwest::Method::GET, "/v1/grants/gitlab/alice/token", key).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["detail"], "this API key expired at 2001-01-15T08:00:00Z: use a new one");
    // The audit names the program that has to be given another key.
    server.logs("caller=\"old\"").await;
    drop(server);

    // Nobody can use a server all of whose keys have expired.
    let config = world.folder.path().join("token-supervisor.toml");
    let text = fs::read_to_string(&config).unwrap();
    let (before, rest) = text.split_once("[[server.api_key]]\nname = \"first\"").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    fs::write(&config, format!("{before}{after}")).unwrap();
    let doctor = world.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.stdout.contains("WRONG  api keys"), "{doctor:?}");
    // Without any, the server would not start.
    let (before, rest) = text.split_once("[[server.api_key]]").unwrap();
    fs::write(&config, format!("{before}{}", &rest[rest.find("\n[store]").unwrap()..])).unwrap();
    let doctor = world.run(&["doctor"]);
    let wrong = doctor.stdout.contains("WRONG  api keys") && doctor.stdout.contains("serve needs an API key");
    assert!(doctor.code == 1 && wrong, "{doctor:?}");
}
