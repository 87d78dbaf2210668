//! The API key reaches the server that was named, and nobody else.

use std::io::Write as _;

use super::{ON_GRANTS, Ran, SECRET, World, program, started};
use crate::stranger::{PROXIES, Stranger};

const KEY: &str = "ts-test-secret-api-key-of-the-environment";

fn run(args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = program(folder.path(), args);
    command.env("TOKEN_SUPERVISOR_API_KEY", KEY).envs(environment.iter().copied());
    let mut child = started(command);
    child.stdin.take().unwrap().write_all(br#"{"access_token":"ts-test-secret-a"}"#).ok();
    Ran::new(child.wait_with_output().unwrap()).without_secrets()
}

#[tokio::test]
async fn no_command_uses_a_proxy_that_only_the_environment_names() {
    let (thief, other) = (Stranger::answering("502 Bad Gateway"), Stranger::answering("404 Not Found"));
    let proxy = format!("http://{}", thief.address);
    let (server, https) = (format!("http://{}", other.address), format!("https://{}", other.address));
    for no_proxy in ["", "other.example"] {
        let proxies = PROXIES.into_iter().chain(["no_proxy", "NO_PROXY"]);
        let set = |name: &'static str| (name, if name.eq_ignore_ascii_case("no_proxy") { no_proxy } else { &proxy });
        let environment: Vec<_> = proxies.map(set).collect();
        for args in ON_GRANTS.into_iter().chain([&["doctor"][..]]) {
            run(&[args, &["--server", &server]].concat(), &environment);
        }
        run(&["list", "--server", &https], &environment);
    }
    assert_eq!(thief.heard(), [""; 0], "nothing goes to the proxy");
    let heard = other.heard();
    assert!(heard.iter().filter(|head| head.contains(KEY)).count() >= 2 * (ON_GRANTS.len() + 1), "{heard:?}");

    // A real server is reached in spite of the variables.
    let world = World::connected();
    let served = world.serve();
    let mut command = program(world.folder.path(), &["token", "gitlab", "alice"]);
    command.env("TOKEN_SUPERVISOR_SERVER", &served.addresses[0]).env("TOKEN_SUPERVISOR_API_KEY", &world.api_key);
    let ran = Ran::new(command.envs(PROXIES.map(|name| (name, &proxy))).output().unwrap());
    assert!(ran.code == 0 && ran.stdout.starts_with(SECRET), "{}", ran.stderr);
    assert_eq!(thief.heard(), [""; 0]);
}

#[test]
fn a_proxy_is_used_if_it_is_named_and_gets_no_key() {
    let proxy = Stranger::answering("502 Bad Gateway");
    let named = format!("http://alice:ts-test-secret-proxy@{}", proxy.address);
    let ran = run(&["list", "--server", "https://tokens.invalid", "--proxy", &named], &[]);
    ran.failed(4, &format!("cannot reach https://tokens.invalid through the proxy http://{}", proxy.address));
    let heard = proxy.heard();
    assert!(heard.len() == 1 && heard[0].starts_with("CONNECT tokens.invalid:443 "), "{heard:?}");
    assert!(!heard[0].contains(KEY), "{heard:?}");
    // The request itself would go to the proxy.
    for server in ["http://127.0.0.1:1", "http://tokens.invalid"] {
        run(&["list", "--server", server, "--proxy", &named], &[]).failed(2, "would expose the API key to the proxy");
    }
    assert_eq!(proxy.heard().len(), 1);
    run(&["list", "--server", "unix:/x.sock", "--proxy", &named], &[]).failed(2, "Unix socket");
    let wrong = run(&["list", "--server", "https://tokens.invalid", "--proxy", "proxy.example:3128"], &[]);
    assert!(wrong.code == 2 && wrong.stderr.contains("must be a URL"), "{wrong:?}");
    run(&["list", "--proxy", &named], &[]).failed(2, "add --server URL");
}

#[test]
fn plain_http_is_for_this_machine_unless_it_is_allowed() {
    let other = Stranger::answering("404 Not Found");
    // An address of this machine that is not a loopback address.
    let elsewhere = format!("http://0.0.0.0:{}", other.address.port());
    for args in ON_GRANTS.into_iter().chain([&["doctor"][..]]) {
        run(&[args, &["--server", &elsewhere]].concat(), &[]).failed(2, "--allow-http");
    }
    run(&["list"], &[("TOKEN_SUPERVISOR_SERVER", &elsewhere)]).failed(2, "would expose the API key");
    for server in ["http://tokens.example", "http://localhost.example", "http://127.0.0.1.example:80", "http://[::2]"] {
        run(&["list", "--server", server], &[]).failed(2, "would expose the API key");
    }
    assert_eq!(other.heard(), [""; 0]);
    let allowed = run(&["list", "--server", &elsewhere, "--allow-http"], &[]);
    allowed.failed(1, "and not as a token-supervisor does");
    assert!(other.heard()[0].contains(KEY));
}

#[test]
fn a_redirect_does_not_get_the_key() {
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let thief = Stranger::answering("200 OK");
        let redirect = format!("{status}\r\nLocation: http://{}/v1/grants\r\nContent-Length: 0", thief.address);
        let server = Stranger::answering(redirect);
        let address = format!("http://{}", server.address);
        for args in ON_GRANTS {
            let ran = run(&[args, &["--server", &address]].concat(), &[]);
            assert!(ran.code != 0, "{ran:?}");
        }
        assert_eq!(thief.heard(), [""; 0], "{status}");
    }
}
