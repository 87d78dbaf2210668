//! The load: readers that keep requesting tokens, and injected panics.

use std::{
    any::Any,
    panic,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use token_supervisor::{Error, Expiry, Freshness, Token};
use tokio::task::JoinSet;

use super::{
    meter::DemoMeter,
    time::{Moment, pause},
    world::{Pair, World},
};

/// How much load there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadPlan {
    pub(crate) readers: u64,
    /// Whether actors and the registry panic from time to time.
    pub(crate) panics: bool,
    pub(crate) seed: u64,
}

/// The running readers and panics.
pub(crate) struct Load {
    world: Arc<World>,
    meter: Arc<DemoMeter>,
    stopped: Arc<AtomicBool>,
    readers: JoinSet<()>,
    panics: JoinSet<()>,
}

const BURST: u64 = 256;
const BETWEEN_BURSTS: Duration = Duration::from_millis(8);
/// A reader pauses at least this many times as long as its burst took.
const PAUSES_PER_BURST: u32 = 32;

/// One read in `SAMPLE` is timed, and its token is checked with the provider.
const SAMPLE: usize = 64;

/// Maximum number of callers that wait for one pair; the readers go on with other pairs.
const WAITING: u32 = 8;

const ACTOR_PANICS_EVERY: Duration = Duration::from_millis(300);
const REGISTRY_PANICS_EVERY: Duration = Duration::from_secs(3);

/// After five panics in a minute, the registry does not restart an actor for a minute; this pace stays below that.
const SAME_ACTOR_PANICS_EVERY: Duration = Duration::from_secs(16);

impl Load {
    pub(crate) fn start(world: &Arc<World>, meter: &Arc<DemoMeter>, plan: LoadPlan) -> Self {
        let LoadPlan { readers: count, panics: panicking, seed } = plan;
        let stopped = Arc::new(AtomicBool::new(false));
        let (mut readers, mut panics) = (JoinSet::new(), JoinSet::new());
        for reader in 0..count {
            let random = Random(seed.wrapping_mul(count).wrapping_add(reader));
            readers.spawn(read(Reader { world: world.clone(), meter: meter.clone() }, random, stopped.clone()));
        }
        if panicking {
            panics.spawn(panic_actors(world.clone(), Random(seed)));
            panics.spawn(panic_registry(world.clone()));
        }
        Self { world: world.clone(), meter: meter.clone(), stopped, readers, panics }
    }

    /// Stops panics and reads, then waits for the waiting callers. A caller that still waits at the limit is an error.
    pub(crate) async fn stop(mut self) {
        self.panics.shutdown().await;
        self.stopped.store(true, Relaxed);
        while self.readers.join_next().await.is_some() {}
        let started = Moment::now();
        let waits = |pair: &Pair| pair.waiting.load(Acquire) > 0;
        while self.world.pairs.iter().any(waits) && started.elapsed() < Duration::from_secs(12) {
            pause(Duration::from_millis(20)).await;
        }
        for (pair, _) in self.world.pairs.iter().enumerate().filter(|(_, pair)| waits(pair)) {
            self.meter.add_error(pair, "no response".to_owned());
        }
    }
}

#[derive(Clone)]
pub(super) struct Reader {
    pub(super) world: Arc<World>,
    pub(super) meter: Arc<DemoMeter>,
}

async fn read(reader: Reader, mut random: Random, stopped: Arc<AtomicBool>) {
    while !stopped.load(Relaxed) {
        let burst = Moment::now();
        let mut started = burst;
        let mut reads = 0;
        for _ in 0..BURST {
            let pair = random.below(reader.world.pairs.len());
            if reader.world.pairs[pair].waiting.load(Relaxed) >= WAITING {
                continue;
            }
            let sampled = random.below(SAMPLE) == 0;
            if sampled {
                started = Moment::now();
            }
            reads += 1;
            // A caller that does not get its token at once gives up, and another one asks in its place and waits:
            // neither may disturb the refresh.
            match reader.world.supervisor.token(&reader.world.pairs[pair].key).now_or_never() {
                Some(answer) => {
                    if sampled {
                        reader.meter.add_time(started.elapsed());
                    }
                    reader.judge(pair, started, answer, sampled);
                }
                None => drop(tokio::spawn(reader.clone().wait(pair, sampled))),
            }
        }
        reader.meter.add_reads(reads);
        pause(BETWEEN_BURSTS.max(burst.elapsed() * PAUSES_PER_BURST)).await;
    }
}

impl Reader {
    /// Reads a token as a caller that waits up to the default deadline.
    pub(super) async fn wait(self, pair: usize, sampled: bool) {
        let started = Moment::now();
        let waiting = WaitingCaller::new(self.world, pair);
        let pair_waited_for = &waiting.world.pairs[pair];
        let answer = waiting.world.supervisor.token(&pair_waited_for.key).await;
        if sampled {
            self.meter.add_time(started.elapsed());
        }
        Self { world: waiting.world.clone(), meter: self.meter }.judge(pair, started, answer, true);
    }

    /// Counts an error unless the caller got a token that was valid when the caller asked.
    fn judge(&self, pair: usize, asked: Moment, answer: Result<Token, Error>, thoroughly: bool) {
        let wrong = match answer {
            Err(error) => described(&error),
            Ok(token) if matches!(token.expiry(), Expiry::At(end) if end <= asked.wall()) => "expired token".to_owned(),
            Ok(token) if thoroughly || token.freshness() != Freshness::Fresh => {
                if !self.world.pairs[pair].died_before(token.access_token(), asked.wall()) {
                    return;
                }
                format!("dead token ({:?}, {:?})", token.freshness(), token.warning())
            }
            Ok(_) => return,
        };
        self.meter.add_error(pair, wrong);
    }
}

/// Describes an error without its times, so that equal errors are counted together.
fn described(error: &Error) -> String {
    match error {
        Error::Unavailable { cause, .. } => format!("{} ({cause})", error.code()),
        Error::ReconnectRequired { reason, .. } => format!("{} ({reason})", error.code()),
        Error::Internal(what) => format!("{} ({what})", error.code()),
        _ => error.code().to_owned(),
    }
}

/// Counts a caller for as long as it waits.
struct WaitingCaller {
    world: Arc<World>,
    pair: usize,
}

impl WaitingCaller {
    fn new(world: Arc<World>, pair: usize) -> Self {
        world.pairs[pair].waiting.fetch_add(1, AcqRel);
        Self { world, pair }
    }
}

impl Drop for WaitingCaller {
    fn drop(&mut self) {
        self.world.pairs[self.pair].waiting.fetch_sub(1, AcqRel);
    }
}

/// Makes the actors panic one after the other, in a random order.
async fn panic_actors(world: Arc<World>, mut random: Random) {
    let mut victims: Vec<usize> = (0..world.pairs.len()).collect();
    for last in (1..victims.len()).rev() {
        victims.swap(last, random.below(last + 1));
    }
    let few = SAME_ACTOR_PANICS_EVERY / u32::try_from(victims.len()).unwrap_or(u32::MAX).max(1);
    let pace = ACTOR_PANICS_EVERY.max(few);
    for victim in victims.into_iter().cycle() {
        pause(pace).await;
        world.supervisor.testing().panic_actor(&world.pairs[victim].key).await;
    }
}

async fn panic_registry(world: Arc<World>) {
    loop {
        pause(REGISTRY_PANICS_EVERY).await;
        world.supervisor.testing().panic_registry();
    }
}

static ACTOR_PANICS: AtomicU64 = AtomicU64::new(0);
static REGISTRY_PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts injected panics instead of printing them; all others are printed as usual.
pub(crate) fn count_injected_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| match injected(info.payload()) {
        Some("the registry") => drop(REGISTRY_PANICS.fetch_add(1, Relaxed)),
        Some(_) => drop(ACTOR_PANICS.fetch_add(1, Relaxed)),
        None => default(info),
    }));
}

fn injected(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))?.strip_prefix("injected: ")
}

/// Returns how often actors and the registry were made to panic.
pub(super) fn injected_panics() -> (u64, u64) {
    (ACTOR_PANICS.load(Relaxed), REGISTRY_PANICS.load(Relaxed))
}

/// A small random number generator (Vigna's splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}
