//! What the conformance suite does not show: locks, clocks, lost connections, schemas, damaged rows, and plans of statements.

mod encryption;
mod plans;

use std::{sync::Mutex, time::SystemTime};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection as _, SimpleAsyncConnection as _};

use super::*;
use crate::{
    clock::ManualClock,
    keyring::Keyring,
    model::Row,
    protocol::{
        ChangeReply, ConnectChange,
        tests::{claim, commit, committed, connect, id, token},
    },
    store::StoreError,
};

/// A store, the same one that another program changes.
struct TestStore {
    url: String,
    clock: Clock,
    store: PostgresStore,
}

fn codes() -> RowCodes {
    Keyring::fixed(&[("0a0b0c0d", 1)], 9).row_codes()
}

fn by_hand() -> Clock {
    Clock::manual(&ManualClock::new(SystemTime::UNIX_EPOCH))
}

fn connecting(user: &str, number: u8) -> (TokenKey, Change) {
    let key = TokenKey::at("idp").user(user);
    let connect = ConnectChange { key: key.clone(), token: Some(token(number)), ..connect(None, number) };
    (key, Change::Connect(Box::new(connect)))
}

impl TestStore {
    /// `None` without PostgreSQL on this machine.
    fn open(clock: Clock) -> Option<Self> {
        let url = server::shared()?.url();
        let store = PostgresStore::open(&url, Migrate::Auto, clock.clone(), codes()).unwrap();
        Some(Self { url, clock, store })
    }

    fn again(&self, migrate: Migrate) -> Result<PostgresStore, Error> {
        PostgresStore::open(&self.url, migrate, self.clock.clone(), codes())
    }

    /// A connection of another program.
    async fn connection(&self) -> AsyncPgConnection {
        let address = Arc::new(PostgresAddress::parse(&self.url).unwrap());
        let pool = pool(&address, 1, Duration::from_secs(60), &Arc::default(), &Arc::default()).unwrap();
        pool.manager().connect().await.unwrap().session
    }

    async fn meddle(&self, statements: &str) {
        self.connection().await.batch_execute(statements).await.unwrap();
    }

    async fn connected(&self, user: &str, number: u8) -> Row {
        let (key, change) = connecting(user, number);
        self.store.change(&key, change).await.unwrap().row.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_rows_is_the_databases() {
    let Some(place) = TestStore::open(Clock::system(Handle::current())) else { return };
    let wall = place.clock.now().0;
    let row = place.connected("alice", 1).await;
    assert!((row.changed_at.0 - wall).abs() < 60_000, "{row:?} by {wall}");
    let claimed = place.store.change(&row.key, Change::Claim(claim(1, &row))).await.unwrap();
    let lease = claimed.row.clone().unwrap().lease.unwrap();
    assert_eq!(lease.until, claimed.now + crate::protocol::tests::LEASE);
    // An estimate that is wrong is noticed by the statement that would write it.
    place.store.shared.clock.read(wall + 3_600_000);
    let stored = committed(&commit(1, &claimed.row.unwrap(), 2));
    let stored = place.store.change(&row.key, stored).await.unwrap();
    assert!(stored.row.unwrap().changed_at.0 < wall + 60_000);
    place.store.shared.clock.read(wall - 3_600_000);
    let held = place.store.change(&row.key, Change::Hold { reason: "by hand".to_owned() }).await.unwrap();
    assert!(held.now.0 >= wall - 1_000, "{held:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waited_for_a_row_lock_answers_from_the_row_as_it_is_then() {
    let Some(place) = TestStore::open(Clock::system(Handle::current())) else { return };
    let row = place.connected("alice", 1).await;
    let other = place.again(Migrate::Never).unwrap();
    let mut holder = place.connection().await;
    holder.batch_execute("BEGIN; SELECT FROM grants FOR UPDATE;").await.unwrap();
    let claims = [(1, &place.store), (2, &other)].map(|(attempt, store)| {
        let claimed = store.change(&row.key, Change::Claim(claim(attempt, &row)));
        tokio::spawn(claimed)
    });
    wait_for_waiting(&place, 2).await;
    holder.batch_execute("COMMIT;").await.unwrap();
    let mut won = 0;
    for claimed in claims {
        let claimed = claimed.await.unwrap();
        won += usize::from(claimed.as_ref().is_ok_and(|claimed| claimed.reply == ChangeReply::Done));
        assert!(claimed.is_ok_and(|claimed| claimed.row.unwrap().lease.is_some()), "both see the lease");
    }
    assert_eq!(won, 1);
}

/// Waits until so many statements wait for a lock on a row of this store.
async fn wait_for_waiting(place: &TestStore, count: i64) {
    let mut looking = place.connection().await;
    for _ in 0..2_000 {
        let waiting = statement::sql::<diesel::sql_types::BigInt>(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT l.pid FROM pg_locks l WHERE l.relation = 'grants'::regclass)",
        );
        if waiting.get_result::<i64>(&mut looking).await.unwrap() >= count {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing waits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_given_up_and_leaves_nothing_behind() {
    let Some(place) = TestStore::open(by_hand()) else { return };
    let row = place.connected("alice", 1).await;
    let mut holder = place.connection().await;
    holder.batch_execute("BEGIN; SELECT FROM grants FOR UPDATE;").await.unwrap();
    let hold = || Change::Hold { reason: "by hand".to_owned() };
    let (waited, dropped) = (place.store.change(&row.key, hold()), place.store.change(&row.key, hold()));
    drop(dropped);
    let error = waited.await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("statement timeout")), "{error:?}");
    holder.batch_execute("COMMIT;").await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND application_name = 'token-supervisor'";
    let open = statement::sql::<diesel::sql_types::BigInt>(open).get_result::<i64>(&mut holder).await.unwrap();
    assert_eq!(open, 0, "no transaction is open");
    assert_eq!(place.store.change(&row.key, hold()).await.unwrap().reply, ChangeReply::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_is_lost_is_no_success_and_its_change_may_be_repeated() {
    let Some(place) = TestStore::open(by_hand()) else { return };
    let row = place.connected("alice", 1).await;
    // The server ends the connection after it has written, and before it replies.
    place
        .meddle(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); \
             PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER lost AFTER UPDATE ON grants DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION lose();",
        )
        .await;
    let claiming = || Change::Claim(claim(1, &row));
    let error = place.store.change(&row.key, claiming()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    place.meddle("DROP TRIGGER lost ON grants;").await;
    for _ in 0..2 {
        assert_eq!(place.store.change(&row.key, claiming()).await.unwrap().reply, ChangeReply::Done);
    }
    // Connections that the server has ended are not used again.
    place.store.read(&row.key).await.unwrap();
    place
        .meddle(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'token-supervisor' AND pid <> pg_backend_pid() AND state = 'idle';",
        )
        .await;
    // Give the news a moment: until it has arrived, an operation fails like any other that was interrupted.
    for _ in 0..50 {
        if place.store.read(&row.key).await.is_ok() {
            return;
        }
    }
    panic!("the store does not connect again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_created_updated_or_refused() {
    let Some(server) = server::shared() else { return };
    let url = server.url();
    let open = |migrate| PostgresStore::open(&url, migrate, by_hand(), codes());
    let error = open(Migrate::Never).err().unwrap().to_string();
    assert!(error.contains("run token-supervisor migrate") && error.contains("2026-11-30-000000_grants"), "{error}");
    // Several processes at a time.
    let migrating: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::task::spawn_blocking(move || PostgresStore::open(&url, Migrate::Auto, by_hand(), codes()).map(drop))
        })
        .collect();
    for migrated in migrating {
        migrated.await.unwrap().unwrap();
    }
    let place = TestStore { url: url.clone(), clock: by_hand(), store: open(Migrate::Never).unwrap() };
    place.meddle("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000');").await;
    let error = place.again(Migrate::Auto).err().unwrap().to_string();
    for part in ["has the migration 99990101000000", "knows them up to", "use the version"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_error_names_the_server_and_no_password() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://me:ts-test-secret-pw@127.0.0.1:{nobody}/tokens?sslmode=disable");
    let error = PostgresStore::open(&url, Migrate::Auto, by_hand(), codes()).err().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{nobody}/tokens")) && error.contains("refused"), "{error}");
    assert!(!error.contains("ts-test-secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_is_left_out_and_a_connect_replaces_it() {
    let Some(place) = TestStore::open(by_hand()) else { return };
    let (alice, first) = connecting("alice", 1);
    let (_, second) = connecting("alice", 2);
    let (_, third) = connecting("alice", 3);
    place.store.change(&alice, first.clone()).await.unwrap();
    let before = place.store.change(&alice, second).await.unwrap().row.unwrap();
    place.connected("bob", 9).await;
    place.meddle("UPDATE grants SET due_at = due_at + 1 WHERE user_id = 'alice';").await;
    let error = place.store.read(&alice).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { column: "code", .. }), "{error}");
    let due = place.store.due("idp", WallTime(i64::MAX), None, 9).await.unwrap();
    assert_eq!((due.rows.len(), place.store.unreadable()), (1, 1));
    let listed = place.store.list(&Names::default(), None, 9).await.unwrap();
    assert_eq!(listed.grants.iter().filter(|(_, row)| row.is_err()).count(), 1);

    place.meddle("UPDATE grants SET tombstone = '{', epoch = -1 WHERE user_id = 'alice';").await;
    let replayed = place.store.change(&alice, first).await.unwrap();
    assert!(matches!(replayed.reply, ChangeReply::Unchanged(_)), "{replayed:?}");
    let replaced = place.store.change(&alice, third).await.unwrap();
    let row = replaced.row.unwrap();
    assert!(replaced.reply == ChangeReply::Done && row.generation > before.generation);
    assert_eq!(place.store.read(&alice).await.unwrap().row, Some(row));
    assert_eq!(place.store.unreadable(), 0);

    // The token that a damaged row holds may come back from a consent, unless it may have been spent.
    let (bob, held) = connecting("bob", 9);
    place.meddle("UPDATE grants SET epoch = -1, intent = '{}' WHERE user_id = 'bob';").await;
    let in_doubt = place.store.change(&bob, held.clone()).await.unwrap();
    assert!(matches!(in_doubt.reply, ChangeReply::Unchanged(_)), "{in_doubt:?}");
    place.meddle("UPDATE grants SET intent = NULL WHERE user_id = 'bob';").await;
    assert_eq!(place.store.change(&bob, held).await.unwrap().reply, ChangeReply::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_put_back_spends_nothing() {
    let Some(place) = TestStore::open(by_hand()) else { return };
    let mut row = place.connected("alice", 1).await;
    let refreshed = async |row: &Row, number: u8| {
        let claimed = place.store.change(&row.key, Change::Claim(claim(number, row))).await.unwrap().row.unwrap();
        let stored = committed(&commit(number, &claimed, number));
        place.store.change(&row.key, stored).await.unwrap().row.unwrap()
    };
    for number in 2..5 {
        row = refreshed(&row, number).await;
    }
    place.meddle("CREATE TABLE kept AS SELECT * FROM grants;").await;
    let kept = row.clone();
    for number in 5..60 {
        row = refreshed(&row, number).await;
    }
    place.meddle("DELETE FROM grants; INSERT INTO grants SELECT * FROM kept;").await;
    let claimed = place.store.change(&row.key, Change::Claim(claim(100, &kept))).await.unwrap();
    let row = claimed.row.unwrap();
    assert!(claimed.reply == ChangeReply::Refused && row.intent.is_some() && row.lease.is_none(), "{row:?}");
}

/// The statements that a connection executes, and those that it keeps prepared.
#[derive(Clone, Default)]
struct StatementLog(Arc<Mutex<(Vec<String>, usize)>>);

impl Instrumentation for StatementLog {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let (executed, prepared) = &mut *self.0.lock().unwrap();
        match event {
            InstrumentationEvent::StartQuery { query, .. } => {
                executed.push(query.to_string().split_whitespace().take(3).collect::<Vec<_>>().join(" "));
            }
            InstrumentationEvent::CacheQuery { .. } => *prepared += 1,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_executes_three_statements_and_prepares_none_anew() {
    let Some(place) = TestStore::open(by_hand()) else { return };
    let mut row = place.connected("alice", 1).await;
    let mut connection = place.connection().await;
    let log = StatementLog::default();
    connection.set_instrumentation(log.clone());
    for number in 2..6 {
        *log.0.lock().unwrap() = Default::default();
        let claiming = Change::Claim(claim(number, &row));
        let claimed = change::change(&mut connection, &place.store.shared, &row.key, &claiming).await;
        let claimed = claimed.unwrap().row.unwrap();
        let storing = committed(&commit(number, &claimed, number));
        let stored = change::change(&mut connection, &place.store.shared, &row.key, &storing).await;
        row = stored.unwrap().row.unwrap();
        assert_eq!(row.commit.unwrap().attempt, id(number));
    }
    let (executed, prepared) = &log.0.lock().unwrap().clone();
    assert_eq!(*executed, ["SELECT \"grants\".\"id\", \"grants\".\"revision\",", "WITH written AS", "WITH written AS"]);
    assert_eq!(*prepared, 0);

    // The page of due rows has what a claim needs.
    assert_eq!(place.store.due("idp", WallTime(i64::MAX), None, 9).await.unwrap().rows, [row.clone()]);
    *log.0.lock().unwrap() = Default::default();
    let claiming = Change::Claim(claim(7, &row));
    let claimed = change::change(&mut connection, &place.store.shared, &row.key, &claiming).await.unwrap();
    assert_eq!(claimed.reply, ChangeReply::Done);
    assert_eq!(log.0.lock().unwrap().0, ["WITH written AS"]);
}
