//! Refreshes of distinct grants, beside the fair floor: the bare request, and two committed transactions that do what any
//! client has to do that keeps its tokens.

use std::{
    fs,
    path::Path,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
use diesel::{
    Connection, QueryResult, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Text},
    sqlite::Sqlite,
};
use futures_util::stream::{self, StreamExt};
use token_supervisor::testing::SimulatedIdp;
use tokio::sync::oneshot;

use crate::{
    Size, Stage,
    harness::{figure, median, now, pause, row, shuffled},
};

/// The number of concurrent refreshes.
pub(crate) const AT_ONCE: usize = 64;

pub(crate) async fn run(size: Size) {
    let stage = Stage::new().await;
    let rounds = size.rounds.min(7);
    let keys = stage.connect(size.keys).await;
    let floor = Floor::new(&stage, size.keys);
    let order = shuffled(size.keys);
    let ours_of = |at: usize| {
        let (supervisor, key) = (stage.supervisor.clone(), keys[at].clone());
        async move { assert!(supervisor.refresh_now(&key).await.expect("refreshed").refreshed) }
    };
    let floor_of = |at: usize| floor.refresh(at);
    let measured_rounds = order.chunks(size.refreshes).take(rounds);
    // Almost every refresh follows another one, and not a connect.
    for these in measured_rounds.clone() {
        measured(these, ours_of).await;
        measured(these, floor_of).await;
    }
    pause(LAST_REFRESH_COUNTS).await;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for these in measured_rounds {
        ours.push(measured(these, ours_of).await);
        bare.push(measured(these, floor_of).await);
    }
    let both = |cost: fn(&Cost) -> Duration| {
        (median(ours.iter().map(cost).collect()), median(bare.iter().map(cost).collect()))
    };
    row("a refresh, 64 at once, beside the fair floor", both(|cost| cost.time), "<= 1.25");
    row("processor time of 1 000 refreshes", both(|cost| cost.processor * 1_000), "<= 150 ms");
    let written = |costs: &[Cost]| {
        let mut written: Vec<_> = costs.iter().map(|cost| cost.written).collect();
        written.sort_unstable();
        format!("{} B", written[written.len() / 2])
    };
    figure("written to disk by a refresh", &written(&ours), "<= 16384 B");
    figure("written to disk by the floor", &written(&bare), "-");
    stage.supervisor.shutdown(Duration::from_secs(10)).await;
}

/// Within this time of a refresh, the next one of the same grant does nothing.
pub(crate) const LAST_REFRESH_COUNTS: Duration = Duration::from_secs(11);

/// What one refresh costs.
struct Cost {
    time: Duration,
    /// The processor time of this process, without the threads of the simulated provider.
    processor: Duration,
    /// Bytes, as the operating system counts them.
    written: u64,
}

async fn measured<F: Future<Output = ()>>(these: &[usize], refresh: impl Fn(usize) -> F) -> Cost {
    let (started, processor, written) = (now(), processor_time(), bytes_written());
    stream::iter(these).map(|at| refresh(*at)).buffer_unordered(AT_ONCE).collect::<()>().await;
    let count = these.len() as u32;
    Cost {
        time: started.elapsed() / count,
        processor: processor_time().saturating_sub(processor) / count,
        written: (bytes_written() - written) / u64::from(count),
    }
}

/// Returns the processor time of all threads but the simulated provider's.
fn processor_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs of Linux");
    let of = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let spent = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let nanos = spent.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        if name.starts_with(SIMULATOR) { 0 } else { nanos }
    };
    Duration::from_nanos(tasks.filter_map(Result::ok).map(of).sum())
}

/// The beginning of the name of the simulated provider's thread, as the kernel cuts it.
const SIMULATOR: &str = "simulated-idp";

fn bytes_written() -> u64 {
    let counters = fs::read_to_string("/proc/self/io").expect("procfs of Linux");
    let counter = counters.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    counter.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

/// The least that a client must do to keep its tokens: read and claim the row, open the refresh token, send the request, seal
/// the response, commit it and remember the spent token.
struct Floor {
    client: reqwest::Client,
    sim: SimulatedIdp,
    cipher: Aes256GcmSiv,
    writer: Sender<Job>,
}

type Work = Box<dyn FnMut(&mut SqliteConnection) -> QueryResult<Option<ClaimedRow>> + Send>;
type Job = (Work, oneshot::Sender<Option<ClaimedRow>>);

/// Id, generation, sealed refresh token, document.
type ClaimedRow = (i64, i64, Vec<u8>, Vec<u8>);

impl Floor {
    fn new(stage: &Stage, grants: usize) -> Self {
        let cipher = Aes256GcmSiv::new(&[7; 32].into());
        let rows = (0..grants).map(|at| {
            drop(stage.sim.consent(&user(at)));
            let token = stage.sim.newest(&user(at)).expect("a refresh token");
            seal(&cipher, token.expose_secret())
        });
        let writer = writer(&stage.folder.path().join("floor.db"), rows);
        Self { client: reqwest::Client::new(), sim: stage.sim.clone(), cipher, writer }
    }

    async fn refresh(&self, at: usize) {
        let user = user(at);
        let claim = move |connection: &mut SqliteConnection| {
            let row: ClaimedRow = FindRow { user: user.clone() }.get_result(connection)?;
            ClaimRow { claim: "an attempt".into(), wake_at: wake_at(at, false), id: row.0 }.execute(connection)?;
            Ok(Some(row))
        };
        let (id, generation, sealed, _) = self.transaction(Box::new(claim)).await.expect("a row");
        let token = self.cipher.decrypt(&[0; 12].into(), &sealed[..]).expect("opened");
        let token = String::from_utf8(token).expect("a token");
        let form = [("grant_type", "refresh_token"), ("refresh_token", &token)];
        let request =
            self.client.post(self.sim.token_url()).basic_auth("simulated-client", Some("ts-test-secret-client"));
        let response = request.form(&form).send().await.expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
        let response: serde_json::Value =
            serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
        let new = response["refresh_token"].as_str().expect("a refresh token");
        let access = response["access_token"].as_str().expect("an access token");
        let (refresh_token, document) = (seal(&self.cipher, new), seal(&self.cipher, access));
        let spent = sealed[sealed.len() - 16..].to_vec();
        let commit = move |connection: &mut SqliteConnection| {
            let (refresh_token, document) = (refresh_token.clone(), document.clone());
            let generation = generation + 1;
            CommitRow { generation, refresh_token, document, wake_at: wake_at(at, true), id }.execute(connection)?;
            SpendToken { spent: spent.clone(), id }.execute(connection)?;
            Ok(None)
        };
        self.transaction(Box::new(commit)).await;
    }

    async fn transaction(&self, work: Work) -> Option<ClaimedRow> {
        let (done, committed) = oneshot::channel();
        self.writer.send((work, done)).expect("the writer runs");
        committed.await.expect("committed")
    }
}

fn user(at: usize) -> String {
    format!("floor-{at}@example.com")
}

fn seal(cipher: &Aes256GcmSiv, token: &str) -> Vec<u8> {
    cipher.encrypt(&[0; 12].into(), token.as_bytes()).expect("sealed")
}

/// Returns a time as the rows of the supervisor have it: claimed rows at the time of the claim, others within a minute.
fn wake_at(at: usize, due: bool) -> i64 {
    let jitter = (at as i64).wrapping_mul(7_919) % 60_000;
    1_700_000_000_000 + if due { 86_400_000 - jitter } else { at as i64 % 1_000 }
}

/// A statement with this text and these values, prepared once.
macro_rules! statements {
    ($($name:ident ( $($field:ident: $type:ty as $sql:ty),* ) = $text:literal;)*) => { $(
        struct $name { $($field: $type),* }

        impl QueryFragment<Sqlite> for $name {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
                let mut text = $text.split('?');
                out.push_sql(text.next().unwrap_or_default());
                $(
                    out.push_bind_param::<$sql, _>(&self.$field)?;
                    out.push_sql(text.next().unwrap_or_default());
                )*
                Ok(())
            }
        }

        impl QueryId for $name {
            type QueryId = Self;

            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl RunQueryDsl<SqliteConnection> for $name {}
    )* };
}

statements! {
    FindRow(user: String as Text) = "SELECT id, generation, refresh_token, document FROM grants WHERE user = ?";
    ClaimRow(claim: String as Text, wake_at: i64 as BigInt, id: i64 as BigInt) =
        "UPDATE grants SET claim = ?, wake_at = ? WHERE id = ?";
    CommitRow(
        generation: i64 as BigInt, refresh_token: Vec<u8> as Binary, document: Vec<u8> as Binary,
        wake_at: i64 as BigInt, id: i64 as BigInt
    ) = "UPDATE grants SET claim = NULL, generation = ?, refresh_token = ?, document = ?, wake_at = ? WHERE id = ?";
    SpendToken(spent: Vec<u8> as Binary, id: i64 as BigInt) = "INSERT INTO spent VALUES (?, ?)";
    AddRow(user: String as Text, refresh_token: Vec<u8> as Binary, wake_at: i64 as BigInt) =
        "INSERT INTO grants (user, generation, refresh_token, document, wake_at) VALUES (?, 1, ?, zeroblob(200), ?)";
}

impl Query for FindRow {
    type SqlType = (BigInt, BigInt, Binary, Binary);
}

/// Carries out all queued jobs in one transaction on one connection and then replies: group commit, as durable as the
/// supervisor's.
fn writer(path: &Path, rows: impl Iterator<Item = Vec<u8>>) -> Sender<Job> {
    let (jobs, queue) = channel::<Job>();
    let mut connection = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("a database");
    connection
        .batch_execute(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE grants (
                 id INTEGER PRIMARY KEY, user TEXT NOT NULL UNIQUE, claim TEXT, generation INTEGER NOT NULL,
                 refresh_token BLOB NOT NULL, document BLOB NOT NULL, wake_at INTEGER NOT NULL
             );
             CREATE INDEX due ON grants (wake_at, id);
             CREATE TABLE spent (token BLOB PRIMARY KEY, grant_row INTEGER NOT NULL) WITHOUT ROWID;",
        )
        .expect("tables");
    let filled = connection.transaction(|connection| {
        for (at, refresh_token) in rows.enumerate() {
            AddRow { user: user(at), refresh_token, wake_at: wake_at(at, true) }.execute(connection)?;
        }
        QueryResult::Ok(())
    });
    filled.expect("rows");
    std::thread::spawn(move || {
        while let Ok(first) = queue.recv() {
            let mut batch: Vec<_> = std::iter::once(first).chain(queue.try_iter()).collect();
            let together = connection.immediate_transaction(|connection| {
                batch.iter_mut().map(|(work, _)| work(connection)).collect::<QueryResult<Vec<_>>>()
            });
            let results = together.expect("committed");
            batch.into_iter().zip(results).for_each(|((_, done), result)| drop(done.send(result)));
        }
    });
    jobs
}
