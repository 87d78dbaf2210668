//! What was replaced is in no memory of the server, and no other process of its user can read it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use super::World;
use crate::{
    served::Served,
    skip::without,
    support::{breathe, within},
};

/// Returns how often each text is in the memory of the process; `None` where it may not be read.
fn found_in(process: u32, texts: &[&str]) -> Option<Vec<usize>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let mut memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let mut counts = vec![0; texts.len()];
    for region in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = region.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; (to - from) as usize];
        memory.seek(SeekFrom::Start(from)).ok()?;
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        for (count, text) in counts.iter_mut().zip(texts) {
            // The first byte is looked for alone: the memory is large.
            let text = text.as_bytes();
            let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == text[0]);
            *count += starts.filter(|(at, _)| bytes[*at..].starts_with(text)).count();
        }
    }
    Some(counts)
}

#[tokio::test]
async fn replaced_tokens_are_overwritten_and_the_memory_is_closed_to_others() {
    // Short, so that a token that was just refreshed can be rejected soon.
    let world = World::new(Duration::from_secs(4));
    world.connect("alice");
    let server = Served::start(world.serving("127.0.0.1:0")).unwrap();
    let key = world.api_key.clone();
    let ask = async |method: Method, path: &str| {
        let response = server.ask(method, path, Some(&key)).send().await.unwrap();
        response.json::<Value>().await.unwrap()
    };
    let (mut seen, mut current) = (BTreeSet::new(), String::new());
    let replaced_twice = async {
        while seen.len() < 4 {
            let token = ask(Method::GET, "/v1/grants/gitlab/alice/token").await;
            let next = token["access_token"].as_str().unwrap();
            if next != current && !current.is_empty() {
                seen.insert(std::mem::take(&mut current));
            }
            next.clone_into(&mut current);
            let generation = json!({ "generation": token["generation"] });
            let rejected = server.ask(Method::POST, "/v1/grants/gitlab/alice/rejected", Some(&key));
            rejected.json(&generation).send().await.unwrap();
            breathe().await;
        }
    };
    within(replaced_twice).await;
    // The search takes a while, and the token may be replaced before the search comes to its place.
    let mut counts = vec![0];
    for _ in 0..10 {
        let token = ask(Method::GET, "/v1/grants/gitlab/alice/token").await;
        let texts: Vec<&str> = seen.iter().map(String::as_str).chain(token["access_token"].as_str()).collect();
        let Some(found) = found_in(server.id(), &texts) else {
            return without("ptrace", "the memory of another process cannot be read here");
        };
        counts = found;
        if counts.last() > Some(&0) {
            break;
        }
    }
    let (last, replaced) = counts.split_last().unwrap();
    assert!(*last > 0, "the current token is served from memory");
    assert!(replaced.iter().all(|count| *count == 0), "{counts:?}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}
