//! A client puts the token on, has a refused one replaced, and shows it to nobody else.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use token_supervisor::{
    Error, TokenKey,
    client::{CallError, TokenClient},
    testing::Profile,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{World, nobody, stop, within};

/// Answers with what it was told to say, and keeps what it heard.
pub(crate) struct ResourceServer {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl ResourceServer {
    pub(crate) async fn saying(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (mut answers, hears) = (answers.into_iter().collect::<Vec<_>>().into_iter(), heard.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let request = serve(stream, answers.next().as_deref().unwrap_or("500 No More")).await;
                hears.lock().unwrap().push(request);
            }
        });
        Self { address, heard }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/things?secret=1", self.address)
    }

    /// The tokens that it was shown, in their order.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        let token = |request: &String| {
            let line = request.lines().find(|line| line.to_lowercase().starts_with("authorization:"))?;
            Some(line.split_once("Bearer ")?.1.to_owned())
        };
        self.heard.lock().unwrap().iter().map(token).collect()
    }
}

/// One request: head and body of the length that it says.
async fn serve(mut stream: TcpStream, answer: &str) -> String {
    let (mut heard, mut buffer) = (String::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        heard += &String::from_utf8_lossy(&buffer[..read]);
        let Some((head, body)) = heard.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) || read == 0 {
            break;
        }
    }
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    heard
}

fn says(answers: &[&str]) -> Vec<String> {
    answers.iter().map(|answer| (*answer).to_owned()).collect()
}

#[tokio::test]
async fn a_refused_token_is_reported_and_the_request_sent_once_more() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let first = supervisor.cached(&key).unwrap().access_token().expose_secret().to_owned();
    let server = ResourceServer::saying(says(&["401 Unauthorized", "201 Created"])).await;
    let http = reqwest::Client::new();
    let client = TokenClient::new(&supervisor, &key, &http).host(&server.url()).unwrap();
    let request = http.post(server.url()).body("a thing").build().unwrap();
    assert_eq!(within(client.execute(request)).await.unwrap().status(), 201);
    let second = supervisor.cached(&key).unwrap();
    assert_eq!(second.generation().get(), 2);
    let second = second.access_token().expose_secret().to_owned();
    assert_eq!(server.tokens(), [Some(first), Some(second)]);
    assert!(server.heard.lock().unwrap().iter().all(|request| request.ends_with("a thing")));
    stop(supervisor).await;
    assert_eq!(world.sim.requests(), 1);
}

#[tokio::test]
async fn the_second_refusal_is_the_answer() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let server = ResourceServer::saying(says(&["401 Unauthorized", "401 Unauthorized"])).await;
    let http = reqwest::Client::new();
    let client = TokenClient::new(&supervisor, &key, &http).host(&server.url()).unwrap();
    let response = within(client.execute(http.get(server.url()).build().unwrap())).await.unwrap();
    assert_eq!((response.status().as_u16(), server.tokens().len()), (401, 2));
    stop(supervisor).await;
}

#[tokio::test]
async fn where_no_other_token_is_to_be_had_the_refusal_is_the_answer() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    within(supervisor.hold_idp("idp", "x")).await.unwrap();
    let server = ResourceServer::saying(says(&["401 Unauthorized"])).await;
    let http = reqwest::Client::new();
    let client = TokenClient::new(&supervisor, &key, &http).host(&server.url()).unwrap();
    let response = within(client.execute(http.get(server.url()).build().unwrap())).await.unwrap();
    assert_eq!((response.status().as_u16(), server.tokens().len()), (401, 1));
    assert!(supervisor.cached(&key).is_none(), "it was reported");
    stop(supervisor).await;
}

#[tokio::test]
async fn who_must_go_through_consent_is_told() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    within(supervisor.require_reconnect(&key, "x")).await.unwrap();
    let server = ResourceServer::saying(says(&["401 Unauthorized"])).await;
    let http = reqwest::Client::new();
    let client = TokenClient::new(&supervisor, &key, &http).host(&server.url()).unwrap();
    let error = within(client.execute(http.get(server.url()).build().unwrap())).await.unwrap_err();
    assert!(matches!(error, CallError::Token(Error::ReconnectRequired { .. })), "{error}");
    stop(supervisor).await;
}

#[tokio::test]
async fn a_host_that_did_not_see_the_token_has_not_refused_it() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let other = ResourceServer::saying(says(&["401 Unauthorized"])).await;
    let server = ResourceServer::saying([format!("302 Found\r\nLocation: {}", other.url())]).await;
    let http = reqwest::Client::new();
    let client = TokenClient::new(&supervisor, &key, &http).host(&server.url()).unwrap().host(&other.url()).unwrap();
    let response = within(client.execute(http.get(server.url()).build().unwrap())).await.unwrap();
    assert_eq!((response.status().as_u16(), other.tokens()), (401, vec![None]));
    assert_eq!(supervisor.cached(&key).unwrap().generation().get(), 1);
    assert_eq!(world.sim.requests(), 0);
    stop(supervisor).await;
}

#[tokio::test]
async fn no_other_host_sees_the_token() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let other = ResourceServer::saying(says(&["401 Unauthorized"])).await;
    let redirect = format!("302 Found\r\nLocation: {}", other.url());
    let server = ResourceServer::saying([redirect]).await;
    let http = reqwest::Client::new();
    let client = TokenClient::new(&supervisor, &key, &http).host(&server.url()).unwrap();
    let error = within(client.execute(http.get(other.url()).build().unwrap())).await.unwrap_err();
    assert!(matches!(error, CallError::OtherHost), "{error}");
    let response = within(client.execute(http.get(server.url()).build().unwrap())).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!((server.tokens().len(), other.tokens()), (1, vec![None]));
    assert_eq!(supervisor.cached(&key).unwrap().generation().get(), 1, "it was not ours that was refused");
    for wrong in ["http://api.example.com", "ftp://127.0.0.1", "api.example.com", ""] {
        let client = TokenClient::new(&supervisor, &key, &http);
        assert!(matches!(client.host(wrong), Err(Error::Configuration(_))), "{wrong}");
    }
    stop(supervisor).await;
}

#[tokio::test]
async fn what_is_wrong_says_nothing_of_the_request() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let http = reqwest::Client::new();
    let (_kept, nobody) = nobody();
    let gone = &format!("http://{nobody}/things?secret=ts-test-secret-query");
    let client = TokenClient::new(&supervisor, &key, &http).host(gone).unwrap();
    let error = within(client.execute(http.get(gone).build().unwrap())).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("ts-test-secret"), "{error:?}");
    let stranger = TokenClient::new(&supervisor, &TokenKey::at("idp").user("nobody"), &http).host(gone).unwrap();
    let error = within(stranger.execute(http.get(gone).build().unwrap())).await.unwrap_err();
    assert!(matches!(error, CallError::Token(Error::NotConnected)), "{error}");
    stop(supervisor).await;
}
