//! Random histories of callers, people, faults and deaths, through the real supervisor, store, journal and provider.
//!
//! A seed replays its history. A failing one is shortened to the steps that matter before it is printed. The
//! number of histories is bounded here; `TOKEN_SUPERVISOR_TEST_HISTORIES=100000` runs more, and
//! `TOKEN_SUPERVISOR_TEST_SEED=7` starts at another seed.

use std::time::Duration;

use token_supervisor::{
    Acquire, Cause, Error, Generation, Grant, RefreshToken, Revoke, State, TokenKey, TokenSupervisor,
    testing::{Fault, Kind, Profile, Standing, StoreFault},
};
use tokio::task::JoinHandle;

use crate::support::{LIFE, World, within};

/// How many histories run unless told otherwise.
const HISTORIES: u64 = 300;
/// How many steps a history has.
const STEPS: usize = 25;
/// A provider and a store serve this many histories, one user each.
const HISTORIES_PER_WORLD: u64 = 50;

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Ask {
        min_ttl: Duration,
    },
    AskAndVanish,
    RefreshNow,
    Reject {
        back: u64,
    },
    Advance(Duration),
    /// The wall clock jumps by so many seconds, and back again after the next step.
    WallClock(i64),
    Fault(Fault),
    Release,
    Store(StoreFault),
    Journal {
        fails: bool,
    },
    PanicActor,
    PanicRegistry,
    CrashSystem,
    ConnectNew,
    ConnectAgain,
    ConnectWithoutRefreshToken,
    Disconnect,
    RequireReconnect,
    EndFamily,
    Restart,
}

/// Small and good enough: the point is that a seed replays.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

fn story(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    (0..STEPS).map(|_| step(&mut random)).collect()
}

fn step(random: &mut Random) -> Step {
    let seconds = Duration::from_secs;
    match random.below(100) {
        0..20 => Step::Ask { min_ttl: random.of(&[Duration::ZERO, Duration::ZERO, seconds(600), LIFE]) },
        20..25 => Step::AskAndVanish,
        25..30 => Step::RefreshNow,
        30..34 => Step::Reject { back: random.below(3) },
        34..58 => Step::Advance(random.of(&[
            Duration::from_millis(300),
            seconds(2),
            seconds(8),
            seconds(31),
            seconds(200),
            LIFE / 2,
            LIFE,
        ])),
        58..60 => Step::WallClock(random.of(&[-3_600, -60, 60, 3_600])),
        60..74 => Step::Fault(random.of(&[
            Fault::DropBefore,
            Fault::DropAfter,
            Fault::CutAt(40),
            Fault::Status(429, Some("3".to_owned())),
            Fault::Status(502, None),
            Fault::StatusAfter(502),
            Fault::Garbage,
            Fault::Redirect,
            Fault::LateProcessing(seconds(10)),
            Fault::error(400, "invalid_client"),
            Fault::error(503, "invalid_grant"),
            Fault::Hang,
            Fault::HangAfter,
        ])),
        74..78 => Step::Release,
        78..84 => Step::Store(random.of(&[
            StoreFault::None,
            StoreFault::None,
            StoreFault::Down,
            StoreFault::ClaimsFail,
            StoreFault::CommitsFail,
            StoreFault::ClaimAcknowledgementsLost,
            StoreFault::CommitAcknowledgementsLost,
            StoreFault::CommitsHang,
        ])),
        84..86 => Step::Journal { fails: random.below(2) == 0 },
        86..89 => Step::PanicActor,
        89 => Step::PanicRegistry,
        90 => Step::CrashSystem,
        91 => Step::ConnectNew,
        92 => Step::ConnectAgain,
        93 => Step::ConnectWithoutRefreshToken,
        94 => Step::Disconnect,
        95 => Step::RequireReconnect,
        96 => Step::EndFamily,
        _ => Step::Restart,
    }
}

const KINDS: [Kind; 4] = [
    Kind::Strict,
    Kind::Reject,
    Kind::SamePair { grace: Duration::from_secs(100_000) },
    Kind::LastWins { grace: Duration::from_secs(100_000) },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_history_loses_or_spends_twice() {
    let (histories, first) =
        (number("TOKEN_SUPERVISOR_TEST_HISTORIES", HISTORIES), number("TOKEN_SUPERVISOR_TEST_SEED", 0));
    let mut seed = first;
    while seed < first + histories {
        let stage = Stage::new(KINDS[(seed / HISTORIES_PER_WORLD % 4) as usize]).await;
        let mut stage = Some(stage);
        for _ in 0..HISTORIES_PER_WORLD.min(first + histories - seed) {
            let (played, result) = play(stage.take().unwrap(), seed, &story(seed)).await;
            if let Err(what) = result {
                drop(played);
                shorten(seed, what).await;
            } else {
                stage = Some(played);
            }
            seed += 1;
        }
    }
}

/// Leaves out what does not matter, and fails with what is left.
async fn shorten(seed: u64, mut what: String) -> ! {
    let kind = KINDS[(seed / HISTORIES_PER_WORLD % 4) as usize];
    let mut steps = story(seed);
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        let (_, result) = play(Stage::new(kind).await, seed, &fewer).await;
        match result {
            Err(again) => (steps, what) = (fewer, again),
            Ok(()) => at += 1,
        }
    }
    panic!("seed {seed}, {kind:?}: {what}\nafter {steps:#?}");
}

#[expect(clippy::disallowed_methods, reason = "how a person asks for a longer run")]
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The world with its running supervisor.
struct Stage {
    world: World,
    supervisor: Option<TokenSupervisor>,
    kind: Kind,
    duplicates: u64,
}

impl Stage {
    async fn new(kind: Kind) -> Self {
        let world = World::new(Profile::oauth2(kind));
        let supervisor = Some(world.start().await);
        Self { world, supervisor, kind, duplicates: 0 }
    }

    fn supervisor(&self) -> &TokenSupervisor {
        self.supervisor.as_ref().unwrap()
    }
}

/// What one history knows of its grant.
struct Plot {
    key: TokenKey,
    connected_with: Vec<Grant>,
    callers: Vec<JoinHandle<Result<token_supervisor::Token, Error>>>,
    generation: Generation,
    /// An answer may have been lost after processing, so that a second use or a reconnect is explained.
    answer_lost: bool,
    /// The user or an administrator ended it.
    ended: bool,
    stepped: i64,
}

async fn play(mut stage: Stage, seed: u64, steps: &[Step]) -> (Stage, Result<(), String>) {
    let user = format!("user-{seed}");
    let key = TokenKey::new(&user, "idp");
    let grant = stage.world.sim.consent(&user);
    let mut plot = Plot {
        key: key.clone(),
        connected_with: vec![grant.clone()],
        callers: Vec::new(),
        generation: Generation::new(0),
        answer_lost: false,
        ended: false,
        stepped: 0,
    };
    if let Err(error) = within(stage.supervisor().connect(&key, grant)).await {
        return (stage, Err(format!("the first connect was refused: {error}")));
    }
    for step in steps {
        if plot.stepped != 0 {
            step_clock(&stage.world, -plot.stepped);
            plot.stepped = 0;
        }
        carry_out(&mut stage, &mut plot, step).await;
        breathe().await;
        plot.callers.retain(|caller| !caller.is_finished());
        if let Err(what) = look(&stage, &mut plot).await {
            return (stage, Err(what));
        }
    }
    let result = come_to_rest(&mut stage, &mut plot).await;
    (stage, result)
}

/// Lets the supervisor's threads do what they were told.
async fn breathe() {
    let mut pause = tokio::time::interval(Duration::from_micros(300));
    pause.tick().await;
    pause.tick().await;
}

fn step_clock(world: &World, seconds: i64) {
    let by = Duration::from_secs(seconds.unsigned_abs());
    world.clock.step_to(if seconds < 0 { world.clock.now() - by } else { world.clock.now() + by });
}

async fn carry_out(stage: &mut Stage, plot: &mut Plot, step: &Step) {
    let (key, sim, clock) = (plot.key.clone(), stage.world.sim.clone(), stage.world.clock.clone());
    let supervisor = stage.supervisor().clone();
    let ask = |min_ttl| tokio::spawn(supervisor.call(Acquire::new(&key).min_ttl(min_ttl)));
    match step {
        Step::Ask { min_ttl } => plot.callers.push(ask(*min_ttl)),
        Step::AskAndVanish => ask(Duration::ZERO).abort(),
        Step::RefreshNow => drop(tokio::spawn(supervisor.call(token_supervisor::RefreshNow::new(&key)))),
        Step::Reject { back } => {
            let generation = Generation::new(plot.generation.get().saturating_sub(*back));
            tokio::spawn(supervisor.call(token_supervisor::RejectToken::new(&key, generation)));
        }
        Step::Advance(by) => clock.advance(*by),
        Step::WallClock(by) => {
            step_clock(&stage.world, *by);
            plot.stepped = *by;
        }
        Step::Fault(fault) => {
            plot.answer_lost |= loses(fault);
            sim.next(fault.clone());
        }
        Step::Release => {
            sim.release();
        }
        Step::Store(fault) => supervisor.testing().store_fault(*fault),
        Step::Journal { fails } => supervisor.testing().journal_fails(*fails),
        Step::PanicActor => supervisor.testing().panic_actor(&key).await,
        Step::PanicRegistry => supervisor.testing().panic_registry(),
        Step::CrashSystem => supervisor.testing().crash_system(),
        Step::ConnectNew => {
            let grant = sim.consent(key.user());
            plot.connected_with.push(grant.clone());
            tokio::spawn(supervisor.call(token_supervisor::Connect::new(&key, grant)));
        }
        Step::ConnectAgain => {
            let grant = plot.connected_with[0].clone();
            tokio::spawn(supervisor.call(token_supervisor::Connect::new(&key, grant)));
        }
        Step::ConnectWithoutRefreshToken => {
            let grant = Grant::new("ts-test-secret-alone").expires_in(LIFE);
            tokio::spawn(supervisor.call(token_supervisor::Connect::new(&key, grant)));
        }
        Step::Disconnect => {
            plot.ended = true;
            tokio::spawn(supervisor.call(token_supervisor::Disconnect::new(&key, Revoke::No)));
        }
        Step::RequireReconnect => {
            plot.ended = true;
            tokio::spawn(supervisor.call(token_supervisor::RequireReconnect::new(&key, "asked")));
        }
        Step::EndFamily => {
            plot.ended = true;
            sim.end_family(key.user());
        }
        Step::Restart => restart(stage).await,
    }
}

/// Whether a provider without grace may have processed a request whose answer is lost.
fn loses(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::DropAfter | Fault::CutAt(_) | Fault::StatusAfter(_) | Fault::LateProcessing(_) | Fault::HangAfter
    )
}

/// An orderly restart; what hangs is let go, and the store works again.
async fn restart(stage: &mut Stage) {
    let Some(supervisor) = stage.supervisor.take() else { return };
    supervisor.testing().store_fault(StoreFault::None);
    supervisor.testing().journal_fails(false);
    let clock = stage.world.clock.clone();
    let stopping = tokio::spawn(async move { supervisor.shutdown(Duration::from_secs(100_000)).await });
    while !stopping.is_finished() {
        stage.world.sim.release();
        clock.advance(Duration::from_millis(200));
        breathe().await;
    }
    stage.supervisor = Some(stage.world.start().await);
}

/// What must hold at any time.
async fn look(stage: &Stage, plot: &mut Plot) -> Result<(), String> {
    if let Some(token) = stage.supervisor().cached(&plot.key) {
        if token.generation() < plot.generation {
            return Err(format!("generation fell from {} to {}", plot.generation, token.generation()));
        }
        plot.generation = token.generation();
    }
    let duplicates = stage.world.sim.duplicate_spends() - stage.duplicates;
    if duplicates > 0 && !(plot.answer_lost && stage.kind.grace().is_none()) {
        return Err(format!("{duplicates} spent refresh tokens were presented"));
    }
    Ok(())
}

/// No more faults: everything must come to an end, and to a good one.
async fn come_to_rest(stage: &mut Stage, plot: &mut Plot) -> Result<(), String> {
    let testing = stage.supervisor().clone();
    testing.testing().store_fault(StoreFault::None);
    testing.testing().journal_fails(false);
    // Faults that no request has met yet belong to no other history.
    stage.world.sim.forget_faults();
    let mut state = State::Absent;
    for round in 0.. {
        stage.world.sim.release();
        stage.world.clock.advance(Duration::from_secs(if round < 50 { 1 } else { 40 }));
        breathe().await;
        plot.callers.retain(|caller| !caller.is_finished());
        let busy = testing.testing().attempts() > 0 || testing.testing().journal_pending() > 0;
        let status = if busy { None } else { ask_status(stage, plot).await? };
        state = status.unwrap_or(State::Absent);
        if !busy && plot.callers.is_empty() && matches!(state, State::Fresh | State::ReconnectRequired | State::Revoked)
        {
            break;
        }
        if round > 400 {
            return Err(format!("it does not come to rest: {state}, busy {busy}, {} callers wait", plot.callers.len()));
        }
    }
    judge(stage, plot, state).await
}

async fn ask_status(stage: &Stage, plot: &mut Plot) -> Result<Option<State>, String> {
    match within(stage.supervisor().status(&plot.key)).await {
        Ok(status) if status.generation < plot.generation => {
            Err(format!("generation fell from {} to {}", plot.generation, status.generation))
        }
        Ok(status) => {
            plot.generation = status.generation;
            Ok(Some(status.state))
        }
        Err(Error::Unavailable { cause: Cause::Failing, .. } | Error::Timeout) => Ok(None),
        Err(error) => Err(format!("no status at rest: {error}")),
    }
}

async fn judge(stage: &mut Stage, plot: &Plot, state: State) -> Result<(), String> {
    look(
        stage,
        &mut Plot {
            generation: plot.generation,
            callers: Vec::new(),
            key: plot.key.clone(),
            connected_with: Vec::new(),
            ..*plot
        },
    )
    .await?;
    stage.duplicates = stage.world.sim.duplicate_spends();
    let lost = plot.answer_lost && stage.kind.grace().is_none();
    match state {
        State::ReconnectRequired if lost || plot.ended => Ok(()),
        State::ReconnectRequired => Err("the user must reconnect for no reason".to_owned()),
        State::Revoked if plot.ended => Ok(()),
        State::Revoked => Err("the grant was disconnected by nobody".to_owned()),
        _ => {
            let token = within(stage.supervisor().token(&plot.key)).await.map_err(|error| error.to_string())?;
            if token.access_token().expose_secret() != "ts-test-secret-alone"
                && let Some(at) = stage.world.sim.access_died_at(token.access_token())
                && !lost
                && !plot.ended
            {
                return Err(format!("a dead token was handed out: it died at {at:?}"));
            }
            let stored = stored(stage, plot).await?;
            match stage.world.sim.standing(&stored) {
                Standing::Current | Standing::WithinGrace => Ok(()),
                _ if lost || plot.ended => Ok(()),
                standing => Err(format!("the stored refresh token is {standing:?}")),
            }
        }
    }
}

async fn stored(stage: &Stage, plot: &Plot) -> Result<RefreshToken, String> {
    let token =
        stage.supervisor().testing().stored_refresh_token(&plot.key).await.map_err(|error| error.to_string())?;
    token.ok_or_else(|| "no refresh token is stored".to_owned())
}
