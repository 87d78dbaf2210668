//! `keys new`, `idp add`, `probe`, `reconnect`, `offboard`, `status IDP` and `id`.

use std::{fs, time::Duration};

use serde_json::Value;
use token_supervisor::Keyring;

use super::{Ran, World, fits};

#[test]
fn a_key_file_is_created_and_never_overwritten() {
    let world = World::connected();
    let ran = world.run(&["keys", "new", "new.keys"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("new.keys  keys that encrypt") && fits(&ran.stdout), "{ran:?}");
    let path = world.folder.path().join("new.keys");
    Keyring::from_file(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let before = fs::read(&path).unwrap();
    world.run(&["keys", "new", "new.keys"]).failed(1, "new.keys");
    assert_eq!(fs::read(&path).unwrap(), before);
    world.run(&["keys", "new", "missing/new.keys"]).failed(1, "cannot write key file missing/new.keys");
    assert_eq!(world.json(&["keys", "new", "other.keys"])["file"], "other.keys");
    // A store opens with its own keys alone.
    let mut command = world.command(&["status"]);
    let other = Ran::new(command.env("TOKEN_SUPERVISOR__KEYRING__FILE", "new.keys").output().unwrap());
    assert_eq!(other.code, 1, "{other:?}");
}

#[test]
fn a_provider_is_added_to_a_configuration_and_all_else_stays() {
    let world = World::connected();
    let path = world.folder.path().join("token-supervisor.toml");
    let mut text = fs::read_to_string(&path).unwrap();
    text += "# the last line, without an end";
    fs::write(&path, &text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    let ran = world.run(&["idp", "add", "keycloak", "--name", "my-sso"]);
    assert!(ran.code == 0 && fits(&ran.stdout), "{ran:?}");
    let words = ran.stdout.replace('\n', " ");
    assert!(
        words.starts_with("token-supervisor.toml: added [idp.my-sso].  next: edit params of [idp.my-sso]"),
        "{ran:?}"
    );
    assert!(words.contains("export MY_SSO_CLIENT_ID and MY_SSO_CLIENT_SECRET"), "{ran:?}");
    let after = fs::read_to_string(&path).unwrap();
    let section = after.strip_prefix(&format!("{text}\n\n")).expect("the rest stays");
    let expected = "\
[idp.my-sso]
preset = \"keycloak\"
params = { base = \"https://sso.example.com\", realm = \"app\" }
client_id = { env = \"MY_SSO_CLIENT_ID\" }
client_secret = { env = \"MY_SSO_CLIENT_SECRET\" }
";
    assert!(section.starts_with("# The identity provider my-sso.") && section.ends_with(expected), "{section}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
    let mut check = world.command(&["config", "check", "--json"]);
    check.env("MY_SSO_CLIENT_ID", "id").env("MY_SSO_CLIENT_SECRET", "ts-test-secret-sso");
    let checked: Value = serde_json::from_slice(&check.output().unwrap().stdout).unwrap();
    assert_eq!(checked["idps"], serde_json::json!(["gitlab", "my-sso"]));

    // Neither needs the variables of other providers.
    for (args, word) in [
        (&["idp", "add", "gitlab"][..], "idp.gitlab: is configured already"),
        (&["idp", "add", "keycloak", "--name", "my-sso"], "is configured already"),
        (&["idp", "add", "github", "--name", "Git Hub"], "must match [a-z0-9][a-z0-9_-]{0,63}"),
        (&["idp", "add", "github", "--config", "missing.toml"], "missing.toml"),
    ] {
        world.run(args).failed(2, word);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), after);
    for (broken, word) in [
        ("idp = { github = { preset = \"github\" } }\n", "add it by hand"),
        ("idp.github.preset = \"github\"\n", ""),
        ("[idp\n", "not TOML"),
        ("idp = 1\n", "must be a section"),
        ("[[idp]]\n", "must be a section"),
    ] {
        fs::write(&path, broken).unwrap();
        let ran = world.run(&["idp", "add", "zoom"]);
        let text = fs::read_to_string(&path).unwrap();
        if ran.code == 0 {
            assert!(word.is_empty() && text.starts_with(broken), "{broken}: {ran:?}");
        } else {
            assert!(ran.code == 2 && ran.stderr.contains(word) && text == broken, "{broken}: {ran:?}");
        }
    }
    #[cfg(unix)]
    {
        // A link stays a link.
        let link = world.folder.path().join("link.toml");
        fs::write(&path, "[log]\r\n").unwrap();
        std::os::unix::fs::symlink("token-supervisor.toml", &link).unwrap();
        assert_eq!(world.json(&["idp", "add", "zoom", "--config", "link.toml"])["idp"], "zoom");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("[idp.zoom]\r\n") && !text.replace("\r\n", "").contains('\n'), "{text:?}");
    }
}

#[test]
fn a_user_is_told_to_consent_again() {
    let world = World::connected();
    let ran = world.run(&["reconnect", "gitlab", "alice", "--reason", "more_scope"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("The user must consent again.\ngitlab / alice"), "{ran:?}");
    let status = world.json(&["status", "gitlab", "alice"]);
    assert_eq!((&status["state"], &status["reason"]), (&"reconnect_required".into(), &"more_scope".into()));
    world.run(&["refresh", "gitlab", "alice"]).failed(3, "more_scope");
    world.run(&["reconnect", "gitlab", "nobody", "--reason", "x"]).failed(5, "not connected");
    world.connect("alice");
    assert_eq!(world.json(&["status", "gitlab", "alice"])["state"], "fresh");
}

#[test]
fn all_grants_of_a_user_are_disconnected() {
    let world = World::connected();
    world.connect("bob");
    let work =
        world.pipe(&["connect", "gitlab", "alice", "--account", "work", "--stdin"], &world.sim.consent_answer("w"));
    assert_eq!(work.code, 0, "{work:?}");
    let ran = world.run(&["offboard", "alice"]);
    let expected = "idp     account  result\ngitlab           disconnected\ngitlab  work     disconnected\n";
    assert_eq!((ran.code, &*ran.stdout), (0, expected), "{ran:?}");
    world.run(&["token", "gitlab", "alice"]).failed(5, "connect");
    assert_eq!(world.json(&["status", "gitlab", "bob"])["state"], "fresh");
    assert_eq!(world.run(&["offboard", "nobody"]).stdout, "Nothing to disconnect: nobody has no grant.\n");
    let items = world.json(&["offboard", "bob", "--revoke"])["items"].clone();
    assert_eq!((items[0]["status"]["state"].as_str(), items.as_array().unwrap().len()), (Some("revoked"), 1));
    assert_eq!(items[0]["status"]["revocation"], "done");
    world.connect("carol");
    world.sim.fail_revocations(Some(503));
    let ran = world.run(&["offboard", "carol", "--revoke"]);
    assert!(ran.stdout.ends_with("gitlab           disconnected, revocation unconfirmed\n"), "{ran:?}");
    assert_eq!(world.sim.revocations(), 2);
    world.run(&["offboard", ""]).failed(2, "offboard alice");
}

#[test]
fn a_provider_is_shown_and_probed() {
    let world = World::connected();
    let ran = world.run(&["status", "gitlab"]);
    let expected = "gitlab      ok\ngrants      1: 1 fresh, 0 backoff, 0 in doubt, 0 reconnect required, 0 held\nrefreshing  0\nrevokes     yes\n";
    assert_eq!((ran.code, &*ran.stdout), (0, expected), "{ran:?}");
    assert_eq!(world.json(&["status", "gitlab"])["grants"], 1);
    world.run(&["status", "nothing"]).failed(2, "token-supervisor status lists");
    world.run(&["hold", "gitlab", "--reason", "their incident"]);
    let held = world.run(&["status", "gitlab"]);
    assert!(held.stdout.starts_with("gitlab      HELD their incident\n"), "{held:?}");
    assert!(held.stdout.contains("\nimpact      the first user has no valid token from 20"), "{held:?}");
    assert!(held.stdout.ends_with("next: token-supervisor release gitlab\n"), "{held:?}");

    assert_eq!(world.run(&["probe", "gitlab"]).stdout, "gitlab responds (405 to an unauthenticated request).\n");
    assert_eq!(world.json(&["probe", "gitlab"])["status"], 405);
    assert_eq!(world.sim.presentations().len(), 0);
    world.run(&["probe", "nothing"]).failed(2, "not configured");
    let (_kept, nobody) = crate::support::nobody();
    let mut command = world.command(&["probe", "gitlab"]);
    command.env("TOKEN_SUPERVISOR__IDP__GITLAB__TOKEN_URL", format!("http://{nobody}/token"));
    Ran::new(command.output().unwrap()).failed(1, "does not respond: connect_failed");
}

#[test]
fn the_store_of_another_deployment_is_adopted() {
    let world = World::connected();
    assert_eq!(world.run(&["adopt"]).stdout, "Nothing to adopt: the store belongs to this deployment.\n");
    let staging = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("TOKEN_SUPERVISOR__DEPLOYMENT", "staging");
        Ran::new(command.output().unwrap())
    };
    let status = staging(&["status"]);
    assert!(status.stdout.ends_with("next: token-supervisor adopt --help\n"), "{status:?}");
    assert!(staging(&["status", "gitlab"]).stdout.contains("HELD the store belongs to the deployment ts-"));
    let doctor = staging(&["doctor"]);
    assert!(
        doctor.code == 1 && doctor.stdout.contains("WRONG  idp.gitlab     on hold: the store belongs"),
        "{doctor:?}"
    );
    staging(&["release", "gitlab"]).failed(2, "adopt the store");
    let adopted = staging(&["adopt"]);
    assert!(adopted.stdout.starts_with("Adopted: the store belonged to ts-"), "{adopted:?}");
    assert!(staging(&["status", "gitlab"]).stdout.starts_with("gitlab      ok\n"));
    let back: Value = serde_json::from_str(&world.run(&["adopt", "--json"]).stdout).unwrap();
    assert_eq!(back, serde_json::json!({ "adopted_from": "staging" }));
}

#[cfg(unix)]
#[tokio::test]
async fn the_id_is_what_the_audit_log_has() {
    let world = World::connected();
    let here = world.json(&["id", "gitlab", "alice"]);
    let server = world.serve();
    let ask = |args: &[&str]| {
        let mut command = super::program(world.folder.path(), args);
        command.env("TOKEN_SUPERVISOR_SERVER", &server.addresses[0]).env("TOKEN_SUPERVISOR_API_KEY", &world.api_key);
        Ran::new(command.output().unwrap()).without_secrets()
    };
    let there: Value = serde_json::from_str(&ask(&["id", "gitlab", "alice", "--json"]).stdout).unwrap();
    assert_eq!(here, there);
    let (grant, hash) = (here["grant_id"].as_str().unwrap(), here["user_hash"].as_str().unwrap());
    assert_eq!(ask(&["id", "gitlab", "alice"]).stdout, format!("grant ID   {grant}\nuser hash  {hash}\n"));
    ask(&["id", "gitlab", "nobody"]).failed(5, "not connected");
    assert_eq!(ask(&["hold", "gitlab", "alice", "--reason", "x"]).code, 0);
    server.logs(&format!("user=\"{hash}\"")).await;

    // The other new commands on a server.
    assert_eq!(ask(&["probe", "gitlab"]).stdout, "Nothing to probe: gitlab is not paused.\n");
    ask(&["probe", "nothing"]).failed(2, "not configured");
    assert!(ask(&["reconnect", "gitlab", "alice", "--reason", "x"]).stdout.starts_with("The user must consent again."));
    assert!(ask(&["status", "gitlab"]).stdout.contains("1 reconnect required, 1 held"));
    assert_eq!(ask(&["offboard", "alice"]).stdout, "idp     account  result\ngitlab           disconnected\n");
    assert_eq!(ask(&["offboard", "alice", "--json"]).code, 0);
}

#[cfg(unix)]
#[tokio::test]
async fn a_pause_is_probed_on_its_server() {
    use crate::support::eventually;
    let world = World::new(Duration::from_secs(7_200));
    world.connect("alice");
    let server = world.serve();
    let ask = |args: &[&str]| {
        let mut command = super::program(world.folder.path(), args);
        command.env("TOKEN_SUPERVISOR_SERVER", &server.addresses[0]).env("TOKEN_SUPERVISOR_API_KEY", &world.api_key);
        Ran::new(command.output().unwrap()).without_secrets()
    };
    for _ in 0..3 {
        world.sim.next(token_supervisor::testing::Fault::error(401, "invalid_client"));
    }
    ask(&["refresh", "gitlab", "alice"]);
    eventually("it is paused", || ask(&["status", "gitlab"]).stdout.starts_with("gitlab      PAUSED client_refused"))
        .await;
    let status = ask(&["status", "gitlab"]).stdout;
    assert!(status.contains("\nlast error  invalid_client (401"), "{status}");
    let probe = ask(&["probe", "gitlab"]);
    let head = "gitlab is paused (client_refused). The next refresh is sent, and decides whether the pause ends.\n";
    assert_eq!((probe.code, &*probe.stdout), (0, head), "{probe:?}");
}
