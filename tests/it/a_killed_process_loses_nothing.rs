//! The process is killed at every arrow of an attempt, with its disk kept or its journal lost, at providers of all
//! kinds: the next process loses nothing but what no client can keep, and spends nothing twice.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use token_supervisor::{
    Error, Keyring, Migrate, TokenKey, TokenSupervisor,
    testing::{Fault, Kind, ManualClock, Point, Profile, SimulatedIdp, Standing, StoreFault},
};

use super::support::{eventually, store_in, within};

/// Where the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kill {
    BeforeClaim,
    Claimed,
    /// While the request is under way; the provider never processes it.
    SentUnprocessed,
    /// While the answer is under way.
    SentProcessed,
    Answered,
    Committed,
    Journaled,
}

const KILLS: [Kill; 7] = [
    Kill::BeforeClaim,
    Kill::Claimed,
    Kill::SentUnprocessed,
    Kill::SentProcessed,
    Kill::Answered,
    Kill::Committed,
    Kill::Journaled,
];

impl Kill {
    /// Whether an answer existed that was persisted nowhere.
    fn loses_the_answer(self, journal_lost: bool) -> bool {
        match self {
            Self::SentProcessed | Self::Answered => true,
            Self::Journaled => journal_lost,
            Self::BeforeClaim | Self::Claimed | Self::SentUnprocessed | Self::Committed => false,
        }
    }
}

/// What the child is told.
#[derive(Serialize, Deserialize)]
struct Task {
    folder: String,
    store: String,
    token_url: String,
    kill: Kill,
}

const TASK: &str = "TOKEN_SUPERVISOR_TEST_KILLED_CHILD";

/// Not a test: the process that is killed. Does nothing unless it is told to.
#[tokio::test]
async fn the_child() {
    #[expect(clippy::disallowed_methods, reason = "how the parent tells the child what to do")]
    let Ok(task) = std::env::var(TASK) else { return };
    let Task { folder, store, token_url, kill } = serde_json::from_str(&task).unwrap();
    let keyring = Keyring::from_file(format!("{folder}/tokens.keys")).unwrap();
    let client = Profile::gitlab();
    let idp = token_supervisor::Idp::oauth2(token_url, client.client_id.clone(), client.client_secret.clone());
    let supervisor = TokenSupervisor::builder()
        .store(store)
        .journal(format!("{folder}/tokens.journal"))
        .keyring(keyring)
        .idp("idp", idp)
        .at_points(move |point| {
            let here = match kill {
                Kill::BeforeClaim => point == Point::BeforeClaim,
                Kill::Claimed => point == Point::Claimed,
                Kill::Answered => point == Point::Answered,
                Kill::Committed => point == Point::Committed,
                Kill::Journaled => point == Point::Journaled,
                Kill::SentUnprocessed | Kill::SentProcessed => false,
            };
            if here {
                std::process::abort();
            }
        })
        .start()
        .await
        .unwrap();
    if kill == Kill::Journaled {
        supervisor.testing().store_fault(StoreFault::CommitsFail);
    }
    supervisor.refresh_now(&TokenKey::at("idp").user("alice")).await.ok();
    std::future::pending::<()>().await;
}

/// Ends the child whatever happens to the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn at_every_arrow_with_the_same_disk() {
    for kill in KILLS {
        join_all(cases().map(|(kind, probe)| killed(kind, probe, kill, false))).await;
    }
}

#[tokio::test]
async fn at_every_arrow_with_the_journal_lost() {
    for kill in KILLS {
        join_all(cases().map(|(kind, probe)| killed(kind, probe, kill, true))).await;
    }
}

/// How a doubt can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Absent,
    Introspection,
    AccessToken,
}

fn cases() -> [(Kind, Probe); 7] {
    // Much longer than it takes: a machine that is busy while the clock is turned must not end it.
    let grace = Duration::from_secs(24 * 3_600);
    [
        (Kind::Strict, Probe::Absent),
        (Kind::Reject, Probe::Absent),
        (Kind::SamePair { grace }, Probe::Absent),
        (Kind::LastWins { grace }, Probe::Absent),
        (Kind::RetrySafe, Probe::Absent),
        (Kind::Strict, Probe::Introspection),
        (Kind::Reject, Probe::AccessToken),
    ]
}

async fn killed(kind: Kind, probe: Probe, kill: Kill, journal_lost: bool) {
    let case = format!("{kind:?}, {probe:?}, killed at {kill:?}, journal lost: {journal_lost}");
    let profile = Profile::oauth2(kind).ends_old_access(probe == Probe::AccessToken);
    let sim = SimulatedIdp::start(profile.access_lifetime(Duration::from_secs(600))).unwrap();
    let idp = match probe {
        Probe::Absent => sim.idp(),
        Probe::Introspection => sim.idp().introspection_url(sim.introspection_url()),
        Probe::AccessToken => sim.idp().rotation_ends_access_token(true).userinfo_url(sim.userinfo_url()),
    };
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let keyring = Keyring::generate();
    keyring.write_new(path("tokens.keys")).unwrap();
    let key = TokenKey::at("idp").user("alice");
    // The next process lives by a clock of its own, so that waiting costs no time.
    #[expect(clippy::disallowed_methods, reason = "the child and the provider live by the machine's clock")]
    let clock = ManualClock::new(std::time::SystemTime::now());
    let store = store_in(folder.path());
    let start = || {
        let builder = TokenSupervisor::builder().store(&store).migrate(Migrate::Auto).journal(path("tokens.journal"));
        builder.keyring(keyring.clone()).idp("idp", idp.clone()).clock(&clock).start()
    };

    let supervisor = start().await.unwrap();
    supervisor.connect(&key, sim.consent("alice")).await.unwrap();
    crate::support::stop(supervisor).await;
    match kill {
        Kill::SentUnprocessed => sim.next(Fault::Hang),
        Kill::SentProcessed => sim.next(Fault::HangAfter),
        _ => {}
    }
    let store = store.clone();
    let task = Task { folder: folder.path().to_str().unwrap().to_owned(), store, token_url: sim.token_url(), kill };
    let module = module_path!().split_once("::").unwrap().1;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::the_child"), "--nocapture"])
        .env(TASK, serde_json::to_string(&task).unwrap())
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    if matches!(kill, Kill::SentUnprocessed | Kill::SentProcessed) {
        eventually("the request is under way", || sim.requests() == 1).await;
    } else {
        let ended = std::cell::RefCell::new(&mut child.0);
        eventually("the process ends itself", || ended.borrow_mut().try_wait().unwrap().is_some()).await;
    }
    drop(child);
    if journal_lost {
        std::fs::remove_dir_all(path("tokens.journal")).unwrap();
    }

    let supervisor = start().await.unwrap();
    let refreshed = tokio::spawn({
        let (supervisor, key) = (supervisor.clone(), key.clone());
        async move {
            // Until the first process's doubt has ended, whichever way.
            loop {
                let answer = supervisor.refresh_now(&key).await;
                if !answer.as_ref().is_err_and(Error::is_transient) {
                    return answer;
                }
            }
        }
    });
    eventually("every doubt ends", || {
        clock.advance(Duration::from_millis(500));
        refreshed.is_finished()
    })
    .await;
    let refreshed = refreshed.await.unwrap();
    let forgives = kind == Kind::RetrySafe || kind.grace().is_some();
    // Without its journal nobody knows whether it sends, but the provider may say that it has sent nothing.
    let unspent = probe != Probe::Absent && matches!(kill, Kill::Claimed | Kill::SentUnprocessed);
    let asked_the_user = journal_lost && !forgives && !unspent && !matches!(kill, Kill::BeforeClaim | Kill::Committed);
    if asked_the_user || (!forgives && kill.loses_the_answer(journal_lost)) {
        // Without a grace an answer that nobody has is lost, and without the journal nobody knows whether there was one.
        assert!(matches!(refreshed, Err(Error::ReconnectRequired { .. })), "{case}: {refreshed:?}");
        let requests = sim.requests();
        for _ in 0..10 {
            clock.advance(Duration::from_secs(600));
            assert!(matches!(within(supervisor.token(&key)).await, Err(Error::ReconnectRequired { .. })), "{case}");
        }
        assert_eq!(sim.requests(), requests, "{case}: it is not asked again and again");
        if asked_the_user || probe == Probe::Introspection {
            assert_eq!(sim.duplicate_spends(), 0, "{case}");
        }
    } else {
        refreshed.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(sim.duplicate_spends(), 0, "{case}");
        crate::support::stop(supervisor).await;
        let supervisor = start().await.unwrap();
        let stored = supervisor.testing().stored_refresh_token(&key).await.unwrap();
        assert_eq!(sim.standing(&stored.unwrap()), Standing::Current, "{case}");
        crate::support::stop(supervisor).await;
    }
}
