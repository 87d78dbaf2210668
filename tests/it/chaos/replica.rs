//! One of the servers: its process, and when it lived, was frozen and died.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, RwLock},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{
    LEASE, PATIENCE, SEND_WINDOW, SETTLE, now, pass,
    providers::{Provider, query},
};
use crate::{cli::program, support::signal};

pub(super) struct Replica {
    pub(super) number: usize,
    folder: PathBuf,
    /// The variables that set the providers' URLs, without the query that tells the processes apart.
    token_urls: Vec<(String, String)>,
    /// Where the process that runs listens.
    address: RwLock<Option<Address>>,
    lives: Mutex<Vec<Life>>,
}

/// The URL of a process, and the number of its life.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) life: usize,
    pub(super) url: String,
}

/// The time of one process.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// How it was made to end, and when the signal was sent.
    pub(super) stopped: Option<(Stop, SystemTime)>,
    pub(super) ended: Option<SystemTime>,
    /// From before the signal to stand still until before the signal to go on, or to its end.
    pub(super) frozen: Vec<(SystemTime, Option<SystemTime>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// It did not start, because it could not reach its database.
    Refuse,
}

pub(super) struct Process {
    child: Child,
    life: usize,
}

const CONFIG: &str = "config.toml";
const LOG: &str = "log";

/// Longer than a connection to the database may take.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Longer than a database is away.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

impl Replica {
    /// Configures a server in a folder of its own.
    pub(super) fn new(number: usize, folder: &Path, common: &Common<'_>) -> Self {
        let Common { store, keys, api_key, providers } = common;
        let folder = folder.join(format!("replica-{number}"));
        fs::create_dir(&folder).unwrap();
        let seconds = Duration::as_secs_f64;
        let mut config = format!(
            "deployment = \"chaos\"\n\
             [server]\nbind = [\"127.0.0.1:0\"]\n{api_key}\n\
             [store]\nurl = \"{store}\"\n[journal]\ndir = \"journal\"\n[keyring]\nfile = \"{}\"\n\
             [refresh]\nsettle_seconds = {}\nlease_seconds = {}\nsend_window_seconds = {}\n\
             attempt_timeout_seconds = {}\npatience_seconds = {}\n",
            keys.display(),
            seconds(&SETTLE),
            seconds(&LEASE),
            seconds(&SEND_WINDOW),
            seconds(&PATIENCE),
            seconds(&PATIENCE),
        );
        config.extend(providers.iter().map(Provider::config));
        fs::write(folder.join(CONFIG), config).unwrap();
        let url = |provider: &Provider| {
            let name = provider.name.to_uppercase().replace('-', "_");
            (format!("TOKEN_SUPERVISOR__IDP__{name}__TOKEN_URL"), provider.sim.token_url())
        };
        let token_urls = providers.iter().map(url).collect();
        Self { number, folder, token_urls, address: RwLock::default(), lives: Mutex::default() }
    }

    /// Creates the schema of the store.
    pub(super) fn migrate(&self) {
        let migrated = self.program(&["migrate", "--config", CONFIG], 0).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }

    pub(super) fn address(&self) -> Option<Address> {
        self.address.read().unwrap().clone()
    }

    pub(super) fn lives(&self) -> Vec<Life> {
        self.lives.lock().unwrap().clone()
    }

    /// Starts a process. While there is no database it ends by itself, and another one is started.
    pub(super) async fn start(&self) -> Process {
        loop {
            let mut process = self.spawn();
            match self.listens(&mut process).await {
                Some(url) => {
                    *self.address.write().unwrap() = Some(Address { life: process.life, url });
                    return process;
                }
                None => {
                    process.child.wait().unwrap();
                    self.ends(&process, Some(Stop::Refuse));
                }
            }
            pass(Duration::from_millis(200)).await;
        }
    }

    /// Starts a process, to be killed while it starts.
    pub(super) fn spawn(&self) -> Process {
        let log = File::options().create(true).append(true).open(self.folder.join(LOG)).unwrap();
        let mut lives = self.lives.lock().unwrap();
        let mut serve = self.program(&["serve", "--json", "--config", CONFIG], lives.len());
        lives.push(Life { stopped: None, ended: None, frozen: Vec::new() });
        Process { child: serve.stdout(Stdio::piped()).stderr(log).spawn().unwrap(), life: lives.len() - 1 }
    }

    fn program(&self, args: &[&str], life: usize) -> Command {
        let mut program = program(&self.folder, args);
        let query = query(self.number, life);
        program.envs(self.token_urls.iter().map(|(name, url)| (name, format!("{url}?{query}"))));
        program
    }

    /// Waits until it says where it listens; `None` if it ends instead.
    async fn listens(&self, process: &mut Process) -> Option<String> {
        let mut lines = BufReader::new(process.child.stdout.take().unwrap());
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            lines.read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(STARTS_WITHIN, line).await.expect("it starts, or ends").unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).ok()?;
        Some(line["serving"][0].as_str().unwrap().to_owned())
    }

    /// SIGKILL.
    pub(super) fn kill(&self, mut process: Process) {
        assert!(process.child.try_wait().unwrap().is_none(), "replica {} ended by itself", self.number);
        self.stopping(&process, Stop::Kill);
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        self.ends(&process, None);
    }

    /// SIGKILL, also if it has ended by itself, because there was no database.
    pub(super) fn kill_starting(&self, mut process: Process) {
        self.stopping(&process, Stop::Kill);
        process.child.kill().ok();
        process.child.wait().unwrap();
        self.ends(&process, None);
    }

    /// SIGTERM: it ends by itself, and well.
    pub(super) async fn terminate(&self, mut process: Process) {
        self.stopping(&process, Stop::Terminate);
        signal("TERM", process.child.id());
        let latest = now() + STOPS_WITHIN;
        let ended = loop {
            if let Some(ended) = process.child.try_wait().unwrap() {
                break ended;
            }
            assert!(now() < latest, "replica {} was terminated and does not end", self.number);
            pass(Duration::from_millis(10)).await;
        };
        assert!(ended.success(), "replica {} was terminated and did not end well: {ended}", self.number);
        self.ends(&process, None);
    }

    /// SIGSTOP: it does nothing at all.
    pub(super) fn freeze(&self, process: &Process) {
        self.change(process, |life| life.frozen.push((now(), None)));
        signal("STOP", process.child.id());
    }

    /// SIGCONT: it goes on.
    pub(super) fn thaw(&self, process: &Process) {
        self.change(process, |life| {
            if let Some((_, until)) = life.frozen.last_mut() {
                until.get_or_insert(now());
            }
        });
        signal("CONT", process.child.id());
    }

    fn stopping(&self, process: &Process, how: Stop) {
        *self.address.write().unwrap() = None;
        self.change(process, |life| life.stopped = Some((how, now())));
    }

    fn ends(&self, process: &Process, how: Option<Stop>) {
        self.change(process, |life| {
            let at = now();
            life.stopped = life.stopped.or(how.map(|how| (how, at)));
            life.ended = Some(at);
        });
    }

    fn change(&self, process: &Process, change: impl FnOnce(&mut Life)) {
        change(&mut self.lives.lock().unwrap()[process.life]);
    }

    /// Nothing that it logged is a secret or a crash.
    pub(super) fn judge_the_log(&self) {
        let log = fs::read(self.folder.join(LOG)).unwrap();
        let log = String::from_utf8_lossy(&log);
        let bad = log.lines().position(|line| line.contains("ts-test-secret-") || line.contains("panicked at"));
        assert_eq!(bad, None, "replica {} logs secrets, or crashes", self.number);
        assert!(log.contains("stopped"), "the log is looked at");
    }
}

/// What the servers have in common.
pub(super) struct Common<'a> {
    pub(super) store: String,
    pub(super) keys: &'a Path,
    /// The section of the key.
    pub(super) api_key: &'a str,
    pub(super) providers: &'a [Provider],
}

/// Makes an API key: the section for the configuration, and the key.
pub(super) fn api_key(folder: &Path) -> (String, String) {
    let made = ["apikey", "new", "applications", "--scope", "token", "--scope", "grant", "--scope", "admin", "--json"];
    let mut command: Command = program(folder, &made);
    let made: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    (made["section"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

impl Life {
    /// How long the process ran, without the times in which it was frozen.
    pub(super) fn ran(&self, from: SystemTime, until: SystemTime) -> Duration {
        let between = |from: SystemTime, until: SystemTime| until.duration_since(from).unwrap_or_default();
        between(from, until).saturating_sub(self.froze(from, until))
    }

    /// How long it was frozen.
    pub(super) fn froze(&self, from: SystemTime, until: SystemTime) -> Duration {
        let of = |&(stopped, went_on): &(SystemTime, Option<SystemTime>)| {
            let went_on = went_on.or(self.ended).unwrap_or(until);
            went_on.min(until).duration_since(stopped.max(from)).unwrap_or_default()
        };
        self.frozen.iter().map(of).sum()
    }

    /// The times of being frozen that ended between these times.
    pub(super) fn thawed(&self, from: SystemTime, until: SystemTime) -> impl Iterator<Item = (SystemTime, SystemTime)> {
        let ended = self.frozen.iter().filter_map(|(stopped, went_on)| Some((*stopped, (*went_on)?)));
        ended.filter(move |(_, went_on)| (from..=until).contains(went_on))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
