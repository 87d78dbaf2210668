//! What a refresh reads, writes and remembers.

use std::sync::Mutex;

use diesel::connection::{Instrumentation, InstrumentationEvent};

use super::{
    tests::{clock, codes, connecting},
    *,
};
use crate::{
    model::Row,
    protocol::{
        ChangeReply,
        tests::{claim, commit, committed, id},
    },
    store::{Migrate, open},
};

/// The statements that a connection executes, and those that it keeps prepared.
#[derive(Clone, Default)]
struct StatementLog(Arc<Mutex<(Vec<String>, Vec<String>)>>);

impl Instrumentation for StatementLog {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let (executed, kept) = &mut *self.0.lock().unwrap();
        match event {
            InstrumentationEvent::StartQuery { query, .. } => {
                executed.push(query.to_string().split(" -- ").next().unwrap_or_default().to_owned());
            }
            InstrumentationEvent::CacheQuery { sql, .. } => kept.push(sql.to_owned()),
            _ => {}
        }
    }
}

/// A connection that changes one row as the writer does.
struct OneRow {
    connection: SqliteConnection,
    memory: WriterMemory,
    reader: RowReader,
    key: TokenKey,
    row: Row,
    log: StatementLog,
    _folder: tempfile::TempDir,
}

impl OneRow {
    fn connected() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = super::connect(&folder.path().join("tokens.db")).unwrap();
        migrate::run(&mut connection).unwrap();
        let log = StatementLog::default();
        connection.set_instrumentation(log.clone());
        let (mut memory, reader) = (WriterMemory::default(), RowReader::new(codes()));
        let (key, change) = connecting("alice", 1);
        let connected = query::change(&mut connection, &mut memory, &reader, &key, &change, StoreTime(0));
        let row = connected.ok().unwrap().row.unwrap();
        Self { connection, memory, reader, key, row, log, _folder: folder }
    }

    fn change(&mut self, change: &Change) -> ChangeReply {
        let Self { connection, memory, reader, key, .. } = self;
        let changed = connection.immediate_transaction(|connection| {
            memory.check(connection)?;
            query::change(connection, memory, reader, key, change, StoreTime(0))
        });
        let changed = changed.ok().unwrap();
        self.row = changed.row.unwrap();
        changed.reply
    }

    fn refresh(&mut self, number: u8) {
        assert_eq!(self.change(&Change::Claim(claim(number, &self.row))), ChangeReply::Done);
        self.change(&committed(&commit(number, &self.row, number)));
        assert_eq!(self.row.generation.0, u64::from(number));
    }
}

#[test]
fn a_refresh_executes_few_statements_and_prepares_none_of_them_anew() {
    let mut one = OneRow::connected();
    (2..5).for_each(|number| one.refresh(number));
    let kept_before = std::mem::take(&mut *one.log.0.lock().unwrap()).1;
    one.refresh(5);
    let (executed, kept) = &*one.log.0.lock().unwrap();
    assert!(kept.is_empty(), "{kept:#?}");
    let executed: Vec<_> =
        executed.iter().filter(|sql| !["BEGIN IMMEDIATE", "COMMIT"].contains(&sql.as_str())).collect();
    assert!(executed.iter().all(|sql| kept_before.contains(sql)), "{executed:#?} of {kept_before:#?}");
    let starts: Vec<_> =
        executed.iter().map(|sql| sql.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    let claim = ["PRAGMA data_version", "SELECT `grants`.`id`,", "SELECT generation,", "UPDATE grants"];
    let commit = ["PRAGMA data_version", "UPDATE grants", "UPDATE fingerprints", "INSERT OR"];
    assert_eq!(starts, [&claim[..], &commit].concat());
}

#[test]
fn a_row_that_was_put_back_by_many_generations_spends_nothing() {
    let mut one = OneRow::connected();
    (2..5).for_each(|number| one.refresh(number));
    one.connection.batch_execute("CREATE TABLE kept AS SELECT * FROM grants").unwrap();
    let kept = one.row.clone();
    (5..100).for_each(|number| one.refresh(number));
    one.connection.batch_execute("DELETE FROM grants; INSERT INTO grants SELECT * FROM kept").unwrap();
    assert_eq!(one.change(&Change::Claim(claim(100, &kept))), ChangeReply::Refused);
    assert!(one.row.intent.is_some() && one.row.lease.is_none(), "{:?}", one.row);
    // Its next token ends that: the row is the newest one again.
    let (_, connect) = connecting("alice", 120);
    assert_eq!(one.change(&connect), ChangeReply::Done);
    assert_eq!(one.change(&Change::Claim(claim(121, &one.row))), ChangeReply::Done);
}

#[test]
fn a_row_that_an_earlier_version_wrote_stays_readable_when_it_is_claimed() {
    let mut one = OneRow::connected();
    let other = r#"{"failures":2,"at":7,"cause":"idp_down","code":"http_502"}"#;
    one.connection.batch_execute(&format!("UPDATE grants SET last_error = '{other}', code = NULL")).unwrap();
    forget::code_rows(&mut one.connection, &one.reader, 0).ok().unwrap();
    assert_eq!(one.change(&Change::Claim(claim(2, &one.row))), ChangeReply::Done);
    let read = query::find_stored(&mut one.connection, &one.reader, &one.key).ok().unwrap().unwrap();
    assert_eq!((&read.row, read.is_canonical), (&one.row, true));
    assert_eq!(read.row.last_error.unwrap().failures, 2);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_nothing_in_the_memory_of_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        open(&format!("sqlite://{}", folder.path().join("tokens.db").display()), Migrate::Auto, &clock(), codes())
            .unwrap();
    let mut rows = Vec::new();
    for number in 0..10_u8 {
        let (key, change) = connecting(&format!("user-{number}"), number);
        rows.push((store.change(&key, change).await.unwrap().row.unwrap(), number));
    }
    let claims: Vec<_> =
        rows.iter().map(|(row, number)| store.change(&row.key, Change::Claim(claim(*number, row)))).collect();
    // A connect with the grant id of another key fails the transaction that it shares with the claims.
    let (key, change) = connecting("somebody", 50);
    let Change::Connect(mut connect) = change else { panic!("a connect") };
    connect.incarnation = id(5);
    let refused = store.change(&key, Change::Connect(connect));
    for (claimed, (row, number)) in futures_util::future::join_all(claims).await.into_iter().zip(&mut rows) {
        let claimed = claimed.unwrap();
        assert_eq!(claimed.reply, ChangeReply::Done, "{number}");
        *row = claimed.row.unwrap();
    }
    refused.await.unwrap_err();
    for (row, number) in &rows {
        let stored = store.change(&row.key, committed(&commit(*number, row, number + 100))).await.unwrap().row;
        assert_eq!(store.read(&row.key).await.unwrap().row, stored);
        assert_eq!(stored.unwrap().generation.0, 2);
    }
}
