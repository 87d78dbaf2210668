//! The program with its store in PostgreSQL.

use std::fs;

use super::World;
use crate::postgres::server;

/// A world after `init`, with this store.
pub(super) fn world_with(url: &str) -> World {
    let world = World::new(std::time::Duration::from_secs(7_200));
    let path = world.folder.path().join("token-supervisor.toml");
    let text = fs::read_to_string(&path).unwrap();
    let setting = "# url = \"sqlite://token-supervisor.db\"";
    assert!(text.contains(setting), "{text}");
    fs::write(&path, text.replace(setting, &format!("url = \"{url}\""))).unwrap();
    world
}

#[test]
fn the_schema_is_created_by_migrate_alone_and_then_everything_works() {
    let Some(server) = server::shared() else { return };
    let url = server.url();
    let world = world_with(&url);
    let before = world.run(&["status"]);
    before.failed(1, "lacks the migrations 2026-11-30-000000_grants");
    assert!(before.stderr.contains("token-supervisor migrate"), "{before:?}");
    let check = world.run(&["migrate", "--check"]);
    assert_eq!((check.code, check.stdout.lines().count()), (1, 3), "{check:?}");
    let migrated = world.run(&["migrate"]);
    assert!(migrated.code == 0 && migrated.stdout.contains("Applied migrations"), "{migrated:?}");
    let check = world.run(&["migrate", "--check"]);
    assert_eq!((check.code, check.stdout.as_str()), (0, "The schema is up to date.\n"), "{check:?}");

    world.connect("alice");
    assert!(world.token(&[]).starts_with("ts-test-secret-"));
    assert_eq!(world.json(&["refresh", "gitlab", "alice"])["generation"], 2);
    let listed = world.run(&["list"]);
    assert!(listed.code == 0 && listed.stdout.contains("alice"), "{listed:?}");
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("opens with these keys, and its schema is up to date"), "{doctor:?}");
    server.execute(&url, "UPDATE grants SET due_at = due_at + 1");
    let doctor = world.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.stdout.contains("column code is invalid"), "{doctor:?}");
    server.execute(&url, "UPDATE grants SET due_at = due_at - 1");
    let gone = world.run(&["disconnect", "gitlab", "alice", "--revoke"]);
    assert!(gone.code == 0 && world.sim.revocations() == 1, "{gone:?}");
    assert!(world.folder.path().join("token-supervisor.journal").is_dir());
    assert!(!world.folder.path().join("token-supervisor.db").exists());
}

#[test]
fn a_url_that_would_show_its_password_is_refused_and_not_shown() {
    for (url, next) in [
        ("postgres://me:ts-test-secret-pw@db.example/tokens?sslmode=disable", "remove it"),
        ("postgres://me:ts-test-secret-pw@db.example/tokens?sslmode=prefer", "sslmode must be verify-full"),
    ] {
        let world = world_with(url);
        let ran = world.run(&["migrate"]);
        ran.failed(2, next);
        assert!(ran.stderr.contains("store.url"), "{ran:?}");
    }
    let world = world_with("postgres://me:ts-test-secret-pw@127.0.0.1:1/tokens?sslmode=disable");
    assert_eq!(world.run(&["config", "check"]).code, 0);
    let shown = world.run(&["config", "show"]);
    assert!(shown.code == 0 && shown.stdout.contains("postgres://me:***@127.0.0.1:1/tokens"), "{shown:?}");
    world.run(&["status"]).failed(1, "cannot connect to postgres://127.0.0.1:1/tokens");
}
