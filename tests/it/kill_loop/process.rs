//! The program that is killed, `token-supervisor serve`, and the applications that ask it. `Process` is all that the
//! loop knows of them.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use serde_json::Value;
use token_supervisor::{RefreshToken, TokenKey, testing::Kind};

use super::{LIMIT, disk::Disk, providers::Providers, users::Users};

/// How long after a kill a request may still be processed, and with it how long a doubt lasts at least.
pub(super) const SETTLE: Duration = Duration::from_millis(400);

/// What is told by applications, and of the program.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// It answers.
    Ready,
    /// A caller was given a token.
    Seen { grant: usize, generation: u64 },
    /// A caller was told to send the user through consent.
    ReconnectRequired { grant: usize, reason: String },
    /// A caller was told what must not happen here.
    Failed { grant: usize, error: String },
    /// A caller got no answer, though the request may have been `under_way`, and asks no more.
    CutOff { grant: usize, under_way: bool, error: String },
}

/// How the program is run, the same in every life.
pub(super) struct Program {
    folder: PathBuf,
    pub(super) api_key: String,
    /// Both sides name a grant by its index here.
    pub(super) grants: Vec<TokenKey>,
}

impl Program {
    /// Configures it for these files and identity providers.
    pub(super) fn new(disk: &Disk, providers: &Providers, grants: Vec<TokenKey>) -> Self {
        let mut program = Self { folder: disk.folder().to_owned(), api_key: String::new(), grants };
        let made = ["apikey", "new", "applications", "--scope", "token", "--scope", "grant", "--json"];
        let made: Value = serde_json::from_slice(&program.command(&made).output().unwrap().stdout).unwrap();
        made["key"].as_str().unwrap().clone_into(&mut program.api_key);
        let config = program.config(disk, providers, made["section"].as_str().unwrap());
        fs::write(program.folder.join(CONFIG), config).unwrap();
        program
    }

    /// Only `settle` delays life after a kill. The others are as in production or long enough that no request ends in
    /// this life: what is lost here is lost by kills alone.
    fn config(&self, disk: &Disk, providers: &Providers, api_key: &str) -> String {
        let (store, socket, settle) = (disk.store(), self.folder.join(SOCKET), SETTLE.as_secs_f64());
        let mut config = format!(
            "[server]\nbind = [\"127.0.0.1:0\", \"unix:{}\"]\n{api_key}\n\
             [store]\nurl = \"sqlite://{}\"\n\
             [keyring]\nfile = \"{}\"\n\
             [refresh]\nsettle_seconds = {settle}\nlease_seconds = 1\n\
             attempt_timeout_seconds = 60\npatience_seconds = 60\n",
            socket.display(),
            store.display(),
            disk.keys().display(),
        );
        for (name, sim) in &providers.all {
            let profile = sim.profile();
            config += &format!(
                "[idp.{name}]\npreset = \"oauth2\"\ntoken_url = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\n\
                 rotation = \"{}\"\nreuse_grace_seconds = {}\nmax_concurrency = 64\n",
                sim.token_url(),
                profile.client_id,
                profile.client_secret.expose_secret(),
                if profile.kind == Kind::NotRotating { "never" } else { "sometimes" },
                profile.kind.grace().unwrap_or_default().as_secs(),
            );
        }
        config
    }

    /// In its folder, and nothing of the machine's environment.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_token-supervisor"));
        command.args(args).current_dir(&self.folder).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// How many answers the running process has in its journal and not in the store, as it says.
    pub(super) fn journaled(&self) -> usize {
        let mut stream = UnixStream::connect(self.folder.join(SOCKET)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).unwrap();
        let mut pending = metrics.lines().filter_map(|line| line.strip_prefix("token_supervisor_journal_pending "));
        pending.next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count: {metrics}"))
    }

    /// For what the next process logs. The log of the last one stays beside it.
    fn next_log(&self) -> File {
        let log = self.folder.join(LOG);
        if log.exists() {
            self.judge_the_log();
            fs::rename(&log, self.folder.join("log.before")).unwrap();
        }
        File::create(log).unwrap()
    }

    /// What the last process logged: nothing in it is a secret or a crash.
    pub(super) fn judge_the_log(&self) -> String {
        let log = fs::read(self.folder.join(LOG)).unwrap();
        let log = String::from_utf8_lossy(&log);
        let bad = log.lines().position(|line| line.contains("ts-test-secret-") || line.contains("panicked at"));
        assert_eq!(bad, None, "it logs secrets, or crashes");
        log.into_owned()
    }
}

const CONFIG: &str = "config.toml";
const SOCKET: &str = "ts.sock";
const LOG: &str = "log";

/// The running program, and once it listens those who ask it. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    /// Where it listens, once it does; `None` when nobody is to ask it any more.
    listens: Option<Receiver<Vec<String>>>,
    users: Option<Users>,
    events: Receiver<Event>,
    teller: Sender<Event>,
    killed: bool,
}

impl Process {
    pub(super) fn start(program: &Program) -> Self {
        let mut serve = program.command(&["serve", "--json", "--config", CONFIG]);
        let mut child = serve.stderr(program.next_log()).spawn().unwrap();
        let (said, listens) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Cut off by the kill it is nothing.
                let Ok(line) = serde_json::from_str::<Value>(&line) else { return };
                let addresses = line["serving"].as_array().unwrap().iter().map(|at| at.as_str().unwrap().to_owned());
                said.send(addresses.collect()).ok();
            }
        });
        let (teller, events) = channel();
        Self { child, listens: Some(listens), users: None, events, teller, killed: false }
    }

    /// What was told since the last look. Applications come as soon as it listens.
    pub(super) fn events(&mut self, program: &Program) -> Vec<Event> {
        let addresses = self.listens.as_ref().and_then(|listens| listens.try_recv().ok());
        if let Some(addresses) = &addresses {
            self.users = Some(Users::start(program, addresses, &self.teller));
        }
        addresses.map(|_| Event::Ready).into_iter().chain(self.events.try_iter()).collect()
    }

    /// Hands in what a consent gave. A process that has died does not hear it.
    pub(super) fn connect(&self, grant: usize, token: RefreshToken) {
        if let Some(users) = &self.users {
            users.connect(grant, token);
        }
    }

    pub(super) fn was_killed(&self) -> bool {
        self.killed
    }

    /// Lets it do nothing at all until it goes on.
    pub(super) fn pause(&self) {
        self.signal("STOP");
    }

    pub(super) fn go_on(&self) {
        self.signal("CONT");
    }

    /// SIGKILL. What it told until then is still there.
    pub(super) fn kill(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the program ends when it is killed, and not before");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.killed = true;
        // The client of a rare caller never hears that its connection is gone.
        self.leave(Duration::from_secs(1));
    }

    /// Lets it end by itself, once nobody asks any more.
    pub(super) fn stop(&mut self) {
        assert!(self.leave(LIMIT), "every caller is answered");
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success(), "the program ends well when it is not killed");
    }

    fn leave(&mut self, within: Duration) -> bool {
        self.listens = None;
        self.users.take().is_none_or(|users| users.leave(within))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
