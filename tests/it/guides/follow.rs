//! Runs the blocks of a page in order, as a reader would type them: in one shell, in an empty folder.
//!
//! The outside world is replaced:
//!
//! - `token-supervisor` is the program under test. The identity providers of its configuration are simulated, and
//!   `127.0.0.1:8080` becomes the free port that its server chose.
//! - `cargo run --release -- ..` runs the same program, with a short demo.
//! - `response.json` and similar files hold responses of the simulated providers' token endpoints.
//! - The client is registered with the ID and secret that the pages use.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use token_supervisor::testing::{Profile, SimulatedIdp};

use super::page::{Kind, Page};
use crate::skip;

const SECRET: &str = "ts-test-secret-";

/// The address of the server on the pages.
const USUAL: &str = "127.0.0.1:8080";

/// The simulated providers, by their names in configurations.
struct Outside {
    github: SimulatedIdp,
    gitlab: SimulatedIdp,
}

impl Outside {
    fn new() -> Self {
        let start = |profile: Profile| SimulatedIdp::start(profile.client("your-client-id", "your-client-secret"));
        Self { github: start(Profile::github()).unwrap(), gitlab: start(Profile::gitlab()).unwrap() }
    }

    /// Writes responses of the token endpoints, one file for each user.
    fn responses(&self, folder: &Path) {
        for (file, idp, user) in [
            ("response.json", &self.github, "alice"),
            ("bob.json", &self.github, "bob"),
            ("gitlab.json", &self.gitlab, "alice"),
        ] {
            fs::write(folder.join(file), idp.consent_answer(user)).unwrap();
            fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Writes the commands that readers have to a folder.
    fn commands(&self, folder: &Path) {
        let mut program = "#!/usr/bin/env bash\nconfig=token-supervisor.toml\n".to_owned();
        // Variables must not add a provider that the configuration does not have.
        let instead = |idp: &str, setting: &str, url: &str| {
            let variable = format!("TOKEN_SUPERVISOR__IDP__{}__{setting}", idp.to_uppercase());
            format!("if grep -qs '^\\[idp.{idp}\\]' $config; then export {variable}={url}; fi\n")
        };
        program += &instead("github", "TOKEN_URL", &self.github.token_url());
        program += &instead("gitlab", "TOKEN_URL", &self.gitlab.token_url());
        program += &instead("gitlab", "REVOCATION_URL", &self.gitlab.revocation_url());
        program += "if [ -e $config ]; then export TOKEN_SUPERVISOR__SERVER__BIND=127.0.0.1:0; fi\n";
        program += &format!("exec {} \"$@\"\n", env!("CARGO_BIN_EXE_token-supervisor"));
        let cargo = "#!/usr/bin/env bash\ncase \"$*\" in\n\
            'install --path .') ;;\n\
            'run --release -- demo'*) shift 3; exec token-supervisor \"$@\" --seconds 2 --pairs 8 ;;\n\
            *) echo \"this cargo does not know: $*\" >&2; exit 1 ;;\nesac\n";
        for (name, text) in [("token-supervisor", program.as_str()), ("cargo", cargo)] {
            // A child process writes the script. If this process did, a process that another thread starts in that moment
            // would inherit the open file, and the script could not be executed ("text file busy").
            let mut install = Command::new("install")
                .args(["-m", "700", "/dev/stdin"])
                .arg(folder.join(name))
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(install.wait().unwrap().success());
        }
    }
}

/// The script before the first block.
const PROLOGUE: &str = r#"set -euo pipefail
umask 022
served=() address=127.0.0.1:0
finish() {
  local code=$? id
  for id in "${served[@]}"; do kill -TERM "$id" 2> /dev/null || true; done
  wait
  exit "$code"
}
trap finish EXIT
at() { echo "--- $1"; echo "--- $1" >&2; }
serving() { # waits until the server prints its address
  for _ in $(seq 600); do
    address=$(sed -n 's|^serv[a-z]* *http://\([^ ]*\).*|\1|p' "$1" 2> /dev/null | head -n 1) || true
    if [ -n "$address" ]; then return; fi
    kill -0 "$2" || return 1
    sleep 0.05
  done
  return 1
}
"#;

/// Follows the page.
///
/// # Panics
/// A command on the page fails.
pub(super) fn follow(page: &Page) {
    let (outside, folder, around) = (Outside::new(), TempDir::new().unwrap(), TempDir::new().unwrap());
    outside.responses(folder.path());
    outside.commands(around.path());
    let (script, out, err) = (around.path().join("script"), around.path().join("out"), around.path().join("err"));
    let text = script_of(page).replace("https://api.github.com/user", &outside.github.userinfo_url());
    fs::write(&script, text).unwrap();
    let ended = Command::new("timeout")
        // Only a bound for a page that hangs: all pages are followed at the same time.
        .args(["--kill-after=5", "600", "bash"])
        .arg(&script)
        .current_dir(&folder)
        .env_clear()
        .env("PATH", format!("{}:{}", around.path().display(), skip::variable("PATH").unwrap()))
        .env("HOME", folder.path())
        .env("OUT", &out)
        // Requests to other machines fail.
        .env("http_proxy", "http://127.0.0.1:9")
        .env("https_proxy", "http://127.0.0.1:9")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .status()
        .unwrap();
    let read = |path| fs::read_to_string(path).unwrap();
    let (printed, logged) = (read(&out), read(&err));
    assert!(!logged.contains(SECRET), "{}: a secret was logged", page.name);
    assert!(ended.success(), "{} does not work:\n{}\n{logged}", page.name, without_secrets(&printed));
    secrets_are_private(folder.path(), page);
    let spent = [&outside.github, &outside.gitlab].map(|idp| idp.duplicate_spends());
    assert_eq!(spent, [0, 0], "{}", page.name);
}

/// Checks that no other user can read a file with a secret that the page made.
fn secrets_are_private(folder: &Path, page: &Page) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, mode) = (entry.path(), entry.metadata().unwrap().permissions().mode());
        if path.is_dir() {
            secrets_are_private(&path, page);
            continue;
        }
        let content = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let secret =
            [SECRET, "tsk_", "TSJ1", "SQLite format", "fingerprint_key"].iter().any(|mark| text.contains(mark));
        assert!(!secret || mode & 0o077 == 0, "{}: {} has mode {mode:o}", page.name, path.display());
    }
}

fn script_of(page: &Page) -> String {
    let mut script = PROLOGUE.to_owned();
    for block in &page.blocks {
        script += &format!("at {}:{}\n", page.name, block.line);
        script += &match block.kind {
            Kind::Shell => block.text.replace(USUAL, "$address"),
            Kind::Python => format!("sed \"s/{USUAL}/$address/\" <<'PYTHON' | python3 -\n{}PYTHON\n", block.text),
            Kind::Background => {
                let command = block.text.trim();
                assert!(!command.contains(['\n', '#']), "{}:{}: one command", page.name, block.line);
                let said = format!("\"$OUT.{}\"", block.line);
                format!("{command} > {said} & served+=($!)\nserving {said} $!\n")
            }
            _ => continue,
        };
    }
    script
}

/// Masks secrets in output.
fn without_secrets(text: &str) -> String {
    let mut pieces = text.split(SECRET);
    let first = pieces.next().unwrap_or_default().to_owned();
    let rest = |piece: &str| {
        piece.trim_start_matches(|char: char| char.is_ascii_alphanumeric() || "-_.".contains(char)).to_owned()
    };
    pieces.fold(first, |shown, piece| shown + "***" + &rest(piece))
}
