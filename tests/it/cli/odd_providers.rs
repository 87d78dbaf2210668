//! Providers that answer in a way of their own, described in the configuration.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::Value;

use super::{Ran, World, program};
use crate::raw::{RawIdp, json, with_head};

const SETTINGS: &str = r#"
[idp.acme]
preset = "oauth2"
token_url = "URL/{tenant}/token"
params = { tenant = "main" }
client_id = "acme"
client_secret = { file = "acme-secret" }
client_auth = "basic_and_id"
expose = ["region"]

[idp.acme.response]
access_token = "/body/access_token"
refresh_token = "/body/refresh_token"
expires_in = "/body/ext"
error = "/status"
success = 0

[[idp.acme.errors]]
code = 40101
meaning = "reconnect"

[[idp.acme.errors]]
code = "E17"
field = "/error/code"
status = 403
meaning = "reconnect"
"#;

fn wrapped(name: &str) -> String {
    format!(
        r#"{{"status":0,"region":"eu","body":{{"access_token":"ts-test-secret-a{name}","refresh_token":"ts-test-secret-r{name}","ext":"7200s"}}}}"#
    )
}

/// Runs a command on the folder of the world, in which acme is configured, on another thread than the provider's.
async fn run(world: &World, args: &'static [&'static str], input: Option<String>) -> Ran {
    let mut command = world.command(args);
    let done = tokio::task::spawn_blocking(move || match input {
        Some(input) => {
            let mut child = super::started(command);
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        }
        None => command.output().unwrap(),
    });
    Ran::new(done.await.unwrap())
}

#[tokio::test]
async fn a_provider_that_wraps_its_responses_is_described_in_the_configuration() {
    let raw = RawIdp::start(|number, _| match number {
        0 => json(200, &wrapped("1")),
        _ => json(200, r#"{"status":40101}"#),
    })
    .await;
    let world = World::new(Duration::from_secs(7_200));
    let settings = SETTINGS.replace("URL", &format!("http://{}", raw.address));
    let path = world.folder.path().join("token-supervisor.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
    fs::write(world.folder.path().join("acme-secret"), "\u{feff}ts-test-secret-acme \t\r\n\n").unwrap();
    let checked = run(&world, &["config", "check"], None).await;
    assert_eq!(checked.code, 0, "{checked:?}");

    let connected = run(&world, &["connect", "acme", "alice", "--stdin"], Some(wrapped("0"))).await.without_secrets();
    assert_eq!(connected.code, 0, "{connected:?}");
    let token = run(&world, &["token", "acme", "alice", "--format", "json"], None).await.stdout;
    assert!(token.contains("ts-test-secret-a0") && token.contains(r#""region":"eu""#), "{token}");
    let refreshed = run(&world, &["refresh", "acme", "alice"], None).await.without_secrets();
    assert_eq!(refreshed.code, 0, "{refreshed:?}");
    let request = &raw.log()[0];
    assert_eq!((request.path(), request.field("refresh_token")), ("/main/token", Some("ts-test-secret-r0")));
    assert_eq!((request.field("client_id"), request.field("tenant")), (Some("acme"), None));
    let token = run(&world, &["token", "acme", "alice"], None).await.stdout;
    assert_eq!(token.trim(), "ts-test-secret-a1");
}

#[tokio::test]
async fn a_provider_that_repeats_secrets_has_them_stored_logged_and_shown_nowhere() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    // All in one response, in the forms in which a provider may repeat them.
    let raw = RawIdp::start(|_, request| {
        let header = request.head.lines().find_map(|line| line.strip_prefix("authorization: Basic ")).unwrap();
        let token = request.field("refresh_token").unwrap();
        let error = format!(
            r#"{{"error":"{token}","code":"{header}","access_token":["ts-test-secret-own"],
            "error_description":"client {header} sent {token} or {} not ts-test-secret-own of {}"}}"#,
            STANDARD.encode(format!("Bearer {token}")),
            String::from_utf8(STANDARD.decode(header).unwrap()).unwrap(),
        );
        with_head(400, &format!("X-Request-Id: {header}\r\nContent-Type: application/json\r\n"), error.as_bytes())
    })
    .await;
    let world = World::new(Duration::from_secs(7_200));
    let settings = SETTINGS.replace("URL", &format!("http://{}", raw.address)).replace("/{tenant}", "");
    let settings = settings.split("params").next().unwrap().to_owned()
        + "client_id = \"acme\"\nclient_secret = { file = \"acme-secret\" }\n";
    let path = world.folder.path().join("token-supervisor.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
    fs::write(world.folder.path().join("acme-secret"), "ts-test-secret-acme").unwrap();
    let grant = r#"{"access_token":"ts-test-secret-a0","refresh_token":"ts-test-secret-r0","expires_in":7200}"#;
    assert_eq!(run(&world, &["connect", "acme", "alice", "--stdin"], Some(grant.to_owned())).await.code, 0);

    let mut said = String::new();
    for args in [
        &["refresh", "acme", "alice", "-vv"][..],
        &["status", "acme", "alice"],
        &["status", "acme", "alice", "--json"],
        &["list", "--json"],
    ] {
        let ran = run(&world, args, None).await;
        said += &(ran.stdout + &ran.stderr);
    }
    assert_eq!(raw.log().len(), 1);
    assert!(said.contains("invalid_error_code") && said.contains("[redacted]"), "{said}");
    let files = fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let stored = files.filter(|path| path.to_string_lossy().contains(".db")).map(|path| fs::read(path).unwrap());
    let stored = String::from_utf8_lossy(&stored.collect::<Vec<_>>().concat()).into_owned();
    assert!(stored.contains("invalid_error_code"));
    let basic = STANDARD.encode("acme:ts-test-secret-acme");
    let bearer = STANDARD.encode("Bearer ts-test-secret-r0");
    for secret in ["ts-test-secret", &basic, &bearer] {
        assert!(!said.contains(secret), "{secret} in {said}");
        assert!(!stored.contains(secret), "{secret} is stored");
    }
}

#[tokio::test]
async fn a_provider_that_floods_the_server_holds_up_no_other() {
    use std::io::{Read as _, Write as _};
    let flood = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = flood.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in flood.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                stream.read(&mut [0; 8_192]).ok();
                let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(8_000)).repeat(8);
                while stream.write_all(hints.as_bytes()).is_ok() {}
            });
        }
    });
    let world = World::connected();
    let settings = format!(
        "[idp.acme]\npreset = \"oauth2\"\ntoken_url = \"http://{address}/token\"\nclient_id = \"acme\"\n\
         client_secret = {{ file = \"acme-secret\" }}\npatience_seconds = 2\nattempt_timeout_seconds = 2\n"
    );
    let path = world.folder.path().join("token-supervisor.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
    fs::write(world.folder.path().join("acme-secret"), "ts-test-secret-acme").unwrap();
    let (server, key) = (world.serve(), Some(world.api_key.as_str()));
    let ask = async |method: Method, path: String, body: &'static str| {
        let sent = server.ask(method, &path, key).body(body).send().await.unwrap();
        (sent.status().as_u16(), sent.json::<Value>().await.unwrap())
    };
    let users: Vec<_> = (0..4).map(|number| format!("/v1/grants/acme/user{number}")).collect();
    for path in &users {
        let number = path.chars().last().unwrap();
        let grant = format!(
            r#"{{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r{number}","expires_in":7200}}"#
        );
        let put = server.ask(Method::PUT, path, key).body(grant).send().await.unwrap();
        assert_eq!(put.status().as_u16(), 201);
    }
    let flooded = users.iter().map(|path| ask(Method::POST, format!("{path}/refresh"), ""));
    let other = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = std::time::Instant::now();
        let refreshed = ask(Method::POST, "/v1/grants/gitlab/alice/refresh".to_owned(), "").await;
        (refreshed, began.elapsed())
    };
    let (flooded, (refreshed, took)) = tokio::join!(futures_util::future::join_all(flooded), other);
    assert!(refreshed.0 == 200 && refreshed.1["generation"] == 2, "{refreshed:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for (status, problem) in flooded {
        assert_eq!((status, &problem["reason"]), (503, &"in_doubt".into()), "{problem}");
    }
    let (_, status) = ask(Method::GET, users[0].clone(), "").await;
    assert_eq!((&status["state"], &status["last_error"]), (&"in_doubt".into(), &"timeout".into()), "{status}");
}

#[test]
fn settings_of_responses_and_errors_are_checked() {
    let world = World::new(Duration::from_secs(7_200));
    let path = world.folder.path().join("token-supervisor.toml");
    let base = fs::read_to_string(&path).unwrap();
    fs::write(world.folder.path().join("acme-secret"), "ts-test-secret-acme").unwrap();
    let good = SETTINGS.replace("URL", "https://acme.example");
    for (from, to, word) in [
        ("\"/body/access_token\"", "\"body.access_token\"", "JSON pointer"),
        ("\"/body/access_token\"", "\"\"", "JSON pointer"),
        ("meaning = \"reconnect\"", "meaning = \"logout\"", "must be one of: reconnect, operator"),
        ("meaning = \"reconnect\"", "", "must be set"),
        ("status = 403", "status = 503", "from 200 to 499"),
        ("error = \"/status\"\n", "", "needs response.error"),
        ("expose = [\"region\"]", "expose = [\"body\"]", "must not contain body"),
        ("/{tenant}/token", "/{tenant/token", "braces"),
        ("URL/{tenant}", "https://{tenant}", "allowed_params"),
        ("https://acme.example/{tenant}", "https://acme.{tenant}", "allowed_params"),
        ("code = 40101", "code = 40101\nmeening = \"x\"", "did you mean"),
    ] {
        let settings = good.replacen(from, to, 1);
        if settings == good {
            continue;
        }
        fs::write(&path, base.clone() + &settings).unwrap();
        let mut check = program(world.folder.path(), &["config", "check"]);
        check.env("GITLAB_CLIENT_ID", "x").env("GITLAB_CLIENT_SECRET", "x");
        let ran = Ran::new(check.output().unwrap());
        assert!(ran.code == 2 && ran.stderr.contains(word), "{to}: {ran:?}");
    }
}
