//! The process that is killed, and how its parent talks to it: orders on its standard input, events on its
//! standard error, a line of JSON each. `Process` is all that the loop knows of it: another program that does
//! the same (a server, asked by HTTP) takes its place here.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use token_supervisor::{
    Error, Generation, Grant, Idp, Keyring, RefreshSettings, Rotation, TokenKey, TokenSupervisor, testing::Profile,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::skip::variable;

/// What the process is told at its start.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) folder: String,
    pub(super) idps: Vec<Provider>,
    /// User and identity provider of each grant; both sides name a grant by its index here.
    pub(super) grants: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) token_url: String,
    pub(super) grace: Duration,
    pub(super) never_rotates: bool,
}

/// What the process tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The supervisor runs.
    Ready,
    /// A caller was given a token.
    Seen {
        grant: usize,
        generation: u64,
    },
    /// A caller was told to send the user through consent.
    ReconnectRequired {
        grant: usize,
        reason: String,
    },
    /// A caller was told what must not happen here.
    Failed {
        grant: usize,
        error: String,
    },
    Stopped {
        abandoned: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Consent {
    grant: usize,
    refresh_token: String,
}

/// How long after a kill a request may still be processed, and with it how long a doubt lasts at least.
pub(super) const SETTLE: Duration = Duration::from_millis(400);

/// How long access tokens live: longer than requests are held, so that what comes late is still good; and what is refused
/// right after its issue is replaced after a quarter of it.
pub(super) const LIFE: Duration = Duration::from_secs(6);

const TASK: &str = "TOKEN_SUPERVISOR_TEST_KILL_LOOP_CHILD";

/// The running process. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    events: Receiver<Event>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    pub(super) fn start(task: &Task) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_loop::child::the_child", "--nocapture"])
            .env(TASK, serde_json::to_string(task).unwrap())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (teller, events) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(event) => drop(teller.send(event)),
                    Err(_) if line.starts_with(['{', '"']) => {} // cut off by the kill
                    Err(_) => eprintln!("the process said: {line}"),
                }
            }
        });
        Self { orders: child.stdin.take(), child, events, reader: Some(reader) }
    }

    /// What was told since the last look.
    pub(super) fn events(&self) -> Vec<Event> {
        self.events.try_iter().collect()
    }

    /// Hands in what a consent gave. A process that has died does not hear it.
    pub(super) fn connect(&mut self, grant: usize, refresh_token: &str) {
        let consent = Consent { grant, refresh_token: refresh_token.to_owned() };
        let line = serde_json::to_string(&consent).unwrap();
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{line}").ok();
        }
    }

    /// Lets it do nothing at all until it goes on.
    pub(super) fn pause(&self) {
        self.signal("STOP");
    }

    pub(super) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// SIGKILL. What it told until then is still there.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.heard_out();
    }

    /// Lets it end by itself.
    pub(super) fn stop(&mut self) {
        drop(self.orders.take());
        self.heard_out();
        assert!(self.child.wait().unwrap().success(), "the process ends well when it is not killed");
    }

    fn heard_out(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Not a test: the process that is killed. Does nothing unless it is told to.
#[tokio::test]
async fn the_child() {
    let Some(task) = variable(TASK) else { return };
    let task: Task = serde_json::from_str(&task).unwrap();
    let client = Profile::oauth2(token_supervisor::testing::Kind::Strict);
    // Only `settle` delays life after a kill. The others are as in production or long enough that no request
    // ends in this life: what is lost here is lost by kills alone.
    let times = RefreshSettings::default().settle(SETTLE).lease(Duration::from_secs(1));
    let times = times.attempt_timeout(Duration::from_secs(60)).patience(Duration::from_secs(60));
    let mut builder = TokenSupervisor::builder()
        .store(format!("sqlite://{}/tokens.db", task.folder))
        .keyring(Keyring::from_file(format!("{}/tokens.keys", task.folder)).unwrap())
        .refresh(times);
    for Provider { name, token_url, grace, never_rotates } in task.idps {
        let idp = Idp::oauth2(token_url, client.client_id.clone(), client.client_secret.clone());
        let rotation = if never_rotates { Rotation::Never } else { Rotation::Sometimes };
        builder = builder.idp(name, idp.reuse_grace(grace).rotation(rotation).max_concurrency(64));
    }
    let supervisor = builder.start().await.unwrap();
    tell(&Event::Ready);
    let mut consents = Vec::new();
    for (grant, (user, idp)) in task.grants.into_iter().enumerate() {
        let (sender, consented) = unbounded_channel();
        consents.push(sender);
        tokio::spawn(use_grant(supervisor.clone(), TokenKey::new(user, idp), grant, consented));
    }
    take_orders(consents).await;
    let stopped = supervisor.shutdown(Duration::from_secs(20)).await;
    tell(&Event::Stopped { abandoned: stopped.abandoned });
}

/// An application whose resource server refuses every token: there is always a refresh to do.
async fn use_grant(
    supervisor: TokenSupervisor,
    key: TokenKey,
    grant: usize,
    mut consented: UnboundedReceiver<Consent>,
) {
    let mut seen = None;
    loop {
        match supervisor.token(&key).await {
            Ok(token) => {
                let generation = token.generation();
                if seen.replace(generation) != Some(generation) {
                    tell(&Event::Seen { grant, generation: generation.get() });
                } else {
                    pause(Duration::from_millis(5)).await;
                }
                reject(&supervisor, &key, generation).await;
            }
            Err(Error::ShutDown) => return,
            Err(error @ (Error::ReconnectRequired { .. } | Error::NotConnected)) => {
                tell(&Event::ReconnectRequired { grant, reason: error.to_string() });
                let Some(consent) = consented.recv().await else { return };
                connect(&supervisor, &key, grant, &consent.refresh_token).await;
            }
            Err(error) if error.is_transient() => {
                let soon = Duration::from_millis(50);
                pause(error.retry_after().map_or(soon, |after| after.min(soon))).await;
            }
            Err(error) => return tell(&Event::Failed { grant, error: error.to_string() }),
        }
    }
}

async fn reject(supervisor: &TokenSupervisor, key: &TokenKey, generation: Generation) {
    // Should this fail, the token is served and refused once more.
    supervisor.report_rejected(key, generation).await.ok();
}

async fn connect(supervisor: &TokenSupervisor, key: &TokenKey, grant: usize, refresh_token: &str) {
    loop {
        let given = Grant::new("ts-test-secret-of-the-consent").refresh_token(refresh_token);
        match supervisor.connect(key, given.expires_in(LIFE)).await {
            Ok(_) => return,
            Err(error) if error.is_transient() => pause(Duration::from_millis(20)).await,
            Err(error) => return tell(&Event::Failed { grant, error: error.to_string() }),
        }
    }
}

/// Until the parent closes its end.
async fn take_orders(consents: Vec<UnboundedSender<Consent>>) {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let consent: Consent = serde_json::from_str(&line).unwrap();
            consents[consent.grant].send(consent).ok();
        }
        drop(ended);
    });
    end.await.ok();
}

/// One write for each event: a kill leaves whole lines, or one that is cut off.
fn tell(event: &Event) {
    let line = serde_json::to_string(event).unwrap() + "\n";
    std::io::stderr().lock().write_all(line.as_bytes()).ok();
}

async fn pause(duration: Duration) {
    tokio::time::timeout(duration, std::future::pending::<()>()).await.ok();
}
