//! An actix actor that copies its users' repositories every second, and gets their tokens by message.
//!
//! ```sh
//! cargo run --example actor_messages
//! ```
//!
//! The actor knows two addresses instead of the supervisor: one returns tokens, the other takes reports of refused
//! tokens. Events of grants are messages, too: the actor skips users who must consent again until they have consented.
//!
//! The example needs no configuration: it simulates GitHub, with access tokens that live for four seconds.

use std::{collections::HashSet, error::Error, time::Duration};

use actix::{Actor, AsyncContext as _, Context, Handler, Message, Recipient, ResponseFuture};
use reqwest::StatusCode;
use serde::Deserialize;
use token_supervisor::{
    Acquire, EventKind, Generation, Keyring, RejectToken, TokenEvent, TokenKey, TokenSupervisor,
    testing::{Profile, SimulatedIdp},
};
use tokio::time::MissedTickBehavior;

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let simulated = SimulatedIdp::start(Profile::github().access_lifetime(Duration::from_secs(4)))?;
    let folder = tempfile::tempdir()?;
    let supervisor = TokenSupervisor::builder()
        .store(format!("sqlite://{}", folder.path().join("tokens.db").display()))
        .keyring(Keyring::generate()) // for this run only; otherwise use Keyring::from_file
        .idp("github", simulated.idp())
        .start()
        .await?;
    let users = ["alice", "bob"].map(|user| TokenKey::at("github").user(user));
    for user in &users {
        supervisor.connect(user, simulated.consent(user.user())).await?;
    }

    let registry = supervisor.registry();
    let github = GitHub {
        tokens: registry.recipient(),
        refused: registry.recipient(),
        // The simulated GitHub is on this machine: the client needs no proxy and no certificates, which may be missing.
        http: reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?,
        url: simulated.api_url(),
    };
    let mirror = Mirror { github, users: users.to_vec(), left_alone: HashSet::new() }.start();
    let events = supervisor.subscribe(mirror.recipient());

    tokio::select! {
        stop = tokio::signal::ctrl_c() => stop?,
        end = bob_thinks_again(&simulated, &supervisor, &users[1]) => end?,
    }
    drop(events);
    supervisor.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// Copies repositories.
struct Mirror {
    github: GitHub,
    users: Vec<TokenKey>,
    /// Users who have not consented again yet.
    left_alone: HashSet<TokenKey>,
}

impl Actor for Mirror {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(Duration::from_secs(1), |mirror, context| {
            let users = mirror.users.iter().filter(|user| !mirror.left_alone.contains(*user));
            users.for_each(|user| context.notify(Pull(user.clone())));
        });
    }
}

/// Copy this user's repositories.
#[derive(Message)]
#[rtype(result = "()")]
struct Pull(TokenKey);

impl Handler<Pull> for Mirror {
    /// The mailbox stays open: a slow response for one user does not delay the others.
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Pull(key): Pull, _: &mut Self::Context) -> Self::Result {
        let github = self.github.clone();
        Box::pin(async move {
            match github.repositories(&key).await {
                Ok((names, generation)) => println!("{}: {} (token {generation})", key.user(), names.join(", ")),
                Err(error) => println!("{}: copy failed: {error}", key.user()),
            }
        })
    }
}

impl Handler<TokenEvent> for Mirror {
    type Result = ();

    fn handle(&mut self, TokenEvent { key, kind, .. }: TokenEvent, _: &mut Self::Context) {
        match (kind, key) {
            (EventKind::ReconnectRequired { evidence, .. }, Some(key)) => {
                println!("{}: must consent again: {evidence}", key.user());
                self.left_alone.insert(key);
            }
            (EventKind::Recovered, Some(key)) => {
                println!("{}: has consented again", key.user());
                self.left_alone.remove(&key);
            }
            _ => {}
        }
    }
}

#[derive(Clone)]
struct GitHub {
    tokens: Recipient<Acquire>,
    refused: Recipient<RejectToken>,
    http: reqwest::Client,
    url: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

impl GitHub {
    /// Returns the names of the user's repositories, and the generation of the token.
    async fn repositories(&self, key: &TokenKey) -> Result<(Vec<String>, Generation), Box<dyn Error>> {
        let token = self.tokens.send(Acquire::new(key).min_ttl(Duration::from_millis(500))).await??;
        let bearer = token.access_token().expose_secret();
        let answer = self.http.get(format!("{}/user/repos", self.url)).bearer_auth(bearer).send().await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            // Any number of reports cause one refresh; the next round gets the new token.
            self.refused.send(RejectToken::new(key, token.generation())).await??;
        }
        let repositories: Vec<Repository> = answer.error_for_status()?.json().await?;
        let names = repositories.into_iter().map(|repository| repository.full_name).collect();
        Ok((names, token.generation()))
    }
}

/// Plays a user who ends the application's access, and connects it again a few seconds after the application has
/// noticed. Then the future never resolves.
async fn bob_thinks_again(
    simulated: &SimulatedIdp,
    supervisor: &TokenSupervisor,
    bob: &TokenKey,
) -> Result<(), token_supervisor::Error> {
    let mut events = supervisor.events();
    pass_seconds(3).await;
    simulated.end_family(bob.user());
    while let Some(event) = events.recv().await {
        if matches!(event, Ok(TokenEvent { kind: EventKind::ReconnectRequired { .. }, .. })) {
            break;
        }
    }
    pass_seconds(4).await;
    supervisor.connect(bob, simulated.consent(bob.user())).await?;
    std::future::pending().await
}

async fn pass_seconds(count: u32) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // With this behavior, the mirror gets its rounds meanwhile, even on a slow machine.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..=count {
        seconds.tick().await;
    }
}
