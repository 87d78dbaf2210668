use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use diesel::RunQueryDsl as _;

use super::*;
use crate::{
    clock::ManualClock,
    keyring::Keyring,
    protocol::{
        ChangeReply, ConnectChange,
        tests::{connect, id, token},
    },
    store::{Migrate, StoreError, open, past_conflicts},
};

pub(super) fn codes() -> RowCodes {
    Keyring::fixed(&[("0a0b0c0d", 1)], 9).row_codes()
}

pub(super) fn clock() -> Clock {
    Clock::manual(&ManualClock::new(SystemTime::UNIX_EPOCH))
}

pub(super) fn connecting(user: &str, number: u8) -> (TokenKey, Change) {
    let key = TokenKey::at("idp").user(user);
    let connect = ConnectChange { key: key.clone(), token: Some(token(number)), ..connect(None, number) };
    (key, Change::Connect(Box::new(connect)))
}

#[test]
fn a_url_without_a_file_is_refused_with_the_correct_form() {
    for url in ["sqlite://:memory:", "sqlite::memory:", "sqlite://", "sqlite:", "mysql://db/tokens", "tokens.db", ""] {
        let error = open(url, Migrate::Auto, &clock(), codes()).err().unwrap();
        assert!(matches!(error, Error::Configuration(_)), "{url}");
        assert!(error.to_string().contains("write sqlite://PATH"), "{url}: {error}");
    }
}

#[test]
fn an_error_names_the_file_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").join("tokens.db");
    let error =
        open(&format!("sqlite://{}", missing.display()), Migrate::Auto, &clock(), codes()).err().unwrap().to_string();
    assert!(error.contains("cannot open the store") && error.contains("missing/tokens.db"), "{error}");

    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, b"this is no database, however long it may be; really, it is not").unwrap();
    assert!(open(&format!("sqlite://{}", garbage.display()), Migrate::Auto, &clock(), codes()).is_err());
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_id_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("tokens.db").display());
    let first = open(&url, Migrate::Auto, &clock(), codes()).unwrap();
    let error = open(&url, Migrate::Auto, &clock(), codes()).err().unwrap().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    first.close().await.unwrap();
    open(&url, Migrate::Auto, &clock(), codes()).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn another_name_of_the_file_does_not_get_round_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    std::os::unix::fs::symlink("tokens.db", folder.path().join("link.db")).unwrap();
    let first = open(&url("tokens.db"), Migrate::Auto, &clock(), codes()).unwrap();
    std::fs::hard_link(folder.path().join("tokens.db"), folder.path().join("hard.db")).unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for name in ["link.db", "hard.db", "sub/../tokens.db", "./link.db"] {
        let error = open(&url(name), Migrate::Auto, &clock(), codes()).err().unwrap();
        assert!(matches!(error, Error::StoreInUse(_)), "{name}: {error}");
    }
    first.close().await.unwrap();
    open(&url("link.db"), Migrate::Auto, &clock(), codes()).unwrap().close().await.unwrap();
}

#[cfg(unix)]
#[test]
fn a_lock_file_that_is_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, victim) = (folder.path().join("tokens.db"), folder.path().join("victim"));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, folder.path().join("tokens.db.lock")).unwrap();
    let error =
        open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).err().unwrap().to_string();
    assert!(error.contains("tokens.db.lock is a symbolic link: remove the link"), "{error}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!path.exists());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store =
        open(&format!("sqlite:{}", folder.path().join("tokens.db").display()), Migrate::Auto, &clock(), codes())
            .unwrap();
    let (key, change) = connecting("alice", 1);
    store.change(&key, change).await.unwrap();
    for name in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Executes a statement on a connection of its own, to corrupt a row.
fn corrupt(path: &Path, statement: &str) {
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute(&format!("PRAGMA busy_timeout = 5000; {statement}")).unwrap();
}

#[tokio::test]
async fn a_corrupt_row_fails_only_its_own_operations_and_names_its_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).unwrap();
    let (alice, first) = connecting("alice", 1);
    let (bob, second) = connecting("bob", 2);
    let grant_id = store.change(&alice, first).await.unwrap().row.unwrap().grant_id;
    store.change(&bob, second).await.unwrap();
    let corruptions = [
        ("intent", "'{'"),
        ("verdict", "'7'"),
        ("incarnation", "x'00'"),
        ("fingerprint", "x'0011'"),
        ("fingerprint", "NULL"),
        ("parent", "x''"),
        ("generation", "-1"),
        ("epoch", "-1"),
        ("lease", "'{}'"),
        ("alt", "'{}'"),
        ("tombstone", "'gone'"),
        ("last_error", "'[]'"),
        ("committed_by", "'nobody'"),
    ];
    for (column, value) in corruptions {
        corrupt(&path, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM grants WHERE user_id = 'alice';");
        corrupt(&path, &format!("UPDATE grants SET {column} = {value} WHERE user_id = 'alice';"));
        let require = || Change::RequireReconnect { reason: "left".to_owned() };
        let (read, changed) = (store.read(&alice), store.change(&alice, require()));
        let (neighbour, other) = (store.read(&bob), store.change(&bob, require()));
        for error in [read.await.unwrap_err(), changed.await.unwrap_err()] {
            let StoreError::Corrupt { grant_id: named, column: blamed } = &error else { panic!("{column}: {error}") };
            assert_eq!(*named, grant_id);
            assert_eq!(column, *blamed, "{error}");
        }
        assert!(neighbour.await.unwrap().row.is_some());
        assert_eq!(other.await.unwrap().reply, ChangeReply::Done);
        let due = store.due("idp", WallTime(i64::MAX), None, 9).await.unwrap();
        assert!(due.rows.is_empty(), "bob must reconnect");
        assert_eq!(store.unreadable(), 1);
        corrupt(&path, &format!("UPDATE grants SET {column} = (SELECT {column} FROM kept) WHERE user_id = 'alice';"));
    }
    assert!(store.read(&alice).await.unwrap().row.is_some());
}

#[tokio::test]
async fn every_changed_column_is_noticed_and_rows_of_earlier_versions_get_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).unwrap();
    let (alice, change) = connecting("alice", 1);
    let connected = store.change(&alice, change).await.unwrap().row;
    for change in [
        "held = 'by hand'",
        "expires_at = expires_at + 1",
        "refresh_expires_at = 1",
        "notice_at = 1",
        "due_at = due_at + 1",
        "retry_at = 1",
        "wake_at = NULL",
        "issued_at = issued_at + 1",
        "changed_at = changed_at + 1",
        "generation = generation + 1",
        "epoch = epoch + 1",
        "client_id = 'other'",
        "grant_id = 'g_other'",
        "parent = randomblob(16)",
        "fingerprint = randomblob(16)",
        "incarnation = randomblob(16)",
        "document = randomblob(80)",
        "refresh_token = randomblob(80)",
        "tombstone = '{\"at\":1,\"revoke\":false,\"restorable\":true}'",
        "code = NULL",
        "code = randomblob(16)",
        "id = id + 7",
    ] {
        corrupt(&path, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM grants;");
        corrupt(&path, &format!("UPDATE grants SET {change};"));
        let error = store.read(&alice).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { column: "code", .. }), "{change}: {error}");
        assert_eq!(store.unreadable(), 1);
        corrupt(&path, "DELETE FROM grants; INSERT INTO grants SELECT * FROM kept;");
        assert_eq!(store.read(&alice).await.unwrap().row, connected, "{change}");
        assert!(store.unreadable() == 0 || change.starts_with("id"), "{change}");
    }
    corrupt(&path, "UPDATE grants SET code = NULL;");
    assert_eq!(store.code_rows(0).await.unwrap(), Some(1));
    assert_eq!(store.code_rows(1).await.unwrap(), None);
    assert_eq!(store.read(&alice).await.unwrap().row, connected);
}

#[tokio::test]
async fn rows_that_are_no_text_are_left_out_and_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).unwrap();
    for number in 0..20 {
        let (key, change) = connecting(&format!("user-{number:02}"), number);
        store.change(&key, change).await.unwrap();
    }
    corrupt(&path, "UPDATE grants SET user_id = CAST(x'75ff' || user_id AS TEXT) WHERE id BETWEEN 5 AND 16;");
    let due = store.due("idp", WallTime(i64::MAX), None, 99).await.unwrap();
    assert_eq!((due.rows.len(), due.next), (8, None));
    let (mut after, mut listed) = (None, Vec::new());
    loop {
        let page = store.list(&Names::default(), after, 3).await.unwrap();
        listed.extend(page.grants.iter().map(|(key, row)| (key.user().to_owned(), row.is_ok())));
        if page.complete {
            break;
        }
        after = page.grants.last().map(|(key, _)| key.clone());
    }
    let readable = (0..20).filter(|number| !(4..16).contains(number)).map(|number| (format!("user-{number:02}"), true));
    assert_eq!(listed, readable.collect::<Vec<_>>());
    assert_eq!(store.unreadable(), 12);
    corrupt(&path, "UPDATE grants SET idp = CAST(x'ff' AS TEXT) WHERE id = 1;");
    store.census().await.unwrap();
    corrupt(&path, "INSERT INTO meta VALUES (CAST(x'686f6c64ff' AS TEXT), x'00');");
    store.metas("hold").await.unwrap();
    corrupt(&path, "INSERT INTO revocations VALUES (1, 'idp', CAST(x'ff' AS TEXT), '', x'00', 0, 0);");
    corrupt(&path, "INSERT INTO revocations VALUES (2, 'idp', 'alice', '', x'00', 0, 0);");
    assert_eq!(store.revocations(9).await.unwrap().len(), 1);
    let range = StoreTime(i64::MIN)..StoreTime(i64::MAX);
    corrupt(&path, "UPDATE grants SET notice_at = 5;");
    assert_eq!(store.expiring(range, None, 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_connect_replaces_a_row_that_cannot_be_read_and_a_spent_token_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).unwrap();
    let (alice, first) = connecting("alice", 1);
    let (_, second) = connecting("alice", 2);
    let (_, third) = connecting("alice", 3);
    store.change(&alice, first.clone()).await.unwrap();
    let before = store.change(&alice, second).await.unwrap().row.unwrap();
    corrupt(&path, "UPDATE grants SET tombstone = '{', epoch = -1;");
    let replayed = store.change(&alice, first).await.unwrap();
    assert!(matches!(replayed.reply, ChangeReply::Unchanged(_)), "{replayed:?}");
    store.read(&alice).await.unwrap_err();
    let replaced = store.change(&alice, third).await.unwrap();
    let row = replaced.row.unwrap();
    assert!(replaced.reply == ChangeReply::Done && row.generation > before.generation);
    assert_eq!(store.read(&alice).await.unwrap().row, Some(row));
    assert_eq!(store.unreadable(), 0);

    // The token that a damaged row holds may come back from a consent, unless it may have been spent.
    let (bob, held) = connecting("bob", 5);
    let (_, other) = connecting("bob", 6);
    store.change(&bob, held.clone()).await.unwrap();
    corrupt(&path, "UPDATE grants SET epoch = -1, intent = '{}' WHERE user_id = 'bob';");
    let in_doubt = store.change(&bob, held.clone()).await.unwrap();
    assert!(matches!(in_doubt.reply, ChangeReply::Unchanged(_)), "{in_doubt:?}");
    corrupt(&path, "UPDATE grants SET intent = NULL WHERE user_id = 'bob';");
    assert_eq!(store.change(&bob, held.clone()).await.unwrap().reply, ChangeReply::Done);
    corrupt(&path, "UPDATE grants SET epoch = -1 WHERE user_id = 'bob';");
    assert_eq!(store.change(&bob, other).await.unwrap().reply, ChangeReply::Done);
    let replayed = store.change(&bob, held).await.unwrap();
    assert!(matches!(replayed.reply, ChangeReply::Unchanged(_)), "{replayed:?}");
}

#[tokio::test]
async fn a_row_that_was_written_since_it_was_read_is_a_conflict_and_stays_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).unwrap();
    let (key, change) = connecting("alice", 1);
    store.change(&key, change).await.unwrap();
    let mut other = super::connect(&path).unwrap();
    let stale = query::find_stored(&mut other, &RowReader::new(codes()), &key).unwrap().unwrap();
    let held = store.change(&key, Change::Hold { reason: "by hand".to_owned() }).await.unwrap().row;
    let row = stale.row.clone();
    let written = query::update(&mut other, &RowReader::new(codes()), stale, row, &[], StoreTime(0));
    assert_eq!(written.map(|_| ()).map_err(StoreError::from), Err(StoreError::Conflict));
    assert_eq!(store.read(&key).await.unwrap().row, held);
}

#[tokio::test]
async fn a_lost_comparison_is_retried_at_once_and_not_for_ever() {
    for (losses, expected, tries) in [(0, Ok(()), 1), (3, Ok(()), 4), (99, Err(StoreError::Conflict), 9)] {
        let tried = Arc::new(AtomicU32::new(0));
        let count = tried.clone();
        let result = past_conflicts(move || {
            let lost = count.fetch_add(1, Ordering::Relaxed) < losses;
            Box::pin(async move { if lost { Err(StoreError::Conflict) } else { Ok(()) } })
        });
        assert_eq!((result.await, tried.load(Ordering::Relaxed)), (expected, tries));
    }
}

#[tokio::test]
async fn a_job_that_the_database_refuses_does_not_fail_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        open(&format!("sqlite://{}", folder.path().join("tokens.db").display()), Migrate::Auto, &clock(), codes())
            .unwrap();
    // All are requested before the first is awaited, so that they share transactions. The 21st has the grant id of
    // the 6th.
    let (changes, keys): (Vec<_>, Vec<_>) = (0..30_u8)
        .map(|number| {
            let (key, change) = connecting(&format!("user-{number}"), number);
            let Change::Connect(mut connect) = change else { panic!("a connect") };
            connect.incarnation = id(if number == 20 { 5 } else { number });
            (store.change(&key, Change::Connect(connect)), key)
        })
        .unzip();
    for (number, (answer, key)) in futures_util::future::join_all(changes).await.iter().zip(&keys).enumerate() {
        assert_eq!(answer.is_ok(), number != 20, "{number}: {answer:?}");
        assert_eq!(store.read(key).await.unwrap().row.is_some(), number != 20, "{number}");
    }
}

#[test]
fn a_page_of_a_listing_uses_an_index_and_no_sort() {
    #[derive(diesel::QueryableByName)]
    struct PlanStep {
        #[diesel(sql_type = diesel::sql_types::Text)]
        detail: String,
    }

    let folder = tempfile::tempdir().unwrap();
    let mut connection = super::connect(&folder.path().join("tokens.db")).unwrap();
    migrate::run(&mut connection).unwrap();
    let (some, names) = (|text: &str| Some(text.to_owned()), crate::store::Names::default);
    let cursor = TokenKey::at("idp").user("acme/b").account("c");
    let idp = Names { idp: some("idp"), ..names() };
    let tenant = Names { user_prefix: some("acme/"), ..idp.clone() };
    for (names, after, found_by) in [
        (names(), Some(&cursor), "((idp,user_id,account)>(?,?,?))"),
        (idp.clone(), None, "(idp=?)"),
        (idp, Some(&cursor), "(idp=? AND (user_id,account)>(?,?))"),
        (tenant.clone(), None, "(idp=? AND user_id>? AND user_id<?)"),
        (tenant, Some(&cursor), "(idp=? AND (user_id,account)>(?,?) AND user_id<?)"),
        (Names { user: some("alice"), ..names() }, None, "grants_user (user_id=?)"),
        (Names { gone: true, ..names() }, None, "grants_gone"),
    ] {
        let query = diesel::debug_query::<diesel::sqlite::Sqlite, _>(&list::page(&names, after, 9)).to_string();
        let statement = query.split("--").next().unwrap();
        let plan: Vec<PlanStep> =
            diesel::sql_query(format!("EXPLAIN QUERY PLAN {statement}")).load(&mut connection).unwrap();
        let plan: Vec<_> = plan.into_iter().map(|step| step.detail).collect();
        assert!(plan.len() == 1 && plan[0].contains(found_by), "{found_by}: {plan:?}");
    }
}

#[cfg(feature = "config")]
#[test]
fn pending_migrations_are_listed_without_changing_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    assert!(!pending(&path).unwrap().is_empty() && !path.exists());
    migrate(&path).unwrap();
    assert_eq!(pending(&path), Ok(Vec::new()));
    let later = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
    super::connect(&path).unwrap().batch_execute(later).unwrap();
    assert!(pending(&path).unwrap_err().to_string().contains("a newer version of token-supervisor wrote it"));
}

#[tokio::test]
async fn what_a_purge_deletes_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = open(&format!("sqlite://{}", path.display()), Migrate::Auto, &clock(), codes()).unwrap();
    let found = |what: &[u8]| {
        let files = ["tokens.db", "tokens.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
        files.iter().filter(|bytes| bytes.windows(what.len()).any(|window| window == what)).count()
    };
    for number in 0..20 {
        let (key, change) = connecting(&format!("a-user-of-some-name-{number:02}"), number);
        store.change(&key, change).await.unwrap();
    }
    let (key, again) = connecting("a-user-of-some-name-07", 30);
    let old = store.read(&key).await.unwrap().row.unwrap().refresh_token.unwrap().sealed;
    store.change(&key, again).await.unwrap();
    let row = store.read(&key).await.unwrap().row.unwrap();
    assert!(found(b"a-user-of-some-name-07") > 0 && found(&old.0) > 0);
    store.change(&key, crate::protocol::tests::disconnecting(false)).await.unwrap();
    store.change(&key, Change::Purge).await.unwrap();
    for _ in 0..500 {
        if found(b"a-user-of-some-name-07") == 0 {
            break;
        }
        // The writer empties its log after it has reported.
        std::thread::yield_now();
        store.read(&key).await.unwrap();
    }
    for (what, gone) in [
        ("name", &b"a-user-of-some-name-07"[..]),
        ("replaced token", &old.0),
        ("token", &row.refresh_token.unwrap().sealed.0),
    ] {
        assert_eq!(found(gone), 0, "{what}");
    }
    assert!(found(b"a-user-of-some-name-08") > 0);
}
