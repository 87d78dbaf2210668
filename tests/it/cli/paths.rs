//! Where the files of an installation are, and which commands create them.

use std::{collections::BTreeSet, fs, path::Path};

use tempfile::TempDir;

use super::{ON_GRANTS, Ran, SECRET, World};

/// Runs a command in another folder.
fn run_in(world: &World, folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = world.command(args);
    command.current_dir(folder).envs(environment.iter().copied());
    Ran::new(command.output().unwrap())
}

fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn paths_in_a_configuration_are_relative_to_its_folder() {
    let (world, elsewhere) = (World::connected(), TempDir::new().unwrap());
    let config = world.folder.path().join("token-supervisor.toml");
    let text = fs::read_to_string(&config).unwrap();
    let relative = format!("../{}/token-supervisor.toml", world.folder.path().file_name().unwrap().display());
    let absolute = config.display().to_string();
    for (path, variable) in [(&absolute, None), (&relative, None), (&absolute, Some("TOKEN_SUPERVISOR_CONFIG"))] {
        let environment: Vec<_> = variable.map(|name| (name, path.as_str())).into_iter().collect();
        let option = if variable.is_some() { vec![] } else { vec!["--config", path.as_str()] };
        let run = |args: &[&str]| run_in(&world, elsewhere.path(), &[args, &option].concat(), &environment);
        let status = run(&["status", "gitlab", "alice"]);
        assert!(status.code == 0 && status.stdout.contains("generation 1"), "{path}: {status:?}");
        assert!(run(&["token", "gitlab", "alice"]).stdout.starts_with(SECRET), "{path}");
        assert_eq!(run(&["doctor"]).code, 0, "{path}");
        let shown = run(&["config", "show"]).stdout;
        let folder = Path::new(path).parent().unwrap().display().to_string();
        for file in ["token-supervisor.db", "token-supervisor.journal", "token-supervisor.keys"] {
            assert!(shown.contains(&format!("{folder}/{file}\n")), "{path}: {shown}");
        }
    }
    // Settings of the file, and values from files.
    fs::create_dir(world.folder.path().join("data")).unwrap();
    fs::rename(world.folder.path().join("token-supervisor.keys"), world.folder.path().join("data/keys")).unwrap();
    fs::write(world.folder.path().join("data/secret"), world.sim.profile().client_secret.expose_secret()).unwrap();
    let moved = text
        .replace("{ env = \"GITLAB_CLIENT_SECRET\" }", "{ file = \"data/secret\" }")
        .replace("# file = \"token-supervisor.keys\"", "file = \"data/keys\"")
        .replace("# url = \"sqlite://token-supervisor.db\"", "url = \"sqlite://data/t.db\"")
        .replace("# dir = \"token-supervisor.journal\"", "dir = \"data/j\"");
    fs::write(&config, moved).unwrap();
    let migrated = run_in(&world, elsewhere.path(), &["migrate", "--config", &absolute], &[]);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    let made = files(&world.folder.path().join("data"));
    assert!(["keys", "secret", "t.db", "j"].iter().all(|name| made.contains(*name)), "{made:?}");
    assert_eq!(run_in(&world, elsewhere.path(), &["list", "--config", &absolute], &[]).code, 0);
    assert_eq!(files(elsewhere.path()), BTreeSet::new(), "nothing is made in the working directory");

    // Variables are the caller's: they are relative to the working directory.
    let store = [("TOKEN_SUPERVISOR__STORE__URL", "sqlite://mine.db")];
    let migrated = run_in(&world, elsewhere.path(), &["migrate", "--config", &absolute], &store);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    assert!(files(elsewhere.path()).contains("mine.db"));
    let journal = [("TOKEN_SUPERVISOR__JOURNAL__DIR", "my-journal"), store[0]];
    assert_eq!(run_in(&world, elsewhere.path(), &["migrate", "--config", &absolute], &journal).code, 0);
    assert!(files(elsewhere.path()).contains("my-journal"));
}

#[test]
fn only_commands_that_begin_something_create_a_store() {
    let world = World::new(std::time::Duration::from_secs(7_200));
    let before = files(world.folder.path());
    let on_grants = ON_GRANTS.into_iter().filter(|args| args[0] != "connect");
    for args in on_grants.clone() {
        let ran = world.run(args);
        ran.failed(1, "there is no store at token-supervisor.db yet");
        assert!(ran.stderr.contains("connect the first user, or run token-supervisor serve"), "{ran:?}");
    }
    let doctor = world.run(&["doctor", "--probe"]);
    assert!(doctor.code == 0 && doctor.stdout.contains("warn   store          there is none at"), "{doctor:?}");
    assert!(doctor.stdout.contains("responds (405"), "{doctor:?}");
    assert_eq!(world.run(&["migrate", "--check"]).code, 1);
    assert_eq!(files(world.folder.path()), before);

    world.connect("alice");
    let path = |name: &str| world.folder.path().join(name);
    let kept = path("kept");
    for (name, word) in [
        ("token-supervisor.db", "is missing or empty, although its journal"),
        ("token-supervisor.journal", "the journal token-supervisor.journal is missing"),
        ("token-supervisor.keys", "cannot read key file"),
    ] {
        fs::rename(path(name), &kept).unwrap();
        let before = files(world.folder.path());
        for args in on_grants.clone() {
            world.run(args).failed(if name.ends_with("keys") { 2 } else { 1 }, word);
        }
        let doctor = world.run(&["doctor"]);
        assert!(doctor.code == 1 && doctor.stdout.contains("WRONG"), "{name}: {doctor:?}");
        assert_eq!(files(world.folder.path()), before, "{name}");
        if name.ends_with("db") {
            fs::write(path(name), "").unwrap();
            world.run(&["status"]).failed(1, word);
            assert_eq!(fs::metadata(path(name)).unwrap().len(), 0);
            fs::remove_file(path(name)).unwrap();
        }
        fs::rename(&kept, path(name)).unwrap();
    }
    assert_eq!(world.json(&["status", "gitlab", "alice"])["generation"], 1);
    fs::remove_dir_all(path("token-supervisor.journal")).unwrap();
    assert_eq!(world.run(&["migrate"]).code, 0);
    assert_eq!(world.json(&["status", "gitlab", "alice"])["generation"], 1);
}
