//! Requests to the replicas. Each uses a connection of its own: one that is kept may be closed just as the next request leaves.

use std::time::{Duration, SystemTime};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::{
    now,
    replica::{Address, Replica},
};

pub(super) struct Http {
    client: Client,
    api_key: String,
}

/// A request and its answer.
pub(super) struct Asked {
    pub(super) replica: usize,
    pub(super) life: usize,
    pub(super) verb: String,
    pub(super) at: SystemTime,
    pub(super) done: SystemTime,
    /// What was asked for, or a problem, which has a `code`; or why there was no answer.
    pub(super) answer: Result<Value, Unanswered>,
}

#[derive(Clone, Debug)]
pub(super) enum Unanswered {
    /// The connection was refused or ended.
    Broken(String),
    /// There was nothing for so long.
    Silence,
}

/// Instead of a problem: the head of the request came too slowly.
pub(super) const TOO_SLOW: &str = "408";

/// Far longer than the deadline of a request and the time for which a replica is frozen.
const SILENCE: Duration = Duration::from_secs(60);

impl Http {
    pub(super) fn new(api_key: String) -> Self {
        let client = Client::builder().no_proxy().tls_certs_only([]).pool_max_idle_per_host(0).timeout(SILENCE);
        Self { client: client.build().unwrap(), api_key }
    }

    /// Asks a replica; `None` if it is not running.
    pub(super) async fn ask(
        &self,
        replica: &Replica,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<Asked> {
        let Address { life, url } = replica.address()?;
        let (at, verb) = (now(), format!("{method} {path}"));
        let mut request = self.client.request(method, format!("{url}{path}")).bearer_auth(&self.api_key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = async {
            let response = request.send().await?;
            Ok((response.status(), response.text().await?))
        };
        let read = |(status, text): (StatusCode, String)| match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(_) if status == StatusCode::NO_CONTENT => Value::Null,
            // A replica that was frozen counts that time as the caller's.
            Err(_) if status == StatusCode::REQUEST_TIMEOUT => json!({ "code": TOO_SLOW }),
            Err(_) => json!({ "code": "not JSON", "status": status.as_u16(), "body": text }),
        };
        let answer = answer.await.map(read).map_err(|error: reqwest::Error| match error.is_timeout() {
            true => Unanswered::Silence,
            false => Unanswered::Broken(format!("{:?}", error.without_url())),
        });
        Some(Asked { replica: replica.number, life, verb, at, done: now(), answer })
    }
}

impl Asked {
    /// The problem's code, if it is one.
    pub(super) fn code(&self) -> Option<&str> {
        self.answer.as_ref().ok()?["code"].as_str()
    }
}
