//! Several supervisors on one PostgreSQL server, as replicas are: how soon they hear of each other, and what refreshes and reads
//! cost beside the bare statements.
//!
//! The server is a private one whose commits reach the disk. Where PostgreSQL is not installed, the part is left out.

#[path = "../../tests/it/postgres/server.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "a bench stops no server; the helpers of tests fail like tests")]
mod server;
#[path = "../../tests/it/skip.rs"]
mod skip;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
use futures_util::stream::{self, StreamExt};
use tempfile::TempDir;
use token_supervisor::{
    Keyring, Migrate, TokenKey, TokenSupervisor,
    testing::{Profile, SimulatedIdp},
};
use tokio_postgres::{Client, NoTls, Statement};

use self::server::Server;
use crate::{
    Size,
    harness::{at_most, figure, median, now, pause, quantile, row, shuffled, time_without_provider, wall, within},
    key,
    refresh::{AT_ONCE, LAST_REFRESH_COUNTS},
    schedule::first_refreshes,
};

/// The replicas of a deployment.
const REPLICAS: usize = 3;

/// The connections that the supervisor has for such statements.
const CONNECTIONS: usize = 16;

pub(crate) async fn run(size: Size) {
    let durable =
        |_: &std::path::Path| ["fsync=on", "full_page_writes=on", "autovacuum=on"].map(str::to_owned).to_vec();
    let Some(server) = Server::start_on_loopback(durable) else {
        return figure("replicas", "no PostgreSQL", "-");
    };
    let fleet = Fleet::new(&server);
    let mut replicas = fleet.start(REPLICAS).await;
    let keys = fleet.connect(&replicas, size.replicated).await;
    fleet.propagation(&replicas, &keys, size).await;
    refreshes(&fleet, &replicas, &keys, size).await;
    for replica in replicas.drain(1..) {
        replica.shutdown(Duration::from_secs(60)).await;
    }
    pause(LAST_REFRESH_COUNTS).await;
    refreshes(&fleet, &replicas, &keys, size).await;
    for replica in replicas {
        replica.shutdown(Duration::from_secs(60)).await;
    }
    cold_reads(&fleet, &keys, size).await;
    come_due(&server, size).await;
}

/// What replicas share, and the bare statements beside them.
struct Fleet {
    sim: SimulatedIdp,
    keyring: Keyring,
    url: String,
    folder: TempDir,
}

impl Fleet {
    fn new(server: &Server) -> Self {
        let url = format!("{}&sslmode=disable", server.url_at("127.0.0.1"));
        let profile = Profile::bitbucket().access_lifetime(Duration::from_secs(3_600 * 24));
        let sim = SimulatedIdp::start(profile).expect("a simulated provider");
        Self { sim, keyring: Keyring::generate(), url, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    async fn start(&self, count: usize) -> Vec<TokenSupervisor> {
        let start = async |number: usize| {
            let builder = TokenSupervisor::builder()
                .store(&self.url)
                .migrate(Migrate::Auto)
                .journal(self.folder.path().join(format!("journal {number}")))
                .keyring(self.keyring.clone())
                .idp("idp", self.sim.idp().max_concurrency(AT_ONCE * count));
            builder.start().await.expect("a supervisor")
        };
        let mut replicas = Vec::new();
        for number in 0..count {
            replicas.push(start(number).await);
        }
        while replicas[0].replicas().await.map_or(0, |all| all.len()) < count {
            pause(Duration::from_millis(50)).await;
        }
        replicas
    }

    async fn connect(&self, replicas: &[TokenSupervisor], count: usize) -> Vec<TokenKey> {
        let connect = |number: usize| {
            let (key, replica) = (key(number), &replicas[number % replicas.len()]);
            let grant = self.sim.consent(key.user());
            async move { drop(replica.connect(&key, grant).await.expect("a connected grant")) }
        };
        stream::iter(0..count).map(connect).buffer_unordered(AT_ONCE).collect::<()>().await;
        (0..count).map(key).collect()
    }

    /// Measures the time from the answer of the process that refreshed to the publication in the others.
    async fn propagation(&self, replicas: &[TokenSupervisor], keys: &[TokenKey], size: Size) {
        let mut took = Vec::new();
        for (number, key) in keys.iter().take(size.refreshes.min(keys.len())).enumerate() {
            let origin = &replicas[number % replicas.len()];
            let others = replicas.iter().enumerate().filter(|(at, _)| *at != number % replicas.len());
            let mut watches = Vec::new();
            for (_, other) in others {
                watches.push(other.watch(key).await.expect("a watch"));
            }
            let refreshed = origin.refresh_now(key).await.expect("refreshed").status.generation;
            let started = now();
            for watch in &mut watches {
                while watch.token().is_none_or(|token| token.generation() < refreshed) {
                    watch.changed().await;
                }
                took.push(started.elapsed());
            }
        }
        let limit = Duration::from_millis(50);
        figure("a new token reaches the other replicas: median", &crate::harness::short(median(took.clone())), "-");
        within("  99th percentile", quantile(took, 0.99), limit);
    }
}

/// Measures refreshes, spread over all replicas, beside the bare requests and statements.
async fn refreshes(fleet: &Fleet, replicas: &[TokenSupervisor], keys: &[TokenKey], size: Size) {
    let floor = Floor::new(fleet, keys.len()).await;
    let order = shuffled(keys.len());
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for these in order.chunks(size.refreshes.min(keys.len() / 5)).take(5) {
        let started = now();
        let refresh = |at: &usize| {
            let (replica, key) = (&replicas[at % replicas.len()], &keys[*at]);
            async move { drop(replica.refresh_now(key).await.expect("refreshed")) }
        };
        stream::iter(these).map(refresh).buffer_unordered(AT_ONCE).collect::<()>().await;
        ours.push(started.elapsed() / these.len() as u32);
        let started = now();
        stream::iter(these).map(|at| floor.refresh(*at)).buffer_unordered(AT_ONCE).collect::<()>().await;
        bare.push(started.elapsed() / these.len() as u32);
    }
    let what = format!("a refresh, 64 at once, replicas: {}", replicas.len());
    row(&what, (median(ours), median(bare)), "<= 1.25");
}

async fn cold_reads(fleet: &Fleet, keys: &[TokenKey], size: Size) {
    for at_once in [1, AT_ONCE] {
        let replicas = fleet.start(1).await;
        let bare = clients(fleet).await;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for some in keys.chunks((keys.len() / size.rounds).max(1)).take(size.rounds) {
            let started = now();
            let read = |key| {
                let replica = &replicas[0];
                async move { drop(replica.token(key).await.expect("a token")) }
            };
            stream::iter(some).map(read).buffer_unordered(at_once).collect::<()>().await;
            ours.push(started.elapsed() / some.len() as u32);
            let started = now();
            let read = |(at, key): (usize, &TokenKey)| {
                let (client, statement) = &bare[at % bare.len()];
                let user = key.user().to_owned();
                async move {
                    let cipher = Aes256GcmSiv::new(&[7; 32].into());
                    let row = client.query_one(statement, &[&user]).await.expect("a row");
                    let sealed: Vec<u8> = row.get(1);
                    // Not its own key: that takes as long.
                    drop(cipher.decrypt(&[0; 12].into(), &sealed[..]));
                }
            };
            stream::iter(some.iter().enumerate()).map(read).buffer_unordered(at_once).collect::<()>().await;
            theirs.push(started.elapsed() / some.len() as u32);
        }
        let what = match at_once {
            1 => "a cold read, beside query + open".to_owned(),
            _ => format!("the same, {at_once} at once"),
        };
        row(&what, (median(ours), median(theirs)), "<= 1.5");
        for replica in replicas {
            replica.shutdown(Duration::from_secs(60)).await;
        }
    }
}

/// Connections with the statement of a bare read, prepared.
async fn clients(fleet: &Fleet) -> Vec<(Client, Statement)> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = connected(&fleet.url).await;
        let statement = "SELECT generation, document, incarnation, issued_at, expires_at, due_at, refresh_token, \
                         store_now() FROM grants WHERE idp = 'idp' AND user_id = $1 AND account = ''";
        let statement = client.prepare(statement).await.expect("prepared");
        clients.push((client, statement));
    }
    clients
}

async fn connected(url: &str) -> Client {
    let (base, schema) = url.split_once("?schema=").expect("a schema");
    let schema = schema.split('&').next().unwrap_or_default();
    let (client, connection) = tokio_postgres::connect(base, NoTls).await.expect("connected");
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {schema}")).await.expect("a schema");
    client
}

/// The least that a client must do to keep its tokens: claim the row and read it, open the refresh token, send the request,
/// seal the response, commit it and remember the spent token. Each statement commits.
struct Floor {
    http: reqwest::Client,
    sim: SimulatedIdp,
    cipher: Aes256GcmSiv,
    clients: Vec<FloorClient>,
}

struct FloorClient {
    client: Client,
    claim: Statement,
    commit: Statement,
}

impl Floor {
    async fn new(fleet: &Fleet, grants: usize) -> Self {
        let cipher = Aes256GcmSiv::new(&[7; 32].into());
        let first = connected(&fleet.url).await;
        let tables = "DROP TABLE IF EXISTS floor, floor_spent;
            CREATE TABLE floor (
                id BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name TEXT NOT NULL UNIQUE, claim TEXT,
                generation BIGINT NOT NULL, refresh_token BYTEA NOT NULL, document BYTEA NOT NULL, wake_at BIGINT NOT NULL
            ) WITH (fillfactor = 80);
            CREATE INDEX floor_due ON floor (wake_at, id);
            CREATE TABLE floor_spent (token BYTEA PRIMARY KEY, row BIGINT NOT NULL)";
        first.batch_execute(tables).await.expect("tables");
        for at in 0..grants {
            drop(fleet.sim.consent(&user(at)));
            let token = fleet.sim.newest(&user(at)).expect("a refresh token");
            let sealed = cipher.encrypt(&[0; 12].into(), token.expose_secret().as_bytes()).expect("sealed");
            let row =
                "INSERT INTO floor (name, generation, refresh_token, document, wake_at) VALUES ($1, 1, $2, $3, $4)";
            first.execute(row, &[&user(at), &sealed, &vec![0_u8; 200], &wake_at(at)]).await.expect("a row");
        }
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = connected(&fleet.url).await;
            let claim = "UPDATE floor SET claim = $2, wake_at = wake_at - 1000 WHERE name = $1 \
                         RETURNING id, generation, refresh_token, document";
            let claim = client.prepare(claim).await.expect("prepared");
            let commit = "WITH written AS (UPDATE floor SET claim = NULL, generation = $2, refresh_token = $3, document = $4, \
                          wake_at = $5 WHERE id = $1 RETURNING id) \
                          INSERT INTO floor_spent SELECT $6, id FROM written";
            let commit = client.prepare(commit).await.expect("prepared");
            clients.push(FloorClient { client, claim, commit });
        }
        Self { http: reqwest::Client::new(), sim: fleet.sim.clone(), cipher, clients }
    }

    async fn refresh(&self, at: usize) {
        let FloorClient { client, claim, commit } = &self.clients[at % CONNECTIONS];
        let row = client.query_one(claim, &[&user(at), &"an attempt"]).await.expect("a row");
        let (id, generation, sealed): (i64, i64, Vec<u8>) = (row.get(0), row.get(1), row.get(2));
        let token = self.cipher.decrypt(&[0; 12].into(), &sealed[..]).expect("opened");
        let token = String::from_utf8(token).expect("a token");
        let form = [("grant_type", "refresh_token"), ("refresh_token", &token)];
        let request =
            self.http.post(self.sim.token_url()).basic_auth("simulated-client", Some("ts-test-secret-client"));
        let response = request.form(&form).send().await.expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
        let response: serde_json::Value =
            serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
        let seal = |name: &str| {
            let token = response[name].as_str().expect("a token");
            self.cipher.encrypt(&[0; 12].into(), token.as_bytes()).expect("sealed")
        };
        let (refresh_token, document) = (seal("refresh_token"), seal("access_token"));
        let spent = sealed[sealed.len() - 16..].to_vec();
        let next = generation + 1;
        let written = client.execute(commit, &[&id, &next, &refresh_token, &document, &wake_at(at), &spent]).await;
        written.expect("committed");
    }
}

fn user(at: usize) -> String {
    format!("floor-{at}@example.com")
}

/// Times within a minute of each other.
fn wake_at(at: usize) -> i64 {
    1_786_400_000_000 - (at as i64).wrapping_mul(7_919) % 60_000
}

/// Measures how late the refreshes of cold grants are that come due evenly, while replicas share them.
async fn come_due(server: &Server, size: Size) {
    let fleet = Fleet::new(server);
    let replicas = fleet.start(REPLICAS).await;
    // The others belong to no page of due rows, and must not matter.
    let (due, load) = (size.refreshes * 2, 2 * size.load);
    let started = now();
    let connect = |number: usize| {
        let (key, replica) = (key(number), &replicas[number % REPLICAS]);
        let grant = fleet.sim.consent(key.user());
        let grant = match number.checked_sub(size.replicated_stored - due) {
            None => grant,
            // The margin is a quarter of the lifetime.
            Some(nth) => grant.expires_in((size.load + load.mul_f64(nth as f64 / due as f64)).mul_f64(4.0 / 3.0)),
        };
        async move { drop(replica.connect(&key, grant).await.expect("a connected grant")) }
    };
    stream::iter(0..size.replicated_stored).map(connect).buffer_unordered(AT_ONCE * 4).collect::<()>().await;
    figure(
        &format!("{} grants connected", size.replicated_stored),
        &format!("{:.0}/s", size.replicated_stored as f64 / started.elapsed().as_secs_f64()),
        "-",
    );
    let schedule =
        "SELECT user_id, due_at FROM grants WHERE due_at < floor(extract(epoch FROM now()) * 1000)::BIGINT + $1";
    let rows = connected(&fleet.url).await.query(schedule, &[&load.as_millis().try_into().unwrap_or(i64::MAX)]).await;
    let due_at = |millis: i64| UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs());
    let schedule: Vec<(String, SystemTime)> =
        rows.expect("a schedule").iter().map(|row| (row.get(0), due_at(row.get(1)))).collect();
    let (used, started) = (time_without_provider(), now());
    pause(load + size.load).await;
    let used = (time_without_provider() - used).as_secs_f64() / started.elapsed().as_secs_f64();
    let (refreshed, until) = (first_refreshes(&fleet.sim), wall());
    let late = |(user, due): &(String, SystemTime)| {
        refreshed.get(user).map_or(until, |refreshed| refreshed.from).duration_since(*due).unwrap_or_default()
    };
    let worst = schedule.iter().map(late).max().unwrap_or_default();
    within(&format!("{} came due, {REPLICAS} replicas: due lag", schedule.len()), worst, Duration::from_secs(1));
    at_most("  cores, all replicas, without provider and database", used, 0.1 * REPLICAS as f64, "");
    assert_eq!(fleet.sim.duplicate_spends(), 0, "each refresh token is spent once");
    for replica in replicas {
        replica.shutdown(Duration::from_secs(60)).await;
    }
}
