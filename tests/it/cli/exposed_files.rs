//! Files that other users can read or change are found, by `doctor` and by `serve`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use serde_json::Value;

use super::{Ran, World, fits};
use crate::served::Served;

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the exit code of `doctor` and what it found about files.
    fn files(&self) -> (i32, Vec<(String, String)>) {
        let ran = self.run(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let found = report["findings"].as_array().unwrap().iter().filter(|finding| finding["what"] == "files");
        let text = |finding: &Value, member: &str| finding[member].as_str().unwrap().to_owned();
        (ran.code, found.map(|finding| (text(finding, "verdict"), text(finding, "text"))).collect())
    }
}

const OK: (&str, &str) = ("ok", "no other user can read or change them");

#[test]
fn doctor_names_each_file_that_others_can_read_or_change_and_the_chmod_that_mends_it() {
    let world = World::connected();
    let journal = fs::read_dir(world.path("token-supervisor.journal")).unwrap().next();
    let journal = journal.map(|entry| format!("token-supervisor.journal/{}", entry.unwrap().file_name().display()));
    let db = "token-supervisor.db";
    let ok = (0, vec![(OK.0.to_owned(), OK.1.to_owned())]);
    assert_eq!(world.files(), ok);
    let (read, change) = ("every user can read it", "every user can change it");
    let mut all = vec![
        (db.to_owned(), 0o644, read),
        (db.to_owned(), 0o640, "its group can read it"),
        (db.to_owned(), 0o602, change),
        ("token-supervisor.db-last".to_owned(), 0o644, read),
        ("token-supervisor.db.lock".to_owned(), 0o644, read),
        ("token-supervisor.db.lock".to_owned(), 0o660, "its group can change it"),
        ("token-supervisor.keys".to_owned(), 0o644, read),
        ("token-supervisor.keys".to_owned(), 0o604, read),
        ("token-supervisor.keys".to_owned(), 0o620, "its group can change it"),
    ];
    all.extend(journal.map(|file| (file, 0o644, read)));
    for (name, mode, finding) in all {
        world.chmod(&name, mode);
        let text = format!("{name}: {finding}; next: chmod 600 {name}");
        let (code, found) = world.files();
        assert_eq!((code, &found[0]), (1, &("wrong".to_owned(), text)), "{mode:o}");
        let ran = world.run(&["doctor"]);
        assert!(ran.stdout.contains("ok     store") && fits(&ran.stdout), "the rest is checked too: {ran:?}");
        world.chmod(&name, 0o600);
        // SQLite gives them the mode that the database had.
        for end in ["-wal", "-shm"] {
            fs::remove_file(world.path(&format!("{db}{end}"))).ok();
        }
    }
    for mode in [0o755, 0o750, 0o777] {
        world.chmod("token-supervisor.journal", mode);
        let (code, found) = world.files();
        let text = &found[0].1;
        assert!(code == 1 && text.ends_with("next: chmod 700 token-supervisor.journal"), "{mode:o}: {found:?}");
        world.chmod("token-supervisor.journal", 0o700);
    }
    // A process that was killed leaves them behind.
    for end in ["-wal", "-shm"] {
        let name = format!("{db}{end}");
        fs::OpenOptions::new().create(true).append(true).open(world.path(&name)).unwrap();
        world.chmod(&name, 0o644);
        let (code, found) = world.files();
        assert_eq!((code, &*found[0].1), (1, &*format!("{name}: {read}; next: chmod 600 {name}")));
        fs::remove_file(world.path(&name)).ok();
    }
    world.chmod("", 0o777);
    let (code, found) = world.files();
    assert_eq!((code, &*found[0].1), (1, ".: every user can replace files in it; next: chmod o-w ."));
    world.chmod("", 0o1777);
    assert_eq!(world.files(), ok, "nobody can replace another user's files");
}

#[test]
fn a_configuration_may_be_read_by_others_if_it_has_no_secret() {
    let (world, config) = (World::connected(), "token-supervisor.toml");
    world.chmod(config, 0o644);
    assert_eq!(world.files().0, 0, "the digest of a random key is no secret");
    for mode in [0o666, 0o664, 0o602] {
        world.chmod(config, mode);
        let (code, found) = world.files();
        assert!(
            code == 1 && found[0].1.ends_with("can change it; next: chmod go-w token-supervisor.toml"),
            "{found:?}"
        );
    }
    let text = fs::read_to_string(world.path(config)).unwrap();
    let inline = text.replace("{ env = \"GITLAB_CLIENT_SECRET\" }", "\"ts-test-secret-inline\"");
    fs::write(world.path(config), &inline).unwrap();
    world.chmod(config, 0o644);
    let (code, found) = world.files();
    assert_eq!(
        (code, &*found[0].1),
        (1, "token-supervisor.toml: every user can read it; next: chmod 600 token-supervisor.toml")
    );
    // A secret in a file of its own is as secret.
    fs::write(world.path("client secret"), "ts-test-secret-in-a-file").unwrap();
    let path = world.path("client secret").display().to_string();
    fs::write(world.path(config), inline.replace("\"ts-test-secret-inline\"", &format!("{{ file = \"{path}\" }}")))
        .unwrap();
    world.chmod("client secret", 0o644);
    let (code, found) = world.files();
    assert_eq!((code, &*found[0].1), (1, &*format!("{path}: every user can read it; next: chmod 600 '{path}'")));
    // Orchestrators provide secrets to a group.
    world.chmod("client secret", 0o640);
    let (code, found) = world.files();
    assert!(code == 0 && found[0].0 == "warning" && found[0].1.contains("its group can read it"), "{found:?}");
}

#[tokio::test]
async fn serve_warns_of_files_that_others_can_read() {
    let world = World::connected();
    for name in ["token-supervisor.db", "token-supervisor.keys"] {
        world.chmod(name, 0o644);
    }
    let server = world.serve();
    server.signal("TERM");
    let (_, log) = server.ended().await;
    let warned = |words: &str| log.lines().filter(|line| line.contains(" WARN ") && line.contains(words)).count();
    assert_eq!(warned("token-supervisor.db: every user can read it; next: chmod 600 token-supervisor.db"), 1, "{log}");
    assert_eq!((warned("token-supervisor.keys"), warned("chmod 600")), (1, 2), "each once: {log}");
    for name in ["token-supervisor.db", "token-supervisor.keys"] {
        world.chmod(name, 0o600);
    }
    let server: Served = world.serve();
    server.signal("TERM");
    let (_, log) = server.ended().await;
    assert!(!log.contains("chmod"), "{log}");
}

#[test]
fn a_new_api_key_is_written_to_a_file_of_its_own() {
    let world = World::connected();
    let ran = world.run(&["apikey", "new", "billing", "--output", "billing.api-key"]);
    assert!(ran.code == 0 && !ran.stdout.contains("tsk_"), "{ran:?}");
    assert!(ran.stdout.starts_with("The key is in billing.api-key. Add this section"), "{ran:?}");
    let path = world.path("billing.api-key");
    let key = fs::read_to_string(&path).unwrap();
    assert!(key.starts_with("tsk_") && key.ends_with('\n') && key.len() > 40);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again: Ran = world.run(&["apikey", "new", "billing", "--output", "billing.api-key"]);
    again.failed(1, "billing.api-key already exists; nothing was written");
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    world.run(&["apikey", "new", "billing", "--output", "missing/x"]).failed(1, "cannot write missing/x");
    let json = world.json(&["apikey", "new", "billing", "--output", "other.api-key"]);
    assert_eq!((&json["file"], json.get("key")), (&"other.api-key".into(), None), "{json}");
}
