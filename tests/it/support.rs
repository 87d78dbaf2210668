//! A simulated identity provider, a store in a temporary folder, a clock turned by hand, and a supervisor on them.

#![expect(unreachable_pub, reason = "shared by the modules of this binary")]

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use token_supervisor::{
    Builder, Error, Keyring, Migrate, RefreshSettings, State, Token, TokenKey, TokenSupervisor,
    testing::{Kept, ManualClock, Profile, SimulatedIdp, Standing, kept, stored_refresh_token},
};
use tokio::task::JoinHandle;

/// How long the simulated access tokens live.
pub const LIFE: Duration = Duration::from_secs(3_600);

/// Everything but the supervisor: survives its restarts.
pub struct World {
    pub folder: TempDir,
    pub keyring: Keyring,
    pub clock: ManualClock,
    pub sim: SimulatedIdp,
    /// A store elsewhere than in the folder.
    elsewhere: Option<String>,
}

impl World {
    pub fn new(profile: Profile) -> Self {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let sim = SimulatedIdp::start_with_clock(profile.access_lifetime(LIFE), &clock).unwrap();
        Self { folder: TempDir::new().unwrap(), keyring: Keyring::generate(), clock, sim, elsewhere: None }
    }

    /// The same, with its store at this URL. Its journal stays in the folder.
    #[cfg(feature = "postgres")]
    pub fn on(self, store: String) -> Self {
        Self { elsewhere: Some(store), ..self }
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("tokens.db")
    }

    /// Whether several processes can have the store open.
    pub fn is_shared(&self) -> bool {
        self.elsewhere.is_some()
    }

    pub fn builder(&self) -> Builder {
        self.bare_builder().idp("idp", self.sim.idp())
    }

    /// A builder without identity provider.
    pub fn bare_builder(&self) -> Builder {
        let store = self.elsewhere.clone().unwrap_or_else(|| format!("sqlite://{}", self.store().display()));
        TokenSupervisor::builder()
            .store(store)
            .migrate(Migrate::Auto)
            .journal(self.folder.path().join("tokens.journal"))
            .keyring(self.keyring.clone())
            .refresh(RefreshSettings::default())
            .clock(&self.clock)
    }

    pub async fn start(&self) -> TokenSupervisor {
        self.builder().start().await.unwrap()
    }

    /// A supervisor with one connected grant.
    pub async fn connected(&self) -> (TokenSupervisor, TokenKey) {
        let supervisor = self.start().await;
        let key = TokenKey::at("idp").user("alice");
        supervisor.connect(&key, self.sim.consent("alice")).await.unwrap();
        (supervisor, key)
    }

    /// Copies the store, which no process has open.
    pub fn back_up(&self) -> TempDir {
        let backup = TempDir::new().unwrap();
        #[cfg(feature = "postgres")]
        if let Some(url) = &self.elsewhere {
            let dump = crate::postgres::server::shared().unwrap().dump(url);
            fs::write(backup.path().join("dump.sql"), dump).unwrap();
            return backup;
        }
        for end in ["", "-wal"] {
            let name = format!("tokens.db{end}");
            if self.folder.path().join(&name).exists() {
                fs::copy(self.folder.path().join(&name), backup.path().join(&name)).unwrap();
            }
        }
        backup
    }

    /// Puts the store back as it was, and leaves the journal as it is.
    pub fn restore(&self, backup: &TempDir) {
        #[cfg(feature = "postgres")]
        if let Some(url) = &self.elsewhere {
            return crate::postgres::server::shared().unwrap().load(url, &backup.path().join("dump.sql"));
        }
        for end in ["", "-wal", "-shm", "-last"] {
            fs::remove_file(self.folder.path().join(format!("tokens.db{end}"))).ok();
        }
        copy_files(backup.path(), self.folder.path());
    }

    /// Stops the supervisor, and says what the provider thinks of the refresh token it stored.
    pub async fn stored(&self, supervisor: TokenSupervisor, key: &TokenKey) -> Standing {
        stop(supervisor).await;
        if self.elsewhere.is_some() {
            // A supervisor without identity providers, which sends nothing.
            let reader = self.bare_builder().on_demand().start().await.unwrap();
            let token = reader.testing().stored_refresh_token(key).await.unwrap();
            stop(reader).await;
            return self.sim.standing(&token.expect("a refresh token is stored"));
        }
        let tokens = stored_refresh_token(&self.store(), &self.keyring, std::slice::from_ref(key)).await.unwrap();
        self.sim.standing(tokens[0].as_ref().expect("a refresh token is stored"))
    }
}

/// The URL of a new store that belongs to the folder.
pub fn store_in(folder: &Path) -> String {
    format!("sqlite://{}/tokens.db", folder.display())
}

pub async fn stop(supervisor: TokenSupervisor) {
    let stopped = within(supervisor.shutdown(Duration::from_secs(60))).await;
    assert_eq!(stopped.abandoned, 0);
}

/// Fails instead of hanging. Real time: it only bounds how long a broken test takes.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens within 30 s")
}

/// Polls until it holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    // A clock that `holds` turns must not race after a moment in which the machine was busy.
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let poll = async {
        while !holds() {
            looks.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), poll).await.is_ok(), "not within 30 s: {what}");
}

/// Asks again and again until nothing of the key is stored. Where time is passing the deadline of one question may, too.
pub async fn until_purged(supervisor: TokenSupervisor, key: TokenKey) {
    while !supervisor.status(&key).await.is_ok_and(|status| status.state == State::Absent) {
        tokio::task::yield_now().await;
    }
}

/// Asks for a token, as a caller in a task of its own does.
pub fn ask(supervisor: &TokenSupervisor, key: &TokenKey) -> JoinHandle<Result<Token, Error>> {
    let (supervisor, key) = (supervisor.clone(), key.clone());
    tokio::spawn(async move { supervisor.token(&key).await })
}

/// Lets time pass until the task has ended.
pub async fn passing<T>(world: &World, step: Duration, task: JoinHandle<T>) -> T {
    eventually("the task ends", || {
        world.clock.advance(step);
        task.is_finished()
    })
    .await;
    task.await.unwrap()
}

/// Lets time pass in steps, each after what the one before started has ended.
pub async fn pass(world: &World, supervisor: &TokenSupervisor, time: Duration, step: Duration) {
    let (mut passed, nobody) = (Duration::ZERO, TokenKey::at("idp").user("nobody"));
    while passed < time {
        world.clock.advance(step);
        passed += step;
        breathe().await;
        // However busy the machine is, the actors have woken before they answer; a store that is silent does not.
        tokio::time::timeout(Duration::from_secs(1), supervisor.status(&nobody)).await.ok();
        eventually("what was started has ended", || supervisor.testing().attempts() == 0).await;
    }
}

/// Real time for what the clock has started: a message or two, a request.
pub async fn breathe() {
    tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await.ok();
}

/// An address at which nobody listens, for as long as the socket is kept: nobody else gets it.
#[cfg(any(feature = "cli", feature = "client"))]
pub fn nobody() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What a dead process left of each grant. Looks at a copy, so that the next one finds it as it was left: nothing but
/// the store and what belongs to it is in its folder, or small.
#[cfg(feature = "cli")]
pub async fn left(store: &Path, keyring: &Keyring, keys: &[TokenKey]) -> Vec<Vec<Kept>> {
    let copy = TempDir::new().unwrap();
    copy_files(store.parent().unwrap(), copy.path());
    kept(&copy.path().join(store.file_name().unwrap()), keyring, keys).await.unwrap()
}

pub fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_files(&file.path(), &to);
        } else {
            fs::copy(file.path(), &to).unwrap();
        }
    }
}

/// Sends a signal to a process that we started.
pub fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|sent| sent.success()), "signal {name} to {pid}");
}
