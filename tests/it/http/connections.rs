//! Connections as clients may use them: several requests at once, bodies in pieces, and the end of what is sent before the
//! end of what is received.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::stage::{ALL, Stage};
use crate::support::within;

/// Sends these pieces, each on its own, closes this side, and returns everything that the server sends.
async fn exchange(stage: &Stage, pieces: &[&str]) -> String {
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece.as_bytes()).await.unwrap();
        crate::support::breathe().await;
    }
    stream.shutdown().await.unwrap();
    let mut responses = String::new();
    within(stream.read_to_string(&mut responses)).await.unwrap();
    responses
}

fn statuses(responses: &str) -> Vec<&str> {
    responses.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect()
}

const GET: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn requests_that_are_sent_at_once_are_all_answered() {
    let stage = Stage::new().await;
    assert_eq!(statuses(&exchange(&stage, &[&GET.repeat(1_000)]).await), ["200"; 1_000]);
    let documents = exchange(&stage, &[&GET.replace("/livez", "/openapi.json").repeat(50)]).await;
    assert_eq!(statuses(&documents), ["200"; 50]);
    let (first, rest) = GET.split_at(20);
    assert_eq!(statuses(&exchange(&stage, &[first, &format!("{rest}{first}"), rest]).await), ["200"; 2]);
    stage.stop().await;
}

#[tokio::test]
async fn bodies_in_pieces_are_read_and_requests_may_follow_them() {
    let stage = Stage::new().await;
    let body = r#"{"access_token":"ts-test-secret-0123456789","expires_in":7200}"#;
    let put = |more: &str| {
        format!("PUT /v1/grants/idp/alice HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALL}\r\n{more}\r\n\r\n")
    };
    let (sized, chunked) = (put(&format!("Content-Length: {}", body.len())), put("Transfer-Encoding: chunked"));
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for pieces in [
        &[&format!("{sized}{body}{GET}")[..]][..],
        &[&sized, body, GET],
        &[&sized, &body[..10], &format!("{}{GET}", &body[10..])],
        &[&format!("{chunked}{chunks}{GET}")],
        &[&chunked, &chunks[..20], &format!("{}{GET}", &chunks[20..])],
    ] {
        let responses = exchange(&stage, pieces).await;
        let statuses = statuses(&responses);
        assert!(matches!(statuses[..], ["201" | "200", "200"]), "{pieces:?}: {responses}");
    }
    // A body that no handler reads ends the connection.
    for refused in [&sized, &chunked].map(|head| head.replace(ALL, "ts-test-secret-wrong")) {
        let responses = exchange(&stage, &[&refused, body, GET]).await;
        assert_eq!(statuses(&responses), ["401"]);
        assert!(responses.contains("connection: close"), "{responses}");
    }
    stage.stop().await;
}
