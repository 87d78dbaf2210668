//! The simulated identity providers, the grants at them, and the supervisor.

use std::{
    io,
    path::PathBuf,
    sync::atomic::AtomicU32,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use token_supervisor::{
    AccessToken, Error, Keyring, RefreshSettings, TokenKey, TokenSupervisor,
    testing::{Chaos, Fault, Kind, Profile, SimulatedIdp},
};

use crate::{CliFailure, Exit};

/// The size of a world.
#[derive(Debug)]
pub(crate) struct WorldPlan {
    pub(crate) pairs: u32,
    /// How long access tokens live.
    pub(crate) lifetime: Duration,
    /// Whether the providers misbehave.
    pub(crate) faults: bool,
    /// A new file for the store, which is kept.
    pub(crate) db: Option<PathBuf>,
}

/// Everything that exists while the load runs.
pub(crate) struct World {
    pub(crate) idps: Vec<(&'static str, SimulatedIdp)>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) supervisor: TokenSupervisor,
    /// How long access tokens live.
    pub(super) lifetime: Duration,
    pub(super) store: PathBuf,
    pub(super) keyring: Keyring,
    /// A temporary folder, removed when the world is dropped.
    pub(super) folder: TempDir,
}

/// A user at an identity provider.
pub(crate) struct Pair {
    pub(super) key: TokenKey,
    pub(super) sim: SimulatedIdp,
    /// How many callers wait for a token.
    pub(super) waiting: AtomicU32,
}

/// The grace period for reuse of a refresh token, where a profile has one. It is far longer than the times of
/// [`settings`], as the supervisor requires.
const GRACE: Duration = Duration::from_secs(30);

/// Timeouts of all clients in the demo.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

impl World {
    pub(crate) async fn start(plan: WorldPlan, seed: u64) -> Result<Self, CliFailure> {
        let WorldPlan { pairs, lifetime, faults, db } = plan;
        let (folder, store) = place(db)?;
        let keyring = Keyring::generate();
        let idps = start_idps(lifetime, seed)?;
        let mut builder = TokenSupervisor::builder()
            .store(format!("sqlite://{}", store.display()))
            .keyring(keyring.clone())
            .refresh(settings())
            .sweep_every(Duration::from_millis(500));
        for (name, sim) in &idps {
            builder = builder.idp(*name, sim.idp());
        }
        let supervisor = builder.start().await.map_err(unstarted)?;
        let pairs = pairs_at(&idps, pairs as usize);
        let world = Self { idps, pairs, supervisor, lifetime, store, keyring, folder };
        if !faults {
            world.calm();
        }
        Ok(world)
    }

    /// Returns the names of the providers and the lifetime of their tokens, for people.
    pub(crate) fn head(&self) -> String {
        let names: Vec<_> = self.idps.iter().map(|(name, _)| *name).collect();
        format!("{} · tokens live {} s · refresh tokens single use", names.join(" "), self.lifetime.as_secs())
    }

    /// Returns how many requests the token endpoints have received.
    pub(crate) fn requests(&self) -> u64 {
        self.idps.iter().map(|(_, sim)| sim.requests()).sum()
    }

    /// Connects every pair, a few at a time.
    pub(crate) async fn connect(&self) -> Result<(), CliFailure> {
        let connects = self.pairs.iter().map(|pair| async {
            let grant = pair.sim.consent(pair.key.user());
            self.supervisor.connect(&pair.key, grant).await
        });
        let mut connects = stream::iter(connects).buffer_unordered(16);
        while let Some(connected) = connects.next().await {
            connected.map_err(|error| {
                CliFailure::new(
                    Exit::Failed,
                    format!("a grant could not be connected: {error}"),
                    "run the command again with -v to see why",
                )
            })?;
        }
        Ok(())
    }

    /// Stops all faults.
    pub(crate) fn calm(&self) {
        self.idps.iter().for_each(|(_, sim)| sim.chaos(Chaos::default()));
    }
}

impl Pair {
    pub(super) fn died_before(&self, token: &AccessToken, then: SystemTime) -> bool {
        // The provider's clock and ours are read one after the other, in whole milliseconds.
        const SLACK: Duration = Duration::from_millis(5);
        self.sim.access_died_at(token).is_some_and(|died| died + SLACK < then)
    }
}

/// Starts one provider of each profile. Equal seeds draw equal faults.
pub(super) fn start_idps(lifetime: Duration, seed: u64) -> io::Result<Vec<(&'static str, SimulatedIdp)>> {
    let mut idps = Vec::new();
    for (name, profile) in profiles() {
        let sim = SimulatedIdp::start(profile.access_lifetime(lifetime))?;
        sim.chaos(chaos(seed.wrapping_add(idps.len() as u64), sim.profile().kind));
        idps.push((name, sim));
    }
    Ok(idps)
}

/// Distributes `count` users evenly over the providers.
pub(super) fn pairs_at(idps: &[(&'static str, SimulatedIdp)], count: usize) -> Vec<Pair> {
    let pairs = (0..count).zip(idps.iter().cycle()).map(|(number, (name, sim))| Pair {
        key: TokenKey::at(*name).user(format!("user-{number:04}")),
        sim: sim.clone(),
        waiting: AtomicU32::new(0),
    });
    pairs.collect()
}

/// Returns where to store. An existing file is refused, because it may be a real store.
fn place(db: Option<PathBuf>) -> Result<(TempDir, PathBuf), CliFailure> {
    let folder = tempfile::Builder::new().prefix("ts-demo-").tempdir()?;
    let Some(path) = db else {
        let store = folder.path().join("tokens.db");
        return Ok((folder, store));
    };
    if path.exists() {
        return Err(CliFailure::new(
            Exit::Failed,
            format!("{} exists, and the demo does not use an existing store", path.display()),
            "choose a file that does not exist, or omit --db for a temporary file",
        ));
    }
    Ok((folder, path))
}

fn unstarted(error: Error) -> CliFailure {
    let exit = if matches!(error, Error::Configuration(_)) { Exit::Usage } else { Exit::Failed };
    let next = "choose a writable file with --db sqlite://PATH, or omit --db for a temporary file";
    CliFailure::new(exit, error.to_string(), next)
}

/// Profiles of all four kinds that rotate refresh tokens.
fn profiles() -> [(&'static str, Profile); 6] {
    [
        ("github", Profile::github()),
        ("gitlab", Profile::gitlab()),
        ("bitbucket", Profile::bitbucket().kind(Kind::SamePair { grace: GRACE })),
        ("keycloak", Profile::keycloak()),
        ("generic", Profile::oauth2(Kind::Strict)),
        ("generic-grace", Profile::oauth2(Kind::LastWins { grace: GRACE })),
    ]
}

/// Returns settings for tokens that live for seconds; the defaults are for hours.
fn settings() -> RefreshSettings {
    RefreshSettings::default()
        .margin(Duration::from_secs(60))
        .connect_timeout(CONNECT_TIMEOUT)
        .attempt_timeout(ATTEMPT_TIMEOUT)
        .patience(Duration::from_secs(8))
        .send_window(Duration::from_secs(1))
        .settle(Duration::from_secs(1))
        .lease(Duration::from_secs(2))
}

/// Returns the mix of faults. Responses are lost only at providers with a grace period: without one, no client
/// can recover a lost response.
fn chaos(seed: u64, kind: Kind) -> Chaos {
    let millis = Duration::from_millis;
    let slow_down = Fault::Status(429, Some("1".to_owned()));
    let chaos = Chaos::new(seed)
        .with(slow_down, 8)
        .with(Fault::Status(502, None), 15)
        .with(Fault::Status(503, None), 20)
        .with(Fault::DropBefore, 15)
        .with(Fault::Garbage, 10)
        .with(Fault::Delay(millis(800)), 30);
    match kind.grace() {
        None => chaos,
        Some(_) => chaos
            .with(Fault::DropAfter, 25)
            .with(Fault::CutAt(400), 25)
            .with(Fault::StatusAfter(502), 15)
            .with(Fault::LateProcessing(millis(300)), 15)
            .with(Fault::SlowBody(millis(800)), 25),
    }
}
