//! From `init` to tokens that are refreshed when they expire.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Ran, World, api_key, fits, program};
use crate::{
    real_time::{now, polled},
    support::nobody,
};

/// The minimum time before a token is due: its lifetime and GitLab's `created_at` are in whole seconds.
const NOT_DUE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn tokens_are_refreshed_after_they_expire() {
    let world = World::new(Duration::from_secs(4));
    assert_eq!(world.run(&["config", "check"]).code, 0);
    assert_eq!(world.run(&["doctor"]).code, 0);
    let began = now();
    world.connect("alice");
    // Each command is a process of its own.
    let mut tokens = BTreeMap::new();
    polled("a third token", Duration::from_secs(60), || {
        let token: Value = serde_json::from_str(&world.token(&["--format", "json"])).unwrap();
        assert_eq!((&token["token_type"], &token["expiry"]), (&"Bearer".into(), &"at".into()));
        let (generation, token) = (token["generation"].as_u64().unwrap(), token["access_token"].clone());
        let newest = tokens.last_key_value().map_or(0, |(newest, _)| *newest);
        assert!(generation >= newest, "g{generation} after g{newest}");
        let before = tokens.insert(generation, token.clone());
        assert!(before.is_none_or(|before| before == token), "two tokens are g{generation}");
        (generation >= 3).then_some(())
    })
    .await;
    let (took, generation) = (now() - began, world.json(&["status", "gitlab", "alice"])["generation"].as_u64());
    assert_eq!((generation, world.sim.duplicate_spends()), (Some(world.sim.requests() + 1), 0));
    let most = took / NOT_DUE.as_millis() as u64;
    assert!(world.sim.requests() <= most, "{} refreshes in {took} ms: none before it is due", world.sim.requests());
    let all: BTreeSet<_> = tokens.values().map(Value::to_string).collect();
    assert_eq!(all.len(), tokens.len(), "each generation has a token of its own");
}

#[test]
fn doctor_probes_providers_without_credentials() {
    let world = World::connected();
    let doctor = world.run(&["doctor", "--probe"]);
    assert!(doctor.code == 0 && doctor.stdout.contains("responds (405 to an unauthenticated request)"), "{doctor:?}");
    assert_eq!(world.sim.presentations().len(), 0);
    let (_kept, nobody) = nobody();
    let mut command = world.command(&["doctor", "--probe"]);
    command.env("TOKEN_SUPERVISOR__IDP__GITLAB__TOKEN_URL", format!("http://{nobody}/token"));
    let doctor = Ran::new(command.output().unwrap());
    assert!(doctor.code == 1 && doctor.stdout.contains("no response: connect_failed refused"), "{doctor:?}");
    world
        .run(&["doctor", "--probe", "--server", &format!("http://{nobody}")])
        .failed(2, "sends requests from this machine");
}

#[test]
fn init_overwrites_nothing_and_writes_all_files_or_none() {
    let folder = TempDir::new().unwrap();
    let files = || -> BTreeSet<_> {
        fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    };
    let init = |args: &[&str]| Ran::new(program(folder.path(), &[&["init"], args].concat()).output().unwrap());
    for taken in ["token-supervisor.toml", "token-supervisor.keys", "token-supervisor.api-key"] {
        fs::write(folder.path().join(taken), "mine").unwrap();
        let next = if taken.ends_with("toml") { "config check" } else { "restore token-supervisor.toml" };
        init(&[]).failed(1, taken);
        init(&[]).failed(1, next);
        assert_eq!((files().len(), fs::read(folder.path().join(taken)).unwrap()), (1, b"mine".to_vec()));
        fs::remove_file(folder.path().join(taken)).unwrap();
    }
    let wrong = init(&["--idp", "nobody"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("github") && files().is_empty(), "{wrong:?}");

    let ran = init(&["--json"]);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let made = ["token-supervisor.api-key", "token-supervisor.keys", "token-supervisor.toml"];
    assert_eq!(files(), made.map(str::to_owned).into());
    assert_eq!(json["api_key_file"], made[0]);
    let key = &*api_key(folder.path());
    assert!(!ran.stdout.contains(key));
    let config = fs::read_to_string(folder.path().join("token-supervisor.toml")).unwrap();
    assert!(key.len() > 40 && !config.contains(key) && config.contains("sha256 = "), "{config}");
    #[cfg(unix)]
    for file in files() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(folder.path().join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let check = Ran::new(program(folder.path(), &["config", "check", "--json"]).output().unwrap());
    let fits = "{\"file\":\"token-supervisor.toml\",\"idps\":[]}\n";
    assert_eq!((check.code, &*check.stdout), (0, fits));
    fs::write(folder.path().join("token-supervisor.toml"), "# Nothing is set.\n").unwrap();
    let check = Ran::new(program(folder.path(), &["config", "check", "--json"]).output().unwrap());
    assert_eq!((check.code, &*check.stdout), (0, fits));
}

#[test]
fn init_writes_a_valid_configuration_for_every_preset() {
    let help = Ran::new(program(&std::env::temp_dir(), &["init", "--help"]).output().unwrap()).stdout;
    let presets = help.split_once("by its preset:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let presets: Vec<_> = presets.split(',').map(str::trim).collect();
    assert!(presets.len() > 10, "{help}");
    let mut to_edit = Vec::new();
    for preset in presets {
        let folder = TempDir::new().unwrap();
        let init = Ran::new(program(folder.path(), &["init", "--idp", preset]).output().unwrap());
        assert!(init.code == 0 && fits(&init.stdout), "{preset}: {init:?}");
        let mut check = program(folder.path(), &["config", "check"]);
        let variable = preset.to_uppercase();
        check.env(format!("{variable}_CLIENT_ID"), "id").env(format!("{variable}_CLIENT_SECRET"), "ts-test-secret-c");
        let ran = Ran::new(check.output().unwrap()).without_secrets();
        assert_eq!(ran.code, 0, "{preset}: {ran:?}");
        // `config check` warns as long as the configuration has the example that `init` tells the user to edit.
        if init.stdout.contains("next: edit ") {
            to_edit.push(preset);
        }
        assert_eq!(ran.stderr.contains("is still the example"), to_edit.contains(&preset), "{preset}: {ran:?}");
    }
    assert_eq!(to_edit, ["entra", "keycloak", "oauth2", "okta"]);
}

#[test]
fn a_new_key_is_accepted_by_its_section() {
    let world = World::new(Duration::from_secs(60));
    let args = [
        "apikey",
        "new",
        "bill \"x\"",
        "--scope",
        "token",
        "--scope",
        "grant",
        "--scope",
        "token",
        "--idp",
        "gitlab",
        "--user-prefix",
        "a/",
    ];
    let made = world.json(&args);
    assert!(made["section"].as_str().unwrap().contains("scopes = [\"token\",\"grant\"]\n"), "{made}");
    let path = world.folder.path().join("token-supervisor.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config + "\n" + made["section"].as_str().unwrap()).unwrap();
    let shown = world.run(&["config", "show"]);
    assert!(shown.code == 0 && shown.stdout.contains("bill \"x\""), "{shown:?}");
    let (key, other) = (made["key"].as_str().unwrap(), world.json(&args));
    assert!(!shown.stdout.contains(key) && other["key"] != key);
}
