//! A configuration read again: what is taken over, what stays, what waits.

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use crate::{
    Grant, KeyFileEdit, Keyring, Revoke, State, TokenKey, TokenSupervisor, config::Reloader, testing::ManualClock,
};

struct Stage {
    folder: TempDir,
    reloader: Reloader,
    supervisor: TokenSupervisor,
}

const IDP: &str = "[idp.github]\npreset = \"github\"\nclient_id = \"id\"\n";
const OTHER: &str = "[idp.other]\npreset = \"gitlab\"\nclient_id = \"id\"\nclient_secret = \"ts-test-secret-o\"\n";

impl Stage {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Keyring::generate().write_new(folder.path().join("keys")).unwrap();
        std::fs::write(folder.path().join("secret"), "ts-test-secret-1\n").unwrap();
        let path = write(&folder, "");
        let reloader = Reloader::load(Some(&path), std::iter::empty::<(OsString, OsString)>()).unwrap();
        let supervisor = reloader.config().builder().unwrap().start().await.unwrap();
        Self { folder, reloader, supervisor }
    }

    /// Reads the configuration again with `more` at its end.
    fn reload(&mut self, more: &str) -> Result<crate::config::Changes, String> {
        write(&self.folder, more);
        self.reloader.reload(&self.supervisor).map_err(|error| error.to_string())
    }

    fn poll(&mut self) -> Result<Option<crate::config::Changes>, String> {
        self.reloader.poll(&self.supervisor).map_err(|error| error.to_string())
    }

    fn secret(&self) -> &str {
        self.reloader.config().idps["github"].clients[0].client_secret.expose_secret()
    }

    fn names(&self) -> Vec<String> {
        self.supervisor.idps().into_iter().map(|idp| idp.name).collect()
    }
}

fn write(folder: &TempDir, more: &str) -> PathBuf {
    let at = folder.path().display();
    let text = format!(
        "[store]\nurl = 'sqlite://{at}/x.db'\n[keyring]\nfile = '{at}/keys'\n{IDP}client_secret = {{ file = '{at}/secret' }}\n{more}"
    );
    let path = folder.path().join("conf.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn new_settings_are_taken_over_and_the_rest_is_said() {
    let mut stage = Stage::start().await;
    let nothing = stage.reload("").unwrap();
    assert_eq!((nothing.idps, nothing.server, nothing.restart), (vec![], false, vec![]));

    let changes = stage.reload(OTHER).unwrap();
    assert_eq!(changes.idps, ["other"]);
    assert_eq!(stage.names(), ["github", "other"]);

    let key =
        "[[server.api_key]]\nname = \"a\"\nsecret = \"ts-test-secret-key-of-the-reloader\"\nscopes = [\"token\"]\n";
    let changes = stage.reload(&format!("{OTHER}{key}")).unwrap();
    assert_eq!((changes.idps, changes.server, changes.restart), (vec![], true, vec![]));
    assert_eq!(stage.reloader.config().server().api_keys.len(), 1);

    // The times of all identity providers that have none of their own.
    let changes = stage.reload(&format!("{OTHER}margin_seconds = 9\n{key}[refresh]\nmargin_seconds = 120\n")).unwrap();
    assert_eq!(changes.idps, ["github", "other"]);

    let another = key.replace("\"a\"", "\"b\"");
    let rest = format!("[server]\nbind = \"127.0.0.1:1\"\n{another}[log]\nformat = \"json\"\n");
    let changes = stage.reload(&rest).unwrap();
    assert_eq!(changes.restart, ["server.bind", "log", "idp.other"]);
    assert_eq!((changes.idps, changes.server), (vec!["github".to_owned()], true));
}

#[tokio::test]
async fn a_bad_configuration_is_refused_and_the_old_one_stays() {
    let mut stage = Stage::start().await;
    let before = stage.reloader.config().show().to_vec();
    for bad in ["[log]\nformat = 1\n", "nonsense", "[refresh]\nlease_seconds = 0\n"] {
        let error = stage.reload(&format!("{OTHER}{bad}")).unwrap_err();
        assert!(error.contains("conf.toml:"), "{error}");
        assert_eq!(stage.names(), ["github"]);
        assert_eq!(stage.reloader.config().show(), before);
    }
    std::fs::remove_file(stage.folder.path().join("conf.toml")).unwrap();
    assert!(stage.reloader.reload(&stage.supervisor).is_err());
    assert_eq!(stage.reloader.config().show(), before);
}

#[tokio::test]
async fn a_changed_value_file_is_read_again_and_a_bad_one_refused() {
    let mut stage = Stage::start().await;
    let file = stage.folder.path().join("secret");
    assert_eq!(stage.poll(), Ok(None));

    std::fs::write(&file, "ts-test-secret-2\n").unwrap();
    assert_eq!(stage.poll().unwrap().unwrap().idps, ["github"]);
    assert_eq!(stage.secret(), "ts-test-secret-2");
    assert_eq!(stage.poll(), Ok(None));

    // Told once, until it changes again.
    std::fs::write(&file, "\n").unwrap();
    assert!(stage.poll().unwrap_err().contains("idp.github.client_secret: must be set"));
    assert_eq!(stage.poll(), Ok(None));
    std::fs::remove_file(&file).unwrap();
    assert!(stage.poll().unwrap_err().contains("cannot read the file"));
    assert_eq!(stage.secret(), "ts-test-secret-2");

    std::fs::write(&file, "ts-test-secret-3").unwrap();
    assert_eq!(stage.poll().unwrap().unwrap().idps, ["github"]);
    assert_eq!(stage.secret(), "ts-test-secret-3");
}

#[tokio::test]
async fn a_changed_key_file_is_read_again_and_a_bad_one_refused() {
    let mut stage = Stage::start().await;
    let path = stage.folder.path().join("keys");
    let staged = |stage: &mut Stage, again| {
        let keys = stage.reloader.new_keys(again).map_err(|error| error.to_string());
        keys.map(|keys| keys.map(|keys| keys.labels().len()))
    };
    assert_eq!((staged(&mut stage, false), staged(&mut stage, true)), (Ok(None), Ok(Some(1))));
    let edit = KeyFileEdit::open(&path).unwrap();
    let (more, _) = edit.keyring().staging(SystemTime::UNIX_EPOCH);
    edit.replace(&more).unwrap();
    let keys = stage.reloader.new_keys(false).unwrap().unwrap();
    assert_eq!(stage.supervisor.set_keyring(&keys).await, Ok(true));
    assert_eq!(staged(&mut stage, false), Ok(None));
    let before = std::fs::read(&path).unwrap();
    std::fs::write(&path, "half writ").unwrap();
    assert!(staged(&mut stage, false).unwrap_err().contains("keyring.file: "), "it says which setting");
    assert_eq!(staged(&mut stage, false), Ok(None), "told once, until it changes again");
    std::fs::remove_file(&path).unwrap();
    assert!(staged(&mut stage, false).unwrap_err().contains("cannot read key file"));
    std::fs::write(&path, before).unwrap();
    assert_eq!(staged(&mut stage, false), Ok(Some(2)));
}

#[tokio::test]
async fn a_value_file_that_changes_does_not_bring_in_a_half_written_configuration() {
    let mut stage = Stage::start().await;
    write(&stage.folder, "half writ");
    std::fs::write(stage.folder.path().join("secret"), "ts-test-secret-2").unwrap();
    assert_eq!(stage.poll().unwrap().unwrap().idps, ["github"]);
    assert_eq!(stage.secret(), "ts-test-secret-2");
}

#[tokio::test]
async fn tombstones_are_kept_for_as_long_as_the_configuration_says() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let (alice, stage) = (TokenKey::at("github").user("alice"), Stage::start().await);
    let path = write(&stage.folder, "[retention]\ntombstone_days = 2\n");
    stage.supervisor.shutdown(Duration::from_secs(5)).await;
    let reloader = Reloader::load(Some(&path), std::iter::empty::<(OsString, OsString)>()).unwrap();
    let start = || reloader.config().builder().unwrap().clock(&clock).start();
    let supervisor = start().await.unwrap();
    supervisor.connect(&alice, Grant::new("ts-test-secret-a")).await.unwrap();
    supervisor.disconnect(&alice, Revoke::No).await.unwrap();
    supervisor.shutdown(Duration::from_secs(5)).await;
    // Old ones are looked for at the start, and then once an hour.
    clock.advance(Duration::from_secs(2 * 24 * 3_600));
    let supervisor = start().await.unwrap();
    let purged = async {
        while supervisor.status(&alice).await.unwrap().state != State::Absent {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), purged).await.unwrap();
}
