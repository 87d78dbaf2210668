//! A supervisor behind its HTTP API, and a client that sends what it is told.

#![expect(unreachable_pub, reason = "shared by the modules of this binary")]

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use serde_json::Value;
use token_supervisor::{
    TokenKey, TokenSupervisor,
    testing::Profile,
    web::{Api, ApiKey, ApiKeys, Scope, Server, api},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{World, passing, within};

pub struct Stage {
    pub world: World,
    pub supervisor: TokenSupervisor,
    pub keys: ApiKeys,
    pub address: SocketAddr,
    pub api: Api,
    pub server: Server,
}

/// Every scope and nothing else restricts it.
pub const ALL: &str = "ts-test-secret-key-all";

impl Stage {
    pub async fn new() -> Self {
        let world = World::new(Profile::gitlab());
        let supervisor = world.builder().idp("other", world.sim.idp()).start().await.unwrap();
        let all = [Scope::Token, Scope::Grant, Scope::Admin, Scope::Metrics];
        let keys = ApiKeys::new([all.into_iter().fold(ApiKey::from_secret("all", ALL), ApiKey::scope)]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let api = api(supervisor.clone(), keys.clone());
        let server = Server::start(api.clone(), [listener]).unwrap();
        Self { world, supervisor, keys, address, api, server }
    }

    /// With alice connected at `idp`.
    pub async fn connected() -> (Self, TokenKey) {
        let stage = Self::new().await;
        let key = TokenKey::at("idp").user("alice");
        within(stage.supervisor.connect(&key, stage.world.sim.consent("alice"))).await.unwrap();
        (stage, key)
    }

    /// Asks with the key that may do everything.
    pub async fn ask(&self, line: &str, headers: &[&str], body: impl Into<Option<Value>>) -> Answer {
        let authorization = format!("Authorization: Bearer {ALL}");
        let headers: Vec<_> = headers.iter().copied().chain([authorization.as_str()]).collect();
        let body = body.into().map(|body| body.to_string()).unwrap_or_default();
        self.send(line, &headers, body.as_bytes()).await
    }

    pub async fn send(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        send(self.address, line, headers, body).await
    }

    pub async fn stop(self) -> World {
        // It may wait a moment for who asks whether it is ready.
        passing(&self.world, Duration::from_millis(10), tokio::spawn(self.server.stop())).await.unwrap();
        crate::support::stop(self.supervisor).await;
        self.world
    }
}

/// Sends exactly this; `line` is method and path.
pub async fn send(address: SocketAddr, line: &str, headers: &[&str], body: &[u8]) -> Answer {
    let has = |name: &str| headers.iter().any(|header| header.to_lowercase().starts_with(name));
    let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !has("host:") {
        head += &format!("Host: {}\r\n", address);
    }
    if !body.is_empty() && !has("content-length:") && !has("transfer-encoding:") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    exchange(TcpStream::connect(address).await.unwrap(), &[head.as_bytes(), b"\r\n", body].concat()).await
}

/// Sends these bytes, and reads the answer to its end.
pub async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Answer {
    // A server that has refused a request need not read the rest of it.
    stream.write_all(request).await.ok();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok();
    Answer::of(&answer)
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self { status, headers: lines.filter_map(pair).collect(), body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The body of a granted request.
    pub fn granted(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert!(self.header("x-request-id").is_some());
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).unwrap() }
    }

    /// The problem of a refused one.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!((self.status, &body["code"]), (status, &Value::from(code)), "{body}");
        assert_eq!(body["status"], status);
        assert!(
            ["title", "detail"].iter().all(|name| body[name].as_str().is_some_and(|text| !text.is_empty())),
            "{body}"
        );
        assert_eq!(body["type"], format!("urn:token-supervisor:problem:{code}"));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(body["retry_after"].as_u64().map(|s| s.to_string()).as_deref(), self.header("retry-after"));
        body
    }
}
