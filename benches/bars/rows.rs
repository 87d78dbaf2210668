//! The cost of stored rows: a cold read, the memory of a live row, the start with many rows.

use std::{fs, path::Path, process::Command, time::Duration};

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
use diesel::{Connection, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_query, sql_types};
use futures_util::stream::{self, StreamExt};
use token_supervisor::{Keyring, TokenKey, TokenSupervisor, presets};

use crate::{
    Size, Stage, builder,
    harness::{figure, median, now, row, short},
};

pub(crate) async fn run(size: Size) {
    let mut stage = Stage::new().await;
    let keys = stage.connect(size.keys).await;
    cold_reads(&mut stage, &keys, size).await;
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
    memory(&stage, size);
    start(&mut stage, size).await;
}

#[derive(diesel::QueryableByName)]
#[expect(dead_code, reason = "read from the row, as the store does")]
struct Bare {
    #[diesel(sql_type = sql_types::Text)]
    grant_id: String,
    #[diesel(sql_type = sql_types::BigInt)]
    generation: i64,
    #[diesel(sql_type = sql_types::Binary)]
    incarnation: Vec<u8>,
    #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
    expires_at: Option<i64>,
    #[diesel(sql_type = sql_types::Nullable<sql_types::Binary>)]
    refresh_token: Option<Vec<u8>>,
    #[diesel(sql_type = sql_types::Binary)]
    document: Vec<u8>,
}

/// Wakes, loads, decrypts and replies; beside the query alone and one decryption of as many bytes.
async fn cold_reads(stage: &mut Stage, keys: &[TokenKey], size: Size) {
    for (at_once, what) in [(1, "a cold read, beside query + open"), (64, "the same, 64 at once")] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        stage.restart().await;
        let mut connection = database(stage.folder.path());
        let cipher = Aes256GcmSiv::new(&[7; 32].into());
        let some: Vec<_> = keys.chunks(keys.len().div_ceil(size.rounds).min(1_000)).take(size.rounds).collect();
        for keys in some {
            let started = now();
            let supervisor = &stage.supervisor;
            let read = |key| async move { drop(supervisor.token(key).await.expect("a token")) };
            stream::iter(keys).map(read).buffer_unordered(at_once).collect::<()>().await;
            ours.push(started.elapsed() / keys.len() as u32);
            let sealed = cipher.encrypt(&[0; 12].into(), &[0_u8; 200][..]).expect("sealed");
            let started = now();
            for key in keys {
                let found: Bare = sql_query("SELECT * FROM grants WHERE idp = ? AND user_id = ? AND account = ''")
                    .bind::<sql_types::Text, _>(key.idp())
                    .bind::<sql_types::Text, _>(key.user())
                    .get_result(&mut connection)
                    .expect("a row");
                assert!(found.generation > 0);
                cipher.decrypt(&[0; 12].into(), &sealed[..]).expect("opened");
            }
            bare.push(started.elapsed() / keys.len() as u32);
        }
        row(what, (median(ours), median(bare)), "<= 1.5");
    }
}

fn database(folder: &Path) -> SqliteConnection {
    SqliteConnection::establish(folder.join("tokens.db").to_str().expect("UTF-8")).expect("a database")
}

/// Measures in a process of its own, whose heap nothing else has used: see [`wake_all`].
fn memory(stage: &Stage, size: Size) {
    stage.keyring.write_new(stage.folder.path().join("keys")).expect("a key file");
    let this = std::env::current_exe().expect("a path");
    let child = Command::new(this).arg("--wake").arg(stage.folder.path()).arg(size.keys.to_string()).output();
    let child = child.expect("a child process");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let bytes = String::from_utf8_lossy(&child.stdout).trim().to_owned();
    figure("memory of a live pair, its tokens included", &format!("{bytes} B"), "<= 1536 B + tokens");
}

/// Wakes every grant in a child process, and prints the bytes for each grant.
pub(crate) async fn wake_all(folder: &Path, count: usize) {
    let keyring = Keyring::from_file(folder.join("keys")).expect("a key ring");
    let idp = presets::oauth2("https://localhost/token", "client", "ts-test-secret-client");
    let url = format!("sqlite://{}", folder.join("tokens.db").display());
    let supervisor = TokenSupervisor::builder().store(url).keyring(keyring).idp("idp", idp).start().await;
    let supervisor = supervisor.expect("a supervisor");
    let wake = |number| {
        let key = TokenKey::at("idp").user(format!("user-{number}@example.com"));
        let supervisor = &supervisor;
        async move { drop(supervisor.token(&key).await.expect("a token")) }
    };
    // The first grants also allocate what a process needs once.
    stream::iter(0..count / 10).map(wake).buffer_unordered(64).collect::<()>().await;
    let before = resident();
    stream::iter(count / 10..count).map(wake).buffer_unordered(64).collect::<()>().await;
    println!("{}", (resident() - before) / (count - count / 10));
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// Returns the resident memory of the process in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").expect("procfs of Linux");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4_096
}

/// Measures the start until the first token, with many stored grants.
async fn start(stage: &mut Stage, size: Size) {
    let mut connection = database(stage.folder.path());
    let columns = "incarnation, generation, client_id, refresh_token, parent, committed_by, alt, epoch, \
        lease, lease_until, intent, verdict, held, issued_at, expires_at, refresh_expires_at, due_at, retry_at, \
        last_error, document, tombstone, changed_at, wake_at";
    let multiply = format!(
        "WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         INSERT INTO grants (id, idp, user_id, account, grant_id, revision, fingerprint, {columns}) \
         SELECT 1000000000 + i, idp, 'stored-' || i, '', 'g_' || i, 1, randomblob(32), {columns} \
         FROM n, grants WHERE grants.id = (SELECT min(id) FROM grants);",
        size.keys + 1,
        size.stored,
    );
    connection.batch_execute(&multiply).expect("many rows");
    drop(connection);
    let mut took = Vec::new();
    for _ in 0..5 {
        let started = now();
        let supervisor = builder(&stage.folder, &stage.keyring, stage.sim.idp()).start().await.expect("a supervisor");
        supervisor.token(&TokenKey::at("idp").user("user-0@example.com")).await.expect("a token");
        took.push(started.elapsed());
        supervisor.shutdown(Duration::from_secs(60)).await;
    }
    figure(&format!("start with {} stored grants, first token", size.stored), &short(median(took)), "< 1 s");
}
