//! A server that is attacked by peers that keep it waiting: everybody else is served, and it says who they are. On
//! loopback, for seconds.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, Method};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, UnixStream},
    sync::Mutex,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::World;
use crate::served::Served;

/// How a peer keeps the server waiting.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Asks for 100 documents and reads nothing.
    ReadsNothing,
    /// The same, and reads a byte now and then.
    ReadsSlowly,
    /// Sends no byte.
    SendsNothing,
    /// Sends a head, a byte now and then.
    SendsSlowly,
    /// The same for the second request of a connection.
    SendsTheSecondSlowly,
    /// Sends a head that does not end.
    SendsEndlessHead,
    /// Sends a body that does not end, which no handler reads.
    SendsEndlessBody,
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// As many peers attack.
const PEERS: usize = 1_100;
/// Limit for the response to a legitimate request, on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Of the access tokens: they are refreshed all the time.
const LIFETIME: Duration = Duration::from_secs(6);
const DOCUMENT: &str = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

impl Attack {
    /// The label of the metric, and the words of the log.
    fn seen_as(self) -> (&'static str, &'static str) {
        match self {
            Self::ReadsNothing | Self::ReadsSlowly => ("slow_reader", "the peer does not read its response"),
            Self::SendsEndlessHead => ("large_head", "the head of the request is too long"),
            _ => ("slow_head", "the peer does not finish its request"),
        }
    }

    /// Attacks with one connection until the server closes it.
    async fn carry_out(self, mut peer: impl Socket) -> std::io::Result<()> {
        match self {
            Self::ReadsNothing => {
                write(&mut peer, DOCUMENT.repeat(100).as_bytes()).await?;
                loop {
                    pause().await;
                    write(&mut peer, b"G").await?;
                }
            }
            Self::ReadsSlowly => {
                write(&mut peer, DOCUMENT.repeat(100).as_bytes()).await?;
                loop {
                    pause().await;
                    peer.read_u8().await?;
                }
            }
            Self::SendsNothing => peer.read_u8().await.map(drop),
            Self::SendsSlowly => trickle(&mut peer, b"GET /livez HTTP/1.1\r\nX: ").await,
            Self::SendsTheSecondSlowly => {
                write(&mut peer, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
                trickle(&mut peer, b"GET /livez HTTP/1.1\r\nX: ").await
            }
            Self::SendsEndlessHead => {
                write(&mut peer, b"GET /livez HTTP/1.1\r\n").await?;
                let line = format!("X: {}\r\n", "y".repeat(4_000));
                loop {
                    write(&mut peer, line.as_bytes()).await?;
                    tokio::task::yield_now().await;
                }
            }
            Self::SendsEndlessBody => {
                let head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
                write(&mut peer, head).await?;
                trickle(&mut peer, b"1\r\nx\r\n").await
            }
        }
    }
}

/// Sends these bytes again and again.
async fn trickle(peer: &mut impl Socket, bytes: &[u8]) -> std::io::Result<()> {
    loop {
        write(peer, bytes).await?;
        pause().await;
    }
}

/// Writes what the server takes in a while.
async fn write(peer: &mut impl Socket, bytes: &[u8]) -> std::io::Result<()> {
    timeout(Duration::from_millis(200), peer.write_all(bytes)).await.unwrap_or(Ok(()))
}

async fn pause() {
    timeout(Duration::from_millis(500), std::future::pending::<()>()).await.ok();
}

/// Peers that attack, and come again when the server has closed their connection.
fn attackers(attack: Attack, address: &str, peers: usize) -> (JoinSet<()>, Arc<AtomicUsize>) {
    let (mut all, closed) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    for _ in 0..peers {
        let (closed, address) = (closed.clone(), address.to_owned());
        all.spawn(async move {
            loop {
                let ended = match address.split_once(':').unwrap() {
                    ("unix", path) => match UnixStream::connect(path).await {
                        Ok(peer) => attack.carry_out(peer).await,
                        Err(refused) => Err(refused),
                    },
                    (_, host) => {
                        let socket = TcpSocket::new_v4().unwrap();
                        socket.set_recv_buffer_size(4_096).unwrap();
                        match socket.connect(host.trim_start_matches('/').parse().unwrap()).await {
                            Ok(peer) => attack.carry_out(peer).await,
                            Err(refused) => Err(refused),
                        }
                    }
                };
                closed.fetch_add(usize::from(ended.is_err()), Ordering::Relaxed);
                pause().await;
            }
        });
    }
    (all, closed)
}

/// Attacks for this time, and checks that the server does its work as if nothing was.
async fn withstands(attack: Attack, peers: usize, time: Duration, server: Served, world: &World) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _alone = ONE_AT_A_TIME.lock().await;
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limits.maximum, ..limits }).unwrap();
    // The last address is attacked, the first one asked.
    let address = server.addresses.last().unwrap();
    let (attackers, closed) = attackers(attack, address, peers);
    let (began, refreshes) = (Instant::now(), world.sim.requests());
    let (mut slowest, mut answers) = (Duration::ZERO, 0);
    while began.elapsed() < time {
        // A connection of its own, as of a caller that has just come.
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(ANSWERED_WITHIN).build().unwrap();
        let (asked, url) = (Instant::now(), &server.addresses[0]);
        let token = client.get(format!("{url}/v1/grants/gitlab/alice/token")).bearer_auth(&world.api_key).send();
        let token: Value = token.await.expect("a legitimate request is answered").json().await.unwrap();
        assert!(token["access_token"].is_string(), "{attack:?}: {token}");
        slowest = slowest.max(asked.elapsed());
        answers += 1;
        pause().await;
    }
    let text = server.ask(Method::GET, "/metrics", Some(&world.api_key)).send().await.unwrap().text().await.unwrap();
    drop(attackers);
    let refreshes = world.sim.requests() - refreshes;
    let (closed, memory) = (closed.load(Ordering::Relaxed), most_memory(server.id()));
    println!("{attack:?}: {answers} answers, slowest {slowest:?}, {refreshes} refreshes, {closed} closed, {memory} MB");
    assert!(refreshes >= time.as_secs() / LIFETIME.as_secs() && world.sim.duplicate_spends() == 0, "{attack:?}");
    assert!(memory < 100, "{attack:?}: {memory} MB");
    // Of few connections, most have to make room before their time is over.
    let (label, words) = match peers {
        PEERS => attack.seen_as(),
        _ => ("connections", "there are too many connections"),
    };
    let metric = format!("token_supervisor_shed_total{{reason=\"{label}\"}} ");
    let counted = text.lines().find_map(|line| line.strip_prefix(&metric)).expect("it is counted");
    assert!(counted.parse::<f64>().unwrap() > 0.0, "{attack:?}: {text}");
    server.logs(&format!("closed a connection: {words}")).await;
    server.signal("TERM");
    let (ended, log) = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{log}");
    let lines = log.lines().filter(|line| line.contains("closed a connection")).collect::<Vec<_>>();
    let named = |line: &&str| line.contains("peer=127.0.0.1:") || line.contains("peer=unix socket");
    assert!(lines.iter().all(named), "{lines:?}");
    assert!(lines.len() < 20, "the log is not flooded: {lines:?}");
}

/// A world with a grant that is refreshed all the time.
fn refreshing() -> World {
    let world = World::new(LIFETIME);
    world.connect("alice");
    world
}

/// The most memory that a process has used so far, in MB.
fn most_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_do_not_read_hold_nobody_up() {
    let world = refreshing();
    withstands(Attack::ReadsNothing, PEERS, Duration::from_secs(20), world.serve(), &world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_read_or_send_slowly_hold_nobody_up() {
    use Attack::{ReadsSlowly, SendsEndlessBody, SendsEndlessHead, SendsNothing, SendsSlowly, SendsTheSecondSlowly};
    for attack in [ReadsSlowly, SendsNothing, SendsSlowly, SendsTheSecondSlowly, SendsEndlessHead, SendsEndlessBody] {
        let world = refreshing();
        withstands(attack, PEERS, Duration::from_secs(8), world.serve(), &world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_on_a_unix_socket_hold_nobody_up() {
    let world = refreshing();
    let socket = world.folder.path().join("ts.sock");
    let server = Served::start(world.serving(&format!("127.0.0.1:0,unix:{}", socket.display()))).unwrap();
    withstands(Attack::ReadsNothing, PEERS, Duration::from_secs(6), server, &world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_descriptors_to_everything_else() {
    let world = refreshing();
    let serve = world.serving("127.0.0.1:0");
    // The soft limit is too low for anything, the hard one for all peers.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 48; ulimit -Hn 200; exec \"$0\" \"$@\""]).arg(serve.get_program());
    limited.args(serve.get_args()).current_dir(world.folder.path()).env_clear();
    limited.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let server = Served::start(limited).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["200", "200"]);
    server.logs("fewer connections than server.max_connections").await;
    withstands(Attack::SendsNothing, 300, Duration::from_secs(6), server, &world).await;
}
