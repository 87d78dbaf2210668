//! The token route of the real server in a process of its own, beside a bare actix-web route in another process that
//! responds with the same bytes.

use std::{
    fs::DirEntry,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::header::{CACHE_CONTROL, ETAG},
    web,
};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Size,
    harness::{figure, median, now, row, short},
    instructions::{callgrind, collected},
};

/// As many workers as the server has.
const WORKERS: usize = 2;
const CONNECTIONS: usize = 32;
const ROUNDS: usize = 5;

pub(crate) async fn run(size: Size) {
    let ours = Server::ours();
    let (_, response) = Connection::open(&ours).await.ask().await;
    let body = response.split("\r\n\r\n").nth(1).expect("a body").to_owned();
    let bare = Server::bare(&body);
    // A single connection mostly waits for the other side: an eighth of the requests takes as long.
    let alone = ("a token over HTTP, bare actix-web", 1, size.requests / 8, "-");
    let together = ("the same, 32 connections", CONNECTIONS, size.requests, "<= 1.25");
    for (what, connections, requests, bar) in [alone, together] {
        let (mut measured, mut yardstick) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            measured.push(load(&ours, connections, requests).await);
            yardstick.push(load(&bare, connections, requests).await);
        }
        let each = |loads: &[Load]| median(loads.iter().map(|load| load.each).collect());
        row(what, (each(&measured), each(&yardstick)), bar);
        let slowest = |loads: &[Load]| short(median(loads.iter().map(|load| load.p99).collect()));
        figure("  99th percentile, ours", &slowest(&measured), "-");
        figure("  99th percentile, bare", &slowest(&yardstick), "-");
        let processor = |loads: &[Load]| median(loads.iter().map(|load| load.processor).collect());
        row("  CPU time of the server, bare actix-web", (processor(&measured), processor(&yardstick)), "-");
    }
}

/// The times of a round of requests.
struct Load {
    /// The time of the round divided by its requests.
    each: Duration,
    p99: Duration,
    /// The CPU time that the server spent on one request.
    processor: Duration,
}

/// Returns the instructions of a server from its start to its end, with this many requests between.
pub(crate) async fn instructions(requests: usize) -> u64 {
    let mut log = PathBuf::new();
    let mut server = Server::ours_by(|folder, program| {
        log = folder.join("callgrind.log");
        callgrind(&log, &[], program)
    });
    load(&server, 1, requests).await;
    let process = Pid::from_child(&server.child);
    kill_process(process, Signal::TERM).expect("the server runs");
    assert!(server.child.wait().expect("the server").success(), "the server ends in order");
    collected(&log)
}

/// Sends `requests` requests, one after the other on each connection.
async fn load(server: &Server, connections: usize, requests: usize) -> Load {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(server).await);
    }
    let (started, before) = (now(), server.processor());
    let all = opened.into_iter().map(|mut connection| {
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            for _ in 0..requests / connections {
                latencies.push(connection.ask().await.0);
            }
            latencies
        })
    });
    let mut latencies: Vec<_> = join_all(all).await.into_iter().flat_map(|of_one| of_one.expect("responses")).collect();
    let [each, processor] = [started.elapsed(), server.processor() - before].map(|all| all / latencies.len() as u32);
    latencies.sort_unstable();
    Load { each, p99: latencies[latencies.len() * 99 / 100], processor }
}

/// A connection that is kept alive.
struct Connection {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let request = format!(
            "GET /v1/grants/gitlab/alice/token HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            server.address, server.key
        );
        Self { stream, request, buffer: Vec::new() }
    }

    /// Sends the request and returns the time and the response.
    async fn ask(&mut self) -> (Duration, String) {
        let started = now();
        self.stream.write_all(self.request.as_bytes()).await.expect("a request");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("a response");
            assert!(read > 0, "the response broke off");
            if let Some(response) = whole(&self.buffer) {
                assert!(response.starts_with("HTTP/1.1 200"), "the response is a token");
                return (started.elapsed(), response.to_owned());
            }
        }
    }
}

/// Returns the response once it is complete.
fn whole(buffer: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(buffer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length: Option<usize> =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (body.len() == length?).then_some(text)
}

/// A server process, killed when dropped.
struct Server {
    child: Child,
    address: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts `token-supervisor serve` with one grant that is valid for a day.
    fn ours() -> Self {
        Self::ours_by(|_, program| Command::new(program))
    }

    /// Starts it by this command, which is given a folder for what it writes, and the path of the program.
    fn ours_by(start: impl FnOnce(&Path, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        program(folder.path(), &["init", "--idp", "gitlab"]).output().expect("init");
        let key = std::fs::read_to_string(folder.path().join("token-supervisor.api-key")).expect("an API key");
        let key = key.trim_end().to_owned();
        let mut connect = program(folder.path(), &["connect", "gitlab", "alice", "--stdin"]);
        let mut connect = connect.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("connect");
        let grant = br#"{"access_token":"ts-test-secret-0123456789abcdef","expires_in":86400,"scope":"api"}"#;
        connect.stdin.take().expect("its input").write_all(grant).expect("a grant");
        assert!(connect.wait().expect("connect").success());
        let serve = configured(start(folder.path(), Path::new(PROGRAM)), folder.path(), &["serve", "--json"]);
        Self::started(serve, folder, key, |line| {
            let serving: serde_json::Value = serde_json::from_slice(line).expect("the addresses");
            serving["serving"][0].as_str().expect("an address").trim_start_matches("http://").to_owned()
        })
    }

    /// Starts this program as the yardstick.
    fn bare(body: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--bare", body]);
        let folder = tempfile::tempdir().expect("a folder");
        Self::started(command, folder, "0".repeat(43), |line| String::from_utf8_lossy(line).trim().to_owned())
    }

    fn started(
        mut command: Command,
        folder: tempfile::TempDir,
        key: String,
        address: impl FnOnce(&[u8]) -> String,
    ) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a server");
        let mut line = Vec::new();
        BufReader::new(child.stdout.take().expect("its output")).read_until(b'\n', &mut line).expect("an address");
        Self { address: address(&line), child, key, _folder: folder }
    }

    /// The CPU time of its threads; zero where the system does not tell.
    fn processor(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let spent = |task: DirEntry| -> Option<u64> {
            std::fs::read_to_string(task.path().join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(spent).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_token-supervisor");

fn program(folder: &Path, args: &[&str]) -> Command {
    configured(Command::new(PROGRAM), folder, args)
}

fn configured(mut command: Command, folder: &Path, args: &[&str]) -> Command {
    command.args(args).current_dir(folder).env_clear();
    // Where valgrind finds its tools.
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("TOKEN_SUPERVISOR__SERVER__BIND", "127.0.0.1:0");
    command.env("GITLAB_CLIENT_ID", "bench").env("GITLAB_CLIENT_SECRET", "ts-test-secret-bench");
    command
}

/// The yardstick: prints its address and responds until it is killed.
pub(crate) fn bare(body: String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let body = web::Bytes::from(body);
    let app = move || {
        let body = body.clone();
        let respond = move || {
            let body = body.clone();
            async move {
                HttpResponse::Ok()
                    .insert_header((CACHE_CONTROL, "no-store"))
                    .insert_header((ETAG, "\"g1\""))
                    .insert_header(("x-request-id", "r_0123456789"))
                    .content_type("application/json")
                    .body(body)
            }
        };
        App::new().route("/v1/grants/{idp}/{user}/token", web::get().to(respond))
    };
    let server = HttpServer::new(app).workers(WORKERS).listen(listener).expect("a listener").run();
    actix::System::new().block_on(server).expect("the server runs");
}
