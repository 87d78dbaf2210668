//! The applications: one task for each grant, which asks the program by HTTP, and whose resource server refuses every
//! token, so that there is always a refresh to do.

use std::{sync::mpsc::Sender, time::Duration};

use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use token_supervisor::RefreshToken;
use tokio::{
    runtime::Runtime,
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::JoinHandle,
};

use super::{
    process::{Event, Program},
    providers::LIFE,
};

pub(super) struct Users {
    runtime: Runtime,
    all: Vec<JoinHandle<()>>,
    consents: Vec<UnboundedSender<RefreshToken>>,
    leaving: watch::Sender<bool>,
}

impl Users {
    /// They share what the program listens at: some come over the network with an API key, some by its socket.
    pub(super) fn start(program: &Program, addresses: &[String], teller: &Sender<Event>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let doors: Vec<_> = addresses.iter().map(|address| Door::new(address, &program.api_key)).collect();
        let leaving = watch::Sender::new(false);
        let users = program.grants.iter().enumerate().map(|(grant, key)| {
            let (consents, consented) = unbounded_channel();
            let user = User {
                grant,
                path: format!("/v1/grants/{}/{}", key.idp(), key.user()),
                door: doors[grant % doors.len()].clone(),
                teller: teller.clone(),
                consented,
                leaving: leaving.subscribe(),
            };
            (runtime.spawn(user.live()), consents)
        });
        let (all, consents) = users.unzip();
        Self { runtime, all, consents, leaving }
    }

    pub(super) fn connect(&self, grant: usize, token: RefreshToken) {
        self.consents[grant].send(token).ok();
    }

    /// Waits until each has the answer that it waits for, or knows that there will be none; whether they all did in this
    /// time. The others go without: a request handed to a connection just as it ends may hear nothing (hyper's issue 4122).
    pub(super) fn leave(self, within: Duration) -> bool {
        let Self { runtime, all, consents, leaving } = self;
        leaving.send_replace(true);
        drop(consents);
        let left = runtime.block_on(async { tokio::time::timeout(within, join_all(all)).await });
        runtime.shutdown_background();
        left.map(|users| users.into_iter().for_each(|user| user.unwrap())).is_ok()
    }
}

/// A way to the program.
#[derive(Clone)]
struct Door {
    client: Client,
    url: String,
    api_key: Option<String>,
}

impl Door {
    fn new(address: &str, api_key: &str) -> Self {
        // Left alone for longer, a connection is closed by the server, perhaps as the next request leaves.
        let client = Client::builder().no_proxy().tls_certs_only([]).pool_idle_timeout(Duration::from_secs(2));
        let (client, url, api_key) = match address.strip_prefix("unix:") {
            Some(path) => (client.unix_socket(path), "http://localhost".to_owned(), None),
            None => (client, address.to_owned(), Some(api_key.to_owned())),
        };
        Self { client: client.build().unwrap(), url, api_key }
    }
}

struct User {
    grant: usize,
    path: String,
    door: Door,
    teller: Sender<Event>,
    consented: UnboundedReceiver<RefreshToken>,
    leaving: watch::Receiver<bool>,
}

impl User {
    async fn live(mut self) {
        if let Err(error) = self.use_grant().await {
            let (grant, under_way) = (self.grant, !error.is_connect());
            self.tell(Event::CutOff { grant, under_way, error: format!("{error:?}") });
        }
    }

    async fn use_grant(&mut self) -> reqwest::Result<()> {
        let (grant, mut seen) = (self.grant, None);
        while !*self.leaving.borrow() {
            let answer = self.ask(Method::GET, "/token", None).await?;
            match answer["code"].as_str() {
                None => {
                    let generation = answer["generation"].as_u64().unwrap();
                    if seen.replace(generation) != Some(generation) {
                        self.tell(Event::Seen { grant, generation });
                    } else {
                        pause(Duration::from_millis(50)).await;
                    }
                    // Should this fail, the token is served and refused once more.
                    self.ask(Method::POST, "/rejected", Some(json!({ "generation": generation }))).await?;
                }
                Some("not_connected" | "reconnect_required") => {
                    self.tell(Event::ReconnectRequired { grant, reason: answer.to_string() });
                    let Some(token) = self.consented.recv().await else { break };
                    self.connect(&token).await?;
                }
                Some("busy" | "unavailable" | "timeout") => pause(Duration::from_millis(50)).await,
                Some(_) => {
                    self.tell(Event::Failed { grant, error: answer.to_string() });
                    break;
                }
            }
        }
        Ok(())
    }

    async fn connect(&self, token: &RefreshToken) -> reqwest::Result<()> {
        let consent = json!({
            "access_token": "ts-test-secret-of-the-consent",
            "refresh_token": token.expose_secret(),
            "expires_in": LIFE.as_secs(),
        });
        loop {
            let answer = self.ask(Method::PUT, "", Some(consent.clone())).await?;
            match answer["code"].as_str() {
                None => return Ok(()),
                Some("busy" | "unavailable" | "timeout") => pause(Duration::from_millis(20)).await,
                Some(_) => {
                    self.tell(Event::Failed { grant: self.grant, error: answer.to_string() });
                    return Ok(());
                }
            }
        }
    }

    /// What is answered: what was asked for, or a problem, which has a `code`.
    ///
    /// # Errors
    /// There was no whole answer.
    async fn ask(&self, method: Method, verb: &str, body: Option<Value>) -> reqwest::Result<Value> {
        let Door { client, url, api_key } = &self.door;
        let mut request = client.request(method, format!("{url}{}{verb}", self.path));
        if let Some(api_key) = api_key {
            request = request.bearer_auth(api_key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await?.json().await
    }

    fn tell(&self, event: Event) {
        // When nobody listens any more, the test is over.
        self.teller.send(event).ok();
    }
}

async fn pause(duration: Duration) {
    tokio::time::timeout(duration, std::future::pending::<()>()).await.ok();
}
