//! The provider's process, a user's way through consent, and what the provider has seen.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, Response, StatusCode, header, redirect};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use token_supervisor::Grant;
use url::Url;

use crate::{real_time::polled, skip};

const FOLDER: &str = "TOKEN_SUPERVISOR_TEST_OIDC_PROVIDER";

pub(crate) const CLIENT: &str = "web-app";
pub(crate) const CLIENT_SECRET: &str = "ts-test-secret-web-app";
const REDIRECT: &str = "http://127.0.0.1/callback";
const VERIFIER: &str = "ts-test-secret-verifier-as-long-as-pkce-wants-it";

/// How long an access token lives.
pub(crate) const LIFE: Duration = Duration::from_secs(3);

/// A running provider that knows nothing yet. It ends with its standard input, so with this or with the whole test.
pub(crate) struct Provider {
    process: Child,
    issuer: String,
    log: PathBuf,
    http: Client,
    _folder: TempDir,
}

/// What the provider told of a request at its token endpoint, or of a grant that ended. Of tokens it has a digest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) event: String,
    issuer: Option<String>,
    user: Option<String>,
    pub(crate) presented: Option<String>,
    pub(crate) issued: Option<String>,
    pub(crate) access_token: Option<String>,
    pub(crate) detail: Option<String>,
    /// When it was processed (ms since 1970).
    pub(crate) at: u64,
}

/// The answer of the token endpoint to a consent, as it came.
pub(crate) struct Consent(pub(crate) Vec<u8>);

impl Consent {
    pub(crate) fn grant(&self) -> Grant {
        Grant::from_token_response(&self.0).unwrap()
    }

    pub(crate) fn refresh_token(&self) -> String {
        text(&self.0, "refresh_token")
    }
}

impl Provider {
    /// Starts one. None if it is not there, which is said.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_slow(Duration::ZERO).await
    }

    /// Starts one whose answers are on their way for so long.
    pub(crate) async fn start_slow(delay: Duration) -> Option<Self> {
        let Some(modules) = skip::variable(FOLDER) else {
            skip::without("oidc-provider", &format!("{FOLDER} does not say where its packages are (or are to be)"));
            return None;
        };
        fetched(&modules);
        let folder = TempDir::new().unwrap();
        let (log, said) = (folder.path().join("events"), folder.path().join("said"));
        let mut process = Command::new("node")
            .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oidc-provider/server.mjs"), &modules])
            .args([LIFE.as_secs().to_string(), delay.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let issuer = polled("the provider listens", Duration::from_secs(60), || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "the provider did not start: {}", fs::read_to_string(&said).unwrap());
            events(&log).into_iter().find_map(|event| event.issuer)
        });
        let issuer = issuer.await;
        let http = Client::builder().no_proxy().pool_max_idle_per_host(0).redirect(redirect::Policy::none());
        let http = http.build().unwrap();
        Some(Self { process, issuer, log, http, _folder: folder })
    }

    /// Requests for tokens wait from now on: what the provider has not begun is not spent.
    pub(crate) async fn pause(&self) {
        let pauses = || events(&self.log).iter().filter(|event| event.event == "paused").count();
        let before = pauses();
        self.order("pause");
        polled("the pause", Duration::from_secs(60), || (pauses() > before).then_some(())).await;
    }

    pub(crate) fn resume(&self) {
        self.order("resume");
    }

    fn order(&self, order: &str) {
        writeln!(self.process.stdin.as_ref().expect("it is piped"), "{order}").unwrap();
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    /// Sends a user through consent as a browser does, with PKCE, and redeems the code.
    pub(crate) async fn consent(&self, user: &str) -> Consent {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let query = [
            ("client_id", CLIENT),
            ("response_type", "code"),
            ("redirect_uri", REDIRECT),
            ("scope", "openid offline_access"),
            ("prompt", "consent"),
            ("login_hint", user),
            ("state", "ours"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let authorize = Url::parse_with_params(&format!("{}/auth", self.issuer), query).unwrap();
        let back: BTreeMap<String, String> = self.browse(authorize).await.query_pairs().into_owned().collect();
        assert_eq!(back.get("state").map(String::as_str), Some("ours"));
        let code = back.get("code").unwrap_or_else(|| panic!("the consent of {user}: {:?}", back.get("error")));
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        let answer = self.post(&form).await;
        assert_eq!(answer.status(), StatusCode::OK, "the code of {user}");
        Consent(answer.bytes().await.unwrap().into())
    }

    /// Follows redirects with the cookies that come on the way, to where the client takes over.
    async fn browse(&self, mut url: Url) -> Url {
        let mut cookies = BTreeMap::new();
        while !url.as_str().starts_with(REDIRECT) {
            let all = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
            let answer = self.http.get(url.clone()).header(header::COOKIE, all).send().await.unwrap();
            assert!(answer.status().is_redirection(), "{}: {}", url.path(), answer.status());
            for cookie in answer.headers().get_all(header::SET_COOKIE) {
                let cookie = cookie.to_str().unwrap();
                let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
                cookies.insert(name.to_owned(), value.to_owned());
            }
            url = url.join(answer.headers()[header::LOCATION].to_str().unwrap()).unwrap();
        }
        url
    }

    /// Spends a refresh token, as a program does that does not share; the new one, or the error.
    pub(crate) async fn spend(&self, refresh_token: &str) -> Result<String, String> {
        let answer = self.post(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await;
        let (status, body) = (answer.status(), answer.bytes().await.unwrap());
        if status.is_success() { Ok(text(&body, "refresh_token")) } else { Err(text(&body, "error")) }
    }

    async fn post(&self, form: &[(&str, &str)]) -> Response {
        let request = self.http.post(self.token_url()).basic_auth(CLIENT, Some(CLIENT_SECRET)).form(form);
        request.send().await.unwrap()
    }

    /// Whether the provider accepts this access token.
    pub(crate) async fn accepts(&self, access_token: &str) -> bool {
        let answer = self.http.get(format!("{}/me", self.issuer)).bearer_auth(access_token).send().await.unwrap();
        answer.status() == StatusCode::OK
    }

    /// What has happened to the grants of this user, in order.
    pub(crate) fn story(&self, user: &str) -> Vec<Event> {
        let mut tokens = Vec::new();
        let mut story = events(&self.log);
        // Requests with a token that the provider has forgotten name no user.
        story.retain(|event| {
            let theirs = event.user.as_deref() == Some(user) || tokens.contains(&event.presented);
            if theirs && event.issued.is_some() {
                tokens.push(event.issued.clone());
            }
            theirs
        });
        story
    }

    /// How many refresh tokens of this user were spent: each once, and to be replaced by the next.
    pub(crate) fn spent_once_each(&self, user: &str) -> u64 {
        let mut story = self.story(user).into_iter();
        let mut current = story.next().expect("there was a consent").issued;
        let mut spent = 0;
        for event in story {
            let rotated = event.event == "grant.success" && event.presented == current && event.issued != current;
            assert!(rotated, "{user}: {event:?} after {current:?}");
            current = event.issued;
            spent += 1;
        }
        spent
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Fetches its packages, once in a run of tests.
fn fetched(modules: &str) {
    static FETCHED: OnceLock<()> = OnceLock::new();
    FETCHED.get_or_init(|| {
        let fetch =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oidc-provider/fetch")).arg(modules).output();
        let fetch = fetch.unwrap();
        assert!(fetch.status.success(), "no packages: {}", String::from_utf8_lossy(&fetch.stderr));
    });
}

/// Whole lines only: the last one may still be written.
fn events(log: &Path) -> Vec<Event> {
    let text = fs::read_to_string(log).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// As the provider tells tokens apart.
pub(crate) fn digest(token: &str) -> String {
    Sha256::digest(token).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn text(body: &[u8], field: &str) -> String {
    let body: Value = serde_json::from_slice(body).expect("answers are JSON");
    body[field].as_str().unwrap_or_else(|| panic!("the answer has a field {field}")).to_owned()
}
