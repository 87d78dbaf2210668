//! The commands: the program runs on its own files against a simulated identity provider.

mod api_keys;
#[cfg(unix)]
mod asking_a_server;
#[cfg(target_os = "linux")]
mod attacked;
#[cfg(unix)]
mod damaged_files;
#[cfg(unix)]
mod exposed_files;
#[cfg(unix)]
mod generated_clients;
mod getting_started;
#[cfg(unix)]
mod healthcheck;
mod interrupted;
#[cfg(unix)]
mod keeping_a_file;
#[cfg(unix)]
mod key_rotation;
#[cfg(unix)]
mod key_stays_here;
#[cfg(unix)]
mod loadtest;
mod looks;
#[cfg(target_os = "linux")]
mod memory;
mod more_commands;
#[cfg(unix)]
mod odd_providers;
#[cfg(feature = "postgres")]
mod on_postgres;
#[cfg(unix)]
mod paths;
mod paused;
#[cfg(unix)]
mod schemathesis;
#[cfg(unix)]
mod serving;
#[cfg(unix)]
mod throttled;
mod usage;
mod verbs;
mod who_must_act;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use token_supervisor::testing::{Profile, SimulatedIdp};

/// Every command, in the order of `--help`.
const COMMANDS: [&str; 28] = [
    "demo",
    "loadtest",
    "init",
    "serve",
    "healthcheck",
    "config",
    "idp",
    "keys",
    "apikey",
    "connect",
    "token",
    "status",
    "id",
    "list",
    "refresh",
    "retry",
    "hold",
    "release",
    "probe",
    "reconnect",
    "disconnect",
    "restore",
    "purge",
    "offboard",
    "adopt",
    "migrate",
    "doctor",
    "why",
];

/// Each command that reads or changes grants, in its shortest form.
const ON_GRANTS: [&[&str]; 20] = [
    &["connect", "gitlab", "alice", "--stdin"],
    &["token", "gitlab", "alice"],
    &["status"],
    &["status", "gitlab"],
    &["status", "gitlab", "alice"],
    &["id", "gitlab", "alice"],
    &["list"],
    &["refresh", "gitlab", "alice"],
    &["retry", "gitlab"],
    &["retry", "gitlab", "alice"],
    &["hold", "gitlab", "alice", "--reason", "x"],
    &["release", "gitlab", "alice"],
    &["probe", "gitlab"],
    &["reconnect", "gitlab", "alice", "--reason", "x"],
    &["disconnect", "gitlab", "alice"],
    &["restore", "gitlab", "alice"],
    &["purge", "gitlab", "alice"],
    &["offboard", "alice"],
    &["adopt"],
    &["keys", "reseal"],
];

/// A folder in which `init --idp gitlab` was run, and the identity provider.
struct World {
    folder: TempDir,
    sim: SimulatedIdp,
    /// A key with all scopes.
    api_key: String,
}

impl World {
    fn new(lifetime: Duration) -> Self {
        let sim = SimulatedIdp::start(Profile::gitlab().access_lifetime(lifetime)).unwrap();
        let mut world = Self { folder: TempDir::new().unwrap(), sim, api_key: String::new() };
        assert_eq!(world.run(&["init", "--idp", "gitlab"]).code, 0);
        world.api_key = api_key(world.folder.path());
        world
    }

    /// A world in which alice is connected.
    fn connected() -> Self {
        let world = Self::new(Duration::from_secs(7_200));
        world.connect("alice");
        world
    }

    fn connect(&self, user: &str) -> Ran {
        let ran = self.pipe(&["connect", "gitlab", user, "--stdin"], &self.sim.consent_answer(user));
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(self.folder.path(), args);
        command
            .env("GITLAB_CLIENT_ID", &self.sim.profile().client_id)
            .env("GITLAB_CLIENT_SECRET", self.sim.profile().client_secret.expose_secret())
            .env("TOKEN_SUPERVISOR__IDP__GITLAB__TOKEN_URL", self.sim.token_url())
            .env("TOKEN_SUPERVISOR__IDP__GITLAB__REVOCATION_URL", self.sim.revocation_url());
        command
    }

    /// Runs a command and checks that it prints no secret.
    fn run(&self, args: &[&str]) -> Ran {
        Ran::new(self.command(args).output().unwrap()).without_secrets()
    }

    fn pipe(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = started(self.command(args));
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::new(child.wait_with_output().unwrap()).without_secrets()
    }

    /// Runs a command with `--json` and returns its output.
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Runs `token`. Only its stdout may contain a token.
    fn token(&self, more: &[&str]) -> String {
        let ran = Ran::new(self.command(&[&["token", "gitlab", "alice"], more].concat()).output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.stderr.contains(SECRET), "{ran:?}");
        ran.stdout
    }
}

/// Returns the API key that `init` wrote to the folder.
pub(crate) fn api_key(folder: &Path) -> String {
    fs::read_to_string(folder.join("token-supervisor.api-key")).unwrap().trim_end().to_owned()
}

/// Returns the program, to run in the folder without the environment of this machine.
pub(crate) fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-supervisor"));
    command.args(args).current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

pub(crate) fn started(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

const SECRET: &str = "ts-test-secret-";

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("the command is not killed by a signal");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn without_secrets(self) -> Self {
        assert!(!self.stdout.contains(SECRET) && !self.stderr.contains(SECRET), "{self:?}");
        self
    }

    /// Asserts that the command failed with this exit code and an error that contains `word` and a next step.
    fn failed(&self, code: i32, word: &str) {
        assert_eq!(self.code, code, "{self:?}");
        let has_next = self.stderr.starts_with("error: ") && self.stderr.contains("\nnext: ");
        assert!(has_next && self.stderr.contains(word), "{word}: {self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
    }
}

/// Returns whether no line is wider than a hundred columns.
fn fits(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 100)
}
