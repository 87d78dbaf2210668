//! An actix-web application whose page lists the repositories of the signed-in user.
//!
//! ```sh
//! cargo run --example actix_web_app
//! ```
//!
//! The example needs no configuration: it simulates GitHub, with access tokens that live for four seconds. Reload the
//! page for a while: the token changes, and you need not sign in again. For the real GitHub, use
//! `presets::github(client_id, client_secret)` and the API `https://api.github.com`.
//!
//! Programs in other languages get the same tokens over HTTP, under `/tokens`, with an API key: set
//! `TOKEN_SUPERVISOR_API_KEY` before you start the example, and see `client.py`.

use std::{collections::HashMap, error::Error, sync::Mutex, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, ResponseError, get,
    http::{
        StatusCode,
        header::{self, ContentType},
    },
    post,
    web::{self, Data, Form, Html},
};
use serde::Deserialize;
use token_supervisor::{
    Keyring, TokenKey, TokenSupervisor,
    client::{CallError, TokenClient},
    testing::{Profile, SimulatedIdp},
    web::{ApiKey, ApiKeys, Caller, IdpName, IdpToken, Problem, Scope, api},
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let simulated = SimulatedIdp::start(Profile::github().access_lifetime(Duration::from_secs(4)))?;
    let folder = tempfile::tempdir()?;
    let supervisor = TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.path().join("tokens.db").display()))
        .keyring(Keyring::generate()) // for this run only; otherwise use Keyring::from_file
        .idp(GitHub::NAME, simulated.idp())
        .start()
        .await?;
    let tokens = api(supervisor.clone(), api_keys());
    // The simulated GitHub is on this machine: the client needs no proxy, and no certificates, which may be missing.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    let github = Data::new(GitHub { http, url: simulated.api_url() });
    let (simulated, sessions) = (Data::new(simulated), Data::new(Sessions::default()));
    let handle = supervisor.clone();
    let app = move || {
        App::new()
            .app_data(handle.clone())
            .app_data(Caller::by(signed_in))
            .app_data(github.clone())
            .app_data(simulated.clone())
            .app_data(sessions.clone())
            .service((repositories, sign_in, connect))
            .service(web::scope("/tokens").service(tokens.clone()))
    };
    let server = HttpServer::new(app).bind(("127.0.0.1", 0))?;
    println!("serving http://{}", server.addrs()[0]);
    server.run().await?; // until Ctrl-C
    supervisor.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// The identity provider, and the API that takes its tokens.
struct GitHub {
    http: reqwest::Client,
    url: String,
}

impl IdpName for GitHub {
    const NAME: &'static str = "github";
}

/// The signed-in users, by the random value of the session cookie.
#[derive(Default)]
struct Sessions(Mutex<HashMap<String, String>>);

/// Returns the user of the request's session. With actix-session, that is `request.get_session().get("user").ok()?`.
fn signed_in(request: &HttpRequest) -> Option<String> {
    let cookies = request.headers().get(header::COOKIE)?.to_str().ok()?;
    let session = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("session="))?;
    request.app_data::<Data<Sessions>>()?.0.lock().ok()?.get(session).cloned()
}

/// Returns the only API key that may request tokens over HTTP. If it is not set, no request is allowed.
#[expect(clippy::disallowed_methods, reason = "the key is a secret, and the example has no configuration")]
fn api_keys() -> ApiKeys {
    let key = std::env::var("TOKEN_SUPERVISOR_API_KEY").ok().filter(|key| !key.is_empty());
    ApiKeys::new(key.map(|key| ApiKey::from_secret("example", &key).scope(Scope::Token)))
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    description: Option<String>,
}

/// Serves the page. A handler for programs would take an `IdpToken`, and callers without a token would get the problem
/// document. Here they get a page, too.
#[get("/")]
async fn repositories(
    token: Result<IdpToken<GitHub>, Problem>,
    supervisor: TokenSupervisor,
    github: Data<GitHub>,
) -> Result<Html, NoPage> {
    let token = token?;
    let repositories = github.repositories(&supervisor, token.key()).await?;
    let item = |repository: &Repository| {
        let description = repository.description.as_deref().unwrap_or_default();
        format!("<li><b>{}</b> {}</li>\n", escaped(&repository.full_name), escaped(description))
    };
    let items: String = repositories.iter().map(item).collect();
    let (user, generation) = (escaped(token.key().user()), token.generation());
    Ok(Html::new(page(&format!(
        "<h1>Repositories of {user}</h1>\n<ul>\n{items}</ul>\n<p>With token {generation}.</p>{SIGN_IN}"
    ))))
}

impl GitHub {
    /// If GitHub refuses the token, e.g. because it was just replaced, the client reports it and repeats the request.
    async fn repositories(&self, supervisor: &TokenSupervisor, key: &TokenKey) -> Result<Vec<Repository>, CallError> {
        let client = TokenClient::new(supervisor, key, &self.http).host(&self.url)?;
        let request = self.http.get(format!("{}/user/repos", self.url)).build()?;
        Ok(client.execute(request).await?.error_for_status()?.json().await?)
    }
}

/// An error, which the user sees as a page.
#[derive(Debug)]
enum NoPage {
    /// There is no token: the status of the problem says why.
    Token(Problem),
    GitHub(CallError),
}

impl From<Problem> for NoPage {
    fn from(problem: Problem) -> Self {
        Self::Token(problem)
    }
}

impl From<CallError> for NoPage {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Token(error) => Self::Token(error.into()),
            error => Self::GitHub(error),
        }
    }
}

impl std::fmt::Display for NoPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(problem) => problem.fmt(f),
            Self::GitHub(error) => error.fmt(f),
        }
    }
}

impl ResponseError for NoPage {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Token(problem) => problem.status_code(),
            Self::GitHub(_) => StatusCode::BAD_GATEWAY,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let (text, form) = match status {
            StatusCode::UNAUTHORIZED => ("Nobody is signed in.", SIGN_IN),
            StatusCode::NOT_FOUND => ("You have not connected GitHub yet.", CONNECT),
            StatusCode::CONFLICT => ("GitHub ended the connection. Please connect it again.", CONNECT),
            _ => ("GitHub cannot be reached. Please try again in a moment.", ""),
        };
        HttpResponse::build(status).content_type(ContentType::html()).body(page(&format!("<p>{text}</p>{form}")))
    }
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

/// Starts a session, without a password: anybody may be anybody here. A real application authenticates the user first.
#[post("/sign-in")]
async fn sign_in(Form(SignIn { user }): Form<SignIn>, sessions: Data<Sessions>) -> HttpResponse {
    if user.is_empty() || !user.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return HttpResponse::BadRequest().body("a name is made of letters, digits and dashes");
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system provides random bytes");
    let session = format!("{:032x}", u128::from_ne_bytes(random));
    // With `SameSite`, the forms of other sites do not send the cookie.
    let cookie = format!("session={session}; HttpOnly; SameSite=Lax; Path=/");
    sessions.0.lock().expect("no thread panics with the lock").insert(session, user);
    HttpResponse::SeeOther().insert_header((header::LOCATION, "/")).insert_header((header::SET_COOKIE, cookie)).finish()
}

/// Connects the user. A real application first sends the user to GitHub's consent page, then exchanges the code for
/// the tokens to connect. The simulated GitHub returns them at once.
#[post("/connect")]
async fn connect(
    request: HttpRequest,
    supervisor: TokenSupervisor,
    simulated: Data<SimulatedIdp>,
) -> Result<HttpResponse, token_supervisor::Error> {
    if let Some(user) = signed_in(&request) {
        supervisor.connect(&TokenKey::at(GitHub::NAME).user(&user), simulated.consent(&user)).await?;
    }
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, "/")).finish())
}

const SIGN_IN: &str = r#"
<form method="post" action="/sign-in"><input name="user" placeholder="alice" required> <button>Sign in</button></form>"#;
const CONNECT: &str = r#"
<form method="post" action="/connect"><button>Connect GitHub</button></form>"#;

fn page(body: &str) -> String {
    format!("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Repositories</title>\n{body}\n")
}

/// Escapes text for HTML: descriptions from GitHub may have any characters.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
