//! Clients that common generators make from `openapi.json` compile, and work with the real server.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::Method;

use super::World;
use crate::{served::Served, skip};

/// The folder into which `tests/generated_clients/fetch` put the generators.
const FOLDER: &str = "TOKEN_SUPERVISOR_TEST_GENERATORS";

#[tokio::test]
async fn a_generated_typescript_client_works() {
    let Some(tools) = tools("openapi-typescript") else { return };
    let stage = Stage::new("typescript").await;
    stage.copy(&["client.ts", "tsconfig.json", "package.json"]);
    symlink(tools.join("node_modules"), stage.folder().join("node_modules")).unwrap();
    let node = |module: &str, args: &[&str]| {
        let mut command = Command::new("node");
        command.arg(tools.join("node_modules").join(module)).args(args);
        stage.run(command);
    };
    node("openapi-typescript/bin/cli.js", &["openapi.json", "--output", "api.d.ts"]);
    node("typescript/bin/tsc", &[]);
    let mut client = Command::new("node");
    client.arg("built/client.js");
    stage.call(client).await;
}

#[tokio::test]
async fn a_generated_python_client_works() {
    let Some(tools) = tools("openapi-python-client") else { return };
    let stage = Stage::new("python").await;
    stage.copy(&["client.py", "generator.yml"]);
    let python = |module: &str| {
        let mut command = Command::new(tools.join("python/bin/python"));
        command.args(["-m", module]);
        command
    };
    let mut generate = python("openapi_python_client");
    generate.args(["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "token_supervisor"]);
    // A warning is an operation or a schema that is left out.
    generate.args(["--config", "generator.yml", "--fail-on-warning"]);
    stage.run(generate);
    let mut check = python("mypy");
    check.args(["--strict", "client.py"]);
    stage.run(check);
    let mut client = Command::new(tools.join("python/bin/python"));
    client.arg("client.py");
    stage.call(client).await;
}

/// Returns where the generators are; `None` if the test is skipped.
fn tools(generator: &str) -> Option<PathBuf> {
    let folder = skip::variable(FOLDER);
    if folder.is_none() {
        skip::without(generator, &format!("{FOLDER} does not say where {generator} is"));
    }
    folder.map(PathBuf::from)
}

/// A running server, and a folder with its `openapi.json`.
struct Stage {
    world: World,
    server: Served,
    language: &'static str,
}

impl Stage {
    async fn new(language: &'static str) -> Self {
        let world = World::connected();
        let server = world.serve();
        let document = server.ask(Method::GET, "/openapi.json", None).send().await.unwrap();
        fs::write(world.folder.path().join("openapi.json"), document.bytes().await.unwrap()).unwrap();
        Self { world, server, language }
    }

    fn folder(&self) -> &Path {
        self.world.folder.path()
    }

    fn copy(&self, files: &[&str]) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generated_clients").join(self.language);
        for file in files {
            fs::copy(from.join(file), self.folder().join(file)).unwrap();
        }
    }

    /// Runs a command in the folder, and returns its output.
    fn run(&self, mut command: Command) -> String {
        let ran = command.current_dir(self.folder()).stdin(Stdio::null()).output().unwrap();
        let output = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        let program = command.get_program();
        assert!(ran.status.success(), "{program:?}: {output}");
        output
    }

    /// Runs the client, which connects a user of its own, and ends the server.
    async fn call(self, mut client: Command) {
        let user = format!("{}/alice", self.language);
        let response = String::from_utf8(self.world.sim.consent_answer(&user)).unwrap();
        client
            .env("TOKEN_SUPERVISOR_SERVER", &self.server.addresses[0])
            .env("TOKEN_SUPERVISOR_API_KEY", &self.world.api_key)
            .env("RESPONSE", response);
        // Never through a proxy of this machine.
        client.env("NO_PROXY", "*");
        assert_eq!(self.run(client), "done\n");
        self.server.signal("TERM");
        let (ended, log) = self.server.ended().await;
        assert_eq!(ended.code(), Some(0), "{log}");
        assert_eq!(self.world.sim.duplicate_spends(), 0);
    }
}
