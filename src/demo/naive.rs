//! A typical hand-written client: tokens in a table, a refresh when a token has expired, retries after failures.
//!
//! The comparison is fair. The client keeps the new refresh token of every response, counts a token's lifetime
//! from before the request, has our timeouts, and sends no request for signed-out users. Its load is a small part
//! of ours, and it never panics or is killed. But its workers do not coordinate their refreshes, it assumes that a
//! request without response had no effect, and it takes every `invalid_grant` for the end of the user's consent.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Map, Value};
use token_supervisor::{AccessToken, RefreshToken, testing::SimulatedIdp};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{
    load::Random,
    meter::DemoMeter,
    time::{Moment, pause},
    world::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, Pair, pairs_at, start_idps},
};

/// A web application without supervision, and its visitors.
pub(super) struct Naive {
    app: Arc<App>,
    visits: JoinHandle<()>,
    stopped: Arc<AtomicBool>,
}

struct App {
    http: reqwest::Client,
    idps: Vec<(&'static str, SimulatedIdp)>,
    pairs: Vec<Pair>,
    /// Sessions by the pair's number. A user without a session sees the sign-in page.
    sessions: Mutex<HashMap<usize, Session>>,
    meter: DemoMeter,
}

#[derive(Clone)]
struct Session {
    access: AccessToken,
    refresh: RefreshToken,
    since: Moment,
    expires_in: Duration,
}

/// Why a refresh failed.
enum Failed {
    /// `invalid_grant`.
    SignedOut,
    /// Any other failure: a retry may help.
    Somehow,
}

/// Concurrent requests, over all processes and threads of the application.
const WORKERS: usize = 8;
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

const BETWEEN_VISITS: Duration = Duration::from_millis(2);
/// One visit in `PAGE` opens a page that loads its parts at once; the others are a single request.
const PAGE: usize = 4;
const PARTS: usize = 3;

impl App {
    /// Every request begins with this; `None` leads to the sign-in page.
    async fn token(&self, user: usize) -> Result<Option<AccessToken>, &'static str> {
        let Some(session) = self.sessions().get(&user).cloned() else { return Ok(None) };
        if session.since.elapsed() < session.expires_in {
            return Ok(Some(session.access));
        }
        for _ in 0..TRIES {
            match self.refresh(&self.pairs[user].sim, &session.refresh).await {
                Ok(fresh) => {
                    let access = fresh.access.clone();
                    self.sessions().entry(user).and_modify(|row| *row = fresh);
                    return Ok(Some(access));
                }
                Err(Failed::SignedOut) => {
                    self.sessions().remove(&user);
                    return Err("please sign in again");
                }
                Err(Failed::Somehow) => pause(BETWEEN_TRIES).await,
            }
        }
        Err("something went wrong")
    }

    async fn refresh(&self, idp: &SimulatedIdp, refresh: &RefreshToken) -> Result<Session, Failed> {
        let (id, secret) = (idp.profile().client_id.as_str(), idp.profile().client_secret.expose_secret());
        let since = Moment::now();
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", refresh.expose_secret())];
        let mut request = self.http.post(idp.token_url());
        if idp.profile().name() == "bitbucket" {
            request = request.basic_auth(id, Some(secret));
        } else {
            form.extend([("client_id", id), ("client_secret", secret)]);
        }
        let answer = request.form(&form).send().await?;
        let good = answer.status().is_success();
        let fields = fields(&answer.text().await?);
        match fields.get("error").map(String::as_str) {
            Some("invalid_grant" | "bad_refresh_token") => return Err(Failed::SignedOut),
            Some(_) => return Err(Failed::Somehow),
            None => {}
        }
        let access = fields.get("access_token").filter(|_| good).ok_or(Failed::Somehow)?.as_str().into();
        let refresh = fields.get("refresh_token").map_or_else(|| refresh.clone(), |new| new.as_str().into());
        let expires_in = fields.get("expires_in").and_then(|seconds| seconds.parse().ok()).unwrap_or(3_600);
        Ok(Session { access, refresh, since, expires_in: Duration::from_secs(expires_in) })
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<usize, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<reqwest::Error> for Failed {
    fn from(_: reqwest::Error) -> Self {
        Self::Somehow
    }
}

/// Parses JSON, or a form as GitHub sends it.
fn fields(body: &str) -> HashMap<String, String> {
    let Ok(json) = serde_json::from_str::<Map<String, Value>>(body) else {
        return url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    };
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    json.into_iter().map(|(name, value)| (name, text(value))).collect()
}

impl Naive {
    /// Starts the application and its visitors: as many users as there are pairs, at providers of the same
    /// profiles, with faults of the same seed.
    pub(super) fn start(pairs: usize, life: Duration, seed: u64) -> io::Result<Self> {
        let idps = start_idps(life, seed)?;
        let app = Arc::new(App::new(pairs_at(&idps, pairs), idps)?);
        let stopped = Arc::new(AtomicBool::new(false));
        let visits = tokio::spawn(visit(app.clone(), Random(seed), stopped.clone()));
        Ok(Self { app, visits, stopped })
    }

    /// Stops new visits and completes open requests.
    pub(super) async fn stop(&mut self) {
        self.stopped.store(true, Relaxed);
        // This fails if the application panicked; the panic was printed.
        (&mut self.visits).await.ok();
    }

    pub(super) fn idps(&self) -> &[(&'static str, SimulatedIdp)] {
        &self.app.idps
    }

    pub(super) fn pairs(&self) -> &[Pair] {
        &self.app.pairs
    }

    pub(super) fn meter(&self) -> &DemoMeter {
        &self.app.meter
    }

    /// Returns the stored refresh token of each pair.
    pub(super) fn stored(&self) -> Vec<Option<RefreshToken>> {
        let sessions = self.app.sessions();
        (0..self.app.pairs.len()).map(|user| sessions.get(&user).map(|session| session.refresh.clone())).collect()
    }

    /// Returns how many users must sign in again.
    pub(super) fn signed_out(&self) -> usize {
        self.app.pairs.len() - self.app.sessions().len()
    }
}

impl App {
    /// Signs in every user and stores the refresh token; the first request fetches an access token.
    fn new(pairs: Vec<Pair>, idps: Vec<(&'static str, SimulatedIdp)>) -> io::Result<Self> {
        let sessions = pairs.iter().enumerate().filter_map(|(user, Pair { key, sim, .. })| {
            sim.consent(key.user());
            let (refresh, since) = (sim.newest(key.user())?, Moment::now());
            Some((user, Session { access: "".into(), refresh, since, expires_in: Duration::ZERO }))
        });
        let sessions = Mutex::new(sessions.collect());
        // The providers are on this machine: the client needs no proxy, and no certificates, which may be missing.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let http = http.connect_timeout(CONNECT_TIMEOUT).timeout(ATTEMPT_TIMEOUT).build().map_err(io::Error::other)?;
        Ok(Self { http, idps, pairs, sessions, meter: DemoMeter::new() })
    }

    /// Runs one caller, judged like ours: a token is correct if it was valid when the caller asked. Each later
    /// sign-in page of a signed-out user counts as success.
    async fn call(self: Arc<Self>, user: usize) {
        let asked = Moment::now();
        match self.token(user).await {
            Ok(Some(token)) if self.pairs[user].died_before(&token, asked.wall()) => {
                self.meter.add_error(user, "dead token".to_owned());
            }
            Ok(_) => {}
            Err(seen) => self.meter.add_error(user, seen.to_owned()),
        }
    }
}

/// Starts one visit after the other, each by a random user.
async fn visit(app: Arc<App>, mut random: Random, stopped: Arc<AtomicBool>) {
    let workers = Arc::new(Semaphore::new(WORKERS));
    let (mut visits, mut calls) = (interval(BETWEEN_VISITS), JoinSet::new());
    visits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stopped.load(Relaxed) {
        visits.tick().await;
        let user = random.below(app.pairs.len());
        for _ in 0..if random.below(PAGE) == 0 { PARTS } else { 1 } {
            let (app, worker) = (app.clone(), workers.clone().acquire_owned().await);
            calls.spawn(async move {
                app.call(user).await;
                drop(worker);
            });
        }
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

#[cfg(test)]
#[path = "naive_tests.rs"]
mod tests;
