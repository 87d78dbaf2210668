//! A private PostgreSQL server in a temporary folder, for the tests of one process.
//!
//! A shell waits beside the server until this process ends, however it ends, stops the server by its process id, and deletes the
//! folder.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::skip;

/// A server of the tests' own.
pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    /// Root cannot run a server: another user does.
    user: Option<u32>,
    running: Mutex<Option<Child>>,
    settings: Vec<String>,
    /// Of its Unix socket, and of loopback where it listens there.
    port: u16,
}

/// Says that the calling test does nothing if there is no PostgreSQL on this machine, and returns the server that all tests of
/// this process share otherwise.
pub(crate) fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let shared = SHARED.get_or_init(Server::start).as_ref();
    if shared.is_none() {
        skip::without("postgres", "PostgreSQL's programs (postgres, initdb) are not installed");
    }
    shared
}

/// What makes a server fast and its data worthless.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "full_page_writes=off",
    "max_connections=400",
    "shared_buffers=64MB",
    "autovacuum=off",
    "log_min_messages=warning",
];

/// Stops the server when the standard input ends. Before that, the line `keep` keeps the folder; `crash` does so, too, and lets
/// the server end at once, as after a crash.
const SCRIPT: &str = "trap '' INT TERM HUP; folder=$1; shift; \"$@\" > \"$folder/log\" 2>&1 & server=$!; \
                      read -r word; signal=INT; [ \"$word\" != crash ] || signal=QUIT; kill -$signal $server; \
                      wait $server; [ -n \"$word\" ] || rm -rf \"$folder\"";

impl Server {
    /// Creates and starts a server, if its programs are installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(5_432, |_| vec!["listen_addresses=".to_owned()])
    }

    /// Creates and starts a server that also listens on loopback, at a free port. `prepare` creates files in the server's folder
    /// and returns settings.
    pub(crate) fn start_on_loopback(prepare: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_with(port, |folder| {
            let mut settings = prepare(folder);
            settings.push("listen_addresses=127.0.0.1".to_owned());
            settings
        })
    }

    fn start_with(port: u16, prepare: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("ts-pg-").tempdir().unwrap().keep();
        let user = (fs::metadata("/proc/self").unwrap().uid() == 0).then(unprivileged);
        let settings = prepare(&folder);
        if let Some(user) = user {
            let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
            for path in files.chain([folder.clone()]) {
                std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
            }
        }
        let server = Self { folder, programs, user, running: Mutex::default(), settings, port };
        let data = server.folder.join("data");
        // Names are compared byte by byte, also where the database sorts as people do.
        let created = server
            .program("initdb")
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=owner", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--locale-provider=icu", "--icu-locale=en-US"])
            .output()
            .unwrap();
        assert!(created.status.success(), "initdb: {}", String::from_utf8_lossy(&created.stderr));
        server.run();
        Some(server)
    }

    /// Copies the server while it runs: a standby that lacks what is written from here on. It has the same address, begins another
    /// timeline, and does not run yet.
    pub(crate) fn standby(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("ts-pg-").tempdir().unwrap().keep();
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&folder, Some(user), Some(user)).unwrap();
        }
        let data = folder.join("data");
        let mut copy = self.program("pg_basebackup");
        copy.args(["--username=owner", "--no-sync", "--checkpoint=fast", "--port", &self.port.to_string(), "--host"]);
        let copied = copy.arg(&self.folder).arg("--pgdata").arg(&data).output().unwrap();
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        // A recovery that ends with what is there.
        fs::write(data.join("recovery.signal"), []).unwrap();
        let settings = self.settings.iter().cloned().chain(["restore_command=false".to_owned()]).collect();
        let (programs, user, running) = (self.programs.clone(), self.user, Mutex::default());
        Self { folder, programs, user, running, settings, port: self.port }
    }

    /// Starts the server, also after it was stopped.
    pub(crate) fn run(&self) {
        let mut server = Command::new("sh");
        server.args(["-c", SCRIPT, "sh"]).arg(&self.folder);
        let program = self.program("postgres");
        server.arg(program.get_program()).args(program.get_args());
        server.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        server.args(["-p", &self.port.to_string()]);
        for setting in SETTINGS.into_iter().chain(self.settings.iter().map(String::as_str)) {
            server.args(["-c", setting]);
        }
        let child = server.current_dir("/").stdin(Stdio::piped()).spawn().unwrap();
        *self.running.lock().unwrap() = Some(child);
        let is_ready = || {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.args(["--quiet", "--port", &self.port.to_string(), "--host"]);
            ready.arg(&self.folder).status().unwrap().success()
        };
        for _ in 0..600 {
            if is_ready() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }

    /// Stops the server, which ends all connections. Its data stay.
    pub(crate) fn stop(&self) {
        self.end(b"keep\n");
    }

    /// Ends the server without the work of a shutdown. What it has acknowledged stays.
    pub(crate) fn crash(&self) {
        self.end(b"crash\n");
    }

    fn end(&self, how: &[u8]) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            child.stdin.take().unwrap().write_all(how).unwrap();
            child.wait().unwrap();
        }
    }

    /// Executes a statement in the schema of a store, as another program would.
    pub(crate) fn execute(&self, url: &str, statement: &str) {
        let schema = url.rsplit_once("schema=").unwrap().1;
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--quiet", "--username=owner", "--dbname=postgres", "--port", &self.port.to_string(), "--host"]);
        psql.stdout(Stdio::null())
            .arg(&self.folder)
            .args(["--command", &format!("SET search_path TO {schema}; {statement}")]);
        assert!(psql.status().unwrap().success(), "{statement}");
    }

    /// Returns the schema of a store and all that is in it, as statements.
    pub(crate) fn dump(&self, url: &str) -> Vec<u8> {
        let schema = url.rsplit_once("schema=").unwrap().1;
        let mut dump = Command::new(self.programs.join("pg_dump"));
        dump.args(["--username=owner", "--dbname=postgres", "--port", &self.port.to_string(), "--host"]);
        let dumped = dump.arg(&self.folder).args(["--schema", schema]).output().unwrap();
        assert!(dumped.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dumped.stderr));
        dumped.stdout
    }

    /// Puts a store back as it was when it was dumped.
    pub(crate) fn load(&self, url: &str, dump: &Path) {
        let schema = url.rsplit_once("schema=").unwrap().1;
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--quiet", "--username=owner", "--dbname=postgres", "--port", &self.port.to_string(), "--host"]);
        psql.stdout(Stdio::null()).arg(&self.folder).args(["--set", "ON_ERROR_STOP=1"]);
        let drop = format!("SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE");
        psql.args(["--command", &drop, "--file"]).arg(dump);
        assert!(psql.status().unwrap().success(), "the dump is not loaded");
    }

    /// The URL of an empty store on this server, by its Unix socket.
    pub(crate) fn url(&self) -> String {
        self.url_at(&self.folder.to_str().unwrap().replace('/', "%2F"))
    }

    /// The same, by this host name.
    pub(crate) fn url_at(&self, host: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (port, number) = (self.port, NUMBER.fetch_add(1, Ordering::Relaxed));
        format!("postgres://owner@{host}:{port}/postgres?schema=store_{number}")
    }

    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        match self.user {
            None => Command::new(path),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups").arg(path);
                command
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            // The end of its standard input is the sign.
            drop(child.stdin.take());
            child.wait().ok();
        }
    }
}

/// The folder with the server's programs.
fn programs() -> Option<PathBuf> {
    let has_all = |folder: &Path| {
        ["postgres", "initdb", "pg_basebackup", "pg_isready", "psql", "pg_dump"]
            .iter()
            .all(|name| folder.join(name).exists())
    };
    let path = skip::variable("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).filter_map(|folder| folder.join("postgres").canonicalize().ok());
    let mut folders: Vec<_> = named.filter_map(|program| program.parent().map(Path::to_owned)).collect();
    // Where Debian has them: the newest version.
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    versions.sort_by_key(|version| version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    folders.extend(versions.iter().rev().map(|version| version.path().join("bin")));
    folders.into_iter().find(|folder| has_all(folder))
}

/// The id of the user who runs the server instead of root.
fn unprivileged() -> u32 {
    const NOBODY: u32 = 65_534;
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let postgres = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    postgres.and_then(|line| line.split(':').nth(1)?.parse().ok()).unwrap_or(NOBODY)
}
