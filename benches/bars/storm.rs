//! Reads while thousands of refreshes a second are under way.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use token_supervisor::{TokenKey, TokenSupervisor};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    Size, Stage,
    harness::{now, pause, quantile, shuffled, within},
    hot::at_first_poll,
    refresh::AT_ONCE,
};

/// Refreshes per second, unless the machine does fewer.
const RATE: u64 = 4_000;

pub(crate) async fn run(size: Size) {
    let mut stage = Stage::new().await;
    let keys = stage.connect(size.keys).await;
    stage.restart().await;
    let (stormy, cold) = keys.split_at(keys.len() / 2);

    let storm = Storm::start(&stage.supervisor, stormy).await;
    let (mut times, until) = (Vec::new(), now() + size.load);
    for key in cold {
        let started = now();
        if started >= until {
            break;
        }
        drop(stage.supervisor.token(key).await.expect("a token"));
        times.push(started.elapsed());
    }
    let rate = storm.stop().await;
    let what = format!("cold read while {rate} are refreshed/s, p99");
    within(&what, quantile(times, 0.99), Duration::from_millis(1));

    for key in stormy {
        drop(stage.supervisor.token(key).await.expect("a token"));
    }
    let storm = Storm::start(&stage.supervisor, stormy).await;
    let (supervisor, keys, until) = (stage.supervisor.clone(), stormy.to_vec(), now() + size.load);
    let reader = std::thread::spawn(move || read_valid(&supervisor, &keys, until));
    let times = tokio::task::spawn_blocking(|| reader.join().expect("a reader")).await.expect("a reader");
    let rate = storm.stop().await;
    let what = format!("token() while {rate} are refreshed/s, p99.9");
    within(&what, quantile(times, 0.999), Duration::from_micros(50));
    stage.supervisor.shutdown(Duration::from_secs(60)).await;
}

/// Reads valid tokens in bursts, as threads of an application do, and returns the time of each read.
fn read_valid(supervisor: &TokenSupervisor, keys: &[TokenKey], until: Instant) -> Vec<Duration> {
    const BURST: usize = 64;
    let mut times = Vec::new();
    let order = shuffled(keys.len());
    for burst in order.chunks(BURST).cycle() {
        for &at in burst {
            let started = now();
            black_box(at_first_poll(supervisor.token(&keys[at])).expect("a token"));
            times.push(started.elapsed());
        }
        if now() >= until {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    times
}

/// Refreshes of distinct grants, one after the other.
struct Storm {
    stopped: Arc<AtomicBool>,
    refreshed: Arc<AtomicU64>,
    started: Instant,
    task: JoinHandle<()>,
}

impl Storm {
    /// Starts it, and waits until it is under way.
    async fn start(supervisor: &TokenSupervisor, keys: &[TokenKey]) -> Self {
        let (stopped, refreshed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (supervisor, keys) = (supervisor.clone(), keys.to_vec());
        let task = tokio::spawn({
            let (stopped, refreshed) = (stopped.clone(), refreshed.clone());
            async move {
                let (slots, began, mut sent) = (Arc::new(Semaphore::new(AT_ONCE)), now(), 0);
                for key in keys.iter().cycle() {
                    if stopped.load(Relaxed) {
                        break;
                    }
                    while began.elapsed().as_secs_f64() * (RATE as f64) < sent as f64 {
                        pause(Duration::from_millis(2)).await;
                    }
                    let slot = slots.clone().acquire_owned().await.expect("an open semaphore");
                    let (supervisor, key, refreshed) = (supervisor.clone(), key.clone(), refreshed.clone());
                    sent += 1;
                    tokio::spawn(async move {
                        // A grant that was refreshed a moment ago counts as none.
                        let done = supervisor.refresh_now(&key).await.expect("a refresh");
                        refreshed.fetch_add(u64::from(done.refreshed), SeqCst);
                        drop(slot);
                    });
                }
                drop(slots.acquire_many(AT_ONCE as u32).await);
            }
        });
        pause(Duration::from_millis(300)).await;
        refreshed.store(0, SeqCst);
        Self { stopped, refreshed, started: now(), task }
    }

    /// Stops it and returns the number of refreshes per second.
    async fn stop(self) -> u64 {
        let rate = self.refreshed.load(SeqCst) as f64 / self.started.elapsed().as_secs_f64();
        self.stopped.store(true, Relaxed);
        self.task.await.expect("a storm");
        rate.round() as u64
    }
}
