//! Tests over real HTTP, as a client sees the server. `profiles` tests each provider's format, `faults`
//! each fault, and this file the server itself.

mod faults;
mod profiles;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use serde_json::Value;

use super::*;
use crate::clock::Clock;

/// A provider with one user, and a client for it.
struct Scene {
    idp: SimulatedIdp,
    clock: ManualClock,
    http: reqwest::Client,
    first: RefreshToken,
    access: AccessToken,
}

/// What a client sees.
#[derive(Debug, PartialEq)]
enum Seen {
    /// There is no head.
    Nothing,
    /// There is a head, but the body ends too early.
    Truncated,
    Answer(u16, Value),
}

impl Scene {
    fn new(profile: Profile) -> Self {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let idp = SimulatedIdp::start_with_clock(profile, &clock).unwrap();
        let grant = idp.consent("alice");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
        let http = http.redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never()).build().unwrap();
        Self { idp, clock, http, first: grant.refresh_token.unwrap(), access: grant.access_token.unwrap() }
    }

    fn gitlab(kind: Kind) -> Self {
        Self::new(Profile::gitlab().kind(kind))
    }

    async fn refresh(&self, token: &str) -> Seen {
        self.refresh_with(token, self.idp.profile().client_secret.expose_secret()).await
    }

    async fn refresh_with(&self, token: &str, secret: &str) -> Seen {
        self.post(&self.idp.token_url(), &[("grant_type", "refresh_token"), ("refresh_token", token)], secret).await
    }

    async fn post(&self, url: &str, fields: &[(&str, &str)], secret: &str) -> Seen {
        let (profile, mut fields) = (self.idp.profile(), fields.to_vec());
        let mut request = self.http.post(url);
        if profile.wire.auth == profile::WireAuth::Basic {
            request = request.basic_auth(&profile.client_id, Some(secret));
        } else {
            fields.extend([("client_id", profile.client_id.as_str()), ("client_secret", secret)]);
        }
        Seen::of(request.form(&fields).send().await).await
    }

    async fn user(&self, access: &str) -> Seen {
        Seen::of(self.http.get(self.idp.userinfo_url()).bearer_auth(access).send().await).await
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.idp.presentations().iter().map(|one| one.outcome).collect()
    }

    /// Waits until the request with this number has arrived.
    async fn arrived(&self, number: u64) {
        until(|| self.idp.requests() >= number).await;
    }
}

impl Seen {
    async fn of(response: reqwest::Result<reqwest::Response>) -> Self {
        let Ok(response) = response else { return Self::Nothing };
        let status = response.status().as_u16();
        let form = response
            .headers()
            .get("content-type")
            .is_some_and(|sort| sort.to_str().unwrap().starts_with("application/x-www-form-urlencoded"));
        let Ok(text) = response.text().await else { return Self::Truncated };
        let body = if form {
            let pairs = url::form_urlencoded::parse(text.as_bytes()).into_owned();
            Value::Object(pairs.map(|(name, value)| (name, Value::String(value))).collect())
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Self::Answer(status, body)
    }

    fn text(&self, field: &str) -> Option<&str> {
        let Self::Answer(_, body) = self else { return None };
        body.get(field)?.as_str()
    }

    fn is(&self, status: u16, error: &str) -> bool {
        matches!(self, Self::Answer(seen, _) if *seen == status) && self.text("error") == Some(error)
    }

    fn status(&self) -> Option<u16> {
        if let Self::Answer(status, _) = self { Some(*status) } else { None }
    }
}

/// Polls until the condition holds: the server is another thread, and there is no other way to wait for it.
async fn until(so: impl Fn() -> bool) {
    let soon = Clock::system(tokio::runtime::Handle::current());
    for _ in 0..5_000 {
        if so() {
            return;
        }
        soon.sleep(Duration::from_millis(1)).await;
    }
    panic!("the condition did not become true");
}

#[test]
fn an_incomplete_request_counts_for_nothing() {
    let idp = SimulatedIdp::start(Profile::gitlab()).unwrap();
    let mut stream = TcpStream::connect(idp.0.address).unwrap();
    write!(stream, "POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\ngrant_type=").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(idp.requests(), 0);
}

#[tokio::test]
async fn clients_are_told_apart_by_the_queries_of_their_requests() {
    let scene = Scene::gitlab(Kind::Strict);
    let fields = [("grant_type", "refresh_token"), ("refresh_token", scene.first.expose_secret())];
    let secret = scene.idp.profile().client_secret.expose_secret();
    for url in [format!("{}?client=2", scene.idp.token_url()), scene.idp.token_url()] {
        scene.post(&url, &fields, secret).await;
    }
    let queries: Vec<_> = scene.idp.presentations().into_iter().map(|one| one.query).collect();
    assert_eq!(queries, [Some("client=2".into()), None]);
}

#[tokio::test]
async fn other_requests_are_refused_without_spending() {
    let scene = Scene::gitlab(Kind::Strict);
    let (url, secret) = (scene.idp.token_url(), scene.idp.profile().client_secret.expose_secret());
    let code = [("grant_type", "authorization_code"), ("refresh_token", scene.first.expose_secret())];
    assert!(scene.post(&url, &code, secret).await.is(400, "unsupported_grant_type"));
    assert!(scene.post(&url, &[("grant_type", "refresh_token")], secret).await.is(400, "invalid_request"));
    assert_eq!(Seen::of(scene.http.get(url).send().await).await.status(), Some(405));
    assert_eq!((scene.idp.requests(), scene.idp.presentations().len()), (2, 0));
}

#[tokio::test]
async fn repositories_are_listed_to_who_shows_a_live_access_token() {
    let scene = Scene::gitlab(Kind::Strict);
    let url = format!("{}/user/repos", scene.idp.api_url());
    let list = async |token: &str| Seen::of(scene.http.get(&url).bearer_auth(token).send().await).await;
    let live = scene.access.expose_secret();
    let Seen::Answer(200, repositories) = list(live).await else { panic!("the token is live") };
    let names: Vec<_> = repositories.as_array().unwrap().iter().map(|repository| &repository["full_name"]).collect();
    assert_eq!(names, ["alice/notes", "alice/site", "alice/tools"]);
    assert_eq!(list("made up").await.status(), Some(401));
    assert_eq!(Seen::of(scene.http.post(&url).bearer_auth(live).send().await).await.status(), Some(405));
    scene.idp.end_family("alice");
    assert_eq!(list(live).await.status(), Some(401));
}

#[tokio::test]
async fn a_step_of_our_wall_clock_is_nothing_to_the_provider() {
    let scene = Scene::gitlab(Kind::Strict);
    scene.clock.step_to(scene.clock.now() + Duration::from_secs(86_400));
    assert_eq!(scene.idp.access_died_at(&scene.access), None);
    scene.clock.advance(Duration::from_secs(7_200));
    let died = SystemTime::UNIX_EPOCH + Duration::from_secs(1_007_200);
    assert_eq!(scene.idp.access_died_at(&scene.access), Some(died));
    assert_eq!(scene.idp.access_died_at(&"made up".into()), Some(SystemTime::UNIX_EPOCH));
}

#[tokio::test]
async fn the_last_handle_stops_the_server_whatever_hangs() {
    let scene = Scene::gitlab(Kind::Strict);
    let (url, clone) = (scene.idp.token_url(), scene.idp.clone());
    scene.idp.next(Fault::Hang);
    let hanging = tokio::spawn(scene.http.post(&url).send());
    scene.arrived(1).await;
    drop(scene);
    assert_eq!(clone.requests(), 1);
    assert!(!format!("{clone:?} {:?}", clone.profile()).contains("ts-test-secret"));
    drop(clone);
    assert!(hanging.await.unwrap().is_err());
    assert!(reqwest::get(url).await.is_err());
}
