//! Tests against an HTTP/2 server that counts requests and breaks off in the ways that HTTP/2 adds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    tests::{SECOND, TOKENS, assert_unknown, refresh_with},
    *,
};
use crate::clock::ManualClock;

/// Returns the response frames for a stream.
type Respond = fn(u32) -> Vec<u8>;

/// Starts an HTTP/2 server that responds to each complete request on stream `n` with the frames of `respond(n)` and
/// counts the requests.
async fn http2_server(respond: Respond) -> (Idp, Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let idp = Idp::oauth2(format!("http://{}/token", listener.local_addr().unwrap()), "id", "ts-test-secret-client");
    let http = builder(&idp, SECOND).http2_prior_knowledge().build().unwrap();
    let client =
        Client { http, lane: Lane::start().unwrap(), clock: Clock::manual(&ManualClock::new(SystemTime::UNIX_EPOCH)) };
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let posts = Arc::clone(&counted);
            tokio::spawn(async move {
                let _: std::io::Result<()> = async {
                    stream.read_exact(&mut [0; PREFACE]).await?;
                    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
                    loop {
                        let mut head = [0; 9];
                        stream.read_exact(&mut head).await?;
                        let [a, b, c, kind, flags, id @ ..] = head;
                        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                        stream.read_exact(&mut payload).await?;
                        match kind {
                            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
                            HEADERS | DATA if flags & END_STREAM != 0 => {
                                posts.fetch_add(1, Ordering::Relaxed);
                                stream.write_all(&respond(u32::from_be_bytes(id))).await?;
                            }
                            _ => {}
                        }
                    }
                }
                .await;
            });
        }
    });
    (idp, client, posts)
}

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the headers: `:status: 200`, and the length of [`TOKENS`] if `length`.
fn headers(stream: u32, length: bool) -> Vec<u8> {
    let digits = TOKENS.len().to_string();
    let content_length = [&[0x0f, 0x0d, digits.len() as u8], digits.as_bytes()].concat();
    let length = if length { &content_length[..] } else { &[] };
    frame(HEADERS, END_HEADERS, stream, &[&[0x88], length].concat())
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

#[tokio::test]
async fn http2_requests_are_sent_once_and_responses_read_to_their_end() {
    let cases: [(Respond, &str); 7] = [
        (|stream| [headers(stream, true), frame(DATA, END_STREAM, stream, TOKENS.as_bytes())].concat(), "refreshed"),
        (|stream| reset(stream, REFUSED_STREAM), "connection_lost"),
        (|_| frame(GOAWAY, 0, 0, &[0; 8]), "connection_lost"),
        (|stream| [half(stream, true), reset(stream, NO_ERROR)].concat(), "incomplete_answer"),
        (|stream| [half(stream, false), reset(stream, NO_ERROR)].concat(), "unreadable_answer"),
        (|stream| [half(stream, false), reset(stream, CANCEL)].concat(), "incomplete_answer"),
        (|stream| [half(stream, true), frame(DATA, END_STREAM, stream, b"x")].concat(), "incomplete_answer"),
    ];
    for (respond, expected) in cases {
        let (idp, client, posts) = http2_server(respond).await;
        match refresh_with(&client, &idp).await {
            ResponseOutcome::Refreshed(_) => assert_eq!(expected, "refreshed"),
            outcome => assert_unknown(&outcome, expected),
        }
        assert_eq!(posts.load(Ordering::Relaxed), 1, "{expected}");
    }
}

fn half(stream: u32, length: bool) -> Vec<u8> {
    [headers(stream, length), frame(DATA, 0, stream, &TOKENS.as_bytes()[..30])].concat()
}
