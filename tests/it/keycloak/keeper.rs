//! Our own process: a supervisor under many readers, told to stop by SIGTERM, reporting into a file.
//!
//! It is this test binary again, asked for the one test that is [`run_if_asked`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use token_supervisor::{
    Acquire, Builder, Error, Keyring, RefreshSettings, TokenKey, TokenSupervisor, presets::keycloak,
};
use tokio::signal::unix::{self, SignalKind};

use super::server;
use crate::{
    real_time::{looked, now, pass, polled},
    skip,
    support::signal,
};

pub(super) const READERS: usize = 200;
/// How long a reader waits for a token: most of them as long as by default, some are in a hurry.
const PATIENT: Duration = Duration::from_secs(10);
const HURRIED: Duration = Duration::from_secs(2);
/// Every so many readers one is in a hurry, and one really uses the token.
const HURRIED_EACH: usize = 4;
const USES_EACH: usize = 40;
/// Between two reads of one reader.
const PAUSE: Duration = Duration::from_millis(50);
/// A token that is used must live at least this long (ms): its way to the server is not ours to judge.
const USABLE: u64 = 500;

const CONFIGURATION: &str = "TOKEN_SUPERVISOR_TEST_KEEPER";

/// What a keeper is told.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Configuration {
    pub(super) url: String,
    pub(super) secret: String,
    /// The store, the keys, the report.
    pub(super) folder: PathBuf,
}

/// What a keeper has seen so far.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) reads: u64,
    /// Reads by the error they ended in, until it was told to stop.
    pub(super) errors: BTreeMap<String, Failures>,
    /// And from then on.
    pub(super) errors_while_stopping: BTreeMap<String, Failures>,
    /// Reads that gave a token whose `exp` had passed when they began.
    pub(super) expired_seen: u64,
    /// By how much an `exp` had passed when the reader had the token, at most; by how much an answer came after the
    /// reader's deadline; and how long the slowest took (ms).
    pub(super) expired_by: u64,
    pub(super) late_by: u64,
    pub(super) slowest: u64,
    /// For how long the machine held up a task that only ticks, at most (ms).
    pub(super) stalled: u64,
    /// Userinfo: accepted, refused, not answered; and how long the slowest took (ms).
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    pub(super) slowest_use: u64,
    pub(super) first_generation: u64,
    pub(super) generation: u64,
    /// When the generation was first seen (ms since 1970).
    pub(super) renewed_at: u64,
    /// Whether Keycloak is held, and nothing in flight.
    pub(super) held: bool,
    /// Of the grant's status.
    pub(super) last_errors: BTreeSet<String>,
    pub(super) states: BTreeSet<String>,
    /// Refreshes that the shutdown finished, and those it abandoned.
    pub(super) shutdown: Option<(usize, usize)>,
}

/// How often something failed, and when first and last (ms since 1970).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Failures {
    pub(super) count: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The key that is kept.
pub(super) fn key() -> TokenKey {
    TokenKey::at("sso").user("alice")
}

/// A supervisor on the files in `folder`.
pub(super) fn builder(folder: &Path, url: &str, secret: &str) -> Builder {
    let keys = folder.join("tokens.keys");
    if !keys.exists() {
        Keyring::generate().write_new(&keys).unwrap();
    }
    let seconds = Duration::from_secs;
    // Short, because everything here is near; but a Keycloak that has just started may take its time to answer, so
    // the patience is that of always.
    let refresh = RefreshSettings::default()
        .settle(seconds(2))
        .lease(seconds(3))
        .send_window(seconds(2))
        .connect_timeout(seconds(1))
        .attempt_timeout(seconds(5));
    TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.join("tokens.db").display()))
        .keyring(Keyring::from_file(&keys).unwrap())
        .refresh(refresh)
        .idp("sso", keycloak(url, "app", server::CLIENT, secret))
}

/// A keeper that runs. Dropping it kills it.
pub(super) struct Keeper {
    process: Child,
    report: PathBuf,
    said: PathBuf,
}

impl Keeper {
    /// Starts one; resolves when it has handed out a token.
    pub(super) async fn start(configuration: &Configuration) -> Self {
        let said = configuration.folder.join("keeper.log");
        let report = configuration.folder.join("report.json");
        std::fs::remove_file(&report).ok();
        let output = std::fs::File::create(&said).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keycloak::the_keeper_process", "--nocapture"])
            .env(CONFIGURATION, serde_json::to_string(configuration).unwrap())
            .stdin(Stdio::null())
            .stderr(output.try_clone().unwrap())
            .stdout(output)
            .spawn()
            .unwrap();
        let mut keeper = Self { process, report, said };
        keeper.sees("it hands out a token", Duration::from_secs(30), |report| report.reads > 0).await;
        keeper
    }

    /// What it has seen so far.
    pub(super) fn report(&self) -> Option<Report> {
        serde_json::from_slice(&std::fs::read(&self.report).ok()?).ok()
    }

    /// Waits until its report shows something.
    pub(super) async fn sees(&mut self, what: &str, within: Duration, shows: impl Fn(&Report) -> bool) -> Report {
        let seen = self.may_see(within, shows).await;
        seen.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
    }

    /// Waits whether its report shows something.
    pub(super) async fn may_see(&mut self, within: Duration, shows: impl Fn(&Report) -> bool) -> Option<Report> {
        let mut look = || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the keeper ended ({status}): {}", self.said());
            }
            self.report().filter(|report| shows(report))
        };
        looked(within, async || look()).await
    }

    /// SIGUSR2: holds Keycloak until nothing is in flight, or ends that.
    pub(super) async fn hold(&mut self, held: bool) {
        signal("USR2", self.process.id());
        self.sees("nothing is in flight", Duration::from_secs(60), |report| report.held == held).await;
    }

    /// SIGUSR1: what an operator does who does not want to wait until a backoff is over.
    pub(super) fn refresh_now(&self) {
        signal("USR1", self.process.id());
    }

    /// SIGTERM; what it has seen by its end.
    pub(super) async fn terminate(mut self) -> Report {
        signal("TERM", self.process.id());
        let ended =
            polled("it stops", Duration::from_secs(60), || self.process.try_wait().expect("it is our child")).await;
        assert!(ended.success(), "the keeper ended ({ended}): {}", self.said());
        self.report().expect("it reported")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The process itself.
pub(super) fn run_if_asked() {
    let Some(configuration) = skip::variable(CONFIGURATION) else { return };
    let configuration: Configuration = serde_json::from_str(&configuration).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(keep(configuration));
}

async fn keep(configuration: Configuration) {
    let mut terminate = unix::signal(SignalKind::terminate()).unwrap();
    let mut hurry = unix::signal(SignalKind::user_defined1()).unwrap();
    let mut hold = unix::signal(SignalKind::user_defined2()).unwrap();
    let supervisor = builder(&configuration.folder, &configuration.url, &configuration.secret).start().await.unwrap();
    let seen = Arc::new(Seen {
        report: Mutex::default(),
        stopping: AtomicBool::new(false),
        over: AtomicBool::new(false),
        userinfo: format!("{}/realms/app/protocol/openid-connect/userinfo", configuration.url),
        http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap(),
    });
    let readers: Vec<_> =
        (0..READERS).map(|number| tokio::spawn(read(number, supervisor.clone(), seen.clone()))).collect();
    tokio::spawn(note_stalls(seen.clone()));
    let reporter = tokio::spawn(report(supervisor.clone(), seen.clone(), configuration.folder.clone()));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = hurry.recv() => drop(supervisor.refresh_now(&key()).await),
            _ = hold.recv() => {
                let held = !seen.report.lock().unwrap().held;
                if held {
                    supervisor.hold_idp("sso", "a crash").await.unwrap();
                    while supervisor.idps()[0].refreshing > 0 {
                        pass(TICK).await;
                    }
                } else {
                    supervisor.release_idp("sso").await.unwrap();
                }
                seen.report.lock().unwrap().held = held;
            }
        }
    }
    // Readers go on: a server still answers its last requests while it stops.
    seen.stopping.store(true, Ordering::SeqCst);
    let shutdown = supervisor.shutdown(Duration::from_secs(20)).await;
    seen.report.lock().unwrap().shutdown = Some((shutdown.finished, shutdown.abandoned));
    seen.over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    reporter.await.unwrap();
}

/// What the tasks of a keeper share.
struct Seen {
    report: Mutex<Report>,
    stopping: AtomicBool,
    over: AtomicBool,
    userinfo: String,
    http: reqwest::Client,
}

const TICK: Duration = Duration::from_millis(10);

async fn note_stalls(seen: Arc<Seen>) {
    loop {
        let before = now();
        pass(TICK).await;
        let stalled = now().saturating_sub(before + TICK.as_millis() as u64);
        let mut report = seen.report.lock().unwrap();
        report.stalled = report.stalled.max(stalled);
    }
}

async fn read(number: usize, supervisor: TokenSupervisor, seen: Arc<Seen>) {
    let key = key();
    let deadline = if number.is_multiple_of(HURRIED_EACH) { HURRIED } else { PATIENT };
    let mut uses = 0;
    while !seen.over.load(Ordering::SeqCst) {
        let asked = now();
        let got = if deadline == PATIENT {
            supervisor.token(&key).await
        } else {
            supervisor.call(Acquire::new(&key).timeout(deadline)).await
        };
        let at = now();
        let expires = got.as_ref().map(|token| ends_at(token.access_token().expose_secret())).unwrap_or(u64::MAX);
        seen.note(at - asked, deadline, at, expires, got.as_ref().map(|token| token.generation().get()));
        if let Ok(token) = &got
            && number.is_multiple_of(USES_EACH)
            && uses % 10 == 0
            && expires > at + USABLE
        {
            seen.use_it(token.access_token().expose_secret(), expires).await;
        }
        uses += 1;
        pass(PAUSE).await;
    }
}

impl Seen {
    fn note(&self, took: u64, deadline: Duration, at: u64, expires: u64, got: Result<u64, &Error>) {
        let stopping = self.stopping.load(Ordering::SeqCst);
        let mut report = self.report.lock().unwrap();
        report.reads += 1;
        report.slowest = report.slowest.max(took);
        report.late_by = report.late_by.max(took.saturating_sub(deadline.as_millis() as u64));
        match got {
            Ok(generation) => {
                // The lifetime of a consent's token counts from the connect, which is later.
                if generation > 1 {
                    report.expired_seen += u64::from(at - took >= expires);
                    report.expired_by = report.expired_by.max(at.saturating_sub(expires));
                }
                if report.first_generation == 0 {
                    report.first_generation = generation;
                }
                if generation > report.generation {
                    (report.generation, report.renewed_at) = (generation, at);
                }
            }
            Err(error) => {
                let name = match error {
                    Error::Unavailable { cause, .. } => format!("unavailable/{cause}"),
                    error => error.code().to_owned(),
                };
                let errors = if stopping { &mut report.errors_while_stopping } else { &mut report.errors };
                let failures = errors.entry(name).or_insert(Failures { first: at, ..Failures::default() });
                failures.count += 1;
                failures.last = at;
            }
        }
    }

    async fn use_it(&self, access_token: &str, expires: u64) {
        let asked = now();
        let answer = self.http.get(&self.userinfo).bearer_auth(access_token).send().await;
        let mut report = self.report.lock().unwrap();
        report.slowest_use = report.slowest_use.max(now() - asked);
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(200) => report.accepted += 1,
            // A refusal counts unless the token had ended by the time of the answer.
            Ok(401) if now() < expires => report.refused += 1,
            _ => report.unanswered += 1,
        }
    }
}

/// Writes what has been seen, again and again.
async fn report(supervisor: TokenSupervisor, seen: Arc<Seen>, folder: PathBuf) {
    let (path, draft) = (folder.join("report.json"), folder.join("report.draft"));
    loop {
        let last = seen.over.load(Ordering::SeqCst);
        if let Ok(status) = supervisor.status(&key()).await {
            let mut report = seen.report.lock().unwrap();
            report.states.insert(status.state.as_str().to_owned());
            report.last_errors.extend(status.last_error);
        }
        let text = serde_json::to_vec(&*seen.report.lock().unwrap()).unwrap();
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        if last {
            return;
        }
        pass(Duration::from_millis(30)).await;
    }
}

/// When a token of Keycloak ends, by what it says itself (ms since 1970).
fn ends_at(access_token: &str) -> u64 {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = access_token.split('.').nth(1).expect("Keycloak's access tokens are JWTs");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("JWTs are base64url");
    serde_json::from_slice::<Claims>(&payload).expect("with an end").exp * 1_000
}
