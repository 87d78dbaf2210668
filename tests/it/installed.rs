//! The program as its users come to have it: `init`, a configuration edited as it says, `connect`, `serve`.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, ExitStatus},
    sync::Mutex,
    time::Duration,
};

use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use token_supervisor::{Keyring, RefreshToken, TokenKey};

use crate::{
    cli::{Ran, api_key, program, started},
    real_time::{now, pass, polled_async},
    served::Served,
    support::left,
};

/// A folder in which `init` was run for one identity provider, and an application that has the API key.
pub(crate) struct Installed {
    folder: TempDir,
    idp: &'static str,
    api_key: String,
    http: Client,
    /// Of the server that runs; empty if none does.
    address: Mutex<String>,
    /// Tokens and keys that were seen here. None of them may be logged or shown.
    secrets: Mutex<BTreeSet<String>>,
}

/// A token as it is handed out.
#[derive(Deserialize)]
pub(crate) struct Handed {
    pub(crate) access_token: String,
    pub(crate) generation: u64,
    expires_in: u64,
    /// Its end, at the earliest (ms since 1970).
    #[serde(skip)]
    end: u64,
}

impl Installed {
    /// Runs `init` for this preset. Each edit is a line of the configuration, and what it becomes.
    pub(crate) fn new(idp: &'static str, edits: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let ran = Ran::new(program(folder.path(), &["init", "--idp", idp]).output().unwrap());
        assert_eq!(ran.code, 0);
        let api_key = api_key(folder.path());
        let file = folder.path().join("token-supervisor.toml");
        let mut config = fs::read_to_string(&file).unwrap();
        for (line, becomes) in [&[("# bind = \"127.0.0.1:8080\"", "bind = \"127.0.0.1:0\"")], edits].concat() {
            assert!(config.lines().any(|it| it == line), "not in the configuration: {line}");
            config = config.replace(line, becomes);
        }
        fs::write(file, config).unwrap();
        let http = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let secrets = Mutex::new(BTreeSet::from([api_key.clone()]));
        let installed = Self { folder, idp, api_key, http, address: Mutex::default(), secrets };
        installed.run(&["config", "check"]);
        installed
    }

    /// On the server, if one runs.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(self.folder.path(), args);
        let address = self.address.lock().unwrap();
        if !address.is_empty() {
            command.env("TOKEN_SUPERVISOR_SERVER", &*address).env("TOKEN_SUPERVISOR_API_KEY", &self.api_key);
        }
        command
    }

    fn run(&self, args: &[&str]) -> String {
        self.succeeded(Ran::new(self.command(args).output().unwrap()))
    }

    fn succeeded(&self, ran: Ran) -> String {
        self.holds_no_secret(&ran.stdout);
        self.holds_no_secret(&ran.stderr);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout
    }

    /// Hands in the answer to a consent as it came, through the command.
    pub(crate) fn connect(&self, user: &str, answer: &[u8]) {
        self.keep_secret(answer);
        let mut child = started(self.command(&["connect", self.idp, user, "--stdin"]));
        child.stdin.take().unwrap().write_all(answer).unwrap();
        let said = self.succeeded(Ran::new(child.wait_with_output().unwrap()));
        assert!(said.starts_with("Connected.\n"), "{said}");
    }

    /// Hands in the answer to a consent over HTTP. A server that is killed meanwhile does not say whether it has it.
    pub(crate) async fn put(&self, user: &str, answer: &[u8]) -> Result<(), String> {
        self.keep_secret(answer);
        let answer: Value = serde_json::from_slice(answer).unwrap();
        let body: Value = ["access_token", "refresh_token", "token_type", "scope", "expires_in"]
            .into_iter()
            .map(|field| (field.to_owned(), answer[field].clone()))
            .collect();
        self.ask(Method::PUT, &format!("/v1/grants/{}/{user}", self.idp), body).await.map(drop)
    }

    /// A token, or why there is none: the problem's code, or `gone` if nobody answers.
    pub(crate) async fn token(&self, user: &str) -> Result<Handed, String> {
        let asked = now();
        let answer = self.ask(Method::GET, &format!("/v1/grants/{}/{user}/token", self.idp), Value::Null).await?;
        let mut handed: Handed = serde_json::from_value(answer).unwrap();
        handed.end = asked + 1_000 * handed.expires_in;
        self.secrets.lock().unwrap().insert(handed.access_token.clone());
        Ok(handed)
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.address.lock().unwrap());
        let mut request = self.http.request(method, url).bearer_auth(&self.api_key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let gone = |_| "gone".to_owned();
        let answer = request.send().await.map_err(gone)?;
        let (status, body) = (answer.status(), answer.json::<Value>().await.map_err(gone)?);
        if status.is_success() { Ok(body) } else { Err(body["code"].as_str().unwrap().to_owned()) }
    }

    /// Many readers at once.
    pub(crate) async fn tokens(&self, user: &str, readers: usize) -> Vec<Handed> {
        let all = futures_util::future::join_all((0..readers).map(|_| self.token(user))).await;
        all.into_iter().map(|token| token.unwrap_or_else(|code| panic!("{user}: {code}"))).collect()
    }

    /// Reads for so long: every answer is a token, and good ones are `accepted`. How many were.
    pub(crate) async fn reads(&self, user: &str, during: Duration, accepted: impl AsyncFn(&str) -> bool) -> usize {
        let (until, mut used) = (now() + during.as_millis() as u64, 0);
        while now() < until {
            let token = self.tokens(user, 20).await.pop().expect("they are twenty");
            let accepted = accepted(&token.access_token).await;
            // Its way takes its time, and nobody knows how old a consent's token was when it came.
            assert!(accepted || now() >= token.end || token.generation == 1, "a good token of {user} is refused");
            used += usize::from(accepted);
            pass(Duration::from_millis(200)).await;
        }
        used
    }

    /// Waits for another token.
    pub(crate) async fn sees_a_refresh(&self, user: &str) {
        let before = self.living(user);
        let look = async || (self.token(user).await.ok()?.generation > before).then_some(());
        polled_async("a refresh", Duration::from_secs(60), look).await;
    }

    /// Holds the provider, and waits until nothing is in flight: what a server that is killed then may not lose.
    pub(crate) async fn hold(&self) {
        self.ask(Method::POST, &format!("/v1/idps/{}/hold", self.idp), json!({ "reason": "a kill" })).await.unwrap();
        let nothing = async || {
            let idps = self.ask(Method::GET, "/v1/idps", Value::Null).await.unwrap();
            (idps["items"][0]["refreshing"] == 0).then_some(())
        };
        polled_async("nothing is in flight", Duration::from_secs(60), nothing).await;
    }

    /// Starts the server again that was killed while its provider was held.
    pub(crate) async fn serve_again(&self) -> Served {
        let server = self.serve();
        self.ask(Method::POST, &format!("/v1/idps/{}/release", self.idp), json!({})).await.unwrap();
        server
    }

    /// The refresh tokens that a dead server left of each of these users' grants, in store and journal.
    pub(crate) async fn left(&self, users: &[String]) -> Vec<Vec<RefreshToken>> {
        let keyring = Keyring::from_file(self.folder.path().join("token-supervisor.keys")).unwrap();
        let keys: Vec<_> = users.iter().map(|user| TokenKey::at(self.idp).user(user)).collect();
        let left = left(&self.folder.path().join("token-supervisor.db"), &keyring, &keys).await;
        left.into_iter().map(|kept| kept.into_iter().filter_map(|kept| kept.refresh_token).collect()).collect()
    }

    /// Starts the server.
    pub(crate) fn serve(&self) -> Served {
        let server = Served::start(self.command(&["serve", "--json"])).unwrap();
        server.addresses[0].clone_into(&mut self.address.lock().unwrap());
        server
    }

    /// Ends a server by this signal. Nothing that it logged is a secret.
    pub(crate) async fn end(&self, server: Served, signal: &str) -> ExitStatus {
        self.address.lock().unwrap().clear();
        server.signal(signal);
        let (status, log) = server.ended().await;
        self.holds_no_secret(&log);
        status
    }

    /// What `token` prints.
    pub(crate) fn printed_token(&self, user: &str) -> String {
        let ran = Ran::new(self.command(&["token", self.idp, user]).output().unwrap());
        self.holds_no_secret(&ran.stderr);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout.trim_end().to_owned()
    }

    /// The generation of a grant that nothing is wrong with, by `status`.
    pub(crate) fn living(&self, user: &str) -> u64 {
        let status: Value = serde_json::from_str(&self.run(&["status", self.idp, user, "--json"])).unwrap();
        assert!(status["state"] == "fresh" || status["state"] == "due", "{status}");
        status["generation"].as_u64().unwrap()
    }

    fn keep_secret(&self, answer: &[u8]) {
        let answer: Value = serde_json::from_slice(answer).unwrap();
        let tokens = ["access_token", "refresh_token", "id_token"].map(|name| answer[name].as_str().map(str::to_owned));
        self.secrets.lock().unwrap().extend(tokens.into_iter().flatten());
    }

    fn holds_no_secret(&self, text: &str) {
        let secrets = self.secrets.lock().unwrap();
        let told = secrets.iter().any(|secret| text.contains(secret.as_str())) || text.contains("ts-test-secret-");
        assert!(!told, "a secret is told");
    }
}
