//! The topology of `deploy/compose`: three processes on one PostgreSQL, with nginx in front.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use token_supervisor::{testing::Fault, web::grant_body};

use super::{
    installation::{Installation, Nginx},
    text,
};
use crate::{
    cli::Ran,
    postgres::server,
    real_time::{looked, polled},
    served::Served,
    skip,
};

/// Three replicas behind nginx.
struct Deployment {
    installation: Installation,
    replicas: Vec<Option<Served>>,
    nginx: Nginx,
    client: Client,
}

/// The path of the same user: as `%2F`, and in the form for proxies that decode it.
const USER: &str = "/v1/grants/github/acme%2Falice";
const SAME_USER: &str = "/v1/grants/github/~YWNtZS9hbGljZQ";

impl Deployment {
    /// Starts everything, in the order of the compose file. `None` if a program is not installed.
    async fn start() -> Option<Self> {
        let database = server::shared()?.url();
        if Command::new("nginx").arg("-v").output().is_err() {
            skip::without("nginx", "the proxy of deploy/compose is nginx, which is not installed");
            return None;
        }
        let installation = Installation::new(&database);
        let early = installation.serve(1, "127.0.0.1:0").err().expect("the tables are not there");
        assert!(early.contains("token-supervisor migrate"), "{early}");
        let migrated = Ran::new(installation.command(0, &["migrate"]).output().unwrap());
        assert_eq!(migrated.code, 0, "{migrated:?}");
        let replicas: Vec<_> = (1..=3).map(|replica| installation.serve(replica, "127.0.0.1:0").unwrap()).collect();
        let binds: Vec<_> = replicas.iter().map(bind).collect();
        let nginx = installation.nginx(&binds.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let client = nginx.client();
        Some(Self { installation, replicas: replicas.into_iter().map(Some).collect(), nginx, client })
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let key = &self.installation.api_key;
        self.client.request(method, format!("{}{path}", self.nginx.url)).bearer_auth(key)
    }

    /// Connects a user of the provider at this path.
    async fn connect(&self, path: &str, user: &str) {
        let grant = grant_body(&self.installation.idp.consent(user)).to_vec();
        let put = self.ask(Method::PUT, path).header("Content-Type", "application/json").body(grant);
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }

    /// Reads a token ten times, each time through a connection of its own.
    async fn reads(&self) {
        for _ in 0..10 {
            let request = self.nginx.client().get(format!("{}{USER}/token", self.nginx.url));
            let response = request.bearer_auth(&self.installation.api_key).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
}

fn bind(served: &Served) -> String {
    served.addresses[0].trim_start_matches("http://").to_owned()
}

#[test]
fn init_writes_what_is_missing_for_its_owner_alone() {
    let installation = Installation::new("unused");
    let files = ["secrets/keys", "secrets/tls-key", "secrets/database-password", "api-key", ".env"];
    let before = files.map(|file| text(installation.path(file)));
    for file in files {
        assert_eq!(fs::metadata(installation.path(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    for folder in ["secrets", "journal/1", "journal/3"] {
        assert_eq!(fs::metadata(installation.path(folder)).unwrap().permissions().mode() & 0o777, 0o700, "{folder}");
    }
    fs::remove_file(installation.path("secrets/github-client-secret")).unwrap();
    let again = installation.init();
    assert_eq!((again.code, again.stderr.as_str()), (0, ""), "{again:?}");
    assert!(again.stdout.starts_with("secrets/github-client-secret\nBack up secrets/keys"), "{again:?}");
    assert_eq!(files.map(|file| text(installation.path(file))), before);
    assert_eq!(fs::read_dir(installation.path("secrets")).unwrap().count(), 7);
}

#[tokio::test]
async fn a_proxy_in_front_changes_no_name_and_repeats_no_refresh() {
    let Some(mut all) = Deployment::start().await else { return };
    let idp = &all.installation.idp;
    all.connect(USER, "alice").await;
    // Every replica serves the user under both forms of its name.
    for path in [USER, SAME_USER].repeat(3) {
        let status: Value = all.ask(Method::GET, path).send().await.unwrap().json().await.unwrap();
        assert_eq!((&status["user"], &status["state"]), (&"acme/alice".into(), &"fresh".into()), "{path}");
    }
    let refreshed: Value =
        all.ask(Method::POST, &format!("{SAME_USER}/refresh")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&refreshed["refreshed"], &refreshed["generation"]), (&true.into(), &2.into()));
    let poll = all.ask(Method::GET, &format!("{USER}/token?wait=1")).header("If-None-Match", "*");
    assert_eq!(poll.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    for path in ["/metrics", "/%6Detrics"] {
        assert_eq!(all.ask(Method::GET, path).send().await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
    }

    // A replica dies while the provider is asked: the caller hears of it, and no other replica sends the token.
    all.connect("/v1/grants/github/bob", "bob").await;
    let sent = idp.requests();
    idp.next(Fault::Hang);
    let hung = tokio::spawn(all.ask(Method::POST, "/v1/grants/github/bob/refresh?timeout=60").send());
    polled("the token is sent", Duration::from_secs(20), || (idp.requests() == sent + 1).then_some(())).await;
    let mut killed = 0;
    for (number, replica) in all.replicas.iter_mut().enumerate() {
        let served = replica.take().unwrap();
        let address = format!("{}/v1/idps", served.addresses[0]);
        let idps = all.client.get(address).bearer_auth(&all.installation.api_key).send().await.unwrap();
        let idps: Value = idps.json().await.unwrap();
        if idps["items"][0]["refreshing"] == 1 {
            served.signal("KILL");
            served.ended().await;
            killed = number + 1;
        } else {
            *replica = Some(served);
        }
    }
    assert!(killed > 0, "one of them is refreshing");
    assert_eq!(hung.await.unwrap().unwrap().status(), StatusCode::BAD_GATEWAY);
    all.reads().await;
    let again = async || (idp.requests() > sent + 1).then_some(());
    assert_eq!(looked(Duration::from_secs(1), again).await, None, "sent again");
    idp.release();
    assert_eq!(idp.duplicate_spends(), 0);

    let (access, errors) = all.nginx.logs();
    assert!(access.contains(" POST 502 ") && access.lines().count() > 10, "{access}");
    for secret in [all.installation.api_key.as_str(), "ts-test-secret-", "alice", "YWNtZS9hbGljZQ", "bob"] {
        assert!(!access.contains(secret) && !errors.contains(secret), "{secret} is logged");
    }
}

#[tokio::test]
async fn replicas_are_replaced_one_after_the_other_and_no_reader_notices() {
    let Some(mut all) = Deployment::start().await else { return };
    all.connect(USER, "alice").await;
    all.reads().await;
    for number in 0..3 {
        let served = all.replicas[number].take().unwrap();
        let bind = bind(&served);
        let checked = |all: &Deployment| {
            let mut check = all.installation.command(number + 1, &["healthcheck"]);
            Ran::new(check.env("TOKEN_SUPERVISOR__SERVER__BIND", &bind).output().unwrap()).code
        };
        assert_eq!(checked(&all), 0);
        served.signal("TERM");
        let mut ended = std::pin::pin!(served.ended());
        let (status, log) = loop {
            tokio::select! {
                ended = &mut ended => break ended,
                () = all.reads() => {}
            }
        };
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("ts-test-secret-") && !log.contains(&all.installation.api_key), "a secret is logged");
        assert_eq!(checked(&all), 4);
        all.reads().await;
        all.replicas[number] = Some(all.installation.serve(number + 1, &bind).unwrap());
        assert_eq!(checked(&all), 0);
        // It took its own journal again, and left those of the others alone.
        let files = fs::read_dir(all.installation.path(&format!("journal/{}", number + 1))).unwrap();
        let journals =
            files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "journal"));
        assert_eq!(journals.count(), 1);
    }
    all.reads().await;
    let (access, _) = all.nginx.logs();
    assert!(!access.lines().any(|line| line.contains(" 502 ") || line.contains(" 504 ")), "{access}");
}
