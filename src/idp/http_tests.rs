//! Tests against a server that counts requests and responds with the bytes that a test gives.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use base64::Engine as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{Rotation, clock::ManualClock, idp::preset};

pub(super) const SPENT: &str = "ts-test-secret-old";
pub(super) const TOKENS: &str =
    r#"{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r","expires_in":60}"#;
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// How the server treats the next request.
pub(super) enum Scripted {
    /// Responds, and waits for the next request on the same connection.
    KeepAlive(Vec<u8>),
    /// Responds, possibly with nothing or half of a response, and closes the connection.
    Close(Vec<u8>),
    /// Resets the connection without a response.
    Reset,
    /// Responds, and then sends nothing for as long as the client waits.
    Hang(Vec<u8>),
}

#[derive(Clone)]
pub(super) struct TestServer {
    pub(super) url: String,
    script: Arc<Mutex<VecDeque<Scripted>>>,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl TestServer {
    pub(super) async fn start(script: impl IntoIterator<Item = Scripted>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        let server = Self { url, script, requests: Arc::default(), connections: Arc::default() };
        tokio::spawn({
            let server = server.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    server.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(server.clone().connection(stream));
                }
            }
        });
        server
    }

    async fn connection(self, mut stream: TcpStream) {
        let mut received = Vec::new();
        while let Some(request) = request(&mut stream, &mut received).await {
            self.requests.lock().unwrap().push(request);
            let scripted = self.script.lock().unwrap().pop_front().expect("no request beyond the script");
            match scripted {
                Scripted::KeepAlive(bytes) => stream.write_all(&bytes).await.unwrap(),
                Scripted::Close(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                    return;
                }
                Scripted::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
                Scripted::Hang(bytes) => {
                    stream.write_all(&bytes).await.unwrap();
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn posts(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn request(&self, number: usize) -> String {
        self.requests.lock().unwrap()[number].clone()
    }

    fn idp(&self) -> Idp {
        Idp::oauth2(&self.url, "my client", "ts-test-secret-+&").rotation(Rotation::Always)
    }
}

async fn request(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()?;
            if body.len() >= length {
                received.clear();
                return Some(text);
            }
        }
        if stream.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}

pub(super) fn response(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

pub(super) fn client(idp: &Idp) -> Client {
    Client::new(idp, 5 * SECOND, Clock::manual(&ManualClock::new(SystemTime::UNIX_EPOCH))).unwrap()
}

pub(super) async fn refresh_with(client: &Client, idp: &Idp) -> ResponseOutcome {
    client.refresh(idp, 0, &SPENT.into(), &BTreeMap::new(), 10 * SECOND).await
}

async fn refresh(server: &TestServer) -> ResponseOutcome {
    let idp = server.idp();
    refresh_with(&client(&idp), &idp).await
}

#[track_caller]
pub(super) fn assert_unknown(outcome: &ResponseOutcome, code: &str) {
    assert!(
        matches!(outcome, ResponseOutcome::Unknown(failure) if failure.evidence.code == code),
        "{outcome:?}, expected {code}"
    );
    assert!(!format!("{outcome:?}").contains("127.0.0.1"), "{outcome:?}");
}

#[tokio::test]
async fn the_request_follows_rfc_6749() {
    let body = |server: &TestServer, number| server.request(number).split_once("\r\n\r\n").unwrap().1.to_owned();
    let server = TestServer::start((0..3).map(|_| Scripted::KeepAlive(response("200 OK", TOKENS)))).await;
    let idp = server.idp().scope("a b").param("tenant", "one").param("audience", "x&y");
    let grant = [("tenant", "two"), ("refresh_token", "ts-test-secret-other"), ("client_id", "other")];
    let grant = grant.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let outcome = client(&idp).refresh(&idp, 0, &SPENT.into(), &grant, SECOND).await;
    let ResponseOutcome::Refreshed(tokens) = outcome else { panic!("{outcome:?}") };
    assert_eq!(tokens.refresh_token, Some("ts-test-secret-r".into()));
    let first = server.request(0).to_lowercase();
    let basic = base64::engine::general_purpose::STANDARD.encode("my+client:ts-test-secret-%2B%26");
    for header in [
        "post /token http/1.1\r\n",
        "accept: application/json\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        &format!("authorization: basic {}\r\n", basic.to_lowercase()),
        &format!("user-agent: token-supervisor/{}\r\n", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(first.contains(header), "{header} not in {first}");
    }
    let expected = "grant_type=refresh_token&refresh_token=ts-test-secret-old&audience=x%26y&scope=a+b&tenant=two";
    assert_eq!(body(&server, 0), expected);
    for (number, auth, expected) in [
        (1, ClientAuth::Body, "&client_id=my+client&client_secret=ts-test-secret-%2B%26"),
        (2, ClientAuth::None, "&client_id=my+client"),
    ] {
        let idp = server.idp().client_auth(auth);
        assert!(matches!(refresh_with(&client(&idp), &idp).await, ResponseOutcome::Refreshed(_)));
        assert_eq!(
            body(&server, number),
            format!("grant_type=refresh_token&refresh_token=ts-test-secret-old{expected}")
        );
        assert!(!server.request(number).to_lowercase().contains("authorization:"));
    }
}

#[tokio::test]
async fn a_request_that_was_never_sent_does_not_spend_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    let plain = TestServer::start([]).await;
    let mail = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls = format!("https://{}/token", mail.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = mail.accept().await {
            stream.write_all(b"220 mail ready\r\n").await.ok();
        }
    });
    // The kernel accepts the connection, and nobody begins TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (url, detail) in [
        (refused, "refused"),
        (no_tls, "tls"),
        (plain.url.replace("http:", "https:"), "connect_timeout"),
        (format!("https://{}/token", silent.local_addr().unwrap()), "connect_timeout"),
        ("http://no-such-host.invalid/token?key=ts-test-secret-key".to_owned(), "dns"),
    ] {
        let idp = Idp::oauth2(&url, "id", "ts-test-secret-client").connect_timeout(SECOND);
        let Ok(client) = Client::new(&idp, SECOND, Clock::manual(&ManualClock::new(SystemTime::UNIX_EPOCH))) else {
            assert!(url.starts_with("https:"), "only TLS needs certificates");
            continue;
        };
        let outcome = refresh_with(&client, &idp).await;
        let ResponseOutcome::NotSpent(failure) = outcome else { panic!("{url} {outcome:?}") };
        assert_eq!(failure.evidence.to_string(), format!("connect_failed {detail}"), "{url}");
        assert_eq!(client.reach(&idp).await.unwrap_err().to_string(), format!("connect_failed {detail}"), "{url}");
    }
    assert_eq!(plain.posts(), 0);
}

#[tokio::test]
async fn a_request_without_a_response_is_in_doubt_and_never_resent() {
    let half = || b"HTTP/1.1 200 OK\r\nContent-Le".to_vec();
    for (scripted, code) in [
        (Scripted::Close(Vec::new()), "connection_lost"),
        (Scripted::Close(half()), "connection_lost"),
        (Scripted::Close(b"SSH-2.0-OpenSSH\r\n".to_vec()), "connection_lost"),
        (Scripted::Reset, "connection_lost"),
        (Scripted::Close(response("502 Bad Gateway", "<html>")), "http_502"),
        (Scripted::Close(response("408 Request Timeout", r#"{"error":"invalid_grant"}"#)), "http_408"),
    ] {
        let server = TestServer::start([scripted]).await;
        assert_unknown(&refresh(&server).await, code);
        assert_eq!(server.posts(), 1);
    }
}

#[tokio::test]
async fn timeouts_are_in_doubt() {
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", TOKENS.len(), &TOKENS[..9]);
    for bytes in [Vec::new(), begun.into_bytes()] {
        let server = TestServer::start([Scripted::Hang(bytes)]).await;
        let idp = server.idp();
        let outcome = client(&idp).refresh(&idp, 0, &SPENT.into(), &BTreeMap::new(), SECOND / 5).await;
        assert_unknown(&outcome, "timeout");
        assert_eq!(server.posts(), 1);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let elsewhere = TestServer::start([]).await;
        let server =
            TestServer::start([Scripted::Close(response(&format!("{status}\r\nLocation: {}", elsewhere.url), ""))])
                .await;
        assert_unknown(&refresh(&server).await, &format!("http_{}", &status[..3]));
        assert_eq!((server.posts(), elsewhere.posts()), (1, 0));
    }
}

#[tokio::test]
async fn a_reused_connection_that_dies_is_in_doubt() {
    // The second request is sent on the connection of the first, which closes without a response. It may have been
    // processed, so a third request must not follow.
    let server =
        TestServer::start([Scripted::KeepAlive(response("200 OK", TOKENS)), Scripted::Close(Vec::new())]).await;
    let idp = server.idp();
    let client = client(&idp);
    assert!(matches!(refresh_with(&client, &idp).await, ResponseOutcome::Refreshed(_)));
    assert_unknown(&refresh_with(&client, &idp).await, "connection_lost");
    assert_eq!((server.posts(), server.connections.load(Ordering::Relaxed)), (2, 1));
}

#[tokio::test]
async fn a_connection_closed_after_the_response_causes_no_second_request() {
    let server = TestServer::start((0..20).map(|_| Scripted::Close(response("200 OK", TOKENS)))).await;
    let idp = server.idp();
    let client = client(&idp);
    for sent in 1..=20 {
        // The client may see the close before or after it writes the next request. Both orders are correct, and in
        // neither does the server receive a request twice.
        let outcome = refresh_with(&client, &idp).await;
        let lost = matches!(&outcome, ResponseOutcome::Unknown(failure) if failure.evidence.code == "connection_lost");
        assert!(matches!(outcome, ResponseOutcome::Refreshed(_)) || lost, "{outcome:?}");
        assert!(server.posts() <= sent);
    }
}

#[tokio::test]
async fn a_response_that_is_too_large_is_in_doubt() {
    let body = format!(
        r#"{{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-{}"}}"#,
        "x".repeat(2 * LARGEST_BODY)
    );
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for bytes in [response("200 OK", &body), chunked.into_bytes()] {
        let server = TestServer::start([Scripted::Close(bytes)]).await;
        assert_unknown(&refresh(&server).await, "answer_too_large");
    }
    let large = format!(
        r#"{{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r{}"}}"#,
        "x".repeat(LARGEST_BODY - 100)
    );
    let server = TestServer::start([Scripted::Close(response("200 OK", &large))]).await;
    assert!(matches!(refresh(&server).await, ResponseOutcome::Refreshed(_)));
}

#[tokio::test]
async fn a_response_cut_at_any_byte_is_in_doubt() {
    let form = "access_token=ts-test-secret-a&refresh_token=ts-test-secret-r";
    let chunks = TOKENS.split_at(20);
    let chunked = [chunks.0, chunks.1].map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).concat();
    // The last two responses are in doubt even if complete: nothing says that the form ends there.
    for (bytes, whole_is_read) in [
        (String::from_utf8(response("200 OK", TOKENS)).unwrap(), true),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}0\r\n\r\n"), true),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{form}", form.len()), true),
        (format!("HTTP/1.0 200 OK\r\n\r\n{TOKENS}"), true),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 9\r\n\r\n{form}"), false),
        (format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{form}"), false),
    ] {
        for end in 0..=bytes.len() {
            let server = TestServer::start([Scripted::Close(bytes.as_bytes()[..end].to_vec())]).await;
            let outcome = refresh(&server).await;
            let expected = end == bytes.len() && whole_is_read;
            assert_eq!(matches!(outcome, ResponseOutcome::Refreshed(_)), expected, "{end} of {bytes}: {outcome:?}");
            assert!(expected || matches!(outcome, ResponseOutcome::Unknown(_)), "{end} of {bytes}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn headers_of_a_failure_are_read_and_echoed_secrets_are_not_shown() {
    let head = "429 Too Many Requests\r\nRetry-After: Thu, 01 Jan 2026 00:00:07 GMT\r\n\
        Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nX-GitHub-Request-Id: 91B2:77AC";
    let server = TestServer::start([Scripted::Close(response(head, ""))]).await;
    let idp = preset::github("id", "ts-test-secret-client").token_url(&server.url);
    let ResponseOutcome::NotSpent(failure) = refresh_with(&client(&idp), &idp).await else {
        panic!("429 spends nothing")
    };
    assert_eq!(failure.retry_after, Some(7 * SECOND));
    assert_eq!(
        (failure.meaning, failure.evidence.code.as_str(), failure.evidence.status),
        (Meaning::Throttled, "http_429", Some(429))
    );
    assert_eq!(failure.evidence.request_id.as_deref(), Some("91B2:77AC"));

    let head = format!("400 Bad Request\r\nX-Request-Id: {SPENT}");
    let server = TestServer::start([Scripted::Close(response(&head, &format!(r#"{{"error":"{SPENT}"}}"#)))]).await;
    let ResponseOutcome::NotSpent(failure) = refresh(&server).await else { panic!("an OAuth error spends nothing") };
    assert_eq!((failure.evidence.code.as_str(), failure.evidence.request_id), ("invalid_error_code", None));
}

#[test]
fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
    let now = date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    for (value, expected) in [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("1.0", Some(1)),
        ("86400", Some(3_600)),
        ("1e300", Some(3_600)),
        ("inf", Some(3_600)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Fri, 01 Jan 2100 00:00:00 GMT", Some(3_600)),
        ("-1", None),
        ("NaN", None),
        ("soon", None),
        ("", None),
    ] {
        assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
    }
}

#[test]
fn a_rate_limit_reset_counts_by_the_provider_s_own_clock() {
    let okta = preset::okta("https://acme.okta.com/oauth2", "id", "ts-test-secret-client");
    for (reset, expected) in [(" 1767225609 ", Some(9)), ("1", Some(0)), ("99999999999", Some(3_600)), ("soon", None)] {
        let headers: [(&[u8], &[u8]); 2] =
            [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT"), (b"x-rate-limit-reset", reset.as_bytes())];
        let outcome = outcome_of(&okta, (429, false), &headers, b"", false, SPENT);
        let ResponseOutcome::NotSpent(failure) = outcome else { panic!("429 spends nothing") };
        assert_eq!(failure.retry_after, expected.map(Duration::from_secs), "{reset}");
    }
}

#[tokio::test]
async fn revocation_succeeds_when_the_token_is_gone() {
    for (head, body, expected) in [
        ("200 OK", "", Ok(())),
        ("200 OK", "{}", Ok(())),
        ("204 No Content", "", Ok(())),
        ("200 OK", r#"{"error":"invalid_token","error_description":"Invalid token"}"#, Ok(())),
        ("400 Bad Request", r#"{"error":"invalid_token"}"#, Ok(())),
        ("200 OK", r#"{"error":"server_error"}"#, Err((Meaning::Transient, "server_error"))),
        (
            "400 Bad Request",
            r#"{"error":"unsupported_token_type"}"#,
            Err((Meaning::Transient, "unsupported_token_type")),
        ),
        (
            "401 Unauthorized",
            r#"{"error":"unauthorized_client"}"#,
            Err((Meaning::OperatorFault, "unauthorized_client")),
        ),
        ("403 Forbidden", "", Err((Meaning::Transient, "http_403"))),
        ("429 Too Many Requests", "", Err((Meaning::Throttled, "http_429"))),
        ("503 Unavailable", r#"{"error":"invalid_token"}"#, Err((Meaning::Transient, "http_503"))),
        ("302 Found\r\nLocation: /", "", Err((Meaning::Transient, "http_302"))),
    ] {
        let server = TestServer::start([Scripted::Close(response(head, body))]).await;
        let idp = server.idp().revocation_url(&server.url);
        let result = client(&idp).revoke(&idp, 0, &SPENT.into(), &BTreeMap::new()).await;
        let result = result.map_err(|failure| (failure.meaning, failure.evidence.code));
        let expected = expected.map_err(|(meaning, code): (Meaning, &str)| (meaning, code.to_owned()));
        assert_eq!(result, expected, "{head} {body}");
        assert!(server.request(0).ends_with("\r\n\r\ntoken=ts-test-secret-old&token_type_hint=refresh_token"));
    }
    let idp = TestServer::start([]).await.idp();
    assert_eq!(
        client(&idp).revoke(&idp, 0, &SPENT.into(), &BTreeMap::new()).await.unwrap_err().evidence.code,
        "no_revocation_url"
    );
}
