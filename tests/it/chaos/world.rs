//! Everything of one run, and its beginning and end.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use token_supervisor::{Keyring, RefreshToken, TokenKey, TokenSupervisor};
use tokio::sync::watch;
use url::Url;

use super::{
    REPLICAS,
    account::Account,
    database::Proxy,
    http::{Asked, Http, TOO_SLOW, Unanswered},
    now, pass,
    providers::Providers,
    replica::{Common, Process, Replica, api_key},
};
use crate::{postgres::server::Server, support::stop};

pub(super) struct World {
    folder: TempDir,
    keyring: Keyring,
    pub(super) server: Arc<Server>,
    /// Where the store is, without proxy.
    store: String,
    pub(super) proxies: Vec<Proxy>,
    pub(super) providers: Providers,
    pub(super) replicas: Vec<Arc<Replica>>,
    pub(super) accounts: Vec<Account>,
    http: Http,
    began: SystemTime,
    quiet: watch::Sender<bool>,
    read: watch::Sender<bool>,
    /// The processes that run in the quiet time.
    kept: Mutex<Vec<(usize, Process)>>,
    pub(super) counts: Mutex<BTreeMap<&'static str, usize>>,
    pub(super) requests: AtomicUsize,
    /// Requests without answer, to be explained by the end of a replica.
    pub(super) unanswered: Mutex<Vec<Asked>>,
    pub(super) violations: Mutex<Vec<String>>,
    pub(super) suspicions: Mutex<Vec<Suspicion>>,
}

/// A token that the provider had ended when it was handed out: by its age, or with its family.
pub(super) struct Suspicion {
    pub(super) provider: &'static str,
    pub(super) died: SystemTime,
    pub(super) what: String,
}

/// Every request is answered before its deadline (10 s), but for the time in which its replica stands still, and whatever a busy
/// machine takes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(25);

/// The limit for the head of a request, less what the clock of the server is behind.
const HEAD_WITHIN: Duration = Duration::from_secs(4);

/// How long a process that goes on may count time by when it was stopped.
const CLOCK_WITHIN: Duration = Duration::from_secs(3);

impl World {
    /// Configures the replicas, for so many grants at each provider.
    pub(super) async fn new(server: Server, providers: Providers, grants_at_each: usize, seed: u64) -> Self {
        let (folder, keyring) = (TempDir::new().unwrap(), Keyring::generate());
        let keys = folder.path().join("keys");
        keyring.write_new(&keys).unwrap();
        let (section, key) = api_key(folder.path());
        let store = format!("{}&sslmode=disable", server.url_at("127.0.0.1"));
        let port = Url::parse(&store).unwrap().port().unwrap();
        let mut proxies = Vec::new();
        for number in 0..REPLICAS as u64 {
            proxies.push(Proxy::start(port, seed.wrapping_add(number)).await);
        }
        let replica = |(number, proxy): (usize, &Proxy)| {
            let store = through(&store, proxy);
            let common = Common { store, keys: &keys, api_key: &section, providers: &providers.0 };
            Arc::new(Replica::new(number, folder.path(), &common))
        };
        let replicas: Vec<_> = proxies.iter().enumerate().map(replica).collect();
        replicas[0].migrate();
        let accounts = providers.0.iter().enumerate().flat_map(|(number, provider)| {
            let key = |user| TokenKey::at(provider.name).user(format!("user-{user}"));
            (0..grants_at_each).map(move |user| Account::new(number, key(user)))
        });
        Self {
            accounts: accounts.collect(),
            folder,
            keyring,
            server: Arc::new(server),
            store,
            proxies,
            providers,
            replicas,
            http: Http::new(key),
            began: now(),
            quiet: watch::Sender::new(false),
            read: watch::Sender::new(true),
            kept: Mutex::default(),
            counts: Mutex::default(),
            requests: AtomicUsize::new(0),
            unanswered: Mutex::default(),
            violations: Mutex::default(),
            suspicions: Mutex::default(),
        }
    }

    pub(super) async fn start_all(&self) -> Vec<Process> {
        join_all(self.replicas.iter().map(|replica| replica.start())).await
    }

    pub(super) fn age(&self) -> Duration {
        self.began.elapsed().unwrap_or_default()
    }

    /// Lets things go wrong for this time, or until something that must not happen has happened.
    pub(super) async fn trouble_for(&self, time: Duration) {
        let ends = now() + time;
        while now() < ends && self.violations.lock().unwrap().is_empty() {
            pass(Duration::from_millis(100)).await;
        }
        self.quiet.send_replace(true);
    }

    /// Waits for this time; whether it is quiet from now on.
    pub(super) async fn quiet_within(&self, time: Duration) -> bool {
        let mut quiet = self.quiet.subscribe();
        tokio::time::timeout(time, quiet.wait_for(|quiet| *quiet)).await.is_ok()
    }

    /// Waits a moment for so many requests of this replica to be in flight.
    pub(super) async fn until_in_flight(&self, replica: usize, requests: usize) {
        let latest = now() + Duration::from_secs(2);
        while now() < latest && self.providers.in_flight_of(replica) < requests {
            pass(Duration::from_millis(5)).await;
        }
    }

    /// A process that runs until the end.
    pub(super) fn keep(&self, replica: usize, process: Process) {
        self.kept.lock().unwrap().push((replica, process));
    }

    pub(super) fn is_read(&self) -> bool {
        *self.read.borrow()
    }

    pub(super) fn end_reading(&self) {
        self.read.send_replace(false);
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(super) fn violates(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub(super) fn suspects(&self, provider: &'static str, died: SystemTime, what: String) {
        self.suspicions.lock().unwrap().push(Suspicion { provider, died, what });
    }

    /// Asks a replica; `None` if it is not running. Whether there may be no answer is judged at the end.
    pub(super) async fn ask(&self, replica: usize, method: Method, path: &str, body: Option<Value>) -> Option<Asked> {
        let replica = &self.replicas[replica];
        let asked = self.http.ask(replica, method, path, body).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let life = &replica.lives()[asked.life];
        let ran = life.ran(asked.at, asked.done);
        let counts_as_slow = || {
            let mut thawed = life.thawed(asked.at - CLOCK_WITHIN, asked.done);
            thawed.any(|(stopped, went_on)| went_on.duration_since(stopped).is_ok_and(|froze| froze > HEAD_WITHIN))
        };
        match &asked.answer {
            Err(Unanswered::Silence) => self.violates(format!("{} of replica {} hangs", asked.verb, asked.replica)),
            Err(Unanswered::Broken(_)) => {
                let Asked { replica, life, at, done, .. } = asked;
                let (verb, answer) = (asked.verb.clone(), asked.answer.clone());
                self.unanswered.lock().unwrap().push(Asked { replica, life, verb, at, done, answer });
            }
            Ok(_) if asked.code() == Some(TOO_SLOW) && !counts_as_slow() => {
                self.violates(format!("{} of replica {} was not too slow", asked.verb, asked.replica));
            }
            Ok(_) if ran > ANSWERED_WITHIN => {
                self.violates(format!("{} of replica {} is answered after {ran:?}", asked.verb, asked.replica));
            }
            Ok(_) => {}
        }
        Some(asked)
    }

    /// Waits until every grant was refreshed once more, and every replica knows it as fresh.
    pub(super) async fn until_all_is_fresh(&self, within: Duration) {
        let fresh = async {
            let before: Vec<_> = self.accounts.iter().map(Account::highest).collect();
            for (account, before) in self.accounts.iter().zip(before) {
                while account.highest() <= before {
                    pass(Duration::from_millis(50)).await;
                }
            }
            for (account, replica) in
                self.accounts.iter().flat_map(|it| (0..REPLICAS).map(move |replica| (it, replica)))
            {
                let is_fresh = async || {
                    let asked = self.ask(replica, Method::GET, &account.path(), None).await;
                    asked.is_some_and(|asked| asked.answer.is_ok_and(|status| status["state"] == "fresh"))
                };
                while !is_fresh().await {
                    pass(Duration::from_millis(300)).await;
                }
            }
        };
        let stops = async {
            while self.violations.lock().unwrap().is_empty() {
                pass(Duration::from_millis(100)).await;
            }
        };
        let ended = tokio::time::timeout(within, async {
            tokio::select! {
                () = fresh => {}
                () = stops => {}
            }
        });
        if ended.await.is_err() {
            self.violates(format!("not every grant is fresh after {within:?} without faults"));
        }
    }

    /// Terminates every replica, once nobody changes anything.
    pub(super) async fn stop_all(&self) {
        for account in &self.accounts {
            drop(account.changing.lock().await);
        }
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        join_all(kept.into_iter().map(|(replica, process)| self.replicas[replica].terminate(process))).await;
    }

    /// The refresh token that the store has of each grant.
    pub(super) async fn stored(&self) -> Vec<Option<RefreshToken>> {
        // Without identity providers it sends nothing.
        let reader = TokenSupervisor::builder()
            .store(&self.store)
            .deployment("chaos")
            .journal(self.folder.path().join("journal-of-the-reader"))
            .keyring(self.keyring.clone())
            .on_demand()
            .start()
            .await
            .unwrap();
        let mut stored = Vec::new();
        for account in &self.accounts {
            stored.push(reader.testing().stored_refresh_token(&account.key).await.unwrap());
        }
        stop(reader).await;
        stored
    }

    pub(super) fn judge_the_logs(&self, replicas: &[usize]) {
        replicas.iter().for_each(|replica| self.replicas[*replica].judge_the_log());
    }
}

/// The URL of the store by way of a proxy.
fn through(store: &str, proxy: &Proxy) -> String {
    let mut url = Url::parse(store).unwrap();
    url.set_port(Some(proxy.port)).unwrap();
    url.into()
}

impl Drop for World {
    /// When something was lost, everything is kept that may tell why.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            let folder: &Path = self.folder.path();
            eprintln!("configurations, journals and logs are kept in {}", folder.display());
        }
    }
}
