//! Refreshes of distinct grants, beside the floor: the bare request and two committed statements for each.

use std::{
    fmt::Write as _,
    path::Path,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use futures_util::stream::{self, StreamExt};
use token_supervisor::{TokenKey, testing::SimulatedIdp};
use tokio::sync::oneshot;

use crate::{
    Size, Stage,
    harness::{median, now, row},
};

/// The number of concurrent refreshes.
pub(crate) const AT_ONCE: usize = 64;

pub(crate) async fn run(size: Size) {
    let stage = Stage::new().await;
    let rounds = size.rounds.min(7);
    let keys = stage.connect(size.refreshes * rounds).await;
    let floor = Floor::new(&stage, size.refreshes * rounds);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let these = round * size.refreshes..(round + 1) * size.refreshes;
        let started = now();
        let refresh = |key: &TokenKey| {
            let (supervisor, key) = (stage.supervisor.clone(), key.clone());
            async move { assert!(supervisor.refresh_now(&key).await.expect("refreshed").refreshed) }
        };
        stream::iter(&keys[these.clone()]).map(refresh).buffer_unordered(AT_ONCE).collect::<()>().await;
        ours.push(started.elapsed() / size.refreshes as u32);
        let started = now();
        stream::iter(these).map(|at| floor.refresh(at)).buffer_unordered(AT_ONCE).collect::<()>().await;
        bare.push(started.elapsed() / size.refreshes as u32);
    }
    row("a refresh, 64 at once, beside request + 2 commits", (median(ours), median(bare)), "<= 1.25");
    stage.supervisor.shutdown(Duration::from_secs(10)).await;
}

/// The least that a client must do to keep its tokens: claim, request, commit.
struct Floor {
    client: reqwest::Client,
    sim: SimulatedIdp,
    writer: Sender<(String, oneshot::Sender<()>)>,
}

impl Floor {
    fn new(stage: &Stage, grants: usize) -> Self {
        (0..grants).for_each(|at| drop(stage.sim.consent(&user(at))));
        let writer = writer(&stage.folder.path().join("floor.db"), grants);
        Self { client: reqwest::Client::new(), sim: stage.sim.clone(), writer }
    }

    async fn refresh(&self, at: usize) {
        self.commit(format!("UPDATE grants SET claimed = 1 WHERE id = {at}")).await;
        let token = self.sim.newest(&user(at)).expect("a refresh token");
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.expose_secret())];
        let request =
            self.client.post(self.sim.token_url()).basic_auth("simulated-client", Some("ts-test-secret-client"));
        let response = request.form(&form).send().await.expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
        let response: serde_json::Value =
            serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
        let new = response["refresh_token"].as_str().expect("a refresh token");
        let access = response["access_token"].as_str().expect("an access token");
        self.commit(format!("UPDATE grants SET claimed = 0, token = '{new}{access}' WHERE id = {at}")).await;
    }

    async fn commit(&self, statement: String) {
        let (done, committed) = oneshot::channel();
        self.writer.send((statement, done)).expect("the writer runs");
        committed.await.expect("committed");
    }
}

fn user(at: usize) -> String {
    format!("floor-{at}")
}

/// Commits all queued statements on one connection and then replies: group commit, as durable as the supervisor's.
fn writer(path: &Path, grants: usize) -> Sender<(String, oneshot::Sender<()>)> {
    let (statements, queue) = channel::<(String, oneshot::Sender<()>)>();
    let mut connection = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("a database");
    let mut schema = String::from(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE grants (id INTEGER PRIMARY KEY, claimed INTEGER, token TEXT); BEGIN;",
    );
    for at in 0..grants {
        write!(schema, "INSERT INTO grants VALUES ({at}, 0, '');").expect("text");
    }
    connection.batch_execute(&format!("{schema} COMMIT;")).expect("tables");
    std::thread::spawn(move || {
        while let Ok(first) = queue.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(queue.try_iter()).collect();
            let statements: Vec<_> = batch.iter().map(|(statement, _)| statement.as_str()).collect();
            let together = format!("BEGIN IMMEDIATE; {}; COMMIT;", statements.join("; "));
            connection.batch_execute(&together).expect("committed");
            batch.into_iter().for_each(|(_, done)| done.send(()).unwrap_or(()));
        }
    });
    statements
}
