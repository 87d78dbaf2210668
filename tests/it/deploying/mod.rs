//! The files of `deploy/`: what can be checked of them without a container engine. `.ci/run manifests` compares them with schemas.

mod installation;
mod three_replicas;
mod unit;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use token_supervisor::Keyring;

use crate::{
    cli::{Ran, program},
    skip,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn deploy() -> PathBuf {
    root().join("deploy")
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Returns what stands between `start` and `end` at each place.
fn all_between<'a>(text: &'a str, start: &str, end: impl Fn(char) -> bool + Copy) -> BTreeSet<&'a str> {
    text.split(start).skip(1).map(|rest| rest.split(end).next().unwrap()).collect()
}

/// The image has these libraries, and the program needs no other.
#[test]
fn the_program_needs_only_the_libraries_of_its_image() {
    if Command::new("ldd").arg("--version").output().is_err() {
        return skip::without("ldd", "the libraries of the program are listed by ldd, which is not installed");
    }
    let listed = Command::new("ldd").arg(env!("CARGO_BIN_EXE_token-supervisor")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next()?.rsplit('/').next());
    let mut libraries = 0;
    for name in names {
        let known = ["linux-vdso.so", "ld-linux", "libc.so", "libm.so", "libgcc_s.so"];
        assert!(known.iter().any(|known| name.starts_with(known)), "not in distroless/cc: {name}");
        libraries += 1;
    }
    assert!(libraries > 2, "{listed}");
}

#[test]
fn the_image_is_built_from_the_files_of_the_package() {
    let manifest = text(root().join("Cargo.toml"));
    let list = manifest.lines().find_map(|line| line.strip_prefix("include = ")).unwrap();
    // Neither is compiled.
    let left_out = ["/LICENSE-*", "/docs/plots", "/deploy"];
    let mut wanted: BTreeSet<_> = list.split('"').filter(|part| part.starts_with('/')).collect();
    wanted.retain(|path| !left_out.contains(path));
    wanted.extend(["/Cargo.toml", "/Cargo.lock"]);
    let ignore = text(deploy().join("Containerfile.dockerignore"));
    let mut rules = ignore.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(rules.next(), Some("*"), "everything is left out that is not named");
    assert_eq!(rules.map(|rule| rule.strip_prefix('!').unwrap()).collect::<BTreeSet<_>>(), wanted);
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap().trim_end_matches('"');
    assert!(text(deploy().join("Containerfile")).contains(&format!("/rust:{rust}-")), "{rust}");
}

#[test]
fn the_parts_of_the_compose_file_fit_together() {
    let folder = deploy().join("compose");
    let (compose, nginx, config) =
        (text(folder.join("compose.yaml")), text(folder.join("nginx.conf")), text(folder.join("config/config.toml")));
    let (_, declared) = compose.split_once("\nsecrets:\n").unwrap();
    let declared = all_between(declared, "file: ./secrets/", char::is_whitespace);
    let is_end = |char: char| !char.is_ascii_alphanumeric() && char != '-';
    let used: BTreeSet<_> =
        [&compose, &nginx, &config].into_iter().flat_map(|file| all_between(file, "/run/secrets/", is_end)).collect();
    assert_eq!(declared, used, "secrets");
    let init = text(folder.join("init"));
    for name in &declared {
        assert!(init.contains(&format!("write {name}")) || init.contains(&format!("secrets/{name}")), "{name}");
    }
    let replicas = all_between(&nginx, "\n        server ", |char| char == ':');
    assert_eq!(replicas.len(), 3);
    assert_eq!(replicas, all_between(&compose, "ipv4_address: ", char::is_whitespace), "addresses");
    for number in 1..=3 {
        let volume = format!("- ./journal/{number}:/var/lib/token-supervisor/journal\n");
        assert_eq!(compose.matches(&volume).count(), 1, "{volume}");
    }
    assert!(config.contains("dir = \"/var/lib/token-supervisor/journal\""));
}

/// nginx waits as long as the server may, and stops are awaited as long as they may take, everywhere.
#[test]
fn nothing_waits_less_than_the_server_may_take() {
    let seconds = |path: &str, setting: &str| -> u64 {
        let text = text(deploy().join(path));
        let value = text.split(setting).nth(1).unwrap_or_else(|| panic!("{path}: {setting}"));
        let digits = value.trim_start().split(|char: char| !char.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap_or_else(|error| panic!("{path}: {setting}: {error}"))
    };
    let longest_wait = 60;
    for timeout in ["proxy_read_timeout", "proxy_send_timeout"] {
        assert!(seconds("compose/nginx.conf", timeout) > longest_wait, "{timeout}");
    }
    let unit = seconds("systemd/token-supervisor.service", "TimeoutStopSec=");
    // Open requests, and then the longest refresh: `DRAIN` in src/cli/backend/store.rs.
    assert!(unit >= longest_wait + 150, "{unit}");
    assert_eq!(60 * seconds("compose/compose.yaml", "stop_grace_period: "), unit);
    let sleep = seconds("kubernetes/stateful-set.yaml", "sleep:\n                seconds:");
    assert!(seconds("kubernetes/stateful-set.yaml", "terminationGracePeriodSeconds:") >= unit + sleep);
}

/// Kubernetes mounts secrets for a group; that is no mistake.
#[test]
fn the_configuration_for_kubernetes_is_valid() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = text(deploy().join("kubernetes/config.toml"));
    let secrets = all_between(&config, "\"/run/secrets/token-supervisor/", |char| char == '"');
    let example = text(deploy().join("kubernetes/secret.example.yaml"));
    for name in &secrets {
        assert!(example.contains(&format!("\n  {name}: ")), "not in the example of the Secret: {name}");
        assert!(example.contains(&format!("--from-file={name}")), "not in the command: {name}");
        let content = match *name {
            "api-key-sha256" => "0".repeat(64),
            "database-url" => {
                let (_, url) = example.split_once("\n  database-url: ").unwrap();
                url.lines().next().unwrap().to_owned()
            }
            _ => "x".to_owned(),
        };
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::remove_file(folder.path().join("keys")).unwrap();
    Keyring::generate().write_new(folder.path().join("keys")).unwrap();
    let here = folder.path().to_str().unwrap();
    fs::write(folder.path().join("token-supervisor.toml"), config.replace("/run/secrets/token-supervisor", here))
        .unwrap();
    let checked = Ran::new(program(folder.path(), &["config", "check"]).output().unwrap());
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{checked:?}");
    let shown = Ran::new(program(folder.path(), &["config", "show"]).output().unwrap());
    assert!(shown.stdout.contains("/var/lib/token-supervisor/journal"), "{shown:?}");
}
