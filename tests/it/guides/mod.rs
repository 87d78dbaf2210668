//! README.md, SECURITY.md and every page of docs/ are followed to the letter, and their lists are compared with the program.
//!
//! The fence of a block selects its check. An unknown fence fails:
//!
//! | fence | check |
//! |---|---|
//! | `sh` | run, see [`follow`] |
//! | `sh background` | one command, which serves while the blocks after it run |
//! | `sh not run: REASON` | none |
//! | `toml` | `config check` accepts it |
//! | `toml cargo` | the features that it names exist |
//! | `rust` | a doctest, see `src/lib.rs` |
//! | `python` | run, as blocks of `sh` are |
//! | `text`, `json`, `nginx`, `ini` | none: files of other programs, or printed output |

mod follow;
mod links;
mod page;
mod references;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use page::{Kind, Page};
use token_supervisor::Keyring;

use crate::skip;

/// The root of the source tree.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns README.md, SECURITY.md and the pages of docs/.
fn pages() -> Vec<Page> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.sort();
    paths.extend(["README.md", "SECURITY.md"].map(|name| root().join(name)));
    paths.iter().map(|path| Page::read(path)).collect()
}

/// Returns the program, to run in the folder without the environment of this machine.
fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-supervisor"));
    command.args(args).current_dir(folder).env_clear();
    command
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_page_works_as_it_is_written() {
    for name in ["bash", "curl", "python3", "timeout"] {
        if Command::new(name).arg("--version").output().is_err() {
            return skip::without(name, &format!("the documentation uses {name}, which is not installed"));
        }
    }
    let pages = pages();
    thread::scope(|scope| {
        for page in &pages {
            thread::Builder::new().name(page.name.clone()).spawn_scoped(scope, || follow::follow(page)).unwrap();
        }
    });
}

#[test]
fn every_block_has_a_known_fence() {
    for page in pages() {
        for block in &page.blocks {
            if let Kind::Unknown = block.kind {
                panic!("{}:{}: unknown fence", page.name, block.line);
            }
        }
    }
}

#[test]
fn every_configuration_is_valid() {
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.kind == Kind::Toml) {
            let folder = tempfile::TempDir::new().unwrap();
            let (config, variables) = completed(&block.text, folder.path());
            fs::write(folder.path().join("token-supervisor.toml"), config).unwrap();
            let mut check = program(folder.path(), &["config", "check"]);
            let output = check.envs(variables.iter().map(|name| (name, "x"))).output().unwrap();
            let code = output.status.code();
            assert_eq!(code, Some(0), "{}:{}: {}", page.name, block.line, text(output));
        }
    }
}

/// Completes a piece of a configuration so that it can be checked in the folder: creates the files that it names and adds
/// a provider if it has none. Also returns the variables that it needs.
fn completed(piece: &str, folder: &Path) -> (String, Vec<String>) {
    let mut piece = piece.replace("file = \"/", &format!("file = \"{}/", folder.display()));
    if !piece.contains("[idp.github]") {
        piece += "\n[idp.github]\npreset = \"github\"\nclient_id = \"x\"\nclient_secret = \"x\"\n";
    }
    let values = |of: &str| -> Vec<String> {
        let start = format!("{of} = \"");
        piece.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    for file in values("client_secret = { file") {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x\n").unwrap();
    }
    // Files for other values also get the text of a key file, which any of them accepts.
    for file in values("file").iter().map(String::as_str).chain(["token-supervisor.keys"]) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.exists() {
            Keyring::generate().write_new(&path).unwrap();
        }
    }
    let variables = values("env");
    (piece, variables)
}

#[test]
fn every_feature_that_is_named_exists() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let known = manifest.split_once("[features]").unwrap().1.split_once("\n[").unwrap().0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.kind == Kind::Cargo) {
            for list in block.text.split("features = [").skip(1) {
                let features = list.split(']').next().unwrap().split(',').map(|name| name.trim().trim_matches('"'));
                for feature in features {
                    let there = known.contains(&format!("\n{feature} = "));
                    assert!(there, "{}:{}: {feature}", page.name, block.line);
                }
            }
        }
    }
}
