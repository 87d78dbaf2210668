//! A real Keycloak: its process, its token endpoint as a user's browser would use it, its admin API.

use std::{net::TcpListener, path::PathBuf, process::Command, sync::Arc, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use token_supervisor::Grant;

use crate::{real_time::polled, support::signal};

pub(super) const CLIENT: &str = "web-app";
pub(super) const CLIENT_SECRET: &str = "ts-test-secret-web-app";
pub(super) const USER: &str = "alice";
pub(super) const PASSWORD: &str = "ts-test-secret-alice";

/// A running Keycloak with the realm `app`. Dropping it kills the server.
pub(super) struct Keycloak {
    folder: PathBuf,
    port: u16,
    pid: Option<u32>,
    http: Client,
}

/// What a consent gave, and the session it belongs to.
pub(super) struct Consent {
    /// The token endpoint's answer, as it came.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program alone is given it"))]
    pub(super) answer: Vec<u8>,
    pub(super) grant: Grant,
    pub(super) access_token: Arc<str>,
    pub(super) refresh_token: Arc<str>,
    pub(super) session: String,
}

impl Keycloak {
    /// Starts one with nothing but the realm in it.
    pub(super) async fn start(folder: PathBuf) -> Self {
        // Below those that are given to who asks for any: it is kept for the restarts.
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let first = 20_000 + (std::process::id() % 10_000) as u16;
        let port = (first..32_768).find(free).unwrap();
        let http = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let mut server = Self { folder, port, pid: None, http };
        server.run(false).await;
        server
    }

    /// Starts it again with everything it knew.
    pub(super) async fn start_again(&mut self) {
        self.run(true).await;
    }

    async fn run(&mut self, keep: bool) {
        let mut start = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keycloak/start"));
        start.arg(&self.folder).arg(self.port.to_string()).env("KEEP", if keep { "1" } else { "" });
        let started = tokio::task::spawn_blocking(move || start.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&started.stdout);
        assert!(started.status.success(), "Keycloak did not start: {}", String::from_utf8_lossy(&started.stderr));
        let pid = said.trim().rsplit_once("KEYCLOAK_PID=").and_then(|(_, pid)| pid.parse().ok());
        self.pid = Some(pid.expect("the script tells the id"));
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub(super) async fn crash(&mut self) {
        let pid = self.pid.take().expect("it runs");
        signal("KILL", pid);
        polled("the killed Keycloak is gone", Duration::from_secs(60), || (!self.is_server(pid)).then_some(())).await;
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A user of its own for a step; `PASSWORD` is everybody's.
    pub(super) async fn add_user(&self, name: &str) -> String {
        let credentials = json!([{ "type": "password", "value": PASSWORD }]);
        let user = json!({
            "username": name, "email": format!("{name}@example.test"), "emailVerified": true, "enabled": true,
            "firstName": "Some", "lastName": "Body", "credentials": credentials,
        });
        self.admin(Method::POST, "/users", Some(&user)).await;
        self.user_id(name).await
    }

    pub(super) async fn user_id(&self, name: &str) -> String {
        let users = self.admin(Method::GET, &format!("/users?exact=true&username={name}"), None).await;
        text(&users[0], "id")
    }

    pub(super) async fn enable(&self, user: &str, enabled: bool) {
        let path = format!("/users/{user}");
        let mut representation = self.admin(Method::GET, &path, None).await;
        representation["enabled"] = enabled.into();
        self.admin(Method::PUT, &path, Some(&representation)).await;
    }

    /// What a consent of this user gives.
    pub(super) async fn consent(&self, user: &str, scope: &str) -> Consent {
        let form = [
            ("grant_type", "password"),
            ("client_id", CLIENT),
            ("client_secret", CLIENT_SECRET),
            ("username", user),
            ("password", PASSWORD),
            ("scope", scope),
        ];
        let url = format!("{}/realms/app/protocol/openid-connect/token", self.url());
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "the password grant of {user}");
        let body = answer.bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let (access_token, refresh_token) = (text(&answer, "access_token"), text(&answer, "refresh_token"));
        let grant = Grant::new(access_token.clone())
            .refresh_token(refresh_token.clone())
            .scope(text(&answer, "scope"))
            .expires_in(Duration::from_secs(answer["expires_in"].as_u64().unwrap()));
        let session = text(&answer, "session_state");
        let (access_token, refresh_token) = (access_token.into(), refresh_token.into());
        Consent { answer: body.into(), grant, access_token, refresh_token, session }
    }

    /// Spends a refresh token, as another program would.
    pub(super) async fn refresh(&self, refresh_token: &str) -> StatusCode {
        self.post("token", &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
    }

    /// Ends the session of a refresh token.
    pub(super) async fn log_out(&self, refresh_token: &str) -> StatusCode {
        self.post("logout", &[("refresh_token", refresh_token)]).await
    }

    async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> StatusCode {
        let client = [("client_id", CLIENT), ("client_secret", CLIENT_SECRET)];
        let url = format!("{}/realms/app/protocol/openid-connect/{endpoint}", self.url());
        self.http.post(url).form(&[form, &client].concat()).send().await.unwrap().status()
    }

    /// Whether the realm accepts this access token.
    pub(super) async fn accepts(&self, access_token: &str) -> bool {
        let url = format!("{}/realms/app/protocol/openid-connect/userinfo", self.url());
        self.http.get(url).bearer_auth(access_token).send().await.unwrap().status() == StatusCode::OK
    }

    /// The realm's events of these types, oldest first.
    pub(super) async fn events(&self, types: &[&str]) -> Vec<Value> {
        let types: String = types.iter().map(|kind| format!("&type={kind}")).collect();
        let events = self.admin(Method::GET, &format!("/events?max=100000{types}"), None).await;
        let mut events = events.as_array().expect("a list of events").clone();
        events.sort_by_key(|event| event["time"].as_u64());
        events
    }

    /// Asks the admin API; null if the answer is empty.
    pub(super) async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let form =
            [("grant_type", "password"), ("client_id", "admin-cli"), ("username", "admin"), ("password", "admin")];
        let url = format!("{}/realms/master/protocol/openid-connect/token", self.url());
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "the administrator's login");
        let login: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let url = format!("{}/admin/realms/app{path}", self.url());
        let mut request = self.http.request(method.clone(), url).bearer_auth(text(&login, "access_token"));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        let body = answer.bytes().await.unwrap();
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() }
    }

    /// Whether the id is still that of this server.
    fn is_server(&self, pid: u32) -> bool {
        let folder = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy())
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take().filter(|pid| self.is_server(*pid)) {
            signal("KILL", pid);
        }
        std::fs::remove_file(self.folder.join("keycloak.pid")).ok();
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("the answer has a field {field}")).to_owned()
}
