//! Callers that send too many requests: without a valid key, or more than their key allows.

use std::fs;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::World;
use crate::served::Served;

const TOKEN: &str = "/v1/grants/gitlab/alice/token";

/// Sends this many requests on one connection, and returns how many had which status: 200, 401, 429.
async fn answers(server: &Served, keys: impl IntoIterator<Item = Option<String>>) -> [usize; 3] {
    let (client, mut counts) = (Client::builder().no_proxy().build().unwrap(), [0; 3]);
    for key in keys {
        let request = client.request(Method::GET, format!("{}{TOKEN}", server.addresses[0]));
        let answer = key.into_iter().fold(request, |request, key| request.bearer_auth(key)).send().await.unwrap();
        let status = answer.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
            assert_eq!(answer.json::<Value>().await.unwrap()["code"], "busy");
        }
        counts[[200, 401, 429].into_iter().position(|known| status == known).unwrap()] += 1;
    }
    counts
}

/// Returns how often the server says that it turned requests away for this reason.
async fn shed(server: &Served, key: &str, reason: &str) -> f64 {
    let text = server.ask(Method::GET, "/metrics", Some(key)).send().await.unwrap().text().await.unwrap();
    let metric = format!("token_supervisor_shed_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&metric)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn requests_without_a_valid_key_are_throttled_and_those_with_one_are_not() {
    let world = World::connected();
    let server = world.serve();
    let wrong = (0..500).map(|at| (at % 2 == 0).then(|| format!("ts-test-secret-wrong-{at}")));
    let [_, refused, throttled] = answers(&server, wrong).await;
    assert!((20..60).contains(&refused) && throttled == 500 - refused, "{refused} {throttled}");
    assert_eq!(answers(&server, (0..50).map(|_| Some(world.api_key.clone()))).await, [50, 0, 0]);
    assert_eq!(shed(&server, &world.api_key, "wrong_key").await, throttled as f64);
    server.signal("TERM");
    let (_, log) = server.ended().await;
    let audited = log.lines().filter(|line| line.contains("outcome=\"unauthorized\"")).count();
    assert_eq!(audited, refused, "{log}");
    let named = log.lines().filter(|line| line.contains("too many without a valid API key")).collect::<Vec<_>>();
    assert!((1..5).contains(&named.len()) && named[0].contains("peer=127.0.0.1:"), "{log}");
    assert!(!log.contains("ts-test-secret-wrong"), "{log}");
}

#[tokio::test]
async fn a_key_has_the_rate_that_the_configuration_gives_it() {
    let world = World::connected();
    let config = world.folder.path().join("token-supervisor.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("name = \"first\"", "name = \"first\"\nrequests_per_second = 5")).unwrap();
    let other = world.json(&["apikey", "new", "second", "--scope", "token", "--scope", "metrics"]);
    let section = other["section"].as_str().unwrap();
    let text = fs::read_to_string(&config).unwrap().replace("[store]", &format!("{section}\n[store]"));
    fs::write(&config, text).unwrap();
    let (server, other) = (world.serve(), other["key"].as_str().unwrap());
    let [granted, _, throttled] = answers(&server, (0..200).map(|_| Some(world.api_key.clone()))).await;
    assert!((5..100).contains(&granted) && throttled == 200 - granted, "{granted} {throttled}");
    assert_eq!(answers(&server, (0..200).map(|_| Some(other.to_owned()))).await, [200, 0, 0]);
    assert_eq!(shed(&server, other, "key_rate").await, throttled as f64);
    server.logs("used more often than its requests_per_second").await;
    server.signal("TERM");
    let (_, log) = server.ended().await;
    assert!(log.contains("caller=\"first\"") && !log.contains(other), "{log}");
}
