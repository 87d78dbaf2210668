//! Reads of a valid token: with many keys, through a watch, on several cores.

use std::{
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use papaya::ResizeMode;
use token_supervisor::{Token, TokenKey, TokenSupervisor};

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

type Map = papaya::HashMap<TokenKey, Arc<Token>, BuildHasherDefault<KeyHasher>>;

pub(crate) async fn run(size: Size) {
    let stage = Stage::new().await;
    let keys = stage.connect(size.keys).await;
    let supervisor = &stage.supervisor;
    let map: Map =
        papaya::HashMap::builder().resize_mode(ResizeMode::Blocking).hasher(BuildHasherDefault::default()).build();
    let moka = moka::sync::Cache::builder().max_capacity(u64::MAX).build();
    for key in &keys {
        let token = Arc::new(supervisor.token(key).await.expect("a token"));
        map.pin().insert(key.clone(), token.clone());
        moka.insert(key.clone(), token);
    }
    let order = shuffled(size.keys);

    let ours = || each(&order, |at| at_first_poll(supervisor.token(&keys[at])).expect("a token"));
    let bare = || each(&order, |at| map.pin().get(&keys[at]).cloned().expect("a token"));
    let cache = || each(&order, |at| moka.get(&keys[at]).expect("a token"));
    row("token(), beside a bare map", turns(size.rounds, ours, bare), "<= 1.3");
    row("token(), beside moka", turns(size.rounds, ours, cache), "<= 0.5");

    let watch = supervisor.watch(&keys[0]).await.expect("a watch");
    let cell = ArcSwapOption::from(Some(Arc::new(watch.token().expect("a token"))));
    let watched = || each(&order, |_| watch.token().expect("a token"));
    let load = || each(&order, |_| cell.load_full().expect("a token"));
    row("watch.token(), beside ArcSwap", turns(size.rounds, watched, load), "<= 3");

    let alone = || threads(1, supervisor, &keys, &order);
    let together = || threads(2, supervisor, &keys, &order);
    row("token() on two threads, beside one", turns(size.rounds, together, alone), "about 1");
    supervisor.shutdown(Duration::from_secs(10)).await;
}

/// Polls a ready future as `.await` does, which is part of the function that it stands in.
#[inline(always)]
pub(crate) fn at_first_poll<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a valid token is ready at the first poll"),
    }
}

fn threads(count: usize, supervisor: &TokenSupervisor, keys: &[TokenKey], order: &[usize]) -> Duration {
    std::thread::scope(|scope| {
        // Each thread reads in an order of its own: readers in step would wait for each other.
        let read = |thread: usize| {
            let (behind, before) = order.split_at(order.len() * thread / count);
            move || each(&[before, behind].concat(), |at| supervisor.cached(&keys[at]).expect("a token"))
        };
        let running: Vec<_> = (0..count).map(|thread| scope.spawn(read(thread))).collect();
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
