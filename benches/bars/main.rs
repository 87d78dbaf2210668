//! The cost of one process. Each figure has a yardstick that is measured in turns with it, in one process and one run.
//!
//! `cargo bench --bench bars` prints measurement, yardstick, ratio, bar and verdict. `-- --smoke` only shows that the
//! bench runs, `-- hot rows` runs the named parts, `-- --instructions` counts instructions, `-- --hot 1000000` and
//! `-- --refreshes 100` only read and refresh (for callgrind). Figures of a noisy machine differ by a fifth between runs:
//! compare ratios, not nanoseconds. See BENCHMARKING.md.

mod actors;
mod harness;
mod hot;
#[cfg(feature = "cli")]
mod http;
mod instructions;
mod million;
mod refresh;
#[cfg(feature = "postgres")]
mod replicas;
mod rows;
mod schedule;
mod storm;

use std::{ops::Range, process::ExitCode, time::Duration};

use futures_util::stream::{self, StreamExt};
use tempfile::TempDir;
use token_supervisor::{
    Builder, Grant, Idp, Keyring, TokenKey, TokenSupervisor,
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
    /// Stored grants, of which few or none are live.
    stored: usize,
    /// Requests over HTTP in a round.
    requests: usize,
    /// Cold grants whose tokens live for `brief`.
    cold: usize,
    brief: Duration,
    /// How long a load is measured.
    load: Duration,
    /// Grants in PostgreSQL that are refreshed and read.
    replicated: usize,
    /// Stored grants in PostgreSQL, of which some come due.
    replicated_stored: usize,
}

const FULL: Size = Size {
    keys: 100_000,
    live: 1_000_000,
    rounds: 21,
    callers: 10_000,
    refreshes: 1_000,
    stored: 1_000_000,
    requests: 64_000,
    cold: 20_000,
    brief: Duration::from_secs(60),
    load: Duration::from_secs(10),
    replicated: 20_000,
    replicated_stored: 1_000_000,
};
const SMOKE: Size = Size {
    keys: 500,
    live: 1_000,
    rounds: 3,
    callers: 200,
    refreshes: 50,
    stored: 5_000,
    requests: 640,
    cold: 200,
    brief: Duration::from_secs(4),
    load: Duration::from_secs(1),
    replicated: 100,
    replicated_stored: 500,
};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let count_of = |part: &str| {
        let at = arguments.iter().position(|argument| argument == part)?;
        Some(arguments.get(at + 1).and_then(|count| count.parse().ok()).expect("a number follows"))
    };
    if let Some(reads) = count_of("--hot") {
        runtime.block_on(hot::reads_alone(reads));
        return ExitCode::SUCCESS;
    }
    if let Some(refreshes) = count_of("--refreshes") {
        runtime.block_on(instructions::refreshes_alone(refreshes));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--instructions") {
        return runtime.block_on(instructions::run(arguments.iter().any(|argument| argument == "--update")));
    }
    if let [live, folder, count, token_url] = &arguments[..]
        && live == "--live"
    {
        runtime.block_on(million::live(folder.as_ref(), count.parse().expect("a number"), token_url));
        return ExitCode::SUCCESS;
    }
    #[cfg(feature = "cli")]
    if let [bare, body] = &arguments[..]
        && bare == "--bare"
    {
        http::bare(body.clone());
        return ExitCode::SUCCESS;
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
        if runs("storm") {
            storm::run(size).await;
        }
        if runs("schedule") {
            schedule::run(size).await;
        }
        if runs("million") {
            million::run(size).await;
        }
        #[cfg(feature = "postgres")]
        if runs("replicas") {
            replicas::run(size).await;
        }
        #[cfg(feature = "cli")]
        if runs("http") {
            http::run(size).await;
        }
    });
    ExitCode::SUCCESS
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
        // The tokens outlive the bench.
        Self::with_lifetime(Duration::from_secs(3_600 * 24)).await
    }

    /// A stage with a provider whose access tokens live for this time, and where each refresh token is spent once.
    async fn with_lifetime(lifetime: Duration) -> Self {
        let sim = SimulatedIdp::start(Profile::bitbucket().access_lifetime(lifetime)).expect("a simulated provider");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keyring = Keyring::generate();
        let supervisor = builder(&folder, &keyring, sim.idp()).start().await.expect("a supervisor");
        Self { folder, keyring, sim, supervisor }
    }

    /// Connects `count` users.
    async fn connect(&self, count: usize) -> Vec<TokenKey> {
        self.connect_as(0..count, |_, grant| grant).await;
        (0..count).map(key).collect()
    }

    /// Connects users with a changed grant.
    async fn connect_as(&self, users: Range<usize>, change: impl Fn(usize, Grant) -> Grant) {
        let connect = |number| {
            let key = key(number);
            let grant = change(number, self.sim.consent(key.user()));
            async move { drop(self.supervisor.connect(&key, grant).await.expect("a connected grant")) }
        };
        stream::iter(users).map(connect).buffer_unordered(1_000).collect::<()>().await;
    }

    /// Shuts down the supervisor and starts another one on the same store, so that no grant has an actor.
    async fn restart(&mut self) {
        self.supervisor.shutdown(Duration::from_secs(60)).await;
        self.supervisor = builder(&self.folder, &self.keyring, self.sim.idp()).start().await.expect("a supervisor");
    }
}

/// Returns the key of a user that [`Stage::connect`] has connected.
fn key(number: usize) -> TokenKey {
    TokenKey::at("idp").user(format!("user-{number}@example.com"))
}

fn builder(folder: &TempDir, keyring: &Keyring, idp: Idp) -> Builder {
    TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.path().join("tokens.db").display()))
        .keyring(keyring.clone())
        .idp("idp", idp.max_concurrency(refresh::AT_ONCE))
}
