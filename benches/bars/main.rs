//! The cost of one process. Each figure has a yardstick that is measured in turns with it, in one process and one run.
//!
//! `cargo bench --bench bars` prints measurement, yardstick, ratio and bar. `-- --smoke` only shows that the bench
//! runs, `-- hot rows` runs the named parts, `-- --hot 1000000` only reads (for callgrind). Figures of a noisy machine
//! differ by a fifth between runs: compare ratios, not nanoseconds. See BENCHMARKING.md.

mod actors;
mod harness;
mod hot;
#[cfg(feature = "cli")]
mod http;
mod refresh;
mod rows;

use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use token_supervisor::{
    Builder, Idp, Keyring, TokenKey, TokenSupervisor,
    testing::{Profile, SimulatedIdp},
};

/// The size of a measurement.
#[derive(Clone, Copy)]
struct Size {
    /// Live keys.
    keys: usize,
    /// Live keys of a large process.
    live: usize,
    /// Rounds of reads over all keys.
    rounds: usize,
    /// Callers of one expired grant.
    callers: usize,
    /// Distinct grants refreshed in a round.
    refreshes: usize,
    /// Stored grants at start.
    stored: usize,
    /// Requests over HTTP in a round.
    requests: usize,
}

const FULL: Size = Size {
    keys: 100_000,
    live: 1_000_000,
    rounds: 21,
    callers: 10_000,
    refreshes: 1_000,
    stored: 1_000_000,
    requests: 64_000,
};
const SMOKE: Size =
    Size { keys: 500, live: 1_000, rounds: 3, callers: 200, refreshes: 50, stored: 5_000, requests: 640 };

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(at) = arguments.iter().position(|argument| argument == "--hot") {
        let reads = arguments.get(at + 1).and_then(|reads| reads.parse().ok()).expect("--hot is followed by a number");
        return runtime.block_on(hot::reads_alone(reads));
    }
    if let [wake, folder, count] = &arguments[..]
        && wake == "--wake"
    {
        return runtime.block_on(rows::wake_all(folder.as_ref(), count.parse().expect("a number")));
    }
    #[cfg(feature = "cli")]
    if let [bare, body] = &arguments[..]
        && bare == "--bare"
    {
        return http::bare(body.clone());
    }
    let size = if arguments.iter().any(|argument| argument == "--smoke") { SMOKE } else { FULL };
    let parts: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let runs = |part: &str| parts.is_empty() || parts.iter().any(|named| *named == part);
    harness::heading();
    runtime.block_on(async {
        if runs("hot") {
            hot::run(size).await;
        }
        if runs("actors") {
            actors::run(size).await;
        }
        if runs("refresh") {
            refresh::run(size).await;
        }
        if runs("rows") {
            rows::run(size).await;
        }
        #[cfg(feature = "cli")]
        if runs("http") {
            http::run(size).await;
        }
    });
}

/// A simulated provider, a store in a temporary folder, and a supervisor on them.
struct Stage {
    folder: TempDir,
    keyring: Keyring,
    sim: SimulatedIdp,
    supervisor: TokenSupervisor,
}

impl Stage {
    async fn new() -> Self {
        // Each refresh token is spent once, and the tokens outlive the bench.
        let profile = Profile::bitbucket().access_lifetime(Duration::from_secs(3_600 * 24));
        let sim = SimulatedIdp::start(profile).expect("a simulated provider");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keyring = Keyring::generate();
        let supervisor = builder(&folder, &keyring, sim.idp()).start().await.expect("a supervisor");
        Self { folder, keyring, sim, supervisor }
    }

    /// Connects `count` users.
    async fn connect(&self, count: usize) -> Vec<TokenKey> {
        let keys: Vec<_> =
            (0..count).map(|number| TokenKey::at("idp").user(format!("user-{number}@example.com"))).collect();
        for some in keys.chunks(1_000) {
            let connect = |key: &TokenKey| {
                let (supervisor, key, grant) = (self.supervisor.clone(), key.clone(), self.sim.consent(key.user()));
                async move { supervisor.connect(&key, grant).await }
            };
            for connected in join_all(some.iter().map(connect)).await {
                connected.expect("a connected grant");
            }
        }
        keys
    }

    /// Shuts down the supervisor and starts another one on the same store, so that no grant has an actor.
    async fn restart(&mut self) {
        self.supervisor.shutdown(Duration::from_secs(60)).await;
        self.supervisor = builder(&self.folder, &self.keyring, self.sim.idp()).start().await.expect("a supervisor");
    }
}

fn builder(folder: &TempDir, keyring: &Keyring, idp: Idp) -> Builder {
    TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.path().join("tokens.db").display()))
        .keyring(keyring.clone())
        .idp("idp", idp.max_concurrency(refresh::AT_ONCE))
}
