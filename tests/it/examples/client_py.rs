//! The Python client, against the real HTTP API.

use std::process::{Command, Output};

use crate::{
    calling_resource_servers::ResourceServer,
    http::stage::{ALL, Stage},
    skip,
    stranger::{PROXIES, Stranger},
    support::{LIFE, nobody, within},
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Whether there is a Python to run it with; if not, it is said.
fn python() -> bool {
    match Command::new("python3").arg("--version").output() {
        Ok(output) if output.status.success() => true,
        _ => {
            skip::without("python3", "there is no python3");
            false
        }
    }
}

async fn run(stage: &Stage, args: &[&str]) -> Output {
    // The client must not use proxies that only the environment names: a proxy there would refuse everything.
    let thief = Stranger::answering("502 Bad Gateway");
    let output = run_at(&format!("http://{}", stage.address), args, &thief).await;
    assert_eq!(thief.heard(), [""; 0], "nothing goes to the proxy");
    output
}

async fn run_at(server: &str, args: &[&str], proxy: &Stranger) -> Output {
    let mut command = Command::new("python3");
    command.args(args).current_dir(EXAMPLES).env("PYTHONDONTWRITEBYTECODE", "1").env("no_proxy", "");
    command.env("TOKEN_SUPERVISOR_SERVER", server).env("TOKEN_SUPERVISOR_API_KEY", ALL);
    command.envs(PROXIES.map(|name| (name, format!("http://{}", proxy.address))));
    within(tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap()
}

async fn call(stage: &Stage, user: &str, url: &str) -> (Option<i32>, String, String) {
    let output = run(stage, &["client.py", "idp", user, url]).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stdout.contains("ts-test-secret") && !stderr.contains("ts-test-secret"), "a secret was printed");
    (output.status.code(), stdout, stderr)
}

#[tokio::test]
async fn it_calls_with_a_token_and_says_what_to_do_if_there_is_none() {
    if !python() {
        return;
    }
    let (stage, key) = Stage::connected().await;
    let url = stage.world.sim.userinfo_url();
    let (code, stdout, stderr) = call(&stage, "alice", &url).await;
    assert!(code == Some(0) && stdout.contains(r#""login":"alice""#), "{stdout}{stderr}");

    let refuses = ResourceServer::saying(["401 Unauthorized".to_owned(), "200 OK".to_owned()]).await;
    assert_eq!(call(&stage, "alice", &refuses.url()).await.0, Some(0));
    let second = stage.supervisor.cached(&key).unwrap();
    let shown = refuses.tokens();
    assert!(shown.len() == 2 && shown[0] != shown[1], "another token the second time");
    assert_eq!((second.generation().get(), stage.world.sim.requests()), (2, 1));

    for (user, code, words) in [("nobody", 5, "not_connected: "), ("al/ice", 5, "not_connected: ")] {
        let (got, _, stderr) = call(&stage, user, &url).await;
        assert!(got == Some(code) && stderr.starts_with(words) && stderr.contains("next: "), "{user} {got:?} {stderr}");
    }
    let (_kept, nobody) = nobody();
    let (code, _, stderr) = call(&stage, "alice", &format!("http://{nobody}/")).await;
    assert!(code == Some(1) && stderr.starts_with("error: ") && stderr.lines().count() == 1, "{code:?} {stderr}");
    within(stage.supervisor.hold(&key, "a test")).await.unwrap();
    stage.world.clock.advance(LIFE);
    let (code, _, stderr) = call(&stage, "alice", &url).await;
    assert!(code == Some(1) && stderr.starts_with("unavailable: "), "{code:?} {stderr}");
    within(stage.supervisor.require_reconnect(&key, "a test")).await.unwrap();
    let (code, _, stderr) = call(&stage, "alice", &url).await;
    assert!(code == Some(3) && stderr.starts_with("reconnect_required: "), "{code:?} {stderr}");
    stage.stop().await;
}

#[tokio::test]
async fn it_sends_no_secret_in_plain_text_to_another_machine_nor_along_a_redirect() {
    if !python() {
        return;
    }
    let thief = Stranger::answering("200 OK");
    let run = async |server: &str, args: &[&str]| {
        let output = run_at(server, &[&["client.py"], args].concat(), &thief).await;
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let other = Stranger::answering("404 Not Found\r\nContent-Length: 0");
    // An address of this machine that is not a loopback address.
    let elsewhere = format!("http://0.0.0.0:{}", other.address.port());
    for server in [&*elsewhere, "http://localhost.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "file:///x"]
    {
        let (code, said) = run(server, &["idp", "alice", "https://api.invalid/"]).await;
        assert!(code == Some(2) && said.contains("use https"), "{server}: {code:?} {said}");
    }
    assert_eq!(other.heard(), [""; 0]);
    let (code, said) = run(&elsewhere, &["--allow-http", "idp", "alice", "https://api.invalid/"]).await;
    assert_eq!((code, other.heard().len()), (Some(1), 1), "{said}");
    assert!(other.heard()[0].contains(ALL));

    // The user's token is kept as the key is.
    let (stage, _) = Stage::connected().await;
    let server = format!("http://{}", stage.address);
    let (code, said) = run(&server, &["idp", "alice", &elsewhere]).await;
    assert!(code == Some(2) && said.contains("use https"), "{code:?} {said}");
    stage.stop().await;

    let redirect = format!("302 Found\r\nLocation: http://{}/\r\nContent-Length: 0", thief.address);
    let server = Stranger::answering(redirect);
    run(&format!("http://{}", server.address), &["idp", "alice", "https://api.invalid/"]).await;
    assert!(server.heard()[0].contains(ALL));
    assert!(thief.heard().iter().all(|head| !head.contains(ALL)), "{:?}", thief.heard());
}

/// What it says to the server, seen from inside.
const INSIDE: &str = r#"
import os, client

server, key = os.environ["TOKEN_SUPERVISOR_SERVER"], os.environ["TOKEN_SUPERVISOR_API_KEY"]
known, send = [], client.urlopen

def urlopen(request, timeout):
    known.append(request.get_header("If-none-match"))
    return send(request, timeout=timeout)

client.urlopen = urlopen
token = client.UserToken(server, key, "idp", "alice")
first = token.get()
assert token.get() == first
assert known == [None, '"g1"'], known

def post(path, body=b"{}"):
    request = client.Request(f"{server}/v1/grants/idp/alice/{path}", data=body)
    request.add_header("Authorization", f"Bearer {key}")
    send(request, timeout=10)

waited = []

def sleep(seconds):
    waited.append(seconds)
    post("release")

client.time.sleep = sleep
post("hold", b'{"reason": "a test"}')
token.rejected()
assert token.get(timeout=100) != first
assert waited == [60], waited
"#;

#[tokio::test]
async fn it_is_sent_no_token_that_it_has_and_waits_as_long_as_it_is_told() {
    if !python() {
        return;
    }
    let (stage, _) = Stage::connected().await;
    let output = run(&stage, &["-c", INSIDE]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((stage.world.sim.requests(), stage.world.sim.duplicate_spends()), (1, 0));
    stage.stop().await;
}
