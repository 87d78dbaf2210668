//! Providers that send without end: their request ends within the patience, and no other provider is held up.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use super::{tests::*, *};
use crate::{Rotation, idp::Idp};

const PATIENCE: Duration = Duration::from_secs(2);

/// Answers each request with `head`, and then with `endless` until the client hangs up, as fast as it can or with pauses.
struct Flood {
    url: String,
    open: Arc<AtomicUsize>,
}

impl Flood {
    fn start(head: &'static [u8], endless: Vec<u8>, pause: Duration) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let open = Arc::new(AtomicUsize::new(0));
        let opened = open.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (open, endless) = (opened.clone(), endless.clone());
                open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    stream.read(&mut [0; 8_192]).ok();
                    let at_once = if pause.is_zero() { 65_536 / endless.len() + 1 } else { 1 };
                    let bytes = endless.repeat(at_once);
                    let mut sent = stream.write_all(head);
                    while sent.is_ok() {
                        thread::sleep(pause);
                        sent = stream.write_all(&bytes);
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, open }
    }
}

async fn sent(url: &str) -> (ResponseOutcome, Duration) {
    let idp = Idp::oauth2(url, "id", "ts-test-secret-client").rotation(Rotation::Always);
    let (client, began) = (client(&idp), Instant::now());
    let outcome = client.refresh(&idp, 0, &SPENT.into(), &BTreeMap::new(), PATIENCE).await;
    (outcome, began.elapsed())
}

/// On one thread, which the flood must not reach.
#[tokio::test]
async fn a_provider_that_sends_without_end_ends_in_doubt_and_holds_up_no_other() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let none = Duration::ZERO;
    let large = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    // Long, because each costs an unoptimized parser much.
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(8_000));
    for (what, head, endless, pause, code) in [
        ("1xx", &b""[..], hints.as_bytes(), none, "timeout"),
        ("1xx, slowly", b"", b"HTTP/1.1 102 Processing\r\n\r\n", SECOND / 20, "timeout"),
        ("header lines", b"HTTP/1.1 200 OK\r\n", b"X-Header: ts-test\r\n", none, "connection_lost"),
        ("one header line", b"HTTP/1.1 200 OK\r\nX-Header: ", b"xxxxxxxxxxxxxxxx", none, "connection_lost"),
        ("chunks", chunked, large.as_bytes(), none, "answer_too_large"),
        ("chunks, slowly", chunked, b"1\r\nx\r\n", SECOND / 20, "timeout"),
        (
            "trailers",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X-T: x\r\n",
            none,
            "incomplete_answer",
        ),
        ("bytes", b"HTTP/1.1 200 OK\r\n\r\n", b"xxxxxxxxxxxxxxxx", none, "answer_too_large"),
    ] {
        let flood = Flood::start(head, endless.to_vec(), pause);
        let flooded = async {
            // Several at once: one thread for each would not do.
            let [one, two, three] = [&flood.url; 3].map(|url| sent(url));
            tokio::join!(one, two, three)
        };
        let server = TestServer::start([Scripted::Close(response("200 OK", TOKENS))]).await;
        let other = async {
            tokio::time::sleep(SECOND / 4).await;
            sent(&server.url).await
        };
        let (flooded, (outcome, took)) = tokio::join!(flooded, other);
        assert!(matches!(outcome, ResponseOutcome::Refreshed(_)) && took < PATIENCE, "{what}: {took:?} {outcome:?}");
        for (outcome, took) in [flooded.0, flooded.1, flooded.2] {
            assert_unknown(&outcome, code);
            assert!(took < 3 * PATIENCE, "{what}: {took:?}");
        }
        let closed = async {
            while flood.open.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(SECOND / 50).await;
            }
        };
        assert!(tokio::time::timeout(30 * SECOND, closed).await.is_ok(), "{what}: the connection is closed");
    }
}
