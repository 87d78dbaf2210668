//! Reads of a valid token: with many keys, through a watch, one key on several cores.

use std::{
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Waker},
    thread::available_parallelism,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use papaya::ResizeMode;
use token_supervisor::{AccessToken, Generation, TokenKey, TokenSupervisor};

use crate::{
    Size, Stage,
    harness::{each, row, shuffled, turns},
};

/// The hasher of the yardstick's map. Keys have a precomputed hash, as in the supervisor's map.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Map = papaya::HashMap<TokenKey, Arc<Plain>, BuildHasherDefault<KeyHasher>>;

/// What a cache of one's own would hold: a token that neither expires nor can be withdrawn.
#[expect(dead_code, reason = "only read as far as the bench needs it, as in the supervisor's rows")]
struct Plain {
    generation: Generation,
    access_token: AccessToken,
}

pub(crate) async fn run(size: Size) {
    let stage = Stage::new().await;
    let keys = stage.connect(size.keys).await;
    many_keys(&stage.supervisor, &keys, size.rounds).await;
    one_key(&stage.supervisor, &keys, size.rounds).await;
    stage.supervisor.shutdown(Duration::from_secs(10)).await;
    drop(stage);

    let stage = Stage::new().await;
    let keys = stage.connect(size.live).await;
    many_keys(&stage.supervisor, &keys, size.rounds.min(7)).await;
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
}

/// Reads all keys in random order. Each key is built from text, and which key is next depends on the token that was read
/// last, so that no two reads overlap.
async fn many_keys(supervisor: &TokenSupervisor, keys: &[TokenKey], rounds: usize) {
    let map: Map =
        papaya::HashMap::builder().resize_mode(ResizeMode::Blocking).hasher(BuildHasherDefault::default()).build();
    let moka = moka::sync::Cache::builder().max_capacity(u64::MAX).build();
    for key in keys {
        let token = supervisor.token(key).await.expect("a token");
        let plain = Arc::new(Plain { generation: token.generation(), access_token: token.access_token().clone() });
        map.pin().insert(key.clone(), plain.clone());
        moka.insert(key.clone(), plain);
    }
    let order = shuffled(keys.len());

    let ours = || chained(&order, |key| at_first_poll(supervisor.token(&key)).expect("a token").generation());
    let bare = || chained(&order, |key| map.pin().get(&key).cloned().expect("a token").generation);
    let cache = || chained(&order, |key| moka.get(&key).expect("a token").generation);
    let count = keys.len();
    row(&format!("token(), {count} keys, beside papaya"), turns(rounds, ours, bare), "<= 0.8");
    row(&format!("token(), {count} keys, beside moka"), turns(rounds, ours, cache), "<= 0.5");
}

async fn one_key(supervisor: &TokenSupervisor, keys: &[TokenKey], rounds: usize) {
    let order = shuffled(keys.len());
    let watch = supervisor.watch(&keys[0]).await.expect("a watch");
    let cell = ArcSwapOption::from(Some(Arc::new(watch.token().expect("a token"))));
    let watched = || each(&order, |_| watch.token().expect("a token"));
    let load = || each(&order, |_| cell.load_full().expect("a token"));
    row("watch.token(), beside ArcSwap", turns(rounds, watched, load), "<= 3");

    let cores = available_parallelism().map_or(1, usize::from);
    let on_cores = |what: &str, bar: &str, read: &(dyn Fn(usize) + Sync)| {
        let (all, one) = turns(rounds, || threads(cores, &order, read), || threads(1, &order, read));
        row(&format!("{what}, {cores} threads, beside one"), (all, one), bar);
    };
    on_cores("token(), all keys", "about 1", &|at| drop(black_box(supervisor.cached(&keys[at]))));
    on_cores("token(), one key", "-", &|_| drop(black_box(supervisor.cached(&keys[0]))));
}

/// Returns the CPU time of one read, where each read depends on the last.
fn chained(order: &[usize], mut read: impl FnMut(TokenKey) -> Generation) -> Duration {
    // Every token is of this generation: what a read returns then leaves the order as it is, which no processor knows.
    let first = black_box(Generation::new(1)).get();
    let (mut name, mut last) = (Name::default(), first);
    each(order, |at| {
        let user = name.of(at ^ (last ^ first) as usize);
        last = read(TokenKey::at("idp").user(user)).get();
    })
}

/// Makes the names that [`Stage::connect`] gives, in one buffer: an application has the name from its request at hand.
#[derive(Default)]
struct Name(String);

impl Name {
    fn of(&mut self, number: usize) -> &str {
        let (mut digits, mut rest, mut from) = ([b'0'; 20], number, 20);
        loop {
            from -= 1;
            digits[from] += (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.0.clear();
        self.0.push_str("user-");
        self.0.extend(digits[from..].iter().map(|digit| char::from(*digit)));
        self.0.push_str("@example.com");
        &self.0
    }
}

/// Polls a ready future as `.await` does, which is part of the function that it stands in.
#[inline(always)]
pub(crate) fn at_first_poll<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a valid token is ready at the first poll"),
    }
}

/// Reads on several threads at once; returns the CPU time of one read on the slowest of them.
fn threads(count: usize, order: &[usize], read: &(dyn Fn(usize) + Sync)) -> Duration {
    let start = Barrier::new(count);
    std::thread::scope(|scope| {
        // Each thread reads in an order of its own: readers in step would wait for each other.
        let run = |thread: usize| {
            let (behind, before) = order.split_at(order.len() * thread / count);
            let start = &start;
            move || {
                start.wait();
                each(&[before, behind].concat(), read)
            }
        };
        let running: Vec<_> = (0..count).map(|thread| scope.spawn(run(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread")).max().unwrap_or_default()
    })
}

/// Only reads one key, in a function that callgrind can select.
pub(crate) async fn reads_alone(reads: usize) {
    let stage = Stage::new().await;
    let keys = stage.connect(1).await;
    hot_reads(&stage.supervisor, &keys[0], reads);
    println!("{reads} reads");
    stage.supervisor.shutdown(Duration::from_secs(10)).await;
}

#[inline(never)]
fn hot_reads(supervisor: &TokenSupervisor, key: &TokenKey, reads: usize) {
    for _ in 0..reads {
        black_box(at_first_poll(supervisor.token(key)).expect("a token"));
    }
}
