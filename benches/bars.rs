//! What one process costs, each figure beside its yardstick: measured in turns, in one process and one run.
//!
//! `cargo bench --bench bars` prints measured, yardstick, ratio and bar; `-- --smoke` only shows that it runs. Figures of
//! a noisy machine differ by a fifth from run to run: compare ratios, not nanoseconds.

use std::{
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures_util::future::{FutureExt, join_all};
use token_supervisor::{
    Keyring, Token, TokenKey, TokenSupervisor,
    testing::{Profile, SimulatedIdp},
};

/// The yardstick's map hashes as ours does: keys bring their hash along.
#[derive(Default)]
struct Cached(u64);

impl Hasher for Cached {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Map = papaya::HashMap<TokenKey, Arc<Token>, BuildHasherDefault<Cached>>;

struct Size {
    keys: usize,
    rounds: usize,
    callers: usize,
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let size = if smoke {
        Size { keys: 500, rounds: 3, callers: 200 }
    } else {
        Size { keys: 100_000, rounds: 31, callers: 10_000 }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(size));
}

async fn run(size: Size) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let profile = Profile::bitbucket().access_lifetime(Duration::from_secs(3_600 * 24));
    let sim = SimulatedIdp::start(profile).expect("a simulated provider");
    let supervisor = TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.path().join("tokens.db").display()))
        .keyring(Keyring::generate())
        .idp("idp", sim.idp())
        .start()
        .await
        .expect("a supervisor");
    let keys: Vec<_> =
        (0..size.keys).map(|number| TokenKey::new(format!("user-{number}@example.com"), "idp")).collect();
    let map = Map::with_hasher(BuildHasherDefault::default());
    let moka = moka::sync::Cache::builder().max_capacity(u64::MAX).build();
    for some in keys.chunks(1_000) {
        let connect = |key: &TokenKey| {
            let (supervisor, key, grant) = (supervisor.clone(), key.clone(), sim.consent(key.user()));
            async move { supervisor.connect(&key, grant).await.map(|_| key) }
        };
        for key in join_all(some.iter().map(connect)).await {
            let key = key.expect("a connected grant");
            let token = Arc::new(supervisor.token(&key).await.expect("a token"));
            map.pin().insert(key.clone(), token.clone());
            moka.insert(key, token);
        }
    }
    let order = shuffled(size.keys);
    println!("{:34} {:>12} {:>12} {:>7}  bar", "what", "measured", "yardstick", "ratio");

    let ours =
        || each(&order, |at| supervisor.token(&keys[at]).now_or_never().expect("at first poll").expect("a token"));
    let bare = || each(&order, |at| map.pin().get(&keys[at]).cloned().expect("a token"));
    let cache = || each(&order, |at| moka.get(&keys[at]).expect("a token"));
    row("token(), beside a bare map", turns(size.rounds, ours, bare), "<= 1.3");
    row("token(), beside moka", turns(size.rounds, ours, cache), "<= 0.5");

    let watch = supervisor.watch(&keys[0]).await.expect("a watch");
    let cell = ArcSwapOption::from(Some(Arc::new(watch.token().expect("a token"))));
    let held = || each(&order, |_| watch.token().expect("a token"));
    let load = || each(&order, |_| cell.load_full().expect("a token"));
    row("watch.token(), beside ArcSwap", turns(size.rounds, held, load), "<= 3");

    let alone = || threads(1, &supervisor, &keys, &order);
    let together = || threads(2, &supervisor, &keys, &order);
    row("token() on two threads, beside one", turns(size.rounds, together, alone), "about 1");

    crowd(&supervisor, &sim, &keys, &size).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// So many callers of one token that must be refreshed, beside one.
async fn crowd(supervisor: &TokenSupervisor, sim: &SimulatedIdp, keys: &[TokenKey], size: &Size) {
    let (mut many, mut one) = (Vec::new(), Vec::new());
    let requests = sim.requests();
    for (round, key) in keys.iter().take(2 * size.rounds.min(9)).enumerate() {
        let callers = if round % 2 == 0 { size.callers } else { 1 };
        let token = supervisor.token(key).await.expect("a token");
        supervisor.report_rejected(key, token.generation()).await.expect("a status");
        let started = now();
        let waiting: Vec<_> = (0..callers)
            .map(|_| {
                let (supervisor, key) = (supervisor.clone(), key.clone());
                tokio::spawn(async move { supervisor.token(&key).await })
            })
            .collect();
        for caller in waiting {
            caller.await.expect("a caller").expect("a token");
        }
        (if callers > 1 { &mut many } else { &mut one }).push(started.elapsed());
    }
    assert_eq!(sim.requests() - requests, (many.len() + one.len()) as u64, "one request for all callers");
    let figures = (median(many), median(one));
    row("callers of one refresh, beside one", figures, "<= 1.1 + 20 ms");
}

/// The nanoseconds of one of many.
fn each<T>(order: &[usize], mut read: impl FnMut(usize) -> T) -> Duration {
    let started = now();
    for &at in order {
        black_box(read(at));
    }
    started.elapsed() / order.len() as u32
}

fn threads(count: usize, supervisor: &TokenSupervisor, keys: &[TokenKey], order: &[usize]) -> Duration {
    std::thread::scope(|scope| {
        // Each in an order of its own: readers that walk in step would measure how they wait for each other.
        let read = |thread: usize| {
            let (behind, before) = order.split_at(order.len() * thread / count);
            move || each(&[before, behind].concat(), |at| supervisor.cached(&keys[at]).expect("a token"))
        };
        let running: Vec<_> = (0..count).map(|thread| scope.spawn(read(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread")).max().unwrap_or_default()
    })
}

/// Both measured in turns; the medians.
fn turns(rounds: usize, ours: impl Fn() -> Duration, yardstick: impl Fn() -> Duration) -> (Duration, Duration) {
    let (ours, yardstick): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (ours(), yardstick())).unzip();
    (median(ours), median(yardstick))
}

fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort();
    figures[figures.len() / 2]
}

fn row(what: &str, (measured, yardstick): (Duration, Duration), bar: &str) {
    let ratio = measured.as_secs_f64() / yardstick.as_secs_f64().max(1e-9);
    println!("{what:34} {measured:>12?} {yardstick:>12?} {ratio:>7.2}  {bar}");
}

/// The same random order in every run.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    let mut seed: u64 = 1;
    for at in (1..count).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (seed >> 33) as usize % (at + 1));
    }
    order
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
