//! A server that stops: who asks hears of it, what is under way is answered, and nobody holds it up.

use std::time::Duration;

use serde_json::json;
use token_supervisor::{TokenKey, testing::Fault};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::stage::{ALL, Stage, send};
use crate::support::{eventually, passing, stop, within};

const TOKEN: &str = "GET /v1/grants/idp/alice/token";

#[tokio::test]
async fn a_server_that_stops_answers_what_was_asked_and_takes_no_more() {
    let (stage, _) = Stage::connected().await;
    stage.world.sim.always(Some(Fault::HangAfter));
    // Its port may be somebody else's in the end, who has no such grant.
    let ours = TokenKey::at("idp").user("a-user-of-this-server");
    within(stage.supervisor.connect(&ours, stage.world.sim.consent(ours.user()))).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(10));
    let (http, url) = (http.build().unwrap(), format!("http://{}/v1/grants/idp/{}", stage.address, ours.user()));
    let answers = async || {
        let answer = http.get(&url).bearer_auth(ALL).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    assert!(answers().await);
    let address = stage.address;
    let key = format!("Authorization: Bearer {ALL}");
    let asked = tokio::spawn(async move { send(address, "POST /v1/grants/idp/alice/refresh", &[&key], b"").await });
    eventually("the request waits", || stage.world.sim.requests() == 1).await;
    let stopping = tokio::spawn(stage.server.stop());
    within(async { while answers().await {} }).await;
    stage.world.sim.always(None);
    stage.world.sim.release();
    assert_eq!(within(asked).await.unwrap().granted(200)["generation"], 2);
    within(stopping).await.unwrap().unwrap();
    stop(stage.supervisor).await;
}

#[tokio::test]
async fn who_asks_whether_it_is_ready_hears_that_it_stops_before_it_is_gone() {
    let (stage, _) = Stage::connected().await;
    stage.send("GET /readyz", &[], b"").await.granted(200);
    let (address, key) = (stage.address, format!("Authorization: Bearer {ALL}"));
    let stopping = tokio::spawn(stage.server.stop());
    while send(address, "GET /readyz", &[], b"").await.status == 200 {}
    let answer = send(address, "GET /readyz", &[], b"").await;
    assert_eq!(answer.granted(503), json!({"status": "draining", "degraded": []}));
    send(address, TOKEN, &[&key], b"").await.granted(200);
    stage.world.clock.advance(Duration::from_secs(2));
    within(stopping).await.unwrap().unwrap();
    stop(stage.supervisor).await;
}

#[tokio::test]
async fn nobody_who_does_not_send_or_read_holds_a_stop_up() {
    let (stage, _) = Stage::connected().await;
    let mut unread = TcpStream::connect(stage.address).await.unwrap();
    let many = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let written = tokio::time::timeout(Duration::from_millis(500), unread.write_all(many.as_bytes())).await;
    drop(written);
    let mut unsent = TcpStream::connect(stage.address).await.unwrap();
    let head = format!(
        "PUT /v1/grants/idp/bob HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALL}\r\n\
         Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    );
    unsent.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    within(unsent.read_exact(&mut go_on)).await.unwrap();
    unsent.write_all(b"{").await.unwrap();
    let (start, stopping) = (stage.world.clock.now(), tokio::spawn(stage.server.stop()));
    passing(&stage.world, Duration::from_millis(5), stopping).await.unwrap();
    let took = stage.world.clock.now().duration_since(start).unwrap();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let mut answer = String::new();
    within(unsent.read_to_string(&mut answer)).await.ok();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stopping"), "{answer}");
    stop(stage.supervisor).await;
}
