//! schemathesis sends valid and invalid requests, generated from `openapi.json`, to the real server.

use std::process::{Command, Stdio};

use super::World;
use crate::{served::Served, skip};

const PROGRAM: &str = "TOKEN_SUPERVISOR_TEST_SCHEMATHESIS";

/// The number of requests for each operation and phase. `TOKEN_SUPERVISOR_TEST_EXAMPLES` overrides it.
const EXAMPLES: &str = "25";

/// Chooses the requests. `TOKEN_SUPERVISOR_TEST_SEED` overrides it.
const SEED: &str = "1";

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let Some(program) = skip::variable(PROGRAM) else {
        return skip::without("schemathesis", &format!("{PROGRAM} does not say where schemathesis is"));
    };
    let world = World::connected();
    let server = world.serve();
    println!("{}", run(&program, &world, &server, "anybody.toml"));
    // The same for a grant that exists at first.
    println!("{}", run(&program, &world, &server, "alice.toml"));
    server.signal("TERM");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    assert_eq!(world.sim.duplicate_spends(), 0);
}

/// Runs schemathesis and returns its output.
fn run(program: &str, world: &World, server: &Served, settings: &str) -> String {
    let settings = format!("{}/tests/schemathesis/{settings}", env!("CARGO_MANIFEST_DIR"));
    let examples = skip::variable("TOKEN_SUPERVISOR_TEST_EXAMPLES").unwrap_or_else(|| EXAMPLES.to_owned());
    let seed = skip::variable("TOKEN_SUPERVISOR_TEST_SEED").unwrap_or_else(|| SEED.to_owned());
    let ran = Command::new(program)
        .args(["--config-file", &settings, "run"])
        .arg(format!("{}/openapi.json", server.addresses[0]))
        // Requests without a key are throttled: `without_the_right_key_nothing_is_said_or_done` sends them to each route.
        .args(["--checks", "all", "--exclude-checks", "ignored_auth,missing_required_header"])
        .args(["--seed", &seed, "--max-examples", &examples])
        .args(["--request-timeout", "90", "--generation-database", "none", "--no-color"])
        .args(["--header", &format!("Authorization:Bearer {}", world.api_key)])
        .current_dir(world.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    text
}
