//! The token route of the real server in a process of its own, beside a bare actix-web route in another process that
//! responds with the same bytes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::header::{CACHE_CONTROL, ETAG},
    web,
};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Size,
    harness::{figure, median, now, row, short},
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
    let alone = ("a token over HTTP, bare actix-web", 1, size.requests / 8);
    for (what, connections, requests) in [alone, ("the same, 32 connections", CONNECTIONS, size.requests)] {
        let (mut measured, mut yardstick) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            measured.push(load(&ours, connections, requests).await);
            yardstick.push(load(&bare, connections, requests).await);
        }
        let each = |loads: &[Load]| median(loads.iter().map(|load| load.each).collect());
        row(what, (each(&measured), each(&yardstick)), "-");
        let slowest = |loads: &[Load]| short(median(loads.iter().map(|load| load.p99).collect()));
        figure("  99th percentile, ours", &slowest(&measured), "-");
        figure("  99th percentile, bare", &slowest(&yardstick), "-");
    }
}

/// The times of a round of requests.
struct Load {
    /// The time of the round divided by its requests.
    each: Duration,
    p99: Duration,
}

/// Sends `requests` requests, one after the other on each connection.
async fn load(server: &Server, connections: usize, requests: usize) -> Load {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(server).await);
    }
    let started = now();
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
    let each = started.elapsed() / latencies.len() as u32;
    latencies.sort_unstable();
    Load { each, p99: latencies[latencies.len() * 99 / 100] }
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
        let folder = tempfile::tempdir().expect("a folder");
        program(folder.path(), &["init", "--idp", "gitlab"]).output().expect("init");
        let key = std::fs::read_to_string(folder.path().join("token-supervisor.api-key")).expect("an API key");
        let key = key.trim_end().to_owned();
        let mut connect = program(folder.path(), &["connect", "gitlab", "alice", "--stdin"]);
        let mut connect = connect.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("connect");
        let grant = br#"{"access_token":"ts-test-secret-0123456789abcdef","expires_in":86400,"scope":"api"}"#;
        connect.stdin.take().expect("its input").write_all(grant).expect("a grant");
        assert!(connect.wait().expect("connect").success());
        let serve = program(folder.path(), &["serve", "--json"]);
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
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-supervisor"));
    command.args(args).current_dir(folder).env_clear();
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
