//! The library without actix: an axum application on plain tokio.
//!
//! ```sh
//! cargo run --example plain_tokio
//! curl URL/alice/repositories
//! ```
//!
//! The example needs no configuration: it simulates GitHub, with access tokens that live for four seconds. Alice has
//! connected it. Bob has not: his response is the error `not_connected`, with the next step.

use std::{error::Error, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use token_supervisor::{
    Keyring, TokenKey, TokenSupervisor,
    client::{CallError, TokenClient},
    testing::{Profile, SimulatedIdp},
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let simulated = SimulatedIdp::start(Profile::github().access_lifetime(Duration::from_secs(4)))?;
    let folder = tempfile::tempdir()?;
    let supervisor = TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.path().join("tokens.db").display()))
        .keyring(Keyring::generate()) // for this run only; otherwise use Keyring::from_file
        .idp("github", simulated.idp())
        .start()
        .await?;
    let alice = TokenKey::at("github").user("alice");
    supervisor.connect(&alice, simulated.consent("alice")).await?;
    tokio::spawn(tell(supervisor.clone(), alice));

    // The simulated GitHub is on this machine: the client needs no proxy, and no certificates, which may be missing.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    let github = GitHub { supervisor: supervisor.clone(), http, url: simulated.api_url() };
    let app = Router::new().route("/{user}/repositories", get(repositories)).with_state(github);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("serving http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(stop()).await?;
    supervisor.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

async fn stop() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("cannot wait for Ctrl-C, so the server stops now: {error}");
    }
}

/// Prints each new token's generation. A watch is for callers that read one key often: each read is an atomic load.
async fn tell(supervisor: TokenSupervisor, key: TokenKey) -> Result<(), token_supervisor::Error> {
    let mut watch = supervisor.watch(&key).await?;
    loop {
        if let Some(token) = watch.token() {
            println!("{} has token {}", key.user(), token.generation());
        }
        watch.changed().await;
    }
}

#[derive(Clone)]
struct GitHub {
    supervisor: TokenSupervisor,
    http: reqwest::Client,
    url: String,
}

#[derive(Deserialize, Serialize)]
struct Repository {
    full_name: String,
    description: Option<String>,
}

/// Takes the user from the path, without authentication. A real application checks its sessions.
async fn repositories(
    State(github): State<GitHub>,
    Path(user): Path<String>,
) -> Result<Json<Vec<Repository>>, Refused> {
    Ok(Json(github.repositories(&TokenKey::at("github").user(user)).await?))
}

impl GitHub {
    /// If GitHub refuses the token, e.g. because it was just replaced, the client reports it and repeats the request.
    async fn repositories(&self, key: &TokenKey) -> Result<Vec<Repository>, CallError> {
        let client = TokenClient::new(&self.supervisor, key, &self.http).host(&self.url)?;
        let request = self.http.get(format!("{}/user/repos", self.url)).build()?;
        Ok(client.execute(request).await?.error_for_status()?.json().await?)
    }
}

/// An error, with a response for programs.
struct Refused(CallError);

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        use token_supervisor::Error;

        let CallError::Token(error) = self.0 else {
            return (StatusCode::BAD_GATEWAY, Json(json!({ "code": "github_unavailable" }))).into_response();
        };
        let status = match &error {
            Error::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Error::NotConnected => StatusCode::NOT_FOUND,
            Error::ReconnectRequired { .. } => StatusCode::CONFLICT,
            error if error.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, Json(json!({ "code": error.code(), "detail": error.to_string() }))).into_response();
        if let Some(wait) = error.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, (wait.as_secs() + 1).into());
        }
        response
    }
}
